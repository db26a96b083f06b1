"""Tracks among hits, in buckets or in a whole event: seeds of three hits, hits that lie on their
helix, a fit of it; and how many of the particles are found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import CURVATURE, NOISE, Hits

F64 = NDArray[np.float64]
MATCH = 0.7  # share of the hits of a track that a particle must have made
LEAST_HITS = 4  # of a particle that should be found


@dataclass(frozen=True, kw_only=True)
class FinderConfig:
    """Choices of the finder; lengths in mm.

    Parameters
    ----------
    passes : tuple of int
        Hits that a track needs, pass by pass; what one pass finds the next one has not.
    width : float
        Distance from the helix at which a hit still is on it, in errors.
    d_max, z_max : float
        Of the helix at its closest to the beam.
    pt_min : float, GeV
    skip : int
        Layers without a hit that a seed may have between its hits.
    resolution : (float, float)
        Of a hit, across and along.
    scattering : float
        Angle of multiple scattering in one layer times momentum, GeV.
    field : float, T
    """

    passes: tuple[int, ...] = (8, 6, 4)
    width: float = 3.0
    d_max: float = 1.0
    z_max: float = 200.0
    pt_min: float = 0.4
    skip: int = 1
    resolution: tuple[float, float] = (0.02, 0.1)
    scattering: float = 0.0018
    field: float = 2.0

    def __post_init__(self) -> None:
        sizes = (self.width, self.d_max, self.z_max, self.pt_min, *self.resolution, self.field)
        if not min(sizes) > 0.0 or not self.passes or min(self.passes) < 3 or self.skip < 0:
            raise ConfigError(f"FinderConfig: expected sizes above 0, 3 hits at least, not {self}")


def find_tracks(
    hits: Hits, buckets: NDArray[np.int64], queries: NDArray[np.integer], config: FinderConfig
) -> NDArray[np.int64]:
    """Tracks of an event, shape (n_tracks, n_layers): the hit on each layer, -1 where none is.

    Parameters
    ----------
    hits : Hits
    buckets : ndarray, shape (n_buckets, size)
        Hits to look among, -1 where there are no more; see `whole_event`.
    queries : ndarray, shape (n_buckets,)
        The hit about which a bucket is; one whose hit is on a track already is left out. -1 for
        none.
    config : FinderConfig
    """
    order = np.array(sorted(config.passes, reverse=True), np.int64)
    return _find(
        hits.position.astype(np.float64), hits.layer.astype(np.int64), buckets,
        np.asarray(queries, np.int64), order, config.width, config.d_max, config.z_max,
        CURVATURE * config.field / config.pt_min, config.skip, config.resolution[0],
        config.resolution[1], config.scattering / (CURVATURE * config.field),
    )  # fmt: skip


def whole_event(hits: Hits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All hits as one bucket, and its query: what a finder without buckets looks at."""
    return np.arange(len(hits.layer))[None], np.array([-1])


