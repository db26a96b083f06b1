"""What a network sees around a track: the cells of its set as points or as images, and the track
itself; and what it is to learn of them.

All numbers are of order 1. Energies and momenta enter as sign(x) ln(1 + abs(x) / 50 MeV).
Directions are taken from where the track crosses the layer of a cell, eta away from 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.calibration.rings import N_LAYERS, RingCells, phi_between
from pfcalib.errors import ValidationError
from pfcalib.particleflow.event import (
    Event,
    FloatArray,
    FlowClusters,
    IntArray,
    MatchedSets,
    Tracks,
)
from pfcalib.particleflow.match import EMB2
from pfcalib.particleflow.truth import require_truth, true_signal

N_POINTS = 128  # cells of a set, by falling abs(E)
N_PIXELS, PIXEL_ETA, PIXEL_PHI = 16, 0.025, 2.0 * math.pi / 256  # cells of EMB2
N_EM = 4  # layers before the tiles
ENERGY = 0.05  # GeV, scale of the logarithms
LENGTH = 0.1  # dR, scale of distances
NEAR, AROUND = 0.05, 0.04  # dR, width of the momentum around a cell, radius of the energy
REACH = 0.4  # dR at EMB2 beyond which another track is not looked at

POINT_FEATURES = (
    "layer",  # place in LAYER_NAMES + 1; 0 where there is no cell
    "energy",
    "weight",  # share of the cluster in the cell
    "d_eta",
    "d_phi",
    "distance",
    "others",  # momentum of other tracks, weighted by a Gaussian in their distance from the cell
    "nearest_distance",  # of the other track that is nearest to the cell
    "nearest_momentum",
    "around",  # energy of the set within dR < 0.04 of the cell, in all layers
    "around_em",  # that before the tiles
)
TRACK_FEATURES = (
    "momentum",
    "eta",
    "mean",  # expected deposit
    "sigma",
    "energy",  # of the set
    "excess",  # (energy - mean) / sigma
    "energy_over_momentum",
    "near",  # share of abs(E) within dR < 0.05 of the track
    "n_cells",
    "layer",  # of highest energy density
    "claimed",  # deposit that other tracks with the same cells are expected to leave in them
    "others",  # momentum of other tracks around
)
INPUT_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "points": {"cells": (N_POINTS, len(POINT_FEATURES)), "track": (len(TRACK_FEATURES),)},
    # energy of each layer, and momentum of other tracks at EMB2
    "images": {
        "images": (N_PIXELS, N_PIXELS, N_LAYERS + 1),
        "track": (len(TRACK_FEATURES),),
    },
}
# places for shares in the output: of points, or of pixels and, in each, layers
N_SLOTS = {"points": N_POINTS, "images": N_PIXELS * N_PIXELS * N_LAYERS}
_SCALES = (
    f"energies and momenta x as sign(x) ln(1 + abs(x) / {ENERGY} GeV), distances over {LENGTH}; "
    f"dR within {NEAR} and {AROUND} of cells, {REACH} of tracks; track: {', '.join(TRACK_FEATURES)}"
)
KIND = "cell_shares_"  # of the contract of a network, before the form
# what goes into a network of each form: a network can only be applied to what it was trained on
MEANINGS = {
    "points": f"cells: {', '.join(POINT_FEATURES)}; {_SCALES}",
    "images": f"images: pixels of {PIXEL_ETA} x {PIXEL_PHI:.4f}, energy of each layer, momentum of "
    f"other tracks; {_SCALES}",
}


class Surroundings(NamedTuple):
    """Inputs of a network for the sets of an event."""

    # float32, by the name of the input, (n_sets, *INPUT_SHAPES[form][name])
    inputs: dict[str, NDArray[np.float32]]
    # (n_entries of the sets,) place of each entry among N_SLOTS; -1 where it has none
    slot: IntArray


@njit(cache=True, nogil=True, error_model="numpy")
def _log(x: float) -> float:
    return math.copysign(math.log1p(abs(x) / ENERGY), x)


@njit(cache=True, nogil=True, error_model="numpy")
def _clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def _crossings(tracks: Tracks) -> FloatArray:
    """Eta and phi of tracks at each layer, (n_tracks, n_layers, 2); at one that a track does not
    reach those of the last before, or of the origin.
    """
    n_tracks, n_layers = tracks.eta_at.shape
    at = np.empty((n_tracks, n_layers, 2))
    for t in range(n_tracks):
        eta, phi = tracks.eta[t], tracks.phi[t]
        for layer in range(n_layers):
            if math.isfinite(tracks.eta_at[t, layer]) and math.isfinite(tracks.phi_at[t, layer]):
                eta, phi = tracks.eta_at[t, layer], tracks.phi_at[t, layer]
            at[t, layer, 0], at[t, layer, 1] = eta, phi
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _offset(eta: float, phi: float, at: FloatArray, sign: float) -> tuple[float, float]:
    """Distances in eta and phi of a point from a track in some layer."""
    return sign * (eta - at[0]), phi_between(phi, at[1])


@njit(cache=True, nogil=True, error_model="numpy")
def _others(
    tracks: Tracks, at: FloatArray, track: int, sign: float
) -> tuple[FloatArray, FloatArray]:
    """Momenta of the other tracks within REACH, (n,), and their distances in eta and phi from the
    track in each layer, (n, n_layers, 2).
    """
    n_layers, n = at.shape[1], 0
    momentum, away = np.empty(len(at)), np.empty((len(at), n_layers, 2))
    for t in range(len(at)):
        if t == track or abs(at[t, EMB2, 0] - at[track, EMB2, 0]) > REACH:
            continue
        d_eta, d_phi = _offset(at[t, EMB2, 0], at[t, EMB2, 1], at[track, EMB2], sign)
        if d_eta * d_eta + d_phi * d_phi < REACH**2:
            momentum[n] = tracks.p[t]
            for i in range(n_layers):
                away[n, i] = _offset(at[t, i, 0], at[t, i, 1], at[track, i], sign)
            n += 1
    return momentum[:n], away[:n]


@njit(cache=True, nogil=True, error_model="numpy")
def _track_features(
    tracks: Tracks, clusters: FlowClusters, cells: RingCells, sets: MatchedSets, at: FloatArray
) -> NDArray[np.float32]:
    """Columns as in TRACK_FEATURES."""
    claimed = np.zeros(len(clusters.cell))
    for s in range(len(sets.track)):
        for i in range(sets.offsets[s], sets.offsets[s + 1]):
            claimed[sets.entry[i]] += sets.mean[s]
    features = np.zeros((len(sets.track), len(TRACK_FEATURES)), np.float32)
    for s in range(len(sets.track)):
        track, mean, start, stop = sets.track[s], sets.mean[s], sets.offsets[s], sets.offsets[s + 1]
        total = size = near = by_others = others = 0.0
        for i in range(start, stop):
            entry = sets.entry[i]
            energy, cell = clusters.cell_energy[entry], clusters.cell[entry]
            total += energy
            size += abs(energy)
            by_others += abs(energy) * (claimed[entry] - mean)
            if cells.layer[cell] >= 0:
                centre = at[track, cells.layer[cell]]
                d_eta, d_phi = _offset(cells.eta[cell], cells.phi[cell], centre, 1.0)
                if math.hypot(d_eta, d_phi) < NEAR:
                    near += abs(energy)
        momentum, away = _others(tracks, at, track, 1.0)
        for t in range(len(momentum)):
            square = away[t, EMB2, 0] ** 2 + away[t, EMB2, 1] ** 2
            others += momentum[t] * math.exp(-0.5 * square / LENGTH**2)
        size = max(size, 1e-9)
        here = features[s]
        here[0] = _log(tracks.p[track])
        here[1] = abs(tracks.eta[track])
        here[2] = _log(mean)
        here[3] = _log(sets.sigma[s])
        here[4] = _log(total)
        here[5] = _clip((total - mean) / max(sets.sigma[s], 1e-3), -10.0, 10.0) / 5.0
        here[6] = _clip(total / max(tracks.p[track], 1e-3), -1.0, 5.0)
        here[7] = near / size
        here[8] = math.log1p(stop - start) / 5.0
        here[9] = sets.layer[s] / N_LAYERS
        here[10] = _log(by_others / size)
        here[11] = _log(others)
    return features


@njit(cache=True, nogil=True, error_model="numpy")
def _points(
    tracks: Tracks, clusters: FlowClusters, cells: RingCells, sets: MatchedSets, at: FloatArray
) -> tuple[NDArray[np.float32], IntArray]:
    """Columns as in POINT_FEATURES, and the place of each entry."""
    points = np.zeros((len(sets.track), N_POINTS, len(POINT_FEATURES)), np.float32)
    slot = np.full(len(sets.entry), -1)
    place = np.empty((N_POINTS, 3))  # eta, phi, energy
    for s in range(len(sets.track)):
        track, start = sets.track[s], sets.offsets[s]
        sign = math.copysign(1.0, tracks.eta[track])
        momentum, away = _others(tracks, at, track, sign)
        of_set = sets.entry[start : sets.offsets[s + 1]]
        order = np.argsort(-np.abs(clusters.cell_energy[of_set]), kind="mergesort")
        n = 0
        for i in order:
            entry = of_set[i]
            cell, energy = clusters.cell[entry], clusters.cell_energy[entry]
            layer = cells.layer[cell]
            if layer < 0:
                continue
            if n == N_POINTS:
                break
            slot[start + i] = n
            # from the track in EMB2, so that no phi jumps
            d_eta, d_phi = _offset(cells.eta[cell], cells.phi[cell], at[track, EMB2], 1.0)
            place[n] = d_eta, d_phi, energy
            d_eta, d_phi = _offset(cells.eta[cell], cells.phi[cell], at[track, layer], sign)
            others, nearest, best = 0.0, REACH**2, 0.0
            for t in range(len(momentum)):
                square = (d_eta - away[t, layer, 0]) ** 2 + (d_phi - away[t, layer, 1]) ** 2
                if square < nearest:
                    nearest, best = square, momentum[t]
                if square < (4.0 * NEAR) ** 2:
                    others += momentum[t] * math.exp(-0.5 * square / NEAR**2)
            here = points[s, n]
            here[0], here[1], here[2] = layer + 1, _log(energy), clusters.weight[entry]
            here[3] = _clip(d_eta / LENGTH, -5.0, 5.0)
            here[4] = _clip(d_phi / LENGTH, -5.0, 5.0)
            here[5] = min(math.hypot(d_eta, d_phi) / LENGTH, 5.0)
            here[6], here[7], here[8] = _log(others), math.sqrt(nearest) / LENGTH, _log(best)
            n += 1
        for i in range(n):
            around = before_tiles = 0.0
            for j in range(n):
                d_eta, d_phi = place[i, 0] - place[j, 0], place[i, 1] - place[j, 1]
                if d_eta * d_eta + d_phi * d_phi < AROUND**2:
                    around += place[j, 2]
                    if points[s, j, 0] <= N_EM:
                        before_tiles += place[j, 2]
            points[s, i, 9], points[s, i, 10] = _log(around), _log(before_tiles)
    return points, slot


@njit(cache=True, nogil=True, error_model="numpy")
def _pixel(d_eta: float, d_phi: float) -> tuple[int, int]:
    """Row and column of the pixel that holds a point; -1 outside."""
    row = math.floor(d_eta / PIXEL_ETA + 0.5 * N_PIXELS)
    column = math.floor(d_phi / PIXEL_PHI + 0.5 * N_PIXELS)
    inside = 0 <= row < N_PIXELS and 0 <= column < N_PIXELS
    return (row, column) if inside else (-1, -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _images(
    tracks: Tracks, clusters: FlowClusters, cells: RingCells, sets: MatchedSets, at: FloatArray
) -> tuple[NDArray[np.float32], IntArray]:
    """Sums over the cells in each pixel, as logarithms, and the place of each entry."""
    images = np.zeros((len(sets.track), N_PIXELS, N_PIXELS, N_LAYERS + 1), np.float32)
    slot = np.full(len(sets.entry), -1)
    for s in range(len(sets.track)):
        track = sets.track[s]
        sign = math.copysign(1.0, tracks.eta[track])
        for i in range(sets.offsets[s], sets.offsets[s + 1]):
            entry = sets.entry[i]
            cell = clusters.cell[entry]
            layer = cells.layer[cell]
            if layer < 0:
                continue
            centre = at[track, layer]
            row, column = _pixel(*_offset(cells.eta[cell], cells.phi[cell], centre, sign))
            if row >= 0:
                images[s, row, column, layer] += clusters.cell_energy[entry]
                slot[i] = (row * N_PIXELS + column) * N_LAYERS + layer
        momentum, away = _others(tracks, at, track, sign)
        for t in range(len(momentum)):
            row, column = _pixel(away[t, EMB2, 0], away[t, EMB2, 1])
            if row >= 0:
                images[s, row, column, N_LAYERS] += momentum[t]
    flat = images.ravel()
    for i in range(len(flat)):
        flat[i] = _log(flat[i])
    return images, slot


def _prepare(
    event: Event, cells: RingCells, sets: MatchedSets
) -> tuple[FloatArray, NDArray[np.float32]]:
    """Where all tracks cross the layers, and the features of those of the sets."""
    tracks, clusters = event.tracks, event.clusters
    for name, values in (
        ("energy of a cell", clusters.cell_energy[sets.entry]),
        ("expected deposit", sets.mean),
        ("width of the expected deposit", sets.sigma),
        *((f"{name} of a track", getattr(tracks, name)) for name in ("p", "eta", "phi")),
    ):
        if not (finite := np.isfinite(values)).all():
            bad = int(np.argmin(finite))
            raise ValidationError(
                f"event {event.number}: {name} is {values[bad]} (place {bad}), expected a finite "
                "number"
            )
    at = _crossings(tracks)
    return at, _track_features(tracks, clusters, cells, sets, at)


def build_points(event: Event, cells: RingCells, sets: MatchedSets) -> Surroundings:
    """The sets of an event as points: the N_POINTS cells of largest abs(E) of each.

    Parameters
    ----------
    event : Event
    cells : RingCells
    sets : MatchedSets

    Returns
    -------
    Surroundings
        Inputs "cells" (n_sets, N_POINTS, len(POINT_FEATURES)), zeros behind the last, and "track"
        (n_sets, len(TRACK_FEATURES)). Cells beyond, and those of no layer, have no slot.

    Raises
    ------
    ValidationError
        If an energy, an expected deposit or a track is not finite.
    """
    at, track = _prepare(event, cells, sets)
    points, slot = _points(event.tracks, event.clusters, cells, sets, at)
    return Surroundings({"cells": points, "track": track}, slot)


def build_images(event: Event, cells: RingCells, sets: MatchedSets) -> Surroundings:
    """The sets of an event as images around the track, N_PIXELS x N_PIXELS pixels of the size of
    cells of EMB2; a cell fills the pixel of its centre.

    Parameters and errors as in `build_points`.

    Returns
    -------
    Surroundings
        Inputs "images" (n_sets, N_PIXELS, N_PIXELS, n_layers + 1), energy of each layer and
        momentum of the other tracks, and "track" (n_sets, len(TRACK_FEATURES)). Cells outside have
        no slot.
    """
    at, track = _prepare(event, cells, sets)
    images, slot = _images(event.tracks, event.clusters, cells, sets, at)
    return Surroundings({"images": images, "track": track}, slot)


BUILDERS = {"points": build_points, "images": build_images}  # by the form


def true_shares(event: Event, sets: MatchedSets) -> FloatArray:
    """Share of the true signal in the cell of each entry that the particle of the track left.

    Parameters
    ----------
    event : Event
        With truth.
    sets : MatchedSets

    Returns
    -------
    ndarray of float64, shape (n_entries of the sets,)
        0 to 1; 0 where the cell has no signal, and for fakes.

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    truth, clusters = require_truth(event), event.clusters
    signal = true_signal(clusters, truth, event.tracks.particle[sets.track], sets)
    n_cells = int(max(clusters.cell.max(initial=-1), truth.hit_cell.max(initial=-1))) + 1
    total = np.bincount(truth.hit_cell, truth.hit_signal, n_cells)[clusters.cell] * clusters.weight
    whole = total[sets.entry]
    return np.clip(np.divide(signal, whole, out=np.zeros(len(whole)), where=whole > 0.0), 0.0, 1.0)
