"""From one event to charged and neutral objects, linked to their tracks, clusters and cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from particle import Particle

from pfcalib.calibration.eoverp import PION_MASS
from pfcalib.calibration.rings import RingCells, phi_between
from pfcalib.errors import ValidationError
from pfcalib.particleflow.event import (
    HARD_SCATTER,
    Event,
    FloatArray,
    FlowClusters,
    IntArray,
    MatchedSets,
)
from pfcalib.particleflow.match import SUBTRACTED, UNMATCHED, Matches
from pfcalib.particleflow.methods import Method
from pfcalib.particleflow.truth import require_truth

UNSEEN = (12, 13, 14, 16)  # neutrinos and muons have no part in truth jets


class Links(NamedTuple):
    """What each track took from each cluster of its set; arrays of shape (n_links,)."""

    track: IntArray
    cluster: IntArray
    energy: FloatArray  # GeV at the EM scale
    size: FloatArray  # GeV, sum of abs(E) of what was taken
    eta: FloatArray  # barycentre of what was taken, weighted by abs(E)
    phi: FloatArray  # rad


class Neutrals(NamedTuple):
    """What is left of each cluster; arrays of shape (n_clusters,)."""

    energy: FloatArray  # GeV at the EM scale
    size: FloatArray  # GeV, sum of abs(E) of the cells
    eta: FloatArray  # barycentre, weighted by abs(E)
    phi: FloatArray  # rad


class FlowObjects(NamedTuple):
    """What particle flow makes of an event."""

    matches: Matches
    removed: FloatArray  # GeV, one for each entry of the sets
    links: Links
    neutrals: Neutrals

    @property
    def charged(self) -> IntArray:
        """Rows of the tracks that are charged objects: subtracted ones, and those that met no
        cluster.
        """
        status = self.matches.status
        return np.flatnonzero((status == SUBTRACTED) | (status == UNMATCHED))


class Inputs(NamedTuple):
    """Four-momenta in GeV that jets are made of, arrays of shape (n,)."""

    px: FloatArray
    py: FloatArray
    pz: FloatArray
    e: FloatArray
    is_charged: NDArray[np.bool_]


def run_flow(event: Event, cells: RingCells, method: Method) -> FlowObjects:
    """Particle flow of one event.

    Parameters
    ----------
    event : Event
    cells : RingCells
        Of the file of the event.
    method : Method
        See `methods.build_method`.

    Raises
    ------
    ValidationError
        If an energy or a direction is not finite, or the method needs truth that is not there.
    """
    require_sound(event)
    matches = method.match(event, cells)
    removed = method.removed(event, cells, matches.sets)
    clusters, entry = event.clusters, matches.sets.entry
    n_clusters, n_entries = len(clusters.energy), len(clusters.cell)
    cluster_of = np.repeat(np.arange(n_clusters), np.diff(clusters.offsets))
    taken = np.bincount(entry, removed, n_entries)
    left = clusters.cell_energy - taken
    energy = clusters.energy - np.bincount(cluster_of, taken, n_clusters)
    size, eta, phi = _barycentres(clusters, cells, left)
    touched = np.bincount(cluster_of, taken != 0.0, n_clusters) > 0.0
    energy = np.where(touched & (size == 0.0), 0.0, energy)  # with what cells are not in the file
    eta, phi = np.where(touched, eta, clusters.eta), np.where(touched, phi, clusters.phi)
    links = _links(clusters, cells, matches.sets, removed, cluster_of)
    return FlowObjects(matches, removed, links, Neutrals(energy, size, eta, phi))


def require_sound(event: Event) -> None:
    """Refuse energies and directions that are not finite.

    Raises
    ------
    ValidationError
        Naming the event, the quantity and the first such entry.
    """
    for kind, of, names in (
        ("track", event.tracks, ("pt", "p", "eta", "phi")),
        ("cluster", event.clusters, ("energy", "eta", "phi", "scale", "cell_energy")),
    ):
        for name in names:
            values = getattr(of, name)
            if not (finite := np.isfinite(values)).all():
                bad = int(np.argmin(finite))
                raise ValidationError(
                    f"event {event.number}: {kind} {name}[{bad}] is {values[bad]}, expected a "
                    "finite number"
                )


@njit(cache=True, nogil=True, error_model="numpy")
def _barycentres(
    clusters: FlowClusters, cells: RingCells, energy: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum of abs(E) of each cluster, and eta and phi weighted by it, for given energies of the
    cells.
    """
    n = len(clusters.energy)
    size, eta, phi = np.zeros(n), clusters.eta.copy(), clusters.phi.copy()
    for c in range(n):
        d_eta = d_phi = 0.0
        for k in range(clusters.offsets[c], clusters.offsets[c + 1]):
            weight, cell = abs(energy[k]), clusters.cell[k]
            size[c] += weight
            d_eta += weight * (cells.eta[cell] - eta[c])
            d_phi += weight * phi_between(cells.phi[cell], phi[c])
        if size[c] > 0.0:
            eta[c] += d_eta / size[c]
            phi[c] = phi_between(phi[c] + d_phi / size[c], 0.0)
    return size, eta, phi


