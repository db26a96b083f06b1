"""A beam line with several collisions an event, and the tracks that a forward detector sees of
them.

Number and place of the collisions are those of the toy of the PV-finder (arXiv:1906.08306,
arXiv:2007.01023): Poisson(7.6), 55 um across the beam, 100 +- 63 mm along it. Tracks of a collision
follow a negative binomial whose two moments are those of stable charged particles of Pythia's
SoftQCD at 14 TeV in the acceptance, so that 5.6 collisions an event have five tracks, as published.
A track misses its origin by the measured resolution of LHCb, 11.6 + 23.4 / pt um (arXiv:1405.7808).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns

F64 = NDArray[np.float64]
# of a track, the straight line (x, y) = d (-sin phi, cos phi) + slope (z - z0) (cos phi, sin phi)
COLUMNS = ("d", "phi", "slope", "z0", "sigma")  # mm, rad, 1, mm, mm
D, PHI, SLOPE, Z0, SIGMA = range(5)
FORWARD, BACKWARD, FORWARD_SHARE = (2.0, 5.0), (-3.5, -1.5), 0.58  # in eta; by Pythia
LEVY_T, LEVY_N, M_PION = 0.145, 6.6, 0.1396  # GeV, of charged hadrons (arXiv:1005.3299)
PT_RANGE = (0.05, 20.0)  # GeV


@dataclass(frozen=True, kw_only=True)
class BeamLineConfig:
    """Which events to make; lengths in mm."""

    n_events: int = 10_000
    seed: int = 1
    chunk: int = 1_000  # events that are made together; the sample depends on it
    mu: float = 7.6  # collisions an event, of a Poisson distribution
    sigma_xy: float = 0.055
    z_mean: float = 100.0
    z_sigma: float = 63.0
    tracks: float = 27.3  # of a collision, the mean of a negative binomial
    shape: float = 0.72  # its variance is tracks + tracks^2 / shape
    displaced: float = 0.08  # share of the tracks that decays, on the way or of the beam line
    flight: float = 30.0  # mean of that way
    secondaries: float = 0.1  # vertices of decays a collision, of a Poisson distribution
    decay: float = 5.0  # mean of their way
    resolution: tuple[float, float] = (0.0116, 0.0234)  # of a track, a + b / pt, pt in GeV

    def __post_init__(self) -> None:
        positive = (
            *(self.n_events, self.chunk, self.sigma_xy, self.z_sigma, self.tracks),
            *(self.shape, self.flight, self.decay, self.resolution[0]),
        )
        if not (min(positive) > 0.0 and min(self.mu, self.secondaries, *self.resolution) >= 0.0):
            raise ConfigError(f"BeamLineConfig: expected sizes above 0, not {self}")
        if not 0.0 <= self.displaced < 1.0:
            raise ConfigError(f"BeamLineConfig: displaced = {self.displaced}, expected in [0, 1)")


class BeamEvents(NamedTuple):
    """Tracks and collisions of events, one after the other."""

    n_tracks: NDArray[np.int32]  # (n_events,)
    n_vertices: NDArray[np.int32]  # (n_events,) collisions, also those without a track
    tracks: NDArray[np.float32]  # (sum of n_tracks, 5) of COLUMNS
    origin: NDArray[np.int32]  # (sum of n_tracks,) collision of the event that a track is of
    is_prompt: NDArray[np.bool_]  # (sum of n_tracks,) comes from the collision itself
    vertices: NDArray[np.float32]  # (sum of n_vertices, 3) x, y, z, mm
    n_prompt: NDArray[np.int32]  # (sum of n_vertices,) tracks that come from it

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where the tracks of an event begin and end, (n_events + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_tracks, dtype=np.int64)])

    @property
    def vertex_ends(self) -> NDArray[np.int64]:
        """Where the collisions of an event begin and end, (n_events + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_vertices, dtype=np.int64)])

    def take(self, events: NDArray[np.bool_]) -> BeamEvents:
        """Some of the events, by a mask."""
        track, vertex = np.repeat(events, self.n_tracks), np.repeat(events, self.n_vertices)
        masks = (events, events, track, track, track, vertex, vertex)
        return BeamEvents(*(array[mask] for array, mask in zip(self, masks, strict=True)))


