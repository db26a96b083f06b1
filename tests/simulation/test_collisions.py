"""Collisions are held against published multiplicities, the mass of the Z, the balance of momenta
and each other's cross sections.
"""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("pythia8mc")

from pfcalib.errors import ConfigError
from pfcalib.simulation.collisions import (
    NEUTRINOS,
    CollisionConfig,
    cross_section,
    simulate_collisions,
)
from pfcalib.simulation.particles import measurable_energy, propagate
from pfcalib.simulation.pythia import MIN_ENERGY
from pfcalib.simulation.showers import SHOWERING
from pfcalib.simulation.tracks import mass_and_charge, transverse_momentum

FIELD = 2.0
MINIMUM_BIAS = CollisionConfig(process="minimum_bias")


@pytest.fixture(scope="module")
def dijets():
    rng = np.random.default_rng(5)
    config = CollisionConfig(pt_hat=(60.0, 120.0))
    return simulate_collisions(40, rng, config, field=FIELD)


@pytest.fixture(scope="module")
def minimum_bias():
    rng = np.random.default_rng(5)
    return simulate_collisions(400, rng, MINIMUM_BIAS, field=FIELD, keep_empty=True)


class TestParticles:
    def test_all_stable_ones_are_listed_and_those_that_reach_the_calorimeter_shower(self, dijets):
        particles = dijets.particles
        assert np.all(np.diff(particles.event) >= 0)
        assert not np.isin(np.abs(particles.pdg_id), NEUTRINOS).any()
        assert np.abs(particles.eta).max() < 1.2
        wanted = (
            np.isin(particles.pdg_id, list(SHOWERING))
            & (measurable_energy(particles) >= MIN_ENERGY)
            & propagate(particles, field=FIELD).reaches
        )
        np.testing.assert_array_equal(dijets.showers, wanted)
        assert 0.3 < dijets.showers.mean() < 0.95
        assert (particles.pdg_id == 111).any()

    def test_both_jets_are_hard_and_opposite(self, dijets):
        """Most of pT-hat is in the list, as both partons are central, and it balances."""
        pt, event = transverse_momentum(dijets.particles), dijets.particles.event
        px, py = (
            np.bincount(event, pt * turn(dijets.particles.phi), dijets.n_events)
            for turn in (np.cos, np.sin)
        )
        total = np.bincount(event, pt, dijets.n_events)
        assert np.median(total) > 120.0
        assert np.median(np.hypot(px, py) / total) < 0.3

    def test_the_muons_of_a_z_have_its_mass(self):
        config = CollisionConfig(process="z_jet", pt_hat=(30.0, 60.0))
        made = simulate_collisions(60, np.random.default_rng(3), config, field=FIELD)
        particles, pt = made.particles, transverse_momentum(made.particles)
        muon = np.flatnonzero((np.abs(particles.pdg_id) == 13) & (pt > 10.0))
        pairs = [pair for i in range(60) if len(pair := muon[particles.event[muon] == i]) == 2]
        assert len(pairs) > 8
        masses = []
        for pair in pairs:
            d_eta, d_phi = np.subtract(*particles.eta[pair]), np.subtract(*particles.phi[pair])
            masses.append(np.sqrt(2.0 * pt[pair].prod() * (np.cosh(d_eta) - np.cos(d_phi))))
        assert np.median(masses) == pytest.approx(91.19, abs=0.7)


class TestMinimumBias:
    def test_charged_particles_are_as_many_as_measured(self, minimum_bias):
        """CMS, arXiv:1507.05915: dN/deta = 5.49 +- 0.17 of inelastic collisions at 13 TeV, to which
        decays of K0S and hyperons, which are decayed here, add about a tenth.
        """
        particles, n = minimum_bias.particles, minimum_bias.n_events
        charged = mass_and_charge(particles.pdg_id)[1] != 0.0
        central = charged & (np.abs(particles.eta) < 0.5)
        number = np.bincount(particles.event[central], minlength=n)
        error = np.std(number) / np.sqrt(n)
        assert 5.49 - 4.0 * error < np.mean(number) < 1.15 * 5.49 + 4.0 * error

    def test_some_leave_nothing(self, minimum_bias):
        seen = np.unique(minimum_bias.particles.event[minimum_bias.showers])
        assert 0.08 < 1.0 - len(seen) / minimum_bias.n_events < 0.25

    def test_the_cross_section_is_as_measured(self):
        """ATLAS, arXiv:1606.02625: 78.1 +- 2.9 mb of inelastic collisions at 13 TeV."""
        found = cross_section(MINIMUM_BIAS, 0)
        assert found.value == pytest.approx(78.1, abs=3.0)
        assert found.mean_weight == 1.0


class TestSlices:
    CONFIG = CollisionConfig(pt_hat=(20.0, 45.0, 100.0))

    def test_cross_sections_add_up_to_that_of_the_whole(self):
        low, high = (cross_section(self.CONFIG, i) for i in (0, 1))
        whole = cross_section(CollisionConfig(pt_hat=(20.0, 100.0)), 0)
        error = np.sqrt(low.error**2 + high.error**2 + whole.error**2)
        assert low.value + high.value == pytest.approx(whole.value, abs=4.0 * error)
        assert 0.03 < high.value / low.value < 0.12

    def test_weights_sum_to_the_cross_section(self):
        found = cross_section(self.CONFIG, 1)
        made = simulate_collisions(60, np.random.default_rng(2), self.CONFIG, number=1, field=FIELD)
        weight = found.value / (60 * found.mean_weight) * made.weight
        error = np.sqrt((weight**2).sum())
        assert weight.sum() == pytest.approx(found.value, abs=4.0 * error)


def test_the_seed_decides():
    config = CollisionConfig(pt_hat=(30.0, 60.0))
    one, two, other = (
        simulate_collisions(3, np.random.default_rng(seed), config, field=FIELD)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.particles.energy, two.particles.energy)
    assert len(one.showers) != len(other.showers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": "top"}, "process must be one of dijets, z_jet, minimum_bias, not 'top'"),
        ({"pt_hat": (20.0,)}, "pt_hat must be at least two edges"),
        ({"pt_hat": (2.0, 20.0)}, "pt_hat must be at least two edges that rise from 5 GeV"),
        ({"pt_hat": (20.0, 7000.0)}, "less than sqrt_s / 2"),
        ({"eta_parton": 1.3}, r"eta_parton must lie in \(0, eta_max = 1.2\], not 1.3"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CollisionConfig(), **change)
