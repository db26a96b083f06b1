"""Hits in planes: straight lines, scattering, radiation and conversions by their formulas, numbers
by solid angle, and processes that change nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import NOISE, highland
from pfcalib.tracking.beamline import M_PION
from pfcalib.tracking.forwardhits import (
    ELECTRON,
    M_ELECTRON,
    PION,
    PLANES,
    SECONDARY,
    ForwardConfig,
    cached_forward_events,
    convert,
    decay,
    follow_lines,
    radiate,
    read_forward_events,
    simulate_forward_events,
    split,
)

CONFIG = ForwardConfig(n_events=4, mu=3.0, chunk=2, seed=3)
BARE = ForwardConfig(
    n_events=20, mu=8.0, chunk=20, seed=5, thickness=0.0, noise=0.0, efficiency=1.0,
    sigma_xy=1e-6, sigma_z=1e-6, photons=0.0, electrons=0.0,
)  # fmt: skip


def detector(planes, thickness):
    return np.array([*planes, 3.5, 5.1, 33.0, thickness])


def test_without_material_hits_lie_on_lines_up_to_half_a_pixel():
    events = simulate_forward_events(BARE, 0)
    for number in range(3):
        hits = events.event(number)
        start = events.start[events.particles(number)]
        for particle in np.unique(hits.particle)[:100]:
            mine = hits.position[(hits.particle == particle) | (hits.second == particle)]
            if len(mine) < 2:
                continue
            away = mine - start[particle]
            slope = away[:, :2] / away[:, 2:]
            spread = np.abs(slope - slope[np.argmax(np.abs(away[:, 2]))])
            half = 0.5 * BARE.pitch / np.abs(away[:, 2:])
            assert np.all(spread <= half + half.min() + 1e-4)


def test_planes_are_hit_as_often_as_their_solid_angle_says():
    """From a point on the beam, flat in pseudorapidity."""
    events = simulate_forward_events(BARE, 0)
    of = np.repeat(np.arange(BARE.n_events), events.n_particles)
    first = np.cumsum(events.n_particles) - events.n_particles
    of_hit = np.repeat(np.arange(BARE.n_events), events.n_hits)
    names = (first[of_hit] + events.particle, first[of_hit] + events.second)
    pions = np.flatnonzero(events.kind == PION)
    assert len(of) > len(pions) > 3000
    z, (low, high) = np.array(PLANES), BARE.eta
    bounds = [np.clip(np.arcsinh(z / radius), low, high) for radius in BARE.radius]
    share = np.abs(bounds[0] - bounds[1]) / (high - low)
    for layer in range(len(PLANES)):
        on = events.layer == layer
        there = np.isin(pions, names[0][on]) | np.isin(
            pions, names[1][on & (events.second != NOISE)]
        )
        error = np.sqrt(share[layer] * (1.0 - share[layer]) / len(pions))
        assert there.mean() == pytest.approx(share[layer], abs=4.0 * error)


@pytest.mark.parametrize("mass", [M_PION, M_ELECTRON])
def test_scattering_has_the_width_of_highlands_formula(mass, rng):
    n, p = 20_000, 10.0
    u = np.array([0.05, -0.03, 1.0])
    u /= np.linalg.norm(u)
    start, way = np.zeros((n, 3)), np.tile(u, (n, 1))
    of = (np.full(n, p), np.full(n, mass))
    thickness = 1e-4 if mass < 0.001 else 0.03  # so thin that hardly any radiates
    places = follow_lines(start, way, *of, detector((150.0, 350.0), thickness), rng)
    straight = follow_lines(start[:1], way[:1], *of, detector((150.0, 350.0), 0.0), rng)
    width = 200.0 / u[2] * highland(p, thickness / u[2], mass)
    off = places[:, 1] - straight[0, 1]
    robust = np.diff(np.quantile(off, (0.1587, 0.8413), axis=0), axis=0)[0] / 2.0
    assert robust == pytest.approx(width, rel=0.04)


def test_electrons_keep_what_bethe_and_heitler_leave_them(rng):
    t = 0.2
    kept = np.array([radiate(t, rng) for _ in range(20_000)])
    for power in (1, 2):  # moments of the shares
        exact = (1.0 + power) ** (-t / np.log(2.0))
        error = np.std(kept**power) / np.sqrt(len(kept))
        assert np.mean(kept**power) == pytest.approx(exact, abs=4.0 * error)
    assert 2.0 ** (-t / np.log(2.0)) == pytest.approx(np.exp(-t))


def test_daughters_have_the_mass_and_momentum_of_their_mother(rng):
    momentum = rng.normal(scale=3.0, size=(500, 3))
    first, second = decay(momentum, 1.1157, 0.9383, M_PION, rng)
    assert first + second == pytest.approx(momentum)
    energy = np.sqrt(np.sum(first**2, axis=1) + 0.9383**2)
    energy = energy + np.sqrt(np.sum(second**2, axis=1) + M_PION**2)
    assert energy**2 - np.sum(momentum**2, axis=1) == pytest.approx(np.full(500, 1.1157**2))


def test_photons_convert_and_split_as_published(rng):
    n = 50_000
    config = ForwardConfig(planes=(100.0, 200.0, 300.0), thickness=0.05)
    start, momentum = np.tile([10.0, 0.0, 0.0], (n, 1)), np.tile([0.0, 0.0, 2.0], (n, 1))
    of, place = convert(start, momentum, config, rng)
    share = 1.0 - np.exp(-7.0 / 9.0 * 0.15)
    assert len(of) / n == pytest.approx(share, abs=4.0 * np.sqrt(share / n))
    assert set(place[:, 2]) == {100.0, 200.0, 300.0}
    one, other = split(momentum, rng)
    assert one + other == pytest.approx(momentum)
    x = one[:, 2] / 2.0
    assert np.mean(x) == pytest.approx(0.5, abs=0.006)
    assert np.var(x) == pytest.approx(13.0 / 140.0, rel=0.02)
    assert np.std(one[:, :2]) == pytest.approx(M_ELECTRON, rel=0.02)


def test_kinds_are_there_and_pairs_share_pixels():
    events = simulate_forward_events(ForwardConfig(n_events=10, chunk=10, seed=2), 0)
    assert {PION, ELECTRON, SECONDARY} == set(np.unique(events.kind))
    both = events.second != NOISE
    assert both.any()
    assert np.all(events.particle[both] != events.second[both])
    of = np.repeat(np.cumsum(events.n_particles) - events.n_particles, events.n_hits)
    electron = events.kind[(of + events.particle)[both]] == ELECTRON
    assert electron.mean() > 0.3  # they open by less than a pixel


def test_processes_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    found = read_forward_events(cached_forward_events(CONFIG, n_processes=2))
    parts = [simulate_forward_events(CONFIG, number) for number in range(2)]
    for array, *of_parts in zip(found, *parts, strict=True):
        np.testing.assert_array_equal(array, np.concatenate(of_parts))
    np.testing.assert_array_equal(found.event(2).position, parts[1].event(0).position)
    assert found.particles(3).stop == len(found.p)


@pytest.mark.parametrize("wrong", [{"efficiency": 0.0}, {"planes": (2.0, 1.0)}, {"noise": -1.0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="ForwardConfig"):
        ForwardConfig(**wrong)
