"""Generated showers become clusters: energies and places of voxels in cells, samples that do not
depend on the number of processes, and errors that name what is missing.
"""

import numpy as np
import pytest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.fastsim.generated import generated_hits, into_cells, load_generators, produce_generated
from pfcalib.fastsim.generators import Parametrisation
from pfcalib.fastsim.voxels import BINNINGS, Voxels, write_voxels
from pfcalib.geometry import WINDOW
from pfcalib.samples.read import read_sample
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.produce import ProduceConfig

GUNS = ProduceConfig(
    n_events=40, particles=("pi0", "pi+"), e_min=2.0, e_max=10.0, eta_max=0.05, grid="window",
    chunk=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Showers of the parametrised engine, kept as files."""
    folder = tmp_path_factory.mktemp("showers")
    rng = np.random.default_rng(1)
    for kind, binning in BINNINGS.items():
        energy = np.geomspace(0.3, 16.0, 60)
        write_voxels(folder / f"{kind}.hdf5", Parametrisation(binning).generate(energy, rng))
    return folder


def test_a_voxel_goes_to_the_cells_of_its_ring_and_sector():
    binning, rng = BINNINGS["photon"], np.random.default_rng(1)
    # EMB2 begins after 8 rings of the presampler and 16 x 10 voxels; ring 160 to 200 mm, sector
    # 7 of 10: 252 to 288 degrees from alpha = -pi, so 72 to 108 degrees
    showers = np.zeros((2000, 368), np.float32)
    showers[:, 8 + 160 + 7 * 19 + 14] = 1.0
    n = len(showers)
    row, cell, signal = into_cells(
        Voxels(binning, np.full(n, 1.0), showers),
        np.full(n, -0.0125),
        np.full(n, 0.02),
        WINDOW,
        rng,
    )
    np.testing.assert_allclose(np.bincount(row, signal), 1.0, rtol=1e-6)
    layer = WINDOW.layers[2]
    assert set(WINDOW.sampling[cell]) == {2}
    # mean of r sin(alpha) over the ring and the sector: radius of the centroid, times its sinus
    r = 2.0 / 3.0 * (200.0**3 - 160.0**3) / (200.0**2 - 160.0**2)
    half = np.pi / 10.0
    phi = 0.02 + r * np.sin(half) / half / layer.r
    assert np.average(WINDOW.phi[cell], weights=signal) == pytest.approx(phi, abs=3e-4)
    assert np.average(WINDOW.eta[cell], weights=signal) == pytest.approx(-0.0125, abs=3e-4)


def test_all_energy_of_photons_is_in_cells_and_both_of_a_neutral_pion(folder):
    generators = load_generators(folder)
    rng = np.random.default_rng(1)
    pions = simulate_gun("pi0", 200, rng, energy=(8.0, 8.0), eta=(0.0, 0.0), phi=(0.0, 0.0))
    hits = generated_hits(generators, pions, WINDOW, rng)
    assert hits.n_events == 200
    kept = generators["photon"].known
    near = kept.energy > 3.0
    response = (kept.showers[near].sum(axis=1) / kept.energy[near]).mean()
    found = np.bincount(hits.event, hits.signal) / 8.0
    assert found.mean() == pytest.approx(response, rel=0.03)
    assert np.all(np.diff(hits.event * WINDOW.n_cells + hits.cell) > 0)


def test_a_sample_is_the_same_by_two_processes_and_has_the_pions_of_other_engines(folder, tmp_path):
    one, two = (
        produce_generated(
            tmp_path / f"{n}.root", ProduceConfig(**{**GUNS.__dict__, "n_processes": n}), folder
        )
        for n in (1, 2)
    )
    first, second = read_sample(one), read_sample(two)
    np.testing.assert_array_equal(first["clusterE"], second["clusterE"])
    assert first.metadata["n_events"] == 40
    assert first.metadata["calibration truth"] == "none"
    assert set(np.abs(first["truthPdgId"])) == {111, 211}
    neutral = first["truthPdgId"] == 111
    ratio = np.bincount(first["eventNumber"][neutral], first["clusterE"][neutral], 40)
    true = np.zeros(40)
    true[first["eventNumber"][neutral]] = first["truthE"][neutral]
    assert (ratio.sum() / true.sum()) == pytest.approx(0.95, abs=0.1)


def test_showers_are_refused_where_they_are_not_valid(folder, tmp_path):
    with pytest.raises(ConfigError, match="right angle"):
        produce_generated(
            tmp_path / "a.root", ProduceConfig(n_events=1, particles=("pi0",)), folder
        )
    with pytest.raises(ConfigError, match="no generator of PDG id 2112"):
        produce_generated(
            tmp_path / "b.root", ProduceConfig(**{**GUNS.__dict__, "particles": ("n",)}), folder
        )
    with pytest.raises(BadFileError, match="no generator: expected a folder photon or pion"):
        produce_generated(tmp_path / "c.root", GUNS, tmp_path)
    assert not list(tmp_path.glob("*.root"))
