"""Batches of hits follow each other without loss."""

import numpy as np

from pfcalib.geometry import WINDOW
from pfcalib.simulation.hits import Hits, merge_hits
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.showers import simulate_showers


def batches(rng):
    return [
        simulate_showers(simulate_gun("pi0", n, rng, energy=(0.5, 5.0)), WINDOW, rng)
        for n in (3, 1, 5)
    ]


def test_the_event_of_each_hit_follows_from_the_offsets():
    nothing = np.zeros(4)
    hits = Hits(np.array([0, 3, 3, 4]), np.zeros(4, np.int32), *[nothing] * 5, *[np.zeros(3)] * 4)
    assert hits.n_events == 3
    assert hits.event.tolist() == [0, 0, 0, 2]


def test_merged_batches_hold_all_events_in_order(rng):
    parts = batches(rng)
    merged = merge_hits(parts)
    assert merged.n_events == 9
    first = 0
    for part in parts:
        for event in range(part.n_events):
            here, there = (
                slice(h.offsets[i], h.offsets[i + 1])
                for h, i in ((merged, first + event), (part, event))
            )
            np.testing.assert_array_equal(merged.cell[here], part.cell[there])
            np.testing.assert_array_equal(merged.signal[here], part.signal[there])
        first += part.n_events
    np.testing.assert_array_equal(merged.e_total, np.concatenate([part.e_total for part in parts]))


def test_one_batch_merged_is_itself(rng):
    part = batches(rng)[0]
    for a, b in zip(merge_hits([part]), part, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
