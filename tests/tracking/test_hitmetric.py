"""The learned metric: its triplets, its loss, a training that gathers hits of a particle."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import BarrelConfig, simulate_barrel_events
from pfcalib.tracking.hitmetric import (
    PARTS,
    MetricConfig,
    TripletLoss,
    apply_metric,
    fit_metric,
    triplets,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = MetricConfig(
    widths=(16,), n_out=4, n_near=10, far=0.0,
    train=TrainConfig(loss="mae", learning_rate=0.01, batch_size=128, epochs=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def events():
    return simulate_barrel_events(BarrelConfig(n_events=3, n_tracks=60, chunk=3, seed=5), 0)


def test_triplets_are_of_one_particle_and_of_a_near_other_one(events):
    feed, zeros = triplets(events, np.array([1]), SMALL, per_hit=2)
    hits = events.event(1)
    owner = {
        tuple(place): particle for place, particle in zip(hits.position, hits.particle, strict=True)
    }
    a, p, n = ([owner[tuple(place)] for place in feed[part]] for part in PARTS)
    assert a == p
    assert all(mine != other for mine, other in zip(a, n, strict=True))
    assert not np.any(np.all(feed["anchor"] == feed["positive"], axis=1))
    assert len(zeros) > 1.5 * np.sum(hits.particle >= 0)
    cosine = np.sum(feed["anchor"] * feed["negative"], axis=1)
    cosine /= np.linalg.norm(feed["anchor"], axis=1) * np.linalg.norm(feed["negative"], axis=1)
    assert np.median(cosine) > 0.9


def test_the_loss_is_the_share_of_the_squared_distance_to_the_own_particle():
    a, p = np.array([[0.0, 1.0]], np.float32), np.array([[0.3, 1.0]], np.float32)
    for away, expected in ((0.1, 0.9), (0.3, 0.5), (0.9, 0.1)):
        n = np.array([[-away, 1.0]], np.float32)
        assert float(TripletLoss()(a, p, n)[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_a_metric_learns_is_exported_and_found_again(events, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    data = [triplets(events, np.array(of), SMALL) for of in ([0, 1], [2])]
    said = []
    kept = fit_metric(SMALL, *data, events={"seed": 5}, say=said.append)
    assert kept.result.history["val_loss"][-1] < kept.result.history["val_loss"][0]
    assert check_stored_model(kept.path).passed
    vectors = apply_metric(kept.model, events.event(2).position)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    fit_metric(SMALL, *data, events={"seed": 5}, say=said.append)
    assert len(said) == 3


@pytest.mark.parametrize("wrong", [{"train": TrainConfig()}, {"n_out": 0}, {"far": 1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="MetricConfig"):
        MetricConfig(**wrong)
