"""Collisions on a beam line: numbers and widths by formula, tracks that point to where they start,
and processes that change nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.beamline import (
    PHI,
    SIGMA,
    SLOPE,
    Z0,
    BeamLineConfig,
    D,
    cached_beam_events,
    levy,
    measure_tracks,
    read_beam_events,
    simulate_beam_events,
)

CONFIG = BeamLineConfig(n_events=600, chunk=300, seed=3)


@pytest.fixture(scope="module")
def events():
    return simulate_beam_events(BeamLineConfig(n_events=1000, seed=2), 0)


def distances(tracks, points):
    """Of points from tracks across them, in widths; (n, 2)."""
    cos, sin = np.cos(tracks[:, PHI]), np.sin(tracks[:, PHI])
    across = points[:, 1] * cos - points[:, 0] * sin - tracks[:, D]
    u = points[:, 0] * cos + points[:, 1] * sin
    inside = u - tracks[:, SLOPE] * (points[:, 2] - tracks[:, Z0])
    inside = inside / np.hypot(1.0, tracks[:, SLOPE])
    return np.column_stack([across, inside]) / tracks[:, SIGMA, None]


def test_numbers_and_places_of_the_collisions_are_the_published_ones(events):
    n = len(events.vertices)
    assert events.n_vertices.mean() == pytest.approx(7.6, abs=4.0 * np.sqrt(7.6 / 1000))
    assert events.vertices.mean(axis=0) == pytest.approx([0.0, 0.0, 100.0], abs=4.0)
    assert events.vertices.std(axis=0) == pytest.approx([0.055, 0.055, 63.0], rel=4 / np.sqrt(n))
    visible = np.sum(events.n_prompt >= 5) / 1000
    assert visible == pytest.approx(5.6, abs=0.4)  # published


def test_the_tracks_of_a_collision_are_a_negative_binomial(events):
    config = BeamLineConfig(displaced=0.0, secondaries=0.0, seed=5, n_events=1000)
    n = simulate_beam_events(config, 0).n_prompt
    variance = config.tracks + config.tracks**2 / config.shape
    assert n.mean() == pytest.approx(config.tracks, abs=4.0 * np.sqrt(variance / len(n)))
    assert n.var() == pytest.approx(variance, rel=0.15)
    assert (n == 0).mean() == pytest.approx(
        (config.shape / (config.shape + config.tracks)) ** config.shape, abs=0.02
    )


def test_prompt_tracks_miss_their_collision_by_their_width_and_others_by_more(events):
    first = np.repeat(events.vertex_ends[:-1], events.n_tracks)
    pulls = distances(events.tracks.astype(float), events.vertices[first + events.origin])
    prompt = pulls[events.is_prompt]
    assert prompt.mean(axis=0) == pytest.approx([0.0, 0.0], abs=0.02)
    assert prompt.std(axis=0) == pytest.approx([1.0, 1.0], abs=0.02)
    assert np.median(np.hypot(*pulls[~events.is_prompt].T)) > 3.0
    assert events.n_prompt.sum() == events.is_prompt.sum()


@pytest.mark.parametrize("eta", [-2.5, 3.0])
def test_a_track_without_an_error_goes_through_its_start(eta, rng):
    start = np.array([[0.3, -0.2, 50.0]])
    track = measure_tracks(start, [eta], [0.7], [1e-12], rng)
    assert distances(track * [1, 1, 1, 1, 0] + [0, 0, 0, 0, 1], start) == pytest.approx(
        0.0, abs=1e-9
    )
    assert track[0, SLOPE] == pytest.approx(1.0 / np.sinh(eta))


def test_momenta_follow_the_formula(rng):
    pt = np.linspace(0.05, 20.0, 200_001)
    mass = 0.1396
    density = pt * (1.0 + (np.hypot(pt, mass) - mass) / (6.6 * 0.145)) ** -6.6
    expected = np.sum(pt * density) / np.sum(density)
    assert levy(100_000, rng).mean() == pytest.approx(expected, rel=0.01)


def test_processes_and_parts_of_events_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    found = read_beam_events(cached_beam_events(CONFIG, n_processes=2))
    parts = [simulate_beam_events(CONFIG, number) for number in range(2)]
    for array, *of_parts in zip(found, *parts, strict=True):
        np.testing.assert_array_equal(array, np.concatenate(of_parts))
    second = found.take(np.arange(600) >= 300)
    np.testing.assert_array_equal(second.tracks, parts[1].tracks)
    np.testing.assert_array_equal(second.vertices, parts[1].vertices)
    assert found.ends[-1] == len(found.tracks)


@pytest.mark.parametrize("wrong", [{"n_events": 0}, {"displaced": 1.0}, {"mu": -1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="BeamLineConfig"):
        BeamLineConfig(**wrong)
