"""The finder of tracks: circles, all tracks of a quiet event, none that is made up, and marks."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import BarrelConfig, Hits, simulate_barrel_events
from pfcalib.tracking.buckets import build_index, find_buckets, unit
from pfcalib.tracking.trackfinder import (
    FinderConfig,
    circle,
    find_tracks,
    judge_tracks,
    whole_event,
)


@pytest.fixture(scope="module")
def hits():
    return simulate_barrel_events(BarrelConfig(n_events=1, n_tracks=80, chunk=1, seed=9), 0).event(
        0
    )


def test_a_circle_goes_through_its_three_points(rng):
    centre, radius = np.array([300.0, -120.0]), 450.0
    angles = np.array([0.1, 0.3, 0.7])
    points = centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])
    curve, x, y = circle(*points)
    assert (1.0 / curve, x, y) == pytest.approx((radius, *centre))
    assert circle(*points[::-1])[0] == pytest.approx(-1.0 / radius)
    line = np.array([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    assert np.isfinite(circle(*line)).all()


def test_a_quiet_event_is_found_whole_with_and_without_buckets(hits):
    vectors = unit(hits.position)
    queries = np.flatnonzero(np.isin(hits.layer, (3, 5)))
    buckets = find_buckets(build_index(vectors, kind="tree"), vectors, queries, 50)
    for where in ((buckets, queries), whole_event(hits)):
        tracks = find_tracks(hits, *where, FinderConfig())
        outcome = judge_tracks(tracks, hits, 80)
        assert outcome.found[outcome.wanted].mean() > 0.97
        assert outcome.n_fakes + outcome.n_clones <= 1
        layer = np.where(tracks >= 0, hits.layer[tracks], np.arange(tracks.shape[1]))
        assert (layer == np.arange(tracks.shape[1])).all()
        used = tracks[tracks >= 0]
        assert len(np.unique(used)) == len(used)
        assert (np.sum(tracks >= 0, axis=1) >= 4).all()


def test_hits_of_nothing_make_no_track(rng):
    noise = simulate_barrel_events(BarrelConfig(n_events=1, n_tracks=80, chunk=1, seed=9), 0).event(
        0
    )
    phi = rng.uniform(-np.pi, np.pi, len(noise.layer))
    radius = np.hypot(*noise.position[:, :2].T)
    mixed = np.column_stack([radius * np.cos(phi), radius * np.sin(phi), noise.position[:, 2]])
    tracks = find_tracks(
        Hits(mixed.astype(np.float32), noise.layer, noise.particle), *whole_event(noise),
        FinderConfig(passes=(6,)),
    )  # fmt: skip
    assert len(tracks) <= 1


def test_tracks_are_judged_by_the_share_of_their_hits():
    """Of four tracks one is right, one a clone, one mixed, one of noise."""
    particle = np.array([0] * 6 + [1] * 4 + [-1] * 4, np.int32)
    hits = Hits(np.zeros((14, 3), np.float32), np.zeros(14, np.int8), particle)
    tracks = np.array([[0, 1, 2, 6], [3, 4, 5, -1], [7, 8, 10, 11], [12, 13, -1, -1]])
    outcome = judge_tracks(tracks, hits, 3)
    assert outcome.found.tolist() == [True, False, False]
    assert outcome.wanted.tolist() == [True, True, False]
    assert (outcome.n_fakes, outcome.n_clones, outcome.n_tracks) == (2, 1, 4)


@pytest.mark.parametrize("wrong", [{"passes": ()}, {"passes": (2,)}, {"width": 0.0}, {"skip": -1}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="FinderConfig"):
        FinderConfig(**wrong)
