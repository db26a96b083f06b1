"""Images of the earlier layout become cells again, from which the same images are made."""

import numpy as np
import pytest
import uproot
from factories import make_sample
from samples.real_root import write_trees

from pfcalib.columns import COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.features.images import IMAGE_SHAPES, build_images
from pfcalib.geometry import BARREL
from pfcalib.samples.faults import FaultLog
from pfcalib.samples.layouts.image_tree import IMAGES, event_hash, image_grid
from pfcalib.samples.layouts.recognise import open_reader, recognise
from pfcalib.samples.read import read_sample

LAYERS = tuple(IMAGE_SHAPES)
BRANCHES = dict(zip(LAYERS, IMAGES, strict=True))
SCALARS = (
    "truthE",
    "truthEta",
    "truthPhi",
    "clusterE",
    "clusterEta",
    "clusterPhi",
    "clusterIndex",
    "nCluster",
    "cluster_ENG_CALIB_TOT",
)


def image_branches(sample):
    """What a file of the earlier layout holds of a sample."""
    images = {BRANCHES[name]: image for name, image in build_images(sample, layers=LAYERS).items()}
    return {name: sample[name] for name in SCALARS} | images


def write_images(path, branches):
    with uproot.recreate(path) as file:
        file.mktree(
            "ClusterTree",
            {name: (array.dtype, array.shape[1:]) for name, array in branches.items()},
        ).extend(branches)
    return path


@pytest.fixture
def barrel(rng):
    """Clusters all around the barrel, some of them at phi = +-pi."""
    sample = make_sample(rng, 400, BARREL)
    assert np.sum(np.abs(sample["clusterPhi"]) > 3.1) > 3
    return sample


@pytest.fixture
def path(barrel, tmp_path):
    return write_images(tmp_path / "images.root", image_branches(barrel))


def test_images_of_the_cells_are_the_images_of_the_file(barrel, path):
    read = read_sample(path)
    expected, images = build_images(barrel, layers=LAYERS), build_images(read, layers=LAYERS)
    for name in LAYERS:
        np.testing.assert_array_equal(images[name] != 0.0, expected[name] != 0.0)
        np.testing.assert_allclose(images[name], expected[name], rtol=3e-7)
    assert sum(np.count_nonzero(image) for image in images.values()) == read.offsets[-1] > 4000


def test_cells_are_those_that_the_images_were_made_of(barrel, path):
    read, grid = read_sample(path), image_grid()
    one = int(np.argmin(np.abs(barrel["clusterEta"])))
    rows = barrel.cells["cluster_cell_ID"][barrel.offsets[one] : barrel.offsets[one + 1]].astype(
        int
    )
    back = read.cells["cluster_cell_ID"][read.offsets[one] : read.offsets[one + 1]].astype(int)
    places = {
        (int(BARREL.layer[row]), round(float(BARREL.eta[row]), 6), round(float(BARREL.phi[row]), 6))
        for row in rows
    }
    again = {
        (int(grid.layer[row]), round(float(grid.eta[row]), 6), round(float(grid.phi[row]), 6))
        for row in back
    }
    assert again <= places
    energy = read.cells["cluster_cell_E"][read.offsets[one] : read.offsets[one + 1]].sum()
    assert 0.9 < energy / barrel["clusterE"][one] < 1.0 + 1e-6


def test_scalars_are_those_of_the_file_and_the_rest_is_absent(barrel, path):
    read = read_sample(path)
    for name in SCALARS:
        np.testing.assert_array_equal(read[name], barrel[name])
        assert read[name].dtype == COLUMNS[name].numpy_dtype
    assert set(read.scalars) == {*SCALARS, "eventNumber"}
    assert set(read.cells) == {"cluster_cell_ID", "cluster_cell_E"}
    assert recognise(path).name == read.metadata["layout"] == "ClusterTree images"
    with open_reader(path) as reader:
        assert reader.unit == "cluster"
        assert "cluster_CENTER_MAG" in reader.missing
    with pytest.raises(BadFileError, match="has no branch truthPdgId"):
        read_sample(path, columns=["truthPdgId", "clusterE"])


