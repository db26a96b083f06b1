"""Search by triplet: it finds all of clean tracks, whichever way they go, bridges one hole, keeps
a track of three hits only if its line is straight, and does not depend on where azimuth begins.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.forwardhits import PLANES, ForwardConfig, ForwardHits, simulate_forward_events
from pfcalib.tracking.trackmatch import match_tracks
from pfcalib.tracking.tripletsearch import SearchConfig, line_residual, search_tracks

SPARSE = ForwardConfig(
    n_events=4, mu=0.5, chunk=4, seed=4, thickness=1e-5, noise=0.0, efficiency=1.0, electrons=0.0,
    photons=0.0, shape=5.0,
)  # fmt: skip


def line(slope, planes, start=(0.3, -0.2, -40.0)):
    z = np.array(PLANES)[planes]
    xy = np.array(start[:2]) + (z - start[2])[:, None] * np.array(slope)
    return np.column_stack([xy, z])


def hits_of(*lines, planes):
    n = [len(one) for one in lines]
    return ForwardHits(
        np.concatenate(lines).astype(np.float32), np.concatenate(planes).astype(np.int8),
        np.repeat(np.arange(len(n)), n).astype(np.int32), np.full(sum(n), -1, np.int32),
    )  # fmt: skip


def test_all_of_few_clean_tracks_are_found_without_ghosts():
    events = simulate_forward_events(SPARSE, 0)
    wanted = found = 0
    for number in range(4):
        hits = events.event(number)
        tracks = search_tracks(hits, len(PLANES), SearchConfig())
        matched = match_tracks(tracks, hits, events.n_particles[number])
        pion = events.kind[events.particles(number)] == 0
        wanted += np.sum(matched.wanted & pion)
        found += np.sum(matched.wanted & pion & (matched.n_tracks > 0))
        assert not matched.is_ghost.any()
    assert wanted > 20
    assert found == wanted


@pytest.mark.parametrize(("planes", "n"), [
    ([10, 12, 13, 14], 4), ([10, 13, 14, 15], 3), ([10, 11, 14, 15], 0), ([0, 1, 2], 3),
    ([23, 24, 25], 3),
])  # fmt: skip
def test_one_plane_may_be_missing_behind_a_seed_and_the_ends_are_reached(planes, n):
    hits = hits_of(line((0.05, 0.02), planes), planes=[planes])
    assert (search_tracks(hits, len(PLANES), SearchConfig()) >= 0).sum() == n


def test_three_hits_must_be_straight():
    planes = [10, 11, 12]
    places = line((0.05, 0.02), planes)
    assert line_residual(places) == pytest.approx(0.0, abs=1e-12)
    places[1, 0] += 0.1
    assert line_residual(places) == pytest.approx(0.1**2 * 2.0 / 3.0)  # its part along (1, -2, 1)
    hits = hits_of(places, planes=[planes])
    straight, loose = (SearchConfig(chi2=of) for of in (5.0, 20.0))
    assert len(search_tracks(hits, len(PLANES), straight)) == 0
    assert len(search_tracks(hits, len(PLANES), loose)) == 1


def test_azimuth_may_begin_anywhere():
    events = simulate_forward_events(ForwardConfig(n_events=1, mu=3.0, chunk=1, seed=6), 0)
    hits = events.event(0)
    config = SearchConfig(candidates=1000, phi=0.1)
    tracks = {tuple(row) for row in search_tracks(hits, len(PLANES), config)}
    for angle in (1.0, 2.5):
        c, s = np.cos(angle), np.sin(angle)
        turned = hits.position @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        again = search_tracks(hits._replace(position=turned), len(PLANES), config)
        same = len(tracks & {tuple(row) for row in again})
        assert same > 0.95 * max(len(tracks), len(again))  # the order of seeds is another


@pytest.mark.parametrize("wrong", [{"phi": 0.0}, {"skip": -1}, {"chi2": 0.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="SearchConfig"):
        SearchConfig(**wrong)
