"""Showers lose no energy, depend on nothing but their seed, and refuse what they do not know."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from particle import Particle

from pfcalib.clustering.topo import find_clusters
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.simulation.digitise import Hits, digitise, noise_sigma
from pfcalib.simulation.particles import GUNS, Particles, simulate_gun
from pfcalib.simulation.showers import simulate_showers
from tests.simulation.blocks import signal, truth

SPECIES = list(GUNS.values())


def make(pdg_id, energy, eta=0.0, phi=0.0, n=1):
    return Particles(
        np.arange(n),
        np.full(n, pdg_id, np.int32),
        np.full(n, float(energy)),
        np.full(n, float(eta)),
        np.full(n, float(phi)),
    )


def lowest(name):
    """Total energy in GeV of a soft particle of a gun."""
    return Particle.from_pdgid(GUNS[name]).mass * 1e-3 + 0.1


def accounted(hits):
    """Energy of each event that is found again: in cells, in dead material and behind."""
    return np.bincount(hits.event, truth(hits), hits.n_events) + hits.e_dead + hits.e_leak


class TestEnergy:
    @pytest.mark.parametrize("grid", [WINDOW, BARREL], ids=lambda grid: grid.name)
    @pytest.mark.parametrize("name", GUNS)
    def test_all_energy_is_found_again(self, name, grid, rng):
        hits = simulate_showers(
            simulate_gun(name, 300, rng, energy=(lowest(name), 2000.0)),
            grid,
            rng,
            field=2.0 if grid.wraps else 0.0,
        )
        np.testing.assert_allclose(accounted(hits), hits.e_total, rtol=1e-9)

    @pytest.mark.parametrize("name", GUNS)
    def test_no_energy_is_negative(self, name, rng):
        """Many soft particles: their tracks turn back and stop in all places."""
        hits = simulate_showers(
            simulate_gun(name, 2000, rng, energy=(lowest(name), 20.0)), BARREL, rng, field=2.0
        )
        for field in Hits._fields[2:]:
            assert getattr(hits, field).min(initial=0.0) >= 0.0, field

    @given(
        pdg_id=st.sampled_from(SPECIES),
        log_energy=st.floats(np.log(0.2), np.log(2000.0)),
        eta=st.floats(-0.75, 0.75),
        phi=st.floats(-np.pi, np.pi),
        field=st.sampled_from([0.0, 2.0, 4.0]),
        seed=st.integers(0, 2**32),
    )
    @settings(deadline=None, max_examples=100)
    def test_whatever_is_shot_the_account_closes(self, pdg_id, log_energy, eta, phi, field, seed):
        energy = np.exp(log_energy) + (0.94 if abs(pdg_id) > 100 else 0.0)
        hits = simulate_showers(
            make(pdg_id, energy, eta, phi, n=3), BARREL, np.random.default_rng(seed), field=field
        )
        np.testing.assert_allclose(accounted(hits), hits.e_total, rtol=1e-6)
        for name in ("em", "non_em", "invisible", "escaped", "e_dead", "e_leak"):
            assert getattr(hits, name).min(initial=0.0) >= 0.0

    def test_nucleons_bring_their_kinetic_energy(self, rng):
        assert simulate_showers(make(2212, 10.0), WINDOW, rng).e_total[0] == pytest.approx(
            10.0 - 0.93827, abs=1e-4
        )

    def test_antinucleons_bring_two_masses_and_annihilate_at_rest(self, rng):
        hits = simulate_showers(make(-2212, 0.93827 + 0.3, n=200), WINDOW, rng)
        np.testing.assert_allclose(hits.e_total, 0.3 + 2.0 * 0.93827, rtol=1e-4)
        assert hits.e_pi0.mean() > 0.15  # five pions in the mean, a third of them neutral

    def test_energy_given_to_neutral_pions_is_part_of_the_energy(self, rng):
        hits = simulate_showers(make(211, 50.0, n=300), WINDOW, rng)
        assert np.all((hits.e_pi0 >= 0.0) & (hits.e_pi0 <= 50.0 * (1.0 + 1e-9)))

    def test_a_particle_that_curls_up_counts_as_lost_in_dead_material(self, rng):
        hits = simulate_showers(make(211, 0.3), BARREL, rng, field=2.0)
        assert hits.e_dead[0] == 0.3
        assert len(hits.cell) == 0

    def test_a_particle_beside_the_grid_leaks(self, rng):
        hits = simulate_showers(make(22, 10.0, eta=0.5, n=20), WINDOW, rng)
        assert np.all(hits.e_leak > 8.0)


@pytest.fixture(scope="module")
def hits():
    rng = np.random.default_rng(4)
    return simulate_showers(
        simulate_gun("pi+", 200, rng, energy=(0.2, 200.0)), BARREL, rng, field=2.0
    )


class TestHits:
    def test_each_cell_occurs_once_an_event_and_in_order(self, hits):
        key = hits.event * BARREL.n_cells + hits.cell
        assert np.all(np.diff(key) > 0)

    def test_types_are_those_promised(self, hits):
        assert hits.cell.dtype == np.int32
        assert hits.offsets.dtype == np.int64
        assert all(getattr(hits, name).dtype == np.float64 for name in Hits._fields[2:])
        assert hits.offsets[-1] == len(hits.cell)

    def test_an_event_without_particles_is_empty(self, rng):
        gap = Particles(
            np.array([0, 2]),
            np.array([22, 22], np.int32),
            np.array([5.0, 5.0]),
            np.zeros(2),
            np.zeros(2),
        )
        hits = simulate_showers(gap, WINDOW, rng)
        assert np.diff(hits.offsets)[1] == 0
        assert hits.e_total.tolist() == [5.0, 0.0, 5.0]

    def test_no_particles_make_no_events(self, rng):
        assert simulate_showers(make(22, 1.0, n=0), WINDOW, rng).n_events == 0

    def test_particles_of_one_event_add_up(self, rng):
        pair = Particles(
            np.array([0, 0]),
            np.array([22, 211], np.int32),
            np.array([20.0, 5.0]),
            np.zeros(2),
            np.zeros(2),
        )
        assert simulate_showers(pair, WINDOW, rng).e_total.tolist() == [25.0]

    def test_more_cells_than_the_first_buffer_are_kept(self, rng):
        hits = simulate_showers(make(211, 500.0, n=60), BARREL, rng)
        assert len(hits.cell) > 4096
        np.testing.assert_allclose(accounted(hits), 500.0)


class TestSeed:
    def test_the_same_seed_makes_the_same_hits(self):
        first, second = (
            simulate_showers(make(211, 20.0, n=50), WINDOW, np.random.default_rng(7))
            for _ in range(2)
        )
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_another_seed_makes_others(self):
        first, second = (
            simulate_showers(make(211, 20.0, n=50), WINDOW, np.random.default_rng(seed))
            for seed in (7, 8)
        )
        assert signal(first).tolist() != signal(second).tolist()

    def test_an_event_does_not_know_of_those_after_it(self):
        long, short = (
            simulate_showers(make(211, 20.0, n=n), WINDOW, np.random.default_rng(7))
            for n in (20, 10)
        )
        np.testing.assert_array_equal(signal(long)[:10], signal(short))


def test_the_response_does_not_depend_on_azimuth(rng):
    """The barrel closes: showers at phi = pi are those at phi = 0."""
    means = [
        signal(simulate_showers(make(22, 20.0, eta=0.1, phi=phi, n=400), BARREL, rng)).mean()
        for phi in (0.01, np.pi - 0.001)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.01)


def test_positive_and_negative_pseudorapidity_are_alike(rng):
    means = [
        signal(simulate_showers(make(22, 20.0, eta=eta, n=400), BARREL, rng)).mean()
        for eta in (0.3, -0.3)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.01)


def test_particles_without_a_shower_are_refused(rng):
    with pytest.raises(ConfigError, match=r"no shower for particles of PDG id \[3122\]"):
        simulate_showers(make(3122, 2.0), WINDOW, rng)


def test_a_grid_of_other_cells_has_the_same_energy(rng):
    """Twice as many cells in EMB2 hold what they held before."""
    layers = list(WINDOW.layers)
    layers[2] = dataclasses.replace(
        layers[2], n_eta=2 * layers[2].n_eta, d_eta=0.5 * layers[2].d_eta
    )
    grid = dataclasses.replace(WINDOW, layers=tuple(layers))
    coarse, finer = (
        simulate_showers(make(22, 20.0, n=50), g, np.random.default_rng(7)) for g in (WINDOW, grid)
    )
    np.testing.assert_allclose(signal(coarse), signal(finer), rtol=1e-9)


def test_the_tail_of_a_hard_shower_is_no_grain_that_makes_clusters(rng):
    """A pi0 of 1 TeV on the centre of a cell is one narrow shower; in Geant4 one of 150-250 GeV
    leaves one cluster above 0.3 GeV.
    """
    n_events, sigma = 60, noise_sigma(WINDOW)
    energy = digitise(
        simulate_showers(make(111, 1000.0, eta=0.0125, phi=0.0125, n=n_events), WINDOW, rng),
        WINDOW,
        sigma,
        rng,
    )
    clusters = find_clusters(energy, sigma, WINDOW)
    owner = np.repeat(np.arange(len(clusters.event)), np.diff(clusters.offsets))
    e_cluster = np.bincount(owner, energy[clusters.event[owner], clusters.cell] * clusters.weight)
    assert np.sum(e_cluster > 0.3) / n_events < 1.5