def test_clusters_of_one_event_share_a_number_and_others_do_not(barrel, tmp_path):
    for name in ("truthE", "truthEta", "truthPhi"):
        barrel.scalars[name] = np.repeat(barrel[name][::2], 2)
    path = write_images(tmp_path / "events.root", image_branches(barrel))
    number = read_sample(path, columns=["eventNumber"])["eventNumber"]
    np.testing.assert_array_equal(number[::2], number[1::2])
    assert len(np.unique(number)) == 200
    assert number.min() >= 0
    np.testing.assert_array_equal(
        read_sample(path, columns=["eventNumber"], entry_start=11)["eventNumber"], number[11:]
    )


def test_the_hash_of_an_event_has_no_collisions_among_neighbours():
    energy = np.nextafter(np.float32(1.0), np.float32(2.0)) + np.spacing(
        np.float32(1.0)
    ) * np.arange(100_000, dtype=np.float32)
    assert len(np.unique(event_hash([energy, np.zeros(100_000), np.zeros(100_000)]))) == 100_000


def test_files_that_root_wrote_read_alike(barrel, tmp_path):
    few = barrel[:25]
    branches = image_branches(few)
    types = {
        name: ("I" if array.dtype.kind == "i" else "F") + "".join(f"[{n}]" for n in array.shape[1:])
        for name, array in branches.items()
    }
    write_trees(
        tmp_path / "root.root",
        {"ClusterTree": {name: (types[name], array) for name, array in branches.items()}},
    )
    one, two = (
        read_sample(tmp_path / "root.root"),
        read_sample(write_images(tmp_path / "uproot.root", branches)),
    )
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in one.cells:
        np.testing.assert_array_equal(one.cells[name], two.cells[name])


def test_without_the_presampler_the_rest_is_the_same(barrel, path, tmp_path):
    branches = image_branches(barrel)
    del branches["PSB"]
    read, whole = read_sample(write_images(tmp_path / "six.root", branches)), read_sample(path)
    kept = image_grid().layer[whole.cells["cluster_cell_ID"].astype(int)] > 0
    np.testing.assert_array_equal(read.cells["cluster_cell_E"], whole.cells["cluster_cell_E"][kept])


def test_a_cluster_whose_image_leaves_the_calorimeter_is_reported_not_cut(barrel, tmp_path):
    branches = image_branches(barrel)
    branches["clusterEta"][7] = 1.55
    branches["EMB2"][7] = 0.01
    write_images(tmp_path / "far.root", branches)
    with pytest.raises(
        BadFileError,
        match=r"far\.root: ClusterTree: entry 7: clusterEta puts pixels beyond \|eta\| = 1.6",
    ):
        read_sample(tmp_path / "far.root")
    log = FaultLog()
    assert len(read_sample(tmp_path / "far.root", on_error="skip", faults=log)) == 399
    assert log.n_lost == 1


@pytest.mark.parametrize("shape", [(16, 8), (256,)])
def test_an_image_of_another_shape_is_refused(barrel, tmp_path, shape):
    branches = image_branches(barrel) | {"EMB2": np.zeros((400, *shape), dtype=np.float32)}
    with pytest.raises(
        BadFileError,
        match=r"branch EMB2 is of type .*expected an image of 16 x 16 numbers an entry",
    ):
        read_sample(write_images(tmp_path / "shape.root", branches))


def test_a_pixel_that_is_not_finite_is_reported_as_a_cell(barrel, tmp_path):
    branches = image_branches(barrel)
    branches["EMB1"][30, 64, 2] = np.nan
    with pytest.raises(BadFileError, match="entry 30: cluster_cell_E is nan, it must be finite"):
        read_sample(write_images(tmp_path / "nan.root", branches))
