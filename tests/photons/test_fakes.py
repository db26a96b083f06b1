"""Candidates keep their cuts; the way of an electron from a conversion to the calorimeter is held
against that from the origin and against a circle drawn point by point.
"""

import numpy as np
import pytest

from pfcalib.photons.fakes import (
    CONE,
    NEAR,
    TRACKER,
    TRACKER_X0,
    bend,
    conversion_radius,
    match_pt,
    simulate_candidates,
    to_calorimeter,
    turn,
)
from pfcalib.simulation.detector import FRONT
from pfcalib.simulation.particles import Particles, propagate

CUTS = {"pt_min": 20.0, "pt_hat_max": 80.0, "eta_max": 0.6, "share_beside": 0.4}


def electrons(rng, n=400, pdg_id=11):
    e = np.exp(rng.uniform(0.0, 4.0, n))
    return Particles(
        np.arange(n), np.full(n, pdg_id, np.int32), e, rng.uniform(-0.6, 0.6, n),
        rng.uniform(-np.pi, np.pi, n),
    )  # fmt: skip


@pytest.mark.parametrize(("charge", "pdg_id"), [(-1, 11), (1, -11)])
def test_a_particle_bent_from_the_beam_goes_the_way_of_one_from_the_origin(rng, charge, pdg_id):
    particles = electrons(rng, pdg_id=pdg_id)
    one, other = (
        bend(particles, np.full(400, 1e-6), charge, field=2.0),
        propagate(particles, field=2.0),
    )
    for a, b in zip(one[:3], other[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_bent_particle_ends_where_small_steps_on_a_helix_end():
    particle = Particles(*(np.array([x]) for x in (0, -11, 5.0, 0.4, 0.3)))
    entry = bend(particle, np.array([300.0]), 1, field=2.0)
    pt, angle, step = 5.0 / np.cosh(0.4), 0.3, 0.1
    place = 300.0 * np.array([np.cos(0.3), np.sin(0.3), np.sinh(0.4)])
    while np.hypot(*place[:2]) < FRONT:
        if np.hypot(*place[:2]) < 1200.0:
            angle -= 0.299792458e-3 * 2.0 / pt * step  # a positive charge turns to smaller phi
        place += step * np.array([np.cos(angle), np.sin(angle), np.sinh(0.4)])
    assert entry.phi_axis[0] == pytest.approx(np.arctan2(place[1], place[0]), abs=5e-5)
    assert entry.z[0] == pytest.approx(place[2], abs=0.1)


def test_photons_convert_as_often_as_the_material_says_and_nothing_else_does(rng):
    n = 20_000
    eta = np.full(n, 0.5)
    photons = Particles(np.arange(n), np.full(n, 22, np.int32), np.full(n, 30.0), eta, 0.0 * eta)
    radius = conversion_radius(photons, rng)
    share = 1.0 - np.exp(-7.0 / 9.0 * TRACKER_X0 * np.cosh(0.5))
    assert np.isfinite(radius).mean() == pytest.approx(share, abs=0.01)
    assert TRACKER[0] <= np.nanmin(radius)
    assert np.nanmax(radius) <= TRACKER[1]
    others = photons._replace(pdg_id=np.full(n, 11, np.int32))
    assert np.isnan(conversion_radius(others, rng)).all()


def test_decays_and_conversions_keep_the_energy(rng):
    n = 300
    pions = electrons(rng, n)._replace(pdg_id=np.full(n, 111, np.int32), energy=np.full(n, 40.0))
    event, rows, converted = to_calorimeter(pions, rng, field=2.0)
    total = np.bincount(event, rows[:, 1], n)
    assert total.max() <= 40.0 + 1e-9
    assert total.mean() == pytest.approx(40.0, rel=0.01)  # what curls up is soft and rare
    assert 0 < converted.sum() < n


def test_pt_is_matched_without_taking_one_twice(rng):
    pt, wanted = np.exp(rng.uniform(3.0, 5.0, 400)), np.exp(rng.uniform(3.0, 5.0, 200))
    rows = match_pt(pt, wanted, rng)
    assert len(set(rows)) == 200
    assert np.median(np.abs(np.log(pt[rows] / wanted))) < 0.01


@pytest.fixture(scope="module")
def made():
    pytest.importorskip("pythia8mc")
    rng = np.random.default_rng(3)
    return {
        "photon": simulate_candidates("photon", 40, rng, **CUTS),
        "jet": simulate_candidates("jet", 2, rng, **CUTS),
    }


@pytest.mark.parametrize("source", ["photon", "jet"])
def test_candidates_keep_their_cuts_and_bring_what_flies_beside_them(made, source):
    found = made[source]
    assert (found.pt > 20.0).all()
    assert (np.abs(found.eta) < 0.6).all()
    assert set(found.pdg_id) <= ({22} if source == "photon" else {111, 221})
    assert (found.beside <= 0.4 * found.pt + 1e-9).all()
    of, particles = found.particles.event, found.particles
    d_phi = np.angle(np.exp(1j * (particles.phi - found.phi[of])))
    distance = np.hypot(particles.eta - found.eta[of], d_phi)
    assert (distance < NEAR).all()
    pt = particles.energy / np.cosh(particles.eta)
    inside = np.bincount(of, pt * (distance < CONE), found.n)
    # masses and particles too soft to shower make the difference
    np.testing.assert_allclose(inside, found.pt + found.beside, rtol=0.1)


def test_turned_copies_keep_what_lies_between_particles(made, rng):
    found = made["photon"].take(np.repeat(np.arange(40), 2))
    moved = turn(found, rng)
    of = found.particles.event
    for before, after in ((found, moved),):
        one, other = (np.angle(np.exp(1j * (c.particles.phi - c.phi[of]))) for c in (before, after))
        np.testing.assert_allclose(one, other, atol=1e-9)
        np.testing.assert_allclose(
            np.abs(before.particles.eta - before.eta[of]),
            np.abs(after.particles.eta - after.eta[of]),
            atol=1e-12,
        )
    assert not np.allclose(moved.phi[::2], moved.phi[1::2])
