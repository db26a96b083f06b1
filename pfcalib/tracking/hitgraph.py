"""Graphs of the hits of an event: doublets of hits, triplets of two doublets that meet in a hit,
and tracks as chains of triplets.

The line graph of the hits, whose nodes are doublets and whose edges are triplets, so that two
tracks may share a hit (arXiv:2406.12869).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tracking.forwardhits import ForwardHits
from pfcalib.tracking.trackmatch import owners

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
NODE = (
    *("eta", "d [asinh(2 d / mm)]", "z of it [100 mm]", "r [20 mm]", "z [500 mm]", "way [25 mm]"),
    *("r on the plane before [20 mm]", "r behind [20 mm]", "first plane", "last plane"),
)  # of a doublet, d its distance to the beam
EDGE = ("there", "bend from the beam", "bend about it", "size", "expected")  # of a triplet
NO_NEIGHBOUR = -1
STRAIGHT = 0.1  # of the largest angle of a triplet, in the chains that need no longer doublets


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Which doublets and triplets a graph has.

    Parameters
    ----------
    reach : int
        Planes that the two hits of a doublet are apart at most.
    radius : float
        Largest distance of their vectors; what these are is chosen with them.
    slope : float
        Largest slope of a doublet against the beam.
    bend : float, rad
        Largest angle between the doublets of a triplet, beyond the error of the pixels.
    pulls : float
        How many errors of the pixels.
    k : int
        Triplets of a doublet on either side, the straightest.
    error : float, mm
        Of a hit.
    """

    reach: int = 2
    radius: float = 0.2
    slope: float = 0.8
    bend: float = 0.025
    pulls: float = 4.0
    k: int = 4
    error: float = 0.0159

    def __post_init__(self) -> None:
        if not min(self.reach, self.radius, self.slope, self.bend, self.k, self.error) > 0.0:
            raise ConfigError(f"GraphConfig: expected sizes above 0, not {self}")


class Graph(NamedTuple):
    """Doublets of an event and their triplets, k towards smaller z, then k towards larger z."""

    doublets: I64  # (n, 2) places of hits, the one of smaller z first
    nodes: F32  # (n, len(NODE))
    neighbours: I64  # (n, 2 k) doublets, or NO_NEIGHBOUR
    edges: F32  # (n, 2 k, len(EDGE))

    def take(self, rows: NDArray[np.bool_]) -> Graph:
        """Some of the doublets, by a mask, with the triplets among them."""
        number = np.append(np.where(rows, np.cumsum(rows) - 1, NO_NEIGHBOUR), NO_NEIGHBOUR)
        near = number[self.neighbours[rows]]
        edges = self.edges[rows] * (near >= 0)[..., None]
        return Graph(self.doublets[rows], self.nodes[rows], near, edges)

    def mirrored(self) -> Graph:
        """The graph of the event in a mirror that holds the beam."""
        nodes, edges = self.nodes.copy(), self.edges.copy()
        nodes[:, 1] *= -1.0  # d
        edges[..., 2] *= -1.0  # the bend about the beam
        return self._replace(nodes=nodes, edges=edges)


def raw_vectors(hits: ForwardHits) -> F32:
    """Directions of hits across the beam: their distance is that in azimuth."""
    across = hits.position[:, :2]
    return (across / np.linalg.norm(across, axis=1, keepdims=True)).astype(np.float32)


def find_doublets(hits: ForwardHits, vectors: F32, config: GraphConfig) -> I64:
    """Pairs of hits on neighbouring planes whose vectors are near, (n, 2), by their first hit."""
    order = np.argsort(hits.layer, kind="stable")
    layer = hits.layer[order].astype(np.int64)
    first = np.searchsorted(layer, np.arange(layer.max(initial=0) + 2))
    found = _doublets(
        hits.position[order].astype(np.float64), vectors[order], layer, first, config.reach,
        config.radius**2, config.slope,
    )  # fmt: skip
    return order[found]


