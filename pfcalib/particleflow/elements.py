"""What one network for particle flow sees of an event, and what it is to learn of it (after MLPF,
arXiv:2101.08578 and arXiv:2601.17554).

Elements are all tracks and all clusters, or all cells of clusters. The rules of truth:

* A particle with a track belongs to that track: charged hadron, electron or muon if it comes from
  the hard scattering, else pile-up. A track without a particle is nothing.
* The energy of any other particle is shared among the clusters in proportion to what it left in
  each. One that left less than LEAST of its energy in all of them is lost: neutrinos, and what
  misses the calorimeter.
* A cluster is what the particle is that left most in it: nothing where that has a track, as the
  track stands for it, and where there is only noise; pile-up where it is of another collision;
  else a photon (as are a neutral pion, and an electron without a track) or a neutral hadron (as is
  any other particle without a track). Its energy is the sum of all shares of the hard scattering,
  whatever its label: merged photons are one photon of the energy of both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.calibration.eoverp import PION_MASS
from pfcalib.calibration.rings import RingCells, phi_between
from pfcalib.features.windows import (
    CHARGED,
    ELECTRON,
    ELEMENT_COLUMNS,
    MUON,
    N_LAYERS,
    NEUTRAL,
    NOTHING,
    PHOTON,
    PILE_UP,
    TARGETS,
)
from pfcalib.particleflow.event import (
    HARD_SCATTER,
    NO_VERTEX,
    UNLISTED,
    Event,
    FloatArray,
    FlowClusters,
    FlowTruth,
    IntArray,
)
from pfcalib.particleflow.match import EMB2
from pfcalib.particleflow.truth import require_truth

LEAST = 0.1  # share of its energy that a particle without a track must leave in clusters
MIN_ENERGY = 0.05  # GeV of a cluster, as a scale; noise can take it below
AROUND, CORE = 0.1, 0.04  # dR of energies and momenta around an element
STRIP = 8.0  # more than a turn of phi


class Elements(NamedTuple):
    """Tracks, then clusters, of an event."""

    columns: NDArray[np.float32]  # (n, len(ELEMENT_COLUMNS))
    energy: FloatArray  # (n,) GeV, by which a network multiplies
    eta: FloatArray  # (n,) direction at the origin, to which it adds
    phi: FloatArray  # rad
    n_tracks: int


class Deposits(NamedTuple):
    """What each particle left in each cluster; arrays of shape (n,), by cluster."""

    cluster: IntArray
    particle: IntArray  # UNLISTED for all pile-up without a track together
    energy: FloatArray  # GeV of calibration truth


def event_elements(event: Event, cells: RingCells) -> Elements:
    """The elements of an event.

    Parameters
    ----------
    event : Event
        With finite numbers, see `flow.require_sound`.
    cells : RingCells
        Of its file.
    """
    tracks, clusters = event.tracks, event.clusters
    column = {name: np.zeros(len(tracks.pt) + len(clusters.energy)) for name in ELEMENT_COLUMNS}
    of_tracks, of_clusters = slice(0, len(tracks.pt)), slice(len(tracks.pt), None)

    reaches = np.isfinite(tracks.eta_at[:, EMB2]) & np.isfinite(tracks.phi_at[:, EMB2])
    eta = np.where(reaches, tracks.eta_at[:, EMB2], tracks.eta)
    phi = np.where(reaches, tracks.phi_at[:, EMB2], tracks.phi)
    around, core = _around(tracks.eta_at, tracks.phi_at, clusters, cells)
    given: dict[str, FloatArray] = {
        "is_track": np.ones(len(eta)),
        "hard": tracks.vertex == HARD_SCATTER,
        "pile_up": (tracks.vertex != HARD_SCATTER) & (tracks.vertex != NO_VERTEX),
        "energy": np.hypot(tracks.p, PION_MASS),
        "pt": tracks.pt,
        "eta": eta,
        "phi": phi,
        "bend": _wrapped(tracks.phi - phi),
        "tilt": tracks.eta - eta,
    }
    for name, sums in (("energy", around), ("core", core)):
        given |= _by_layer(name, sums)
    given |= _by_layer("eta", np.nan_to_num(tracks.eta_at - eta[:, None]))
    given |= _by_layer("phi", np.nan_to_num(_wrapped(tracks.phi_at - phi[:, None])))
    for name, values in given.items():
        column[name][of_tracks] = values

    shape = _cluster_shapes(clusters, cells)
    given = {
        "is_cluster": np.ones(len(clusters.energy)),
        "energy": np.maximum(clusters.energy * clusters.scale, MIN_ENERGY),
        "em": clusters.energy,
        "n_cells": np.diff(clusters.offsets),
        "eta": clusters.eta,
        "phi": clusters.phi,
        "width_eta": shape.width[:, 0],
        "width_phi": shape.width[:, 1],
        **_by_layer("energy", shape.energy),
        **_by_layer("eta", shape.centre[:, :, 0]),
        **_by_layer("phi", shape.centre[:, :, 1]),
    }
    for name, values in given.items():
        column[name][of_clusters] = values
    column["hard_momentum"], column["pile_up_momentum"] = _momenta(
        column["eta"], column["phi"], tracks.p, tracks.vertex == HARD_SCATTER
    )
    return Elements(
        np.column_stack(list(column.values())).astype(np.float32),
        column["energy"],
        column["eta"] + column["tilt"],
        _wrapped(column["phi"] + column["bend"]),
        len(tracks.pt),
    )


def split_clusters(event: Event, cells: RingCells) -> Event:
    """The same event with each cell of each cluster as a cluster of its own, at the scale of the
    cluster that it comes from: the finest elements.

    The true energies of the cells of a cluster sum to that of the cluster.
    """
    clusters = event.clusters
    of = np.repeat(np.arange(len(clusters.energy)), np.diff(clusters.offsets))
    fine = clusters._replace(
        energy=clusters.cell_energy,
        eta=cells.eta[clusters.cell],
        phi=cells.phi[clusters.cell],
        scale=clusters.scale[of],
        offsets=np.arange(len(of) + 1),
    )
    return event._replace(clusters=fine)


def element_targets(event: Event, elements: Elements) -> NDArray[np.float32]:
    """What a network is to learn of the elements of an event, by the rules above.

    Parameters
    ----------
    event : Event
        With truth.
    elements : Elements
        Of it.

    Returns
    -------
    ndarray of float32, shape (n, len(TARGETS))
        The weight is 1.

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    truth, tracks, n_tracks = require_truth(event), event.tracks, elements.n_tracks
    n = len(elements.energy)
    label, energy, share = np.full(n, NOTHING), np.zeros(n), np.zeros(n)
    away = np.zeros((n, 2))

    known = np.flatnonzero(tracks.particle != UNLISTED)
    particle = tracks.particle[known]
    hard = truth.vertex[particle] == HARD_SCATTER
    label[known] = np.where(hard, _charged_label(truth.pdg_id[particle]), PILE_UP)
    energy[known] = np.where(hard, truth.energy[particle], 0.0)
    away[known, 0] = truth.eta[particle] - elements.eta[known]
    away[known, 1] = _wrapped(truth.phi[particle] - elements.phi[known])
    share[known] = ~hard

    left = cluster_deposits(event)
    tracked = np.zeros(len(truth.pdg_id) + 1, dtype=np.bool_)  # the last is UNLISTED
    tracked[particle] = True
    is_hard = np.append(truth.vertex == HARD_SCATTER, False)
    total = np.bincount(left.cluster, left.energy, n - n_tracks)
    other = np.bincount(left.cluster, left.energy * ~is_hard[left.particle], n - n_tracks)
    share[n_tracks:] = np.divide(other, total, out=np.zeros(len(total)), where=total > 0.0)

    most = _hottest(left)
    of, leader = left.cluster[most], left.particle[most]
    kind = np.append(_neutral_label(truth.pdg_id), PILE_UP)[leader]
    kind = np.where(is_hard[leader], kind, PILE_UP)
    label[n_tracks + of] = np.where(tracked[leader], NOTHING, kind)

    brought = _shares(truth, left, is_hard & ~tracked)
    rows = n_tracks + left.cluster
    energy += np.bincount(rows, brought, n)
    eta, phi = truth.eta[left.particle], truth.phi[left.particle]  # UNLISTED brings nothing
    for axis, of_particle, of_element in ((0, eta, elements.eta), (1, phi, elements.phi)):
        difference = of_particle - of_element[rows]
        moved = np.bincount(rows, brought * (_wrapped(difference) if axis else difference), n)
        away[n_tracks:, axis] = (moved / np.where(energy > 0.0, energy, 1.0))[n_tracks:]
    column = {
        "label": label, "energy": energy / elements.energy, "d_eta": away[:, 0],
        "d_phi": away[:, 1], "pile_up": share, "scale": elements.energy, "weight": np.ones(n),
    }  # fmt: skip
    return np.column_stack([column[name] for name in TARGETS]).astype(np.float32)


