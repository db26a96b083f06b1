"""Tracks with what they left in the calorimeter, what a table expects of them, and the cells around
them as clouds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.calibration.rings import RingCells
from pfcalib.features.clouds import Clouds, join_clouds
from pfcalib.particleflow.cones import near_tracks, ring_columns, track_clouds
from pfcalib.particleflow.deposit import MAX_DISTANCE, table_deposit, truth_deposit
from pfcalib.particleflow.event import HARD_SCATTER, UNLISTED, Event, FloatArray, IntArray
from pfcalib.particleflow.match import FlowConfig, matching

CONE = 0.4  # dR in which clusters are the deposit of a single pion, as in the table of E/p
PILE_UP_PART = 0.125  # of the tracks of other vertices that are taken


class LeftTracks(NamedTuple):
    """Tracks that have a cluster near by; arrays of shape (n,)."""

    event: IntArray  # number of the event
    p: FloatArray  # GeV
    eta: FloatArray
    layer: IntArray  # of highest energy density
    left: FloatArray  # GeV at the EM scale that the particle left in clusters
    mean: FloatArray  # GeV, of the table
    sigma: FloatArray


def collect_tracks(
    events: Iterable[Event],
    cells: RingCells,
    table: EoverPTable,
    *,
    rng: np.random.Generator,
    progress: Callable[[int], None] | None = None,
) -> tuple[Clouds, LeftTracks]:
    """Tracks of events to which particle flow finds a cluster, and the clouds around them that
    Athena's neural E/p would be given.

    Where the hits of particles are known a track left what its particle did, without noise; of
    single pions, where they are not, what the clusters within CONE hold. Of pile-up a part is
    drawn; fakes are left out.
    """
    columns, expected, true = ring_columns(cells), table_deposit(table), truth_deposit(table)
    asked: list[tuple[IntArray, IntArray]] = []

    def note(event: Event, cells: RingCells, tracks: IntArray, layers: IntArray):  # type: ignore[no-untyped-def]
        asked.append((tracks, layers))
        return expected(event, cells, tracks, layers)

    find = matching(note, FlowConfig())
    clouds: list[Clouds] = []
    found: list[LeftTracks] = []
    for event in events:
        asked.clear()
        find(event, cells)
        for tracks, layers in asked:
            kept = _drawn(event, tracks, rng)
            rows, at = tracks[kept], layers[kept]
            if len(rows):
                mean, sigma = expected(event, cells, rows, at)
                left = true(event, cells, rows, at)[0] if _has_hits(event) else _near(event, rows)
                of, number = event.tracks, np.full(len(rows), event.number)
                clouds.append(track_clouds(event, columns, rows, cone=MAX_DISTANCE))
                found.append(LeftTracks(number, of.p[rows], of.eta[rows], at, left, mean, sigma))
        if progress is not None:
            progress(1)
    joined = LeftTracks(*(np.concatenate(column) for column in zip(*found, strict=True)))
    return join_clouds(clouds), joined


def _drawn(event: Event, tracks: IntArray, rng: np.random.Generator) -> NDArray[np.bool_]:
    of = event.tracks
    hard = (of.vertex[tracks] == HARD_SCATTER) | (rng.random(len(tracks)) < PILE_UP_PART)
    return np.asarray(hard & (of.particle[tracks] != UNLISTED))


def _has_hits(event: Event) -> bool:
    return event.truth is not None and len(event.truth.hit_cell) > 0


def _near(event: Event, rows: IntArray) -> FloatArray:
    """GeV of all cells of clusters near each track."""
    sizes, entry = near_tracks(event, rows, CONE)
    owner = np.repeat(np.arange(len(rows)), sizes)
    return np.bincount(owner, event.clusters.cell_energy[entry], len(rows)).astype(np.float64)
