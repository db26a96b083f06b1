"""Hadronic showers are held against exponential attenuation, ionisation, Geant4's EM fractions and
the behaviour of non-compensating calorimeters.
"""

import numpy as np
import pytest
from scipy import stats

from pfcalib.geometry import WINDOW
from pfcalib.simulation.detector import FRONT, build_slabs
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers
from tests.simulation.blocks import material, per_layer, signal

P_MIN = 1e-3
SLABS = build_slabs(WINDOW)
# the first interaction takes all energy where it happens; long interaction lengths, so that some
# pions come through
ABSORBED = ShowerConfig(
    lambda_scale=1.5, p_elastic=0.0, nuclear_scale=1e6, binding=1.0, f_gamma=0.0
)
TRANSPARENT = ShowerConfig(lambda_scale=1e6)  # no interactions: minimum ionising particles


def beam(energy, n, pdg_id=211):
    return Particles(
        np.arange(n),
        np.full(n, pdg_id, np.int32),
        np.full(n, float(energy)),
        np.full(n, 0.0125),
        np.full(n, 0.0125),
    )


def depth(x, config):
    """Interaction lengths along the beam from the front of the material to depth x in mm."""
    path = np.clip(np.asarray(x)[:, None] - SLABS.x_in, 0.0, SLABS.x_out - SLABS.x_in) * np.cosh(
        0.0125
    )
    return (path / SLABS.lambda_int).sum(axis=1) / config.lambda_scale


class TestInteraction:
    def test_first_interactions_fall_off_exponentially(self, rng):
        """Share of pions that interact in each layer, in dead material and not at all, by chi2."""
        n = 10_000
        hits = simulate_showers(beam(50.0, n), WINDOW, rng, config=ABSORBED)
        layer = WINDOW.layer[hits.cell[hits.invisible > 1.0]]
        survive = np.exp(-depth(np.append(SLABS.x_in, SLABS.x_out[-1]), ABSORBED))
        here = -np.diff(survive)
        in_layer = SLABS.layer >= 0
        through = np.count_nonzero(hits.e_leak > 1.0)
        observed = np.append(
            np.bincount(layer, minlength=WINDOW.n_layers), [n - len(layer) - through, through]
        )
        expected = n * np.append(here[in_layer], [here[~in_layer].sum(), survive[-1]])
        assert stats.chisquare(observed, expected).pvalue > P_MIN

    def test_pions_punch_through_as_rarely_as_the_depth_says(self, rng):
        n = 20_000
        config = ABSORBED._replace(lambda_scale=2.0)
        hits = simulate_showers(beam(50.0, n), WINDOW, rng, config=config)
        total = depth([SLABS.x_out[-1]], config)[0]
        assert (
            stats.binomtest(np.count_nonzero(hits.e_leak > 1.0), n, np.exp(-total)).pvalue > P_MIN
        )

    def test_the_calorimeter_is_as_deep_for_pions_as_its_materials_are(self):
        """1.18 nuclear interaction lengths make one of pions: Al 397, Ar 857, lead-argon 395,
        iron-scintillator about 200 mm (PDG).
        """
        lengths = {
            "argon": 857.0,
            "lead-argon": 1000.0 / 2.519,
            "iron-scintillator": 1000.0 / 4.998,
        }
        for name, nuclear in lengths.items():
            assert material(name)["lambda_int"] == pytest.approx(1.18 * nuclear, rel=0.05)


class TestIonisation:
    def test_a_pion_that_does_not_interact_is_a_minimum_ionising_particle(self, rng):
        """Energy per layer = thickness x dE/dx and Bethe's rise: K Z / 2A (ln(2 m T_max / (hbar
        omega)^2) - 1) of iron is 1.37 times the minimum at 20 GeV; the rest leaks. Electrons
        knocked out of the aluminium in front come to the presampler and the strips as well.
        """
        hits = simulate_showers(beam(20.0, 200), WINDOW, rng, config=TRANSPARENT)
        lost = per_layer(hits, hits.non_em + hits.em).mean(axis=0)
        expected = [(layer.r_out - layer.r_in) for layer in WINDOW.layers] * SLABS.de_dx[
            SLABS.layer >= 0
        ]
        rise = lost / expected
        np.testing.assert_allclose(rise[3:], 1.37, atol=0.15)
        assert np.all((rise[:3] > 1.2) & (rise[:3] < 2.0))
        assert hits.e_leak.mean() > 20.0 - 1.6 * expected.sum() - hits.e_dead.mean()

    def test_minimum_ionising_particles_are_seen_less_than_electrons_in_argon(self, rng):
        """e/mip: about 0.7 of a muon's loss is seen in lead-argon; e/mu = 0.91 in Tile
        (arXiv:1007.5423), with 1.1 as the inverse.
        """
        hits = simulate_showers(
            beam(20.0, 400), WINDOW, rng, config=TRANSPARENT._replace(mip_scale=1.0)
        )
        seen, lost = (
            per_layer(hits, hits.signal).sum(axis=0),
            per_layer(hits, hits.non_em + hits.em).sum(axis=0),
        )
        assert seen[1:4].sum() / lost[1:4].sum() == pytest.approx(1.0 / 0.7, rel=0.1)
        assert seen[4:].sum() / lost[4:].sum() == pytest.approx(1.0 / 0.91, rel=0.1)

    def test_a_slow_pion_stops_and_decays(self, rng):
        """Kinetic energy 0.1 GeV; mean loss to the front of the calorimeter is 0.08 GeV. What the
        neutrinos take is no more than the rest mass.
        """
        hits = simulate_showers(beam(0.30, 500), WINDOW, rng, config=TRANSPARENT)
        escaped = np.bincount(hits.event, hits.escaped, 500)
        assert np.mean(escaped > 0.0) > 0.8
        assert escaped.max() < 0.13957
        np.testing.assert_allclose(hits.e_leak[escaped > 0.0], 0.0, atol=1e-12)