@njit(cache=True)
def _find(
    position: F64, layer: NDArray[np.int64], buckets: NDArray[np.int64], queries: NDArray[np.int64],
    passes: NDArray[np.int64], width: float, d_max: float, z_max: float, steepest: float, skip: int,
    sigma: float, sigma_z: float, scattering: float,
) -> NDArray[np.int64]:  # fmt: skip
    n_layers = int(layer.max()) + 1 if len(layer) else 1
    used = np.zeros(len(layer), np.bool_)
    radius = np.hypot(position[:, 0], position[:, 1])
    phi = np.arctan2(position[:, 1], position[:, 0])
    out = np.full((len(layer) // 3 + 1, n_layers), -1)
    n = 0
    track, best = np.empty(n_layers, np.int64), np.empty(n_layers, np.int64)
    for least in passes:
        for number in range(len(buckets)):
            if queries[number] >= 0 and used[queries[number]]:
                continue
            free = 0
            for hit in buckets[number]:
                free += hit >= 0 and not used[hit]
            if free < least:
                continue
            mine = np.empty(free, np.int64)
            free = 0
            for hit in buckets[number]:
                if hit >= 0 and not used[hit]:
                    mine[free] = hit
                    free += 1
            mine = mine[np.argsort(layer[mine])]
            first = np.searchsorted(layer[mine], np.arange(n_layers + 1))
            for ia in range(free):
                a = mine[ia]
                if used[a] or n_layers - layer[a] < least:
                    continue
                most, lowest = 0, 1e30
                far = min(layer[a] + 2 + skip, n_layers)
                for ib in range(first[layer[a] + 1], first[far]):
                    b = mine[ib]
                    if used[b] or most == n_layers:
                        continue
                    step = radius[b] - radius[a]
                    turn = abs((phi[b] - phi[a] + math.pi) % (2.0 * math.pi) - math.pi)
                    # half of the curvature times the step, and what misses the beam
                    if turn > 0.6 * steepest * step + d_max * step / (radius[a] * radius[b]):
                        continue
                    slope = (position[b, 2] - position[a, 2]) / step
                    if abs(position[a, 2] - slope * radius[a]) > z_max:
                        continue
                    far_c = min(layer[b] + 2 + skip, n_layers)
                    for ic in range(first[layer[b] + 1], first[far_c]):
                        c = mine[ic]
                        if used[c]:
                            continue
                        count, chi2 = _candidate(
                            position, layer, mine, used, a, b, c, track, width, d_max, steepest,
                            sigma, sigma_z, scattering,
                        )  # fmt: skip
                        if count > most or (count == most and chi2 < lowest):
                            most, lowest = count, chi2
                            best[:] = track
                if most >= least:
                    for hit in best:
                        if hit >= 0:
                            used[hit] = True
                    out[n] = best
                    n += 1
    return out[:n]


@njit(cache=True)
def circle(a: F64, b: F64, c: F64) -> tuple[float, float, float]:
    """Curvature with its sign, 1 / mm, and centre of the circle through three points; a straight
    line has a large, finite radius.
    """
    ux, uy, vx, vy = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
    cross = ux * vy - uy * vx
    if abs(cross) < 1e-6:
        cross = math.copysign(1e-6, cross)
    u2, v2 = ux * ux + uy * uy, vx * vx + vy * vy
    x, y = (vy * u2 - uy * v2) / (2.0 * cross), (ux * v2 - vx * u2) / (2.0 * cross)
    return math.copysign(1.0 / math.hypot(x, y), cross), a[0] + x, a[1] + y


@njit(cache=True)
def _candidate(
    position: F64, layer: NDArray[np.int64], mine: NDArray[np.int64], used: NDArray[np.bool_],
    a: int, b: int, c: int, track: NDArray[np.int64], width: float, d_max: float, steepest: float,
    sigma: float, sigma_z: float, scattering: float,
) -> tuple[int, float]:  # fmt: skip
    """Hits on the helix of three; how many there are, and the chi2 of those that were added."""
    curve, x0, y0 = circle(position[a], position[b], position[c])
    size = abs(curve)
    if size > steepest:
        return 0, 0.0
    away = abs(math.hypot(x0, y0) - 1.0 / size)
    angle = scattering * size  # of multiple scattering in one layer
    near = math.hypot(position[a, 0], position[a, 1])
    if away > d_max + 3.0 * angle * near:
        return 0, 0.0
    # way along the circle from the first hit
    s_b, s_c = _way(position[a], position[b], size), _way(position[a], position[c], size)
    slope = (position[c, 2] - position[a, 2]) / s_c
    stretch = 1.0 + slope * slope
    off = position[a, 2] + slope * s_b - position[b, 2]
    error2 = 1.5 * sigma_z**2 + stretch * (angle * (s_c - s_b)) ** 2
    if off * off > width * width * error2:
        return 0, 0.0
    track[:] = -1
    nearest = np.full(len(track), 1e30)
    chi2, count = off * off / error2, 3
    last = math.hypot(position[c, 0], position[c, 1])
    for hit in mine:
        if used[hit] or layer[hit] == layer[a] or layer[hit] == layer[b] or layer[hit] == layer[c]:
            continue
        dx, dy = position[hit, 0] - x0, position[hit, 1] - y0
        across = math.hypot(dx, dy) - 1.0 / size
        if abs(across) > 20.0:
            continue
        way = _way(position[a], position[hit], size)
        r = math.hypot(position[hit, 0], position[hit, 1])
        if r < near:
            way, lever = -way, near - r
        else:
            lever = max(r - last, 0.0)
        # the helix of three points itself is the less sure the farther it is carried on
        span = lever / max(last - near, 1.0)
        error2 = (sigma * (1.5 + 4.0 * span * (1.0 + span))) ** 2 + (
            angle * (30.0 + 1.5 * lever * (1.0 + span))
        ) ** 2
        along = position[hit, 2] - position[a, 2] - slope * way
        along2 = (sigma_z * (1.2 + 2.0 * span)) ** 2 + stretch * (
            angle * (30.0 + 1.5 * lever)
        ) ** 2 * stretch
        pull = across * across / error2 + along * along / along2
        if pull < width * width and pull < nearest[layer[hit]]:
            if track[layer[hit]] < 0:
                count += 1
            nearest[layer[hit]], track[layer[hit]] = pull, hit
    for pull in nearest:
        if pull < 1e30:
            chi2 += pull
    track[layer[a]], track[layer[b]], track[layer[c]] = a, b, c
    return count, chi2


@njit(cache=True)
def _way(a: F64, b: F64, size: float) -> float:
    half = 0.5 * math.hypot(b[0] - a[0], b[1] - a[1]) * size
    return 2.0 * math.asin(min(half, 1.0)) / size


class Outcome(NamedTuple):
    """What became of the particles and the tracks of an event."""

    found: NDArray[np.bool_]  # (n_particles,) has a track of its own
    wanted: NDArray[np.bool_]  # (n_particles,) has LEAST_HITS hits
    n_fakes: int  # tracks that are of no particle
    n_clones: int  # further tracks of a particle
    n_tracks: int


def judge_tracks(tracks: NDArray[np.int64], hits: Hits, n_particles: int) -> Outcome:
    """Which particles have a track: one of whose hits a share of MATCH are theirs."""
    particle = np.where(tracks >= 0, hits.particle[tracks], -2)
    found = np.zeros(n_particles, np.bool_)
    n_fakes = n_clones = 0
    for row in particle:
        names, counts = np.unique(row[row != -2], return_counts=True)
        most = int(np.argmax(counts))
        if names[most] == NOISE or counts[most] < MATCH * counts.sum():
            n_fakes += 1
        elif found[names[most]]:
            n_clones += 1
        else:
            found[names[most]] = True
    mine = hits.particle[hits.particle != NOISE]
    wanted = np.bincount(mine, minlength=n_particles) >= LEAST_HITS
    return Outcome(found, wanted, n_fakes, n_clones, len(tracks))
