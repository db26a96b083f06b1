"""Jets of a sample belong to their events, splits and partons, however they were made."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from pfcalib.cache import cache_folder
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.jets import jetsample
from pfcalib.jets.jetsample import (
    GLUON,
    NO_PARTON,
    JetSampleConfig,
    _nearest_parton,
    cached_jets,
    read_jets,
    simulate_part,
)
from pfcalib.jets.jetvariables import LAYERS, PILE_UP, POINT
from pfcalib.samples.split import SPLITS

TINY = JetSampleConfig(
    n_parts=3, chunk=4, mus=(0.0,), pt_hat=(60.0, 90.0), shares=(1, 1, 1), large_pt_min=40.0
)


@pytest.fixture(scope="module")
def part():
    return simulate_part(TINY, 1)


def test_parts_take_turns_in_pile_up_and_split_and_the_test_split_has_its_own_minimum_bias():
    config = JetSampleConfig(n_parts=8, mus=(20.0, 40.0), shares=(2, 1, 1))
    assert [SPLITS[config.split(i)] for i in range(8)] == [
        *("train",) * 4, *("validation",) * 2, *("test",) * 2
    ]  # fmt: skip
    events = [config.events(i) for i in range(8)]
    assert [of.mu for of in events[:3]] == [20.0, 40.0, 20.0]
    assert len({of.seed for of in events}) == 8
    pools = [of.pool_seed for of in events]
    assert len(set(pools[:6])) == 1
    assert not set(pools[:6]) & set(pools[6:])


def test_a_sample_without_all_splits_is_refused():
    with pytest.raises(ConfigError, match="at least 3"):
        JetSampleConfig(n_parts=2, mus=(0.0,), shares=(1, 1, 1))


def test_columns_are_of_one_length_and_constituents_make_the_jet(part):
    sizes = {len(values) for name, values in part.items() if name.startswith("jets/")}
    assert len(sizes) == 1
    assert min(sizes) >= 2
    assert np.all(part["jets/split"] == SPLITS.index("validation"))
    np.testing.assert_allclose(sum(part[f"jets/{name}"] for name in LAYERS), 1.0)
    ends = np.cumsum(part["n_points"])
    for i, stop in enumerate(ends):
        pt, _, d_phi, kind, _ = part["points"][stop - part["n_points"][i] : stop].T
        own = kind != PILE_UP
        sums = np.hypot((pt * np.cos(d_phi))[own].sum(), (pt * np.sin(d_phi))[own].sum())
        if len(pt) < TINY.n_points:
            assert sums == pytest.approx(part["jets/pt_raw"][i], rel=1e-5)


def test_hard_jets_hold_a_parton_and_large_ones_all_that_small_ones_do(part):
    kinds = part["jets/parton"][part["jets/pt_true"] > 40.0]
    assert len(kinds)
    assert np.all(np.isin(kinds, [1, 2, 3, 4, 5, GLUON]))
    for event, pt in zip(part["large/event"], part["large/pt_true"], strict=True):
        inside = part["jets/event"] == event
        assert not inside.any() or pt > 0.8 * part["jets/pt_true"][inside].min()


def test_the_nearest_parton_within_the_radius_counts():
    partons = np.array([[[GLUON, 0.0, 3.1], [2.0, 0.0, 0.0]]] * 3)
    found = _nearest_parton(partons, np.array([0.1, 0.0, 0.0]), np.array([-3.1, 0.1, 1.5]), 0.4)
    assert found.tolist() == [GLUON, 2.0, NO_PARTON]


def test_collisions_of_other_events_are_told(monkeypatch):
    collide = jetsample._collide
    monkeypatch.setattr(
        jetsample, "_collide", lambda config, chunk: collide(config, chunk._replace(number=7))
    )
    with pytest.raises(ValidationError, match="not the collision of its seed"):
        simulate_part(TINY, 0)


def test_two_processes_make_what_one_does(part, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    found = read_jets(cached_jets(dataclasses.replace(TINY, n_processes=2)))
    for name, values in found.jets.items():
        of_part = values[found.jets["split"] == TINY.split(1)]
        np.testing.assert_array_equal(of_part, part[f"jets/{name}"])
    assert len(found.points) == found.offsets[-1]
    assert not list((cache_folder() / "jets").glob("*.parts"))


def test_parts_that_a_killed_call_has_left_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    made = []

    def simulate(config, number):
        made.append(number)
        if made == [0, 1]:
            raise KeyboardInterrupt
        one = np.array([float(number)])
        points = np.full((number, len(POINT)), number, dtype=np.float32)
        return {"jets/pt": one, "large/pt": one, "n_points": np.array([number]), "points": points}

    monkeypatch.setattr(jetsample, "simulate_part", simulate)
    with pytest.raises(KeyboardInterrupt):
        cached_jets(TINY)
    found = read_jets(cached_jets(TINY))
    assert made == [0, 1, 1, 2]
    assert found.jets["pt"].tolist() == [0.0, 1.0, 2.0]
    assert found.offsets.tolist() == [0, 0, 1, 3]
    assert found.points[:, 0].tolist() == [1.0, 2.0, 2.0]
