"""Clusters that are written as files of other layouts, in trees or RNTuples, are read back."""

import awkward as ak
import numpy as np
import pytest
import uproot
from factories import make_sample

from pfcalib.columns import COLUMNS, LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.check import check_sample
from pfcalib.samples.objects import read_objects
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.simulation.examples import CLUSTER_WRITERS, write_example

LAYOUTS = {
    "mltree": "MLTree",
    "images": "ClusterTree images",
    "physlite": "PHYSLITE",
    "edm4hep": "EDM4hep",
}


@pytest.fixture
def sample(rng):
    """Clusters of one particle an event."""
    sample = make_sample(rng, 60, BARREL)
    for name in ("truthPdgId", "truthE", "truthPt", "truthEta", "truthPhi"):
        sample.scalars[name] = np.repeat(sample[name][::2], 2)
    return sample


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clusters_of_each_layout_are_read_back(sample, tmp_path, layout):
    path = tmp_path / "mine.root"
    CLUSTER_WRITERS[layout](path, sample)
    report = check_sample(path)
    assert (report.layout, report.problems) == (LAYOUTS[layout], ())
    read = read_sample(path)
    for name in ("eventNumber", "clusterE", "clusterEta", "clusterPhi", "nCluster"):
        np.testing.assert_allclose(read[name], sample[name], rtol=1e-5, atol=1e-6, err_msg=name)
    if layout != "physlite":
        for name in ("truthE", "truthEta", "truthPhi"):
            np.testing.assert_allclose(read[name], sample[name], rtol=1e-4, atol=1e-5)
    parts = list(iterate_sample(path, step=7))
    assert len(parts) > 5
    for name in read.scalars:
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(joined, read[name], err_msg=name)


def test_an_mltree_in_an_rntuple_keeps_its_cells_and_truth_particles(sample, tmp_path):
    CLUSTER_WRITERS["mltree"](tmp_path / "mine.root", sample)
    with uproot.open(tmp_path / "mine.root") as file:
        assert file.classname_of("EventTree") == "ROOT::RNTuple"
    read = read_sample(tmp_path / "mine.root")
    np.testing.assert_array_equal(read.offsets, sample.offsets)
    for name in sample.cells:
        np.testing.assert_array_equal(read.cells[name], sample.cells[name])
    objects = read_objects(tmp_path / "mine.root")
    np.testing.assert_array_equal(objects.truth.e[:, 0], sample["truthE"][::2])


def test_own_columns_in_an_rntuple_are_read_like_those_in_a_tree(sample, tmp_path):
    arrays = {**sample.scalars}
    for name, cells in sample.cells.items():
        arrays[name] = ak.unflatten(cells, np.diff(sample.offsets))
    geo = {name: ak.unflatten(v, [len(v)]) for name, v in sample.geo.arrays().items()}
    with uproot.recreate(tmp_path / "own.root") as file:
        file["ClusterTree"], file["CellGeo"] = arrays, geo
    read = read_sample(tmp_path / "own.root")
    assert set(read.scalars) == set(sample.scalars)
    for name in sample.scalars:
        np.testing.assert_array_equal(read[name], sample[name])
        assert read[name].dtype == COLUMNS[name].numpy_dtype
    for name in sample.cells:
        np.testing.assert_array_equal(read.cells[name], sample.cells[name])
    arrays["clusterE"] = ak.Array([["text"]] * len(sample))
    with uproot.recreate(tmp_path / "text.root") as file:
        file["ClusterTree"], file["CellGeo"] = arrays, geo
    with pytest.raises(BadFileError, match=r"text\.root: ClusterTree: branch clusterE is of type"):
        read_sample(tmp_path / "text.root")


def test_subdetectors_of_edm4hep_add_up_to_the_layers(sample, tmp_path):
    CLUSTER_WRITERS["edm4hep"](tmp_path / "mine.root", sample)
    read = read_sample(tmp_path / "mine.root")
    layers = [sample[f"cluster_E_{name}"] for name in LAYER_NAMES]
    np.testing.assert_allclose(read["cluster_E_ECAL"], np.sum(layers[:4], axis=0), rtol=1e-6)
    np.testing.assert_allclose(read["cluster_E_HCAL"], np.sum(layers[4:], axis=0), rtol=1e-6)
    np.testing.assert_array_equal(read["cluster_nCells"], np.diff(sample.offsets))
    np.testing.assert_array_equal(read["truthPdgId"], sample["truthPdgId"])


@pytest.mark.parametrize("layout", ["calochallenge", "showers"])
def test_packaged_showers_are_written_as_cells_or_voxels(layout, tmp_path):
    path = write_example(layout, tmp_path / "mine", n_events=20)
    report = check_sample(path)
    assert (report.n_clusters, report.problems) == (20, ())


def test_voxels_hold_the_energy_of_the_cells_that_they_cover(tmp_path):
    read = [
        read_sample(write_example(layout, tmp_path / layout, n_events=20))
        for layout in ("calochallenge", "showers")
    ]
    np.testing.assert_allclose(read[0]["truthE"], read[1]["truthE"], rtol=1e-5)
    ratio = (
        read[0]["clusterE"] / read[1]["clusterE"]
    )  # what lies outside the outermost ring is lost
    assert np.median(ratio) > 0.99
    assert ratio.max() < 1.0001


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="no example of 'text'; there are: pfcalib"):
        write_example("text", tmp_path / "mine.root")
