"""What was written is read back bit by bit; a bad file is refused with its name, tree, branch and
entry.
"""

import os
import re
import shutil

import awkward as ak
import numpy as np
import pytest
import uproot
from factories import in_mev

from pfcalib.columns import COLUMNS, JAGGED, SCALARS
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.faults import FaultLog
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.samples.schema import event_index
from pfcalib.samples.write import write_sample


def assert_same(one, two):
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in one.scalars:
        np.testing.assert_array_equal(one[name], two[name])
    for name in one.cells:
        np.testing.assert_array_equal(one.cells[name], two.cells[name])


def write_foreign(path, sample, *, scalars=None, jagged=None, geo=None):
    """A file as another tool would write it: one counter for each jagged branch, and whatever
    faults are asked for.
    """
    columns = sample.scalars | (scalars or {})
    cells = {
        name: ak.unflatten(array, np.diff(sample.offsets)) for name, array in sample.cells.items()
    } | (jagged or {})
    wanted = {name: array for name, array in (columns | cells).items() if array is not None}
    vectors = {
        name: ak.unflatten(array, [len(array)])
        for name, array in (geo or sample.geo.arrays()).items()
    }
    with uproot.recreate(path) as file:
        for name, arrays in (("ClusterTree", wanted), ("CellGeo", vectors)):
            types = {
                branch: getattr(array, "dtype", None) or array.type.content
                for branch, array in arrays.items()
            }
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
    part = read_sample(
        [path, tmp_path / "more.root"],
        columns=["clusterE", "cluster_cell_E"],
        entry_start=250,
        entry_stop=350,
    )
    assert set(part.scalars) == {"clusterE"}
    rows = np.r_[250:300, 0:50]
    np.testing.assert_array_equal(part["clusterE"], sample["clusterE"][rows])
    np.testing.assert_array_equal(
        part.cells["cluster_cell_E"], sample[rows].cells["cluster_cell_E"]
    )


@pytest.fixture
def again(path, tmp_path):
    """The same clusters in another file, with events of the same numbers."""
    shutil.copyfile(path, tmp_path / "again.root")
    return tmp_path / "again.root"


def test_events_of_the_same_number_in_two_files_are_two_events(sample, path, again):
    both = read_sample([path, again])
    assert len(np.unique(both["eventNumber"])) == 150
    assert len(np.unique(event_index(both.scalars))) == 300
    picked = read_sample([path, again], columns=["sampleNumber", "clusterE"])
    np.testing.assert_array_equal(picked["sampleNumber"], np.repeat([0, 1], 300))
    assert "sampleNumber" not in read_sample(path).scalars


