"""Which vertices that were found are collisions: matching one to one, and what follows of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.tracking.beamline import BeamEvents
from pfcalib.tracking.vertexdensity import MIN_TRACKS, Z_MAX, Z_MIN, Found

F64 = NDArray[np.float64]
WINDOW = 0.5  # mm, as published


class Matches(NamedTuple):
    """What became of the collisions of `MIN_TRACKS` tracks in the range of the histograms."""

    event: NDArray[np.int64]  # (n,) of each collision
    z: F64  # (n,) mm
    n_tracks: NDArray[np.int32]  # (n,)
    residual: F64  # (n,) found less true, mm; NaN where it was not found
    n_false: NDArray[np.int64]  # (n_events,) vertices that are no collision

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether each collision was found, (n,)."""
        return np.isfinite(self.residual)


def match(events: BeamEvents, found: Found, *, cut: float = 0.0, window: float = WINDOW) -> Matches:
    """Give collisions the nearest vertex that was found, nearest pairs first, one to one.

    What is left may belong to collisions of fewer tracks, then it is neither right nor wrong; the
    rest is false.

    Parameters
    ----------
    events : BeamEvents
    found : Found
        Sorted by event.
    cut : float
        Vertices with a lower score do not count.
    window : float, mm
        Largest distance.
    """
    inside = (events.vertices[:, 2] > Z_MIN) & (events.vertices[:, 2] < Z_MAX)
    large = inside & (events.n_prompt >= MIN_TRACKS)
    event = np.repeat(np.arange(len(events.n_vertices)), events.n_vertices)
    seen = found.score >= cut
    residual, n_false = _match(
        events.vertices[:, 2].astype(np.float64), large, events.n_prompt > 0, events.vertex_ends,
        found.z[seen], np.searchsorted(found.event[seen], np.arange(len(events.n_vertices) + 1)),
        window,
    )  # fmt: skip
    return Matches(
        event[large], events.vertices[large, 2].astype(float), events.n_prompt[large],
        residual[large], n_false,
    )  # fmt: skip


@njit(cache=True)
def _match(
    true: F64, large: NDArray[np.bool_], any_track: NDArray[np.bool_], true_ends: NDArray[np.int64],
    z: F64, ends: NDArray[np.int64], window: float,
) -> tuple[F64, NDArray[np.int64]]:  # fmt: skip
    residual, n_false = np.full(len(true), np.nan), np.zeros(len(ends) - 1, np.int64)
    for event in range(len(ends) - 1):
        free = np.ones(ends[event + 1] - ends[event], np.bool_)
        mine = z[ends[event] : ends[event + 1]]
        first, last = true_ends[event], true_ends[event + 1]
        for wanted in (True, False):
            while True:
                best, at, of = window, -1, -1
                for i in range(first, last):
                    if np.isfinite(residual[i]) or large[i] != wanted or not any_track[i]:
                        continue
                    for j in range(len(mine)):
                        if free[j] and abs(mine[j] - true[i]) <= best:
                            best, at, of = abs(mine[j] - true[i]), i, j
                if at < 0:
                    break
                residual[at], free[of] = mine[of] - true[at], False
        n_false[event] = free.sum()
    return residual, n_false


class Scan(NamedTuple):
    """Efficiency against false vertices, cut by cut."""

    cut: F64  # (n,) falling: more and more is found
    efficiency: F64  # (n,)
    false: F64  # (n,) an event


def scan(events: BeamEvents, found: Found, *, n_cuts: int = 40) -> Scan:
    """Efficiency and false vertices an event for cuts at quantiles of the score."""
    if not len(found.score):
        return Scan(*np.zeros((3, 1)))
    cuts = np.unique(np.quantile(found.score, np.linspace(0.0, 1.0, n_cuts)))[::-1]
    results = [match(events, found, cut=cut) for cut in cuts]
    return Scan(
        cuts, np.array([np.mean(of.found) for of in results]),
        np.array([np.mean(of.n_false) for of in results]),
    )  # fmt: skip


def choose_cut(scanned: Scan, limit: float) -> float:
    """The cut of the largest efficiency with at most so many false vertices an event; the highest
    cut where all have more.
    """
    allowed = scanned.false <= limit
    if not allowed.any():
        return float(scanned.cut[0])
    return float(scanned.cut[np.argmax(np.where(allowed, scanned.efficiency, -1.0))])


def neighbours(matches: Matches) -> tuple[F64, NDArray[np.bool_]]:
    """Distance of adjacent collisions of an event, mm, and whether both were found; (n_pairs,)."""
    order = np.lexsort((matches.z, matches.event))
    event, z, found = matches.event[order], matches.z[order], matches.found[order]
    same = event[1:] == event[:-1]
    return np.diff(z)[same], (found[1:] & found[:-1])[same]


def per_event(
    matches: Matches, n_events: int, chosen: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collisions that were found and all of them, of each event, (n_events,): what a bootstrap over
    events needs. Only those of a mask, if there is one.
    """
    event, found = matches.event, matches.found
    if chosen is not None:
        event, found = event[chosen], found[chosen]
    return np.bincount(event[found], minlength=n_events), np.bincount(event, minlength=n_events)
