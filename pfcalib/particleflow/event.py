"""One event as particle flow sees it: tracks, clusters with cells, and truth where there is any."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.simulation.pileup import UNLISTED
from pfcalib.simulation.tracks import HARD_SCATTER, NO_VERTEX

__all__ = [
    "HARD_SCATTER",  # vertex of tracks and particles of the collision that is looked at
    "NO_VERTEX",
    "UNLISTED",  # particle of a fake track, or of a hit of pile-up that left no track
    "Event",
    "FloatArray",
    "FlowClusters",
    "FlowTruth",
    "IntArray",
    "MatchedSets",
    "Tracks",
]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Tracks(NamedTuple):
    """Tracks of an event, in any order; arrays of shape (n_tracks,) unless said otherwise."""

    pt: FloatArray  # GeV
    p: FloatArray  # GeV
    eta: FloatArray  # at the origin
    phi: FloatArray  # rad
    d0: FloatArray  # mm
    z0: FloatArray  # mm, from the vertex of the hard scattering
    vertex: IntArray  # HARD_SCATTER, the number of a pile-up vertex, or NO_VERTEX
    # (n_tracks, n_layers) where the track crosses each layer; NaN where it does not
    eta_at: FloatArray
    phi_at: FloatArray
    particle: IntArray  # row in the truth of the event, UNLISTED for fakes


class FlowClusters(NamedTuple):
    """Clusters of an event; cells of cluster i at offsets[i]:offsets[i + 1]."""

    energy: FloatArray  # (n_clusters,) GeV at the EM scale, as stored
    eta: FloatArray
    phi: FloatArray  # rad
    # calibrated over EM-scale energy, such as that of local cell weighting; 1 where there is none
    scale: FloatArray
    offsets: IntArray  # (n_clusters + 1,)
    cell: IntArray  # (n_entries,) row in the table of cells
    cell_energy: FloatArray  # (n_entries,) GeV, the share of the cluster in the cell
    weight: FloatArray  # (n_entries,) that share, 0 to 1; 1 but for cells of two clusters


class FlowTruth(NamedTuple):
    """Truth of an event: stable particles, and what each left in each cell."""

    pdg_id: IntArray  # (n_particles,)
    energy: FloatArray  # GeV
    pt: FloatArray  # GeV
    eta: FloatArray
    phi: FloatArray  # rad
    vertex: IntArray  # as of tracks
    hit_cell: IntArray  # (n_hits,) row in the table of cells, rising
    hit_particle: IntArray  # row of the particle, UNLISTED for pile-up without a track
    hit_signal: FloatArray  # GeV at the EM scale, without noise
    hit_deposit: FloatArray  # GeV of calibration truth, invisible energy included


class Event(NamedTuple):
    """All that particle flow takes of one event."""

    number: int
    weight: float
    mu: float  # mean number of interactions a crossing
    tracks: Tracks
    clusters: FlowClusters
    truth: FlowTruth | None


class MatchedSets(NamedTuple):
    """Tracks that are to be subtracted, in the order in which they are, falling pT, and the cells
    of the clusters that each was matched to: entries of set i at offsets[i]:offsets[i + 1].
    """

    track: IntArray  # (n_sets,) row of the tracks
    layer: IntArray  # (n_sets,) layer of highest energy density, place in LAYER_NAMES
    offsets: IntArray  # (n_sets + 1,)
    entry: IntArray  # (n_cells,) entry of the cells of the clusters
    mean: FloatArray  # (n_sets,) GeV that the track is expected to leave
    sigma: FloatArray  # (n_sets,) GeV by which that varies
