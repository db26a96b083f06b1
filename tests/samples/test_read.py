"""What was written is read back bit by bit; a bad file is refused with its name, tree, branch and entry."""

import re

import awkward as ak
import numpy as np
import pytest
import uproot

from pfcalib.columns import COLUMNS, JAGGED, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.samples.write import write_sample


def assert_same(one, two):
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in one.scalars:
        np.testing.assert_array_equal(one[name], two[name])
    for name in one.cells:
        np.testing.assert_array_equal(one.cells[name], two.cells[name])


def write_foreign(path, sample, *, scalars=None, jagged=None, geo=None):
    """A file as another tool would write it: one counter for each jagged branch, and whatever faults are asked for."""
    columns = sample.scalars | (scalars or {})
    cells = {name: ak.unflatten(array, np.diff(sample.offsets)) for name, array in sample.cells.items()} | (jagged or {})
    wanted = {name: array for name, array in (columns | cells).items() if array is not None}
    vectors = {name: ak.unflatten(array, [len(array)]) for name, array in (geo or sample.geo.arrays()).items()}
    with uproot.recreate(path) as file:
        for name, arrays in (("ClusterTree", wanted), ("CellGeo", vectors)):
            types = {branch: getattr(array, "dtype", None) or array.type.content for branch, array in arrays.items()}
            file.mktree(name, types).extend(arrays)


def test_a_sample_is_read_back_bit_by_bit(sample, path):
    back = read_sample(path)
    assert_same(back, sample)
    assert back.geo.same_as(sample.geo)
    assert back.metadata == sample.metadata
    for name in (*SCALARS, *JAGGED):
        assert (back.scalars | back.cells)[name].dtype == COLUMNS[name].numpy_dtype


def test_some_columns_of_some_entries_of_several_files(sample, path, tmp_path):
    write_sample(tmp_path / "more.root", sample[:100])
    part = read_sample([path, tmp_path / "more.root"], columns=["clusterE", "cluster_cell_E"], entry_start=250, entry_stop=350)
    assert set(part.scalars) == {"clusterE"}
    rows = np.r_[250:300, 0:50]
    np.testing.assert_array_equal(part["clusterE"], sample["clusterE"][rows])
    np.testing.assert_array_equal(part.cells["cluster_cell_E"], sample[rows].cells["cluster_cell_E"])


def test_chunks_have_at_most_the_size_asked_for(sample, path):
    chunks = list(iterate_sample([path, path], step=128))
    assert [len(chunk) for chunk in chunks] == [128, 128, 44] * 2
    assert_same(chunks[1], sample[128:256])


def test_a_file_with_one_counter_for_each_branch_reads_alike(sample, tmp_path):
    write_foreign(tmp_path / "foreign.root", sample)
    assert_same(read_sample(tmp_path / "foreign.root"), sample)


def test_what_is_no_sample_is_refused(sample, path, tmp_path):
    (tmp_path / "text.root").write_text("not a ROOT file")
    (tmp_path / "cut.root").write_bytes(path.read_bytes()[:2000])
    with uproot.recreate(tmp_path / "tree.root") as file:
        file.mktree("OtherTree", {"x": np.int64})
    write_foreign(tmp_path / "branch.root", sample, scalars={"truthE": None})
    for name, message in {
        "gone.root": "no such file",
        "text.root": "not a readable ROOT file",
        "cut.root": "cannot be read",
        "tree.root": "is of none of the known layouts .*the file has trees: OtherTree",
        "branch.root": "ClusterTree has no branch truthE",
    }.items():
        with pytest.raises(BadFileError, match=f"{name}.*{message}"):
            read_sample(tmp_path / name, columns=["truthE", "clusterE"])
    with pytest.raises(BadFileError, match="no sample file"):
        read_sample([])


def test_a_damaged_basket_is_reported_with_its_entries(sample, path):
    content = bytearray(path.read_bytes())
    with uproot.open(path) as file:
        basket = file["ClusterTree"]["clusterE"].member("fBasketSeek")[0]
    content[basket + 60 : basket + 400] = bytes(340)
    path.write_bytes(content)
    with pytest.raises(BadFileError, match="entries 0 to 300: clusterE cannot be read"):
        read_sample(path)


@pytest.mark.parametrize("name", ["clusterE", "truthE", "cluster_ENG_CALIB_TOT"])
def test_an_energy_that_is_not_finite_is_refused_with_its_entry(sample, tmp_path, name):
    values = sample[name].copy()
    values[123] = np.nan
    write_foreign(tmp_path / "nan.root", sample, scalars={name: values})
    with pytest.raises(BadFileError, match=f"nan.root: ClusterTree: entry 123: {name} is nan"):
        list(iterate_sample(tmp_path / "nan.root", step=100))


@pytest.mark.parametrize(("name", "value", "wish"), [("cluster_cell_E", np.inf, "must be finite"), ("cluster_cell_ID", 1000, "must be in CellGeo")])
def test_a_bad_cell_is_refused_with_its_entry(sample, tmp_path, name, value, wish):
    values = sample.cells[name].copy()
    values[sample.offsets[200]] = value
    write_foreign(tmp_path / "cell.root", sample, jagged={name: ak.unflatten(values, np.diff(sample.offsets))})
    with pytest.raises(BadFileError, match=f"entry 200: {name} is {re.escape(str(values[sample.offsets[200]]))}, it {wish}"):
        list(iterate_sample(tmp_path / "cell.root", step=100))


def test_jagged_branches_of_different_lengths_are_refused_with_their_entry(sample, tmp_path):
    counts = np.diff(sample.offsets)
    counts[150] += 1
    longer = ak.unflatten(np.zeros(counts.sum(), dtype=np.float32), counts)
    write_foreign(tmp_path / "jagged.root", sample, jagged={"cluster_cell_E": longer})
    with pytest.raises(BadFileError, match="entry 150: cluster_cell_E and cluster_cell_ID do not have the same length"):
        list(iterate_sample(tmp_path / "jagged.root", step=100))


def test_a_geometry_with_vectors_of_different_length_is_refused_with_the_file(sample, tmp_path):
    write_foreign(tmp_path / "geo.root", sample, geo=sample.geo.arrays() | {"cell_geo_eta": np.zeros(3, dtype=np.float32)})
    with pytest.raises(BadFileError, match=r"geo\.root: CellGeo"):
        read_sample(tmp_path / "geo.root")


def test_an_unknown_column_is_refused(path):
    with pytest.raises(BadFileError, match="colour"):
        read_sample(path, columns=["colour"])
