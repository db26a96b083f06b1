"""Files of the MLTree layout, written by ROOT, give the clusters that were put in."""

import awkward as ak
import numpy as np
import pytest
import uproot
from samples.real_root import mltree_content, mltree_of, write_mltree, write_trees

from pfcalib.columns import COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.features.images import build_images
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.faults import FaultLog
from pfcalib.samples.layouts.recognise import open_reader, recognise
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.samples.write import write_sample


@pytest.fixture(scope="module")
def barrel(tmp_path_factory):
    """A file with clusters all around, and what is in it."""
    path = tmp_path_factory.mktemp("mltree") / "barrel.root"
    return path, write_mltree(path, grid=BARREL)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """A small file, and what is in it."""
    path = tmp_path_factory.mktemp("mltree") / "window.root"
    return path, write_mltree(path, seed=2, grid=WINDOW)


def assert_holds(read, expected):
    """What was read has all that was put in, bit by bit."""
    np.testing.assert_array_equal(read.offsets, expected.offsets)
    for name in expected.scalars:
        np.testing.assert_array_equal(read[name], expected[name], err_msg=name)
    for name in expected.cells:
        np.testing.assert_array_equal(read.cells[name], expected.cells[name], err_msg=name)
    assert read.geo.same_as(expected.geo)


@pytest.mark.parametrize("fixture", ["barrel", "window"])
def test_every_cluster_of_every_event_is_read_with_its_cells_and_its_particle(fixture, request):
    path, content = request.getfixturevalue(fixture)
    read = read_sample(path)
    assert_holds(read, content.sample)
    assert recognise(path).name == read.metadata["layout"] == "MLTree"
    for name, array in (read.scalars | read.cells).items():
        assert array.dtype == COLUMNS[name].numpy_dtype, name


def test_the_file_has_the_awkward_cases(barrel):
    _, content = barrel
    counts = np.bincount(content.entry, minlength=40)
    assert counts[0] == 0
    assert counts.max() >= 3
    phi, truth = content.sample["clusterPhi"], content.sample["truthPhi"]
    assert np.sum(np.abs(phi - truth) > 6.0) >= 3, "particles on the other side of phi = pi"
    assert np.any(np.diff(content.sample["clusterIndex"][content.entry == 1]) < 0), (
        "clusters that are not in the order of energy"
    )


def test_sums_over_the_cells_are_those_of_the_cells(window):
    path, content = window
    read = read_sample(path)
    owner = np.repeat(np.arange(len(read)), np.diff(read.offsets))
    row = content.sample.geo.rows(read.cells["cluster_cell_ID"])
    for name, sampling in {"EMB2": 2, "TileBar1": 13}.items():
        here = content.sample.geo.sampling[row] == sampling
        expected = np.bincount(
            owner[here], weights=read.cells["cluster_cell_E"][here], minlength=len(read)
        )
        np.testing.assert_allclose(read[f"cluster_E_{name}"], expected, rtol=1e-6)
    np.testing.assert_allclose(read["cluster_sumCellE"], read["clusterE"], rtol=1e-5)


def test_the_weights_of_the_experiment_are_columns(window):
    path, content = window
    calibrated = read_sample(path, columns=["clusterECalib", "clusterE", "cluster_HAD_WEIGHT"])
    np.testing.assert_allclose(calibrated["clusterECalib"], 1.2 * calibrated["clusterE"], rtol=1e-6)
    np.testing.assert_array_equal(
        calibrated["cluster_HAD_WEIGHT"],
        ak.flatten(content.trees["EventTree"]["cluster_HAD_WEIGHT"][1]),
    )


def test_the_order_of_branches_and_other_branches_change_nothing(window, tmp_path):
    path, _ = window
    n = 40
    extra = {
        "colours": ("string", ["red"] * n),
        "cluster_colour": ("vector<string>", [["green", "blue"]] * n),
        "nVertex": ("D", np.ones(n)),
    }
    content = write_mltree(tmp_path / "other.root", seed=2, reverse=True, change=extra)
    with uproot.open(path) as one, uproot.open(tmp_path / "other.root") as two:
        assert list(two["EventTree"].keys())[: len(one["EventTree"].keys())] == list(
            reversed(one["EventTree"].keys())
        )
    assert_holds(read_sample(tmp_path / "other.root"), content.sample)


def test_what_the_file_does_not_have_is_absent(tmp_path):
    gone = (
        "truthPartEta",
        "cluster_cell_hitsE_EM",
        "cluster_ISOLATION",
        "nCluster",
        "truthPartBarcode",
        "cluster_E_LCCalib",
    )
    content = write_mltree(tmp_path / "few.root", n_events=6, drop=gone)
    read = read_sample(tmp_path / "few.root")
    lost = {*(f"truth{name}" for name in ("PdgId", "E", "Pt", "Eta", "Phi")), "cluster_ISOLATION"}
    assert not {*lost, "cluster_ENG_CALIB_EM", "clusterECalib"} & set(read.scalars)
    assert "cluster_cell_hitsE_EM" not in read.cells
    np.testing.assert_array_equal(read["nCluster"], content.sample["nCluster"])
    with open_reader(tmp_path / "few.root") as reader:
        assert set(reader.missing) == set(gone)
        assert reader.unit == "event"
    with pytest.raises(BadFileError, match=r"few\.root: EventTree has no branch truthE"):
        read_sample(tmp_path / "few.root", columns=["truthE", "clusterE"])


