"""A converted file holds the clusters of its sources bit by bit, says where they come from, and
goes through the rest of the package.
"""

import dataclasses
import hashlib
import shutil

import h5py
import numpy as np
import pytest
import uproot
from factories import make_sample
from samples import damage
from samples.real_root import write_mltree

from pfcalib.columns import COLUMNS, JAGGED, SCALARS
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.images import IMAGE_SHAPES, build_images
from pfcalib.geometry import BARREL
from pfcalib.samples.check import check_sample
from pfcalib.samples.conversion import convert_sample
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.read import read_sample
from pfcalib.samples.select import SelectionConfig
from pfcalib.samples.write import write_sample
from pfcalib.training.stream import ClusterStream

BRANCHES = {"PreSamplerB": "PSB"}  # of images that are not named as their layer


def assert_same(one, two):
    """Equal bit by bit, in all columns."""
    assert one.scalars.keys() == two.scalars.keys()
    assert one.cells.keys() == two.cells.keys()
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in one.scalars:
        np.testing.assert_array_equal(one[name], two[name])
    for name in one.cells:
        np.testing.assert_array_equal(one.cells[name], two.cells[name])
    assert one.geo.same_as(two.geo)


@pytest.fixture(scope="module")
def mltree(tmp_path_factory):
    path = tmp_path_factory.mktemp("mltree") / "mltree.root"
    write_mltree(path, n_events=60)
    return path


@pytest.fixture
def images(rng, tmp_path):
    """A file of the earlier layout, as uproot writes it."""
    sample = make_sample(rng, 120, BARREL)
    branches = {
        BRANCHES.get(name, name): image
        for name, image in build_images(sample, layers=tuple(IMAGE_SHAPES)).items()
    }
    branches |= {
        name: sample[name]
        for name in (
            "truthE",
            "truthEta",
            "truthPhi",
            "clusterE",
            "clusterEta",
            "clusterPhi",
            "cluster_ENG_CALIB_TOT",
        )
    }
    with uproot.recreate(tmp_path / "images.root") as file:
        file.mktree(
            "ClusterTree",
            {name: (array.dtype, array.shape[1:]) for name, array in branches.items()},
        ).extend(branches)
    return tmp_path / "images.root"


def test_a_converted_native_file_is_the_same_sample(sample, path, tmp_path):
    seen = []
    report = convert_sample(path, tmp_path / "copy.root", progress=seen.append)
    back = read_sample(tmp_path / "copy.root")
    assert_same(back, sample)
    assert (report.n_clusters, sum(seen), report.layouts, report.absent, report.skipped) == (
        300,
        300,
        ("pfcalib",),
        (),
        (),
    )
    assert back.metadata == {
        "generator": "synthetic",
        "converted_from": "pfcalib",
        "sources": [
            {
                "name": "sample.root",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "metadata": sample.metadata,
            }
        ],
        "absent": [],
        "skipped": [],
    }


def test_an_mltree_goes_through_images_and_the_stream_after_its_conversion(mltree, tmp_path):
    report = convert_sample(mltree, tmp_path / "native.root")
    original, back = read_sample(mltree), read_sample(tmp_path / "native.root")
    assert_same(back, original)
    assert report.layouts == ("MLTree",)
    assert (
        set(report.absent) == {*SCALARS, *JAGGED} - original.scalars.keys() - original.cells.keys()
    )
    assert {"cluster_PTD", "cluster_SECOND_R"} <= set(report.absent)
    checked = check_sample(tmp_path / "native.root")
    assert checked.passed, checked.problems
    assert checked.missing == report.absent
    pixels = build_images(back)
    stream = ClusterStream(
        tmp_path / "native.root",
        split="all",
        balance=None,
        shuffle=False,
        select=SelectionConfig(min_cluster_e=1e-3),
        batch_size=16,
    )
    batches = [stream[i] for i in range(len(stream))]
    assert stream.n_clusters == len(original)
    np.testing.assert_allclose(
        np.concatenate([batch[0]["pixels"] for batch in batches]),
        np.concatenate([image.reshape(len(image), -1) for image in pixels.values()], axis=1),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        np.concatenate([batch[1] for batch in batches])[:, 1], original.is_em
    )


def test_images_of_the_earlier_layout_are_images_again_after_their_conversion(images, tmp_path):
    report = convert_sample(images, tmp_path / "native.root")
    assert report.layouts == ("ClusterTree images",)
    assert {"truthPdgId", "cluster_cell_hitsE_EM"} <= set(report.absent)
    assert check_sample(tmp_path / "native.root").n_clusters == 120
    with uproot.open(images) as file:
        expected = file["ClusterTree"]["EMB2"].array(library="np")
    np.testing.assert_allclose(
        build_images(read_sample(tmp_path / "native.root"))["EMB2"], expected, rtol=1e-6
    )
    # a classifier needs the particle
    with pytest.raises((BadFileError, ConfigError), match="truthPdgId"):
        ClusterStream(tmp_path / "native.root")


def test_geant4_showers_and_voxels_are_converted_with_their_cells(rng, tmp_path):
    convert_sample(packaged_sample("geant4_pions"), tmp_path / "showers.root", on_error="skip")
    back = read_sample(tmp_path / "showers.root")
    assert back.metadata["generator"].startswith("Geant4")
    assert back.metadata["converted_from"] == "showers"
    assert len(back) == 8720
    with h5py.File(tmp_path / "pions.hdf5", "w") as file:
        file["incident_energies"] = np.full((20, 1), 4096.0)
        file["showers"] = rng.uniform(1.0, 30.0, (20, 533))
    convert_sample(tmp_path / "pions.hdf5", tmp_path / "voxels.root")
    voxels = read_sample(tmp_path / "voxels.root")
    assert voxels.offsets[-1] == 20 * 533
    np.testing.assert_allclose(voxels["truthE"], 4.096)


