"""The Lund plane of a jet: the Cambridge/Aachen tree of its particles, each branching with its
transverse momentum, angle, share, mass and azimuth (arXiv:1807.04758), and shapes of the jet.

A jet is clustered again by the pairs nearest in rapidity and azimuth; undone step by step, each
step is a node of a binary tree, its two branches the harder and the softer one. A node is numbered
before what is in it, first the harder branch.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

FEATURES = ("ln_kt", "ln_delta", "ln_z", "ln_mass", "psi")  # kt and mass in GeV, psi in rad
LN_Z = FEATURES.index("ln_z")
N_NEIGHBOURS = 3  # of a node: mother, harder and softer branch
SHAPES = (
    *("mass", "mass_sd", "z_g", "r_g", "tau21", "c2", "d2", "planar_flow", "width", "ptd"),
    *("sqrt_d12", "kt_dr", "n_particles"),
)
Z_CUT = 0.1  # of soft drop with beta = 0 (arXiv:1402.2657)
SMALL = 1e-6  # lower limit of angles and squared masses (GeV^2) under a logarithm


class Trees(NamedTuple):
    """Lund trees of jets, one after the other."""

    offsets: NDArray[np.int64]  # (n_jets + 1,) of the nodes
    nodes: NDArray[np.float32]  # (n_nodes, 5) FEATURES
    mother: NDArray[np.int16]  # (n_nodes,) place in the jet, -1 of the first
    softer: NDArray[np.bool_]  # (n_nodes,) whether it is in the softer branch of its mother

    @property
    def n_jets(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.int64]) -> Trees:
        """Those of some jets, by their places."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        nodes = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        return Trees(offsets, self.nodes[nodes], self.mother[nodes], self.softer[nodes])

    @property
    def primary(self) -> NDArray[np.bool_]:
        """Whether a node lies on the path of the harder branches, (n_nodes,)."""
        return np.asarray(_primary(self.offsets, self.mother, self.softer))


