"""Clusters of charge on pads: peaks of three by three digits with their centre of gravity, and
what of the truth they belong to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.tpc.digits import TRACK, Pieces

F64 = NDArray[np.float64]
REACH = 1.5, 2.0  # pads and bins between a peak and the crossing that it is of
WINDOW = 3, 9, 9  # rows, pads and bins that a network sees about a peak
OUTSIDE = -1.0  # of a window, where there are no pads
# what a peak is
ATTACHED, SECOND, LOOPING, NOISY = range(4)
NAMES = ("of a track", "second of a track", "of a looper", "of noise")


class Peaks(NamedTuple):
    """Peaks of all pieces, one row each."""

    piece: NDArray[np.int32]  # (n,)
    row: NDArray[np.int32]  # (n,)
    pad: NDArray[np.int32]  # (n,) of the highest digit
    time: NDArray[np.int32]  # (n,)
    highest: F64  # (n,) counts
    gravity: F64  # (n, 4) centre of gravity from the highest digit and widths, in pads and bins
    kind: NDArray[np.int8]  # (n,) ATTACHED, SECOND, LOOPING or NOISY
    crossing: NDArray[np.int64]  # (n,) of the Pieces that it is attached to, or -1


def find_peaks(pieces: Pieces, *, least: float = 4.0) -> Peaks:
    """Digits that are not below any of their eight neighbours in a row, with the centre of gravity
    and the widths of the nine.

    A track's crossing of a row takes the nearest peak within REACH, the nearest pair first, each
    peak once. Of the others more than half of the charge of the highest digit is of loopers, or
    another crossing of a track is within REACH, or neither.

    Parameters
    ----------
    pieces : Pieces
    least : float
        Counts of the highest digit.
    """
    parts = []
    for number in range(len(pieces.digits)):
        found = _peaks(pieces.digits[number], least)
        parts.append(np.column_stack([np.full(len(found), number), found]))
    table = np.concatenate(parts)
    piece, row, pad, time = table[:, :4].astype(np.int32).T
    gravity, n_rows = table[:, 5:9], pieces.digits.shape[1]
    first = int(pieces.piece.min()) if len(pieces.piece) else 0
    plane = (pieces.piece - first) * n_rows + pieces.row
    tracks = np.flatnonzero(pieces.kind == TRACK)
    tracks = tracks[np.argsort(plane[tracks], kind="stable")]
    offsets = np.searchsorted(plane[tracks], np.arange(len(pieces.digits) * n_rows + 1))
    crossing, near = _attach(
        piece.astype(np.int64) * n_rows + row, pad + gravity[:, 0], time + gravity[:, 1], offsets,
        pieces.pad[tracks].astype(np.float64), pieces.time[tracks].astype(np.float64), *REACH,
    )  # fmt: skip
    looping = pieces.share[piece, row, pad, time] > 50
    kind = np.select([crossing >= 0, looping, near], [ATTACHED, LOOPING, SECOND], NOISY)
    of = np.where(crossing >= 0, tracks[np.maximum(crossing, 0)] if len(tracks) else -1, -1)
    return Peaks(piece, row, pad, time, table[:, 4], gravity, kind.astype(np.int8), of)


@njit(cache=True)
def _peaks(digits: NDArray[np.int16], least: float) -> F64:
    n_rows, n_pads, n_times = digits.shape
    out, n = np.empty((digits.size // 4 + 1, 8)), 0
    for row in range(n_rows):
        for p in range(n_pads):
            for t in range(n_times):
                q = digits[row, p, t]
                if q < least:
                    continue
                total, sums, higher = 0.0, np.zeros(4), False
                for dp in range(-1, 2):
                    for dt in range(-1, 2):
                        if not (0 <= p + dp < n_pads and 0 <= t + dt < n_times):
                            continue
                        other = digits[row, p + dp, t + dt]
                        # of equal ones the first counts
                        before = dp < 0 or (dp == 0 and dt < 0)
                        if other > q or (other == q and before):
                            higher = True
                        total += other
                        sums += other * np.array([dp, dt, dp * dp, dt * dt])
                if higher:
                    continue
                mean = sums / total
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = row, p, t, q
                out[n, 4:6] = mean[:2]
                out[n, 6] = np.sqrt(max(mean[2] - mean[0] ** 2, 0.0))
                out[n, 7] = np.sqrt(max(mean[3] - mean[1] ** 2, 0.0))
                n += 1
    return out[:n]


@njit(cache=True)
def _attach(
    plane: NDArray[np.int64], pad: F64, time: F64, offsets: NDArray[np.int64], true_pad: F64,
    true_time: F64, reach_pad: float, reach_time: float,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:  # fmt: skip
    """Crossing of each peak, or -1, and whether any crossing is near."""
    crossing, near = np.full(len(plane), -1), np.zeros(len(plane), np.bool_)
    start = 0
    while start < len(plane):
        stop = start
        while stop < len(plane) and plane[stop] == plane[start]:
            stop += 1
        low, high = offsets[plane[start]], offsets[plane[start] + 1]
        pairs, n = np.empty(((stop - start) * (high - low), 3)), 0
        for i in range(start, stop):
            for j in range(low, high):
                dp = abs(pad[i] - true_pad[j]) / reach_pad
                dt = abs(time[i] - true_time[j]) / reach_time
                if dp < 1.0 and dt < 1.0:
                    near[i] = True
                    pairs[n, 0], pairs[n, 1], pairs[n, 2] = dp * dp + dt * dt, i, j
                    n += 1
        taken = np.zeros(high - low, np.bool_)
        for k in np.argsort(pairs[:n, 0]):
            i, j = int(pairs[k, 1]), int(pairs[k, 2])
            if crossing[i] < 0 and not taken[j - low]:
                crossing[i], taken[j - low] = j, True
        start = stop
    return crossing, near


def windows(pieces: Pieces, peaks: Peaks, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
    """Digits about some peaks over the highest one, (n, 3 * 9 * 9), with OUTSIDE beyond the pads,
    and behind them the logarithm of the highest in units of 20 counts: (n, 244).
    """
    half = [size // 2 for size in WINDOW]
    padded = np.pad(
        pieces.digits.astype(np.float32), [(0, 0), *((h, h) for h in half)],
        constant_values=OUTSIDE,
    )  # fmt: skip
    place = np.stack([peaks.row, peaks.pad, peaks.time])[:, rows]
    steps = np.meshgrid(*(np.arange(size) for size in WINDOW), indexing="ij")
    index = [p[:, None] + s.ravel() for p, s in zip(place, steps, strict=True)]
    found = padded[peaks.piece[rows][:, None], *index]
    highest = peaks.highest[rows].astype(np.float32)[:, None]
    found = np.where(found >= 0.0, found / highest, OUTSIDE)
    return np.concatenate([found, np.log(highest / 20.0)], axis=1)