@njit(cache=True)
def _doublets(
    position: F64, vectors: F32, layer: I64, first: I64, reach: int, radius2: float, slope: float
) -> I64:
    out = np.empty((64 + len(layer), 2), np.int64)
    n = 0
    for a in range(len(layer)):
        begin = first[layer[a] + 1]
        for b in range(begin, first[min(layer[a] + reach, len(first) - 2) + 1]):
            away = 0.0
            for i in range(vectors.shape[1]):
                away += (vectors[a, i] - vectors[b, i]) ** 2
            dz = position[b, 2] - position[a, 2]
            across = (position[b, 0] - position[a, 0]) ** 2 + (position[b, 1] - position[a, 1]) ** 2
            if away > radius2 or across > (slope * dz) ** 2:
                continue
            if n == len(out):
                out = np.concatenate((out, np.empty_like(out)))
            out[n, 0], out[n, 1] = a, b
            n += 1
    return out[:n]


def build_graph(hits: ForwardHits, vectors: F32, planes: F64, config: GraphConfig) -> Graph:
    """Graph of the doublets that are in a triplet.

    Doublets that leave out a plane are taken only where a straight chain of the others ends: where
    none begins in their first hit, or none ends in their second.

    Parameters
    ----------
    hits : ForwardHits
    vectors : ndarray, shape (n_hits, n)
        Such as `raw_vectors`.
    planes : ndarray, shape (n_planes,), mm
    config : GraphConfig
    """
    position = hits.position.astype(np.float64)
    doublets = find_doublets(hits, vectors, config)
    leaves_out = np.diff(hits.layer[doublets].astype(np.int64), axis=1)[:, 0] > 1
    near, far = doublets[~leaves_out], doublets[leaves_out]
    straight = replace(config, bend=STRAIGHT * config.bend)
    within, *_ = _joined(position, near, straight)
    begins, ends = (np.isin(far[:, i], within[:, i]) for i in range(2))
    doublets, neighbours, bends = _joined(
        position, np.concatenate([near, far[~(begins & ends)]]), config
    )
    return Graph(
        doublets, _node_features(position, doublets, hits.layer, planes), neighbours,
        _edge_features(bends, neighbours >= 0, config.error),
    )  # fmt: skip


def _joined(position: F64, doublets: I64, config: GraphConfig) -> tuple[I64, I64, F64]:
    """Doublets that are in a triplet, their neighbours and the bends of their triplets."""
    doublets = doublets[np.argsort(doublets[:, 0], kind="stable")]
    first = np.searchsorted(doublets[:, 0], np.arange(len(position) + 1))
    behind, bends = _triplets(
        position, doublets, first, config.k, config.bend, config.pulls * config.error
    )
    before, bends_before = _turned(behind, bends)
    there = (behind[:, 0] >= 0) | (before[:, 0] >= 0)
    number = np.append(np.cumsum(there) - 1, NO_NEIGHBOUR)
    neighbours = number[np.concatenate([before, behind], axis=1)[there]]
    return doublets[there], neighbours, np.concatenate([bends_before, bends], axis=1)[there]