@pytest.mark.parametrize(
    "columns",
    [
        ["clusterE"],
        ["truthE"],
        ["clusterIndex"],
        ["cluster_cell_E"],
        ["cluster_E_EMB2"],
        ["eventNumber", "cluster_sumCellE"],
    ],
)
def test_columns_asked_for_are_those_of_the_whole(window, columns):
    path, _ = window
    whole, part = read_sample(path), read_sample(path, columns=columns)
    assert {*part.scalars, *part.cells} == set(columns)
    for name in columns:
        np.testing.assert_array_equal(
            (part.scalars | part.cells)[name], (whole.scalars | whole.cells)[name]
        )


def test_chunks_join_to_the_whole_and_hold_few_clusters(window):
    path, content = window
    chunks = list(iterate_sample(path, step=10))
    assert len(chunks) > 5
    assert max(len(chunk) for chunk in chunks) < 25
    np.testing.assert_array_equal(
        np.concatenate([chunk["truthE"] for chunk in chunks]), content.sample["truthE"]
    )
    part = read_sample(path, entry_start=1, entry_stop=3)
    np.testing.assert_array_equal(
        part["clusterE"], content.sample["clusterE"][np.isin(content.entry, [1, 2])]
    )


def test_a_sample_of_pfcalib_as_mltree_and_back_is_the_same(sample, tmp_path, rng):
    content = mltree_of(sample, np.full(150, 2), rng)
    write_trees(tmp_path / "mltree.root", content.trees)
    read = read_sample(tmp_path / "mltree.root")
    for name in (
        "clusterE",
        "clusterPhi",
        "cluster_nCells",
        "cluster_ENG_CALIB_TOT",
        "truthPdgId",
        "truthE",
        "cluster_FIRST_ENG_DENS",
    ):
        np.testing.assert_array_equal(read[name], sample[name])
    for name in sample.cells:
        np.testing.assert_array_equal(read.cells[name], sample.cells[name])
    np.testing.assert_allclose(
        read["cluster_E_EMB2"], sample["cluster_E_EMB2"], rtol=1e-5, atol=1e-6
    )
    images, expected = build_images(read), build_images(sample)
    for name in expected:
        np.testing.assert_array_equal(images[name], expected[name])


def test_what_was_read_can_be_written_in_the_own_layout(barrel, tmp_path):
    path, _ = barrel
    read = read_sample(path)
    write_sample(tmp_path / "own.root", read)
    back = read_sample(tmp_path / "own.root")
    assert recognise(tmp_path / "own.root").name == "pfcalib"
    assert_holds(back, read)


def test_a_file_without_events_or_clusters_is_an_empty_sample(tmp_path):
    content = mltree_content(n_events=1)
    write_trees(tmp_path / "none.root", content.trees)
    read = read_sample(tmp_path / "none.root")
    assert len(read) == 0
    assert {"truthE", "clusterE", "clusterIndex", "cluster_E_EMB1"} <= set(read.scalars)
    assert len(read_sample(tmp_path / "none.root", entry_stop=0)) == 0


def test_an_event_without_a_particle_is_reported(tmp_path):
    content = mltree_content(n_events=4)
    truth = {
        name: (kind, [[] if i == 1 else value for i, value in enumerate(ak.to_list(values))])
        for name, (kind, values) in content.trees["EventTree"].items()
        if name.startswith("truthPart")
    }
    write_mltree(tmp_path / "fake.root", n_events=4, change=truth)
    with pytest.raises(
        BadFileError, match=r"fake\.root: EventTree: entry 1: truthE is nan, it must be finite"
    ):
        read_sample(tmp_path / "fake.root")
    log = FaultLog()
    read = read_sample(tmp_path / "fake.root", on_error="skip", faults=log)
    np.testing.assert_array_equal(read["clusterE"], content.sample["clusterE"][content.entry != 1])
    assert log.n_lost == np.sum(content.entry == 1)


@pytest.mark.parametrize(
    ("branch", "entry"), [("cluster_Eta", 1), ("cluster_cell_E", 2), ("truthPartPhi", 1)]
)
def test_vectors_of_different_lengths_are_refused_with_their_entry(tmp_path, branch, entry):
    content = mltree_content(n_events=6)
    kind, values = content.trees["EventTree"][branch]
    values = ak.to_list(values)
    (values[entry][0] if kind.startswith("vector<vector") else values[entry]).append(0.5)
    write_mltree(tmp_path / "uneven.root", n_events=6, change={branch: (kind, values)})
    with pytest.raises(
        BadFileError,
        match=f"uneven.root: EventTree: entry {entry}: {branch} does not have the same length as",
    ):
        read_sample(tmp_path / "uneven.root")
    log = FaultLog()
    read = read_sample(tmp_path / "uneven.root", on_error="skip", faults=log)
    np.testing.assert_array_equal(
        read["clusterE"], content.sample["clusterE"][content.entry != entry]
    )
    assert [(fault.branch, fault.entry, fault.n_lost) for fault in log] == [(branch, entry, 1)]


@pytest.mark.parametrize(
    ("branch", "kind", "value", "wish"),
    [
        ("cluster_E", "F", 1.0, "of type float, expected a vector of numbers"),
        ("eventNumber", "string", "one", "of type std::string, expected an integer"),
        ("eventNumber", "F", 1.5, "of type float, expected an integer"),
        ("cluster_cell_E", "vector<float>", [1.0], "expected a vector of vectors of numbers"),
        ("truthPartE", "vector<string>", ["much"], "expected a vector of numbers"),
    ],
)
def test_a_branch_of_another_type_is_refused_with_its_type(tmp_path, branch, kind, value, wish):
    write_mltree(tmp_path / "type.root", n_events=3, change={branch: (kind, [value] * 3)})
    with pytest.raises(BadFileError, match=f"type.root: EventTree: branch {branch} is .*{wish}"):
        read_sample(tmp_path / "type.root")
