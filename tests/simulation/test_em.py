"""Electromagnetic showers are held against the published parametrisation, the Particle Data Group's
numbers and test-beam resolution.
"""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from pfcalib.geometry import WINDOW
from pfcalib.simulation.detector import build_slabs, grid_arrays
from pfcalib.simulation.em import profile, radial, shower
from pfcalib.simulation.kernels import Setup, Track, new_scratch
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers
from pfcalib.simulation.upstream import ELECTRON, K_MIN, PHOTON, attenuation, electron, radiate
from tests.simulation.blocks import build_block, material, per_layer, signal, truth

P_MIN = 1e-3
# the published formulas without tuning
PLAIN = ShowerConfig(t_shift=0.0, a_scale=1.0, s_scale=1.0, core_scale=1.0, tail_scale=1.0)
FIXED = PLAIN._replace(s_scale=0.0)  # and without fluctuations
X0 = material("lead-argon")["x0"]
E_CRIT = material("lead-argon")["e_crit"]
UPSTREAM = (1399.04 - 1230.0) / 88.97  # X0 of aluminium
PRESAMPLER = 11.0 / 140.0  # X0 of liquid argon


def beam(pdg_id, energy, n):
    """Particles at eta = phi = 0, away from the edges of cells by half a cell of EMB2."""
    return Particles(
        np.arange(n),
        np.full(n, pdg_id, np.int32),
        np.full(n, float(energy)),
        np.full(n, 0.0125),
        np.full(n, 0.0125),
    )


class TestMaterials:
    """Mixtures of the period: 1.53 mm Pb, 0.4 mm steel, 0.26 mm glue, 4.2 mm LAr, 0.275 mm kapton
    and copper; numbers of the PDG's tables.
    """

    def test_a_radiation_length_of_lead_argon_is_that_of_its_layers(self):
        per_mm = (1.53 / 5.612 + 0.4 / 17.57 + 0.26 / 390.0 + 4.2 / 140.0 + 0.275 / 60.0) / 6.665
        assert pytest.approx(1.0 / per_mm, rel=0.03) == X0

    def test_a_minimum_ionising_particle_loses_in_lead_argon_what_its_layers_take(self):
        """MeV/mm: 1.274 Pb, 1.143 Fe, 0.2105 LAr, about 0.2 glue and 0.3 kapton with copper."""
        passive = 1.53 * 1.274 + 0.4 * 1.143 + 0.26 * 0.2 + 0.275 * 0.3
        active = 4.2 * 0.2105
        assert 1e3 * material("lead-argon")["de_dx"] == pytest.approx(
            (passive + active) / 6.665, rel=0.03
        )
        assert material("lead-argon")["mip_visible"] == pytest.approx(
            5.44 * active / (passive + active), rel=0.03
        )

    def test_iron_and_scintillator_too(self):
        iron, plastic = 14.3, 3.0
        assert material("iron-scintillator")["x0"] == pytest.approx(
            17.3 / (iron / 17.57 + plastic / 424.0), rel=0.03
        )
        assert 1e3 * material("iron-scintillator")["de_dx"] == pytest.approx(
            (iron * 1.143 + plastic * 0.2) / 17.3, rel=0.03
        )

    @pytest.mark.parametrize("name", ["lead-argon", "iron-scintillator", "argon"])
    def test_the_moliere_radius_is_that_of_the_scale_energy(self, name):
        """R_M = X0 E_s / E_c with E_s = 21.2 MeV."""
        m = material(name)
        assert m["moliere"] == pytest.approx(m["x0"] * 0.0212 / m["e_crit"], rel=0.03)

    def test_the_sampling_frequency_is_radiation_length_over_period(self):
        assert material("lead-argon")["f_s"] == pytest.approx(X0 / 6.665, rel=0.01)
        assert material("iron-scintillator")["f_s"] == pytest.approx(
            material("iron-scintillator")["x0"] / 17.3, rel=0.01
        )


def distances(rng, slabs, log_e, taus):
    """Distances of spots at depths tau from the axis in Moliere radii, drawn from core and tail: r
    = R sqrt(u / (1 - u)).
    """
    core, tail, share = np.array([radial(slabs, 4, log_e, min(tau, 6.0)) for tau in taus]).T
    u = rng.random(len(taus))
    return np.where(rng.random(len(taus)) < share, core, tail) * np.sqrt(u / (1.0 - u))