@njit(cache=True)
def _triplets(
    position: F64, doublets: I64, first: I64, k: int, bend: float, error: float
) -> tuple[I64, F64]:
    """For each doublet up to k that begin where it ends, straightest first, with the change of
    slope from the beam and about it, and its error for a hit's of 1.
    """
    n = len(doublets)
    found, bends = np.full((n, k), -1), np.zeros((n, k, 3))
    for e in range(n):
        a, b = doublets[e]
        dz = position[b, 2] - position[a, 2]
        slope_x = (position[b, 0] - position[a, 0]) / dz
        slope_y = (position[b, 1] - position[a, 1]) / dz
        radius = np.hypot(position[b, 0], position[b, 1])
        pulls = np.full(k, np.inf)
        for f in range(first[b], first[b + 1]):
            c = doublets[f, 1]
            step = position[c, 2] - position[b, 2]
            x = (position[c, 0] - position[b, 0]) / step - slope_x
            y = (position[c, 1] - position[b, 1]) / step - slope_y
            own = np.sqrt(1.0 / dz**2 + 1.0 / step**2 + (1.0 / dz + 1.0 / step) ** 2)
            pull = (x * x + y * y) / (bend**2 + (error * own) ** 2)
            if pull > 1.0 or pull >= pulls[k - 1]:
                continue
            place = k - 1
            while place > 0 and pull < pulls[place - 1]:
                pulls[place], found[e, place] = pulls[place - 1], found[e, place - 1]
                bends[e, place] = bends[e, place - 1]
                place -= 1
            pulls[place], found[e, place] = pull, f
            bends[e, place, 0] = (x * position[b, 0] + y * position[b, 1]) / radius
            bends[e, place, 1] = (y * position[b, 0] - x * position[b, 1]) / radius
            bends[e, place, 2] = own
    return found, bends


@njit(cache=True)
def _turned(behind: I64, bends: F64) -> tuple[I64, F64]:
    """The same triplets, told at their second doublet."""
    n, k = behind.shape
    found, turned, size = np.full((n, k), -1), np.zeros((n, k, 3)), np.full((n, k), np.inf)
    for e in range(n):
        for i in range(k):
            f = behind[e, i]
            if f < 0:
                break
            pull = (bends[e, i, 0] ** 2 + bends[e, i, 1] ** 2) / bends[e, i, 2] ** 2
            if pull >= size[f, k - 1]:
                continue
            place = k - 1
            while place > 0 and pull < size[f, place - 1]:
                size[f, place], found[f, place] = size[f, place - 1], found[f, place - 1]
                turned[f, place] = turned[f, place - 1]
                place -= 1
            size[f, place], found[f, place] = pull, e
            turned[f, place] = bends[e, i]
    return found, turned


def _node_features(position: F64, doublets: I64, layer: NDArray[np.int8], planes: F64) -> F32:
    a, b = position[doublets[:, 0]], position[doublets[:, 1]]
    slope = (b - a)[:, :2] / (b - a)[:, 2:]
    steep = np.linalg.norm(slope, axis=1) + 1e-6
    d = (a[:, 0] * slope[:, 1] - a[:, 1] * slope[:, 0]) / steep
    nearest = a[:, 2] - np.sum(a[:, :2] * slope, axis=1) / steep**2
    places = [layer[doublets[:, 0]].astype(int) - 1, layer[doublets[:, 1]].astype(int) + 1]
    beyond = []
    for place in places:
        z = planes[np.clip(place, 0, len(planes) - 1)]
        beyond.append(np.linalg.norm(a[:, :2] + (z - a[:, 2])[:, None] * slope, axis=1) / 20.0)
    columns = (
        *(np.arcsinh(1.0 / steep) - 3.0, np.arcsinh(2.0 * d), np.clip(nearest / 100.0, -8.0, 8.0)),
        *(np.linalg.norm(a[:, :2], axis=1) / 20.0, a[:, 2] / 500.0, (b - a)[:, 2] / 25.0 - 1.0),
        *(np.minimum(of, 3.0) for of in beyond),
        *(places[0] < 0, places[1] >= len(planes)),
    )
    return np.column_stack(columns).astype(np.float32)


def _edge_features(bends: F64, there: NDArray[np.bool_], error: float) -> F32:
    expected = np.where(there, error * bends[..., 2], 1.0)
    size = np.hypot(bends[..., 0], bends[..., 1])
    columns = (
        there, *(np.arcsinh(bends[..., i] / expected) for i in range(2)),
        np.log(size + 1e-4) + 6.0, np.log(expected) + 6.0,
    )  # fmt: skip
    return (there[..., None] * np.stack(columns, axis=-1)).astype(np.float32)


