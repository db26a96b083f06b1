"""The learned step behind the parametrised showers."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import BadFileError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.metrics.fidelity import (
    feature_table,
    shower_moments,
    simulate_copies,
    tell_apart,
)
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import read_showers
from pfcalib.simulation import morph
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.refine import point, read_refinements, to_coordinates, to_moments
from pfcalib.simulation.showers import simulate_showers


def shoot(pdg_id, energy, n, *, eta=0.0, grid=WINDOW, field=0.0, refine=True, seed=7):
    particles = Particles(
        np.arange(n), np.full(n, pdg_id), np.full(n, energy), np.full(n, eta), np.zeros(n)
    )
    rng = np.random.default_rng(seed)
    return simulate_showers(particles, grid, rng, field=field, refine=refine)


def truth(hits):
    cells = hits.em + hits.non_em + hits.invisible + hits.escaped
    return np.bincount(hits.event, cells, hits.n_events)


@pytest.mark.parametrize("pdg_id", [111, 211, -211])
@pytest.mark.parametrize(("energy", "grid"), [(0.3, WINDOW), (8.0, WINDOW), (300.0, BARREL)])
def test_energy_stays_balanced_and_signals_stay_positive(pdg_id, energy, grid):
    hits = shoot(pdg_id, energy, 40, eta=0.02, grid=grid)
    assert truth(hits) + hits.e_dead + hits.e_leak == pytest.approx(hits.e_total, rel=1e-9)
    assert min(hits.signal.min(), hits.em.min(), hits.non_em.min()) >= 0.0
    keys = hits.event * grid.n_cells + hits.cell
    assert np.all(np.diff(keys) > 0)


def test_the_step_fades_where_geant4s_showers_become_few():
    """Beyond, the showers are those of the parametrisation; between, nothing jumps."""
    raw, refined = (shoot(111, 300.0, 10, refine=refine) for refine in (False, True))
    assert refined.cell.tolist() == raw.cell.tolist()
    assert refined.signal == pytest.approx(raw.signal)
    soft = []
    for energy in (40.0, 100.0, 190.0):
        raw, refined = (shoot(111, energy, 100, refine=refine) for refine in (False, True))
        assert refined.signal.sum() / raw.signal.sum() == pytest.approx(1.0, abs=0.01)
        soft.append(len(refined.cell) / len(raw.cell))
    assert soft[0] > soft[1] > soft[2] == pytest.approx(1.0, abs=0.02)


def test_species_without_a_step_stay_as_they_are():
    for pdg_id in (11, 22, 211, 2112):
        raw, refined = (shoot(pdg_id, 5.0, 10, refine=refine) for refine in (False, True))
        assert refined.cell.tolist() == raw.cell.tolist()
        assert refined.signal == pytest.approx(raw.signal)


def test_refined_showers_are_harder_to_tell_from_geant4():
    """By trees on the moments of 2-30 GeV neutral pions."""
    reference, _ = read_showers(packaged_sample("geant4_pions"), WINDOW)
    chosen = (reference.pdg_id == 111) & (reference.e_true > 2.0) & (reference.e_true < 30.0)
    geant4, sigma = reference.select(chosen), noise_sigma(WINDOW)
    layer_sigma = {k.name: sigma[WINDOW.offset[i]] for i, k in enumerate(WINDOW.layers)}
    areas = []
    for refine in (False, True):
        rng = np.random.default_rng(1)
        fast, _ = simulate_copies(geant4, WINDOW, rng, copies=1, refine=refine)
        tables = [
            feature_table(shower_moments(one, WINDOW, sigma), one.e_true, layer_sigma)
            for one in (fast, geant4)
        ]
        areas.append(tell_apart(*tables, copies=1, seed=1, n_folds=3).auc)
    assert (areas[0] - areas[1]).significance > 3.0


def test_events_of_several_particles_are_sums_of_their_showers():
    kinds, energies = np.array([211, 111, 22]), np.array([5.0, 8.0, 2.0])
    eta, phi = np.array([0.1, -0.1, 0.5]), np.array([0.0, 0.1, 3.1])
    one, each = (
        simulate_showers(
            Particles(event, kinds, energies, eta, phi), BARREL, np.random.default_rng(4)
        )
        for event in (np.zeros(3, np.int64), np.arange(3))
    )
    assert one.n_events == 1
    assert one.signal.sum() == pytest.approx(each.signal.sum(), rel=1e-9)
    assert one.e_total[0] == pytest.approx(15.0)
    assert np.unique(one.cell).size == one.cell.size


def test_particles_that_curl_up_leave_nothing():
    hits = shoot(211, 0.25, 20, grid=BARREL, field=2.0)
    assert truth(hits) + hits.e_dead + hits.e_leak == pytest.approx(hits.e_total, rel=1e-9)
    assert shoot(211, 1.0, 0).n_events == 0


def test_oblique_showers_keep_their_response():
    raw, refined = (
        shoot(111, 20.0, 200, eta=0.6, grid=BARREL, refine=refine) for refine in (False, True)
    )
    assert refined.signal.sum() == pytest.approx(raw.signal.sum(), rel=0.05)


def test_a_neutral_particle_points_to_its_direction():
    particles = Particles(np.arange(1), np.array([111]), np.ones(1), np.full(1, 0.4), np.ones(1))
    assert point(particles, BARREL, field=2.0)[:, 0] == pytest.approx(
        np.array([[0.4], [1.0]]) * np.ones((1, 7))
    )


def test_coordinates_give_the_moments_back():
    rng = np.random.default_rng(2)
    size = np.array([[getattr(k, name) for k in WINDOW.layers] for name in ("d_eta", "d_phi")])
    cells = morph.Cells(*(np.zeros(0) for _ in range(4)), size, np.full(7, 0.05))
    moments = rng.uniform(0.2, 1.0, (50, morph.N_MOMENTS))
    moments[:, morph.ETA : morph.CORE] *= 0.05
    moments[:, morph.CELLS] = rng.integers(0, 30, 50)
    moments[:, morph.HOTTEST] = 0.15
    moments[:, morph.SECOND] = 0.1
    jitter = rng.standard_exponential(moments.shape)
    again = to_moments(to_coordinates(moments, cells, jitter), moments * 0.0, cells, jitter)
    assert again == pytest.approx(moments, rel=1e-6)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "refinement.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(BadFileError, match="refine-showers"):
        read_refinements(path)
