"""What a subtraction leaves and removes wrongly, track by track, and single pions as events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.rings import RingCells
from pfcalib.particleflow.event import (
    HARD_SCATTER,
    UNLISTED,
    Event,
    FloatArray,
    FlowClusters,
    IntArray,
    MatchedSets,
)
from pfcalib.particleflow.flow import FlowObjects, run_flow
from pfcalib.particleflow.match import EMB2, SUBTRACTED
from pfcalib.particleflow.methods import Method
from pfcalib.particleflow.truth import entries_of_particles, require_truth, true_signal

NEUTRALS = (22, 111, 130, 310, 2112, 3122)  # by absolute value
MIN_NEUTRAL = 1.0  # GeV of a neutral particle that counts as near


class JudgedTracks(NamedTuple):
    """Charged objects of the hard scattering that a particle made; arrays of shape (n,)."""

    event: IntArray  # number of the event
    track: IntArray  # row of the track
    pt: FloatArray  # GeV
    nearest: FloatArray  # dR at EMB2 to the nearest neutral particle above MIN_NEUTRAL
    true: FloatArray  # GeV at the EM scale that the particle left in clusters
    left: FloatArray  # GeV of it that stayed in them
    over: FloatArray  # GeV of neutral signal that went with the track
    is_matched: NDArray[np.bool_]
    is_right: NDArray[np.bool_]  # to the cluster that holds most of what the particle left


def judge(event: Event, objects: FlowObjects) -> JudgedTracks:
    """Compare what tracks took with what their particles left.

    In each cell of a cluster the tracks together take R, where their particles left C and all
    others N at the EM scale: min(max(C - R, 0), C) is left by mistake, min(max(R - C, 0), N)
    removed by mistake. The first is shared among the tracks by what they left, the second by what
    they took.
    """
    truth, tracks, clusters = require_truth(event), event.tracks, event.clusters
    sets, n = objects.matches.sets, len(clusters.cell)
    rows = objects.charged[tracks.particle[objects.charged] != UNLISTED]
    particle = tracks.particle[rows]
    offsets, entry = entries_of_particles(clusters, truth, particle)
    none = np.zeros(len(rows))
    ideal = MatchedSets(rows, np.zeros(len(rows), np.int64), offsets, entry, none, none)
    signal = true_signal(clusters, truth, particle, ideal)
    charged, taken = np.bincount(entry, signal, n), np.bincount(sets.entry, objects.removed, n)
    every = np.bincount(truth.hit_cell, truth.hit_signal, clusters.cell.max(initial=0) + 1)
    others = np.maximum(every[clusters.cell] * clusters.weight - charged, 0.0)
    left = np.clip(charged - taken, 0.0, charged) / np.where(charged > 0.0, charged, 1.0)
    over = np.clip(taken - charged, 0.0, others) / np.where(taken > 0.0, taken, 1.0)
    owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
    of_track = np.bincount(
        np.repeat(sets.track, np.diff(sets.offsets)), objects.removed * over[sets.entry],
        len(tracks.pt),
    )  # fmt: skip
    kept = tracks.vertex[rows] == HARD_SCATTER
    found = JudgedTracks(
        np.full(len(rows), event.number), rows, tracks.pt[rows], _nearest_neutral(event, rows),
        np.bincount(owner, signal, len(rows)), np.bincount(owner, signal * left[entry], len(rows)),
        of_track[rows], objects.matches.status[rows] == SUBTRACTED,
        objects.matches.cluster[rows] == _fullest_cluster(clusters, offsets, entry, signal),
    )  # fmt: skip
    return JudgedTracks(*(column[kept] for column in found))


def _fullest_cluster(
    clusters: FlowClusters, offsets: IntArray, entry: IntArray, signal: FloatArray
) -> IntArray:
    """Cluster that holds most of what each particle left; -1 where it left nothing."""
    n = len(clusters.energy)
    cluster = np.repeat(np.arange(n), np.diff(clusters.offsets))[entry]
    fullest = np.full(len(offsets) - 1, -1)
    for i, (start, stop) in enumerate(pairwise(offsets)):
        if stop > start:
            fullest[i] = np.argmax(np.bincount(cluster[start:stop], signal[start:stop], n))
    return fullest


def _nearest_neutral(event: Event, rows: IntArray) -> FloatArray:
    truth, tracks = require_truth(event), event.tracks
    neutral = np.isin(np.abs(truth.pdg_id), NEUTRALS) & (truth.energy > MIN_NEUTRAL)
    neutral &= truth.vertex == HARD_SCATTER
    d_eta = tracks.eta_at[rows, EMB2, None] - truth.eta[neutral]
    d_phi = np.angle(np.exp(1j * (tracks.phi_at[rows, EMB2, None] - truth.phi[neutral])))
    return np.asarray(np.hypot(d_eta, d_phi).min(axis=1, initial=np.inf))


def among(tracks: JudgedTracks, others: JudgedTracks) -> JudgedTracks:
    """Those that are among others too, judged by another method."""
    n = 1 + max(tracks.track.max(initial=0), others.track.max(initial=0))
    same = np.isin(tracks.event * n + tracks.track, others.event * n + others.track)
    return JudgedTracks(*(column[same] for column in tracks))


def judge_all(
    events: Iterable[Event],
    cells: RingCells,
    method: Method,
    *,
    progress: Callable[[int], None] | None = None,
) -> JudgedTracks:
    """Tracks of many events, judged."""
    parts = []
    for event in events:
        parts.append(judge(event, run_flow(event, cells, method)))
        if progress is not None:
            progress(1)
    return JudgedTracks(*(np.concatenate(column) for column in zip(*parts, strict=True)))
