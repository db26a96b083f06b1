"""Topological clusters of cells: seed, grow, merge, then split at local maxima (arXiv:1603.02934,
section 3).

Order makes the outcome unique. Seeds, and the cells of each generation, act in falling |E| / sigma;
a cell below the growth threshold belongs to the first proto-cluster that reaches it. Equal values
are ordered by sampling, eta and phi, so the numbering of the cells plays no part.
"""

from __future__ import annotations

import dataclasses
import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pfcalib.clustering.arrays import CellTable, Workspace, cell_table, make_workspace
from pfcalib.clustering.grow import GrowthCuts, find_seeds, gather_parents, grow
from pfcalib.clustering.splitting import PRIMARY, SECONDARY, SplitCuts, split_parent
from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopoConfig:
    """Settings of the clustering; the defaults are the published 4-2-0.

    Parameters
    ----------
    seed, growth, boundary : float
        A cell with |E| / sigma above `seed` starts a proto-cluster, above `growth` extends it,
        above `boundary` is taken in.
    split : bool
        Split at local maxima.
    share : bool
        Share border cells between two split clusters; otherwise each belongs to the first that
        reaches it.
    maximum_energy : float, GeV
        A local maximum lies above it.
    maximum_neighbours : int
        Neighbours in the cluster that a local maximum needs.
    primary, secondary : tuple of str
        Layers of the local maxima; a secondary one counts only where no primary one of its cluster
        overlaps it in eta and phi.
    shower_scale : float, mm
        Length that turns distances into weights of shared cells.

    Raises
    ------
    ConfigError
        If the thresholds do not fall or a setting is out of range.
    """

    seed: float = 4.0
    growth: float = 2.0
    boundary: float = 0.0
    split: bool = True
    share: bool = True
    maximum_energy: float = 0.5
    maximum_neighbours: int = 4
    primary: tuple[str, ...] = ("EMB2", "EMB3")
    secondary: tuple[str, ...] = ("EMB1", "TileBar0", "TileBar1", "TileBar2")
    shower_scale: float = 50.0

    def __post_init__(self) -> None:
        if not self.seed >= self.growth >= self.boundary >= 0.0:
            raise ConfigError(
                f"thresholds must satisfy seed >= growth >= boundary >= 0, not {self.seed}, "
                f"{self.growth}, {self.boundary}"
            )
        if not self.maximum_energy >= 0.0:
            raise ConfigError(f"maximum_energy must not be negative, not {self.maximum_energy} GeV")
        if not self.shower_scale > 0.0:
            raise ConfigError(f"shower_scale must be positive, not {self.shower_scale} mm")
        if both := set(self.primary) & set(self.secondary):
            raise ConfigError(f"layers cannot be both primary and secondary: {sorted(both)}")


class Clusters(NamedTuple):
    """Clusters of a batch of events: cells of cluster i are cell[offsets[i]:offsets[i + 1]], in the
    order of sampling, eta, phi.

    Events rise; within an event the energy sum(weight * E) falls. A cell is in at most two clusters
    and its weights sum to one.
    """

    event: NDArray[np.int64]  # (n_clusters,)
    offsets: NDArray[np.int64]  # (n_clusters + 1,)
    cell: NDArray[np.int32]  # (n_entries,)
    weight: NDArray[np.float64]  # (n_entries,)


@njit(cache=True, nogil=True, error_model="numpy")
def _order_clusters(
    energy: NDArray[np.float64], n_taken: int, n_clusters: int, work: Workspace
) -> NDArray[np.int64]:
    """Clusters of the event in falling energy; fills work.cursor with the number of cells of
    each.
    """
    members, first, second, weight, size = (
        work.members,
        work.first,
        work.second,
        work.weight,
        work.cursor,
    )
    total = np.zeros(n_clusters)
    size[:n_clusters] = 0
    for i in range(n_taken):
        cell = members[i]
        one, two = first[cell], second[cell]
        total[one] += weight[cell] * energy[cell]
        size[one] += 1
        if two >= 0:
            total[two] += (1.0 - weight[cell]) * energy[cell]
            size[two] += 1
    return np.argsort(-total, kind="mergesort")


