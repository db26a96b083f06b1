"""Moments of topological clusters (arXiv:1603.02934, section 4).

The moments use cells of positive energy only, each with its weight: <v> = sum(w E v) / sum(w E)
over E > 0, except where ``cluster_moments`` says otherwise. A cell stands at (r cos phi, r sin phi,
r sinh eta). The centre is c = <(x, y, z)>.

The shower axis is the eigenvector, nearest in direction to c, of the matrix sum((w E)^2 (u - c_u)
(v - c_v)) / sum((w E)^2). Where it is more than 20 degrees away from c, or there are fewer than
three cells, or no spread in some direction, the axis is the direction of c itself, as seen from the
origin. r and lambda of a cell are its distances from the axis and, along the axis, from c.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pfcalib.clustering.arrays import CellTable, cell_table
from pfcalib.clustering.topo import Clusters
from pfcalib.columns import MOMENTS
from pfcalib.geometry import Grid

MAX_AXIS_ANGLE = np.deg2rad(20.0)
MIN_SPREAD = 1e-6  # mm2, smallest eigenvalue of a matrix that has an axis
CORE_R = 40.0  # mm, least distance from the axis of the two hottest cells in the norm of LATERAL
CORE_LAMBDA = 100.0  # mm, likewise along the axis in the norm of LONGITUDINAL
_KINEMATICS = (
    "clusterE",
    "clusterPt",
    "clusterEta",
    "clusterPhi",
    "cluster_SIGNIFICANCE",
    "cluster_CELL_SIGNIFICANCE",
    "cluster_PTD",
)
_CONTENT = ("ENG_POS", "ENG_FRAC_EM", "ENG_FRAC_MAX", "ENG_FRAC_CORE", "FIRST_ENG_DENS", "MAX_DENS")
_SHAPE = (
    "CENTER_MAG",
    "CENTER_LAMBDA",
    "DELTA_ALPHA",
    "SECOND_R",
    "SECOND_LAMBDA",
    "LATERAL",
    "LONGITUDINAL",
)
# in the order of the kernel's columns
_SINGLE = (*_KINEMATICS, *(f"cluster_{name}" for name in (*_CONTENT, *_SHAPE, "ISOLATION")))
_CONTENT_AT = len(_KINEMATICS)
_SHAPE_AT = _CONTENT_AT + len(_CONTENT)
_ISOLATION_AT = _SHAPE_AT + len(_SHAPE)


@njit(cache=True, nogil=True, error_model="numpy")
def _wrap(phi: float) -> float:
    """The same azimuth in [-pi, pi]."""
    return phi - 2.0 * np.pi * np.rint(phi / (2.0 * np.pi))


@njit(cache=True, nogil=True, error_model="numpy")
def _kinematics(
    cell: NDArray[np.int32],
    weight: NDArray[np.float64],
    energy: NDArray[np.float64],
    sigma: NDArray[np.float64],
    table: CellTable,
) -> tuple[float, float, float, float, float, float, float]:
    """Energy, pT, eta, phi, the two significances and the dispersion of pT, from all cells."""
    eta, phi, reference = table.eta, table.phi, table.phi[cell[0]]
    total = size = size_eta = size_phi = square = noise = best = 0.0
    for i in range(cell.size):
        one = cell[i]
        e = weight[i] * energy[one]
        total += e
        size += abs(e)
        size_eta += abs(e) * eta[one]
        size_phi += abs(e) * _wrap(phi[one] - reference)
        square += e * e
        noise += sigma[one] ** 2
        significance = energy[one] / sigma[one]
        if abs(significance) > abs(best):
            best = significance
    if size == 0.0:
        return 0.0, 0.0, eta[cell[0]], reference, 0.0, 0.0, 0.0
    eta_mean = size_eta / size
    pt = total / np.cosh(eta_mean)
    return (
        total,
        pt,
        eta_mean,
        _wrap(reference + size_phi / size),
        total / np.sqrt(noise),
        best,
        np.sqrt(square) / size,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _layers(
    cell: NDArray[np.int32],
    weight: NDArray[np.float64],
    energy: NDArray[np.float64],
    table: CellTable,
    by_layer: NDArray[np.float64],
) -> None:
    """Fill by_layer (5, n_layers): energy of all cells, then of positive cells energy, hottest
    cell, and moments of eta from 0 and 1.
    """
    layer, eta, reference = table.layer, table.eta, table.eta[cell[0]]
    by_layer[:] = 0.0
    for i in range(cell.size):
        at, e = layer[cell[i]], weight[i] * energy[cell[i]]
        by_layer[0, at] += e
        if e > 0.0:
            d_eta = eta[cell[i]] - reference
            by_layer[1, at] += e
            by_layer[2, at] = max(by_layer[2, at], e)
            by_layer[3, at] += e * d_eta
            by_layer[4, at] += e * d_eta * d_eta


@njit(cache=True, nogil=True, error_model="numpy")
def _content(
    cell: NDArray[np.int32],
    weight: NDArray[np.float64],
    energy: NDArray[np.float64],
    table: CellTable,
    by_layer: NDArray[np.float64],
) -> tuple[float, float, float, float, float, float]:
    """Positive energy, its shares in the EM layers, in the hottest cell and in the hottest cells by
    layer, mean and largest density.
    """
    volume, is_em = table.volume, table.is_em
    positive = by_layer[1].sum()
    if positive == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    em = 0.0
    for layer in range(is_em.size):
        em += by_layer[1, layer] * is_em[layer]
    density = densest = 0.0
    for i in range(cell.size):
        one = cell[i]
        if energy[one] > 0.0:
            density += weight[i] * energy[one] * energy[one] / volume[one]
            densest = max(densest, energy[one] / volume[one])
    return (
        positive,
        em / positive,
        by_layer[2].max() / positive,
        by_layer[2].sum() / positive,
        density / positive,
        densest,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(
    cell: NDArray[np.int32],
    weight: NDArray[np.float64],
    energy: NDArray[np.float64],
    table: CellTable,
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number of positive cells, their centre weighted by w E, and the matrix of their spread about
    it weighted by (w E)^2.
    """
    x, y, z = table.x, table.y, table.z
    count, total, square = 0, 0.0, 0.0
    centre, matrix = np.zeros(3), np.zeros((3, 3))
    for i in range(cell.size):
        e = weight[i] * energy[cell[i]]
        if e > 0.0:
            count += 1
            total += e
            centre[0] += e * x[cell[i]]
            centre[1] += e * y[cell[i]]
            centre[2] += e * z[cell[i]]
    centre /= total
    for i in range(cell.size):
        e = weight[i] * energy[cell[i]]
        if e > 0.0:
            u = (x[cell[i]] - centre[0], y[cell[i]] - centre[1], z[cell[i]] - centre[2])
            square += e * e
            for a in range(3):
                for b in range(3):
                    matrix[a, b] += e * e * u[a] * u[b]
    return count, centre, matrix / square