class TestProfile:
    def test_a_shower_of_10_gev_has_the_depth_and_shape_computed_by_hand(self):
        """y = 10 / 0.0103 = 970.9, ln y = 6.878, Fs = 3.01, e/mip 0.69, Z = 59.

        T = 6.878 - 0.812 - 0.55/3.01 - 0.69 x 0.31 = 5.670; alpha = 0.81 + (0.458 + 2.26/59) 6.878
        - 0.476/3.01 = 4.066.
        """
        t_max, alpha = profile(build_slabs(WINDOW), FIXED, 4, 10.0, 0.0, 0.0)
        assert t_max == pytest.approx(5.670, abs=0.005)
        assert alpha == pytest.approx(4.066, abs=0.005)

    def test_the_fluctuations_of_10_gev_are_those_computed_by_hand(self, rng):
        """sigma(ln T) = 1/(-2.5 + 1.25 x 6.878) = 0.1640, sigma(ln alpha) = 1/(-0.82 + 0.79 x
        6.878) = 0.2168, rho = 0.784 - 0.023 x 6.878.
        """
        slabs = build_slabs(WINDOW)
        draws = np.log(
            [profile(slabs, PLAIN, 4, 10.0, *rng.standard_normal(2)) for _ in range(20_000)]
        )
        assert draws[:, 0].std() == pytest.approx(0.1640, rel=0.02)
        assert draws[:, 1].std() == pytest.approx(0.2168, rel=0.02)
        assert np.corrcoef(draws.T)[0, 1] == pytest.approx(0.626, abs=0.02)

    def test_the_maximum_moves_in_by_one_radiation_length_for_each_factor_e(self):
        slabs = build_slabs(WINDOW)
        depth = [profile(slabs, FIXED, 4, e, 0.0, 0.0)[0] for e in (5.0, 5.0 * np.e, 5.0 * np.e**2)]
        np.testing.assert_allclose(np.diff(depth), 1.0, rtol=1e-9)

    @pytest.mark.parametrize("energy", [1.0, 10.0, 100.0])
    def test_the_spots_follow_the_gamma_distribution(self, energy, rng):
        """Counts of equal spots in slabs of 1 X0 by chi2; what lies behind the block leaks."""
        edges = 1481.0 + X0 * np.arange(41)
        spots_per_gev = 20_000.5 / energy  # half a spot against rounding down
        setup, scratch = build_block(
            "lead-argon", edges, FIXED._replace(spots_max=20_000.0), spots_per_gev=spots_per_gev
        )
        shower(rng, setup, scratch, Track(ELECTRON, energy, 1481.0, 0.0, 0.0, 1.0, 0.0, 0.0))
        counts = scratch.cells[2:, 1] / energy * 20_000
        log_y = np.log(energy / E_CRIT)
        depth = log_y - 0.812 - 0.55 / 3.01 - 0.69 * 0.31
        alpha = 0.81 + (0.458 + 2.26 / 59.0) * log_y - 0.476 / 3.01
        expected = 20_000 * np.diff(
            stats.gamma.cdf(np.arange(41), alpha, scale=depth / (alpha - 1.0))
        )
        full = expected > 10.0
        assert full.sum() > 10
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-6)
        observed = np.append(counts[full], 20_000 - counts[full].sum())
        assert (
            stats.chisquare(
                observed, np.append(expected[full], 20_000 - expected[full].sum())
            ).pvalue
            > P_MIN
        )

    def test_the_core_of_the_shower_lies_within_the_moliere_radius(self, rng):
        """hep-ex/0001020 is made so that about 90 % of the energy lie within one Moliere radius;
        averaged over the gamma distribution in depth.
        """
        slabs, log_e = build_slabs(WINDOW), np.log(10.0)
        t_max, alpha = profile(slabs, PLAIN, 4, 10.0, 0.0, 0.0)
        tau = rng.gamma(alpha, 1.0 / (alpha - 1.0), 20_000)
        inside = np.mean(distances(rng, slabs, log_e, tau) < 1.0)
        assert t_max > 0.0
        assert inside == pytest.approx(0.90, abs=0.05)

    def test_showers_widen_with_depth(self, rng):
        slabs = build_slabs(WINDOW)
        early, late = (
            np.median(distances(rng, slabs, np.log(10.0), np.full(5000, tau))) for tau in (0.3, 2.0)
        )
        assert late > 1.5 * early


class TestUpstream:
    def test_a_hard_photon_converts_at_seven_ninths_a_radiation_length(self):
        assert attenuation(100.0) == pytest.approx(7.0 / 9.0, rel=0.01)

    def test_attenuation_in_aluminium_agrees_with_the_tables(self):
        """NIST XCOM, aluminium: 0.0232 cm2/g at 10 MeV and about 0.028 at 100 MeV; X0 = 24.01
        g/cm2.
        """
        assert attenuation(0.010) / 24.01 == pytest.approx(0.0232, rel=0.1)
        assert attenuation(0.100) / 24.01 == pytest.approx(0.0283, rel=0.1)

    def test_photons_cross_the_front_as_often_as_the_attenuation_says(self, rng):
        """Without albedo the presampler stays empty exactly when a photon converts behind it:
        exp(-7/9 d).
        """
        n = 4000
        hits = simulate_showers(
            beam(22, 100.0, n), WINDOW, rng, config=ShowerConfig(albedo=0.0, spots_per_gev=1.0)
        )
        empty = int((per_layer(hits, hits.em)[:, 0] == 0.0).sum())
        expected = np.exp(-attenuation(100.0) * (UPSTREAM + PRESAMPLER))
        assert stats.binomtest(empty, n, expected).pvalue > P_MIN

    def test_bremsstrahlung_follows_its_spectrum(self, rng):
        """k dN/dk = 4/3 (1 - v) + v^2: the distribution function in ln k is known in closed
        form.
        """
        energy = 10.0
        k = np.array([radiate(rng, energy) for _ in range(10_000)])

        def integral(k):
            v = k / energy
            return 4.0 / 3.0 * (np.log(k) - v) + 0.5 * v**2

        cdf = (integral(k) - integral(K_MIN)) / (integral(energy) - integral(K_MIN))
        assert stats.kstest(cdf, "uniform").pvalue > P_MIN

    @pytest.mark.parametrize("energy", [1.0, 100.0])
    def test_electrons_arrive_with_exp_minus_depth_of_their_energy(self, energy, rng):
        """Radiation alone leaves <E> = E exp(-d) behind d radiation lengths; photons carry the
        rest.
        """
        slabs, scratch = build_slabs(WINDOW), new_scratch(WINDOW.n_cells)
        setup = Setup(slabs._replace(de_dx=0.0 * slabs.de_dx), grid_arrays(WINDOW), PLAIN)
        kept, n = 0.0, 3000
        for _ in range(n):
            scratch.counts[1] = 0
            electron(rng, setup, scratch, Track(ELECTRON, energy, 1230.0, 0.0, 0.0, 1.0, 0.0, 0.0))
            kept += 1.0 - scratch.stack[: scratch.counts[1], 1].sum() / energy
            assert np.all(scratch.stack[: scratch.counts[1], 0] == PHOTON)
        assert kept / n == pytest.approx(np.exp(-UPSTREAM), rel=0.1)


