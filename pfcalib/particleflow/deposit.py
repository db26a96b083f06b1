"""What a track is expected to leave in the calorimeter: by the table of E/p, by a network, or the
truth. Each is a function of (event, cells, rows of tracks, layers of highest energy density).
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit

from pfcalib.calibration.eoverp import EoverPArrays, EoverPTable, expected_deposit
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ValidationError
from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import Event, FloatArray, IntArray, MatchedSets
from pfcalib.particleflow.match import EMB2, Deposit
from pfcalib.particleflow.truth import entries_of_particles, require_truth, true_signal

# Athena's neural E/p: one float32 input (1, N_POINTS, 5) of ln E, d_eta, d_phi, r and is_track,
# standardised as follows; one output, ln of GeV
N_POINTS = 1086
E_MEAN, E_WIDTH = -2.28525747, 2.01005066  # of ln(E / GeV)
SCALE_ETA, SCALE_PHI, SCALE_R = 0.7, 0.69169774, 3630.0  # r in mm
MIN_CELL, MAX_DISTANCE = 0.005, 0.2  # GeV of a cell; dR of its cluster from the track


def table_deposit(table: EoverPTable) -> Deposit:
    """Mean and width of the table at momentum, abs(eta) and layer of highest energy density."""
    arrays = table.arrays

    def expected(
        event: Event, cells: RingCells, tracks: IntArray, layers: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        mean, sigma = _deposits(arrays, event.tracks.p[tracks], event.tracks.eta[tracks], layers)
        return mean, sigma

    return expected


@njit(cache=True, nogil=True, error_model="numpy")
def _deposits(table: EoverPArrays, p: FloatArray, eta: FloatArray, layers: IntArray) -> FloatArray:
    """Means and widths in GeV, (2, n)."""
    found = np.empty((2, len(p)))
    for i in range(len(p)):
        found[0, i], found[1, i] = expected_deposit(table, p[i], abs(eta[i]), layers[i])
    return found


def truth_deposit(table: EoverPTable) -> Deposit:
    """What the particle of each track truly left in all clusters, at the EM scale; the width is
    that of the table, and fakes leave nothing.
    """
    by_table = table_deposit(table)

    def expected(
        event: Event, cells: RingCells, tracks: IntArray, layers: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        truth, particle = require_truth(event), event.tracks.particle[tracks]
        offsets, entry = entries_of_particles(event.clusters, truth, particle)
        none = np.zeros(len(tracks))
        sets = MatchedSets(tracks, layers, offsets, entry, none, none)
        found = true_signal(event.clusters, truth, particle, sets)
        owner = np.repeat(np.arange(len(tracks)), np.diff(offsets))
        mean = np.bincount(owner, found, len(tracks)).astype(np.float64)
        return mean, by_table(event, cells, tracks, layers)[1]

    return expected


def network_deposit(path: str | os.PathLike[str], table: EoverPTable) -> Deposit:
    """Mean by a network in the format of Athena's neural E/p, width by the table.

    The network takes points around the track at EMB2: cells of at least MIN_CELL of the clusters
    within MAX_DISTANCE, then the track in each layer that it reaches, its momentum shared among
    them. Where there are too many the softest cells are left out, never the track.

    Parameters
    ----------
    path : path-like
        ONNX file with one float32 input of shape (1, 1086, 5), or any number of tracks in place of
        the 1; the first element of its output is ln(E / GeV).

    Raises
    ------
    ValidationError
        If the file does not load or has another input; on use, if an answer is not finite.
    """
    session = open_session(path)  # type: ignore[arg-type]
    (taken,) = session.get_inputs()[:1]
    if len(session.get_inputs()) != 1 or list(taken.shape[1:]) != [N_POINTS, 5]:
        raise ValidationError(
            f"{path}: expected one input of shape (1, {N_POINTS}, 5), as Athena's neural E/p has, "
            f"found {[(of.name, of.shape) for of in session.get_inputs()]}"
        )
    by_table = table_deposit(table)

    def expected(
        event: Event, cells: RingCells, tracks: IntArray, layers: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        mean = np.empty(len(tracks))
        for i, track in enumerate(tracks):  # the format has one track a call
            points = deposit_points(event, cells, int(track))[None]
            mean[i] = np.exp(float(session.run(None, {taken.name: points})[0].flat[0]))
        if not np.isfinite(mean).all():
            bad = int(tracks[np.argmin(np.isfinite(mean))])
            raise ValidationError(
                f"{path}: event {event.number}, track {bad}: the answer is not finite"
            )
        return mean, by_table(event, cells, tracks, layers)[1]

    return expected


def deposit_points(event: Event, cells: RingCells, track: int) -> np.ndarray:
    """What Athena's neural E/p is given of a track, shape (N_POINTS, 5) float32, padded with
    zeros.
    """
    tracks, clusters = event.tracks, event.clusters
    eta, phi = tracks.eta_at[track, EMB2], tracks.phi_at[track, EMB2]
    d_phi = np.mod(clusters.phi - phi + np.pi, 2.0 * np.pi) - np.pi
    near = np.hypot(clusters.eta - eta, d_phi) < MAX_DISTANCE
    entries = np.flatnonzero(np.repeat(near, np.diff(clusters.offsets)))
    entries = entries[clusters.cell_energy[entries] >= MIN_CELL]
    reached = np.flatnonzero(np.isfinite(tracks.eta_at[track]))
    entries = entries[np.argsort(-clusters.cell_energy[entries], kind="stable")]
    entries = entries[: N_POINTS - len(reached)]
    cell, n = clusters.cell[entries], len(entries)
    radius = np.array([layer.r for layer in BARREL.layers])
    points = np.zeros((N_POINTS, 5), dtype=np.float32)
    every = slice(0, n + len(reached))
    share = tracks.p[track] / max(len(reached), 1)
    energy = np.append(clusters.cell_energy[entries], np.full(len(reached), share))
    at_eta = np.append(cells.eta[cell], tracks.eta_at[track, reached])
    at_phi = np.append(cells.phi[cell], tracks.phi_at[track, reached])
    layer = np.append(cells.layer[cell], reached)
    points[every, 0] = (np.log(energy) - E_MEAN) / E_WIDTH
    points[every, 1] = (at_eta - eta) / SCALE_ETA
    points[every, 2] = (np.mod(at_phi - phi + np.pi, 2.0 * np.pi) - np.pi) / SCALE_PHI
    points[every, 3] = radius[layer] / SCALE_R
    points[n : n + len(reached), 4] = 1.0
    return points
