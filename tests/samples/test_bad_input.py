"""Every bad file is refused with its name and what is wrong, told by `pfcalib inspect` in one line,
or skipped with a report of what is lost.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import awkward as ak
import h5py
import numpy as np
import pytest
import uproot
from factories import make_sample
from samples import damage
from samples.damage import write_clusters
from samples.real_root import MLTree, mltree_of, write_files

from pfcalib import cli
from pfcalib.errors import BadFileError
from pfcalib.samples.check import check_sample
from pfcalib.samples.conversion import convert_sample
from pfcalib.samples.faults import FaultLog
from pfcalib.samples.read import iterate_sample, read_sample
from pfcalib.samples.schema import Sample

BAD = 7  # the cluster that is bad
VALUES = {  # what is wrong: column, value, what is said
    "NaN truth energy": ("truthE", np.nan, "truthE is nan, it must be finite"),
    "infinite truth energy": ("truthE", np.inf, "truthE is inf, it must be finite"),
    "negative truth energy": ("truthE", -5.0, "truthE is -5.0, it must be positive"),
    "truth energy of zero": ("truthE", 0.0, "truthE is 0.0, it must be positive"),
    "NaN cluster energy": ("clusterE", np.nan, "clusterE is nan, it must be finite"),
    "infinite moment": (
        "cluster_CENTER_MAG",
        -np.inf,
        "cluster_CENTER_MAG is -inf, it must be finite",
    ),
    "negative deposit": (
        "cluster_ENG_CALIB_TOT",
        -1.0,
        "cluster_ENG_CALIB_TOT is -1.0, it must not be negative",
    ),
    "NaN cell energy": ("cluster_cell_E", np.nan, "cluster_cell_E is nan, it must be finite"),
    "infinite cell deposit": (
        "cluster_cell_hitsE_EM",
        np.inf,
        "cluster_cell_hitsE_EM is inf, it must be finite",
    ),
    "cell that is not in CellGeo": (
        "cluster_cell_ID",
        123456,
        "cluster_cell_ID is 123456, it must be in CellGeo",
    ),
    "cell ID of 64 bits": (
        "cluster_cell_ID",
        2**64 - 1,
        "cluster_cell_ID is 18446744073709551615, it must be in CellGeo",
    ),
}
GEOMETRIES = {  # what is wrong: what is said
    "two entries": "CellGeo must have exactly one entry, it has 2",
    "no entry": "CellGeo must have exactly one entry, it has 0",
    "unequal vectors": "CellGeo: the vectors do not have the same length",
    "no branch": "CellGeo has no branch cell_geo_dphi",
    "a NaN": "cell_geo_eta[3] is nan, it must be finite",
    "cell twice": "CellGeo: entry 0: cell ID 5 occurs more than once",
}
TYPES = {  # what is wrong: MLTree branch in place of the right one, what is said
    "vector of vectors": ("cluster_E", "vector<vector<float>>", "branch cluster_E is of type"),
    "number": ("cluster_Eta", "F", "branch cluster_Eta is of type"),
    "text": ("eventNumber", "string", "branch eventNumber is of type"),
    "vector": ("cluster_cell_E", "vector<float>", "branch cluster_cell_E is of type"),
}


class Case(NamedTuple):
    """A layout: its good file, what is in it, and bad ones by what is wrong with them."""

    path: Path
    sample: Sample
    entry: np.ndarray  # of each cluster
    tree: str
    energy: str  # branch of the cluster energy
    bad: Callable[[str], Path]


@pytest.fixture(scope="module")
def events() -> tuple[Sample, np.ndarray]:
    """Clusters, and how many of them each event has; the fourth event has two, of which the second
    is the bad one.
    """
    rng = np.random.default_rng(3)
    counts = np.concatenate([[3, 0, 3, 2], rng.integers(0, 4, 12)])
    return make_sample(rng, int(counts.sum()), max_cells=15), counts


@pytest.fixture(scope="module")
def native(events, tmp_path_factory) -> Case:
    """pfcalib's own layout, some clusters a basket."""
    folder, sample = tmp_path_factory.mktemp("native"), events[0]

    def bad(kind: str) -> Path:
        path = folder / f"{kind}.root"
        if kind in VALUES:
            return write_clusters(path, spoilt(sample, kind), basket_size=5)
        changes = {
            "unequal vectors": {"cell_geo_eta": sample.geo.eta[:-1]},
            "no branch": {"cell_geo_dphi": None},
        }
        changes |= {
            "a NaN": {"cell_geo_eta": nan_at_3(sample.geo.eta)},
            "cell twice": {"cell_geo_ID": five_twice(sample.geo.ID)},
        }
        entries = {"two entries": 2, "no entry": 0}.get(kind, 1)
        return write_clusters(
            path, sample, geo=changes.get(kind), geo_entries=entries, basket_size=5
        )

    path = write_clusters(folder / "good.root", sample, basket_size=5)
    return Case(path, sample, np.arange(len(sample)), "ClusterTree", "clusterE", bad)


