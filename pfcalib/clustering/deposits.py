"""What a cluster should have measured: calibration truth of its cells, and its shares of what no
cluster holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.clustering.topo import Clusters


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


def cluster_truth(
    clusters: Clusters, hits: Any
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Calibration truth of clusters; deposits in cells of no cluster and in dead material are
    shared among the clusters of the event.

    Shares go by the deposit ENG_CALIB_TOT of each cluster; where no cluster of an event has any,
    the energy is given to none.

    Parameters
    ----------
    clusters : Clusters
        Of a batch of events.
    hits : simulation.digitise.Hits
        Of the same events, sorted by cell within each.

    Returns
    -------
    scalars, cells : dict of str to ndarray
        Columns of a sample in GeV: one value a cluster, one value a cell of a cluster.
    """
    hit = _find_hits(clusters.event, clusters.offsets, clusters.cell, hits.offsets, hits.cell)
    has_hit, n_clusters, n_events = hit >= 0, len(clusters.event), len(hits.offsets) - 1
    owner = np.repeat(np.arange(n_clusters), np.diff(clusters.offsets))
    deposits = {
        "EM": hits.em,
        "nonEM": hits.non_em,
        "Invisible": hits.invisible,
        "Escaped": hits.escaped,
    }
    cells, sums = {}, {}
    for name, deposit in deposits.items():
        found = np.zeros(len(hit))
        found[has_hit] = deposit[hit[has_hit]]
        cells[f"cluster_cell_hitsE_{name}"] = found * clusters.weight
        sums[name] = np.bincount(owner, found * clusters.weight, n_clusters)
    total = np.sum(list(sums.values()), axis=0)
    event_of_hit = np.repeat(np.arange(n_events), np.diff(hits.offsets))
    deposited = np.bincount(event_of_hit, np.sum(list(deposits.values()), axis=0), n_events)
    clustered = np.bincount(clusters.event, total, n_events)
    share = total / np.where(clustered > 0.0, clustered, 1.0)[clusters.event]
    scalars = {
        "cluster_ENG_CALIB_TOT": total,
        "cluster_ENG_CALIB_EM": sums["EM"],
        "cluster_ENG_CALIB_OUT_T": share * np.maximum(deposited - clustered, 0.0)[clusters.event],
        "cluster_ENG_CALIB_DEAD_TOT": share * hits.e_dead[clusters.event],
    }
    return scalars, cells