@njit(cache=True, nogil=True, error_model="numpy")
def _write_and_reset(
    n_taken: int, cells: NDArray[np.int32], weights: NDArray[np.float64], work: Workspace
) -> None:
    """Put each cell to the place of its clusters and free it for the next event."""
    members, proto, first, second, weight, cursor = (
        work.members,
        work.proto,
        work.first,
        work.second,
        work.weight,
        work.cursor,
    )
    for i in range(n_taken):
        cell = members[i]
        one, two = first[cell], second[cell]
        cells[cursor[one]], weights[cursor[one]] = cell, weight[cell]
        cursor[one] += 1
        if two >= 0:
            cells[cursor[two]], weights[cursor[two]] = cell, 1.0 - weight[cell]
            cursor[two] += 1
        proto[cell] = first[cell] = second[cell] = -1
        weight[cell] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _cluster_events(
    energy: NDArray[np.float64],
    sigma: NDArray[np.float64],
    kind: NDArray[np.int8],
    cuts: GrowthCuts,
    split: SplitCuts,
    table: CellTable,
    work: Workspace,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """All events in turn: clusters of each event, offsets of the clusters, cell and weight of each
    entry.
    """
    count, offsets, n_entries = np.zeros(energy.shape[0], dtype=np.int64), [np.int64(0)], 0
    cells, weights = np.empty(1024, dtype=np.int32), np.empty(1024)
    for event in range(energy.shape[0]):
        row = energy[event]
        n_seeds = find_seeds(row, sigma, cuts.seed, table, work)
        n_taken = grow(row, sigma, cuts, n_seeds, table, work)
        n_clusters = 0
        for parent in range(gather_parents(n_seeds, n_taken, table, work)):
            n_clusters = split_parent(
                work.bounds[parent],
                work.bounds[parent + 1],
                n_clusters,
                row,
                kind,
                split,
                table,
                work,
            )
        first_entry = n_entries
        for cluster in _order_clusters(row, n_taken, n_clusters, work):
            size = work.cursor[cluster]
            work.cursor[cluster] = n_entries
            n_entries += size
            offsets.append(np.int64(n_entries))
        count[event] = n_clusters
        if n_entries > cells.size:
            cells = np.concatenate(
                (cells[:first_entry], np.empty(2 * n_entries - first_entry, dtype=np.int32))
            )
            weights = np.concatenate((weights[:first_entry], np.empty(2 * n_entries - first_entry)))
        _write_and_reset(n_taken, cells, weights, work)
    return count, np.array(offsets), cells[:n_entries].copy(), weights[:n_entries].copy()


def _require_energies(energy: NDArray[np.float64], sigma: NDArray[np.float64], grid: Grid) -> None:
    """Raise ValueError for a wrong shape, a noise that is not positive and finite, or an energy
    that is not finite.
    """
    if energy.ndim != 2 or energy.shape[1] != grid.n_cells or sigma.shape != (grid.n_cells,):
        raise ValueError(
            f"grid {grid.name!r} wants energy (n_events, {grid.n_cells}) and sigma "
            f"({grid.n_cells},), not {energy.shape} and {sigma.shape}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        sums = sigma.sum(), energy.sum()  # finite only if all are
    sound = np.isfinite(sums[0]) and sigma.min() > 0.0
    if not sound and not (good := np.isfinite(sigma) & (sigma > 0.0)).all():
        cell = int(np.argmin(good))
        raise ValueError(
            f"sigma[{cell}] = {sigma[cell]} GeV: the noise of every cell must be positive and "
            "finite"
        )
    if not np.isfinite(sums[1]) and not (finite := np.isfinite(energy)).all():
        event, cell = (int(i) for i in np.unravel_index(np.argmin(finite), energy.shape))
        raise ValueError(
            f"energy of event {event}, cell {cell} is {energy[event, cell]}: cell energies must be "
            "finite"
        )


def _maximum_kind(grid: Grid, config: TopoConfig) -> NDArray[np.int8]:
    """Role of the cells of each layer in the splitting: primary, secondary or, as 0, none."""
    kinds = [
        PRIMARY
        if layer.name in config.primary
        else SECONDARY
        if layer.name in config.secondary
        else 0
        for layer in grid.layers
    ]
    return np.array(kinds, dtype=np.int8)


@lru_cache(maxsize=4)
def _workspace_of(n_cells: int, thread: int) -> Workspace:
    """The buffers of a thread, which costs more to make than an event to cluster."""
    return make_workspace(n_cells)


def find_clusters(
    energy: ArrayLike, sigma: ArrayLike, grid: Grid, config: TopoConfig | None = None
) -> Clusters:
    """Topological clusters of a batch of events.

    Parameters
    ----------
    energy : array_like, shape (n_events, n_cells), GeV
        Cell energies at the EM scale, noise included; negative ones count by |E|.
    sigma : array_like, shape (n_cells,), GeV
        Noise of each cell.
    grid : Grid
        The cells and their neighbours.
    config : TopoConfig, optional
        Thresholds and splitting; the published ones by default.

    Returns
    -------
    Clusters
        Events rising, clusters of an event falling in energy.

    Raises
    ------
    ValueError
        If a shape is wrong, a noise is not positive or an energy is not finite; the message names
        the event and the cell.

    Examples
    --------
    >>> from pfcalib.geometry import WINDOW
    >>> energy = np.zeros((1, WINDOW.n_cells))
    >>> energy[0, WINDOW.locate(2, [0.01, 0.03], 0.01)] = 1.0, 0.1
    >>> clusters = find_clusters(energy, np.full(WINDOW.n_cells, 0.04), WINDOW)
    >>> clusters.offsets, energy[0, clusters.cell]
    (array([0, 2]), array([1. , 0.1]))
    """
    config = config or TopoConfig()
    cells = np.ascontiguousarray(energy, dtype=np.float64)
    noise = np.ascontiguousarray(sigma, dtype=np.float64)
    _require_energies(cells, noise, grid)
    count, offsets, cell, weight = _cluster_events(
        cells,
        noise,
        _maximum_kind(grid, config),
        GrowthCuts(float(config.seed), float(config.growth), float(config.boundary)),
        SplitCuts(
            config.split,
            config.share,
            float(config.maximum_energy),
            int(config.maximum_neighbours),
            float(config.shower_scale),
        ),
        cell_table(grid),
        _workspace_of(grid.n_cells, threading.get_ident()),
    )
    return Clusters(np.repeat(np.arange(count.size), count), offsets, cell, weight)
