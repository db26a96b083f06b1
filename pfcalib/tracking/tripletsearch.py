"""Search by triplet: straight tracks in planes across the beam, by seeds of three hits that are
followed from plane to plane (arXiv:2207.03936).

The planes are gone through against the beam. At each one tracks are carried on by their last two
hits to the nearest hit within a window, then three hits of neighbouring planes that are on no track
make new seeds. A seed that finds no fourth hit is a track if its line fits well and its hits are
free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tracking.forwardhits import ForwardHits

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Choices of the search; the defaults of the first four are those of the public code of Allen.

    Parameters
    ----------
    phi : float, rad
        Half of the window in azimuth.
    candidates : int
        Hits nearest in azimuth, on the plane before, with which a seed is tried.
    scatter : float, mm
        Largest distance of a hit from where the last two point to.
    skip : int
        Planes without a hit in a row.
    angle : float, rad
        The distance may be larger by this times the way from the last hit, in quadrature.
    chi2 : float
        Of the line of a track of three hits, for two degrees of freedom.
    error : float, mm
        Of a hit, in chi2.
    """

    phi: float = 0.052
    candidates: int = 4
    scatter: float = 0.28
    skip: int = 1
    angle: float = 0.0
    chi2: float = 20.0
    error: float = 0.0159

    def __post_init__(self) -> None:
        sizes = (self.phi, self.candidates, self.scatter, self.chi2, self.error)
        if not min(sizes) > 0.0 or min(self.skip, self.angle) < 0:
            raise ConfigError(f"SearchConfig: expected sizes above 0, not {self}")


def search_tracks(hits: ForwardHits, n_planes: int, config: SearchConfig) -> I64:
    """Tracks of an event, shape (n_tracks, n_planes): the hit on each plane, -1 where none is."""
    position = hits.position.astype(np.float64)
    phi = np.arctan2(position[:, 1], position[:, 0])
    order = np.lexsort((phi, hits.layer))
    found = _search(
        position[order], phi[order], np.searchsorted(hits.layer[order], np.arange(n_planes + 1)),
        config.phi, config.candidates, config.scatter**2, config.skip, config.angle**2,
        config.chi2 * config.error**2,
    )  # fmt: skip
    return np.where(found >= 0, order[found], -1)


@njit(cache=True)
def _turn(angle: float) -> float:
    return abs((angle + math.pi) % (2.0 * math.pi) - math.pi)


@njit(cache=True)
def _nearest(
    position: F64, phi: F64, begin: int, end: int, a: int, b: int, used: NDArray[np.bool_],
    free: bool, window: float, scatter2: float, angle2: float,
) -> tuple[int, float]:  # fmt: skip
    """The hit of a plane nearest to where a and b point to, and its squared distance over the
    allowed one; -1 if none is within.
    """
    best, least = -1, 1.0
    if begin == end:
        return best, least
    dz = position[begin, 2] - position[b, 2]
    reach = dz / (position[b, 2] - position[a, 2])
    x = position[b, 0] + reach * (position[b, 0] - position[a, 0])
    y = position[b, 1] + reach * (position[b, 1] - position[a, 1])
    towards = math.atan2(y, x)
    allowed = scatter2 + angle2 * dz * dz
    n = end - begin
    start = int(np.searchsorted(phi[begin:end], towards - window))
    if towards - window < -math.pi:
        start = int(np.searchsorted(phi[begin:end], towards - window + 2.0 * math.pi))
    for i in range(n):
        hit = begin + (start + i) % n
        if _turn(phi[hit] - towards) > window:
            break
        if free and used[hit]:
            continue
        away = ((position[hit, 0] - x) ** 2 + (position[hit, 1] - y) ** 2) / allowed
        if away < least:
            best, least = hit, away
    return best, least


@njit(cache=True)
def _search(
    position: F64, phi: F64, first: I64, window: float, candidates: int, scatter2: float, skip: int,
    angle2: float, chi2: float,
) -> I64:  # fmt: skip
    n_planes = len(first) - 1
    used = np.zeros(len(phi), np.bool_)
    out = np.full((len(phi), n_planes), -1)
    last = np.full((len(phi), 2), -1)  # hits of a track, the later one first
    size, missed = np.zeros(len(phi), np.int64), np.zeros(len(phi), np.int64)
    alive = np.zeros(len(phi), np.bool_)
    n = 0
    for plane in range(n_planes - 3, -2, -1):
        begin, end = (first[plane], first[plane + 1]) if plane >= 0 else (0, 0)
        # the hits of the last plane of seeds, plane + 1, have been tried with plane + 2, plane + 3
        for track in range(n):
            if not alive[track]:
                continue
            hit, _ = _nearest(
                position, phi, begin, end, last[track, 1], last[track, 0], used, False, window,
                scatter2, angle2,
            )  # fmt: skip
            if hit < 0:
                missed[track] += 1
                alive[track] = missed[track] <= skip
                continue
            missed[track] = 0
            size[track] += 1
            out[track, plane] = hit
            last[track, 1], last[track, 0] = last[track, 0], hit
            used[hit] = True
            if size[track] == 4:
                for other in out[track]:
                    if other >= 0:
                        used[other] = True
        if plane < 0:
            break
        far, n_far = first[plane + 2], first[plane + 3] - first[plane + 2]
        for b in range(first[plane + 1], first[plane + 2]):
            if used[b] or n_far == 0 or n == len(out):
                continue
            middle = np.searchsorted(phi[far : far + n_far], phi[b])
            best_a, best_c, least, tried = -1, -1, 1.0, 0
            for i in range(n_far):  # on either side in turn
                step = (i + 1) // 2 if i % 2 else -(i // 2)
                a = far + (middle + step) % n_far
                if used[a]:
                    continue
                tried += 1
                if tried > candidates:
                    break
                c, away = _nearest(
                    position, phi, begin, end, a, b, used, True, window, scatter2, angle2
                )
                if c >= 0 and away < least:
                    best_a, best_c, least = a, c, away
            if best_a >= 0:
                out[n, plane + 2], out[n, plane + 1], out[n, plane] = best_a, b, best_c
                last[n, 1], last[n, 0], size[n], alive[n] = b, best_c, 3, True
                n += 1
    kept = np.zeros(n, np.bool_)
    for track in range(n):
        kept[track] = size[track] > 3
        if size[track] == 3:
            free, rows = True, np.empty((3, 3))
            place = 0
            for hit in out[track]:
                if hit >= 0:
                    free = free and not used[hit]
                    rows[place] = position[hit]
                    place += 1
            kept[track] = free and line_residual(rows) < 2.0 * chi2
    return out[:n][kept]


@njit(cache=True)
def line_residual(places: F64) -> float:
    """Sum of the squared distances across the beam of places (n, 3) from their line, mm^2."""
    z = places[:, 2] - places[:, 2].mean()
    total = 0.0
    for axis in range(2):
        x = places[:, axis] - places[:, axis].mean()
        slope = (x * z).sum() / (z * z).sum()
        total += ((x - slope * z) ** 2).sum()
    return total
