"""Which clusters a track is matched to: the nearest in units of their width, those of split
showers, and none in dense surroundings (arXiv:1703.10485, sections 6.2 to 6.5).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit

from pfcalib.calibration.rings import RingCells, densest_layer, distance_to, phi_between
from pfcalib.errors import ConfigError
from pfcalib.particleflow.event import (
    Event,
    FloatArray,
    FlowClusters,
    IntArray,
    MatchedSets,
    Tracks,
)

EMB2 = 2  # place in LAYER_NAMES of the layer where tracks and clusters are compared
# what becomes of a track
UNSELECTED, UNMATCHED, SUBTRACTED, DENSE = 0, 1, 2, 3
LOG_DENSE = math.log10(40_000.0)  # MeV

# mean and width in GeV of what tracks leave: of (event, cells, rows of tracks, layers of highest
# energy density)
Deposit = Callable[[Event, RingCells, IntArray, IntArray], tuple[FloatArray, FloatArray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Cuts of particle flow; the defaults are the published ones.

    Parameters
    ----------
    pt_min, pt_max : float, GeV
        Range of the transverse momentum of tracks that are used.
    eta_max : float
        Of tracks; published 2.5, here the barrel ends at 0.8.
    min_fraction : float
        Least energy of a matched cluster over the momentum of the track.
    max_distance : float
        Largest dR', the distance at EMB2 in units of the width of the cluster.
    min_width : float
        Least width of a cluster in eta and in phi.
    split_sigma, split_radius : float
        A track whose cluster holds less than expected by more than `split_sigma` widths is given
        all clusters within dR < `split_radius`.
    dense_radius, dense_slope : float
        No subtraction where the energy of clusters within `dense_radius` exceeds what is expected
        by more than dense_slope (log10 40000 - log10 pT / MeV) widths.
    whole_sigma : float
        A set of clusters that exceeds what is expected by fewer widths is removed as a whole; so is
        a remnant below as many.

    Raises
    ------
    ConfigError
        If a cut is negative or the range of pT is empty.
    """

    pt_min: float = 0.5
    pt_max: float = 40.0
    eta_max: float = 0.8
    min_fraction: float = 0.1
    max_distance: float = 1.64
    min_width: float = 0.05
    split_sigma: float = 1.0
    split_radius: float = 0.2
    dense_radius: float = 0.15
    dense_slope: float = 33.2
    whole_sigma: float = 1.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0.0:
                raise ConfigError(f"particle flow: {name} must be at least 0, not {value}")
        if not self.pt_min < self.pt_max:
            raise ConfigError(
                f"particle flow: pt_min must be below pt_max, not {self.pt_min}, {self.pt_max} GeV"
            )
        if not self.min_width > 0.0:
            raise ConfigError("particle flow: min_width must be above 0")


class Matches(NamedTuple):
    """Tracks and their nearest clusters; arrays of shape (n_tracks,), or of the selected tracks in
    the order in which they are subtracted.
    """

    status: IntArray  # (n_tracks,) UNSELECTED, UNMATCHED, SUBTRACTED or DENSE
    cluster: IntArray  # (n_tracks,) nearest cluster; -1 without
    distance: FloatArray  # (n_tracks,) its dR'; infinite without
    mean: FloatArray  # (n_tracks,) GeV expected; NaN where the track has no cluster
    sigma: FloatArray  # (n_tracks,) GeV
    density: FloatArray  # (n_tracks,) GeV of clusters within `dense_radius`; NaN likewise
    sets: MatchedSets  # of the tracks that are subtracted


def select_tracks(tracks: Tracks, config: FlowConfig) -> IntArray:
    """Rows of the tracks that are used, in falling pT; equal ones by eta and phi, so that the order
    of the tracks in the file does not matter.
    """
    with np.errstate(invalid="ignore"):
        used = (tracks.pt > config.pt_min) & (tracks.pt < config.pt_max)
        used &= np.abs(tracks.eta) < config.eta_max
    rows = np.flatnonzero(used)
    return rows[np.lexsort((tracks.phi[rows], tracks.eta[rows], -tracks.pt[rows]))]


@njit(cache=True, nogil=True, error_model="numpy")
def cluster_widths(clusters: FlowClusters, cells: RingCells, min_width: float) -> FloatArray:
    """Standard deviations in eta and phi of the cells of each cluster about its barycentre, at
    least min_width; shape (n_clusters, 2).
    """
    n = len(clusters.energy)
    widths = np.full((n, 2), min_width)
    for i in range(n):
        start, stop = clusters.offsets[i], clusters.offsets[i + 1]
        eta2 = phi2 = 0.0
        for k in range(start, stop):
            cell = clusters.cell[k]
            eta2 += (cells.eta[cell] - clusters.eta[i]) ** 2
            phi2 += phi_between(cells.phi[cell], clusters.phi[i]) ** 2
        if stop > start:
            widths[i, 0] = max(min_width, math.sqrt(eta2 / (stop - start)))
            widths[i, 1] = max(min_width, math.sqrt(phi2 / (stop - start)))
    return widths