def join_trees(parts: list[Trees]) -> Trees:
    """All of several, one after the other."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rest = (np.concatenate([part[k] for part in parts]) for k in range(1, len(Trees._fields)))
    return Trees(offsets, *rest)


def decluster(
    momenta: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[Trees, NDArray[np.float32]]:
    """Lund trees and shapes of jets.

    Parameters
    ----------
    momenta : ndarray, shape (n, 4), GeV
        px, py, pz and energy of the particles.
    offsets : ndarray, shape (n_jets + 1,)
        Particles of jet i at offsets[i]:offsets[i + 1].

    Returns
    -------
    trees : Trees
        With one node less than particles.
    shapes : ndarray, shape (n_jets, len(SHAPES))
        Jet mass, and after soft drop: mass, share and angle of the branching that stops it, ratio
        of 2- to 1-subjettiness (axes of kt jets, the harder wins: arXiv:1011.2268), C2 and D2
        (arXiv:1305.0007, 1409.6298; all with beta = 1), planar flow, width, ptD, kt and angle of
        the last two kt jets; number of particles of the jet. Masses and kt in GeV.
    """
    n = np.diff(offsets)
    ends = np.concatenate([[0], np.cumsum(np.maximum(n - 1, 0))]).astype(np.int64)
    nodes = np.zeros((ends[-1], len(FEATURES)), np.float32)
    mother, softer = np.full(ends[-1], -1, np.int16), np.zeros(ends[-1], np.bool_)
    shapes = np.zeros((len(n), len(SHAPES)), np.float32)
    _decluster(momenta, offsets, ends, nodes, mother, softer, shapes)
    return Trees(ends, nodes, mother, softer), shapes


def cut_kt(trees: Trees, ln_kt_min: float) -> Trees:
    """Trees without branchings below a transverse momentum, of which the harder branch is followed
    and the softer one dropped, whatever is in it (arXiv:2012.08526).

    Parameters
    ----------
    trees : Trees
    ln_kt_min : float
        ln(kt / GeV).
    """
    keep, mother, softer = _cut(*trees, np.float32(ln_kt_min))
    n = np.add.reduceat(np.append(keep, 0), trees.offsets[:-1]) * (np.diff(trees.offsets) > 0)
    offsets = np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
    return Trees(offsets, trees.nodes[keep], mother[keep], softer[keep])


def write_graphs(
    trees: Trees, rows: NDArray[np.int64], n_nodes: int
) -> dict[str, NDArray[np.float32]]:
    """Jets as a network takes them.

    Parameters
    ----------
    trees : Trees
    rows : ndarray of int
        Places of the jets.
    n_nodes : int
        Nodes that there is room for; of larger jets those that come first in breadth.

    Returns
    -------
    dict
        ``nodes`` (n, n_nodes, 5) FEATURES, zeros behind the last, and ``neighbours`` (n, n_nodes,
        3) places of mother, harder and softer branch, -1 where there is none.
    """
    nodes = np.zeros((len(rows), n_nodes, len(FEATURES)), np.float32)
    neighbours = np.full((len(rows), n_nodes, N_NEIGHBOURS), -1.0, np.float32)
    _graphs(*trees, np.asarray(rows), nodes, neighbours)
    return {"nodes": nodes, "neighbours": neighbours}


@numba.njit(cache=True)
def _axis(p):  # type: ignore[no-untyped-def]
    """pT, rapidity and azimuth of a four-momentum."""
    pt = np.hypot(p[0], p[1])
    m2 = max(p[3] ** 2 - p[2] ** 2 - pt**2, 0.0)
    y = np.log((np.sqrt(pt**2 + p[2] ** 2 + m2) + abs(p[2])) / np.sqrt(pt**2 + m2))
    return pt, (y if p[2] > 0.0 else -y), np.arctan2(p[1], p[0])


@numba.njit(cache=True)
def _squared(y1, phi1, y2, phi2):  # type: ignore[no-untyped-def]
    """Squared distance in rapidity and azimuth."""
    d = abs(phi1 - phi2)
    return (y1 - y2) ** 2 + min(d, 2.0 * np.pi - d) ** 2


@numba.njit(cache=True)
def _recombine(momenta, by_kt):  # type: ignore[no-untyped-def]
    """Cambridge/Aachen, or kt with the direction of the harder one: children (n - 1, 2) of each
    step, harder first, numbers of particles or n + step; (2 n - 1, 4) sums; axes (2 n - 1, 3).
    """
    n = len(momenta)
    children = np.zeros((max(n - 1, 0), 2), np.int64)
    total, axes = np.zeros((2 * n - 1, 4)), np.zeros((2 * n - 1, 3))
    for i in range(n):
        total[i] = momenta[i]
        axes[i] = _axis(momenta[i])
    alive = np.arange(n)
    near, distance = np.zeros(n, np.int64), np.full(n, np.inf)
    stale = np.ones(n, np.bool_)
    for step in range(n - 1):
        m = n - step
        for i in range(m):
            if stale[i]:
                distance[i] = np.inf
                for j in range(m):
                    if j != i:
                        d = _between(axes, alive[i], alive[j], by_kt)
                        if d < distance[i]:
                            distance[i], near[i] = d, j
                stale[i] = False
        a = np.argmin(distance[:m])
        b = near[a]
        if b < a:
            a, b = b, a
        one, two = alive[a], alive[b]
        if axes[two, 0] > axes[one, 0]:
            one, two = two, one
        new = n + step
        children[step, 0], children[step, 1] = one, two
        total[new] = total[one] + total[two]
        if by_kt:
            axes[new] = axes[one]
            axes[new, 0] += axes[two, 0]
        else:
            axes[new] = _axis(total[new])
        alive[a], alive[b] = new, alive[m - 1]
        last = m - 1
        for i in range(last):
            if near[i] == a or near[i] == b:
                stale[i] = True
            elif near[i] == last:
                near[i] = b
        if b < last:
            near[b], distance[b] = near[last], distance[last]
            stale[b] = near[last] == a or near[last] == b
        stale[a] = True
        for i in range(last):
            if i != a and not stale[i]:
                d = _between(axes, alive[i], new, by_kt)
                if d < distance[i]:
                    distance[i], near[i] = d, a
    return children, total, axes


@numba.njit(cache=True)
def _between(axes, i, j, by_kt):  # type: ignore[no-untyped-def]
    d = _squared(axes[i, 1], axes[i, 2], axes[j, 1], axes[j, 2])
    return d * min(axes[i, 0], axes[j, 0]) ** 2 if by_kt else d


@numba.njit(cache=True)
def _lund(n, children, total, axes, nodes, mother, softer):  # type: ignore[no-untyped-def]
    """Fill the nodes of one jet."""
    waiting = [(2 * n - 2, -1, False)]
    place = 0
    while waiting:
        number, above, is_softer = waiting.pop()
        if number < n:
            continue
        one, two = children[number - n]
        d_phi = np.remainder(axes[two, 2] - axes[one, 2] + np.pi, 2.0 * np.pi) - np.pi
        d_y = axes[two, 1] - axes[one, 1]
        delta = max(np.hypot(d_y, d_phi), SMALL)
        p = total[number]
        m2 = max(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2, SMALL)
        nodes[place, 0] = np.log(axes[two, 0] * delta)
        nodes[place, 1] = np.log(delta)
        nodes[place, 2] = np.log(axes[two, 0] / (axes[one, 0] + axes[two, 0]))
        nodes[place, 3] = 0.5 * np.log(m2)
        nodes[place, 4] = np.arctan2(d_y, d_phi)
        mother[place], softer[place] = above, is_softer
        waiting.append((two, place, True))
        waiting.append((one, place, False))
        place += 1


@numba.njit(cache=True)
def _leaves(number, n, children):  # type: ignore[no-untyped-def]
    """Particles of a branch."""
    found = [0 for _ in range(0)]
    waiting = [number]
    while waiting:
        at = waiting.pop()
        if at < n:
            found.append(at)
        else:
            waiting.append(children[at - n, 0])
            waiting.append(children[at - n, 1])
    return np.array(found)


@numba.njit(cache=True)
def _mass(p):  # type: ignore[no-untyped-def]
    return np.sqrt(max(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2, 0.0))


@numba.njit(cache=True)
def _shapes(momenta, children, total, axes, shape):  # type: ignore[no-untyped-def]
    """Fill SHAPES of one jet."""
    n = len(momenta)
    shape[0], shape[12] = _mass(total[2 * n - 2]), n
    number, z, r = 2 * n - 2, 0.0, 0.0
    while number >= n:
        one, two = children[number - n]
        z = axes[two, 0] / (axes[one, 0] + axes[two, 0])
        r = np.sqrt(_squared(axes[one, 1], axes[one, 2], axes[two, 1], axes[two, 2]))
        if z > Z_CUT:
            break
        number = one
    if number < n:
        return
    shape[1], shape[2], shape[3] = _mass(total[number]), z, r
    left = momenta[_leaves(number, n, children)]
    m = len(left)
    steps, _, places = _recombine(left, True)
    pt = places[:m, 0] / places[:m, 0].sum()
    y, phi = places[:m, 1], places[:m, 2]
    apart = np.empty((m, m))
    e2, e3 = 0.0, 0.0
    for i in range(m):
        for j in range(i):
            apart[i, j] = np.sqrt(_squared(y[i], phi[i], y[j], phi[j]))
            apart[j, i] = apart[i, j]
            e2 += pt[i] * pt[j] * apart[i, j]
    for i in range(m):
        for j in range(i):
            for k in range(j):
                e3 += pt[i] * pt[j] * pt[k] * apart[i, j] * apart[i, k] * apart[j, k]
    one, two = steps[m - 2]
    whole = axes[number]
    tau1, tau2, width, ptd, a, b, c = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(m):
        first = _squared(y[i], phi[i], places[one, 1], places[one, 2])
        second = _squared(y[i], phi[i], places[two, 1], places[two, 2])
        tau1 += pt[i] * np.sqrt(first)  # the axis of one jet is that of the harder of two
        tau2 += pt[i] * np.sqrt(min(first, second))
        width += pt[i] * np.sqrt(_squared(y[i], phi[i], whole[1], whole[2]))
        ptd += pt[i] ** 2
        d_y = y[i] - whole[1]
        d_phi = np.remainder(phi[i] - whole[2] + np.pi, 2.0 * np.pi) - np.pi
        a, b, c = a + pt[i] * d_y**2, b + pt[i] * d_phi**2, c + pt[i] * d_y * d_phi
    shape[4] = tau2 / max(tau1, SMALL)
    shape[5], shape[6] = e3 / max(e2, SMALL) ** 2, e3 / max(e2, SMALL) ** 3
    shape[7] = 4.0 * (a * b - c**2) / max(a + b, SMALL) ** 2
    shape[8], shape[9] = width, np.sqrt(ptd)
    shape[10] = np.sqrt(_between(places, one, two, True))
    shape[11] = np.sqrt(_between(places, one, two, False))


@numba.njit(cache=True)
def _decluster(momenta, offsets, ends, nodes, mother, softer, shapes):  # type: ignore[no-untyped-def]
    for i in range(len(shapes)):
        of_jet = momenta[offsets[i] : offsets[i + 1]]
        if len(of_jet):
            children, total, axes = _recombine(of_jet, False)
            a, b = ends[i], ends[i + 1]
            _lund(len(of_jet), children, total, axes, nodes[a:b], mother[a:b], softer[a:b])
            _shapes(of_jet, children, total, axes, shapes[i])


@numba.njit(cache=True)
def _primary(offsets, mother, softer):  # type: ignore[no-untyped-def]
    found = np.zeros(len(mother), np.bool_)
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            found[k] = mother[k] < 0 or (found[offsets[i] + mother[k]] and not softer[k])
    return found


@numba.njit(cache=True)
def _cut(offsets, nodes, mother, softer, least):  # type: ignore[no-untyped-def]
    """Which nodes stay, and their mothers and sides among those that stay."""
    keep = np.zeros(len(mother), np.bool_)
    above, side = np.full(len(mother), -1, np.int16), softer.copy()
    for i in range(len(offsets) - 1):
        a, b = offsets[i], offsets[i + 1]
        # what stands in for a node: itself or, where it is skipped, its mother's; -2: dropped
        stand, number = np.full(b - a, -1), np.full(b - a, -1)
        place = 0
        for k in range(b - a):
            m = mother[a + k]
            at = -1
            if m >= 0:
                at = stand[m]
                skipped = not keep[a + m]
                if at == -2 or (skipped and softer[a + k]):
                    stand[k] = -2
                    continue
                if skipped:
                    side[a + k] = side[a + m]
            if nodes[a + k, 0] >= least:
                keep[a + k] = True
                above[a + k] = number[at] if at >= 0 else -1
                number[k], stand[k] = place, k
                place += 1
            else:
                stand[k] = at
    return keep, above, side


@numba.njit(cache=True)
def _graphs(offsets, nodes, mother, softer, rows, out, neighbours):  # type: ignore[no-untyped-def]
    room = out.shape[1]
    for r in range(len(rows)):
        a, b = offsets[rows[r]], offsets[rows[r] + 1]
        n = b - a
        place = np.arange(n)
        if n > room:  # by depth, the first ones first
            depth = np.zeros(n, np.int64)
            for k in range(1, n):
                depth[k] = depth[mother[a + k]] + 1
            place[np.argsort(depth, kind="mergesort")] = np.arange(n)
        for k in range(n):
            at = place[k]
            if at >= room:
                continue
            out[r, at] = nodes[a + k]
            if mother[a + k] >= 0:
                m = place[mother[a + k]]
                neighbours[r, at, 0] = m
                neighbours[r, m, 2 if softer[a + k] else 1] = at
