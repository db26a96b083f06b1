"""The learned metric: its pairs, its loss, a training that gathers hits of a particle."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import BarrelConfig, simulate_barrel_events
from pfcalib.tracking.hitmetric import (
    PAIR,
    MetricConfig,
    TripletLoss,
    apply_metric,
    fit_metric,
    pairs,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = MetricConfig(
    widths=(16,), n_out=4,
    train=TrainConfig(loss="mae", learning_rate=0.003, batch_size=128, epochs=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def events():
    return simulate_barrel_events(BarrelConfig(n_events=3, n_tracks=60, chunk=3, seed=5), 0)


def test_pairs_are_hits_of_one_particle_not_far_along_it(events):
    feed, zeros = pairs(events, np.array([1, 2]), SMALL, per_hit=2)
    owner = {}
    for number in (1, 2):
        hits = events.event(number)
        for place, layer, particle in zip(*hits, strict=True):
            owner[tuple(place)] = (number, particle, layer)
    a, b = ([owner[tuple(place)] for place in feed[part]] for part in PAIR)
    assert [one[:2] for one in a] == [one[:2] for one in b]
    assert all(one != other for one, other in zip(a, b, strict=True))
    steps = [abs(int(one[2]) - int(other[2])) for one, other in zip(a, b, strict=True)]
    assert np.mean(np.array(steps) <= SMALL.reach) > 0.9  # but for hits that were missed
    names = dict(zip([one[:2] for one in a], feed["particle"][:, 0], strict=True))
    assert len(set(names.values())) == len(names)
    assert len(zeros) > 1.5 * sum(np.sum(events.event(n).particle >= 0) for n in (1, 2))


def test_the_loss_holds_the_own_particle_against_the_nearest_other_one_of_the_batch():
    first = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 0.1]], np.float32)
    second = np.array([[0.3, 0.0], [0.6, 0.0], [0.0, 0.2]], np.float32)
    particle = np.array([[1.0], [2.0], [1.0]], np.float32)
    near, far = np.array([0.09, 1.96, 0.01]), np.array([0.36, 2.89, 0.37])
    found = np.asarray(TripletLoss()(first, second, particle))[:, 0]
    assert found == pytest.approx(near / (near + far), rel=1e-4)
    assert np.asarray(TripletLoss()(5.0 * first, 5.0 * second, particle))[:, 0] == pytest.approx(
        found, rel=1e-4
    )


def test_a_metric_learns_is_exported_and_found_again(events, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    data = [pairs(events, np.array(of), SMALL) for of in ([0, 1], [2])]
    said = []
    kept = fit_metric(SMALL, *data, events={"seed": 5}, say=said.append)
    assert kept.result.history["loss"][-1] < kept.result.history["loss"][0]
    assert check_stored_model(kept.path).passed
    vectors = apply_metric(kept.model, events.event(2).position)
    assert vectors.shape == (events.n_hits[2], SMALL.n_out)
    fit_metric(SMALL, *data, events={"seed": 5}, say=said.append)
    assert len(said) == 3


@pytest.mark.parametrize("wrong", [{"train": TrainConfig()}, {"n_out": 3}, {"reach": 0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="MetricConfig"):
        MetricConfig(**wrong)