def test_energies_in_mev_are_refused_and_converted_if_asked_for(sample, tmp_path):
    path = tmp_path / "mev.root"
    write_sample(path, in_mev(sample))
    for columns in (None, ["cluster_cell_E"], ["clusterE"]):
        with pytest.raises(BadFileError, match=r"mev\.root: energies in MeV\? .*unit='MeV'"):
            read_sample(path, columns=columns)
    read = read_sample(path, unit="MeV")
    for name, array in (sample.scalars | sample.cells).items():
        values = read.scalars.get(name, read.cells.get(name))
        np.testing.assert_allclose(values, array, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(read.geo.sigma, sample.geo.sigma, rtol=1e-6)
    assert read_sample(path, unit="GeV")["clusterE"].max() > 7e4
    log = FaultLog()
    assert len(read_sample(path, on_error="skip", faults=log)) == 0
    assert "energies in MeV?" in str(log[0])
    with pytest.raises(ConfigError, match="unit must be GeV or MeV, got 'TeV'"):
        read_sample(path, unit="TeV")


def test_chunks_have_at_most_the_size_asked_for_and_the_number_of_their_file(sample, path, again):
    chunks = list(iterate_sample([path, again], step=128))
    assert [len(chunk) for chunk in chunks] == [128, 128, 44] * 2
    numbers = [set(chunk.scalars.pop("sampleNumber").tolist()) for chunk in chunks]
    assert numbers == [{0}] * 3 + [{1}] * 3
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
        "cut.root": "the file is cut short",
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


@pytest.mark.parametrize(
    ("name", "value", "wish"),
    [("cluster_cell_E", np.inf, "must be finite"), ("cluster_cell_ID", 1000, "must be in CellGeo")],
)
def test_a_bad_cell_is_refused_with_its_entry(sample, tmp_path, name, value, wish):
    values = sample.cells[name].copy()
    values[sample.offsets[200]] = value
    write_foreign(
        tmp_path / "cell.root", sample, jagged={name: ak.unflatten(values, np.diff(sample.offsets))}
    )
    with pytest.raises(
        BadFileError,
        match=f"entry 200: {name} is {re.escape(str(values[sample.offsets[200]]))}, it {wish}",
    ):
        list(iterate_sample(tmp_path / "cell.root", step=100))


def test_jagged_branches_of_different_lengths_are_refused_with_their_entry(sample, tmp_path):
    counts = np.diff(sample.offsets)
    counts[150] += 1
    longer = ak.unflatten(np.zeros(counts.sum(), dtype=np.float32), counts)
    write_foreign(tmp_path / "jagged.root", sample, jagged={"cluster_cell_E": longer})
    with pytest.raises(
        BadFileError,
        match="entry 150: cluster_cell_E does not have the same length as cluster_cell_ID",
    ):
        list(iterate_sample(tmp_path / "jagged.root", step=100))


def test_a_geometry_with_vectors_of_different_length_is_refused_with_the_file(sample, tmp_path):
    write_foreign(
        tmp_path / "geo.root",
        sample,
        geo=sample.geo.arrays() | {"cell_geo_eta": np.zeros(3, dtype=np.float32)},
    )
    with pytest.raises(BadFileError, match=r"geo\.root: CellGeo"):
        read_sample(tmp_path / "geo.root")


def test_an_unknown_column_is_refused(path):
    with pytest.raises(BadFileError, match="colour"):
        read_sample(path, columns=["colour"])


def test_without_columns_everything_that_the_file_has_is_read(sample, tmp_path):
    write_foreign(
        tmp_path / "few.root",
        sample,
        scalars={"truthE": None},
        jagged={"cluster_cell_hitsE_EM": None},
    )
    back = read_sample(tmp_path / "few.root")
    assert set(SCALARS) - set(back.scalars) == {"truthE"}
    assert set(JAGGED) - set(back.cells) == {"cluster_cell_hitsE_EM"}


@pytest.mark.parametrize(
    ("name", "value", "wish"),
    [
        ("truthE", 0.0, "be positive"),
        ("truthE", -2.0, "be positive"),
        ("cluster_ENG_CALIB_TOT", -0.5, "not be negative"),
    ],
)
def test_an_energy_that_cannot_be_is_refused_with_its_entry(sample, tmp_path, name, value, wish):
    values = sample[name].copy()
    values[200] = value
    write_foreign(tmp_path / "below.root", sample, scalars={name: values})
    with pytest.raises(
        BadFileError, match=f"below.root: ClusterTree: entry 200: {name} is {value}, it must {wish}"
    ):
        read_sample(tmp_path / "below.root")


def test_a_number_that_does_not_fit_is_infinite_and_refused(sample, tmp_path):
    write_foreign(tmp_path / "huge.root", sample, scalars={"clusterE": np.full(300, 1e300)})
    with pytest.raises(BadFileError, match="entry 0: clusterE is inf, it must be finite"):
        read_sample(tmp_path / "huge.root")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"truthE": ak.Array(["one"] * 300)}, "branch truthE is of type .*, expected a number"),
        ({"truthE": ak.Array([[1.0]] * 300)}, "branch truthE is of type .*, expected a number"),
        (
            {"eventNumber": np.full(300, 0.5)},
            "branch eventNumber is of type double, expected an integer",
        ),
        (
            {"cluster_cell_E": np.ones(300)},
            "branch cluster_cell_E is of type double, expected a vector of numbers",
        ),
    ],
)
def test_a_branch_of_another_type_is_refused_with_its_type(sample, tmp_path, columns, message):
    write_foreign(tmp_path / "type.root", sample, scalars=columns, jagged=columns)
    with pytest.raises(BadFileError, match=rf"type\.root: ClusterTree: {message}"):
        read_sample(tmp_path / "type.root")


def test_what_is_no_file_of_ours_is_told_apart(tmp_path):
    (tmp_path / "folder.root").mkdir()
    (tmp_path / "empty.root").touch()
    os.mkfifo(tmp_path / "pipe.root")
    for name, message in {
        "folder.root": "is a directory",
        "empty.root": "is empty",
        "pipe.root": "is not a regular file",
    }.items():
        with pytest.raises(BadFileError, match=f"{name}: .*{message}"):
            read_sample(tmp_path / name)


