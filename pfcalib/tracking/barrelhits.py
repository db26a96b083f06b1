"""Hits of helices in ten cylinders about the beam, with multiple scattering, inefficiency and
noise.

Radii are those of the barrel of TrackML (arXiv:1904.06778), the field is 2 T. Between cylinders a
particle moves on an exact helix; at each one two angles of Highland's width (Review of Particle
Physics, section 34.3) turn it. It is followed to its largest distance from the beam and loses no
energy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.tracking.beamline import M_PION, PT_RANGE, levy

F64 = NDArray[np.float64]
CURVATURE = 0.299792458e-3  # 1 / mm, of 1 GeV in 1 T
RADII = (32.0, 72.0, 116.0, 172.0, 260.0, 360.0, 500.0, 660.0, 820.0, 1020.0)  # mm
NOISE = -1  # particle of a hit of none


@dataclass(frozen=True, kw_only=True)
class BarrelConfig:
    """Which events to make; lengths in mm."""

    n_events: int = 100
    n_tracks: int = 1_000  # of an event
    seed: int = 1
    chunk: int = 10  # events that are made together; the sample depends on it
    field: float = 2.0  # T
    radii: tuple[float, ...] = RADII
    thickness: float = 0.02  # of a cylinder, radiation lengths at right angles
    efficiency: float = 0.98
    noise: float = 0.05  # hits of no particle, over all others
    resolution: tuple[float, float] = (0.02, 0.1)  # across and along the beam
    pt_min: float = 0.5  # GeV
    eta_max: float = 1.5
    sigma_xy: float = 0.015  # of the collisions
    sigma_z: float = 50.0
    tracks_per_vertex: int = 50

    def __post_init__(self) -> None:
        least = (
            *(self.n_events, self.n_tracks, self.chunk, self.field, self.pt_min, self.eta_max),
            *(self.tracks_per_vertex, *self.radii, *self.resolution),
        )
        if not min(least) > 0.0 or list(self.radii) != sorted(set(self.radii)):
            raise ConfigError(f"BarrelConfig: expected sizes above 0 and rising radii, not {self}")
        if not self.pt_min < PT_RANGE[1]:
            raise ConfigError(f"BarrelConfig: pt_min = {self.pt_min}, expected below {PT_RANGE[1]}")
        if not (0.0 < self.efficiency <= 1.0 and self.noise >= 0.0 and self.thickness >= 0.0):
            raise ConfigError(
                f"BarrelConfig: efficiency = {self.efficiency}, noise = {self.noise}, thickness = "
                f"{self.thickness}: expected in (0, 1], and not below 0"
            )


class BarrelEvents(NamedTuple):
    """Hits and particles of events, one after the other."""

    n_hits: NDArray[np.int32]  # (n_events,)
    position: NDArray[np.float32]  # (sum of n_hits, 3) x, y, z, mm
    layer: NDArray[np.int8]  # (sum of n_hits,) from the inside
    particle: NDArray[np.int32]  # (sum of n_hits,) number in the event, or NOISE
    n_particles: NDArray[np.int32]  # (n_events,)
    pt: NDArray[np.float32]  # (sum of n_particles,) GeV
    eta: NDArray[np.float32]  # (sum of n_particles,)
    phi: NDArray[np.float32]  # (sum of n_particles,) rad
    charge: NDArray[np.int8]  # (sum of n_particles,)
    vertex_z: NDArray[np.float32]  # (sum of n_particles,) mm

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where the hits of an event begin and end, (n_events + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_hits, dtype=np.int64)])

    def event(self, number: int) -> Hits:
        """Hits of one event."""
        part = slice(*self.ends[number : number + 2])
        return Hits(self.position[part], self.layer[part], self.particle[part])


class Hits(NamedTuple):
    """Hits of one event."""

    position: NDArray[np.float32]  # (n, 3) x, y, z, mm
    layer: NDArray[np.int8]  # (n,)
    particle: NDArray[np.int32]  # (n,) or NOISE


def cached_barrel_events(config: BarrelConfig, *, n_processes: int = 1) -> Path:
    """File of the events (.npz, see `read_barrel_events`), made where it is not there."""
    key = cache_key("barrelhits", config=config)
    return keep_chunks(
        cache_folder() / "tracking" / f"barrel-{key}.npz",
        functools.partial(simulate_barrel_events, config), -(-config.n_events // config.chunk),
        join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def read_barrel_events(path: Path) -> BarrelEvents:
    """Events of a file of `cached_barrel_events`."""
    return BarrelEvents(**read_columns(path))


def simulate_barrel_events(config: BarrelConfig, number: int) -> BarrelEvents:
    """Events of one chunk.

    Parameters
    ----------
    config : BarrelConfig
    number : int
        Of the chunk, from 0.
    """
    rng = np.random.default_rng((config.seed, number))
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    n = n_events * config.n_tracks
    event = np.repeat(np.arange(n_events), config.n_tracks)
    n_vertices = -(-config.n_tracks // config.tracks_per_vertex)
    width = (config.sigma_xy, config.sigma_xy, config.sigma_z)
    vertices = rng.normal(0.0, width, (n_events, n_vertices, 3))
    start = vertices[event, np.tile(np.arange(config.n_tracks) % n_vertices, n_events)]
    pt = levy(n, rng, pt_min=config.pt_min)
    eta = rng.uniform(-config.eta_max, config.eta_max, n)
    phi, charge = rng.uniform(-np.pi, np.pi, n), rng.choice(np.array([-1, 1]), n)
    states = np.column_stack([start, phi, np.sinh(eta), charge / pt])
    radii = np.array(config.radii)
    places = follow(states, radii, config.field, config.thickness, rng)
    seen = np.isfinite(places[..., 0]) & (rng.random((n, len(radii))) < config.efficiency)
    track, layer = np.nonzero(seen)
    position = smear(places[track, layer], config.resolution, rng)
    of = event[track]
    n_noise = rng.poisson(config.noise * len(track) / n_events, n_events)
    noise_event = np.repeat(np.arange(n_events), n_noise)
    noise_layer = rng.integers(len(radii), size=len(noise_event))
    noise = _noise(radii[noise_layer], config.eta_max, rng)
    of, layer = np.concatenate([of, noise_event]), np.concatenate([layer, noise_layer])
    particle = np.concatenate([track % config.n_tracks, np.full(len(noise_event), NOISE)])
    order = np.lexsort((rng.random(len(of)), of))  # a hit does not tell its particle
    return BarrelEvents(
        n_hits=np.bincount(of, minlength=n_events).astype(np.int32),
        position=np.concatenate([position, noise])[order].astype(np.float32),
        layer=layer[order].astype(np.int8),
        particle=particle[order].astype(np.int32),
        n_particles=np.full(n_events, config.n_tracks, np.int32),
        pt=pt.astype(np.float32),
        eta=eta.astype(np.float32),
        phi=phi.astype(np.float32),
        charge=charge.astype(np.int8),
        vertex_z=start[:, 2].astype(np.float32),
    )


@njit(cache=True)
def highland(p: float, thickness: float, mass: float = M_PION) -> float:
    """Width of the angle of multiple scattering in a plane, rad.

    Parameters
    ----------
    p : float, GeV
    thickness : float
        Radiation lengths that it crosses.
    mass : float, GeV
        That of a charged pion by default.

    >>> round(highland(1.0, 0.02), 6)
    0.001655
    """
    beta = p / math.hypot(p, mass)
    logarithm = math.log(thickness / beta**2)
    return 0.0136 / (beta * p) * math.sqrt(thickness) * (1.0 + 0.038 * logarithm)


@njit(cache=True)
def cross(state: F64, radius: float, field: float) -> bool:
    """Move a particle on to where it first crosses a cylinder about the beam, if it does.

    Parameters
    ----------
    state : ndarray, shape (6,)
        x, y, z, mm; azimuth of the way; cotangent of its polar angle; charge / pt, 1 / GeV. It is
        changed.
    radius : float, mm
    field : float, T
        A positive particle turns clockwise in it.
    """
    curve = -CURVATURE * field * state[5]
    x, y, phi = state[0], state[1], state[3]
    centre_x, centre_y = x - math.sin(phi) / curve, y + math.cos(phi) / curve
    size, away = 1.0 / abs(curve), math.hypot(centre_x, centre_y)
    cosine = (radius * radius - away * away - size * size) / (2.0 * size * away)
    if not -1.0 < cosine < 1.0:
        return False
    now, towards = math.atan2(y - centre_y, x - centre_x), math.atan2(centre_y, centre_x)
    sense = 1.0 if curve > 0.0 else -1.0
    turn = 2.0 * math.pi
    for side in (-1.0, 1.0):
        angle = sense * (towards + side * math.acos(cosine) - now) % (2.0 * math.pi)
        turn = min(turn, angle)
    if turn > math.pi:  # on its way back
        return False
    state[3] = phi + sense * turn
    state[0] = x + (math.sin(state[3]) - math.sin(phi)) / curve
    state[1] = y - (math.cos(state[3]) - math.cos(phi)) / curve
    state[2] += state[4] * turn * size
    return True


@njit(cache=True)
def follow(
    states: F64, radii: F64, field: float, thickness: float, rng: np.random.Generator
) -> F64:
    """Where particles cross cylinders, shape (n, n_radii, 3), mm; NaN where they do not.

    Parameters
    ----------
    states : ndarray, shape (n, 6)
        See `cross`.
    radii : ndarray, shape (n_radii,), mm
        Rising.
    field : float, T
    thickness : float
        Radiation lengths of a cylinder at right angles; 0 scatters nothing.
    rng : numpy.random.Generator
    """
    places = np.full((len(states), len(radii), 3), np.nan)
    for i in range(len(states)):
        state = states[i].copy()
        for j in range(len(radii)):
            if not cross(state, radii[j], field):
                break
            places[i, j] = state[:3]
            if thickness > 0.0:
                scatter(state, radii[j], thickness, rng)
    return places


@njit(cache=True)
def scatter(state: F64, radius: float, thickness: float, rng: np.random.Generator) -> None:
    """Turn a particle that crosses a cylinder by two angles of Highland's width."""
    sine = 1.0 / math.sqrt(1.0 + state[4] ** 2)  # of the polar angle
    p = 1.0 / abs(state[5]) / sine
    steep = (state[0] * math.cos(state[3]) + state[1] * math.sin(state[3])) / radius * sine
    width = highland(p, thickness / max(steep, 0.05))
    polar = math.atan2(1.0, state[4]) + width * rng.normal()
    state[3] += width * rng.normal() / sine
    state[4] = 1.0 / math.tan(polar)
    state[5] = math.copysign(1.0 / (p * math.sin(polar)), state[5])


def smear(places: F64, resolution: tuple[float, float], rng: np.random.Generator) -> F64:
    """Places on cylinders as they are measured, (n, 3), mm: on the cylinder, across and along."""
    radius = np.hypot(places[:, 0], places[:, 1])
    across, along = rng.normal(0.0, resolution, (len(places), 2)).T
    phi = np.arctan2(places[:, 1], places[:, 0]) + across / radius
    return np.column_stack([radius * np.cos(phi), radius * np.sin(phi), places[:, 2] + along])


def _noise(radius: F64, eta_max: float, rng: np.random.Generator) -> F64:
    phi, eta = rng.uniform(-np.pi, np.pi, len(radius)), rng.uniform(-eta_max, eta_max, len(radius))
    return np.column_stack([radius * np.cos(phi), radius * np.sin(phi), radius * np.sinh(eta)])
