"""Decays are held against kinematics, muons against Landau's most probable loss, and the kinds of
hadrons against each other.
"""

import numpy as np
import pytest
from scipy import stats

from pfcalib.geometry import WINDOW
from pfcalib.simulation.detector import build_slabs, grid_arrays
from pfcalib.simulation.kernels import Setup, Track, new_scratch
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.showers import simulate_showers
from pfcalib.simulation.species import (
    KAON,
    KAON_LONG,
    MASS,
    MUON,
    NEUTRINO,
    PI0,
    PION,
    decay,
)
from tests.simulation.blocks import per_layer, signal
from tests.simulation.test_showers import make

P_MIN = 1e-3
SETUP = Setup(build_slabs(WINDOW), grid_arrays(WINDOW), ShowerConfig())


def decays(kind, energy, n, rng):
    """Daughters of n decays in the strips along x: (number, kind, energy, ux) and the energy of the
    neutrinos of each.
    """
    scratch, rows, escaped = new_scratch(WINDOW.n_cells), [], np.zeros(n)
    for i in range(n):
        scratch.counts[:], scratch.cells[:] = 0, 0.0
        decay(rng, SETUP, scratch, Track(kind, energy, 1500.0, 0.0, 0.0, 1.0, 0.0, 0.0))
        stack = scratch.stack[: scratch.counts[1]]
        rows += [(i, row[0], row[1], row[5]) for row in stack]
        escaped[i] = scratch.cells[:, 4].sum()
    return np.array(rows), escaped


class TestDecay:
    @pytest.mark.parametrize("kind", [PI0, PION, KAON, KAON_LONG])
    def test_energy_and_momentum_along_the_flight_are_kept(self, kind, rng):
        daughters, escaped = decays(kind, 5.0, 300, rng)
        number = daughters[:, 0].astype(int)
        energy = np.bincount(number, daughters[:, 2], 300) + escaped
        np.testing.assert_allclose(energy, 5.0, rtol=1e-9)
        seen = escaped == 0.0
        p = np.sqrt(np.maximum(daughters[:, 2] ** 2 - MASS[daughters[:, 1].astype(int)] ** 2, 0.0))
        along = np.bincount(number, p * daughters[:, 3], 300)
        np.testing.assert_allclose(
            along[seen], np.sqrt(25.0 - MASS[kind] ** 2), rtol=1e-6, atol=1e-6
        )

    def test_the_muon_of_a_pion_takes_what_kinematics_allows(self, rng):
        """Flat between (m_mu / m_pi)^2 = 0.573 of the energy and all of it, at high energy."""
        daughters, _ = decays(PION, 100.0, 3000, rng)
        assert set(daughters[:, 1]) == {MUON}
        share = (daughters[:, 2] / 100.0 - 0.5731) / (1.0 - 0.5731)
        assert stats.kstest(share, "uniform").pvalue > P_MIN

    def test_a_pion_at_rest_gives_4_mev_to_its_muon(self, rng):
        daughters, escaped = decays(PION, MASS[PION], 10, rng)
        np.testing.assert_allclose(daughters[:, 2] - MASS[MUON], 0.00412, atol=2e-5)
        np.testing.assert_allclose(escaped, 0.02979, atol=2e-5)

    @pytest.mark.parametrize(("kind", "share"), [(KAON, 0.636), (KAON_LONG, 0.0)])
    def test_two_thirds_of_charged_kaons_decay_to_a_muon_and_a_neutrino(self, kind, share, rng):
        daughters, escaped = decays(kind, 5.0, 3000, rng)
        alone = np.bincount(daughters[:, 0].astype(int), minlength=3000) == 1
        assert np.all(escaped[alone] > 0.0)
        assert stats.binomtest(int(alone.sum()), 3000, share).pvalue > P_MIN


def shot(pdg_id, energy, n, rng):
    return simulate_showers(make(pdg_id, energy, 0.0125, 0.0125, n), WINDOW, rng)


class TestMuons:
    def test_the_most_probable_loss_is_that_of_landau(self, rng):
        """PDG review, eq. 34.12 with the density effect: xi (ln(2 m xi / (hbar omega)^2) + 0.2) =
        946 MeV in 715 mm of iron, xi = 40.2 MeV, and 29 MeV in 150 mm of scintillator.
        """
        hits = shot(13, 20.0, 4000, rng)
        lost = per_layer(hits, hits.em + hits.non_em)[:, 5]
        lost = np.sort(lost[lost > 0.5])
        half = len(lost) // 4
        narrowest = np.argmin(lost[half:] - lost[:-half])
        assert lost[narrowest : narrowest + half].mean() == pytest.approx(0.975, rel=0.05)

    def test_they_leave_with_nearly_all_their_energy(self, rng):
        """Fe and Pb take about 3 GeV of 20 on 2.3 m (PDG: 1.5 to 1.8 MeV cm2/g)."""
        hits = shot(-13, 20.0, 500, rng)
        assert np.median(hits.e_leak) == pytest.approx(17.0, abs=0.7)
        assert not hits.e_pi0.any()
        assert not hits.invisible.any()

    def test_their_loss_rises_with_energy(self, rng):
        """Knock-on electrons of higher energy: PDG, iron, 1.56 at 2 GeV and 1.94 MeV cm2/g at 50
        GeV by ionisation.
        """
        soft, hard = (
            (hits := shot(13, energy, 1500, rng)).em.sum() + hits.non_em.sum()
            for energy in (4.0, 50.0)
        )
        assert 1.05 < hard / soft < 1.35


def response(pdg_id, kinetic, rng, n=600):
    energy = kinetic + MASS[{211: PION, 321: KAON, 130: KAON_LONG}.get(pdg_id, 3)]
    hits = shot(pdg_id, energy, n, rng)
    return signal(hits) / hits.e_total, hits


class TestHadrons:
    def test_protons_make_fewer_neutral_pions_than_pions(self, rng):
        """A proton keeps its baryon number: e/h of protons is lower (Gabriel et al., NIM A338
        (1994) 336).
        """
        pion, proton = (response(kind, 20.0, rng)[1] for kind in (211, 2212))
        assert proton.e_pi0.mean() < 0.9 * pion.e_pi0.mean()

    def test_neutrons_do_not_ionise_the_presampler(self, rng):
        proton, neutron = (
            np.mean(per_layer(hits, hits.non_em)[:, 0] > 0.0)
            for hits in (response(kind, 2.0, rng)[1] for kind in (2212, 2112))
        )
        assert proton > 0.8
        assert neutron < 0.5

    def test_antiprotons_at_low_energy_leave_most(self, rng):
        """They annihilate: two nucleon masses more."""
        anti, proton = (signal(response(kind, 1.0, rng)[1]).mean() for kind in (-2212, 2212))
        assert anti > 2.0 * proton

    def test_kaons_give_more_to_neutrinos_than_pions(self, rng):
        kaon, pion = (response(kind, 1.0, rng)[1].escaped.sum() for kind in (321, 211))
        assert kaon > 2.0 * pion

    def test_positrons_shower_as_electrons(self, rng):
        plus, minus = (signal(shot(kind, 10.0, 400, rng)) for kind in (-11, 11))
        assert plus.mean() == pytest.approx(minus.mean(), rel=0.01)


def test_neutrinos_are_no_particles_on_the_stack(rng):
    assert NEUTRINO not in decays(PION, 5.0, 50, rng)[0][:, 1]
