"""The ideal case: each track takes exactly what its particle left, wherever that is, which bounds
what any method can reach.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pfcalib.calibration.rings import RingCells
from pfcalib.errors import ValidationError
from pfcalib.particleflow.event import (
    UNLISTED,
    Event,
    FloatArray,
    FlowClusters,
    FlowTruth,
    IntArray,
    MatchedSets,
)
from pfcalib.particleflow.match import FlowConfig, Matches, keep_filled, select_tracks


@njit(cache=True, nogil=True, error_model="numpy")
def true_signal(
    clusters: FlowClusters, truth: FlowTruth, particle: IntArray, sets: MatchedSets
) -> FloatArray:
    """GeV at the EM scale that some particles, one a set, truly left in each entry of their set."""
    found = np.zeros(len(sets.entry))
    for s in range(len(particle)):
        if particle[s] == UNLISTED:
            continue
        for i in range(sets.offsets[s], sets.offsets[s + 1]):
            entry = sets.entry[i]
            cell = clusters.cell[entry]
            hit = np.searchsorted(truth.hit_cell, cell)
            while hit < len(truth.hit_cell) and truth.hit_cell[hit] == cell:
                if truth.hit_particle[hit] == particle[s]:
                    found[i] += truth.hit_signal[hit] * clusters.weight[entry]
                hit += 1
    return found


def require_truth(event: Event) -> FlowTruth:
    """The truth of an event.

    Raises
    ------
    ValidationError
        If it has none.
    """
    if event.truth is None:
        raise ValidationError(
            f"event {event.number}: no calibration truth of particles and cells (branches hitCell, "
            "hitParticle, hitSignal), which only pfcalib's simulation writes"
        )
    return event.truth


def remove_truth(event: Event, cells: RingCells, sets: MatchedSets) -> FloatArray:
    """What the particle of each track truly left: the ideal that bounds any method."""
    truth = require_truth(event)
    return np.asarray(true_signal(event.clusters, truth, event.tracks.particle[sets.track], sets))


@njit(cache=True, nogil=True, error_model="numpy")
def entries_of_particles(
    clusters: FlowClusters, truth: FlowTruth, particle: IntArray
) -> tuple[IntArray, IntArray]:
    """Offsets and entries of all cells of clusters in which each of some particles left a hit."""
    n_particles = len(truth.pdg_id)
    row = np.full(n_particles, -1)  # a particle has one track at the most; of two the later counts
    for s in range(len(particle)):
        if particle[s] != UNLISTED:
            row[particle[s]] = s
    counts = np.zeros(len(particle) + 1, np.int64)
    entry = np.empty(0, np.int64)
    for fill in range(2):
        for k in range(len(clusters.cell)):
            cell = clusters.cell[k]
            hit = np.searchsorted(truth.hit_cell, cell)
            while hit < len(truth.hit_cell) and truth.hit_cell[hit] == cell:
                owner = truth.hit_particle[hit]
                if owner != UNLISTED and row[owner] >= 0:
                    s = row[owner]
                    if fill:
                        entry[counts[s]] = k
                        counts[s] += 1
                    else:
                        counts[s + 1] += 1
                hit += 1
        if not fill:
            counts = np.cumsum(counts)
            entry = np.empty(counts[-1], np.int64)
    offsets = np.zeros(len(particle) + 1, np.int64)
    offsets[1:] = counts[:-1]
    return offsets, entry


def match_truth(event: Event, cells: RingCells, config: FlowConfig) -> Matches:
    """Sets of the ideal case: of each used track all entries that its particle reached.

    A track whose particle left nothing in clusters, such as a fake, is unmatched; no surroundings
    are too dense.

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    truth, tracks, n = require_truth(event), event.tracks, len(event.tracks.pt)
    rows = select_tracks(tracks, config)
    offsets, entry = entries_of_particles(event.clusters, truth, tracks.particle[rows])
    status, rows, offsets = keep_filled(n, rows, offsets)
    none = np.zeros(len(rows))
    sets = MatchedSets(rows, np.zeros(len(rows), np.int64), offsets, entry, none, none)
    found = true_signal(event.clusters, truth, tracks.particle[rows], sets)
    owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
    mean, nothing = np.full((2, n), np.nan)
    mean[rows] = np.bincount(owner, found, len(rows))
    sets = sets._replace(mean=mean[rows])
    return Matches(status, np.full(n, -1), np.full(n, np.inf), mean, nothing, nothing, sets)