@njit(cache=True, nogil=True, error_model="numpy")
def _axis(
    count: int, centre: NDArray[np.float64], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Shower axis, a unit vector, and the angle of the principal axis from the centre's direction,
    0 where there is none.
    """
    direction = centre / np.sqrt((centre**2).sum())
    if count < 3:
        return direction, 0.0
    spread, vectors = np.linalg.eigh(matrix)
    if spread.min() < MIN_SPREAD:
        return direction, 0.0
    cosines = direction @ vectors
    best = np.argmax(np.abs(cosines))
    axis = vectors[:, best] * np.sign(cosines[best])
    normal = direction - cosines[best] * vectors[:, best]
    angle = np.arctan2(np.sqrt((normal**2).sum()), abs(cosines[best]))
    return (axis if angle <= MAX_AXIS_ANGLE else direction), angle


@njit(cache=True, nogil=True, error_model="numpy")
def _depth(centre: NDArray[np.float64], axis: NDArray[np.float64], r_front: float) -> float:
    """Distance in mm from the cylinder of radius r_front to the centre along the axis; negative
    inside the cylinder.
    """
    a = axis[0] ** 2 + axis[1] ** 2
    b = centre[0] * axis[0] + centre[1] * axis[1]
    discriminant = b * b - a * (centre[0] ** 2 + centre[1] ** 2 - r_front**2)
    if discriminant >= 0.0 and a > 0.0:
        return (b - np.sqrt(discriminant)) / a
    # the axis misses: along the centre
    return np.sqrt((centre**2).sum()) * (1.0 - r_front / np.sqrt(centre[0] ** 2 + centre[1] ** 2))


@njit(cache=True, nogil=True, error_model="numpy")
def _shape(
    cell: NDArray[np.int32],
    weight: NDArray[np.float64],
    energy: NDArray[np.float64],
    table: CellTable,
    r_front: float,
) -> tuple[float, float, float, float, float, float, float]:
    """Distance and depth of the centre, angle of the axis, second moments across and along it,
    normalised ones; some cell is positive.
    """
    x, y, z = table.x, table.y, table.z
    count, centre, matrix = _spread(cell, weight, energy, table)
    axis, angle = _axis(count, centre, matrix)
    first = second = -1  # the two hottest cells
    for i in range(cell.size):
        e = weight[i] * energy[cell[i]]
        if e > 0.0 and (first < 0 or e > weight[first] * energy[cell[first]]):
            first, second = i, first
        elif e > 0.0 and (second < 0 or e > weight[second] * energy[cell[second]]):
            second = i
    total = across = along = across_core = along_core = across_norm = along_norm = 0.0
    for i in range(cell.size):
        e = weight[i] * energy[cell[i]]
        if e > 0.0:
            u = (x[cell[i]] - centre[0], y[cell[i]] - centre[1], z[cell[i]] - centre[2])
            depth = u[0] * axis[0] + u[1] * axis[1] + u[2] * axis[2]
            r2, l2 = max(u[0] ** 2 + u[1] ** 2 + u[2] ** 2 - depth**2, 0.0), depth**2
            total, across, along = total + e, across + e * r2, along + e * l2
            if i in (first, second):
                across_core, along_core = across_core + e * r2, along_core + e * l2
                across_norm, along_norm = (
                    across_norm + e * max(r2, CORE_R**2),
                    along_norm + e * max(l2, CORE_LAMBDA**2),
                )
    lateral = (across - across_core) / (across - across_core + across_norm)
    longitudinal = (along - along_core) / (along - along_core + along_norm)
    distance = np.sqrt((centre**2).sum())
    return (
        distance,
        _depth(centre, axis, r_front),
        angle,
        across / total,
        along / total,
        lateral,
        longitudinal,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _isolation(
    cell: NDArray[np.int32],
    number: int,
    event: int,
    table: CellTable,
    marks: NDArray[np.int64],
    layer_energy: NDArray[np.float64],
) -> float:
    """Share of unclustered cells among the cells around the cluster, per layer, averaged with the
    layer's energy where that is positive.

    marks (3, n_cells) holds the last event in which a cell was clustered, the last cluster that
    held it, the last that counted it.
    """
    indptr, indices, layer, clustered, mine, seen = (
        table.indptr,
        table.indices,
        table.layer,
        marks[0],
        marks[1],
        marks[2],
    )
    around, free = np.zeros(layer_energy.size), np.zeros(layer_energy.size)
    for one in cell:
        mine[one] = number
    for one in cell:
        for k in range(indptr[one], indptr[one + 1]):
            other = indices[k]
            if layer[other] == layer[one] and mine[other] != number and seen[other] != number:
                seen[other] = number
                around[layer[one]] += 1.0
                free[layer[one]] += clustered[other] != event
    share = norm = 0.0
    for at in range(layer_energy.size):
        if layer_energy[at] > 0.0 and around[at] > 0.0:
            norm += layer_energy[at]
            share += layer_energy[at] * free[at] / around[at]
    return share / norm if norm > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _all_moments(
    clusters: Clusters,
    energy: NDArray[np.float64],
    sigma: NDArray[np.float64],
    table: CellTable,
    r_front: float,
    single: NDArray[np.float64],
    layers: NDArray[np.float64],
) -> None:
    """Fill single (n_clusters, len(_SINGLE)) and layers (n_clusters, 2, n_layers): energy, and
    width in eta, of each layer.
    """
    owner, offsets, cells, weights = (
        clusters.event,
        clusters.offsets,
        clusters.cell,
        clusters.weight,
    )
    marks = np.full((3, energy.shape[1]), -1, dtype=np.int64)
    by_layer = np.zeros((5, layers.shape[2]))
    for i in range(owner.size):
        event = owner[i]
        if i == 0 or owner[i - 1] != event:
            end = i
            while end < owner.size and owner[end] == event:
                end += 1
            for entry in range(offsets[i], offsets[end]):
                marks[0, cells[entry]] = event
        cell, weight = cells[offsets[i] : offsets[i + 1]], weights[offsets[i] : offsets[i + 1]]
        _layers(cell, weight, energy[event], table, by_layer)
        single[i, :_CONTENT_AT] = _kinematics(cell, weight, energy[event], sigma, table)
        single[i, _CONTENT_AT:_SHAPE_AT] = _content(cell, weight, energy[event], table, by_layer)
        if single[i, _CONTENT_AT] > 0.0:
            single[i, _SHAPE_AT:_ISOLATION_AT] = _shape(cell, weight, energy[event], table, r_front)
        single[i, _ISOLATION_AT] = _isolation(cell, i, event, table, marks, by_layer[0])
        layers[i, 0] = by_layer[0]
        for at in range(layers.shape[2]):
            if by_layer[1, at] > 0.0:
                mean = by_layer[3, at] / by_layer[1, at]
                layers[i, 1, at] = np.sqrt(
                    max(by_layer[4, at] / by_layer[1, at] - mean * mean, 0.0)
                )


def _require_clusters(
    clusters: Clusters, energy: NDArray[np.float64], sigma: NDArray[np.float64], grid: Grid
) -> None:
    """Raise ValueError where the clusters cannot be those of these energies."""
    if energy.ndim != 2 or energy.shape[1] != grid.n_cells or sigma.shape != (grid.n_cells,):
        raise ValueError(
            f"grid {grid.name!r} wants energy (n_events, {grid.n_cells}) and sigma "
            f"({grid.n_cells},), not {energy.shape} and {sigma.shape}"
        )
    if clusters.event.size and not 0 <= clusters.event.min() <= clusters.event.max() < len(energy):
        raise ValueError(
            f"clusters of events {clusters.event.min()} to {clusters.event.max()}, but energies of "
            f"{len(energy)} events"
        )
    if clusters.cell.size and not 0 <= clusters.cell.min() <= clusters.cell.max() < grid.n_cells:
        raise ValueError(
            f"clusters hold cells {clusters.cell.min()} to {clusters.cell.max()}, but grid "
            f"{grid.name!r} has {grid.n_cells}"
        )
    if np.any(np.diff(clusters.event) < 0):
        raise ValueError("clusters must come in rising events, as find_clusters gives them")
    sizes = np.diff(clusters.offsets)
    if np.any(sizes < 1):
        raise ValueError(f"cluster {int(np.argmin(sizes))} has no cells")


def cluster_moments(
    clusters: Clusters, energy: ArrayLike, sigma: ArrayLike, grid: Grid
) -> dict[str, NDArray]:
    """Kinematics and moments of clusters, under the names of `pfcalib.columns`.

    * clusterE, cluster_sumCellE: sum(w E) over all cells, GeV; cluster_nCells: their number, shared
      ones included
    * clusterEta, clusterPhi: sum(w abs(E) v) / sum(w abs(E)) over all cells, phi relative to one
      cell, then in [-pi, pi]; clusterPt: clusterE / cosh(clusterEta), GeV
    * SIGNIFICANCE: clusterE / sqrt(sum(sigma^2)) over all cells; CELL_SIGNIFICANCE: E / sigma of
      the cell of largest abs(E) / sigma; cluster_PTD: sqrt(sum((w E)^2)) / sum(w abs(E)) over all
      cells
    * CENTER_MAG: abs(c), mm; CENTER_LAMBDA: depth of c along the shower axis behind the inner
      radius of EMB1, mm, negative in front of it
    * DELTA_ALPHA: angle between c and the principal axis, also where that is not taken; 0 where
      there is none
    * SECOND_R, SECOND_LAMBDA: <r^2>, <lambda^2>, mm2
    * LATERAL: out / (out + core), out = sum(w E r^2) without the two hottest cells, core = theirs
      with r at least 4 cm; LONGITUDINAL: likewise with lambda and 10 cm
    * FIRST_ENG_DENS, MAX_DENS: <E / V>, max(E / V), GeV / mm3
    * ENG_POS: sum(w E) over E > 0, GeV; ENG_FRAC_EM, _MAX, _CORE: its share in the EM layers,
      presampler included; in the hottest cell; in the hottest cell of each layer
    * ISOLATION: sum_s(E_s n_s(free) / n_s) / sum_s(E_s) over layers with E_s > 0 and n_s > 0: n_s
      cells of layer s touch the cluster in that layer, of which n_s(free) are in no cluster of the
      event
    * E_<layer>: sum(w E) of all cells of one layer, GeV; WIDTH_ETA_<layer>: sqrt(<eta^2> -
      <eta>^2) in it

    Moments of positive cells are 0 where a cluster has none, those of a layer where it has none
    there.

    Parameters
    ----------
    clusters : Clusters
        As `find_clusters` returns them: all clusters of an event together, else ISOLATION takes the
        missing ones for free cells.
    energy : array_like, shape (n_events, n_cells), GeV
    sigma : array_like, shape (n_cells,), GeV
    grid : Grid

    Returns
    -------
    dict of str to ndarray, shape (n_clusters,)
        float32; cluster_nCells int32.

    Raises
    ------
    ValueError
        If shapes, events or cells do not fit together, or a cluster is empty.
    """
    cells, noise = (np.ascontiguousarray(array, dtype=np.float64) for array in (energy, sigma))
    _require_clusters(clusters, cells, noise, grid)
    n_clusters = clusters.event.size
    single, layers = (
        np.zeros((n_clusters, len(_SINGLE))),
        np.zeros((n_clusters, 2, len(grid.layers))),
    )
    r_front = next(
        (layer.r_in for layer in grid.layers if layer.name == "EMB1"), grid.layers[0].r_in
    )
    _all_moments(clusters, cells, noise, cell_table(grid), r_front, single, layers)
    found = {name: single[:, column] for column, name in enumerate(_SINGLE)}
    found["cluster_sumCellE"] = found["clusterE"]
    for at, layer in enumerate(grid.layers):
        found[f"cluster_E_{layer.name}"], found[f"cluster_WIDTH_ETA_{layer.name}"] = (
            layers[:, 0, at],
            layers[:, 1, at],
        )
    names = (*_KINEMATICS[:4], "cluster_sumCellE", *MOMENTS)
    missing = np.zeros(n_clusters)  # a grid may lack layers
    result = {name: found.get(name, missing).astype(np.float32) for name in names}
    result["cluster_nCells"] = np.diff(clusters.offsets).astype(np.int32)
    return result
