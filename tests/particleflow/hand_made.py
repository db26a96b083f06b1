"""Events made by hand or at random on the barrel: straight tracks, clusters of chosen cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pfcalib.calibration.rings import N_LAYERS, ring_cells
from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import Event, FlowClusters, FlowTruth, MatchedSets, Tracks
from pfcalib.samples.schema import CellGeo

CELLS = ring_cells(CellGeo.from_grid(BARREL))


def tracks_of(*tracks: Mapping[str, float]) -> Tracks:
    """Straight tracks; each with pt, eta, phi, and as wanted vertex and particle."""

    def column(name: str, otherwise: float = 0.0, dtype: type = float) -> np.ndarray:
        return np.array([track.get(name, otherwise) for track in tracks], dtype=dtype)

    pt, eta, phi = column("pt"), column("eta"), column("phi")
    at = [np.repeat(angle[:, None], N_LAYERS, axis=1) for angle in (eta, phi)]
    vertex, particle = column("vertex", 0, np.int64), column("particle", -1, np.int64)
    nothing = np.zeros(len(tracks))
    return Tracks(pt, pt * np.cosh(eta), eta, phi, nothing, nothing, vertex, *at, particle)


def clusters_of(*clusters: Sequence[tuple[int, float, float, float]]) -> FlowClusters:
    """Clusters as lists of (layer, eta, phi, GeV); a point takes the cell that holds it."""
    cell, energy, offsets, columns = [], [], [0], []
    for cluster in clusters:
        rows = [int(BARREL.locate(layer, eta, phi)) for layer, eta, phi, _ in cluster]
        values = np.array([of[3] for of in cluster])
        weight = np.abs(values) / max(np.abs(values).sum(), 1e-12)
        d_phi = np.angle(np.exp(1j * (BARREL.phi[rows] - BARREL.phi[rows[0]])))
        columns.append(
            (values.sum(), weight @ BARREL.eta[rows], BARREL.phi[rows[0]] + weight @ d_phi)
        )
        cell += rows
        energy += values.tolist()
        offsets.append(len(cell))
    sums, eta, phi = np.array(columns, dtype=float).reshape(-1, 3).T.copy()
    return FlowClusters(
        sums, eta, np.angle(np.exp(1j * phi)), np.ones(len(clusters)), np.array(offsets),
        np.array(cell, dtype=np.int64), np.array(energy, dtype=float), np.ones(len(cell)),
    )  # fmt: skip


def event_of(tracks: Tracks, clusters: FlowClusters, truth: FlowTruth | None = None) -> Event:
    """An event without pile-up and of weight one."""
    return Event(1, 1.0, 0.0, tracks, clusters, truth)


def sets_of(
    tracks: Sequence[int], entries: Sequence[Sequence[int]], mean: Any, sigma: Any
) -> MatchedSets:
    """Sets of tracks, of highest energy density in EMB2."""
    offsets = np.concatenate([[0], np.cumsum([len(of) for of in entries])]).astype(np.int64)
    entry = np.array([i for of in entries for i in of], dtype=np.int64)
    layer = np.full(len(tracks), 2)
    mean, sigma = (np.array(values, dtype=float) for values in (mean, sigma))
    return MatchedSets(np.array(tracks, dtype=np.int64), layer, offsets, entry, mean, sigma)


def share_deposit(mean: float, sigma: float) -> Any:
    """Expected deposit as a share of the momentum."""

    def expected(event: Event, cells: Any, tracks: Any, layers: Any) -> Any:
        p = event.tracks.p[tracks]
        return mean * p, sigma * p

    return expected


def random_event(rng: np.random.Generator, *, n_clusters: int = 6, n_tracks: int = 5) -> Event:
    """Clusters of 1 to 25 cells about random points, also negative cells, some tracks on them, and
    truth: of each positive cell a random part is one particle's, another a second one's.
    """
    phi0, points, clusters = rng.uniform(-np.pi, np.pi), [], []
    for _ in range(n_clusters):
        eta, phi = rng.uniform(-0.3, 0.3), phi0 + rng.uniform(-0.3, 0.3)
        points.append((eta, phi))
        n = int(rng.integers(1, 26))
        layers = rng.integers(0, N_LAYERS, n)
        near = np.array([eta, phi]) + rng.normal(0.0, 0.06, (n, 2))
        energy = rng.exponential(0.6, n) - 0.1
        taken = dict.fromkeys(
            int(BARREL.locate(layer, *at)) for layer, at in zip(layers, near, strict=True)
        )
        cells = [(int(BARREL.layer[c]), BARREL.eta[c], BARREL.phi[c]) for c in taken]
        clusters.append([(*cell, e) for cell, e in zip(cells, energy, strict=False)])
    tracks = []
    for i in range(n_tracks):
        eta, phi = points[rng.integers(n_clusters)] if n_clusters else (0.0, phi0)
        at = {"eta": eta + rng.normal(0, 0.03), "phi": phi + rng.normal(0, 0.03)}
        tracks.append({"pt": 0.6 + rng.exponential(4.0), "particle": i, **at})
    made = clusters_of(*clusters)
    order = np.argsort(made.cell, kind="stable")
    cell = np.unique(made.cell[order])
    n = len(cell)
    energy = np.bincount(np.searchsorted(cell, made.cell), made.cell_energy, n)
    owner = np.stack([rng.integers(0, max(n_tracks, 1), n), np.full(n, max(n_tracks, 1))], axis=1)
    part = rng.random(n)
    signal = np.stack([part, 1.0 - part], axis=1) * np.maximum(energy, 0.0)[:, None]
    particles = np.full(max(n_tracks, 1) + 1, 1.0)
    pdg_id = np.full(len(particles), 211)
    pdg_id[-1] = 22
    truth = FlowTruth(
        pdg_id, particles, particles, 0.0 * particles, 0.0 * particles, 0 * pdg_id,
        np.repeat(cell, 2), owner.ravel(), signal.ravel(), signal.ravel(),
    )  # fmt: skip
    return event_of(tracks_of(*tracks), _shared(made), truth)


def _shared(clusters: FlowClusters) -> FlowClusters:
    """A cell of several clusters belongs to each in parts that add up to one."""
    cell, energy = clusters.cell, clusters.cell_energy
    size, total = (np.bincount(cell, e, BARREL.n_cells)[cell] for e in (np.abs(energy), energy))
    weight = np.abs(energy) / size
    n, part = len(clusters.energy), total * weight
    owner = np.repeat(np.arange(n), np.diff(clusters.offsets))
    share = np.abs(part) / np.bincount(owner, np.abs(part), n)[owner]
    d_phi = np.angle(np.exp(1j * (BARREL.phi[cell] - clusters.phi[owner])))
    phi = clusters.phi + np.bincount(owner, share * d_phi, n)
    return clusters._replace(
        energy=np.bincount(owner, part, n),
        eta=np.bincount(owner, share * BARREL.eta[cell], n),
        phi=np.angle(np.exp(1j * phi)),
        cell_energy=part,
        weight=weight,
    )
