"""Corrections of the energy loss: splines and networks learn what is there, and files agree."""

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.tpc.dedx import PidConfig, TpcTracks, distortion, expected_signal, simulate_tracks
from pfcalib.tpc.pidnets import PidNetConfig, Uncorrected, fit_networks, fit_splines, n_sigma
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_splines_learn_a_sum_of_functions():
    tracks = simulate_tracks(PidConfig(n_tracks=20_000, distorted=False))
    mean = 1.0 + 0.05 * np.sin(np.log(tracks.momentum)) - 0.1 * tracks.multiplicity**2
    expected = expected_signal(tracks.momentum / tracks.mass)
    noise = 0.02 * (1.0 + tracks.occupancy)
    noise *= np.random.default_rng(1).standard_normal(len(mean))
    known = TpcTracks(tracks.columns, (mean + noise) * expected)
    splines = fit_splines(known, n_knots=8)
    # some 60 coefficients from the 2,000 tracks of the rarest kind: 0.028 (60 / 2000)^(1/2)
    assert np.std(splines.mean(known) - mean) < 0.005
    z = n_sigma(splines, known)
    assert z.std() == pytest.approx(1.0, abs=0.03)
    busy = known.occupancy > 0.6
    assert z[busy].std() == pytest.approx(1.0, abs=0.06)


def test_networks_come_nearer_to_the_truth_and_their_files_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    training, held_out = (simulate_tracks(PidConfig(n_tracks=20_000, seed=s)) for s in (1, 2))
    config = PidNetConfig(
        n_layers=3, width=16, train=TrainConfig(
            learning_rate=5e-3, batch_size=256, epochs=4, patience=4, schedule="cosine_steps",
            loss="mse",
        ),
    )  # fmt: skip
    networks = fit_networks(training, held_out, config, inputs="toy", say=lambda line: None)
    true, _ = distortion(held_out)
    off, bare = (np.std(of.mean(held_out) - true) for of in (networks, Uncorrected()))
    assert off < 0.7 * bare
    assert n_sigma(networks, held_out).std() == pytest.approx(1.0, abs=0.08)
    for kept in networks:
        assert check_stored_model(kept.path).passed
    lines = []
    again = fit_networks(training, held_out, config, inputs="toy", say=lines.append)
    assert not lines
    np.testing.assert_array_equal(again.mean(held_out), networks.mean(held_out))
