"""Clouds of the cells of all clusters around tracks, and single pions as events with a track."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.eoverp import PION, PION_MASS
from pfcalib.calibration.rings import RingCells
from pfcalib.errors import ConfigError
from pfcalib.features.clouds import Clouds
from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import (
    HARD_SCATTER,
    Event,
    FloatArray,
    FlowClusters,
    FlowTruth,
    IntArray,
    Tracks,
)
from pfcalib.particleflow.match import EMB2
from pfcalib.samples.read import read_sample
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.produce import FIELD
from pfcalib.simulation.refine import point
from pfcalib.simulation.tracks import TrackConfig, Vertices, simulate_tracks

CONE = 1.2  # dR of clusters from a track at EMB2 (ATL-PHYS-PUB-2022-040)


def ring_columns(cells: RingCells) -> FloatArray:
    """`pfcalib.features.clouds.cell_columns` of the cells of particle flow, which do not know their
    noise, at the radius of their layer.
    """
    radius = np.array([layer.r for layer in BARREL.layers])[cells.layer]
    nothing = np.zeros(len(radius))
    return np.column_stack(
        [nothing, cells.eta, cells.phi, cells.layer, radius, cells.d_eta, cells.d_phi]
    ).astype(np.float64)


def near_tracks(
    event: Event, tracks: NDArray[np.integer], cone: float = CONE
) -> tuple[IntArray, IntArray]:
    """Entries of the cells of the clusters whose barycentre lies within `cone` of each track at
    EMB2; those of the first track come first.

    Returns
    -------
    n_entries : array of int, shape (n_tracks,)
    entry : array of int, shape (n_entries.sum(),)
    """
    clusters = event.clusters
    eta, phi = event.tracks.eta_at[tracks, EMB2], event.tracks.phi_at[tracks, EMB2]
    d_phi = np.mod(clusters.phi - phi[:, None] + np.pi, 2.0 * np.pi) - np.pi
    near = np.hypot(clusters.eta - eta[:, None], d_phi) < cone
    owner, entry = np.nonzero(np.repeat(near, np.diff(clusters.offsets), axis=1))
    return np.bincount(owner, minlength=len(tracks)), entry


def track_clouds(
    event: Event, cells: FloatArray, tracks: NDArray[np.integer], *, cone: float = CONE
) -> Clouds:
    """A cloud around each of some tracks of an event, centred where it crosses EMB2.

    Parameters
    ----------
    event : Event
    cells : array, shape (n_cells, 7)
        Of `pfcalib.features.clouds.cell_columns`.
    tracks : array of int
        Rows of the tracks; all must reach EMB2.
    cone : float

    Raises
    ------
    ConfigError
        If a track does not reach EMB2.
    """
    of = event.tracks
    centre = np.column_stack([of.eta_at[tracks, EMB2], of.phi_at[tracks, EMB2]])
    if not np.isfinite(centre).all():
        bad = int(np.asarray(tracks)[np.argmin(np.isfinite(centre).all(axis=1))])
        raise ConfigError(f"event {event.number}: track {bad} does not reach EMB2")
    sizes, entry = near_tracks(event, tracks, cone)
    return Clouds(
        cells,
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        event.clusters.cell[entry].astype(np.int32),
        event.clusters.cell_energy[entry].astype(np.float32),
        centre,
        np.column_stack([of.p[tracks], of.eta_at[tracks], of.phi_at[tracks]]),
    )


def iterate_pions(path: Path, *, rng: np.random.Generator | None = None) -> Iterator[Event]:
    """Events of a sample of single charged pions with one track each, and the pion as truth, of
    which it is not known what it left in which cell.

    Parameters
    ----------
    path : path
        Sample of clusters; the pions of an event without clusters are not in it.
    rng : numpy.random.Generator, optional
        Tracks are found and measured as `pfcalib.simulation.tracks` has it, and events without one
        are left out. By default the track is the true pion.
    """
    sample = read_sample(
        path,
        columns=["eventNumber", "truthPdgId", "truthE", "truthEta", "truthPhi", "clusterE",
                 "clusterEta", "clusterPhi", "cluster_cell_ID", "cluster_cell_E"],
    )  # fmt: skip
    number = sample["eventNumber"]
    first = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(sample)]])
    pion = Particles(
        np.arange(len(first) - 1), sample["truthPdgId"][first[:-1]],
        *(sample[f"truth{name}"][first[:-1]].astype(np.float64) for name in ("E", "Eta", "Phi")),
    )  # fmt: skip
    tracks = _true_tracks(pion) if rng is None else _found_tracks(pion, rng)
    of_event = np.searchsorted(tracks.particle, np.arange(len(first)))
    row = sample.geo.rows(sample.cells["cluster_cell_ID"])
    cell_energy = sample.cells["cluster_cell_E"].astype(np.float64)
    nothing = np.zeros(0)
    for i, (start, stop) in enumerate(pairwise(first)):
        own = slice(of_event[i], of_event[i + 1])
        if abs(pion.pdg_id[i]) != PION or own.start == own.stop:
            continue
        offsets = sample.offsets[start : stop + 1]
        of, one = slice(offsets[0], offsets[-1]), slice(i, i + 1)
        energy, eta, phi = (
            sample[name][start:stop].astype(np.float64)
            for name in ("clusterE", "clusterEta", "clusterPhi")
        )
        p_t = np.sqrt(pion.energy[one] ** 2 - PION_MASS**2) / np.cosh(pion.eta[one])
        zero = np.zeros(1, dtype=np.int64)
        yield Event(
            int(number[start]), 1.0, 0.0,
            Tracks._make(column[own] for column in tracks)._replace(particle=zero),
            FlowClusters(energy, eta, phi, np.ones(len(energy)), offsets - offsets[0],
                         row[of], cell_energy[of], np.ones(of.stop - of.start)),
            FlowTruth(pion.pdg_id[one].astype(np.int64), pion.energy[one], p_t, pion.eta[one],
                      pion.phi[one], zero, zero[:0], zero[:0], nothing, nothing),
        )  # fmt: skip


def _true_tracks(pion: Particles) -> Tracks:
    eta_at, phi_at = point(pion, BARREL, field=FIELD)
    p = np.sqrt(np.maximum(pion.energy**2 - PION_MASS**2, 0.0))
    nothing, vertex = np.zeros(len(p)), np.full(len(p), HARD_SCATTER)
    return Tracks(
        p / np.cosh(pion.eta), p, pion.eta, pion.phi, nothing, nothing, vertex, eta_at, phi_at,
        pion.event,
    )  # fmt: skip


def _found_tracks(pion: Particles, rng: np.random.Generator) -> Tracks:
    n = len(pion.event)
    at_origin = Vertices(np.arange(n + 1), np.zeros(n))
    found = simulate_tracks(
        pion, np.full(n, HARD_SCATTER), at_origin, BARREL, rng, TrackConfig(fakes=0.0), field=FIELD
    )
    return Tracks._make(getattr(found, name) for name in Tracks._fields)
