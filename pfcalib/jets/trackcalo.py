"""What large jets are made of: clusters alone, track-calo-clusters, and particle flow.

A track-calo-cluster (ATL-PHYS-PUB-2017-015) has the direction of a track and energy of clusters.
Clusters that several tracks point to are shared by the pT of the tracks, of which each counts in
each of its clusters by the share of that cluster in the pT of all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.jets.fastcalo import RESOLUTION, Clusters, Tracks, four_momentum
from pfcalib.simulation.tracks import resolution

FloatArray = NDArray[np.float64]

FLOW_PT = 40.0  # GeV; harder tracks are left to the calorimeter (arXiv:1703.10485)
FLOW_DISTANCE = 0.2  # in (eta, phi) within which a track takes from clusters
FLOW_REMAINDER = 1.5  # standard deviations of a track's deposit that nothing is made of


class Flow(NamedTuple):
    """Charged and neutral objects of an event."""

    charged: NDArray[np.bool_]  # (n_tracks,) tracks that are objects
    left: FloatArray  # (n_clusters,) GeV that is left of each cluster


def share_energy(tracks: Tracks, clusters: Clusters) -> tuple[FloatArray, FloatArray]:
    """Track-calo-clusters of an event.

    Parameters
    ----------
    tracks : Tracks
    clusters : Clusters

    Returns
    -------
    combined : ndarray, shape (n, 4), GeV
        px, py, pz, e of tracks with a cluster; the others are left out.
    neutral : ndarray, shape (m, 4), GeV
        Of clusters without a track.
    """
    matched = is_matched(tracks, clusters)
    momentum = clusters.momentum
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    has_track, has_cluster = matched.any(axis=0), matched.any(axis=1)
    total = np.hypot(*(matched @ momentum[:, :2]).T)
    share = np.divide(
        matched * pt, total[:, None], out=np.zeros(matched.shape), where=matched
    )  # of each cluster in those of a track
    asked = np.hypot(*(share.T @ (tracks.pt[:, None] * _direction(tracks))).T)
    weight = np.divide(
        share * tracks.pt[:, None], asked, out=np.zeros(matched.shape), where=matched
    )
    px, py, pz, e = (weight @ momentum)[has_cluster].T
    mass = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0.0))
    combined = four_momentum(
        np.hypot(px, py), tracks.eta[has_cluster], tracks.phi[has_cluster], mass
    )
    return combined, momentum[~has_track]


def is_matched(tracks: Tracks, clusters: Clusters) -> NDArray[np.bool_]:
    """Tracks (first axis) that point to clusters, within the width of the cluster and the error of
    the track, added in eta and in phi; none where that error is larger than the cluster.
    """
    d_eta, d_phi = _apart(tracks, clusters)
    error_eta = (resolution("cot_theta", tracks.pt) / np.cosh(tracks.eta))[:, None]
    error_phi = resolution("phi", tracks.pt)[:, None]
    reach2 = (clusters.width + error_eta) ** 2 + (clusters.width + error_phi) ** 2
    precise = error_eta**2 + error_phi**2 < 2.0 * clusters.width**2
    return (d_eta**2 + d_phi**2 < reach2) & precise


def subtract_tracks(tracks: Tracks, clusters: Clusters) -> Flow:
    """Particle flow with clusters as a whole: each track, the hardest of less than FLOW_PT first,
    takes its momentum from the nearest clusters, and what is left of these where it may be a
    fluctuation of its deposit.
    """
    d_eta, d_phi = _apart(tracks, clusters)
    distance = np.hypot(d_eta, d_phi)
    left = clusters.energy.copy()
    p = tracks.pt * np.cosh(tracks.eta)
    a, b = RESOLUTION["hadron"]
    sigma = p * (a / np.sqrt(p) + b)
    charged = tracks.pt < FLOW_PT
    for track in np.flatnonzero(charged)[np.argsort(-tracks.pt[charged], kind="stable")]:
        row = distance[track]
        near = np.flatnonzero(row < FLOW_DISTANCE)
        missing = p[track]
        for cluster in near[np.argsort(row[near])]:
            taken = min(left[cluster], missing)
            left[cluster] -= taken
            missing -= taken
            if left[cluster] < FLOW_REMAINDER * sigma[track]:
                left[cluster] = 0.0
            if missing < sigma[track]:
                break
    return Flow(charged, left)


def flow_objects(tracks: Tracks, clusters: Clusters, flow: Flow) -> FloatArray:
    """Four-momenta of particle flow, (n, 4) GeV: tracks, and what they left of the clusters."""
    left = flow.left / clusters.energy
    return np.concatenate(
        [tracks.momentum[flow.charged], (left[:, None] * clusters.momentum)[flow.left > 0.0]]
    )


def unified_objects(tracks: Tracks, clusters: Clusters, flow: Flow) -> FloatArray:
    """Four-momenta of unified flow objects (arXiv:2009.04986), (n, 4) GeV: particle flow whose
    remaining clusters are shared by the tracks that were left to the calorimeter.
    """
    hard = Tracks._make(x[~flow.charged] for x in tracks)
    rest = Clusters._make(x[flow.left > 0.0] for x in clusters)
    rest = rest._replace(energy=flow.left[flow.left > 0.0])
    return np.concatenate([tracks.momentum[flow.charged], *share_energy(hard, rest)])


def _apart(tracks: Tracks, clusters: Clusters) -> tuple[FloatArray, FloatArray]:
    """Distances in eta and phi at the calorimeter, (n_tracks, n_clusters)."""
    d_phi = np.remainder(tracks.phi_calo[:, None] - clusters.phi + np.pi, 2.0 * np.pi) - np.pi
    return tracks.eta[:, None] - clusters.eta, d_phi


def _direction(tracks: Tracks) -> FloatArray:
    return np.stack([np.cos(tracks.phi), np.sin(tracks.phi)], axis=-1)
