"""Seeds, growth and merging of proto-clusters in one event (arXiv:1603.02934, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.clustering.arrays import CellTable, Workspace, put_in_order, sort_falling


class GrowthCuts(NamedTuple):
    """Thresholds on |E| / sigma as the kernels read them."""

    seed: float
    growth: float
    boundary: float


@njit(cache=True, nogil=True, error_model="numpy")
def _root(proto: int, root: NDArray[np.int32]) -> int:
    """The proto-cluster that this one has become part of."""
    while root[proto] != proto:
        root[proto] = root[root[proto]]
        proto = root[proto]
    return proto


@njit(cache=True, nogil=True, error_model="numpy")
def find_seeds(
    energy: NDArray[np.float64],
    sigma: NDArray[np.float64],
    seed: float,
    table: CellTable,
    work: Workspace,
) -> int:
    """Start a proto-cluster at each seed, falling in significance; returns their number."""
    significance, front = work.significance, work.front
    n_seeds = 0
    for cell in range(energy.size):
        value = abs(energy[cell]) / sigma[cell]
        if value > seed:
            significance[cell] = value
            front[n_seeds] = cell
            n_seeds += 1
    sort_falling(front, 0, n_seeds, significance, table.rank)
    for i in range(n_seeds):
        work.taken[i] = front[i]
        work.proto[front[i]] = i
        work.root[i] = i
    return n_seeds


@njit(cache=True, nogil=True, error_model="numpy")
def grow(
    energy: NDArray[np.float64],
    sigma: NDArray[np.float64],
    cuts: GrowthCuts,
    n_seeds: int,
    table: CellTable,
    work: Workspace,
) -> int:
    """Take in neighbours generation by generation and merge proto-clusters that meet above growth;
    returns the number of cells taken.
    """
    indptr, indices, significance, proto, root = (
        table.indptr,
        table.indices,
        work.significance,
        work.proto,
        work.root,
    )
    front, following, taken, rank = work.front, work.following, work.taken, table.rank
    n_front = n_taken = n_seeds
    while n_front > 0:
        n_following = 0
        for i in range(n_front):
            mine = proto[front[i]]
            for k in range(indptr[front[i]], indptr[front[i] + 1]):
                other = indices[k]
                if proto[other] < 0:
                    value = abs(energy[other]) / sigma[other]
                    if value > cuts.boundary:
                        significance[other], proto[other], taken[n_taken] = value, mine, other
                        n_taken += 1
                        if value > cuts.growth:
                            following[n_following] = other
                            n_following += 1
                elif proto[other] != mine and significance[other] > cuts.growth:
                    one, two = _root(mine, root), _root(proto[other], root)
                    root[max(one, two)] = min(one, two)
        n_front = n_following
        for i in range(n_front):
            front[i] = following[i]
        sort_falling(front, 0, n_front, significance, rank)
    return n_taken


@njit(cache=True, nogil=True, error_model="numpy")
def gather_parents(n_seeds: int, n_taken: int, table: CellTable, work: Workspace) -> int:
    """List the taken cells parent by parent, in the order of their best seeds and of rank; returns
    the number of parents.
    """
    proto, root, number, bounds, cursor = (
        work.proto,
        work.root,
        work.number,
        work.bounds,
        work.cursor,
    )
    taken, members = work.taken, work.members
    put_in_order(taken, n_taken, table, work.flags)
    n_parents = 0
    for seed in range(n_seeds):
        if root[seed] == seed:
            number[seed] = n_parents
            bounds[n_parents] = 0
            n_parents += 1
    bounds[n_parents] = 0
    for i in range(n_taken):
        parent = number[_root(proto[taken[i]], root)]
        proto[taken[i]] = parent
        bounds[parent + 1] += 1
    for parent in range(n_parents):
        bounds[parent + 1] += bounds[parent]
        cursor[parent] = bounds[parent]
    for i in range(n_taken):
        parent = proto[taken[i]]
        members[cursor[parent]] = taken[i]
        cursor[parent] += 1
    return n_parents
