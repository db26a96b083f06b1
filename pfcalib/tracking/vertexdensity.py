"""Density of tracks along a beam line, what a network is to make of it, and the peaks of both.

As of the PV-finder (arXiv:1906.08306, arXiv:2007.01023): at each of 4,000 bins in z the sum over
the tracks of exp(-chi2 / 2) at the place (x, y) where it is largest. The target has a Gaussian for
each collision, as wide as the resolution of LHCb for that many tracks (LHCb-PUB-2017-005).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import erf

from pfcalib.tracking.beamline import BeamEvents

F64 = NDArray[np.float64]
N_BINS, Z_MIN, BIN = 4000, -100.0, 0.1  # mm
Z_MAX = Z_MIN + N_BINS * BIN
CHANNELS = ("sum", "squares", "x", "y")  # of exp(-chi2 / 2), of its square; mm, where it is largest
REACH = 0.3  # mm from the beam, beyond which a track counts nowhere
MIN_TRACKS = 5  # of a collision that should be found
N_SPREAD = 10  # bins on either side that a collision fills in the target


def density(events: BeamEvents) -> NDArray[np.float16]:
    """Density of the tracks of each event, shape (n_events, N_BINS, 4) of CHANNELS.

    Half precision, as published, keeps it small.
    """
    out = np.zeros((len(events.n_tracks), N_BINS, len(CHANNELS)), np.float16)
    ends, tracks = events.ends, events.tracks.astype(np.float64)
    for i in range(len(out)):
        out[i] = track_density(tracks[ends[i] : ends[i + 1]])
    return out


@njit(cache=True)
def track_density(tracks: F64) -> F64:
    """Density of the tracks of one event, shape (N_BINS, 4) of CHANNELS.

    Parameters
    ----------
    tracks : ndarray, shape (n, 5)
        Of `beamline.COLUMNS`.
    """
    out = np.zeros((N_BINS, 4))
    n = len(tracks)
    cos, sin = np.cos(tracks[:, 1]), np.sin(tracks[:, 1])
    near, x, y, a = np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n)
    best_x, best_y = 0.0, 0.0
    for k in range(N_BINS):
        z, m = Z_MIN + (k + 0.5) * BIN, 0
        for i in range(n):
            u = tracks[i, 2] * (z - tracks[i, 3])
            limit = REACH + 3.0 * tracks[i, 4]
            if abs(u) < limit and abs(tracks[i, 0]) < limit:
                x[m] = u * cos[i] - tracks[i, 0] * sin[i]
                y[m] = u * sin[i] + tracks[i, 0] * cos[i]
                a[m] = -0.5 / tracks[i, 4] ** 2
                near[m] = i
                m += 1
        if m == 0:
            continue
        # from the best of a coarse grid and of the place one bin before, uphill
        best = -1.0
        last_x, last_y = best_x, best_y
        for g in range(10):
            at_x = 0.07 * (g % 3 - 1) if g < 9 else last_x
            at_y = 0.07 * (g // 3 - 1) if g < 9 else last_y
            total = 0.0
            for j in range(m):
                total += math.exp(a[j] * ((x[j] - at_x) ** 2 + (y[j] - at_y) ** 2))
            if total > best:
                best, best_x, best_y = total, at_x, at_y
        for _ in range(5):
            weights, sum_x, sum_y = 1e-12, 0.0, 0.0
            for j in range(m):
                p = -a[j] * math.exp(a[j] * ((x[j] - best_x) ** 2 + (y[j] - best_y) ** 2))
                weights += p
                sum_x += p * x[j]
                sum_y += p * y[j]
            best_x, best_y = sum_x / weights, sum_y / weights
        for j in range(m):
            p = math.exp(a[j] * ((x[j] - best_x) ** 2 + (y[j] - best_y) ** 2))
            out[k, 0] += p
            out[k, 1] += p * p
        out[k, 2], out[k, 3] = best_x, best_y
    return out


def z_resolution(n_tracks: NDArray[np.int32]) -> F64:
    """Published resolution in z of a collision with so many tracks, mm."""
    return 0.001 * (926.0 * np.maximum(n_tracks, 1.0) ** -0.84 + 10.7)


class Targets(NamedTuple):
    """What a network should give."""

    histogram: NDArray[np.float32]  # (n_events, N_BINS)
    counts: NDArray[np.bool_]  # (n_events, N_BINS) bins that are not of a collision of few tracks


def targets(events: BeamEvents) -> Targets:
    """Histogram of the collisions of MIN_TRACKS tracks, the narrower and larger the more tracks
    they have; bins where there are only smaller ones are left out, as published.
    """
    n = len(events.n_vertices)
    event = np.repeat(np.arange(n), events.n_vertices)
    filled = [np.zeros((n, N_BINS), np.float32) for _ in range(2)]
    for large, out in zip((True, False), filled, strict=True):
        chosen = ((events.n_prompt >= MIN_TRACKS) == large) & (events.n_prompt > 0)
        z, sigma = events.vertices[chosen, 2].astype(float), z_resolution(events.n_prompt[chosen])
        bins = np.floor((z - Z_MIN) / BIN).astype(int)[:, None] + np.arange(-N_SPREAD, N_SPREAD + 1)
        pull = (Z_MIN + BIN * bins - z[:, None]) / sigma[:, None]
        step = BIN / sigma[:, None]
        share = 0.5 * (erf((pull + step) / np.sqrt(2.0)) - erf(pull / np.sqrt(2.0)))
        share *= np.maximum(0.15 / sigma, 1.0)[:, None]
        inside = (bins >= 0) & (bins < N_BINS)
        rows = np.broadcast_to(event[chosen, None], bins.shape)
        np.add.at(out, (rows[inside], bins[inside]), share[inside].astype(np.float32))
    mine, other = filled
    return Targets(mine, ~((other > 0.01) & (mine < 0.01)))


class Found(NamedTuple):
    """Vertices that were found in events, one after the other."""

    event: NDArray[np.int64]  # (n,)
    z: F64  # (n,) mm
    score: F64  # (n,) the larger, the surer


def find_peaks(
    histograms: NDArray[np.floating], *, floor: float, valley: float = 0.5, height: bool = False
) -> Found:
    """Vertices at the peaks of histograms along the beam.

    Parameters
    ----------
    histograms : ndarray, shape (n_events, N_BINS)
    floor : float
        Bins below belong to no peak.
    valley : float
        Two peaks are two if the content between them falls below this part of the lower one.
    height : bool
        Score by the height of a peak, not by the sum of its bins.
    """
    found = [_peaks(np.asarray(row, dtype=np.float64), floor, valley, height) for row in histograms]
    event = np.repeat(np.arange(len(found)), [len(peaks) for peaks in found])
    z, score = np.concatenate([np.zeros((0, 2)), *found]).T
    return Found(event, z, score)


@njit(cache=True)
def _peaks(row: F64, floor: float, valley: float, height: bool) -> F64:
    """Place and score of the peaks of one histogram, shape (n, 2)."""
    out = np.empty((len(row), 2))
    n, k = 0, 0
    while k < len(row):
        if row[k] < floor:
            k += 1
            continue
        start, top, low = k, k, k  # of this peak, its highest bin, the lowest bin behind it
        while k < len(row) and row[k] >= floor:
            if row[k] < row[low]:
                low = k
            if row[low] < valley * min(row[top], row[k]):
                break  # another peak rises behind a valley
            if row[k] >= row[top]:
                top = low = k
            k += 1
        if k < len(row) and row[k] >= floor:
            k = low
        total, moment = 0.0, 0.0
        for j in range(start, k):
            total += row[j]
            moment += row[j] * (j + 0.5)
        if height:  # the mean about the highest bins
            total, moment = 0.0, 0.0
            for j in range(start, k):
                if row[j] > 0.9 * row[top]:
                    total += row[j]
                    moment += row[j] * (j + 0.5)
        out[n, 0] = Z_MIN + BIN * moment / total
        out[n, 1] = row[top] if height else total
        n += 1
        k = max(k, start + 1)
    return out[:n]


def kernel(densities: NDArray[np.floating]) -> F64:
    """Density less what one track alone would give, sum - squares / sum, (n_events, N_BINS)."""
    total, squares = (np.asarray(densities[..., i], np.float64) for i in range(2))
    return total - squares / np.maximum(total, 1e-9)
