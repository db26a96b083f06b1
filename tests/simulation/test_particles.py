"""Guns, the decay of the neutral pion and the way through the solenoid are held against kinematics
written down independently.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pfcalib.errors import ConfigError
from pfcalib.simulation.detector import COIL_RADIUS, FRONT
from pfcalib.simulation.particles import (
    GUNS,
    Particles,
    decay_at_origin,
    directions,
    propagate,
    simulate_gun,
)

PI0, PION = 0.1349768, 0.13957039  # GeV, Particle Data Group
P_MIN = 1e-3  # of a test by Kolmogorov and Smirnov with a fixed seed


def make(pdg_id, energy, eta=0.0, phi=0.0, n=1):
    return Particles(
        np.arange(n),
        np.full(n, pdg_id, np.int32),
        np.full(n, float(energy)),
        np.full(n, float(eta)),
        np.full(n, float(phi)),
    )


def momenta(particles):
    """Four-momenta of massless particles, shape (n, 4)."""
    return particles.energy[:, None] * np.column_stack(
        [np.ones(len(particles.energy)), directions(particles.eta, particles.phi)]
    )


class TestGuns:
    def test_energies_are_flat_in_their_logarithm(self, rng):
        gun = simulate_gun("pi+", 20_000, rng, energy=(0.2, 2000.0))
        assert stats.kstest(np.log10(gun.energy / 0.2) / 4.0, "uniform").pvalue > P_MIN

    def test_directions_are_flat_in_eta_and_phi(self, rng):
        gun = simulate_gun("pi0", 20_000, rng, eta=(-0.7, 0.7))
        assert stats.kstest((gun.eta + 0.7) / 1.4, "uniform").pvalue > P_MIN
        assert stats.kstest((gun.phi + np.pi) / (2.0 * np.pi), "uniform").pvalue > P_MIN

    def test_energy_and_direction_do_not_know_of_each_other(self, rng):
        gun = simulate_gun("pi-", 20_000, rng)
        correlation = np.corrcoef([np.log(gun.energy), gun.eta, gun.phi])
        assert np.abs(correlation - np.eye(3)).max() < 4.0 / np.sqrt(20_000)

    @pytest.mark.parametrize("name", GUNS)
    def test_each_event_has_one_particle_of_the_kind(self, name, rng):
        gun = simulate_gun(name, 5, rng, energy=(2.0, 20.0))
        assert gun.event.tolist() == [0, 1, 2, 3, 4]
        assert set(gun.pdg_id.tolist()) == {GUNS[name]}

    def test_one_energy_may_be_asked_for(self, rng):
        assert simulate_gun("pi0", 3, rng, energy=(10.0, 10.0)).energy.tolist() == [
            10.0,
            10.0,
            10.0,
        ]

    def test_unknown_particles_are_refused_with_the_known_ones(self, rng):
        with pytest.raises(ConfigError, match=r"unknown gun 'kaon'; there are pi0, pi\+"):
            simulate_gun("kaon", 1, rng)

    @pytest.mark.parametrize("energy", [(0.1, 1.0), (2.0, 1.0)])
    def test_energies_below_the_mass_or_falling_are_refused(self, energy, rng):
        with pytest.raises(
            ConfigError, match=r"energy range .* must increase and lie above the mass, 0\.13957 GeV"
        ):
            simulate_gun("pi+", 1, rng, energy=energy)


class TestDecay:
    def test_the_two_photons_have_the_mass_energy_and_direction_of_the_pion(self, rng):
        pions = simulate_gun("pi0", 2000, rng, energy=(0.2, 200.0))
        photons = decay_at_origin(pions, rng)
        assert np.bincount(photons.event).tolist() == [2] * 2000
        assert set(photons.pdg_id.tolist()) == {22}
        total = momenta(photons).reshape(2000, 2, 4).sum(axis=1)
        np.testing.assert_allclose(total[:, 0], pions.energy, rtol=1e-12)
        momentum = np.sqrt(pions.energy**2 - PI0**2)
        np.testing.assert_allclose(
            total[:, 1:], momentum[:, None] * directions(pions.eta, pions.phi), rtol=1e-6, atol=1e-6
        )
        mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1))
        np.testing.assert_allclose(mass[pions.energy < 20.0], PI0, rtol=1e-5)

    def test_the_smallest_opening_angle_is_twice_the_arc_sine_of_mass_over_energy(self, rng):
        photons = decay_at_origin(make(111, 5.0, eta=0.3, n=20_000), rng)
        u = directions(photons.eta, photons.phi).reshape(-1, 2, 3)
        opening = np.arccos(np.clip((u[:, 0] * u[:, 1]).sum(axis=1), -1.0, 1.0))
        least = 2.0 * np.arcsin(PI0 / 5.0)
        assert opening.min() >= least * (1.0 - 1e-6)
        assert opening.min() == pytest.approx(least, rel=1e-3)

    def test_the_energy_is_shared_evenly_between_the_ends_that_kinematics_allows(self, rng):
        """Isotropic in the rest frame: the share of a photon is flat between (1 - beta)/2 and (1 +
        beta)/2.
        """
        photons = decay_at_origin(make(111, 0.3, n=20_000), rng)
        beta = np.sqrt(1.0 - (PI0 / 0.3) ** 2)
        first = photons.energy[::2] / 0.3
        assert stats.kstest((first - 0.5 * (1.0 - beta)) / beta, "uniform").pvalue > P_MIN

    def test_the_plane_of_the_decay_is_flat_in_azimuth(self, rng):
        photons = decay_at_origin(make(111, 5.0, n=20_000), rng)
        # small angles about the axis at eta = phi = 0
        angle = np.arctan2(photons.phi[::2], photons.eta[::2])
        assert stats.kstest((angle + np.pi) / (2.0 * np.pi), "uniform").pvalue > P_MIN

    def test_short_lived_kaons_become_pions_of_their_mass_and_energy(self, rng):
        """Branching fractions 0.692 and 0.307 (PDG); neutral pions decay in turn."""
        kaons = simulate_gun("K0S", 4000, rng, energy=(1.0, 50.0))
        made = decay_at_origin(kaons, rng)
        np.testing.assert_allclose(np.bincount(made.event, made.energy), kaons.energy, rtol=1e-9)
        of_charged = np.bincount(made.event, made.pdg_id == 211) > 0
        assert stats.binomtest(int(of_charged.sum()), 4000, 0.692).pvalue > P_MIN
        mass = np.where(np.abs(made.pdg_id) == 211, PION, 0.0)
        p = np.sqrt(made.energy**2 - mass**2)[:, None] * directions(made.eta, made.phi)
        total = np.stack([np.bincount(made.event, axis) for axis in p.T])
        np.testing.assert_allclose(
            np.sqrt(kaons.energy**2 - (total**2).sum(axis=0)), 0.49761, rtol=1e-3
        )

    def test_other_particles_stay_as_they_are_and_events_stay_sorted(self, rng):
        mixed = Particles(
            np.array([0, 0, 1]),
            np.array([211, 111, 22], np.int32),
            np.array([1.0, 2.0, 3.0]),
            np.zeros(3),
            np.zeros(3),
        )
        after = decay_at_origin(mixed, rng)
        assert after.event.tolist() == [0, 0, 0, 1]
        assert after.pdg_id.tolist() == [211, 22, 22, 22]
        assert after.energy[[0, 3]].tolist() == [1.0, 3.0]
        charged = make(211, 2.0)
        assert decay_at_origin(charged, rng) is charged


def swim(charge, pt, eta, field, step=0.05):
    """Azimuth and z at the front of the material by small steps along the Lorentz force: dphi/ds =
    -0.3 q B / pT inside the coil.
    """
    x = y = z = phi = 0.0
    while np.hypot(x, y) < FRONT:
        middle = phi - 0.5 * step * charge * 0.299792458e-3 * field / pt * (
            np.hypot(x, y) < COIL_RADIUS
        )
        x, y, z = x + step * np.cos(middle), y + step * np.sin(middle), z + step * np.sinh(eta)
        phi = 2.0 * middle - phi
    heading = np.array([np.cos(phi), np.sin(phi), np.sinh(eta)]) / np.cosh(eta)
    return np.arctan2(y, x), z, heading


class TestSolenoid:
    @pytest.mark.parametrize("name", GUNS)
    def test_without_a_field_all_particles_fly_straight(self, name, rng):
        gun = simulate_gun(name, 100, rng, energy=(2.0, 20.0))
        entry = propagate(gun)
        assert np.all(entry.reaches)
        np.testing.assert_allclose(entry.phi_axis, gun.phi, atol=1e-12)
        np.testing.assert_allclose(entry.z, FRONT * np.sinh(gun.eta), rtol=1e-12)
        np.testing.assert_allclose(entry.direction, directions(gun.eta, np.zeros(100)), atol=1e-12)

    @pytest.mark.parametrize(("pdg_id", "charge"), [(211, 1), (-211, -1), (11, -1), (2212, 1)])
    @pytest.mark.parametrize(("pt", "eta"), [(1.2, 0.3), (5.0, -0.6), (0.5, 0.0)])
    def test_the_helix_is_that_of_the_lorentz_force(self, pdg_id, charge, pt, eta):
        mass = {211: PION, 11: 0.000511, 2212: 0.9382721}[abs(pdg_id)]
        entry = propagate(make(pdg_id, np.hypot(pt * np.cosh(eta), mass), eta), field=2.0)
        phi, z, heading = swim(charge, pt, eta, 2.0)
        assert entry.reaches[0]
        assert entry.phi_axis[0] == pytest.approx(phi, abs=2e-4)
        assert entry.z[0] == pytest.approx(z, abs=0.2)
        turned = np.arctan2(entry.direction[0, 1], entry.direction[0, 0]) + entry.phi_axis[0]
        assert turned == pytest.approx(np.arctan2(heading[1], heading[0]), abs=2e-4)
        assert entry.direction[0, 2] == pytest.approx(heading[2], abs=1e-9)

    def test_the_shift_at_the_coil_is_the_arc_sine_of_radius_over_diameter(self):
        """A stiff track at 2 T: R = pT / (0.3 B) and phi shifts by asin(r / 2R), of which the
        straight line behind the coil adds 1 - r/r_front.
        """
        pt = 20.0
        radius = pt / (0.299792458e-3 * 2.0)
        shift = np.arcsin(COIL_RADIUS / (2.0 * radius))
        entry = propagate(make(211, np.hypot(pt, PION)), field=2.0)
        assert entry.phi_axis[0] == pytest.approx(-shift * (2.0 - COIL_RADIUS / FRONT), rel=1e-3)

    def test_opposite_charges_are_mirror_images(self):
        plus, minus = (propagate(make(pdg_id, 3.0, eta=0.4), field=2.0) for pdg_id in (211, -211))
        assert plus.phi_axis[0] == pytest.approx(-minus.phi_axis[0], rel=1e-12)
        assert plus.phi_axis[0] < 0.0
        assert plus.z[0] == minus.z[0]

    def test_neutral_particles_do_not_feel_the_field(self):
        assert propagate(make(22, 1.0, phi=0.5), field=2.0).phi_axis[0] == 0.5

    @given(
        energy=st.floats(0.2, 2000.0),
        eta=st.floats(-0.7, 0.7),
        phi=st.floats(-np.pi, np.pi),
        pdg_id=st.sampled_from([211, -211, 22, 11]),
    )
    @settings(deadline=None, max_examples=50)
    def test_directions_have_unit_length_and_point_outwards(self, energy, eta, phi, pdg_id):
        entry = propagate(make(pdg_id, energy, eta, phi), field=2.0)
        assert np.linalg.norm(entry.direction[0]) == pytest.approx(1.0, rel=1e-12)
        assert entry.direction[0, 0] > 0.0

    def test_a_track_curls_up_below_the_momentum_whose_circle_fits_into_the_coil(self):
        """2R < r, which is pT < 0.15 B r = 0.36 GeV."""
        limit = 0.5 * 0.299792458e-3 * 2.0 * COIL_RADIUS
        for factor, expected in ((0.99, False), (1.01, True)):
            assert (
                propagate(make(211, np.hypot(factor * limit, PION)), field=2.0).reaches[0]
                == expected
            )
