"""Moments of single showers, and showers bent to have other moments: kernels on jagged hits.

A shower is bent by weights of its hits. Those of a layer keep the wanted energy of the layer while
they are tilted by a power of 1 + (distance / half a cell)^2 in eta, the same in phi, and a factor
on the core, the powers found by Newton's method on the wanted widths; the two hottest hits get
their wanted signal; hits near three sigma of noise are scaled together until as many as wanted are
above.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.simulation.kernels import inlined, kernel

N_LAYERS, MIDDLE = 7, 2  # EMB2
ETA, PHI, CORE, CELLS, HOTTEST, SECOND, N_MOMENTS = 7, 14, 21, 22, 23, 24, 25
ROUNDS, NEWTON, BISECT = 3, 4, 6
POINT = 0.02  # cells: a layer that is to be narrower is confined to one row
_REACH = math.log(4.0)  # of the scaling about three sigma, in ln(signal)


class Cells(NamedTuple):
    """What kernels need to know of each hit and of each layer."""

    layer: NDArray[np.int64]  # (n_hits,)
    d_eta: NDArray[np.float64]  # (n_hits,) from where the particle points to, in the layer
    d_phi: NDArray[np.float64]
    seen: NDArray[np.float64]  # (n_hits,) GeV, three sigma of noise
    size: NDArray[np.float64]  # (2, n_layers) of a cell in eta and phi
    threshold: NDArray[np.float64]  # (n_layers,) GeV, three sigma of noise of a cell


@inlined
def in_core(cells: Cells, i: int) -> bool:
    """True for a hit of EMB2 within 1.5 cells of the particle's direction."""
    return (
        cells.layer[i] == MIDDLE
        and abs(cells.d_eta[i]) < 1.5 * cells.size[0, MIDDLE]
        and abs(cells.d_phi[i]) < 1.5 * cells.size[1, MIDDLE]
    )


@kernel
def measure(
    signal: NDArray[np.float64], cells: Cells, first: int, last: int, out: NDArray[np.float64]
) -> tuple[int, int]:
    """Moments of one shower, hits first to last - 1, into `out`; returns its two hottest hits."""
    out[:] = 0.0
    mean = np.zeros((2, N_LAYERS))
    hottest, second = -1, -1
    for i in range(first, last):
        layer, e, d_eta, d_phi = cells.layer[i], signal[i], cells.d_eta[i], cells.d_phi[i]
        out[layer] += e
        mean[0, layer] += e * d_eta
        mean[1, layer] += e * d_phi
        out[ETA + layer] += e * d_eta * d_eta
        out[PHI + layer] += e * d_phi * d_phi
        if in_core(cells, i):
            out[CORE] += e
        if e > cells.seen[i]:
            out[CELLS] += 1.0
        if e > out[HOTTEST]:
            out[SECOND], second = out[HOTTEST], hottest
            out[HOTTEST], hottest = e, i
        elif e > out[SECOND]:
            out[SECOND], second = e, i
    for layer in range(N_LAYERS):
        e = out[layer]
        if e > 1e-9:
            for start, k in ((ETA, 0), (PHI, 1)):
                variance = out[start + layer] / e - (mean[k, layer] / e) ** 2
                out[start + layer] = math.sqrt(max(variance, 0.0))
    out[CORE] /= max(out[MIDDLE], 1e-9)
    return hottest, second


@kernel
def describe(
    offsets: NDArray[np.int64], signal: NDArray[np.float64], cells: Cells
) -> NDArray[np.float64]:
    """Moments of each shower, shape (n, N_MOMENTS): energy, eta width and phi width of each layer,
    share of EMB2 within 1.5 cells of the particle's direction, number of cells over three sigma,
    signals of the two hottest.
    """
    out = np.empty((len(offsets) - 1, N_MOMENTS))
    for k in range(len(out)):
        measure(signal, cells, offsets[k], offsets[k + 1], out[k])
    return out