def cached_beam_events(config: BeamLineConfig, *, n_processes: int = 1) -> Path:
    """File of the events (.npz, see `read_beam_events`), made where it is not there."""
    key = cache_key("beamline", config=config)
    return keep_chunks(
        cache_folder() / "tracking" / f"beamline-{key}.npz",
        functools.partial(simulate_beam_events, config), -(-config.n_events // config.chunk),
        join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def read_beam_events(path: Path) -> BeamEvents:
    """Events of a file of `cached_beam_events`."""
    return BeamEvents(**read_columns(path))


def simulate_beam_events(config: BeamLineConfig, number: int) -> BeamEvents:
    """Events of one chunk.

    Parameters
    ----------
    config : BeamLineConfig
    number : int
        Of the chunk, from 0.
    """
    rng = np.random.default_rng((config.seed, number))
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    n_vertices = rng.poisson(config.mu, n_events)
    n = int(n_vertices.sum())
    width = (config.sigma_xy, config.sigma_xy, config.z_sigma)
    vertices = rng.normal((0.0, 0.0, config.z_mean), width, (n, 3))
    share = config.shape / (config.shape + config.tracks)
    multiplicity = rng.negative_binomial(config.shape, share, n)
    owner = np.repeat(np.arange(n), multiplicity)
    eta, phi, pt = _directions(len(owner), rng)
    # a displaced track is a daughter, turned away from its mother by a kick across her way
    is_prompt = rng.random(len(owner)) >= config.displaced
    way = np.where(is_prompt, 0.0, rng.exponential(config.flight, len(owner)))
    kick = 0.2 / pt * rng.normal(size=(2, len(owner)))
    mother = _unit(eta + kick[0], phi + kick[1])
    start = vertices[owner] + way[:, None] * mother
    # decays of heavy hadrons, of two tracks at least
    of = np.repeat(np.arange(n), rng.poisson(config.secondaries, n) * (multiplicity > 0))
    eta_b, phi_b, _ = _directions(len(of), rng)
    away = rng.exponential(config.decay, len(of))[:, None] * _unit(eta_b, phi_b)
    daughters = np.repeat(np.arange(len(of)), 2 + rng.poisson(1.0, len(of)))
    pt_d = 0.5 + levy(len(daughters), rng)
    apart = 1.0 / pt_d * rng.normal(size=(2, len(daughters)))  # of two GeV
    owner = np.concatenate([owner, of[daughters]])
    start = np.concatenate([start, (vertices[of] + away)[daughters]])
    eta = np.concatenate([eta, eta_b[daughters] + apart[0]])
    phi = np.concatenate([phi, phi_b[daughters] + apart[1]])
    pt = np.concatenate([pt, pt_d])
    is_prompt = np.concatenate([is_prompt, np.zeros(len(daughters), np.bool_)])
    event = np.repeat(np.arange(n_events), n_vertices)
    first = np.cumsum(n_vertices) - n_vertices
    order = np.lexsort((rng.random(len(owner)), event[owner]))  # a track does not tell its origin
    sigma = config.resolution[0] + config.resolution[1] / pt
    tracks = measure_tracks(start, eta, phi, sigma, rng)[order].astype(np.float32)
    owner, is_prompt = owner[order], is_prompt[order]
    return BeamEvents(
        n_tracks=np.bincount(event[owner], minlength=n_events).astype(np.int32),
        n_vertices=n_vertices.astype(np.int32),
        tracks=tracks,
        origin=(owner - first[event[owner]]).astype(np.int32),
        is_prompt=is_prompt,
        vertices=vertices.astype(np.float32),
        n_prompt=np.bincount(owner[is_prompt], minlength=n).astype(np.int32),
    )


def measure_tracks(
    start: F64, eta: ArrayLike, phi: ArrayLike, sigma: ArrayLike, rng: np.random.Generator
) -> F64:
    """Straight lines as they are measured, (n, 5) of COLUMNS, at their closest to the beam.

    Parameters
    ----------
    start : ndarray, shape (n, 3), mm
        A point of each.
    eta, phi : array_like, shape (n,), rad
        Where they go.
    sigma : array_like, shape (n,), mm
        Of the distance to the line that was true, in each of two directions across it.
    """
    eta, phi, sigma = (np.asarray(values, np.float64) for values in (eta, phi, sigma))
    slope, cos, sin = 1.0 / np.sinh(eta), np.cos(phi), np.sin(phi)
    across, along = sigma * rng.normal(size=(2, len(sigma)))
    d = start[:, 1] * cos - start[:, 0] * sin + across
    # moved in the plane of beam and track, by `along` across the track
    u = start[:, 0] * cos + start[:, 1] * sin + along / np.tanh(np.abs(eta))
    z0 = start[:, 2] - u / slope
    return np.column_stack([d, np.remainder(phi + np.pi, 2.0 * np.pi) - np.pi, slope, z0, sigma])


def levy(n: int, rng: np.random.Generator, *, pt_min: float = PT_RANGE[0]) -> F64:
    """Transverse momenta by pt (1 + (m_T - m) / (n T))^-n of pions, GeV, shape (n,).

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    pt_min : float, GeV
        The largest is that of PT_RANGE.
    """
    pt = np.geomspace(pt_min, PT_RANGE[1], 2000)
    density = pt * (1.0 + (np.hypot(pt, M_PION) - M_PION) / (LEVY_N * LEVY_T)) ** -LEVY_N
    total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(pt))])
    return np.interp(rng.random(n), total / total[-1], pt)


def _directions(n: int, rng: np.random.Generator) -> tuple[F64, F64, F64]:
    low, high = np.where(rng.random(n) < FORWARD_SHARE, *np.array([FORWARD, BACKWARD])[:, :, None])
    return rng.uniform(low, high), rng.uniform(-np.pi, np.pi, n), levy(n, rng)


def _unit(eta: F64, phi: F64) -> F64:
    return np.column_stack([np.cos(phi), np.sin(phi), np.sinh(eta)]) / np.cosh(eta)[:, None]
