"""Which particles the tracks of an event are of, where a hit may be of two particles: efficiency,
ghosts, clones and purity by the rules of LHCb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.tracking.barrelhits import NOISE
from pfcalib.tracking.forwardhits import ForwardHits
from pfcalib.tracking.trackfinder import MATCH

LEAST_HITS = 3  # of a track, and planes of a particle that should be found


class Matched(NamedTuple):
    """What became of the particles and the tracks of an event."""

    wanted: NDArray[np.bool_]  # (n_particles,) hit LEAST_HITS planes
    n_tracks: NDArray[np.int64]  # (n_particles,) tracks with a share of MATCH of hits of it
    purity: NDArray[np.float64]  # (n_particles,) of them, the mean share of hits of it; or NaN
    hit_efficiency: NDArray[np.float64]  # (n_particles,) share of its hits on a track, mean; or NaN
    is_ghost: NDArray[np.bool_]  # (n_tracks,) is of no particle


def owners(hits: ForwardHits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Particle and hit of all pairs that belong together, (n_pairs,) each; noise left out."""
    particle = np.concatenate([hits.particle, hits.second]).astype(np.int64)
    hit = np.tile(np.arange(len(hits.particle)), 2)
    real = particle != NOISE
    return particle[real], hit[real]


def match_tracks(tracks: NDArray[np.int64], hits: ForwardHits, n_particles: int) -> Matched:
    """Match tracks and particles.

    Parameters
    ----------
    tracks : ndarray, shape (n_tracks, n_planes)
        Places of hits, -1 where there is none.
    hits : ForwardHits
    n_particles : int
    """
    particle, _ = owners(hits)
    n_hits = np.bincount(particle, minlength=n_particles)
    row, column = np.nonzero(tracks >= 0)
    on = tracks[row, column]
    track, name = [], []
    for of in (hits.particle, hits.second):
        real = of[on] != NOISE
        track.append(row[real])
        name.append(of[on][real])
    pair, counts = np.unique(
        np.concatenate(track) * np.int64(max(n_particles, 1)) + np.concatenate(name),
        return_counts=True,
    )
    of_track, of_particle = np.divmod(pair, max(n_particles, 1))
    share = counts / np.bincount(row, minlength=len(tracks))[of_track]
    good = share >= MATCH
    n_tracks = np.bincount(of_particle[good], minlength=n_particles)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(of_particle[good], values[good], n_particles)
        return np.where(n_tracks > 0, total / np.maximum(n_tracks, 1), np.nan)

    return Matched(
        n_hits >= LEAST_HITS, n_tracks, mean(share),
        mean(counts / np.maximum(n_hits[of_particle], 1)),
        ~np.isin(np.arange(len(tracks)), of_track[good]),
    )  # fmt: skip