@njit(cache=True, nogil=True, error_model="numpy")
def find_nearest(
    tracks: Tracks,
    rows: IntArray,
    clusters: FlowClusters,
    widths: FloatArray,
    min_fraction: float,
    dense_radius: float,
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Nearest cluster of each of some tracks in dR', that distance, and the energy of all clusters
    within `dense_radius`.
    """
    n = len(rows)
    nearest, distance, density = np.full(n, -1), np.full(n, np.inf), np.zeros(n)
    for i in range(n):
        eta, phi = tracks.eta_at[rows[i], EMB2], tracks.phi_at[rows[i], EMB2]
        least = min_fraction * tracks.p[rows[i]]
        for c in range(len(clusters.energy)):
            d_eta = clusters.eta[c] - eta
            if not abs(d_eta) < 2.0:
                continue
            d_phi = phi_between(clusters.phi[c], phi)
            if d_eta * d_eta + d_phi * d_phi < dense_radius * dense_radius:
                density[i] += clusters.energy[c]
            if clusters.energy[c] > least:
                d = math.hypot(d_eta / widths[c, 0], d_phi / widths[c, 1])
                if d < distance[i]:
                    nearest[i], distance[i] = c, d
    return nearest, distance, density


@njit(cache=True, nogil=True, error_model="numpy")
def find_layers(
    tracks: Tracks,
    rows: IntArray,
    starts: IntArray,
    stops: IntArray,
    cell: IntArray,
    energy: FloatArray,
    cells: RingCells,
) -> IntArray:
    """Layer of highest energy density of each track in its cells, starts:stops of those given."""
    layers = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        own = slice(starts[i], stops[i])
        track = rows[i]
        layers[i] = densest_layer(
            cells, cell[own], energy[own], tracks.eta_at[track], tracks.phi_at[track]
        )
    return layers


@njit(cache=True, nogil=True, error_model="numpy")
def gather_sets(
    tracks: Tracks,
    rows: IntArray,
    nearest: IntArray,
    clusters: FlowClusters,
    lacking: FloatArray,
    split_radius: float,
) -> tuple[IntArray, IntArray]:
    """Offsets and entries of the cells of the clusters of each track: of the nearest, and of all
    within `split_radius` where energy is lacking.
    """
    n, n_clusters = len(rows), len(clusters.energy)
    taken = np.zeros((n, n_clusters), np.bool_)
    offsets = np.zeros(n + 1, np.int64)
    for i in range(n):
        taken[i, nearest[i]] = True
        if lacking[i] > 0.0:
            eta, phi = tracks.eta_at[rows[i], EMB2], tracks.phi_at[rows[i], EMB2]
            for c in range(n_clusters):
                d_phi = phi_between(clusters.phi[c], phi)
                if math.hypot(clusters.eta[c] - eta, d_phi) < split_radius:
                    taken[i, c] = True
        size = 0
        for c in range(n_clusters):
            if taken[i, c]:
                size += clusters.offsets[c + 1] - clusters.offsets[c]
        offsets[i + 1] = offsets[i] + size
    entry, place = np.empty(offsets[n], np.int64), 0
    for i in range(n):
        for c in range(n_clusters):
            if taken[i, c]:
                for k in range(clusters.offsets[c], clusters.offsets[c + 1]):
                    entry[place] = k
                    place += 1
    return offsets, entry


def is_dense(
    density: FloatArray, mean: FloatArray, sigma: FloatArray, pt: FloatArray, slope: float
) -> np.ndarray:
    """Tracks whose surroundings hold too much energy for a subtraction, shape (n,); energies and pT
    in GeV (arXiv:1703.10485, section 6.5).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = (density - mean) / sigma
        return np.asarray(excess > slope * (LOG_DENSE - np.log10(1e3 * pt)))


@njit(cache=True, nogil=True, error_model="numpy")
def gather_cones(
    tracks: Tracks, rows: IntArray, clusters: FlowClusters, cells: RingCells, radius: float
) -> tuple[IntArray, IntArray]:
    """Offsets and entries of the cells of any clusters within dR < `radius` of where each track
    crosses their layer.
    """
    n_clusters, n = len(clusters.energy), 0
    size = np.zeros(n_clusters)  # of each cluster, from its barycentre
    for c in range(n_clusters):
        for k in range(clusters.offsets[c], clusters.offsets[c + 1]):
            cell = clusters.cell[k]
            d_phi = phi_between(cells.phi[cell], clusters.phi[c])
            size[c] = max(size[c], abs(cells.eta[cell] - clusters.eta[c]), abs(d_phi))
    offsets, entry = np.zeros(len(rows) + 1, np.int64), np.empty(len(clusters.cell), np.int64)
    for i in range(len(rows)):
        eta_at, phi_at = tracks.eta_at[rows[i]], tracks.phi_at[rows[i]]
        spread = 0.0  # of where the track crosses the layers
        for layer in range(len(eta_at)):
            if math.isfinite(eta_at[layer]) and math.isfinite(phi_at[layer]):
                d_phi = phi_between(phi_at[layer], phi_at[EMB2])
                spread = max(spread, abs(eta_at[layer] - eta_at[EMB2]), abs(d_phi))
        for c in range(n_clusters):
            far = radius + spread + size[c]
            if abs(clusters.eta[c] - eta_at[EMB2]) > far:
                continue
            if abs(phi_between(clusters.phi[c], phi_at[EMB2])) > far:
                continue
            for k in range(clusters.offsets[c], clusters.offsets[c + 1]):
                if distance_to(cells, clusters.cell[k], eta_at, phi_at) < radius:
                    if n == len(entry):
                        entry = np.concatenate((entry, np.empty_like(entry)))
                    entry[n] = k
                    n += 1
        offsets[i + 1] = n
    return offsets, entry[:n]


def keep_filled(
    n_tracks: int, rows: IntArray, offsets: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Status of all tracks, where those with cells are subtracted; rows and offsets of these."""
    some = np.diff(offsets) > 0
    status = np.full(n_tracks, UNSELECTED)
    status[rows] = np.where(some, SUBTRACTED, UNMATCHED)
    return status, rows[some], np.append(offsets[:-1][some], offsets[-1])


def match_cones(
    event: Event, cells: RingCells, deposit: Deposit, config: FlowConfig, *, radius: float
) -> Matches:
    """Give each track all cells of clusters around it, whichever clusters they belong to: for a
    subtraction that finds out itself what belongs to the track.

    No surroundings are too dense. A track without any cell is unmatched.

    Parameters
    ----------
    event : Event
    cells : RingCells
    deposit : callable
        As of `match`.
    config : FlowConfig
        Its cuts on pT and eta.
    radius : float
        dR in each layer.
    """
    tracks, clusters, n = event.tracks, event.clusters, len(event.tracks.pt)
    rows = select_tracks(tracks, config)
    offsets, entry = gather_cones(tracks, rows, clusters, cells, radius)
    status, rows, offsets = keep_filled(n, rows, offsets)
    layers = find_layers(
        tracks, rows, offsets[:-1], offsets[1:],
        clusters.cell[entry], clusters.cell_energy[entry], cells,
    )  # fmt: skip
    mean, sigma, nothing = np.full((3, n), np.nan)
    mean[rows], sigma[rows] = deposit(event, cells, rows, layers)
    sets = MatchedSets(rows, layers, offsets, entry, mean[rows], sigma[rows])
    return Matches(status, np.full(n, -1), np.full(n, np.inf), mean, sigma, nothing, sets)


def match(event: Event, cells: RingCells, deposit: Deposit, config: FlowConfig) -> Matches:
    """Match the tracks of an event to clusters.

    Parameters
    ----------
    event : Event
    cells : RingCells
    deposit : callable
        What tracks are expected to leave, see `deposit`.
    config : FlowConfig
    """
    tracks, clusters = event.tracks, event.clusters
    n = len(tracks.pt)
    rows = select_tracks(tracks, config)
    status, cluster = np.full(n, UNSELECTED), np.full(n, -1)
    distance, mean, sigma, density = np.full(n, np.inf), *np.full((3, n), np.nan)
    status[rows] = UNMATCHED
    widths = cluster_widths(clusters, cells, config.min_width)
    found, far, around = find_nearest(
        tracks, rows, clusters, widths, config.min_fraction, config.dense_radius
    )
    near = far < config.max_distance
    rows, found = rows[near], found[near]
    cluster[rows], distance[rows], density[rows] = found, far[near], around[near]
    layers = find_layers(
        tracks, rows, clusters.offsets[found], clusters.offsets[found + 1],
        clusters.cell, clusters.cell_energy, cells,
    )  # fmt: skip
    mean[rows], sigma[rows] = deposit(event, cells, rows, layers)
    dense = is_dense(density[rows], mean[rows], sigma[rows], tracks.pt[rows], config.dense_slope)
    status[rows] = np.where(dense, DENSE, SUBTRACTED)
    rows, found, layers = rows[~dense], found[~dense], layers[~dense]
    lacking = mean[rows] - config.split_sigma * sigma[rows] - clusters.energy[found]
    offsets, entry = gather_sets(tracks, rows, found, clusters, lacking, config.split_radius)
    sets = MatchedSets(rows, layers, offsets, entry, mean[rows], sigma[rows])
    return Matches(status, cluster, distance, mean, sigma, density, sets)


def matching(
    deposit: Deposit, config: FlowConfig, *, cone: float = 0.0
) -> Callable[[Event, RingCells], Matches]:
    """`match` with some deposit and cuts, or `match_cones` where a radius is given."""
    if cone > 0.0:
        return partial(match_cones, deposit=deposit, config=config, radius=cone)
    return partial(match, deposit=deposit, config=config)