@pytest.fixture(scope="module")
def photons():
    rng = np.random.default_rng(2)
    return {
        energy: simulate_showers(beam(22, energy, 500), WINDOW, rng)
        for energy in (5.0, 20.0, 50.0, 100.0)
    }


class TestCalorimeter:
    def test_the_response_is_linear(self, photons):
        """Test beam: within a few per mille after corrections; uncorrected losses upstream and
        behind leave 3 % from 20 to 100 GeV.
        """
        response = [signal(photons[energy]).mean() / energy for energy in (20.0, 50.0, 100.0)]
        assert np.ptp(response) < 0.03
        assert np.mean(response) == pytest.approx(1.0, abs=0.05)

    def test_the_resolution_is_that_of_the_calorimeter(self, photons):
        """About 10 %/sqrt(E) in the test beam of the barrel; the reference slice has 13 %/sqrt(E)
        for pi0 of 5-10 GeV.
        """
        for energy, hits in photons.items():
            e = signal(hits)
            assert 0.07 < np.sqrt(energy) * e.std() / e.mean() < 0.16

    def test_the_layers_share_the_energy_ever_deeper(self, photons):
        """Mean depth rises with ln E: the strips lose and EMB2 gains."""
        shares = np.array(
            [per_layer(hits, hits.em).sum(axis=0) / hits.em.sum() for hits in photons.values()]
        )
        assert np.all(np.diff(shares[:, 1]) < 0.0)
        assert np.all(np.diff(shares[:, 2]) > 0.0)
        assert np.all(shares[:, 4:].sum(axis=1) < 0.01)

    def test_photons_and_electrons_leave_electromagnetic_energy_only(self, photons):
        for hits in photons.values():
            assert not np.any(hits.non_em)
            assert not np.any(hits.invisible)
            assert not np.any(hits.e_pi0)

    def test_ninety_per_cent_of_the_energy_lie_within_the_moliere_radius_in_the_middle_layer(
        self, rng
    ):
        """Cells of 3.4 mm instead of 43 mm; behind 1.9 X0 of aluminium and 80 mm of gaps showers
        are a little wider than in one block.
        """
        layers = list(WINDOW.layers)
        layers[2] = dataclasses.replace(layers[2], n_eta=200, n_phi=200, d_eta=0.002, d_phi=0.002)
        grid = dataclasses.replace(WINDOW, layers=tuple(layers))
        hits = simulate_showers(beam(11, 20.0, 200), grid, rng)
        middle = grid.layer[hits.cell] == 2
        distance = 1700.0 * np.hypot(grid.eta[hits.cell] - 0.0125, grid.phi[hits.cell] - 0.0125)
        moliere = material("lead-argon")["moliere"]
        inside = hits.em[middle & (distance < moliere)].sum() / hits.em[middle].sum()
        assert inside == pytest.approx(0.90, abs=0.05)

    def test_the_shower_stays_on_the_axis_of_the_particle(self, rng):
        particles = Particles(
            np.arange(300),
            np.full(300, 22, np.int32),
            np.full(300, 20.0),
            rng.uniform(-0.05, 0.05, 300),
            rng.uniform(-0.05, 0.05, 300),
        )
        hits = simulate_showers(particles, WINDOW, rng)
        total = per_layer(hits, truth(hits))[:, 2]
        middle = WINDOW.layer[hits.cell] == 2
        for axis, where in (("eta", WINDOW.eta), ("phi", WINDOW.phi)):
            mean = (
                np.bincount(hits.event[middle], (truth(hits) * where[hits.cell])[middle], 300)
                / total
            )
            offset = mean - getattr(particles, axis)
            assert abs(offset.mean()) < 5.0 * offset.std() / np.sqrt(300)
            assert offset.std() < 0.4 * 0.025
