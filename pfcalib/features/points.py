"""Clusters as lists of their hottest cells: energy, significance, direction and layer of each, in
physical units.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.features.images import SAMPLING
from pfcalib.samples.schema import CellGeo, Sample

N_POINTS = 64  # cells of a cluster, by falling |E|; a cluster has about as many
# energy in GeV, energy over noise, distances from the barycentre (phi in rad), place in
# columns.LAYER_NAMES
POINT_FEATURES = ("energy", "significance", "d_eta", "d_phi", "layer")


class PointMaker:
    """The cells of a sample as points: made once, then applied to any number of clusters.

    Parameters
    ----------
    geo : CellGeo
        Cells without noise have no significance; those of layers not in `columns.LAYER_NAMES` are
        left out.
    """

    def __init__(self, geo: CellGeo) -> None:
        layer = np.full(len(geo), -1.0)
        for i, name in enumerate(LAYER_NAMES):
            layer[geo.sampling == SAMPLING[name]] = i
        noise = geo.sigma.astype(np.float64)
        per_sigma = np.where(noise > 0.0, 1.0 / np.where(noise > 0.0, noise, 1.0), 0.0)
        self._cells = np.column_stack([per_sigma, geo.eta, geo.phi, layer]).astype(np.float64)

    def fill(
        self,
        points: NDArray[np.float32],
        place: NDArray[np.int64],
        row: NDArray[np.int64],
        offsets: NDArray[np.int64],
        cell: NDArray[np.integer],
        energy: NDArray[np.floating],
        eta: NDArray[np.floating],
        phi: NDArray[np.floating],
    ) -> None:
        """Write clusters to rows of points, in place; unused points stay as they are.

        Parameters
        ----------
        points : array of float32, shape (n, N_POINTS, len(POINT_FEATURES))
        place, row, offsets, cell, energy
            As in `pfcalib.features.images.ImageWindow.fill`.
        eta, phi : arrays, shape (m,)
            Barycentre of each cluster.
        """
        _fill(points, place, row, offsets, cell, energy, eta, phi, self._cells)


def build_points(sample: Sample) -> NDArray[np.float32]:
    """Hottest cells of all clusters of a sample.

    Parameters
    ----------
    sample : Sample
        With clusterEta, clusterPhi, cluster_cell_ID and cluster_cell_E.

    Returns
    -------
    array of float32, shape (n_clusters, N_POINTS, len(POINT_FEATURES))
        Columns as in `POINT_FEATURES`, zeros behind the last cell.

    Raises
    ------
    ValidationError
        If a cell is not in CellGeo.
    """
    cell = sample.geo.rows(sample.cells["cluster_cell_ID"])
    if np.any(cell < 0):
        raise ValidationError(
            f"cell {sample.cells['cluster_cell_ID'][np.argmin(cell)]} is not in CellGeo"
        )
    points = np.zeros((len(sample), N_POINTS, len(POINT_FEATURES)), dtype=np.float32)
    rows, energy = np.arange(len(sample)), sample.cells["cluster_cell_E"]
    barycentre: list[Any] = [sample["clusterEta"], sample["clusterPhi"]]
    _maker_of(sample.geo).fill(points, rows, rows, sample.offsets, cell, energy, *barycentre)
    return points


@lru_cache(maxsize=4)
def _maker_of(geo: CellGeo) -> PointMaker:
    """The chunks of a file share one geometry."""
    return PointMaker(geo)


@nb.njit(cache=True, nogil=True)
def _fill(points, place, row, offsets, cell, energy, eta, phi, cells):  # type: ignore[no-untyped-def] # pragma: no cover
    """Kernel of `PointMaker.fill`."""
    for i in range(len(row)):
        start, stop = offsets[row[i]], offsets[row[i] + 1]
        order = np.argsort(-np.abs(energy[start:stop]), kind="mergesort")
        n = 0
        for j in order:
            if n == points.shape[1]:
                break
            e, (per_sigma, cell_eta, cell_phi, layer) = energy[start + j], cells[cell[start + j]]
            if layer >= 0.0 and e != 0.0:
                d_phi = cell_phi - phi[i]
                here = points[place[i], n]
                here[0], here[1], here[2] = e, e * per_sigma, cell_eta - eta[i]
                here[3] = d_phi - 2.0 * np.pi * np.rint(d_phi / (2.0 * np.pi))
                here[4] = layer
                n += 1
