"""Mistakes of a subtraction are those that a loop over all cells counts, and none in the ideal
case.
"""

import numpy as np
import pytest
from particleflow.hand_made import CELLS, random_event
from studies.flow_particles import among, judge, judge_all

from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.methods import build_method

RINGS, TRUTH = build_method("rings"), build_method("truth")


def count(event, objects):
    """GeV left and removed by mistake, cell by cell."""
    clusters, truth, sets = event.clusters, event.truth, objects.matches.sets
    of_tracks = set(event.tracks.particle[objects.charged].tolist())
    left = removed = 0.0
    for entry, cell in enumerate(clusters.cell):
        charged = neutral = 0.0
        for hit in np.flatnonzero(truth.hit_cell == cell):
            signal = truth.hit_signal[hit] * clusters.weight[entry]
            if truth.hit_particle[hit] in of_tracks:
                charged += signal
            else:
                neutral += signal
        taken = objects.removed[sets.entry == entry].sum()
        left += min(max(charged - taken, 0.0), charged)
        removed += min(max(taken - charged, 0.0), neutral)
    return left, removed


def test_mistakes_are_those_of_a_plain_count(rng):
    n_mistakes = 0
    for _ in range(30):
        event = random_event(rng, n_clusters=3)
        objects = run_flow(event, CELLS, RINGS)
        found, (left, removed) = judge(event, objects), count(event, objects)
        assert found.left.sum() == pytest.approx(left, abs=1e-9)
        assert found.over.sum() == pytest.approx(removed, abs=1e-9)
        n_mistakes += (left > 0.1) + (removed > 0.1)
    assert n_mistakes > 10


def test_the_ideal_case_makes_no_mistakes(rng):
    found = judge_all([random_event(rng) for _ in range(20)], CELLS, TRUTH)
    assert found.true.sum() > 10.0
    np.testing.assert_allclose(found.left, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.over, 0.0, atol=1e-12)


def test_tracks_of_one_method_are_found_among_those_of_another(rng):
    """Rings use no track in dense surroundings, truth all but those without energy."""
    events = [random_event(rng)._replace(number=number) for number in range(20)]
    rings, truth = (judge_all(events, CELLS, method) for method in (RINGS, TRUTH))
    common = among(truth, rings)
    expected = set(zip(rings.event, rings.track, strict=True))
    assert set(zip(common.event, common.track, strict=True)) == expected
    both = among(rings, common)
    np.testing.assert_array_equal(both.track, rings.track)
    dropped = among(truth, judge_all(events[::2], CELLS, TRUTH))
    assert set(dropped.event) == set(range(0, 20, 2))