@pytest.fixture(scope="module")
def pions():
    rng = np.random.default_rng(3)
    sizes = {1.0: 4000, 5.0: 2000, 20.0: 1000, 100.0: 500}
    return {energy: simulate_showers(beam(energy, n), WINDOW, rng) for energy, n in sizes.items()}


class TestShowers:
    def test_the_electromagnetic_fraction_rises_with_energy(self, pions):
        """Geant4 gives 0.13, 0.28, 0.48 and 0.66 of the energy to neutral pions at 1, 5, 20 and 100
        GeV.
        """
        fraction = np.array([(hits.e_pi0 / hits.e_total).mean() for hits in pions.values()])
        assert np.all(np.diff(fraction) > 0.0)
        np.testing.assert_allclose(fraction, [0.13, 0.28, 0.48, 0.66], atol=0.08)

    def test_the_fraction_follows_the_power_law_of_groom(self, pions):
        """f = 1 - (E/E0)^(k - 1) with k = 0.82 and E0 = 1 GeV, above some GeV."""
        for energy in (20.0, 100.0):
            assert (pions[energy].e_pi0 / energy).mean() == pytest.approx(
                1.0 - energy**-0.18, abs=0.12
            )

    def test_the_calorimeter_does_not_compensate(self, pions):
        """The response stays below 1 and rises with energy, since more of it becomes
        electromagnetic.
        """
        response = np.array([signal(hits).mean() / energy for energy, hits in pions.items()])
        assert np.all(np.diff(response) > 0.0)
        assert np.all(response < 1.0)
        assert 0.4 < response[0] < 0.7

    def test_showers_with_more_electromagnetic_energy_are_seen_better(self, pions):
        """e/h above 1: response and EM fraction go together from event to event."""
        hits = pions[20.0]
        inside = hits.e_leak < 0.05 * 20.0
        slope = stats.linregress(hits.e_pi0[inside] / 20.0, signal(hits)[inside] / 20.0)
        assert slope.slope > 5.0 * slope.stderr
        e_over_h = (slope.intercept + slope.slope) / slope.intercept
        assert 1.1 < e_over_h < 2.2  # 1.36 in the Tile, 1.74 in the lead-argon part

    def test_the_resolution_is_worse_than_that_of_electrons_and_improves_with_energy(self, pions):
        relative = np.array([signal(hits).std() / signal(hits).mean() for hits in pions.values()])
        assert np.all(np.diff(relative) < 0.0)
        assert 0.10 < relative[2] < 0.25  # 58 %/sqrt(20) = 0.13 in the combined test beam

    def test_charged_pions_reach_the_hadronic_layers(self, pions):
        share = np.array(
            [
                per_layer(hits, hits.signal)[:, 4:].sum() / hits.signal.sum()
                for hits in pions.values()
            ]
        )
        assert np.all(np.diff(share[1:]) > 0.0)
        assert 0.2 < share[2] < 0.7

    def test_invisible_energy_is_a_fair_part_of_what_is_not_electromagnetic(self, pions):
        """Nuclear binding takes 20-40 % of the non-EM energy (Wigmans, Calorimetry, section
        2.3).
        """
        for energy in (5.0, 20.0):
            hits = pions[energy]
            part = hits.invisible.sum() / (
                hits.invisible.sum() + hits.non_em.sum() + hits.escaped.sum()
            )
            assert 0.15 < part < 0.5


def test_no_shower_starts_in_front_of_the_material():
    assert SLABS.x_in[0] == FRONT
