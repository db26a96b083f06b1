"""What a track is expected to leave in the calorimeter: by the table of E/p, by a network, or the
truth. Each is a function of (event, cells, rows of tracks, layers of highest energy density).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numba import njit

from pfcalib.calibration.eoverp import EoverPArrays, EoverPTable, expected_deposit
from pfcalib.calibration.rings import RingCells
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ValidationError
from pfcalib.features.clouds import write_points
from pfcalib.particleflow.cones import ring_columns, track_clouds
from pfcalib.particleflow.event import Event, FloatArray, IntArray, MatchedSets
from pfcalib.particleflow.match import Deposit
from pfcalib.particleflow.truth import entries_of_particles, require_truth, true_signal

# Athena's neural E/p: one float32 input (1, N_POINTS, 5), see ATHENA_FEATURES of features.clouds;
# one output, ln of GeV
N_POINTS = 1086
MAX_DISTANCE = 0.2  # dR of clusters from the track
BATCH = 64  # tracks at once; in one call where a file takes any number


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


def network_deposit(
    path: str | os.PathLike[str], table: EoverPTable, *, with_width: bool = False
) -> Deposit:
    """Mean by a network in the format of Athena's neural E/p, width by the table.

    The network takes points around the track at EMB2: cells of at least 5 MeV of the clusters
    within MAX_DISTANCE, then the track in each layer that it reaches, its momentum shared among
    them. Where there are too many the softest cells are left out, never the track.

    Parameters
    ----------
    path : path-like
        ONNX file with one float32 input of shape (1, 1086, 5), or any number of tracks in place of
        the 1; the first element of the output of a track is ln(E / GeV).
    table : EoverPTable
    with_width : bool
        Take the width from the network too: the second element is the logarithm of the standard
        deviation of ln E.

    Raises
    ------
    ValidationError
        If the file does not load or has another input, or no width where one is asked for; on use,
        if an answer is not finite.
    """
    session = open_session(Path(path))
    (taken,) = session.get_inputs()[:1]
    if len(session.get_inputs()) != 1 or list(taken.shape[1:]) != [N_POINTS, 5]:
        raise ValidationError(
            f"{path}: expected one input of shape (1, {N_POINTS}, 5), as Athena's neural E/p has, "
            f"found {[(of.name, of.shape) for of in session.get_inputs()]}"
        )
    if with_width and session.get_outputs()[0].shape[-1:] != [2]:
        raise ValidationError(
            f"{path}: expected an output of two numbers a track, ln(E / GeV) and the logarithm of "
            f"its standard deviation, found shape {session.get_outputs()[0].shape}"
        )
    batch = 1 if taken.shape[0] == 1 else BATCH
    by_table = table_deposit(table)

    def expected(
        event: Event, cells: RingCells, tracks: IntArray, layers: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        answers = np.zeros((len(tracks), 1 + with_width))
        for i in range(0, len(tracks), BATCH):
            points = deposit_points(event, cells, tracks[i : i + BATCH])
            parts = [points[k : k + batch] for k in range(0, len(points), batch)]
            found = [
                session.run(None, {taken.name: part})[0].reshape(len(part), -1) for part in parts
            ]
            answers[i : i + BATCH] = np.concatenate(found)[:, : 1 + with_width]
        if not (finite := np.isfinite(answers).all(axis=1)).all():
            raise ValidationError(
                f"{path}: event {event.number}, track {int(tracks[np.argmin(finite)])}: the answer "
                "is not finite"
            )
        mean = np.exp(answers[:, 0])
        if with_width:
            return mean, mean * np.exp(answers[:, 1])
        return mean, by_table(event, cells, tracks, layers)[1]

    return expected


def deposit_points(event: Event, cells: RingCells, tracks: IntArray) -> np.ndarray:
    """What Athena's neural E/p is given of some tracks, shape (n_tracks, N_POINTS, 5) float32,
    padded with zeros.
    """
    clouds = track_clouds(event, ring_columns(cells), tracks, cone=MAX_DISTANCE)
    return write_points(clouds, np.arange(len(tracks)), N_POINTS, layout="athena")
