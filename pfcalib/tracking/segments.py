"""Line segments of hits on neighbouring layers, joined to candidates of five hits, and what tells
those of a particle from combinations by chance.

Segments join two hits, triplets two segments with a common hit, candidates two triplets with a
common hit, as in the line segment tracking of CMS (arXiv:2209.13711, arXiv:2407.18231). The cuts on
the way are loose, and keep particles that begin away from the beam.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.tracking.barrelhits import CURVATURE, F64, NOISE, Hits, highland
from pfcalib.tracking.longlived import LongLivedConfig, simulate_long_lived
from pfcalib.tracking.trackfinder import MATCH, circle

N_HITS = 5  # of a candidate
LAYERS = 6  # outermost ones, those of the strip tracker
# of the first hit; of each hit less the one before it; of inner, middle, outer three and all hits
FEATURES = (
    *(f"{name} 1" for name in ("eta", "|phi| [rad]", "z [mm]", "r [mm]")),
    *(f"{name} {i} - {i - 1}" for i in range(2, 6) for name in ("eta", "phi", "z", "r")),
    *(f"log10 radius {name} [mm]" for name in ("123", "234", "345")), "log10 pt [GeV]",
)  # fmt: skip
QUANTITIES = ("bend", "circle", "line", "best four")  # of `classical`


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Which candidates to make of which events; lengths in mm.

    Parameters
    ----------
    events : LongLivedConfig
    pt_min : float, GeV
        Of a circle through three hits.
    d_max, z_max : float
        Of the beam, from where a particle may come.
    bend : float
        Largest difference of the curvatures of both triplets, over that of pt_min.
    slack : float
        Distance along the beam, beside the length of strips, at which hits are on a line.
    """

    events: LongLivedConfig = field(default_factory=LongLivedConfig)
    pt_min: float = 0.8
    d_max: float = 60.0
    z_max: float = 200.0
    bend: float = 0.5
    slack: float = 10.0

    def __post_init__(self) -> None:
        if not min(self.pt_min, self.d_max, self.z_max, self.bend, self.slack) > 0.0:
            raise ConfigError(f"SegmentConfig: expected sizes above 0, not {self}")
        if len(self.events.radii) < LAYERS:
            raise ConfigError(f"SegmentConfig: events of {LAYERS} layers at least")


class Segments(NamedTuple):
    """Candidates of events, one after the other, and which particles have any."""

    event: NDArray[np.int32]  # (n,)
    hits: NDArray[np.float32]  # (n, 5, 3) x, y, z, mm, from the inside
    layer: NDArray[np.int8]  # (n,) of the first hit
    common: NDArray[np.int8]  # (n,) hits of the particle that has most of them
    particle: NDArray[np.int32]  # (n,) that particle, its place among all, or NOISE
    # of all particles with hits on five neighbouring layers, those of no candidate too
    findable: NDArray[np.int32]  # (n_findable,) place among all
    pt: NDArray[np.float32]  # (n_findable,) GeV
    began: NDArray[np.float32]  # (n_findable,) distance from the beam, mm

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """Whether a share of MATCH of the hits is of one particle, (n,)."""
        return self.common >= MATCH * N_HITS


