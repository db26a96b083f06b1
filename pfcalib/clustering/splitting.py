"""Splitting of a topological cluster at its local maxima, with shared border cells
(arXiv:1603.02934, section 3.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.clustering.arrays import CellTable, Workspace, comes_first, sort_falling

PRIMARY, SECONDARY = 1, 2  # what a cell may be the local maximum of
# GeV, energy of a cluster in the weights where it is not positive (public ATLAS software)
_MIN_ENERGY = 0.001
_MAX_EXPONENT = 10.0
_TOUCH = 1.0 - 1e-6  # cells that only touch do not overlap, whatever the rounding of their edges


class SplitCuts(NamedTuple):
    """Settings of the splitting as the kernels read them."""

    enabled: bool
    share: bool
    energy: float  # GeV
    neighbours: int
    scale: float  # mm


@njit(cache=True, nogil=True, error_model="numpy")
def _is_maximum(
    cell: int,
    energy: NDArray[np.float64],
    neighbours: int,
    table: CellTable,
    proto: NDArray[np.int32],
) -> bool:
    """Whether a cell has enough neighbours in its parent and none that comes before it in
    energy.
    """
    indptr, indices, rank = table.indptr, table.indices, table.rank
    count = 0
    for i in range(indptr[cell], indptr[cell + 1]):
        if proto[indices[i]] == proto[cell]:
            count += 1
            if comes_first(indices[i], cell, energy, rank):
                return False
    return count >= neighbours


@njit(cache=True, nogil=True, error_model="numpy")
def _overlap(a: int, b: int, table: CellTable) -> bool:
    """Whether two cells overlap in eta and phi."""
    d_phi = table.phi[a] - table.phi[b]
    d_phi -= 2.0 * np.pi * np.rint(d_phi / (2.0 * np.pi))
    in_eta = abs(table.eta[a] - table.eta[b]) < _TOUCH * 0.5 * (table.d_eta[a] + table.d_eta[b])
    return in_eta and abs(d_phi) < _TOUCH * 0.5 * (table.d_phi[a] + table.d_phi[b])


@njit(cache=True, nogil=True, error_model="numpy")
def _find_maxima(
    start: int,
    stop: int,
    energy: NDArray[np.float64],
    kind: NDArray[np.int8],
    cuts: SplitCuts,
    table: CellTable,
    work: Workspace,
) -> int:
    """Fill work.maxima with the maxima of members[start:stop], falling in energy, and count them:
    secondary ones only beside primary ones.
    """
    members, maxima = work.members, work.maxima
    n_maxima = 0
    for role in (PRIMARY, SECONDARY):
        n_primary = n_maxima if role == SECONDARY else 0
        for i in range(start, stop):
            cell = members[i]
            if (
                kind[table.layer[cell]] != role
                or energy[cell] <= cuts.energy
                or not _is_maximum(cell, energy, cuts.neighbours, table, work.proto)
            ):
                continue
            hidden = False
            for j in range(n_primary):
                hidden |= _overlap(cell, maxima[j], table)
            if not hidden:
                maxima[n_maxima] = cell
                n_maxima += 1
    sort_falling(maxima, 0, n_maxima, energy, table.rank)
    return n_maxima


@njit(cache=True, nogil=True, error_model="numpy")
def _reach(n_front: int, generation: int, share: bool, table: CellTable, work: Workspace) -> int:
    """Let every cell of the front take its free neighbours in the parent; neighbours taken in this
    generation already become shared.
    """
    indptr, indices, proto = table.indptr, table.indices, work.proto
    first, second, born, front, following = (
        work.first,
        work.second,
        work.born,
        work.front,
        work.following,
    )
    n_following = 0
    for i in range(n_front):
        cell = front[i]
        for k in range(indptr[cell], indptr[cell + 1]):
            other = indices[k]
            if proto[other] != proto[cell]:
                continue
            if first[other] < 0:
                first[other], born[other], following[n_following] = first[cell], generation, other
                n_following += 1
            elif (
                share
                and second[other] < 0
                and born[other] == generation
                and first[other] != first[cell]
            ):
                second[other] = first[cell]
    return n_following


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_maxima(
    n_maxima: int,
    n_clusters: int,
    energy: NDArray[np.float64],
    share: bool,
    table: CellTable,
    work: Workspace,
) -> int:
    """Grow one cluster from each maximum, generation by generation, falling in energy; returns the
    number of shared cells.
    """
    front, following, shared, first, second, rank = (
        work.front,
        work.following,
        work.shared,
        work.first,
        work.second,
        table.rank,
    )
    for i in range(n_maxima):
        cell = work.maxima[i]
        first[cell] = n_clusters + i
        work.born[cell] = 0
        front[i] = cell
    n_front, n_shared, generation = n_maxima, 0, 0
    while n_front > 0:
        generation += 1
        n_following = _reach(n_front, generation, share, table, work)
        n_front, n_known = 0, n_shared
        for i in range(n_following):
            if second[following[i]] < 0:
                front[n_front] = following[i]
                n_front += 1
            else:
                shared[n_shared] = following[i]
                n_shared += 1
        sort_falling(front, 0, n_front, energy, rank)
        sort_falling(shared, n_known, n_shared, energy, rank)
    return n_shared


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_shared(
    n_shared: int, energy: NDArray[np.float64], table: CellTable, work: Workspace
) -> int:
    """Give the cells that only shared cells reach to the same two clusters; returns the new number
    of shared cells.
    """
    indptr, indices, proto, first, second, shared = (
        table.indptr,
        table.indices,
        work.proto,
        work.first,
        work.second,
        work.shared,
    )
    rank = table.rank
    done, stop = 0, n_shared
    while done < stop:
        for i in range(done, stop):
            cell = shared[i]
            for k in range(indptr[cell], indptr[cell + 1]):
                other = indices[k]
                if proto[other] == proto[cell] and first[other] < 0:
                    first[other], second[other], shared[n_shared] = first[cell], second[cell], other
                    n_shared += 1
        done, stop = stop, n_shared
        sort_falling(shared, done, stop, energy, rank)
    return n_shared


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_unshared(
    start: int,
    stop: int,
    clusters: tuple[int, int],
    energy: NDArray[np.float64],
    table: CellTable,
    work: Workspace,
) -> None:
    """Energy and centroid, weighted by |E|, of the cells that each cluster does not share; fills
    work.sums.
    """
    members, first, second, sums, x, y, z = (
        work.members,
        work.first,
        work.second,
        work.sums,
        table.x,
        table.y,
        table.z,
    )
    sums[clusters[0] : clusters[1]] = 0.0
    for i in range(start, stop):
        cell = members[i]
        if second[cell] < 0:
            cluster, size = first[cell], abs(energy[cell])
            sums[cluster, 0] += energy[cell]
            sums[cluster, 1] += size
            sums[cluster, 2] += size * x[cell]
            sums[cluster, 3] += size * y[cell]
            sums[cluster, 4] += size * z[cell]
    for cluster in range(clusters[0], clusters[1]):
        for i in range(2, 5):
            # a maximum is never shared, so the sum is positive
            sums[cluster, i] /= sums[cluster, 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh_shared(n_shared: int, scale: float, table: CellTable, work: Workspace) -> None:
    """Weights of the shared cells: w1 = E1 / (E1 + r E2), r = exp((d1 - d2) / scale)."""
    shared, first, second, sums, weight, x, y, z = (
        work.shared,
        work.first,
        work.second,
        work.sums,
        work.weight,
        table.x,
        table.y,
        table.z,
    )
    for i in range(n_shared):
        cell = shared[i]
        one, two = first[cell], second[cell]
        d_one = np.sqrt(
            (x[cell] - sums[one, 2]) ** 2
            + (y[cell] - sums[one, 3]) ** 2
            + (z[cell] - sums[one, 4]) ** 2
        )
        d_two = np.sqrt(
            (x[cell] - sums[two, 2]) ** 2
            + (y[cell] - sums[two, 3]) ** 2
            + (z[cell] - sums[two, 4]) ** 2
        )
        r = np.exp(min(max((d_one - d_two) / scale, -_MAX_EXPONENT), _MAX_EXPONENT))
        e_one = sums[one, 0] if sums[one, 0] > 0.0 else _MIN_ENERGY
        e_two = sums[two, 0] if sums[two, 0] > 0.0 else _MIN_ENERGY
        weight[cell] = e_one / (e_one + r * e_two)


@njit(cache=True, nogil=True, error_model="numpy")
def split_parent(
    start: int,
    stop: int,
    n_clusters: int,
    energy: NDArray[np.float64],
    kind: NDArray[np.int8],
    cuts: SplitCuts,
    table: CellTable,
    work: Workspace,
) -> int:
    """Split the parent cluster of members[start:stop] into clusters n_clusters, n_clusters + 1, ...

    Writes `first`, `second` and `weight` of each member. A parent with fewer than two maxima stays
    one cluster.

    Returns
    -------
    int
        Number of clusters of the event so far.
    """
    n_maxima = _find_maxima(start, stop, energy, kind, cuts, table, work) if cuts.enabled else 0
    if n_maxima < 2:
        members, first = work.members, work.first
        for i in range(start, stop):
            first[members[i]] = n_clusters
        return n_clusters + 1
    n_shared = _grow_maxima(n_maxima, n_clusters, energy, cuts.share, table, work)
    n_shared = _grow_shared(n_shared, energy, table, work)
    _sum_unshared(start, stop, (n_clusters, n_clusters + n_maxima), energy, table, work)
    _weigh_shared(n_shared, cuts.scale, table, work)
    return n_clusters + n_maxima
