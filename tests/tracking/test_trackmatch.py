"""Matching of tracks and particles: counted by hand, with hits of two particles."""

from __future__ import annotations

import numpy as np

from pfcalib.tracking.barrelhits import NOISE
from pfcalib.tracking.forwardhits import ForwardHits
from pfcalib.tracking.trackmatch import match_tracks, owners


def test_tracks_are_matched_as_counted_by_hand():
    # particle 0 on planes 0 to 4, particle 1 on planes 2 to 4, of which it shares one pixel with 0;
    # particle 2 on two planes
    particle = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, NOISE], np.int32)
    second = np.full(10, NOISE, np.int32)
    second[2] = 1
    layer = np.array([0, 1, 2, 3, 4, 3, 4, 0, 1, 2], np.int8)
    hits = ForwardHits(np.zeros((10, 3), np.float32), layer, particle, second)
    assert len(owners(hits)[0]) == 10
    tracks = np.array([
        [0, 1, 2, -1, -1],  # of 0
        [-1, -1, 2, 5, 6],  # of 1
        [0, 1, -1, 3, -1],  # of 0 again
        [0, 1, 2, 5, -1],  # three of four hits of 0
        [7, 8, 9, -1, -1],  # two of three hits of 2: a ghost
    ])  # fmt: skip
    found = match_tracks(tracks, hits, 3)
    assert found.wanted.tolist() == [True, True, False]
    assert found.n_tracks.tolist() == [3, 1, 0]
    assert found.is_ghost.tolist() == [False, False, False, False, True]
    np.testing.assert_allclose(found.purity, [(1.0 + 1.0 + 0.75) / 3.0, 1.0, np.nan])
    np.testing.assert_allclose(found.hit_efficiency, [0.6, 1.0, np.nan])


def test_a_track_of_shared_pixels_is_of_both_particles_and_no_tracks_match_nothing():
    both = ForwardHits(
        np.zeros((3, 3), np.float32), np.arange(3, dtype=np.int8), np.zeros(3, np.int32),
        np.ones(3, np.int32),
    )  # fmt: skip
    assert match_tracks(np.array([[0, 1, 2]]), both, 2).n_tracks.tolist() == [1, 1]
    none = match_tracks(np.zeros((0, 3), np.int64), both, 2)
    assert none.n_tracks.tolist() == [0, 0]
    assert len(none.is_ghost) == 0
