"""Windows lie where they should, pile-up is what a slow sum gives, and a sample is the same however
it is made; showers in windows are held against Geant4's.
"""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.metrics.roc import auc
from pfcalib.photons.pairs import (
    EMB2,
    N_PIXELS,
    SHAPES,
    SLICES,
    PairsConfig,
    add_hits,
    cached_pairs,
    image,
    overlay,
    read_pairs,
    read_windows,
    shower,
    window_cells,
)
from pfcalib.photons.showershapes import SHAPES_NAMES, cluster_energy, shower_shapes
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import read_showers
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pileup import NO_POOL, turn_table


@pytest.fixture
def window(rng):
    centre = BARREL.locate(EMB2, rng.uniform(-0.6, 0.6, 200), rng.uniform(-np.pi, np.pi, 200))
    return centre, window_cells(BARREL, centre)


def test_every_layer_of_a_window_lies_about_its_hottest_cell(window):
    centre, cells = window
    assert (cells >= 0).all()
    assert cells.shape == (200, N_PIXELS)
    for name, (n_eta, _n_phi) in SHAPES.items():
        of = cells[:, SLICES[name]]
        d_eta, d_phi = BARREL.d_eta[of[0, 0]], BARREL.d_phi[of[0, 0]]
        assert (BARREL.layer[of] == BARREL.layer[of[0, 0]]).all()
        from_centre = BARREL.eta[of] - BARREL.eta[centre, None]
        assert np.abs(from_centre.mean(axis=1)).max() < 0.51 * max(d_eta, 0.025), name
        turned = np.angle(np.exp(1j * (BARREL.phi[of] - BARREL.phi[centre, None])))
        assert np.abs(turned.mean(axis=1)).max() < 0.51 * d_phi, name
        assert np.ptp(from_centre, axis=1).max() == pytest.approx((n_eta - 1) * d_eta)


def test_the_strips_of_a_window_cover_the_cells_of_emb2_and_no_more(window):
    _, cells = window
    ends = {}
    for name in ("EMB1", "EMB2", "PreSamplerB"):
        of = cells[:, SLICES[name]]
        half = 0.5 * BARREL.d_eta[of[0, 0]]
        ends[name] = BARREL.eta[of].min(axis=1) - half, BARREL.eta[of].max(axis=1) + half
    for name in ("EMB1", "PreSamplerB"):
        np.testing.assert_allclose(ends[name], ends["EMB2"], atol=1e-9)


def test_a_window_beyond_the_grid_says_so():
    centre = WINDOW.locate(EMB2, [0.19], [0.0])
    assert (window_cells(WINDOW, centre) < 0).any()


def test_pileup_is_the_sum_of_turned_collisions(rng):
    cell = rng.integers(BARREL.n_cells, size=300).astype(np.int32)
    signal = rng.random(300).astype(np.float32)
    offsets, drawn, turns = np.array([0, 100, 300]), np.array([1, 0, 1]), np.array([3, 0, 63])
    window = np.unique(rng.integers(BARREL.n_cells, size=5000))
    pixel = np.full(BARREL.n_cells, -1, np.int32)
    pixel[window] = np.arange(len(window))
    turned = turn_table(BARREL)
    hits = offsets, cell, signal, turned, pixel
    found = add_hits(np.array([1, 3]), drawn, turns, len(window), *hits)
    for k, n in enumerate((1, 3)):
        slow = np.zeros(BARREL.n_cells)
        for event, turn in zip(drawn[:n], turns[:n], strict=True):
            for j in range(offsets[event], offsets[event + 1]):
                slow[turned[turn, cell[j]]] += signal[j]
        np.testing.assert_allclose(found[k], slow[window], atol=1e-9)
    assert found.sum() > 0


