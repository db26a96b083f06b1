"""The shower axis of a cluster and the moments measured from it (arXiv:1603.02934, section 4).

With c the centre of the positive cells, the shower axis is the eigenvector, nearest in direction to
c, of the matrix sum((w E)^2 (u - c_u)(v - c_v)) / sum((w E)^2). Where it is more than 20 degrees
away from c, or there are fewer than three cells, or no spread in some direction, the axis is the
direction of c itself, as seen from the origin. r and lambda of a cell are its distances from the
axis and, along the axis, from c.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.clustering.arrays import CellTable

MAX_AXIS_ANGLE = np.deg2rad(20.0)
MIN_SPREAD = 1e-6  # mm2, smallest eigenvalue of a matrix that has an axis
CORE_R = 40.0  # mm, least distance from the axis of the two hottest cells in the norm of LATERAL
CORE_LAMBDA = 100.0  # mm, likewise along the axis in the norm of LONGITUDINAL


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
def shape_moments(
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
