"""What a cluster should have measured: calibration truth of its cells, and its shares of what no
cluster holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.clustering.topo import Clusters


class TruthHits(Protocol):
    """What this module reads of the hits of a simulation; see `simulation.digitise.Hits`."""

    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def cell(self) -> NDArray[np.int32]: ...
    @property
    def em(self) -> NDArray[np.float64]: ...
    @property
    def non_em(self) -> NDArray[np.float64]: ...
    @property
    def invisible(self) -> NDArray[np.float64]: ...
    @property
    def escaped(self) -> NDArray[np.float64]: ...
    @property
    def e_dead(self) -> NDArray[np.float64]: ...


class ClusterTruth(NamedTuple):
    """Columns of a sample: one value a cluster, one value a cell of a cluster."""

    scalars: dict[str, NDArray[Any]]
    cells: dict[str, NDArray[Any]]


@njit(cache=True)
def _find_hits(
    event: NDArray[np.int64],
    offsets: NDArray[np.int64],
    cell: NDArray[np.int32],
    hit_offsets: NDArray[np.int64],
    hit_cell: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Hit of each entry of the clusters, -1 where the cell has noise only; hits are sorted by cell
    within an event.
    """
    found = np.full(len(cell), -1, np.int64)
    for cluster in range(len(event)):
        start, stop = hit_offsets[event[cluster]], hit_offsets[event[cluster] + 1]
        for i in range(offsets[cluster], offsets[cluster + 1]):
            place = start + np.searchsorted(hit_cell[start:stop], cell[i])
            if place < stop and hit_cell[place] == cell[i]:
                found[i] = place
    return found


def cluster_truth(clusters: Clusters, hits: TruthHits) -> ClusterTruth:
    """Calibration truth of clusters; deposits in cells of no cluster and in dead material are
    shared among the clusters of the event.

    Shares go by the deposit ENG_CALIB_TOT of each cluster; where no cluster of an event has any,
    the energy is given to none.

    Parameters
    ----------
    clusters : Clusters
        Of a batch of events.
    hits : Hits
        Of the same events, sorted by cell within each.
    """
    hit = _find_hits(clusters.event, clusters.offsets, clusters.cell, hits.offsets, hits.cell)
    has_hit, n_events = hit >= 0, len(hits.offsets) - 1
    names = {
        "EM": hits.em,
        "nonEM": hits.non_em,
        "Invisible": hits.invisible,
        "Escaped": hits.escaped,
    }
    cells = {
        f"cluster_cell_hitsE_{name}": np.where(has_hit, _take(values, hit), 0.0) * clusters.weight
        for name, values in names.items()
    }
    entry_cluster = np.repeat(np.arange(len(clusters.event)), np.diff(clusters.offsets))
    sums = {
        name: np.bincount(entry_cluster, cells[f"cluster_cell_hitsE_{name}"], len(clusters.event))
        for name in names
    }
    total = np.sum(list(sums.values()), axis=0)
    event_of_hit = np.repeat(np.arange(n_events), np.diff(hits.offsets))
    deposited = np.bincount(
        event_of_hit, hits.em + hits.non_em + hits.invisible + hits.escaped, n_events
    )
    clustered = np.bincount(clusters.event, total, n_events)
    share = total / np.where(clustered > 0.0, clustered, 1.0)[clusters.event]
    scalars = {
        "cluster_ENG_CALIB_TOT": total,
        "cluster_ENG_CALIB_EM": sums["EM"],
        "cluster_ENG_CALIB_OUT_T": share * np.maximum(deposited - clustered, 0.0)[clusters.event],
        "cluster_ENG_CALIB_DEAD_TOT": share * hits.e_dead[clusters.event],
    }
    return ClusterTruth(scalars, cells)


def _take(values: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    return values[np.maximum(index, 0)] if len(values) else np.zeros(len(index))
