"""Values that cannot be are found, told once each, and either raised or dropped with a record."""

import dataclasses

import numpy as np
import pytest

from pfcalib.errors import BadFileError
from pfcalib.samples.faults import (
    BadEntriesError,
    Fault,
    FaultLog,
    drop_unsound,
    find_bad_values,
    require_aligned,
    require_sound,
)


@pytest.fixture
def spoilt(sample):
    """Cluster 10 has two bad values, 20 a bad deposit, 30 two bad cells, 40 an unknown cell."""
    scalars, cells = (
        {name: array.copy() for name, array in part.items()}
        for part in (sample.scalars, sample.cells)
    )
    scalars["truthE"][10] = -1.0
    scalars["clusterE"][10] = np.nan
    scalars["cluster_ENG_CALIB_TOT"][20] = -0.5
    cells["cluster_cell_E"][sample.offsets[30] : sample.offsets[30] + 2] = np.inf
    cells["cluster_cell_ID"][sample.offsets[41] - 1] = 5000
    return dataclasses.replace(sample, scalars=scalars, cells=cells)


def test_each_bad_value_is_found_with_its_clusters_and_the_first_value(spoilt):
    found = {bad.branch: (bad.clusters.tolist(), bad.wish) for bad in find_bad_values(spoilt)}
    assert found == {
        "truthE": ([10], "must be positive"),
        "clusterE": ([10], "must be finite"),
        "cluster_ENG_CALIB_TOT": ([20], "must not be negative"),
        "cluster_cell_E": ([30], "must be finite"),
        "cluster_cell_ID": ([40], "must be in CellGeo"),
    }


def test_a_sound_sample_has_none(sample):
    assert list(find_bad_values(sample)) == []
    require_sound(sample, np.arange(300), "x.root", "Tree")
    assert drop_unsound(sample, np.arange(300), "x.root", "Tree", FaultLog()) is sample


@pytest.mark.parametrize(("value", "sound"), [(0.0, True), (-1e-7, True), (-1e-5, False)])
def test_a_deposit_may_be_below_zero_by_rounding_only(sample, value, sound):
    sample.scalars["cluster_ENG_CALIB_TOT"][3] = value
    assert (not list(find_bad_values(sample))) == sound


def test_the_first_fault_is_raised_with_the_entry_in_the_file(spoilt):
    with pytest.raises(
        BadFileError,
        match=r"x\.root: Tree: entry 1040: cluster_cell_ID is 5000, it must be in CellGeo",
    ):
        require_sound(spoilt, 1000 + np.arange(300), "x.root", "Tree")


def test_each_lost_cluster_is_counted_once(spoilt, sample):
    log = FaultLog()
    kept = drop_unsound(spoilt, 1000 + np.arange(300), "x.root", "Tree", log)
    good = ~np.isin(np.arange(300), [10, 20, 30, 40])
    np.testing.assert_array_equal(kept["clusterEta"], sample["clusterEta"][good])
    np.testing.assert_array_equal(
        kept.cells["cluster_cell_E"], sample[good].cells["cluster_cell_E"]
    )
    assert [(fault.entry, fault.branch, fault.n_lost) for fault in log] == [
        (1040, "cluster_cell_ID", 1),
        (1030, "cluster_cell_E", 1),
        (1010, "truthE", 1),
        (1020, "cluster_ENG_CALIB_TOT", 1),
    ]
    assert log.n_lost == len(log) == 4


def test_clusters_without_cells_do_not_shift_the_blame(sample):
    """Cells are looked up by offsets; an empty cluster before the bad one shares its offset."""
    empty = sample[np.array([0, 1])]
    offsets = np.array([0, 0, 0, 2, 2])
    cells = {name: array[:2].copy() for name, array in empty.cells.items()}
    cells["cluster_cell_E"][1] = np.nan
    four = dataclasses.replace(
        sample, scalars={"clusterE": np.ones(4)}, offsets=offsets, cells=cells
    )
    assert [bad.clusters.tolist() for bad in find_bad_values(four)] == [[2]]


@pytest.mark.parametrize(
    ("offsets", "n", "message"),
    [([0, 2, 3], 4, "shape"), ([0, 5, 3], 3, "make no sense"), ([1, 2, 3], 3, "make no sense")],
)
def test_columns_that_do_not_fit_together_are_refused(sample, offsets, n, message):
    uneven = dataclasses.replace(
        sample,
        scalars={"clusterE": np.ones(2)},
        offsets=np.array(offsets),
        cells={"cluster_cell_E": np.ones(n)},
    )
    with pytest.raises(BadFileError, match=rf"x\.root: Tree: .*{message}"):
        require_aligned(uneven, "x.root", "Tree")


def test_faults_say_where_and_how_much():
    assert (
        str(Fault("a.root", "Tree", 7, "truthE", "is nan", 2))
        == "a.root: Tree: entry 7: truthE: is nan (lost: 2)"
    )
    assert (
        str(Fault("a.root", "", None, "", "not a readable ROOT file", 0))
        == "a.root: not a readable ROOT file (lost: the file)"
    )
    error = BadEntriesError("a.root", "Tree", "truthE", 3, 5, "cannot be read")
    assert str(error) == "a.root: Tree: entries 3 to 5: truthE cannot be read"
    assert error.fault == Fault("a.root", "Tree", 3, "truthE", "cannot be read", 2)
