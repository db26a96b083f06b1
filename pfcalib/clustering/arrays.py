"""What the clustering kernels share: geometry of the cells, buffers that serve event after event,
and the sorting of short lists of cells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.geometry import Grid

_GAPS = np.array([29524, 9841, 3280, 1093, 364, 121, 40, 13, 4, 1])  # (3^k - 1) / 2


class CellTable(NamedTuple):
    """Geometry of a grid as the kernels read it; one entry a cell unless said otherwise."""

    # (n_cells + 1,) neighbours of a cell: indices[indptr[cell]:indptr[cell + 1]]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    # place in the order of (sampling, eta, phi): settles ties whatever the numbering of the cells
    rank: NDArray[np.int32]
    by_rank: NDArray[np.int32]  # cell of each rank
    layer: NDArray[np.int64]
    x: NDArray[np.float64]  # mm
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]  # rad
    d_eta: NDArray[np.float64]
    d_phi: NDArray[np.float64]
    volume: NDArray[np.float64]  # mm3
    is_em: NDArray[np.bool_]  # (n_layers,)


class Workspace(NamedTuple):
    """Buffers for one event; -1 in `proto`, `first` and `second` means none, and the kernels leave
    them so, `flags` at 0 and `weight` at 1 for the next event.
    """

    significance: NDArray[np.float64]  # |E| / sigma of the taken cells
    proto: NDArray[np.int32]  # proto-cluster of a cell, then its parent cluster
    root: NDArray[np.int32]  # proto-cluster that a proto-cluster was merged into
    number: NDArray[np.int32]  # parent cluster of a root
    taken: NDArray[np.int32]  # cells in clusters, in the order of taking
    flags: NDArray[np.uint8]  # of a rank: its cell is taken; filled up to eight
    members: NDArray[np.int32]  # the same cells parent by parent
    bounds: NDArray[np.int64]  # (n_cells + 1,) first member of each parent
    front: NDArray[np.int32]  # cells that the clusters grow from
    following: NDArray[np.int32]  # the next such cells
    maxima: NDArray[np.int32]
    shared: NDArray[np.int32]
    first: NDArray[np.int32]  # cluster of a cell
    second: NDArray[np.int32]  # second cluster of a shared cell
    born: NDArray[np.int32]  # generation in which a cell was reached
    weight: NDArray[np.float64]  # share of `first`
    sums: NDArray[np.float64]  # (n_cells, 5) of each cluster: E, |E|, and x, y, z weighted by |E|
    cursor: NDArray[np.int64]  # (n_cells + 1,) place where the next entry of a cluster goes


@lru_cache(maxsize=8)
def cell_table(grid: Grid) -> CellTable:
    """Geometry of the grid for the kernels, made once a grid."""
    indptr, indices = grid.neighbours
    by_rank = np.lexsort((grid.phi, grid.eta, grid.sampling)).astype(np.int32)
    return CellTable(
        indptr=indptr,
        indices=indices,
        rank=np.argsort(by_rank).astype(np.int32),
        by_rank=by_rank,
        layer=grid.layer,
        x=grid.r * np.cos(grid.phi),
        y=grid.r * np.sin(grid.phi),
        z=grid.r * np.sinh(grid.eta),
        eta=grid.eta,
        phi=grid.phi,
        d_eta=grid.d_eta,
        d_phi=grid.d_phi,
        volume=grid.volume,
        is_em=np.array([layer.is_em for layer in grid.layers]),
    )


def make_workspace(n_cells: int) -> Workspace:
    """Fresh buffers for events of n_cells cells, about 150 bytes a cell."""

    def numbers() -> NDArray[np.int32]:
        return np.empty(n_cells, dtype=np.int32)

    return Workspace(
        significance=np.empty(n_cells),
        proto=np.full(n_cells, -1, dtype=np.int32),
        root=numbers(),
        number=numbers(),
        taken=numbers(),
        flags=np.zeros(-(-n_cells // 8) * 8, dtype=np.uint8),
        members=numbers(),
        bounds=np.empty(n_cells + 1, dtype=np.int64),
        front=numbers(),
        following=numbers(),
        maxima=numbers(),
        shared=numbers(),
        first=np.full(n_cells, -1, dtype=np.int32),
        second=np.full(n_cells, -1, dtype=np.int32),
        born=numbers(),
        weight=np.ones(n_cells),
        sums=np.empty((n_cells, 5)),
        cursor=np.empty(n_cells + 1, dtype=np.int64),
    )


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
    part = cells[start:stop]
    keys = key[part]
    for gap in _GAPS:
        for i in range(gap, part.size):
            cell, value = part[i], keys[i]
            j = i
            while j >= gap and (
                value > keys[j - gap]
                or (value == keys[j - gap] and rank[cell] < rank[part[j - gap]])
            ):
                part[j], keys[j] = part[j - gap], keys[j - gap]
                j -= gap
            part[j], keys[j] = cell, value


@njit(cache=True, nogil=True, error_model="numpy")
def put_in_order(
    cells: NDArray[np.int32], n_cells: int, table: CellTable, flags: NDArray[np.uint8]
) -> None:
    """Put cells[:n_cells], all different, in the order of rank: mark each, then look at eight marks
    at a time; leaves the flags at 0.
    """
    for i in range(n_cells):
        flags[table.rank[cells[i]]] = 1
    words, n_found = flags.view(np.uint64), 0
    for word in range(words.size):
        if words[word]:
            for rank in range(8 * word, 8 * word + 8):
                if flags[rank]:
                    cells[n_found] = table.by_rank[rank]
                    n_found += 1
            words[word] = 0
