"""The adaptive finder: least squares where nothing is ambiguous, right errors, few splits."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.beamline import BeamLineConfig, simulate_beam_events
from pfcalib.tracking.multivertex import MultiVertexConfig, find_vertices
from pfcalib.tracking.vertexmatch import match

CLEAN = BeamLineConfig(n_events=120, seed=6, mu=1.0, displaced=0.0, secondaries=0.0)


def fitted_z(tracks, sigma_xy):
    """Place by least squares of both distances of each track and of the beam, and its error."""
    d, phi, slope, z0, sigma = tracks.astype(float).T
    cos, sin, c = np.cos(phi), np.sin(phi), 1.0 / np.hypot(1.0, slope)
    rows = [np.column_stack([cos, sin, -slope]) * c[:, None]]
    rows += [np.column_stack([-sin, cos, 0.0 * sin]), np.eye(3)[:2]]
    right = np.concatenate([-slope * z0 * c, d, [0.0, 0.0]])
    weight = 1.0 / np.concatenate([sigma, sigma, [sigma_xy] * 2])
    a = np.concatenate(rows) * weight[:, None]
    inverse = np.linalg.inv(a.T @ a)
    return (inverse @ a.T @ (right * weight))[2], np.sqrt(inverse[2, 2])


def test_one_collision_is_fitted_as_least_squares_do_and_its_errors_cover():
    events = simulate_beam_events(CLEAN, 0)
    events = events.take((events.n_vertices == 1) & (events.n_tracks >= 8))
    found = find_vertices(events, MultiVertexConfig(cut=40.0))
    best = [np.flatnonzero(found.event == i)[0] for i in range(len(events.n_tracks))]
    known = [
        fitted_z(events.tracks[a:b], 0.055)
        for a, b in zip(events.ends[:-1], events.ends[1:], strict=True)
    ]
    z, error = np.transpose(known)
    assert len(z) > 20
    assert np.median(np.abs(found.z[best] - z) / error) < 0.1
    pull = (found.z[best] - events.vertices[:, 2]) / error
    assert np.std(pull) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * len(pull)))


def test_most_collisions_are_found_and_few_vertices_are_made_up():
    events = simulate_beam_events(BeamLineConfig(n_events=40, seed=8), 0)
    found = find_vertices(events, MultiVertexConfig(cut=16.0, apart=0.6))
    matches = match(events, found, cut=40.0)
    assert matches.found.mean() > 0.8
    assert matches.n_false.mean() < 0.5
    assert np.nanmedian(np.abs(matches.residual)) < 0.08


def test_an_event_without_tracks_has_no_vertex_and_settings_without_sense_are_refused():
    events = simulate_beam_events(BeamLineConfig(n_events=3, seed=1, mu=0.0), 0)
    assert len(find_vertices(events, MultiVertexConfig()).z) == 0
    with pytest.raises(ConfigError, match="MultiVertexConfig"):
        MultiVertexConfig(cut=0.0)
