"""Voxels are where the layout says, files give them back, and samples do not depend on how they
were made.
"""

import importlib.util

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.voxels import (
    BINNINGS,
    VoxelConfig,
    Voxels,
    fast_voxels,
    find_voxels,
    kept_voxels,
    layer_of,
    read_voxels,
    simulate_voxels,
    write_voxels,
)
from pfcalib.geometry import WINDOW
from pfcalib.samples.layouts.calochallenge import Binning, VoxelLayer, voxel_cells

TOY = Binning("toy", 22, (VoxelLayer(1, (0, 3, 9), 4), VoxelLayer(12, (0, 50), 1)))


@pytest.mark.parametrize("particle", BINNINGS)
def test_the_centre_of_a_voxel_lies_in_it(particle):
    binning = BINNINGS[particle]
    cells = voxel_cells(binning)
    # those of rings without sectors have theirs at alpha = 0
    place = {layer.sampling: i for i, layer in enumerate(WINDOW.layers)}
    layer = np.array([place[one.sampling] for one in binning.layers])[layer_of(binning)]
    found = find_voxels(binning, WINDOW, layer, cells.eta, cells.phi)
    assert np.array_equal(found, np.arange(binning.n_voxels))


def test_points_beyond_the_rings_and_in_other_layers_have_no_voxel():
    r = WINDOW.layers[1].r
    found = find_voxels(
        TOY, WINDOW, np.array([1, 1, 2]), np.array([8.9, 9.1, 0.0]) / r, np.zeros(3)
    )
    assert found.tolist() == [2 * 2 + 1, -1, -1]


def test_files_give_the_showers_back_whatever_the_binning(tmp_path, rng):
    showers = np.where(rng.random((5, TOY.n_voxels)) < 0.5, rng.random((5, TOY.n_voxels)), 0.0)
    voxels = Voxels(TOY, np.array([0.256, 1.0, 2.0, 4.0, 8.0]), showers.astype(np.float32))
    path = write_voxels(tmp_path / "toy.hdf5", voxels)
    found = read_voxels(path, n_most=4)
    assert found.binning.layers == TOY.layers
    np.testing.assert_allclose(found.energy, voxels.energy[:4], rtol=1e-6)
    np.testing.assert_allclose(found.showers, voxels.showers[:4], rtol=1e-5)


def test_a_sample_does_not_depend_on_the_processes_and_is_found_again(tmp_path, monkeypatch):
    config = VoxelConfig(engine="parametrised", energies=(1.024,), n_most=8, chunk=4.0)
    assert config.n_chunks == 3
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / "one"))
    one = kept_voxels(config)
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / "two"))
    two = kept_voxels(config, n_processes=2)
    assert np.array_equal(one.showers, two.showers)
    monkeypatch.setattr("pfcalib.fastsim.voxels.simulate_voxels", lambda *_: pytest.fail("again"))
    assert np.array_equal(kept_voxels(config).showers, one.showers)


def test_the_budget_limits_how_many_showers_there_are():
    config = VoxelConfig(energies=(0.5, 50.0, 200.0), n_most=30, budget=500.0, n_least=5)
    energies, counts = np.unique(config.of_all(), return_counts=True)
    assert dict(zip(energies, counts, strict=True)) == {0.5: 30, 50.0: 10, 200.0: 5}
    with pytest.raises(ConfigError, match="muon"):
        VoxelConfig(particle="muon")


def test_showers_have_the_energy_of_the_particle_and_no_preferred_side(rng):
    voxels = Voxels(
        BINNINGS["photon"], np.full(60, 4.096), fast_voxels(BINNINGS["photon"], [4.096] * 60, rng)
    )
    response = voxels.layers.sum(axis=1) / voxels.energy
    assert response.mean() == pytest.approx(1.0, abs=0.05)
    cells = voxel_cells(voxels.binning)
    lean = (voxels.showers * np.where(layer_of(voxels.binning) == 2, cells.eta, 0.0)).sum(axis=1)
    assert abs(lean.mean()) < 4.0 * lean.std() / np.sqrt(len(lean))


@pytest.mark.skipif(
    importlib.util.find_spec("geant4_pybind") is None, reason="geant4_pybind is not installed"
)
def test_geant4_gives_the_same_shower_in_any_chunk_and_nearly_that_of_the_parametrised_engine():
    options = {"energies": (1.024,), "n_most": 12}
    whole = simulate_voxels(VoxelConfig(**options), 0)
    parted = simulate_voxels(VoxelConfig(chunk=5.0, **options), 1)  # every third of them
    assert np.array_equal(parted["showers"], whole["showers"][1::3])
    fast = simulate_voxels(VoxelConfig(engine="parametrised", **options), 0)
    total, other = (one["showers"].sum(axis=1) for one in (whole, fast))
    error = np.hypot(total.std(), other.std()) / np.sqrt(12)
    assert abs(total.mean() - other.mean()) < 4.0 * error
    assert total.mean() == pytest.approx(0.97, abs=0.15)