def _links(
    clusters: FlowClusters,
    cells: RingCells,
    sets: MatchedSets,
    removed: FloatArray,
    cluster_of: IntArray,
) -> Links:
    """Sums over the entries of each track in each cluster of its set."""
    n_clusters = max(len(clusters.energy), 1)
    owner, cluster = np.repeat(sets.track, np.diff(sets.offsets)), cluster_of[sets.entry]
    keys, place = np.unique(owner * n_clusters + cluster, return_inverse=True)
    of, cell, n = keys % n_clusters, clusters.cell[sets.entry], len(keys)
    weight = np.abs(removed)
    size = np.bincount(place, weight, n)
    some = np.where(size > 0.0, size, 1.0)
    d_eta = cells.eta[cell] - clusters.eta[cluster]
    d_phi = _wrapped(cells.phi[cell] - clusters.phi[cluster])
    return Links(
        keys // n_clusters,
        of,
        np.bincount(place, removed, n).astype(np.float64),
        size.astype(np.float64),
        clusters.eta[of] + np.bincount(place, weight * d_eta, n) / some,
        _wrapped(clusters.phi[of] + np.bincount(place, weight * d_phi, n) / some),
    )


def _wrapped(phi: FloatArray) -> FloatArray:
    """Angles in -pi to pi."""
    return np.asarray(np.mod(phi + np.pi, 2.0 * np.pi) - np.pi)


def flow_inputs(event: Event, objects: FlowObjects, *, calibrated: bool = False) -> Inputs:
    """Charged objects of the hard scattering, and neutral objects of positive energy.

    Parameters
    ----------
    event : Event
    objects : FlowObjects
    calibrated : bool
        Neutral objects at the scale of their clusters, see `event.FlowClusters`; otherwise at the
        EM scale, as published.
    """
    charged = objects.charged
    charged = charged[event.tracks.vertex[charged] == HARD_SCATTER]
    tracks, neutrals = event.tracks, objects.neutrals
    momentum = tracks.p[charged]
    scale = event.clusters.scale if calibrated else 1.0
    parts = (
        _four(
            tracks.pt[charged],
            tracks.eta[charged],
            tracks.phi[charged],
            np.hypot(momentum, PION_MASS),
            np.ones(len(charged), dtype=np.bool_),
        ),
        _massless(neutrals.energy * scale, neutrals.eta, neutrals.phi),
    )
    return Inputs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def cluster_inputs(event: Event, *, calibrated: bool = False) -> Inputs:
    """Clusters of positive energy, at the EM or at their calibrated scale."""
    clusters = event.clusters
    scale = clusters.scale if calibrated else 1.0
    return _massless(clusters.energy * scale, clusters.eta, clusters.phi)


def truth_inputs(event: Event) -> Inputs:
    """Stable particles of the hard scattering but for muons and neutrinos.

    Raises
    ------
    ValidationError
        If the event has no truth.
    """
    truth = require_truth(event)
    seen = (truth.vertex == HARD_SCATTER) & ~np.isin(np.abs(truth.pdg_id), UNSEEN)
    kinds, kind = np.unique(truth.pdg_id[seen], return_inverse=True)
    charge = np.array([Particle.from_pdgid(int(pdg_id)).charge for pdg_id in kinds], dtype=float)
    return _four(
        truth.pt[seen], truth.eta[seen], truth.phi[seen], truth.energy[seen], charge[kind] != 0.0
    )


def _four(
    pt: FloatArray, eta: FloatArray, phi: FloatArray, e: FloatArray, is_charged: NDArray[np.bool_]
) -> Inputs:
    return Inputs(pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), e, is_charged)


def _massless(energy: FloatArray, eta: FloatArray, phi: FloatArray) -> Inputs:
    """Of the positive energies."""
    up: NDArray[np.bool_] = energy > 0.0
    pt, none = energy[up] / np.cosh(eta[up]), np.zeros(int(up.sum()), dtype=np.bool_)
    return _four(pt, eta[up], phi[up], energy[up], none)