@pytest.mark.parametrize("action", ["replace", "append", "remove"])
def test_a_file_that_changes_while_it_is_read_is_noticed(sample, path, tmp_path, action):
    write_sample(tmp_path / "other.root", sample[:250])
    chunks = iterate_sample(path, step=100)
    assert len(next(chunks)) == 100
    if action == "replace":
        os.replace(tmp_path / "other.root", path)
    elif action == "append":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        path.unlink()
    with pytest.raises(
        BadFileError, match=r"sample\.root: the file was replaced or changed while it was read"
    ):
        next(chunks)


def test_with_skip_the_sound_clusters_are_read_and_the_rest_is_told(sample, tmp_path):
    values, cells = sample["truthE"].copy(), sample.cells["cluster_cell_ID"].copy()
    values[[5, 150]] = np.nan
    cells[sample.offsets[250]] = 10**6
    write_foreign(
        tmp_path / "bad.root",
        sample,
        scalars={"truthE": values},
        jagged={"cluster_cell_ID": ak.unflatten(cells, np.diff(sample.offsets))},
    )
    (tmp_path / "text.root").write_text("not a ROOT file")
    log = FaultLog()
    read = read_sample([tmp_path / "text.root", tmp_path / "bad.root"], on_error="skip", faults=log)
    assert set(read.scalars.pop("sampleNumber")) == {1}
    assert_same(read, sample[~np.isin(np.arange(300), [5, 150, 250])])
    assert [(fault.entry, fault.branch, fault.n_lost) for fault in log] == [
        (None, "", 0),
        (250, "cluster_cell_ID", 1),
        (5, "truthE", 2),
    ]
    assert "not a readable ROOT file" in str(log[0])
    with pytest.warns(
        UserWarning,
        match=r"3 faults were skipped, with 3 clusters or entries; the first: .*text\.root",
    ):
        read_sample([tmp_path / "text.root", tmp_path / "bad.root"], on_error="skip")


def test_with_skip_a_damaged_basket_costs_its_entries_only(sample, tmp_path):
    path = tmp_path / "baskets.root"
    write_sample(path, sample, chunk=1)
    with uproot.recreate(path) as file:
        columns = sample.scalars | {
            name: ak.unflatten(array, np.diff(sample.offsets))
            for name, array in sample.cells.items()
        }
        file.mktree(
            "ClusterTree",
            {
                name: getattr(array, "dtype", None) or array.type.content
                for name, array in columns.items()
            },
        )
        for first in range(0, 300, 50):
            file["ClusterTree"].extend(
                {name: array[first : first + 50] for name, array in columns.items()}
            )
        geo = {name: ak.Array(array[None]) for name, array in sample.geo.arrays().items()}
        file.mktree("CellGeo", {name: array.type.content for name, array in geo.items()}).extend(
            geo
        )
    with uproot.open(path) as file:
        place = file["ClusterTree"]["clusterE"].member("fBasketSeek")[2]
    content = bytearray(path.read_bytes())
    content[place : place + 60] = bytes(60)
    path.write_bytes(content)
    log = FaultLog()
    read = read_sample(path, on_error="skip", faults=log)
    assert_same(read, sample[np.r_[0:100, 150:300]])
    assert [(fault.entry, fault.branch, fault.n_lost) for fault in log] == [(100, "clusterE", 50)]


def test_with_skip_a_file_that_lacks_a_column_is_told_with_all_its_entries(sample, path, tmp_path):
    write_foreign(tmp_path / "few.root", sample, scalars={"truthE": None})
    log = FaultLog()
    read = read_sample(
        [tmp_path / "few.root", path], columns=["truthE"], on_error="skip", faults=log
    )
    np.testing.assert_array_equal(read["truthE"], sample["truthE"])
    assert [fault.n_lost for fault in log] == [300]
    assert "no branch truthE" in str(log[0])
    with pytest.raises(
        BadFileError, match=r"none of the files can be read; the first: .*no branch truthE"
    ):
        read_sample(tmp_path / "few.root", columns=["truthE"], on_error="skip", faults=FaultLog())


def test_with_skip_a_file_that_is_replaced_costs_what_is_left(sample, path, tmp_path):
    write_sample(tmp_path / "other.root", sample[:250])
    log = FaultLog()
    chunks = iterate_sample(path, step=100, on_error="skip", faults=log)
    assert len(next(chunks)) == 100
    os.replace(tmp_path / "other.root", path)
    assert list(chunks) == []
    assert [(fault.entry, fault.n_lost) for fault in log] == [(100, 200)]