def test_a_binning_is_for_voxels_alone(path, tmp_path):
    (tmp_path / "own.xml").write_text(
        '<Bins><Bin pid="22" name="photon"><Layer id="1" r_edges="0,2,6" '
        'n_bin_alpha="4"/></Bin></Bins>'
    )
    with h5py.File(tmp_path / "own.hdf5", "w") as file:
        file["incident_energies"], file["showers"] = np.full((3, 1), 1000.0), np.ones((3, 8))
    (tmp_path / "own.xml").rename(tmp_path / "elsewhere.xml")
    with pytest.raises(BadFileError, match="8 voxels"):
        convert_sample(tmp_path / "own.hdf5", tmp_path / "out.root")
    convert_sample(tmp_path / "own.hdf5", tmp_path / "out.root", binning=tmp_path / "elsewhere.xml")
    assert read_sample(tmp_path / "out.root").offsets[-1] == 24
    with pytest.raises(
        BadFileError,
        match=r"sample\.root: is of layout pfcalib, a binning goes with CaloChallenge only",
    ):
        convert_sample(path, tmp_path / "out.root", binning=tmp_path / "elsewhere.xml")


def test_several_sources_of_the_same_cells_become_one_with_the_columns_that_all_have(
    sample, path, mltree, tmp_path
):
    few = dataclasses.replace(
        sample,
        scalars={
            name: array for name, array in sample.scalars.items() if name != "cluster_LATERAL"
        },
    )
    write_sample(tmp_path / "few.root", few)
    report = convert_sample([path, tmp_path / "few.root"], tmp_path / "both.root")
    assert report.absent == ("cluster_LATERAL",)
    assert report.n_clusters == 600
    both = read_sample(tmp_path / "both.root")
    np.testing.assert_array_equal(both["clusterE"], np.tile(sample["clusterE"], 2))
    assert list(both.scalars) == [
        *(name for name in COLUMNS if name in few.scalars),
        "sampleNumber",
    ]
    np.testing.assert_array_equal(both["sampleNumber"], np.repeat([0, 1], 300))
    assert check_sample(tmp_path / "both.root").n_events == 300
    twice = [tmp_path / "both.root", path]
    third = read_sample(twice, columns=["sampleNumber"])["sampleNumber"]
    np.testing.assert_array_equal(third, np.repeat([0, 1, 2], 300))
    shutil.copyfile(path, tmp_path / "copy.root")
    with pytest.warns(UserWarning, match=r"copy\.root holds what .*sample\.root holds"):
        one = convert_sample([path, tmp_path / "copy.root"], tmp_path / "one.root")
    assert one.n_clusters == 300
    mixed = convert_sample([path, mltree], tmp_path / "mixed.root")
    assert mixed.layouts == ("pfcalib", "MLTree")
    assert read_sample(tmp_path / "mixed.root").metadata["converted_from"] == "pfcalib, MLTree"


def test_sources_of_other_cells_are_refused_or_skipped(sample, path, rng, tmp_path):
    write_sample(tmp_path / "barrel.root", make_sample(rng, 20, BARREL))
    with pytest.raises(
        BadFileError, match=r"barrel\.root: does not have the cells \(CellGeo\) of .*sample\.root"
    ):
        convert_sample([path, tmp_path / "barrel.root"], tmp_path / "out.root")
    report = convert_sample(
        [path, tmp_path / "barrel.root"], tmp_path / "out.root", on_error="skip"
    )
    assert_same(read_sample(tmp_path / "out.root"), sample)
    assert [fault.path for fault in report.skipped] == [str(tmp_path / "barrel.root")]
    assert "does not have the cells" in read_sample(tmp_path / "out.root").metadata["skipped"][0]


def test_a_failed_conversion_leaves_an_older_file_alone(sample, path, tmp_path):
    (tmp_path / "out.root").write_text("older")
    good = damage.write_clusters(tmp_path / "good.root", sample, basket_size=100)
    bad = damage.blank(
        good, tmp_path / "bad.root", damage.basket(good, "ClusterTree", "cluster_cell_E", 2)
    )
    with pytest.raises(BadFileError, match=r"bad\.root"):
        convert_sample([path, bad], tmp_path / "out.root")
    assert (tmp_path / "out.root").read_text() == "older"
    assert not list(tmp_path.glob(".*"))
    report = convert_sample([path, bad], tmp_path / "out.root", on_error="skip")
    assert report.n_clusters == 500
    assert [(fault.entry, fault.n_lost) for fault in report.skipped] == [(200, 100)]
    out = read_sample(tmp_path / "out.root")[300:]
    assert set(out.scalars.pop("sampleNumber")) == {1}
    assert_same(out, sample[:200])


def test_an_output_among_the_sources_and_nothing_to_convert_are_errors(sample, path, tmp_path):
    with pytest.raises(ConfigError, match=r"sample\.root: the output is one of the sources"):
        convert_sample([path], tmp_path / "." / "sample.root")
    write_sample(tmp_path / "empty.root", sample[:0])
    with pytest.raises(BadFileError, match=r"empty\.root: no cluster to be converted"):
        convert_sample(tmp_path / "empty.root", tmp_path / "out.root")
    assert not (tmp_path / "out.root").exists()
    with pytest.raises(BadFileError, match="none of the files can be read"):
        convert_sample(tmp_path / "gone.root", tmp_path / "out.root", on_error="skip")
