"""Events of wide showers of tracks and narrow ones of neutrals that overlap, all in one cluster;
what turns, mirrors or shuffles an event.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from particleflow.hand_made import tracks_of

from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import Event, FlowClusters, FlowTruth, MatchedSets

CHARGED, NEUTRAL = 211, 22
# share of the energy in each layer, and width dR
SHOWERS = {
    CHARGED: ((0.02, 0.1, 0.38, 0.08, 0.25, 0.15, 0.02), 0.035),
    NEUTRAL: ((0.02, 0.3, 0.63, 0.05, 0.0, 0.0, 0.0), 0.012),
}
RESPONSE = 0.6  # of what a track leaves over its momentum
NOISE = 0.01  # GeV a cell
N_SPOTS = 150  # of a shower


def shower(rng, pdg_id, eta, phi, energy):
    """Cells of a shower and GeV in each."""
    layers, width = SHOWERS[pdg_id]
    counts = rng.multinomial(N_SPOTS, layers)
    at = np.array([eta, phi]) + rng.normal(0.0, width, (N_SPOTS, 2))
    parts = np.split(at, np.cumsum(counts)[:-1])
    cell = np.concatenate([BARREL.locate(i, *part.T) for i, part in enumerate(parts)])
    cell, counts = np.unique(cell[cell >= 0], return_counts=True)
    return cell, energy * counts / N_SPOTS


def overlap(
    rng: np.random.Generator, number: int, *, pdg_ids: Sequence[int] = (CHARGED, NEUTRAL)
) -> tuple[Event, MatchedSets]:
    """Particles within dR of about 0.1, in one cluster that all tracks are matched to."""
    eta, phi = rng.uniform(-0.4, 0.4), rng.uniform(-np.pi, np.pi)
    hits, tracks, true = [], [], []
    for i, pdg_id in enumerate(pdg_ids):
        angle, far = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.06, 0.12) * (i > 0)
        at = eta + far * np.cos(angle), phi + far * np.sin(angle)
        pt = rng.uniform(5.0, 20.0)
        response = RESPONSE * rng.normal(1.0, 0.15) if pdg_id == CHARGED else RESPONSE
        cell, signal = shower(rng, pdg_id, *at, response * pt * np.cosh(at[0]))
        hits.append((cell, np.full(len(cell), i), signal))
        true.append((pt * np.cosh(at[0]), pt, *at))
        if pdg_id == CHARGED:
            tracks.append({"pt": pt, "eta": at[0], "phi": at[1], "particle": i})
    cell, particle, signal = (np.concatenate(column) for column in zip(*hits, strict=True))
    order = np.lexsort((particle, cell))
    cell, particle, signal = cell[order], particle[order], signal[order]
    cells, at = np.unique(cell, return_inverse=True)
    energy = np.bincount(at, signal) + rng.normal(0.0, NOISE, len(cells))
    clusters = FlowClusters(
        np.array([energy.sum()]), np.array([eta]), np.array([phi]), np.ones(1),
        np.array([0, len(cells)]), cells, energy, np.ones(len(cells)),
    )  # fmt: skip
    truth = FlowTruth(
        np.array(pdg_ids), *np.array(true).T, np.zeros(len(pdg_ids), np.int64),
        cell, particle, signal, signal,
    )  # fmt: skip
    event = Event(number, 1.0, 0.0, tracks_of(*tracks), clusters, truth)
    return event, whole_sets(event)


def overlaps(seed: int, numbers: Sequence[int], **of) -> list[tuple[Event, MatchedSets]]:
    """Several such events."""
    rng = np.random.default_rng(seed)
    return [overlap(rng, number, **of) for number in numbers]


def whole_sets(event: Event) -> MatchedSets:
    """Every track in falling pT with all entries."""
    track = np.argsort(-event.tracks.pt)
    n, n_entries = len(track), len(event.clusters.cell)
    mean = RESPONSE * event.tracks.p[track]
    entry = np.tile(np.arange(n_entries), n)
    return MatchedSets(track, np.full(n, 2), n_entries * np.arange(n + 1), entry, mean, 0.15 * mean)


def moved(event: Event, *, towers: int = 0, mirror: bool = False) -> Event:
    """The event turned in phi by some of the 64 towers, and mirrored in eta if wanted."""
    turn, sign = towers * 2.0 * np.pi / 64, -1.0 if mirror else 1.0
    new = np.concatenate(
        [
            BARREL.locate(i, sign * BARREL.eta[here], BARREL.phi[here] + turn)
            for i in range(BARREL.n_layers)
            for here in [BARREL.layer == i]
        ]
    )

    def turned(phi):
        return np.mod(phi + turn + np.pi, 2.0 * np.pi) - np.pi

    def directions(of, eta="eta", phi="phi"):
        return of._replace(**{eta: sign * getattr(of, eta), phi: turned(getattr(of, phi))})

    tracks = directions(directions(event.tracks), "eta_at", "phi_at")
    clusters = directions(event.clusters)
    return event._replace(tracks=tracks, clusters=clusters._replace(cell=new[clusters.cell]))


def shuffled(sets: MatchedSets, order: np.ndarray) -> MatchedSets:
    """The entries in another order, which keeps each within its set."""
    return sets._replace(entry=sets.entry[order])


def order_within(rng: np.random.Generator, sets: MatchedSets) -> np.ndarray:
    """A random order of the entries of each set."""
    bounds = zip(sets.offsets[:-1], sets.offsets[1:], strict=True)
    return np.concatenate([rng.permutation(np.arange(*of)) for of in bounds])
