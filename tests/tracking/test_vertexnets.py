"""Networks of vertices: the published loss, intervals, what order and padding must not change, and
a training with its export.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.tracking.beamline import SIGMA, Z0, BeamLineConfig, simulate_beam_events
from pfcalib.tracking.vertexdensity import BIN, N_BINS, Z_MIN, density, targets
from pfcalib.tracking.vertexnets import (
    ASYMMETRY,
    EPSILON,
    INTERVAL,
    RatioLoss,
    VertexNetConfig,
    apply_vertex_net,
    build_vertex_net,
    fit_vertex_net,
    intervals,
    training_arrays,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TRAIN = TrainConfig(loss="mae", learning_rate=0.01, batch_size=8, epochs=2)
UNET = VertexNetConfig(kind="unet", widths=(4, 4), kernels=(5,), train=TRAIN)
TRACKS = VertexNetConfig(
    kind="tracks", widths=(6,), kernels=(9,), latent=(8, 4), n_tracks=24, train=TRAIN
)


@pytest.fixture(scope="module")
def events():
    return simulate_beam_events(BeamLineConfig(n_events=16, seed=4), 0)


def test_the_loss_is_the_published_one_for_bins_that_count(rng):
    x, y = rng.exponential(0.1, (2, 3, 40))
    y[:, 20:] = 0.0
    counts = (rng.random((3, 40)) < 0.8).astype(np.float32)
    r = (x + EPSILON) / (y + EPSILON)
    known = -np.log(2.0 * r / (r**2 + 1.0)) * (1.0 + ASYMMETRY * np.exp(-r)) * counts
    found = RatioLoss()(*(a.astype(np.float32) for a in (np.log(x + EPSILON), y, counts)))
    assert np.asarray(found)[:, 0] == pytest.approx(known.mean(axis=1), rel=1e-4)


def test_intervals_hold_the_tracks_that_pass_them(events):
    tracks, place = intervals(events, 400)
    n = N_BINS // INTERVAL
    filled = tracks[..., SIGMA] > 0.0
    row = np.argmax(filled.sum(axis=1))
    event, number = divmod(int(place[row]), n)
    mine = events.tracks[slice(*events.ends[event : event + 2])].astype(float)
    low, high = Z_MIN + BIN * INTERVAL * number - 1.0, Z_MIN + BIN * INTERVAL * (number + 1) + 1.0
    away = np.maximum(np.maximum(low - mine[:, Z0], mine[:, Z0] - high), 0.0)
    passing = away < (0.3 + 3.0 * mine[:, SIGMA]) / np.abs(mine[:, 2])
    assert filled[row].sum() == passing.sum()
    z0 = np.sort(tracks[row, filled[row], Z0] + low + 1.0)
    assert z0 == pytest.approx(np.sort(mine[passing, Z0]), abs=1e-3)
    few, same = intervals(events, 5)
    assert (few[..., SIGMA] > 0.0).sum(axis=1).max() == 5
    np.testing.assert_array_equal(same, place)


def test_order_and_padding_of_tracks_change_nothing(events, rng):
    model = build_vertex_net(TRACKS)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])
    tracks, _ = intervals(events, 24)
    tracks[:, 20:] = 0.0
    mixed = tracks[:, rng.permutation(24)]
    first, second = (np.asarray(model({"tracks": of[:6]})) for of in (tracks, mixed))
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-6)
    assert np.ptp(first) > 0.0


@pytest.mark.parametrize("config", [UNET, TRACKS], ids=["unet", "tracks"])
def test_a_network_learns_is_exported_and_found_again(config, events, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    inputs, place = (
        intervals(events, config.n_tracks) if config.kind == "tracks" else (density(events), None)
    )
    data = training_arrays(config, inputs, targets(events), place)
    said = []
    kept = fit_vertex_net(config, data, data, events={"seed": 4}, say=said.append)
    assert len(said) == 2
    assert kept.result.history["val_loss"][-1] < kept.result.history["loss"][0]
    assert check_stored_model(kept.path).passed
    found = apply_vertex_net(kept.model, inputs, place=place, n_events=16)
    assert found.shape == (16, N_BINS)
    assert (found >= 0.0).all()
    fit_vertex_net(config, data, data, events={"seed": 4}, say=said.append)
    assert len(said) == 2


@pytest.mark.parametrize("wrong", [{"kind": "none"}, {"train": TrainConfig()}, {"n_tracks": 0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="VertexNetConfig"):
        VertexNetConfig(**wrong)
