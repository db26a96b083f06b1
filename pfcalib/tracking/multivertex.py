"""Adaptive finder of several vertices: seeds at the densest place of the tracks that are left, fits
of all vertices at once with weights that an annealing sharpens.

After the adaptive multi-vertex fit of ATL-PHYS-PUB-2019-015: a track counts for a vertex by
exp(-chi2 / 2 T) over the same of all vertices and of a cut, with T falling to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tracking.beamline import BeamEvents
from pfcalib.tracking.vertexdensity import Found

F64 = NDArray[np.float64]
TEMPERATURES = np.array([64.0, 16.0, 4.0, 2.0, 1.5, 1.0])
MAX_VERTICES = 60


@dataclass(frozen=True, kw_only=True)
class MultiVertexConfig:
    """Choices of the finder."""

    cut: float = 9.0  # chi2 at which a track counts half for the only vertex near
    least: float = 4.0  # score of a vertex that is kept
    apart: float = 0.3  # mm, vertices nearer than this are one
    sigma_xy: float = 0.055  # mm, of the beam

    def __post_init__(self) -> None:
        if not min(self.cut, self.least, self.apart, self.sigma_xy) > 0.0:
            raise ConfigError(f"MultiVertexConfig: expected values above 0, not {self}")


def find_vertices(events: BeamEvents, config: MultiVertexConfig) -> Found:
    """Vertices of events; their score is how much less likely the tracks are without it, the
    logarithm: sum over the tracks of -ln(1 - weight).
    """
    ends, tracks = events.ends, events.tracks.astype(np.float64)
    found = [
        find_in_event(
            tracks[ends[i] : ends[i + 1]], config.cut, config.least, config.apart, config.sigma_xy
        )
        for i in range(len(events.n_tracks))
    ]
    event = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    rows = np.concatenate([np.zeros((0, 4)), *found])
    return Found(event, rows[:, 2], rows[:, 3])


@njit(cache=True)
def find_in_event(tracks: F64, cut: float, least: float, apart: float, sigma_xy: float) -> F64:
    """Vertices of the tracks of one event, shape (n, 4): x, y, z in mm, score.

    Parameters
    ----------
    tracks : ndarray, shape (n_tracks, 5)
        Of `beamline.COLUMNS`.
    cut, least, apart, sigma_xy : float
        See `MultiVertexConfig`.
    """
    n = len(tracks)
    free = np.abs(tracks[:, 0]) < 5.0 * np.sqrt(tracks[:, 4] ** 2 + sigma_xy**2)
    width = np.sqrt(tracks[:, 4] ** 2 + sigma_xy**2) / np.abs(tracks[:, 2])
    vertices = np.zeros((MAX_VERTICES + 1, 4))
    k = 0
    while k < MAX_VERTICES:
        # the densest place of the tracks that are left, at one of them
        best, seed = 0.0, -1
        for i in range(n):
            if free[i]:
                total = 0.0
                for j in range(n):
                    pull = (tracks[i, 3] - tracks[j, 3]) / width[j]
                    if free[j] and abs(pull) < 3.0:
                        total += math.exp(-0.5 * pull * pull) / width[j]
                if total > best:
                    best, seed = total, i
        if seed < 0:
            break
        vertices[k] = np.array([0.0, 0.0, tracks[seed, 3], 0.0])
        before = vertices[:k].copy()
        weights = _fit(tracks, vertices, k + 1, cut, sigma_xy)
        alone = True
        for other in range(k):
            alone &= abs(vertices[other, 2] - vertices[k, 2]) > apart
        taken = 0
        for i in range(n):
            if free[i] and weights[i, k] > 0.5:
                free[i] = False
                taken += 1
        free[seed] = False
        if alone and vertices[k, 3] > least and taken > 0:
            k += 1
        else:
            vertices[:k] = before
    _fit(tracks, vertices, k, cut, sigma_xy)
    return vertices[:k].copy()


@njit(cache=True)
def _fit(tracks: F64, vertices: F64, k: int, cut: float, sigma_xy: float) -> F64:
    """Move the first k vertices to where their tracks are; weights, shape (n_tracks, k)."""
    n = len(tracks)
    weights = np.zeros((n, k))
    cos, sin = np.cos(tracks[:, 1]), np.sin(tracks[:, 1])
    beam = 1.0 / sigma_xy**2
    for temperature in TEMPERATURES:
        floor = math.exp(-0.5 * cut / temperature)
        sums = np.zeros((k, 9))  # xx, xy, xz, yy, yz, zz, and the right side
        scores = np.zeros(k)
        for i in range(n):
            slope, sigma2 = tracks[i, 2], tracks[i, 4] ** 2
            total = floor
            for v in range(k):
                x, y = vertices[v, 0], vertices[v, 1]
                along = x * cos[i] + y * sin[i] - slope * (vertices[v, 2] - tracks[i, 3])
                across = y * cos[i] - x * sin[i] - tracks[i, 0]
                chi2 = (along**2 / (1.0 + slope**2) + across**2) / sigma2
                weights[i, v] = math.exp(-0.5 * min(chi2 / temperature, 200.0))
                total += weights[i, v]
            for v in range(k):
                weights[i, v] /= total
                w = weights[i, v] / sigma2
                if weights[i, v] < 1e-4:
                    continue
                scores[v] -= math.log(max(1.0 - weights[i, v], 1e-9))
                # rows of the two residuals in x, y, z
                c = 1.0 / math.sqrt(1.0 + slope**2)
                ax, ay, az, b = cos[i] * c, sin[i] * c, -slope * c, -slope * tracks[i, 3] * c
                sums[v, 0] += w * (ax * ax + sin[i] ** 2)
                sums[v, 1] += w * (ax * ay - sin[i] * cos[i])
                sums[v, 2] += w * ax * az
                sums[v, 3] += w * (ay * ay + cos[i] ** 2)
                sums[v, 4] += w * ay * az
                sums[v, 5] += w * az * az
                sums[v, 6] += w * (ax * b - sin[i] * tracks[i, 0])
                sums[v, 7] += w * (ay * b + cos[i] * tracks[i, 0])
                sums[v, 8] += w * az * b
        for v in range(k):
            vertices[v, 3] = scores[v]
            if sums[v, 5] <= 1e-9:
                continue
            a, s = np.empty((3, 3)), sums[v]
            a[0, 0], a[0, 1], a[0, 2] = s[0] + beam, s[1], s[2]
            a[1, 0], a[1, 1], a[1, 2] = s[1], s[3] + beam, s[4]
            a[2, 0], a[2, 1], a[2, 2] = s[2], s[4], s[5]
            vertices[v, :3] = np.linalg.solve(a, s[6:9])
    return weights
