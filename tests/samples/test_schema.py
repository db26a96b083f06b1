"""A sample is cut and joined without losing a cell, and cells are found by their ID."""

import dataclasses

import numpy as np
import pytest
from factories import make_sample
from hypothesis import given
from hypothesis import strategies as st

from pfcalib.errors import ValidationError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.samples.schema import CellGeo, concatenate, gather, is_em


def cells_of(sample, i, name="cluster_cell_E"):
    return sample.cells[name][sample.offsets[i] : sample.offsets[i + 1]]


def test_a_mask_an_index_and_a_slice_take_the_same_clusters_with_their_cells(sample):
    rows = np.arange(100, 200, 3)
    mask = np.isin(np.arange(len(sample)), rows)
    for part in (sample[mask], sample[rows], sample[100:200:3]):
        assert len(part) == len(rows)
        np.testing.assert_array_equal(part["clusterE"], sample["clusterE"][rows])
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(cells_of(part, i), cells_of(sample, row))


def test_an_index_may_repeat_and_reorder(sample):
    part = sample[np.array([7, 3, 7])]
    np.testing.assert_array_equal(cells_of(part, 2), cells_of(sample, 7))


def test_parts_join_to_the_whole(sample):
    whole = concatenate([sample[:100], sample[100:100], sample[100:]])
    np.testing.assert_array_equal(whole.offsets, sample.offsets)
    for name, array in sample.cells.items():
        np.testing.assert_array_equal(whole.cells[name], array)


def test_samples_of_different_cells_or_columns_do_not_join(rng, sample):
    with pytest.raises(ValidationError, match="CellGeo"):
        concatenate([sample, make_sample(rng, 10, BARREL)])
    with pytest.raises(ValidationError, match="columns"):
        concatenate([sample, dataclasses.replace(sample, scalars={"clusterE": sample["clusterE"]})])
    with pytest.raises(ValidationError, match="empty"):
        concatenate([])


def test_a_column_that_was_not_read_is_named(sample):
    with pytest.raises(ValidationError, match="'colour'"):
        sample["colour"]


def test_labels_follow_the_particle():
    assert is_em([111, 22, 11, -11, 211, -211, 2112]).tolist() == [True] * 4 + [False] * 3


def test_cells_are_found_by_id_in_any_order(rng):
    grid_geo = CellGeo.from_grid(WINDOW)
    order = rng.permutation(len(grid_geo))
    arrays = {
        name.removeprefix("cell_geo_"): array[order] for name, array in grid_geo.arrays().items()
    }
    arrays["ID"] = arrays["ID"] * 7 + 1000
    shuffled = CellGeo(**arrays)
    wanted = rng.integers(0, len(order), 50)
    np.testing.assert_array_equal(shuffled.ID[shuffled.rows(wanted * 7 + 1000)], wanted * 7 + 1000)
    assert shuffled.rows([0, 1001, 2**63]).tolist() == [-1, -1, -1]
    assert grid_geo.rows([2**63, 1000, 999]).tolist() == [-1, -1, 999]


def test_a_geometry_with_vectors_of_different_length_is_refused():
    with pytest.raises(ValidationError, match="lengths"):
        dataclasses.replace(CellGeo.from_grid(WINDOW), eta=np.zeros(3))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_gather_finds_every_cell(counts, data):
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=40)), dtype=np.int64
    )
    cells, taken = gather(offsets, rows)
    expected = [cell for row in rows for cell in range(offsets[row], offsets[row + 1])]
    assert cells.tolist() == expected
    assert np.diff(taken).tolist() == [counts[row] for row in rows]


def test_the_electromagnetic_share_is_one_column_over_the_other_and_nan_without_deposit(rng):
    sample = make_sample(rng, 3)
    sample.scalars["cluster_ENG_CALIB_TOT"] = np.array([4.0, 2.0, 0.0], np.float32)
    sample.scalars["cluster_ENG_CALIB_EM"] = np.array([1.0, 2.0, 0.0], np.float32)
    np.testing.assert_array_equal(sample.em_share, [0.25, 1.0, np.nan])
    del sample.scalars["cluster_ENG_CALIB_EM"]
    with pytest.raises(ValidationError, match="cluster_ENG_CALIB_EM"):
        _ = sample.em_share
