"""What tracks take from the cells of their clusters: rings or whole clusters (arXiv:1703.10485,
section 6.4).

Each is a function of (event, cells, sets) that returns GeV for each entry of the sets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.calibration.rings import N_LAYERS, N_RINGS, RingCells, distance_to, ring_of
from pfcalib.calibration.weighting import find_bin
from pfcalib.particleflow.event import (
    Event,
    FloatArray,
    FlowClusters,
    IntArray,
    MatchedSets,
    Tracks,
)

N_CODES = N_LAYERS * N_RINGS  # rings of all layers; one more holds the cells of none

Removed = Callable[[Event, RingCells, MatchedSets], FloatArray]


@njit(cache=True, nogil=True, error_model="numpy")
def remove_rings(
    tracks: Tracks,
    clusters: FlowClusters,
    cells: RingCells,
    sets: MatchedSets,
    orders: IntArray,
    whole_sigma: float,
) -> FloatArray:
    """Energy that each track takes from each entry of its set, track by track: all of it where not
    much more is left than expected, else ring by ring.

    Whole rings go in the given order until the next would take more than is expected; that one is
    scaled, so that the sum is what is expected. A remnant below `whole_sigma` widths goes too.

    Parameters
    ----------
    orders : ndarray of int64, shape (n_sets, N_CODES)
        Codes layer * N_RINGS + ring in falling expected energy density.
    """
    left, removed = clusters.cell_energy.copy(), np.zeros(len(sets.entry))
    code, energy = np.empty(len(sets.entry), np.int64), np.empty(N_CODES + 1)
    share, filled = np.empty(N_CODES + 1), np.empty(N_CODES + 1, np.bool_)
    for s in range(len(sets.track)):
        start, stop = sets.offsets[s], sets.offsets[s + 1]
        total = 0.0
        for i in range(start, stop):
            total += left[sets.entry[i]]
        cut = whole_sigma * sets.sigma[s]
        share[:] = 1.0
        code[start:stop] = N_CODES
        if not total - sets.mean[s] < cut:
            energy[:], filled[:] = 0.0, False
            for i in range(start, stop):
                cell = clusters.cell[sets.entry[i]]
                track = sets.track[s]
                distance = distance_to(cells, cell, tracks.eta_at[track], tracks.phi_at[track])
                if distance < np.inf:
                    layer = cells.layer[cell]
                    code[i] = layer * N_RINGS + ring_of(layer, distance)
                energy[code[i]] += left[sets.entry[i]]
                filled[code[i]] = True
            share[:] = 0.0
            wanted = sets.mean[s]
            for k in range(N_CODES + 1):
                ring = orders[s, k] if k < N_CODES else N_CODES
                if not filled[ring]:
                    continue
                if energy[ring] > wanted:
                    share[ring] = wanted / energy[ring]
                    wanted = 0.0
                    break
                share[ring] = 1.0
                wanted -= energy[ring]
            if total - (sets.mean[s] - wanted) < cut:
                share[:] = 1.0
        for i in range(start, stop):
            removed[i] = share[code[i]] * left[sets.entry[i]]
            left[sets.entry[i]] -= removed[i]
    return removed


def subtract_rings(table: EoverPTable, whole_sigma: float) -> Removed:
    """Cell-by-cell subtraction in rings, in the order of a table of E/p."""
    arrays = table.arrays

    def removed(event: Event, cells: RingCells, sets: MatchedSets) -> FloatArray:
        tracks = event.tracks
        p, eta = tracks.p[sets.track], np.abs(tracks.eta[sets.track])
        e_bin = np.array([find_bin(arrays.energy_edges, x) for x in p], dtype=np.int64)
        eta_bin = np.array([find_bin(arrays.eta_edges, x) for x in eta], dtype=np.int64)
        orders = arrays.order[e_bin, eta_bin, sets.layer]
        return np.asarray(
            remove_rings(tracks, event.clusters, cells, sets, orders, float(whole_sigma))
        )

    return removed


def remove_whole(event: Event, cells: RingCells, sets: MatchedSets) -> FloatArray:
    """All energy of the clusters that a track is matched to, by the first track that has them."""
    removed = np.zeros(len(sets.entry))
    first = np.unique(sets.entry, return_index=True)[1]
    removed[first] = event.clusters.cell_energy[sets.entry[first]]
    return removed
