"""Hits of a barrel: circles of the right radius, scattering of Highland's width, numbers by
formula, and processes that change nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import (
    NOISE,
    RADII,
    BarrelConfig,
    cached_barrel_events,
    follow,
    highland,
    read_barrel_events,
    simulate_barrel_events,
)

CONFIG = BarrelConfig(n_events=4, n_tracks=100, chunk=2, seed=3)


def circle(points):
    """Radius and centre of a circle through three points, (3, 2)."""
    a = 2.0 * (points[1:] - points[0])
    b = np.sum(points[1:] ** 2 - points[0] ** 2, axis=1)
    centre = np.linalg.solve(a, b)
    return np.hypot(*(points[0] - centre)), centre


@pytest.mark.parametrize("charge", [-1, 1])
def test_hits_lie_on_a_helix_of_the_radius_that_momentum_and_field_give(charge, rng):
    pt, cot = 0.8, 0.5
    states = np.array([[0.1, -0.05, 12.0, 0.7, cot, charge / pt]])
    places = follow(states, np.array(RADII), 2.0, 0.0, rng)[0]
    assert np.hypot(places[:, 0], places[:, 1]) == pytest.approx(np.array(RADII))
    radius, centre = circle(places[[0, 4, 9], :2])
    assert radius == pytest.approx(pt * 1000.0 / (0.299792458 * 2.0), rel=1e-9)
    away = np.hypot(*(np.vstack([[0.1, -0.05], places[:, :2]]) - centre).T)
    assert away == pytest.approx(radius)
    # a positive particle turns clockwise about a field along z
    first, last = places[0, :2], places[9, :2]
    assert np.sign(first[0] * last[1] - first[1] * last[0]) == -charge
    way = 2.0 * radius * np.arcsin(np.hypot(*(last - first)) / (2.0 * radius))
    assert places[9, 2] - places[0, 2] == pytest.approx(cot * way)


def test_a_particle_that_turns_back_crosses_no_further_cylinder(rng):
    pt = 0.15  # its circle has a diameter of 500 mm
    states = np.array([[0.0, 0.0, 0.0, 1.0, 0.2, 1.0 / pt]])
    seen = np.isfinite(follow(states, np.array(RADII), 2.0, 0.0, rng)[0, :, 0])
    assert seen.tolist() == [radius < 2.0 * pt / (0.299792458e-3 * 2.0) for radius in RADII]


def test_scattering_has_the_width_of_highlands_formula(rng):
    """Behind one cylinder, far away, both offsets are the angle times the way."""
    n, pt, cot, thickness = 20_000, 50.0, 0.6, 0.03
    states = np.tile([0.0, 0.0, 0.0, 0.3, cot, 1.0 / pt], (n, 1))
    radii = np.array([100.0, 1100.0])
    straight = follow(states[:1], radii, 2.0, 0.0, rng)[0, 1]
    places = follow(states, radii, 2.0, thickness, rng)[:, 1]
    stretch = np.sqrt(1.0 + cot**2)
    width = highland(pt * stretch, thickness * stretch)
    phi = np.arctan2(places[:, 1], places[:, 0]) - np.arctan2(straight[1], straight[0])
    # 1,000 mm behind the scatterer in a plane across the beam
    assert np.std(1100.0 * phi) == pytest.approx(1000.0 * width * stretch, rel=0.03)
    assert np.std(places[:, 2]) == pytest.approx(1000.0 * width * stretch**2, rel=0.03)


def test_hits_are_as_many_and_as_precise_as_they_should_be():
    config = BarrelConfig(n_events=5, n_tracks=400, chunk=5, seed=7, pt_min=1.0)
    events = simulate_barrel_events(config, 0)
    n = 5 * 400 * 10
    mine = events.particle != NOISE
    assert mine.sum() == pytest.approx(0.98 * n, abs=5.0 * np.sqrt(0.02 * n))
    assert (~mine).sum() == pytest.approx(0.05 * 0.98 * n, abs=5.0 * np.sqrt(0.05 * n))
    radius = np.hypot(*events.position[:, :2].T)
    assert radius == pytest.approx(np.array(RADII)[events.layer], rel=1e-5)
    assert events.pt.min() >= 1.0
    assert np.abs(events.eta).max() <= 1.5
    bare = simulate_barrel_events(
        BarrelConfig(n_events=5, n_tracks=400, chunk=5, seed=7, pt_min=19.99,
                     resolution=(0.05, 0.2), thickness=0.0, noise=0.0, efficiency=1.0,
                     sigma_xy=1e-6), 0,
    )  # fmt: skip
    # stiff tracks: z is linear in the way, r phi in the radius
    of = np.lexsort((bare.layer, bare.particle, np.repeat(np.arange(5), bare.n_hits)))
    z = bare.position[of, 2].reshape(-1, 10)
    residual = z - np.stack([np.polyval(np.polyfit(RADII, row, 1), RADII) for row in z])
    assert np.sqrt(np.sum(residual**2) / (8 * len(z))) == pytest.approx(0.2, rel=0.03)


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    found = read_barrel_events(cached_barrel_events(CONFIG, n_processes=2))
    parts = [simulate_barrel_events(CONFIG, number) for number in range(2)]
    for array, *of_parts in zip(found, *parts, strict=True):
        np.testing.assert_array_equal(array, np.concatenate(of_parts))
    hits = found.event(2)
    np.testing.assert_array_equal(hits.position, parts[1].event(0).position)


@pytest.mark.parametrize("wrong", [{"efficiency": 0.0}, {"radii": (2.0, 1.0)}, {"noise": -1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="BarrelConfig"):
        BarrelConfig(**wrong)
