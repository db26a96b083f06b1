"""Loops over the cells of clusters for local cell weighting: sums that derive the weights, and sums
of weighted cells.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

GEV_TO_MEV = 1e3


@nb.njit(cache=True, nogil=True)
def find_bin(edges, value) -> int:  # type: ignore[no-untyped-def] # pragma: no cover
    """Bin of a value, [low, high); the first or last one beyond the edges."""
    return min(max(np.searchsorted(edges, value, side="right") - 1, 0), len(edges) - 2)


@nb.njit(cache=True, nogil=True)
def sum_weighted(
    offsets: NDArray[np.int64],
    row: NDArray[np.int64],
    energy: NDArray[np.float32],
    energy_bin: NDArray[np.int64],
    layer: NDArray[np.int64],
    eta_bin: NDArray[np.int64],
    volume: NDArray[np.float64],
    cut: NDArray[np.float64],
    edges: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Energy of the cells of each cluster that are left alone, and that of the others weighted as
    neutral and as charged.

    Parameters
    ----------
    offsets : int64, shape (n_clusters + 1,)
    row, energy : shape (n_cells,)
        Row in the geometry, and energy in GeV, of each cell.
    energy_bin : int64, shape (n_clusters,)
    layer, eta_bin, volume, cut : shape (n_rows,)
        Of the geometry: index of the layer (-1: never weighted), bin of |eta|, mm3, and the |E| in
        GeV above which a cell is weighted.
    edges : float64, shape (n_layers, n_density + 1)
        Of log10 of the density in MeV/mm3.
    weight : float64, shape (2, n_layers, n_eta, n_energy, n_density)
        For neutral and charged clusters.

    Returns
    -------
    ndarray of float64, shape (n_clusters, 3), GeV
    """
    sums = np.zeros((len(offsets) - 1, 3))
    for cluster in range(len(offsets) - 1):
        for i in range(offsets[cluster], offsets[cluster + 1]):
            e, cell = float(energy[i]), row[i]
            at = layer[cell]
            if at < 0 or not abs(e) > cut[cell]:
                sums[cluster, 0] += e
                continue
            density = find_bin(edges[at], np.log10(abs(e) * GEV_TO_MEV / volume[cell]))
            sums[cluster, 1] += weight[0, at, eta_bin[cell], energy_bin[cluster], density] * e
            sums[cluster, 2] += weight[1, at, eta_bin[cell], energy_bin[cluster], density] * e
    return sums


@nb.njit(cache=True, nogil=True)
def add_cells(
    offsets: NDArray[np.int64],
    row: NDArray[np.int64],
    energy: NDArray[np.float32],
    truth: NDArray[np.float64],
    energy_bin: NDArray[np.int64],
    kind: NDArray[np.int64],
    layer: NDArray[np.int64],
    eta_bin: NDArray[np.int64],
    volume: NDArray[np.float64],
    cut: NDArray[np.float64],
    edges: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Add the cells of known clusters to `sums`: in each bin their number, the ratios of true over
    measured energy, true and measured energy.

    Parameters as in `sum_weighted`, and:

    truth : float64, shape (n_cells,), GeV
    kind : int64, shape (n_clusters,)
        0 neutral, 1 charged.
    sums : float64, shape (2, n_layers, n_eta, n_energy, n_density, 4)
    """
    for cluster in range(len(offsets) - 1):
        for i in range(offsets[cluster], offsets[cluster + 1]):
            e, cell = float(energy[i]), row[i]
            at = layer[cell]
            if at < 0 or not abs(e) > cut[cell]:
                continue
            density = find_bin(edges[at], np.log10(abs(e) * GEV_TO_MEV / volume[cell]))
            entry = sums[kind[cluster], at, eta_bin[cell], energy_bin[cluster], density]
            entry[0] += 1.0
            entry[1] += truth[i] / e
            entry[2] += truth[i]
            entry[3] += e
