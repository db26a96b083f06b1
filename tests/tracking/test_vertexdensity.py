"""Density of tracks along the beam, targets and peaks, against sums that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.tracking.beamline import BeamLineConfig, measure_tracks, simulate_beam_events
from pfcalib.tracking.vertexdensity import (
    BIN,
    N_BINS,
    Z_MIN,
    density,
    find_peaks,
    kernel,
    targets,
    track_density,
    z_resolution,
)


@pytest.fixture(scope="module")
def events():
    return simulate_beam_events(BeamLineConfig(n_events=8, seed=4), 0)


def total(tracks, x, y, z):
    """Sum of exp(-chi2 / 2) and of its square at one place."""
    d, phi, slope, z0, sigma = tracks.T
    u = slope * (z - z0)
    near = (np.abs(u) < 0.3 + 3.0 * sigma) & (np.abs(d) < 0.3 + 3.0 * sigma)
    at_x, at_y = u * np.cos(phi) - d * np.sin(phi), u * np.sin(phi) + d * np.cos(phi)
    p = np.exp(-0.5 * ((at_x - x) ** 2 + (at_y - y) ** 2) / sigma**2) * near
    return p.sum(), (p**2).sum()


def test_the_density_is_the_largest_sum_across_the_beam(events):
    tracks = events.tracks[: events.n_tracks[0]].astype(float)
    found = track_density(tracks)
    grid = np.linspace(-0.2, 0.2, 41)
    for k in np.argsort(-found[:, 0])[:200:40]:
        z = Z_MIN + BIN * (k + 0.5)
        assert total(tracks, *found[k, 2:], z) == pytest.approx(tuple(found[k, :2]))
        best = max(total(tracks, x, y, z)[0] for x in grid for y in grid)
        assert found[k, 0] > 0.98 * best


def test_where_no_track_passes_there_is_nothing_and_one_track_makes_no_vertex(rng):
    track = measure_tracks(np.array([[0.0, 0.0, 10.0]]), [2.0], [0.3], [1e-9], rng)
    track[0, 4] = 0.03
    found = track_density(track)
    assert found[int((10.0 - Z_MIN) / BIN), 0] == pytest.approx(1.0, abs=0.01)
    assert np.count_nonzero(found[:, 0]) < 60
    assert np.abs(kernel(found[None])).max() < 1e-9


def test_the_target_has_a_peak_of_published_width_at_each_larger_collision(events):
    wanted = targets(events)
    assert wanted.histogram.shape == (8, N_BINS)
    z = Z_MIN + BIN * (np.arange(N_BINS) + 0.5)
    checked = 0
    for i in range(8):
        part = slice(*events.vertex_ends[i : i + 2])
        place, n = events.vertices[part, 2], events.n_prompt[part]
        for mine, size in zip(place, n, strict=True):
            alone = np.sum(np.abs(place[n > 0] - mine) < 4.0) == 1
            if size < 5 or not alone or not -95.0 < mine < 295.0:
                continue
            near = np.abs(z - mine) < 1.5
            content = wanted.histogram[i, near]
            sigma = z_resolution(size)
            cut = np.clip(1.0 / sigma, 0.0, 4.0) > 3.0  # wide ones are cut off
            assert content.sum() == pytest.approx(max(0.15 / sigma, 1.0), rel=1e-3 if cut else 0.05)
            assert np.average(z[near], weights=content) == pytest.approx(mine, abs=0.02)
            checked += 1
    assert checked > 10
    small = ~wanted.counts
    assert small.any()
    assert (wanted.histogram[small] < 0.01).all()


def test_peaks_lie_where_gaussians_do_and_two_are_two_only_behind_a_valley():
    z = Z_MIN + BIN * (np.arange(N_BINS) + 0.5)

    def at(place, width=0.3):
        return np.exp(-0.5 * ((z - place) / width) ** 2)

    rows = np.stack([at(20.03) + at(50.0), at(10.0) + at(11.5), at(10.0) + at(10.5), 0.0 * z])
    found = find_peaks(rows, floor=0.01, valley=0.6)
    assert found.event.tolist() == [0, 0, 1, 1, 2]
    assert found.z == pytest.approx([20.03, 50.0, 10.0, 11.5, 10.25], abs=0.05)
    assert found.score[0] == pytest.approx(0.3 * np.sqrt(2 * np.pi) / BIN, rel=0.01)
    assert find_peaks(rows, floor=0.01, height=True).score[0] == pytest.approx(1.0, abs=0.02)


def test_the_densest_place_of_an_event_is_its_largest_collision():
    config = BeamLineConfig(n_events=120, seed=6, mu=1.0, displaced=0.0, secondaries=0.0)
    events = simulate_beam_events(config, 0)
    events = events.take((events.n_vertices == 1) & (events.n_tracks > 30))
    peak = np.argmax(kernel(density(events)), axis=1)
    inside = np.abs(events.vertices[:, 2] - 100.0) < 190.0
    away = Z_MIN + BIN * (peak + 0.5) - events.vertices[:, 2]
    assert inside.sum() > 10
    assert np.abs(away[inside]).max() < 1.0