def cluster_deposits(event: Event) -> Deposits:
    """What each particle left in each cluster; of a cell of two clusters the share of each.

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    truth, clusters = require_truth(event), event.clusters
    first = np.searchsorted(truth.hit_cell, clusters.cell, side="left")
    n_hits = np.searchsorted(truth.hit_cell, clusters.cell, side="right") - first
    entry = np.repeat(np.arange(len(clusters.cell)), n_hits)
    hit = np.arange(len(entry)) + np.repeat(first - np.cumsum(n_hits) + n_hits, n_hits)
    of = np.repeat(np.arange(len(clusters.energy)), np.diff(clusters.offsets))
    n_particles = len(truth.pdg_id) + 1
    key, place = np.unique(
        of[entry] * n_particles + truth.hit_particle[hit] + 1, return_inverse=True
    )
    energy = np.bincount(place, truth.hit_deposit[hit] * clusters.weight[entry], len(key))
    return Deposits(key // n_particles, key % n_particles - 1, energy.astype(np.float64))


def _hottest(left: Deposits) -> IntArray:
    """Place of the largest deposit of each cluster that has one above 0."""
    order = np.lexsort((-left.energy, left.cluster))
    order = order[left.energy[order] > 0.0]
    return order[np.unique(left.cluster[order], return_index=True)[1]]


def _shares(truth: FlowTruth, left: Deposits, counts: NDArray[np.bool_]) -> FloatArray:
    """GeV that each deposit stands for: the energy of the particles that count, shared in
    proportion to what they left in each cluster.
    """
    found = np.bincount(left.particle + 1, left.energy, len(truth.energy) + 1)[1:]
    counts = counts[:-1] & (found > LEAST * truth.energy)
    factor = np.divide(truth.energy, found, out=np.zeros(len(found)), where=counts)
    return np.append(factor, 0.0)[left.particle] * left.energy


def _charged_label(pdg_id: IntArray) -> IntArray:
    kind = np.abs(pdg_id)
    return np.where(kind == 11, ELECTRON, np.where(kind == 13, MUON, CHARGED))


def _neutral_label(pdg_id: IntArray) -> IntArray:
    return np.where(np.isin(np.abs(pdg_id), (11, 22, 111)), PHOTON, NEUTRAL)


def _by_layer(name: str, values: FloatArray) -> dict[str, FloatArray]:
    """Columns of layers of a name."""
    names = [column for column in ELEMENT_COLUMNS if column.startswith(f"{name}_")]
    return dict(zip(names, values.T, strict=True))


def _wrapped(phi: FloatArray) -> FloatArray:
    return np.asarray(np.mod(phi + np.pi, 2.0 * np.pi) - np.pi)


class _Shapes(NamedTuple):
    energy: FloatArray  # (n_clusters, n_layers) GeV
    centre: FloatArray  # (n_clusters, n_layers, 2) eta and phi of the cells of a layer
    width: FloatArray  # (n_clusters, 2) of all cells


@njit(cache=True, nogil=True, error_model="numpy")
def _cluster_shapes(clusters: FlowClusters, cells: RingCells) -> _Shapes:
    """Where the cells of clusters lie, from the barycentre, weighted by abs(E)."""
    n = len(clusters.energy)
    energy, size = np.zeros((n, N_LAYERS)), np.zeros((n, N_LAYERS))
    centre, width = np.zeros((n, N_LAYERS, 2)), np.zeros((n, 2))
    for c in range(n):
        total = 0.0
        for k in range(clusters.offsets[c], clusters.offsets[c + 1]):
            cell, weight = clusters.cell[k], abs(clusters.cell_energy[k])
            layer = cells.layer[cell]
            if layer < 0:
                continue
            d_eta = cells.eta[cell] - clusters.eta[c]
            d_phi = phi_between(cells.phi[cell], clusters.phi[c])
            energy[c, layer] += clusters.cell_energy[k]
            size[c, layer] += weight
            centre[c, layer, 0] += weight * d_eta
            centre[c, layer, 1] += weight * d_phi
            width[c, 0] += weight * d_eta**2
            width[c, 1] += weight * d_phi**2
            total += weight
        for layer in range(N_LAYERS):
            for axis in range(2):
                centre[c, layer, axis] /= max(size[c, layer], 1e-9)
        for axis in range(2):
            width[c, axis] = math.sqrt(width[c, axis] / max(total, 1e-9))
    return _Shapes(energy, centre, width)


@njit(cache=True, nogil=True, error_model="numpy")
def _shelve(eta: FloatArray, phi: FloatArray) -> tuple[FloatArray, IntArray]:
    """Keys of points, rising, and their places: strips in eta as wide as AROUND, one behind the
    other, in each by phi.
    """
    key = STRIP * np.floor(eta / AROUND) + phi - 2.0 * math.pi * np.floor(phi / (2.0 * math.pi))
    order = np.argsort(key)
    return key[order], order


@njit(cache=True, nogil=True, error_model="numpy")
def _near(
    key: FloatArray, order: IntArray, eta: tuple[float, float], phi: tuple[float, float]
) -> IntArray:
    """Places of the points of the strips that reach into a range of eta, in a range of phi."""
    found = [order[:0]]
    turn = 2.0 * math.pi
    start = phi[0] - turn * math.floor(phi[0] / turn)
    stop = min(start + phi[1] - phi[0], start + turn)
    for strip in range(math.floor(eta[0] / AROUND), math.floor(eta[1] / AROUND) + 1):
        low = np.searchsorted(key, STRIP * strip + start)
        found.append(order[low : np.searchsorted(key, STRIP * strip + min(stop, turn))])
        if stop > turn:
            low = np.searchsorted(key, STRIP * strip)
            found.append(order[low : np.searchsorted(key, STRIP * strip + stop - turn)])
    n = 0
    for part in found:
        n += len(part)
    places, n = np.empty(n, np.int64), 0
    for part in found:
        places[n : n + len(part)] = part
        n += len(part)
    return places


@njit(cache=True, nogil=True, error_model="numpy")
def _around(
    eta_at: FloatArray, phi_at: FloatArray, clusters: FlowClusters, cells: RingCells
) -> tuple[FloatArray, FloatArray]:
    """Energy of the cells of all clusters within AROUND, and within CORE, of each track in each
    layer, (n_tracks, n_layers) GeV.
    """
    key, order = _shelve(cells.eta[clusters.cell], cells.phi[clusters.cell])
    around, core = np.zeros(eta_at.shape), np.zeros(eta_at.shape)
    for t in range(len(eta_at)):
        reached = np.isfinite(eta_at[t] + phi_at[t])
        if not reached.any():
            continue
        eta, phi = eta_at[t][reached], phi_at[t][reached]
        for i in range(1, len(phi)):
            phi[i] = phi[0] + phi_between(phi[i], phi[0])
        eta_range = (eta.min() - AROUND, eta.max() + AROUND)
        for k in _near(key, order, eta_range, (phi.min() - AROUND, phi.max() + AROUND)):
            cell = clusters.cell[k]
            layer = cells.layer[cell]
            if layer < 0 or not reached[layer]:
                continue
            distance = math.hypot(
                cells.eta[cell] - eta_at[t, layer], phi_between(cells.phi[cell], phi_at[t, layer])
            )
            if distance < AROUND:
                around[t, layer] += clusters.cell_energy[k]
            if distance < CORE:
                core[t, layer] += clusters.cell_energy[k]
    return around, core


@njit(cache=True, nogil=True, error_model="numpy")
def _momenta(
    eta: FloatArray, phi: FloatArray, momentum: FloatArray, is_hard: NDArray[np.bool_]
) -> FloatArray:
    """Momentum of tracks of the hard scattering, and of others, within AROUND of each element but
    itself, (2, n); the first elements are the tracks.
    """
    found, n_tracks = np.zeros((2, len(eta))), len(momentum)
    key, order = _shelve(eta[:n_tracks], phi[:n_tracks])
    for i in range(len(eta)):
        eta_range = (eta[i] - AROUND, eta[i] + AROUND)
        for t in _near(key, order, eta_range, (phi[i] - AROUND, phi[i] + AROUND)):
            square = (eta[t] - eta[i]) ** 2 + phi_between(phi[t], phi[i]) ** 2
            if t != i and square < AROUND**2:
                found[0 if is_hard[t] else 1, i] += momentum[t]
    return found