@pytest.fixture(scope="module")
def mltree(events, tmp_path_factory) -> Case:
    """MLTree, written by ROOT in one go."""
    folder, (sample, counts) = tmp_path_factory.mktemp("mltree"), events

    def content(sample: Sample) -> MLTree:
        return mltree_of(sample, counts, np.random.default_rng(4))

    good = content(sample)
    files = {"good": good.trees, "no cluster_E": without(good.trees, "EventTree", "cluster_E")}
    files |= {kind: content(spoilt(sample, kind)).trees for kind in VALUES}
    vectors = good.trees["CellGeo"]
    for kind, branch, values in [
        ("unequal vectors", "cell_geo_eta", sample.geo.eta[:-1]),
        ("a NaN", "cell_geo_eta", nan_at_3(sample.geo.eta)),
        ("cell twice", "cell_geo_ID", five_twice(sample.geo.ID)),
    ]:
        files[kind] = {
            **good.trees,
            "CellGeo": {**vectors, branch: (vectors[branch][0], values[None])},
        }
    files["no branch"] = without(good.trees, "CellGeo", "cell_geo_dphi")
    for kind, times in (("two entries", 2), ("no entry", 0)):
        files[kind] = {
            **good.trees,
            "CellGeo": {
                name: (of, np.repeat(values, times, axis=0))
                for name, (of, values) in vectors.items()
            },
        }
    plain = {"F": np.zeros(len(counts)), "string": ["seven"] * len(counts)}
    for kind, (branch, of, _) in TYPES.items():
        values = (
            plain[of]
            if of in plain
            else [[[1.0]]] * len(counts)
            if of.count("vector") == 2
            else [[1.0]] * len(counts)
        )
        files[kind] = {**good.trees, "EventTree": {**good.trees["EventTree"], branch: (of, values)}}
    for kind, branch in (("short cells", "cluster_cell_E"), ("short clusters", "cluster_Eta")):
        of, values = good.trees["EventTree"][branch]
        lists = ak.to_list(values)
        (lists[3][1] if kind == "short cells" else lists[3]).pop()
        files[kind] = {**good.trees, "EventTree": {**good.trees["EventTree"], branch: (of, lists)}}
    write_files({folder / f"{kind}.root": trees for kind, trees in files.items()})
    return Case(
        folder / "good.root",
        good.sample,
        good.entry,
        "EventTree",
        "cluster_E",
        lambda kind: folder / f"{kind}.root",
    )


@pytest.fixture(params=["native", "mltree"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def spoilt(sample: Sample, kind: str) -> Sample:
    """A copy with a bad value in one cluster."""
    column, value, _ = VALUES[kind]
    scalars, cells = (
        {name: array.copy() for name, array in part.items()}
        for part in (sample.scalars, sample.cells)
    )
    place = BAD if column in scalars else sample.offsets[BAD] + 1
    (scalars if column in scalars else cells)[column][place] = value
    return dataclasses.replace(sample, scalars=scalars, cells=cells)


def without(trees: dict, tree: str, branch: str) -> dict:
    return {**trees, tree: {name: values for name, values in trees[tree].items() if name != branch}}


def nan_at_3(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:3], np.float32([np.nan]), values[4:]])


def five_twice(values: np.ndarray) -> np.ndarray:
    return np.where(values == 6, np.uint64(5), values)


def assert_same(one: Sample, two: Sample) -> None:
    """Equal bit by bit in the columns that both have."""
    np.testing.assert_array_equal(one.offsets, two.offsets)
    for name in one.scalars.keys() & two.scalars.keys():
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    for name in one.cells.keys() & two.cells.keys():
        np.testing.assert_array_equal(one.cells[name], two.cells[name], err_msg=name)