def true_chains(hits: ForwardHits, length: int) -> tuple[I64, I64]:
    """Hits of one particle on planes that follow each other but for missing hits, (n, length), and
    the particle, (n,).
    """
    particle, hit = owners(hits)
    order = np.lexsort((hits.layer[hit], particle))
    particle, hit = particle[order], hit[order]
    n = max(len(hit) - length + 1, 0)
    chains = np.column_stack([hit[i : i + n] for i in range(length)])
    whole = particle[:n] == particle[length - 1 :][:n]
    return chains[whole], particle[:n][whole]


def true_parts(hits: ForwardHits, graph: Graph) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which doublets, (n,), and which triplets towards larger z, (n, k), are `true_chains`."""
    n = np.int64(len(hits.layer))
    pairs, threes = (true_chains(hits, length)[0] for length in (2, 3))
    pairs = pairs[:, 0] * n + pairs[:, 1]
    threes = (threes[:, 0] * n + threes[:, 1]) * n + threes[:, 2]
    a, b = graph.doublets.T
    k = graph.neighbours.shape[1] // 2
    behind = graph.neighbours[:, k:]
    last = graph.doublets[behind, 1]
    triplets = np.isin((a * n + b)[:, None] * n + last, threes) & (behind >= 0)
    return np.isin(a * n + b, pairs), triplets


def sectors(hits: ForwardHits, graph: Graph, n: int) -> list[NDArray[np.bool_]]:
    """Doublets of each of n equal sectors of azimuth, by their first hit."""
    x, y = hits.position[graph.doublets[:, 0], :2].T
    place = np.floor(n * (np.arctan2(y, x) / (2.0 * np.pi) + 0.5)).astype(np.int64) % n
    return [place == i for i in range(n)]


class Chains(NamedTuple):
    """Tracks of an event."""

    tracks: I64  # (n_tracks, n_planes) the hit on each plane, -1 where none is
    score: F64  # (n_tracks,) sum over their triplets: how many of them are expected to be true


def link(hits: ForwardHits, graph: Graph, score: F32, cut: float, n_planes: int) -> Chains:
    """Tracks of triplets whose score is the largest of both of their doublets, and above a cut.

    Parameters
    ----------
    hits : ForwardHits
    graph : Graph
    score : ndarray, shape (n, k)
        Of the triplets towards larger z.
    cut : float
    n_planes : int
    """
    k = graph.neighbours.shape[1] // 2
    tracks, total = _link(
        graph.doublets, graph.neighbours[:, k:], score.astype(np.float64), cut,
        hits.layer.astype(np.int64), n_planes,
    )  # fmt: skip
    return Chains(tracks, total)


@njit(cache=True)
def _link(
    doublets: I64, behind: I64, score: F64, cut: float, layer: I64, n_planes: int
) -> tuple[I64, F64]:
    n, k = behind.shape
    on, back = np.full(n, -1), np.full(n, -1)
    best_on, best_back = np.full(n, cut), np.full(n, cut)
    for e in range(n):
        for i in range(k):
            f = behind[e, i]
            if f < 0:
                continue
            if score[e, i] > best_on[e]:
                best_on[e], on[e] = score[e, i], f
            if score[e, i] > best_back[f]:
                best_back[f], back[f] = score[e, i], e
    tracks, total = np.full((n, n_planes), -1), np.zeros(n)
    count = 0
    for e in range(n):
        begins = on[e] >= 0 and back[on[e]] == e
        goes_on = back[e] >= 0 and on[back[e]] == e
        if not begins or goes_on:
            continue
        f = e
        tracks[count, layer[doublets[e, 0]]] = doublets[e, 0]
        tracks[count, layer[doublets[e, 1]]] = doublets[e, 1]
        while on[f] >= 0 and back[on[f]] == f:
            total[count] += best_on[f]
            f = on[f]
            tracks[count, layer[doublets[f, 1]]] = doublets[f, 1]
        count += 1
    return tracks[:count], total[:count]