def cached_segments(config: SegmentConfig, *, n_processes: int = 1) -> Path:
    """File of the candidates (.npz, see `read_segments`), made where it is not there."""
    key = cache_key("barrelhits", "segments", config=config)
    return keep_chunks(
        cache_folder() / "tracking" / f"segments-{key}.npz",
        functools.partial(simulate_segments, config),
        -(-config.events.n_events // config.events.chunk), join=join_columns,
        n_processes=n_processes,
    )  # fmt: skip


def read_segments(path: Path) -> Segments:
    """Candidates of a file of `cached_segments`."""
    return Segments(**read_columns(path))


def simulate_segments(config: SegmentConfig, number: int) -> Segments:
    """Candidates of the events of one chunk.

    Parameters
    ----------
    config : SegmentConfig
    number : int
        Of the chunk, from 0.
    """
    events, began = simulate_long_lived(config.events, number)
    per_event = int(events.n_particles[0])
    parts: list[dict[str, NDArray[Any]]] = []
    for i in range(len(events.n_hits)):
        hits = events.event(i)
        rows = find_candidates(hits, config)
        common, particle = majority(hits.particle[rows])
        crossed = np.zeros((per_event, len(config.events.radii)), np.bool_)
        mine = hits.particle != NOISE
        crossed[hits.particle[mine], hits.layer[mine]] = True
        outer = crossed[:, -LAYERS:]
        findable = np.flatnonzero(outer[:, :N_HITS].all(axis=1) | outer[:, -N_HITS:].all(axis=1))
        event = number * config.events.chunk + i
        theirs = i * per_event + findable
        parts.append({
            "event": np.full(len(rows), event, np.int32), "hits": hits.position[rows],
            "layer": hits.layer[rows[:, 0]], "common": common,
            "particle": np.where(particle == NOISE, NOISE, event * per_event + particle).astype(
                np.int32
            ),
            "findable": (event * per_event + findable).astype(np.int32),
            "pt": events.pt[theirs], "began": began[theirs].astype(np.float32),
        })  # fmt: skip
    return Segments(**join_columns(parts))


def majority(particle: NDArray[np.int32]) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """Of candidates, (n, 5) particles, the hits of the most common one and which that is, noise
    counting as none.

    >>> majority(np.array([[3, 3, -1, 2, 3], [-1, -1, -1, -1, 4]]))[0]
    array([3, 1], dtype=int8)
    """
    same = (particle[:, :, None] == particle[:, None]) & (particle[:, :, None] != NOISE)
    counts = same.sum(axis=-1)
    most = np.argmax(counts, axis=1)
    rows = np.arange(len(particle))
    return counts[rows, most].astype(np.int8), particle[rows, most]


def find_candidates(hits: Hits, config: SegmentConfig) -> NDArray[np.int64]:
    """Hits of all candidates of an event, shape (n, 5), from the inside.

    Parameters
    ----------
    hits : Hits
    config : SegmentConfig
    """
    n_layers = len(config.events.radii)
    strips = np.array(config.events.strips or (0.0,) * n_layers)
    order = np.argsort(hits.layer, kind="stable")
    first = np.searchsorted(hits.layer[order], np.arange(n_layers + 1))
    found = _find(
        hits.position[order].astype(np.float64), first, n_layers - LAYERS, strips,
        CURVATURE * config.events.field / config.pt_min, config.d_max, config.z_max, config.bend,
        config.slack,
    )  # fmt: skip
    return np.asarray(order[found])


@njit(cache=True)
def _find(
    position: F64, first: NDArray[np.int64], innermost: int, strips: F64, steepest: float,
    d_max: float, z_max: float, bend: float, slack: float,
) -> NDArray[np.int64]:  # fmt: skip
    n, n_layers = len(position), len(first) - 1
    radius, phi = np.hypot(position[:, 0], position[:, 1]), np.empty(n)
    for i in range(n):
        phi[i] = math.atan2(position[i, 1], position[i, 0])
    z = position[:, 2]
    # segments of a hit, and triplets that begin at a hit, lie one after the other
    ends, begin = [0], np.zeros(n + 1, np.int64)
    ends.pop()
    for layer in range(innermost, n_layers - 1):
        for a in range(first[layer], first[layer + 1]):
            begin[a] = len(ends)
            for b in range(first[layer + 1], first[layer + 2]):
                ratio = radius[b] / radius[a]
                away = abs(z[b] - ratio * z[a])
                if away > z_max * (ratio - 1.0) + 0.5 * (strips[layer + 1] + ratio * strips[layer]):
                    continue
                turn = abs((phi[b] - phi[a] + math.pi) % (2.0 * math.pi) - math.pi)
                step = radius[b] - radius[a]
                if turn < 0.6 * steepest * step + d_max * step / (radius[a] * radius[b]):
                    ends.append(b)
    begin[first[n_layers - 1] :] = len(ends)
    middles, lasts, start, curves = [0], [0], np.zeros(n + 1, np.int64), [0.0]
    middles.pop(), lasts.pop(), curves.pop()
    for layer in range(innermost, n_layers - 2):
        for a in range(first[layer], first[layer + 1]):
            start[a] = len(middles)
            for i in range(begin[a], begin[a + 1]):
                b = ends[i]
                for j in range(begin[b], begin[b + 1]):
                    c = ends[j]
                    share = (radius[b] - radius[a]) / (radius[c] - radius[a])
                    away = abs(z[b] - z[a] - share * (z[c] - z[a]))
                    wide = (1.0 - share) * strips[layer] + strips[layer + 1]
                    if away > slack + 0.5 * (wide + share * strips[layer + 2]):
                        continue
                    curve, x, y = circle(position[a], position[b], position[c])
                    if abs(curve) > steepest or abs(math.hypot(x, y) - 1 / abs(curve)) > d_max:
                        continue
                    middles.append(b)
                    lasts.append(c)
                    curves.append(curve)
    start[first[n_layers - 2] :] = len(middles)
    rows = [(0, 0, 0, 0, 0)]
    rows.pop()
    for layer in range(innermost, n_layers - N_HITS + 1):
        for a in range(first[layer], first[layer + 1]):
            for i in range(start[a], start[a + 1]):
                c = lasts[i]
                for j in range(start[c], start[c + 1]):
                    e = lasts[j]
                    if abs(curves[i] - curves[j]) > bend * steepest:
                        continue
                    share = (radius[c] - radius[a]) / (radius[e] - radius[a])
                    away = abs(z[c] - z[a] - share * (z[e] - z[a]))
                    wide = (1.0 - share) * strips[layer] + strips[layer + 2]
                    if away < slack + 0.5 * (wide + share * strips[layer + 4]):
                        rows.append((a, middles[i], c, middles[j], e))
    out = np.empty((len(rows), 5), np.int64)
    for i in range(len(rows)):
        for k in range(5):
            out[i, k] = rows[i][k]
    return out


def inputs(hits: NDArray[np.floating], *, field: float = 2.0) -> NDArray[np.float32]:
    """What a classifier sees of candidates, shape (n, 24) of FEATURES.

    Parameters
    ----------
    hits : ndarray, shape (n, 5, 3), mm
    field : float, T

    Notes
    -----
    The first 23 are those of the public code of line segment tracking (cms-sw/cmssw,
    RecoTracker/LSTCore), where absolute values of z and eta stand; here both count along the first
    hit, so that the differences stay smooth, and azimuths along the turn.
    """
    x, y, z = np.moveaxis(np.asarray(hits, np.float64), -1, 0)
    z = z * np.where(z[:, :1] < 0.0, -1.0, 1.0)
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    turn = (np.diff(phi, axis=1) + np.pi) % (2.0 * np.pi) - np.pi
    turn *= np.where(turn.sum(axis=1, keepdims=True) < 0.0, -1.0, 1.0)
    eta = np.arcsinh(z / r)
    steps = np.stack([np.diff(eta, axis=1), turn, np.diff(z, axis=1), np.diff(r, axis=1)], axis=-1)
    curves = np.abs(curvatures(hits))
    return np.column_stack([
        eta[:, 0], np.abs(phi[:, 0]), z[:, 0], r[:, 0], steps.reshape(len(r), -1),
        -np.log10(curves[:, :3]), np.log10(CURVATURE * field / curves[:, 3]),
    ]).astype(np.float32)  # fmt: skip


@njit(cache=True)
def curvatures(hits: NDArray[np.floating]) -> F64:
    """Curvature with its sign, 1 / mm, of the inner, middle and outer three hits and of the first,
    third and last, (n, 4).
    """
    out = np.empty((len(hits), 4))
    for i in range(len(hits)):
        h = hits[i].astype(np.float64)
        for k, (a, b, c) in enumerate(((0, 1, 2), (1, 2, 3), (2, 3, 4), (0, 2, 4))):
            out[i, k] = circle(h[a], h[b], h[c])[0]
    return out


def classical(
    hits: NDArray[np.floating], layer: NDArray[np.integer], config: LongLivedConfig
) -> F64:
    """What a selection by hand looks at, shape (n, 4) of QUANTITIES.

    The difference of the curvatures of both triplets over their sum; chi2 of a circle with two
    degrees of freedom; chi2 of a line in z against the way along the circle with three; both chi2
    together without the hit that adds most, three degrees of freedom. They are exact to first
    order, with resolution and multiple scattering and their correlations.

    Parameters
    ----------
    hits : ndarray, shape (n, 5, 3), mm
    layer : ndarray, shape (n,)
        Of the first hit.
    config : LongLivedConfig
        Resolution, strips, thickness and field.
    """
    strips = np.array(config.strips or (0.0,) * len(config.radii))
    along = np.where(strips > 0.0, strips / math.sqrt(12.0), config.resolution[1])
    return np.asarray(
        _classical(
            np.asarray(hits, np.float64), layer.astype(np.int64), along, config.resolution[0],
            config.thickness, CURVATURE * config.field,
        )
    )  # fmt: skip


@njit(cache=True)
def _classical(
    hits: F64, layer: NDArray[np.int64], sigma_z: F64, sigma: float, thickness: float, bend: float
) -> F64:
    out, way, off, along = np.empty((len(hits), 4)), np.empty(5), np.empty(5), np.empty(5)
    # a hit less what the first, third and last, or the first and third, say of it
    circles, lines = np.zeros((5, 2)), np.zeros((5, 3))
    for i in range(len(hits)):
        h = hits[i]
        inner, outer = circle(h[0], h[1], h[2])[0], circle(h[2], h[3], h[4])[0]
        out[i, 0] = abs(inner - outer) / (abs(inner) + abs(outer))
        curve, x, y = circle(h[0], h[2], h[4])
        for k in range(5):
            half = 0.5 * math.hypot(h[k, 0] - h[0, 0], h[k, 1] - h[0, 1]) * abs(curve)
            way[k] = 2.0 * math.asin(min(half, 1.0)) / abs(curve)
            off[k] = math.hypot(h[k, 0] - x, h[k, 1] - y) - 1.0 / abs(curve)
            along[k] = h[k, 2]
        slope = (along[4] - along[0]) / way[4]
        stretch = math.sqrt(1.0 + slope * slope)  # 1 / sine of the polar angle
        angle = highland(bend / abs(curve) * stretch, thickness * stretch) * stretch
        for j in range(2):
            k = 2 * j + 1
            circles[k, j] = 1.0
            for a, b, c in ((0, 2, 4), (2, 0, 4), (4, 0, 2)):
                share = (way[k] - way[b]) * (way[k] - way[c])
                circles[a, j] = -share / ((way[a] - way[b]) * (way[a] - way[c]))
        for j, k in enumerate((1, 3, 4)):
            lines[k, j] = 1.0
            lines[0, j] = -(way[2] - way[k]) / way[2]
            lines[2, j] = -way[k] / way[2]
        across = _chi2(circles, off, way, np.full(5, sigma), angle)
        lengthwise = _chi2(lines, along, way, sigma_z[layer[i] : layer[i] + 5], angle * stretch)
        out[i, 1], out[i, 2] = across[0], lengthwise[0]
        out[i, 3] = (across[1:] + lengthwise[1:]).min()
    return out


@njit(cache=True)
def _chi2(combine: F64, values: F64, way: F64, sigma: F64, angle: float) -> F64:
    """Chi2 of combinations of five values with errors, turned by angles of a width at each hit; and
    without each of the five, which then is where it fits best.
    """
    covariance = np.diag(sigma**2)
    for k in range(1, 4):
        for i in range(k + 1, 5):
            for j in range(k + 1, 5):
                covariance[i, j] += angle * angle * (way[i] - way[k]) * (way[j] - way[k])
    off = values @ combine
    inverse = np.linalg.inv(combine.T @ covariance @ combine)
    pull = inverse @ off
    out = np.full(6, off @ pull)
    for k in range(5):
        moved = combine[k]
        out[1 + k] -= (moved @ pull) ** 2 / (moved @ (inverse @ moved))
    return out
