"""Perigees against a particle that is moved in small steps, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.tagging.perigee import FIELD, arc_at_radius, curvature, perigee, point_at


@pytest.fixture(scope="module")
def particles():
    rng = np.random.default_rng(5)
    n = 40
    position = rng.normal(0.0, 8.0, (n, 3))
    momentum = rng.normal(0.0, 2.0, (n, 3))
    return position, momentum, rng.choice([-1.0, 1.0], n)


def test_the_perigee_is_the_nearest_point_of_a_path_in_small_steps(particles):
    position, momentum, charge = particles
    found = perigee(position, momentum, charge)
    for i, (x, p, q) in enumerate(zip(*particles, strict=True)):
        pt = np.hypot(p[0], p[1])
        # the force turns p by 0.299792458e-3 q B / pT rad a mm, clockwise for q > 0
        step, turn = 0.005, -0.299792458e-3 * q * FIELD / pt
        s = np.arange(-60.0, 60.0, step)
        angle = np.arctan2(p[1], p[0]) + turn * s
        steps = step * np.column_stack([np.cos(angle), np.sin(angle)])
        path = np.cumsum(steps, axis=0)
        path += x[:2] - path[np.argmin(np.abs(s))]
        near = np.argmin(np.hypot(*path.T))
        assert 0 < near < len(s) - 1
        assert abs(found.d0[i]) == pytest.approx(np.hypot(*path[near]), abs=0.02)
        np.testing.assert_allclose(
            path[near],
            found.d0[i] * np.array([-np.sin(found.phi[i]), np.cos(found.phi[i])]),
            atol=0.03,
        )
        assert np.cos(found.phi[i] - angle[near]) > 1.0 - 1e-6
        slope = p[2] / pt
        assert found.z0[i] == pytest.approx(x[2] + s[near] * slope, abs=0.02 * abs(slope) + 0.01)


def test_a_track_passes_where_its_particle_was_made_and_cylinders_at_their_radius(particles):
    position, _momentum, charge = particles
    found = perigee(*particles)
    k = curvature(found.pt, charge)
    for i in range(len(k)):
        track = found.d0[i], found.z0[i], found.phi[i], found.cot_theta[i], k[i]
        arc = arc_at_radius(found.d0[i], k[i], np.hypot(*position[i, :2]))
        ends = [np.array(point_at(*track, s)[:3]) for s in (arc, -arc)]
        assert min(np.linalg.norm(end - position[i]) for end in ends) < 1e-6
        assert np.isnan(arc_at_radius(found.d0[i], k[i], 0.9 * abs(found.d0[i])))
        assert np.isnan(arc_at_radius(found.d0[i], k[i], 2.1 / abs(k[i]) + abs(found.d0[i])))


def test_a_straight_line_has_the_textbook_impact_parameter():
    position, momentum = np.array([[3.0, 4.0, 1.0]]), np.array([[1e5, 0.0, 1e5]])
    found = perigee(position, momentum, np.ones(1))
    assert found.d0[0] == pytest.approx(4.0, abs=1e-4)  # to the left of the direction
    assert found.z0[0] == pytest.approx(-2.0, abs=1e-4)