def test_mean_and_width_of_pileup_are_those_of_the_pool_and_of_the_noise(rng):
    """One cell of the pool with 1 GeV: a Poisson number of turned collisions, one in 64 on the
    cell.
    """
    cell = int(BARREL.locate(EMB2, 0.01, 0.01))
    pool = NO_POOL._replace(
        offsets=np.arange(11), cell=np.full(10, cell, np.int32),
        values=np.full((10, 5), 1.0, np.float32),
    )  # fmt: skip
    added = np.stack([overlay(pool, (32.0, 64.0), np.array([cell]), 0, rng) for _ in range(2000)])
    noise = 1e-3 * 10.0 * np.sqrt(64.0)  # MeV of EMB2 at mu = 1
    assert added[:, 0].mean() == pytest.approx(0.5, abs=0.06)
    assert added[:, 1].mean() == pytest.approx(1.0, abs=0.08)
    assert added[:, 1].var() == pytest.approx(1.0 + noise**2, abs=0.12)
    assert np.corrcoef(added[:, 0, 0], added[:, 1, 0])[0, 1] == pytest.approx(0.5**0.5, abs=0.06)


def test_pairs_are_the_same_from_one_process_and_from_a_folder_that_was_left(tmp_path):
    pytest.importorskip("pythia8mc")
    # a fake may have much beside it, so that one is found at once
    config = PairsConfig(
        n_fakes=4, n_copies=2, chunk=2, n_pool=10, mus=(20.0,), pt_hat_max=80.0, share_beside=9.0
    )
    path = cached_pairs(config, cache_dir=tmp_path)
    first = read_pairs(path)
    assert first.is_photon.sum() == 8
    assert len(first.clean) == 16
    assert len(np.unique(first.collision[~first.is_photon])) == 4
    np.testing.assert_array_equal(
        first.pixels(config.mus, 20.0), first.signal + first.noise + first.pileup[0]
    )
    energy = cluster_energy(first.clean) / np.cosh(first.eta)
    assert np.median(energy[first.is_photon] / first.pt[first.is_photon]) == pytest.approx(
        1, abs=0.05
    )
    with pytest.raises(ConfigError, match="mu = 5"):
        first.pixels(config.mus, 5.0)
    path.unlink()
    again = read_pairs(cached_pairs(config, cache_dir=tmp_path))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_mus_that_do_not_rise_are_refused():
    with pytest.raises(ConfigError, match="must rise"):
        PairsConfig(n_fakes=1, mus=(60.0, 20.0))


@pytest.fixture(scope="module")
def against_geant4():
    """Shapes of photons and pions of 15-65 GeV in the reference slice: Geant4's and ours."""
    every, _ = read_showers(packaged_sample("geant4_pions"), WINDOW)
    rng, found = np.random.default_rng(2), {}
    for pdg_id in (22, 111):
        some = every.select(
            (every.pdg_id == pdg_id) & (every.e_true > 15.0) & (every.e_true < 65.0)
        )
        place = some.eta, some.phi
        geant4 = sum(read_windows(WINDOW, some.offsets, some.cell, some.signal, *place, rng)[1:])
        n = len(some.eta)
        shot = Particles(np.arange(n), some.pdg_id, some.e_true, *place)
        fast = sum(read_windows(WINDOW, *shower(shot, WINDOW, rng)[:3], *place, rng)[1:])
        found[pdg_id] = some.e_true, geant4, fast
    return found


@pytest.mark.parametrize("pdg_id", [22, 111])
def test_energies_of_windows_are_those_of_geant4(against_geant4, pdg_id):
    e_true, geant4, fast = against_geant4[pdg_id]
    ratio = np.median(cluster_energy(fast) / e_true) / np.median(cluster_energy(geant4) / e_true)
    assert ratio == pytest.approx(1.0, abs=0.01)
    for name in ("EMB1", "EMB2"):
        one, other = (image(p, name).sum(axis=(1, 2)).mean() for p in (geant4, fast))
        assert one == pytest.approx(other, rel=0.1)


@pytest.mark.parametrize("name", ["R_eta", "w_s1", "dE", "E_ratio", "f1"])
def test_shapes_tell_photons_from_pions_as_well_as_geant4s(against_geant4, name):
    column = SHAPES_NAMES.index(name)
    areas = []
    for which in (1, 2):
        shapes = {k: shower_shapes(v[which])[:, column] for k, v in against_geant4.items()}
        is_photon = np.repeat([True, False], [len(shapes[22]), len(shapes[111])])
        areas.append(auc(np.concatenate([shapes[22], shapes[111]]), is_photon))
    assert abs((areas[0] - areas[1]).significance) < 3.5
