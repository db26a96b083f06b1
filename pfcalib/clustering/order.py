"""Sorting of short lists of cells, in place."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GAPS = np.array([29524, 9841, 3280, 1093, 364, 121, 40, 13, 4, 1])  # (3^k - 1) / 2


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def comes_first(a: int, b: int, key: NDArray[np.float64], rank: NDArray[np.int32]) -> bool:
    """Whether cell a stands before cell b: the larger key, then the lower rank."""
    return key[a] > key[b] or (key[a] == key[b] and rank[a] < rank[b])


@njit(cache=True, nogil=True, error_model="numpy")
def sort_falling(
    cells: NDArray[np.int32],
    start: int,
    stop: int,
    key: NDArray[np.float64],
    rank: NDArray[np.int32],
) -> None:
    """Sort cells[start:stop] by falling key[cell]; equal keys by rising rank[cell] (Shell sort)."""
    for gap in _GAPS:
        if gap >= stop - start:
            continue
        for i in range(start + gap, stop):
            cell = cells[i]
            j = i
            while j >= start + gap and comes_first(cell, cells[j - gap], key, rank):
                cells[j] = cells[j - gap]
                j -= gap
            cells[j] = cell


@njit(cache=True, nogil=True, error_model="numpy")
def sort_by_rank(
    cells: NDArray[np.int32],
    start: int,
    stop: int,
    rank: NDArray[np.int32],
    by_rank: NDArray[np.int32],
) -> None:
    """Sort cells[start:stop] by rising rank[cell]; by_rank is the inverse of rank."""
    ranks = np.empty(stop - start, dtype=np.int32)
    for i in range(start, stop):
        ranks[i - start] = rank[cells[i]]
    ranks.sort()
    for i in range(start, stop):
        cells[i] = by_rank[ranks[i - start]]
