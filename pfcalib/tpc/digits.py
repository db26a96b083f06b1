"""Charge on the pads of a time projection chamber: tracks and loopers, diffusion, amplification,
pads, electronics, noise and zero suppression; with the truth.

A piece of a sector is so many rows of pads by pads by time bins. Numbers are those of the outer
chambers of the TPC of ALICE with GEMs as published (arXiv:2012.09518): pads of 6 mm by 10 mm, bins
of 200 ns at 26 mm a microsecond, a shaper of fourth order that peaks after 160 ns, some 14 primary
ionisations a centimetre with clusters of electrons that fall as 1 / n^2, diffusion of 0.21 and
0.22 mm for the square root of a centimetre of drift, a gain that fluctuates as a Polya, noise of
one count. The magnetic field points along the drift: what is soft turns about it, in loops.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
PAD, ROW, BIN = 6.0, 10.0, 5.2  # mm, and mm of drift in a bin of time
DIFFUSION = 0.21, 0.22  # mm for the square root of a cm, across and along the drift
SPREAD = 2.0  # mm, of a charge over the pads
PEAKING = 0.8  # bins
DELAY = 1.25 * PEAKING  # bins, of the mean of the pulse after its start
PRIMARIES = 1.4  # ionisations a mm
MOST = 200  # electrons of an ionisation
POLYA = 1.4  # shape of the gain of an electron
GAIN = 1.0  # counts at the peak of an electron on one pad
NOISE, THRESHOLD, HIGHEST = 1.0, 3.0, 1023.0  # counts
TRACK, LOOPER = 0, 1  # kinds


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """Which pieces of a sector to make.

    Parameters
    ----------
    n_pieces : int
    n_rows, n_pads, n_times : int
        Of a piece.
    tracks : (float, float)
        Mean number of tracks of a piece, between which each draws its own.
    loopers : float
        Mean number for each track.
    seed : int
    chunk : int
        Pieces that are made together; the sample depends on it.
    """

    n_pieces: int = 100
    n_rows: int = 24
    n_pads: int = 80
    n_times: int = 160
    tracks: tuple[float, float] = (10.0, 300.0)
    loopers: float = 0.15
    seed: int = 1
    chunk: int = 10

    def __post_init__(self) -> None:
        sizes = (self.n_pieces, self.n_rows, self.n_pads, self.n_times, self.chunk)
        if min(sizes) < 1 or not 0.0 <= self.tracks[0] <= self.tracks[1] or self.loopers < 0.0:
            raise ConfigError(
                f"DigitsConfig: expected sizes above 0 and numbers not below 0, not {self}"
            )


class Pieces(NamedTuple):
    """Charge of pieces of a sector, and what tracks and loopers left on each row."""

    digits: NDArray[np.int16]  # (n_pieces, n_rows, n_pads, n_times) counts, 0 where suppressed
    share: NDArray[np.uint8]  # same: percentage of the charge that is of loopers, before noise
    occupancy: F32  # (n_pieces,) share of the digits that are not suppressed
    piece: NDArray[np.int32]  # (n,) of a crossing of a row
    row: NDArray[np.int16]  # (n,)
    track: NDArray[np.int32]  # (n,) number in the piece
    kind: NDArray[np.int8]  # (n,) TRACK or LOOPER
    pad: F32  # (n,) where the track crosses the middle of the row
    time: F32  # (n,) bins, with the DELAY
    width_pad: F32  # (n,) of its charge there
    width_time: F32  # (n,)
    charge: F32  # (n,) counts


def cached_pieces(config: DigitsConfig, *, n_processes: int = 1) -> Path:
    """File of the pieces (.npz, see `read_pieces`), made where it is not there."""
    key = cache_key("digits", config=config)
    return keep_chunks(
        cache_folder() / "tpc" / f"digits-{key}.npz", functools.partial(simulate_pieces, config),
        -(-config.n_pieces // config.chunk), join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def read_pieces(path: Path) -> Pieces:
    """Pieces of a file of `cached_pieces`."""
    return Pieces(**read_columns(path))


def simulate_pieces(config: DigitsConfig, number: int) -> Pieces:
    """Pieces of one chunk.

    Parameters
    ----------
    config : DigitsConfig
    number : int
        Of the chunk, from 0.
    """
    rng = np.random.default_rng((config.seed, number))
    n = min(config.chunk, config.n_pieces - number * config.chunk)
    shape = (config.n_rows, config.n_pads, config.n_times)
    digits, share = np.zeros((n, *shape), np.int16), np.zeros((n, *shape), np.uint8)
    parts = []
    for i in range(n):
        n_tracks = rng.poisson(rng.uniform(*config.tracks))
        n_loopers = rng.poisson(config.loopers * n_tracks)
        charge, found = drift(*_paths(n_tracks, n_loopers, shape, rng), shape, rng)
        total = charge.sum(axis=0)
        noisy = total + rng.normal(0.0, NOISE, shape)
        digits[i] = np.where(noisy >= THRESHOLD, np.minimum(np.round(noisy), HIGHEST), 0.0)
        share[i] = np.round(100.0 * charge[LOOPER] / np.maximum(total, 1e-9))
        piece = np.full(len(found), number * config.chunk + i)
        parts.append(np.column_stack([piece, found]))
    columns = np.concatenate(parts).T
    return Pieces(
        digits, share, (digits > 0).mean(axis=(1, 2, 3)).astype(np.float32),
        columns[0].astype(np.int32), columns[1].astype(np.int16), columns[2].astype(np.int32),
        columns[3].astype(np.int8), *columns[4:].astype(np.float32),
    )  # fmt: skip


def _paths(
    n_tracks: int, n_loopers: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[F64, F64]:
    """Parameters of tracks (n_tracks, 6), where they cross the first row and how they go on, and
    of loopers (n_loopers, 8).
    """
    depth, width, length = shape[0] * ROW, shape[1] * PAD, shape[2] * BIN
    drift_length = rng.uniform(0.0, 2500.0 - length)  # mm, from the pads to the first bin
    tracks = np.column_stack(
        [
            rng.uniform(-0.3 * width, 1.3 * width, n_tracks),
            rng.normal(0.0, 0.35, n_tracks),
            rng.normal(0.0, 3e-4, n_tracks),  # 1/mm
            rng.uniform(-0.3 * length, 1.3 * length, n_tracks),
            rng.normal(0.0, 0.6, n_tracks),
            rng.exponential(0.35, n_tracks) + 1.0,  # ionisation over the least
        ]
    )
    turn, size = rng.choice([-1.0, 1.0], n_loopers), rng.uniform(5.0, 50.0, n_loopers)
    loopers = np.column_stack(
        [
            rng.uniform(0.0, width, n_loopers),
            rng.uniform(0.0, depth, n_loopers),
            size,
            rng.uniform(0.0, 2.0 * math.pi, n_loopers),
            turn,
            rng.uniform(0.0, length, n_loopers),
            turn * rng.normal(0.0, 0.6, n_loopers),
            rng.exponential(1.0, n_loopers) + 1.0,
        ]
    )
    return np.column_stack([tracks, np.full(n_tracks, drift_length)]), np.column_stack(
        [loopers, np.full(n_loopers, drift_length)]
    )


@njit(cache=True)
def drift(
    tracks: F64, loopers: F64, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[F64, F64]:
    """Charge on the pads, and what each path left in each row that it crosses.

    Parameters
    ----------
    tracks : ndarray, shape (n_tracks, 7)
        Place (mm) and slope across, curvature (1/mm), place (mm) and slope along the drift,
        ionisation, and length of drift (mm) of the first bin.
    loopers : ndarray, shape (n_loopers, 9)
        Centre across and in the rows, radius, first angle, sense, place along the drift, its slope
        with the way, ionisation, length of drift.
    shape : (int, int, int)
        Rows, pads, times.
    rng : numpy.random.Generator

    Returns
    -------
    charge : ndarray, shape (2, n_rows, n_pads, n_times)
        Of tracks and of loopers, counts.
    crossings : ndarray, shape (n, 8)
        Row, number of the path, kind, pad, time, widths in pad and time, charge. A looper has one
        in each row for each half turn, at the mean of its charge.
    """
    n_rows, n_pads, n_times = shape
    charge = np.zeros((2, n_rows, n_pads, n_times))
    out = np.empty((len(tracks) * n_rows + len(loopers) * n_rows * 30, 8))
    n, moments = 0, np.zeros(6)
    for i in range(len(tracks)):
        x, slope, bend, z, dip, ionisation, far = tracks[i]
        for row in range(n_rows):
            moments[:] = 0.0
            middle = (row + 0.5) * ROW
            steep = slope + 2.0 * bend * middle
            way = ROW * math.sqrt(1.0 + steep * steep + dip * dip)
            place = rng.exponential(1.0 / (PRIMARIES * ionisation))
            while place < way:
                y = row * ROW + place / way * ROW
                _ionise(
                    charge[0], moments, row, x + slope * y + bend * y * y, z + dip * y, far, rng
                )
                place += rng.exponential(1.0 / (PRIMARIES * ionisation))
            pad = (x + slope * middle + bend * middle * middle) / PAD - 0.5
            time = (z + dip * middle) / BIN + DELAY
            n = _note(out, n, moments, row, i, 0, pad, time)
    for i in range(len(loopers)):
        x, y, size, angle, sense, z, dip, ionisation, far = loopers[i]
        row, half, turned = -1, 0, 0.0
        moments[:] = 0.0
        while turned < 15.0 * math.pi and 0.0 < z + dip * turned * size < n_times * BIN:
            turned += rng.exponential(1.0 / (PRIMARIES * ionisation)) / (
                size * math.sqrt(1.0 + dip * dip)
            )
            now = angle + sense * turned
            here = math.floor((y + size * math.sin(now)) / ROW)
            rises = 1 if math.cos(now) * sense > 0.0 else 0
            if here != row or rises != half:
                if row >= 0:
                    n = _note(out, n, moments, row, len(tracks) + i, 1, np.nan, np.nan)
                row, half = here, rises
                moments[:] = 0.0
            if 0 <= here < n_rows:
                _ionise(
                    charge[1], moments, here, x + size * math.cos(now), z + dip * turned * size,
                    far, rng,
                )  # fmt: skip
            else:
                row = -1
            if n >= len(out) - 1:
                break
        if row >= 0:
            n = _note(out, n, moments, row, len(tracks) + i, 1, np.nan, np.nan)
    return charge, out[:n]


@njit(cache=True)
def _ionise(
    charge: F64, moments: F64, row: int, x: float, z: float, far: float, rng: np.random.Generator
) -> None:
    """Electrons of one ionisation on the pads of a row; moments of their charge are added."""
    n_pads, n_times = charge.shape[1:]
    # 1 / n^2 up to MOST
    electrons = min(int(1.0 / max(rng.random(), 1.0 / MOST)), MOST)
    root = math.sqrt(max(far + z, 0.0) / 10.0)
    for _ in range(electrons):
        pad = (x + DIFFUSION[0] * root * rng.normal()) / PAD
        time = (z + DIFFUSION[1] * root * rng.normal()) / BIN
        size = GAIN * rng.gamma(POLYA, 1.0 / POLYA)
        first = math.floor(pad)
        start = math.ceil(time)
        for p in range(max(first - 1, 0), min(first + 2, n_pads)):
            low, high = (p - pad) * PAD / SPREAD, (p + 1 - pad) * PAD / SPREAD
            part = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0)))
            for t in range(max(start, 0), min(start + 4, n_times)):
                late = (t - time) / PEAKING
                q = size * part * late**4 * math.exp(4.0 - 4.0 * late)
                charge[row, p, t] += q
                moments[0] += q
                moments[1] += q * p
                moments[2] += q * t
                moments[3] += q * p * p
                moments[4] += q * t * t


@njit(cache=True)
def _note(
    out: F64, n: int, moments: F64, row: int, number: int, kind: int, pad: float, time: float
) -> int:
    """Write a crossing, if it left anything."""
    q = moments[0]
    if q <= 0.0:
        return n
    mean_pad, mean_time = moments[1] / q, moments[2] / q
    out[n, 0], out[n, 1], out[n, 2], out[n, 7] = row, number, kind, q
    out[n, 3] = mean_pad if math.isnan(pad) else pad
    out[n, 4] = mean_time if math.isnan(time) else time
    out[n, 5] = math.sqrt(max(moments[3] / q - mean_pad**2, 0.0))
    out[n, 6] = math.sqrt(max(moments[4] / q - mean_time**2, 0.0))
    return n + 1