@pytest.fixture
def inspect(capfd, monkeypatch) -> Callable[[Path], tuple[int, str]]:
    """Exit code of `pfcalib inspect`, and what it prints on standard error."""

    def run(path: Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pfcalib", "inspect", str(path)])
        capfd.readouterr()
        try:
            cli.main()
            code, message = 0, ""
        except SystemExit as ended:
            code, message = (
                (1, ended.code) if isinstance(ended.code, str) else (int(ended.code or 0), "")
            )
        return code, capfd.readouterr().err + message

    return run


@pytest.fixture
def refused(inspect) -> Callable[[Path, str], None]:
    """Assert that a file cannot be used at all, and that the reason is told everywhere."""

    def check(path: Path, reason: str) -> None:
        with pytest.raises(BadFileError) as caught:
            read_sample(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert reason in str(caught.value)
        code, errors = inspect(path)
        assert code == 1
        assert errors.startswith(f"pfcalib: {path}: ")
        assert reason in errors
        assert "\n" not in errors
        log = FaultLog()
        with pytest.raises(BadFileError, match="none of the files can be read"):
            read_sample(path, on_error="skip", faults=log)
        assert [fault.path for fault in log] == [str(path)]
        assert reason in str(log[0])

    return check


def test_what_is_no_file_is_refused(refused, tmp_path):
    (tmp_path / "empty.root").touch()
    (tmp_path / "text.root").write_text("x,y\n1,2\n" * 200)
    os.mkfifo(tmp_path / "pipe.root")
    refused(tmp_path / "gone.root", "no such file")
    refused(tmp_path / "empty.root", "the file is empty (0 bytes)")
    refused(tmp_path / "text.root", "not a readable ROOT file")
    refused(tmp_path / "pipe.root", "is not a regular file")
    for run in (read_sample, check_sample):
        with pytest.raises(BadFileError, match="is a directory"):
            run(tmp_path)


def test_a_file_without_permission_is_refused(refused, native):
    """Root may read everything, so the test takes another user's rights where it is run by root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.copy(native.path, folder / "secret.root")
    (folder / "secret.root").chmod(0)
    folder.chmod(0o755)
    user = os.geteuid()
    check_sample(native.path)  # everything is imported before the rights are given up
    try:
        if user == 0:
            os.seteuid(65534)
        refused(folder / "secret.root", "Permission denied")
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


@pytest.mark.parametrize("at", [10, 500, 0.05, 0.5, -1])
def test_a_truncated_file_is_refused(case, refused, tmp_path, at):
    reason = "not a readable ROOT file" if at == 10 else "the file is cut short"
    refused(damage.cut(case.path, tmp_path / "cut.root", at), reason)


def test_a_tree_of_another_kind_is_refused_with_the_trees_that_are_there(refused, tmp_path):
    with uproot.recreate(tmp_path / "tree.root") as file:
        file.mktree("CollectionTree2", {"x": np.int64}).extend({"x": np.arange(3)})
    refused(tmp_path / "tree.root", "the file has trees: CollectionTree2")
    with uproot.recreate(tmp_path / "none.root") as file:
        file["text"] = "no tree"
    refused(tmp_path / "none.root", "the file has trees: none")


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_a_faulty_geometry_is_refused(case, refused, kind):
    refused(case.bad(kind), GEOMETRIES[kind])


def test_a_geometry_that_is_missing_is_refused(events, refused, tmp_path):
    with uproot.recreate(tmp_path / "bare.root") as file:
        cells = {
            name: ak.unflatten(array, np.diff(events[0].offsets))
            for name, array in events[0].cells.items()
        }
        file.mktree(
            "ClusterTree", {name: array.type.content for name, array in cells.items()}
        ).extend(cells)
    refused(tmp_path / "bare.root", "no tree 'CellGeo'; the file has ClusterTree")


def test_missing_branches_are_told(native, mltree, refused, inspect, tmp_path):
    refused(mltree.bad("no cluster_E"), "EventTree has no branch cluster_E")
    path = write_clusters(tmp_path / "few.root", native.sample, scalars={"truthE": None})
    with pytest.raises(BadFileError, match=r"few\.root: ClusterTree has no branch truthE"):
        read_sample(path, columns=["clusterE", "truthE"])
    assert "truthE" not in read_sample(path).scalars
    assert inspect(path) == (1, f"pfcalib: {path}: 1 problems: branch truthE is missing")


@pytest.mark.parametrize("kind", TYPES)
def test_a_branch_of_another_type_is_refused_in_an_mltree(mltree, refused, kind):
    refused(mltree.bad(kind), TYPES[kind][2])


@pytest.mark.parametrize(
    ("column", "make"),
    [
        ("truthE", lambda n: ak.Array(["seven"] * n)),
        ("truthE", lambda n: ak.Array([[1.0, 2.0]] * n)),
        ("truthE", lambda n: np.ones((n, 3), dtype=np.float32)),
        ("truthE", lambda n: np.ones(n, dtype=np.bool_)),
        ("cluster_cell_E", lambda n: np.ones(n, dtype=np.float32)),
        ("cluster_cell_ID", lambda n: ak.Array(["seven"] * n)),
    ],
    ids=["text", "vector", "array", "truth values", "number for vector", "text for vector"],
)
def test_a_column_of_another_type_is_refused_in_a_native_file(
    native, refused, tmp_path, column, make
):
    values = make(len(native.sample))
    changed = {"jagged" if column.startswith("cluster_cell") else "scalars": {column: values}}
    refused(
        write_clusters(tmp_path / "type.root", native.sample, **changed),
        f"branch {column} is of type",
    )


@pytest.mark.parametrize("kind", VALUES)
def test_a_bad_value_is_refused_with_its_entry_or_costs_its_cluster_alone(case, inspect, kind):
    column, _, reason = VALUES[kind]
    path, entry = case.bad(kind), case.entry[BAD]
    with pytest.raises(BadFileError) as caught:
        read_sample(path)
    assert str(caught.value) == f"{path}: {case.tree}: entry {entry}: {reason}"
    log, expected = FaultLog(), case.sample[np.arange(len(case.sample)) != BAD]
    if (case.tree, kind) == ("EventTree", "NaN cluster energy"):
        del expected.scalars["clusterIndex"]  # MLTree holds none: it is made of the energies
    assert_same(read_sample(path, on_error="skip", faults=log), expected)
    assert [(fault.entry, fault.branch, fault.n_lost) for fault in log] == [(entry, column, 1)]
    code, errors = inspect(path)
    assert code == 1
    assert errors.startswith(f"pfcalib: {path}: ")
    assert (
        f"{column} {reason.partition(', it ')[2]}: not so in 1 clusters, the first at entry {entry}"
        in errors
    )
    assert "\n" not in errors


def test_skipped_clusters_are_warned_about_once_where_nobody_asks_for_a_log(case):
    with pytest.warns(
        UserWarning,
        match=r"1 faults were skipped, with 1 clusters or entries; the first: "
        r".*NaN truth energy\.root.*truthE",
    ):
        kept = read_sample(case.bad("NaN truth energy"), on_error="skip")
    assert len(kept) == len(case.sample) - 1


@pytest.mark.parametrize("kind", ["short cells", "short clusters"])
def test_lengths_that_disagree_cost_the_entry_alone(mltree, native, inspect, tmp_path, kind):
    cases = [(mltree, mltree.bad(kind))]
    if kind == "short cells":
        parts = np.split(native.sample.cells["cluster_cell_E"], native.sample.offsets[1:-1])
        short = ak.Array([cells[:-1] if i == BAD else cells for i, cells in enumerate(parts)])
        cases.append(
            (
                native,
                write_clusters(
                    tmp_path / "short.root",
                    native.sample,
                    jagged={"cluster_cell_E": ak.values_astype(short, np.float32)},
                ),
            )
        )
    for case, path in cases:
        entry = case.entry[BAD]
        with pytest.raises(
            BadFileError, match=f"{path.name}: {case.tree}: entry {entry}: .*same length"
        ):
            read_sample(path)
        log = FaultLog()
        assert_same(
            read_sample(path, on_error="skip", faults=log), case.sample[case.entry != entry]
        )
        assert [fault.entry for fault in log] == [entry]
        code, errors = inspect(path)
        assert code == 1
        assert f"entry {entry}" in errors


@pytest.mark.parametrize("what", ["energy", "cluster_cell_ID", "eventNumber"])
def test_a_basket_of_zeros_is_an_error_or_costs_its_entries_alone(case, inspect, tmp_path, what):
    branch = case.energy if what == "energy" else what
    path = damage.blank(
        case.path, tmp_path / "zeros.root", damage.basket(case.path, case.tree, branch, 0)
    )
    assert inspect(path)[0] == 1
    kept = read_sample(path, on_error="skip", faults=FaultLog())
    hit = np.zeros(len(case.sample), dtype=np.bool_)
    with uproot.open(case.path) as file:
        first, last = file[case.tree][branch].basket_entry_start_stop(0)
    hit[(case.entry >= first) & (case.entry < last)] = True
    untouched = read_sample(case.path)[~hit]
    assert_same(kept[-len(untouched) :] if len(untouched) else kept[:0], untouched)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["energy", "cluster_cell_E"])
def test_flipped_bytes_in_a_basket_are_an_error_or_change_nothing_else(case, tmp_path, what, seed):
    """Neither ROOT nor zstd as ROOT calls it keep a checksum of values, so a flipped energy may
    pass for another energy.
    """
    branch = case.energy if what == "energy" else what
    path = damage.flip(
        case.path,
        tmp_path / "flipped.root",
        damage.basket(case.path, case.tree, branch),
        np.random.default_rng(seed),
        n=1 + 5 * seed,
    )
    try:
        back = read_sample(path)
    except BadFileError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (both outcomes are right)
        log = FaultLog()
        kept = read_sample(path, on_error="skip", faults=log)
        assert len(log)
        assert np.isin(kept["eventNumber"], case.sample["eventNumber"]).all()
        assert len(kept) + log.n_lost >= len(case.sample) - 3 * log.n_lost
        return
    for name in back.scalars.keys() & case.sample.scalars.keys() - {"clusterE", "clusterIndex"} - {
        "cluster_sumCellE"
    }:
        if not name.startswith("cluster_E_"):
            np.testing.assert_array_equal(back[name], case.sample[name], err_msg=name)
    assert np.isfinite(back["clusterE"]).all()


@pytest.mark.parametrize("place", ["header", "streamer_info", "directory"])
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_outside_of_the_baskets_are_an_error_or_harmless(
    case, inspect, tmp_path, place, seed
):
    region = getattr(damage, place)(case.path)
    path = damage.flip(
        case.path, tmp_path / "flipped.root", region, np.random.default_rng(seed), n=4
    )
    try:
        assert_same(read_sample(path), case.sample)
    except BadFileError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 (both outcomes are right)
        code, errors = inspect(path)
        assert code == 1
        assert "\n" not in errors


def replaced(path: Path, other: Path) -> None:
    """Another file under the same name, as an editor or a job that runs again does it."""
    shutil.copy(other, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize("how", ["replaced", "cut", "deleted"])
def test_a_file_that_changes_while_it_is_read_is_noticed(case, tmp_path, how):
    path = tmp_path / "moving.root"
    other = case.bad("NaN truth energy")
    change = {
        "replaced": lambda: replaced(path, other),
        "cut": lambda: os.truncate(path, 3000),
        "deleted": path.unlink,
    }[how]
    shutil.copy(case.path, path)
    chunks = iterate_sample(path, step=5)
    next(chunks)
    change()
    with pytest.raises(
        BadFileError, match=r"moving\.root: the file was replaced or changed while it was read"
    ):
        list(chunks)
    path.unlink(missing_ok=True)
    shutil.copy(case.path, path)
    log = FaultLog()
    chunks = iterate_sample(path, step=5, on_error="skip", faults=log)
    kept = [next(chunks)]
    change()
    kept += list(chunks)
    assert len(kept) == 1
    assert "was replaced or changed" in str(log[0])


def test_of_several_files_skip_loses_the_bad_one_and_names_it(case, tmp_path):
    bad = damage.cut(case.path, tmp_path / "bad.root", 0.5)
    again = Path(shutil.copy(case.path, tmp_path / "again.root"))
    log = FaultLog()
    kept = read_sample([case.path, bad, again], on_error="skip", faults=log)
    assert len(kept) == 2 * len(case.sample)
    assert [fault.path for fault in log] == [str(bad)]
    report = convert_sample(
        [case.path, bad, case.bad("NaN truth energy")], tmp_path / "whole.root", on_error="skip"
    )
    assert report.n_clusters == 2 * len(case.sample) - 1
    assert [Path(fault.path).name for fault in report.skipped] == [
        "bad.root",
        "NaN truth energy.root",
    ]
    assert len(read_sample(tmp_path / "whole.root").metadata["skipped"]) == 2


@pytest.fixture
def showers(tmp_path) -> Iterator[Path]:
    """An HDF5 file as the CaloChallenge has them."""
    with h5py.File(tmp_path / "photons.hdf5", "w") as file:
        file["incident_energies"] = np.full((30, 1), 4096.0)
        file["showers"] = np.random.default_rng(1).uniform(0.0, 30.0, (30, 368))
    return tmp_path / "photons.hdf5"


@pytest.mark.parametrize("at", [8, 100, 0.5, 0.9])
def test_a_truncated_hdf5_file_is_refused(showers, refused, tmp_path, at):
    refused(damage.cut(showers, tmp_path / "cut.hdf5", at), "")