@kernel
def bend(
    offsets: NDArray[np.int64],
    signal: NDArray[np.float64],
    cells: Cells,
    wanted: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Signals of all hits after each shower was bent to its wanted moments, as of `describe`, as
    far as its hits allow; shape (n_hits,).
    """
    out, found = signal.copy(), np.empty(N_MOMENTS)
    for k in range(len(offsets) - 1):
        first, last, goal = offsets[k], offsets[k + 1], wanted[k]
        hottest, second = measure(signal, cells, first, last, found)
        if second < 0:
            for i in range(first, last):
                out[i] = goal[cells.layer[i]]
            continue
        out[hottest], out[second] = goal[HOTTEST], goal[SECOND]
        for i in range(first, last):
            if i != hottest:
                out[i] = min(out[i], goal[SECOND])
        confine(out, cells, first, last, goal)
        for turn in range(ROUNDS):
            for layer in range(N_LAYERS):
                bend_layer(out, cells, first, last, layer, goal, hottest, second)
            if turn < ROUNDS - 1:
                count(out, cells, first, last, goal[CELLS], hottest, second)
    return out


@kernel
def confine(
    e: NDArray[np.float64], cells: Cells, first: int, last: int, goal: NDArray[np.float64]
) -> None:
    """Clear all but the row, or the column, of the hottest hit in layers that are to be a point."""
    hottest = np.full(N_LAYERS, -1)
    for i in range(first, last):
        layer = cells.layer[i]
        if hottest[layer] < 0 or e[i] > e[hottest[layer]]:
            hottest[layer] = i
    for i in range(first, last):
        layer = cells.layer[i]
        d_eta, d_phi = cells.size[0, layer], cells.size[1, layer]
        top = hottest[layer]
        if (
            goal[ETA + layer] < POINT * d_eta
            and abs(cells.d_eta[i] - cells.d_eta[top]) > 0.5 * d_eta
        ) or (
            goal[PHI + layer] < POINT * d_phi
            and abs(cells.d_phi[i] - cells.d_phi[top]) > 0.5 * d_phi
        ):
            e[i] = 0.0


@kernel
def bend_layer(
    e: NDArray[np.float64],
    cells: Cells,
    first: int,
    last: int,
    layer: int,
    goal: NDArray[np.float64],
    hottest: int,
    second: int,
) -> None:
    """Give a layer its energy, widths and core; the two hottest hits keep theirs if they can."""
    hits = np.empty(last - first, np.int64)
    n, n_free, kept, free, total = 0, 0, 0.0, 0.0, goal[layer]
    for i in range(first, last):  # free hits come first
        if cells.layer[i] == layer and e[i] > 0.0 and i != hottest and i != second:
            hits[n_free] = i
            free += e[i]
            n_free += 1
    n = n_free
    for i in (hottest, second):
        if cells.layer[i] == layer:
            hits[n] = i
            kept += e[i]
            n += 1
    if kept > 0.0 and (n_free == 0 or kept > 0.98 * total):
        scale = total * (1.0 if n_free == 0 else 0.98) / kept
        kept *= scale
        for j in range(n_free, n):
            e[hits[j]] *= scale
    if n_free == 0:
        return
    share = total - kept
    for j in range(n_free):
        e[hits[j]] *= share / free
    if total > cells.threshold[layer] and n_free > 1:
        for _ in range(NEWTON):
            if tilt(e, cells, hits[:n], n_free, layer, goal, share):
                break


@kernel
def tilt(
    e: NDArray[np.float64],
    cells: Cells,
    hits: NDArray[np.int64],
    n_free: int,
    layer: int,
    goal: NDArray[np.float64],
    share: float,
) -> bool:
    """One step of Newton's method for the tilts of the free hits, which come first and hold
    `share`; True if none was needed.
    """
    total, sizes = goal[layer], (cells.size[0, layer], cells.size[1, layer])
    want = (
        max(goal[ETA + layer], POINT * sizes[0]) ** 2,
        max(goal[PHI + layer], POINT * sizes[1]) ** 2,
    )
    mean_eta, mean_phi = 0.0, 0.0
    for i in hits:
        mean_eta += e[i] * cells.d_eta[i] / total
        mean_phi += e[i] * cells.d_phi[i] / total
    powers = np.empty((n_free, 3))
    f, sum_f, sum_g, sum_fg = np.empty(3), np.zeros(3), np.zeros(3), np.zeros((3, 3))
    miss = np.array([-1.0, -1.0, -goal[CORE] if layer == MIDDLE else 0.0])
    for j in range(len(hits)):
        i = hits[j]
        a, b = (cells.d_eta[i] - mean_eta) ** 2, (cells.d_phi[i] - mean_phi) ** 2
        f[0], f[1], f[2] = a / want[0], b / want[1], 1.0 if in_core(cells, i) else 0.0
        weight = e[i] / total
        for p in range(3):
            miss[p] += weight * f[p]
        if j < n_free:
            powers[j, 0] = math.log(1.0 + 4.0 * a / sizes[0] ** 2)
            powers[j, 1] = math.log(1.0 + 4.0 * b / sizes[1] ** 2)
            powers[j, 2] = f[2]
            for p in range(3):
                sum_f[p] += weight * f[p]
                sum_g[p] += weight * powers[j, p]
                for q in range(3):
                    sum_fg[p, q] += weight * f[p] * powers[j, q]
    if max(abs(miss[0]), abs(miss[1]), abs(miss[2])) < 1e-3:
        return True
    for p in range(3):
        for q in range(3):
            sum_fg[p, q] -= sum_f[p] * sum_g[q] * total / share
    step = solve(sum_fg, miss)
    after = 0.0
    for j in range(n_free):
        power = powers[j, 0] * step[0] + powers[j, 1] * step[1] + powers[j, 2] * step[2]
        e[hits[j]] *= math.exp(min(max(power, -2.0), 2.0))
        after += e[hits[j]]
    for j in range(n_free):
        e[hits[j]] *= share / after
    return False


@kernel
def solve(slope: NDArray[np.float64], miss: NDArray[np.float64]) -> tuple[float, float, float]:
    """Step that makes three misses vanish, damped where the slope is small and at most 0.7."""
    m, x = slope.T @ slope, -(slope.T @ miss)
    for p in range(3):
        m[p, p] += 1e-3 * m[p, p] + 1e-4
    for p in range(3):  # elimination; the matrix is positive
        for q in range(p + 1, 3):
            ratio = m[q, p] / m[p, p]
            x[q] -= ratio * x[p]
            for r in range(p, 3):
                m[q, r] -= ratio * m[p, r]
    for p in range(2, -1, -1):
        for q in range(p + 1, 3):
            x[p] -= m[p, q] * x[q]
        x[p] /= m[p, p]
    for p in range(3):
        x[p] = min(max(x[p], -0.7), 0.7)
    return x[0], x[1], x[2]


@inlined
def scaled(ratio: float, power: float) -> float:
    """A signal in units of three sigma after the scaling of those near it."""
    distance = math.log(max(ratio, 1e-9)) / _REACH
    return ratio * math.exp(power * (1.0 - distance * distance)) if abs(distance) < 1.0 else ratio


@kernel
def count(
    e: NDArray[np.float64],
    cells: Cells,
    first: int,
    last: int,
    wanted: float,
    hottest: int,
    second: int,
) -> None:
    """Scale hits near three sigma by the middle of the powers at which as many as wanted are above
    it.
    """
    powers = np.empty(2)
    for side in range(2):
        low, high = -1.0, 1.0
        for _ in range(BISECT):
            power, above = 0.5 * (low + high), 0
            for i in range(first, last):
                moves = i != hottest and i != second
                above += scaled(e[i] / cells.seen[i], power if moves else 0.0) > 1.0
            if above > wanted - 0.5 + side:
                high = power
            else:
                low = power
        powers[side] = 0.5 * (low + high)
    power = 0.5 * (powers[0] + powers[1])
    for i in range(first, last):
        if i != hottest and i != second:
            e[i] = cells.seen[i] * scaled(e[i] / cells.seen[i], power)
