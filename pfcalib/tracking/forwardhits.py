"""Pixels that straight lines hit in planes across the beam, with electrons, secondaries and
material.

Planes, pitch and hole are those of the upgraded vertex locator of LHCb (LHCB-TDR-013; places of the
planes as in the public code of Allen, both halves of a station taken for one plane). Pions, and
decays of K0S, Lambda and heavy hadrons, scatter by Highland's formula; photons convert into pairs;
electrons scatter and radiate by the distribution of Bethe and Heitler. A pixel that two particles
hit is one hit of both.
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
from pfcalib.tracking.barrelhits import NOISE, highland
from pfcalib.tracking.beamline import M_PION, levy

F64 = NDArray[np.float64]
PLANES = (
    *(-281.25, -256.25, -231.25, -206.25, -131.25, -56.25, -31.25, -6.25, 18.75, 43.75, 68.75),
    *(93.75, 118.75, 143.75, 168.75, 193.75, 218.75, 243.75, 268.75, 318.75, 393.75, 493.75),
    *(593.75, 643.75, 693.75, 743.75),
)  # mm
PION, ELECTRON, SECONDARY = range(3)  # kinds of particles
KINDS = ("pion", "electron", "secondary")
M_ELECTRON, M_PROTON = 0.000511, 0.9383  # GeV
# of a mother that decays to two: masses of all three, GeV; mean way over beta gamma, mm; how many a
# pion of the collision, rounded from yields at the LHC; added transverse momentum, GeV
MOTHERS = (
    (0.4976, M_PION, M_PION, 26.84, 0.04, 0.2),
    (1.1157, M_PROTON, M_PION, 78.9, 0.015, 0.4),
    (5.279, M_PION, M_PION, 0.455, 0.002, 2.0),
)


@dataclass(frozen=True, kw_only=True)
class ForwardConfig:
    """Which events to make; lengths in mm."""

    n_events: int = 100
    mu: float = 7.6  # collisions an event, of a Poisson distribution
    seed: int = 1
    chunk: int = 20  # events that are made together; the sample depends on it
    planes: tuple[float, ...] = PLANES
    pitch: float = 0.055  # of a pixel
    radius: tuple[float, float] = (5.1, 33.0)  # of a plane, within and without
    foil: float = 3.5  # radius where material begins
    thickness: float = 0.02  # of a plane, with its share of the foil, radiation lengths
    efficiency: float = 0.99
    noise: float = 0.02  # hits of no particle, over all others
    sigma_xy: float = 0.055  # of the collisions
    sigma_z: float = 63.0
    eta: tuple[float, float] = (-4.5, 5.5)
    density: float = 5.5  # pions of a collision and a unit of eta, mean of a negative binomial
    shape: float = 0.72  # its variance is mean + mean^2 / shape
    photons: float = 1.0  # a pion
    electrons: float = 0.01  # of the collision, a pion

    def __post_init__(self) -> None:
        least = (
            *(self.n_events, self.mu, self.chunk, self.pitch, *self.radius, self.foil),
            *(self.sigma_xy, self.sigma_z, self.density, self.shape),
        )
        rising = (self.planes, self.radius, self.eta)
        if not min(least) > 0.0 or any(list(of) != sorted(set(of)) for of in rising):
            raise ConfigError(f"ForwardConfig: expected sizes above 0 and rising edges, not {self}")
        if not (0.0 < self.efficiency <= 1.0 and min(self.noise, self.thickness) >= 0.0):
            raise ConfigError(
                f"ForwardConfig: efficiency = {self.efficiency}, noise = {self.noise}, thickness = "
                f"{self.thickness}: expected in (0, 1], and not below 0"
            )


class ForwardHits(NamedTuple):
    """Hits of one event."""

    position: NDArray[np.float32]  # (n, 3) x, y, z, mm
    layer: NDArray[np.int8]  # (n,) plane, along the beam
    particle: NDArray[np.int32]  # (n,) number in the event, or NOISE
    second: NDArray[np.int32]  # (n,) another particle of the same pixel, or NOISE


class ForwardEvents(NamedTuple):
    """Hits and particles of events, one after the other."""

    n_hits: NDArray[np.int32]  # (n_events,)
    position: NDArray[np.float32]  # (sum of n_hits, 3) x, y, z, mm
    layer: NDArray[np.int8]  # (sum of n_hits,) plane, along the beam
    particle: NDArray[np.int32]  # (sum of n_hits,) number in the event, or NOISE
    second: NDArray[np.int32]  # (sum of n_hits,) another particle of the same pixel, or NOISE
    n_particles: NDArray[np.int32]  # (n_events,)
    kind: NDArray[np.int8]  # (sum of n_particles,) place in KINDS
    p: NDArray[np.float32]  # (sum of n_particles,) GeV
    eta: NDArray[np.float32]  # (sum of n_particles,)
    start: NDArray[np.float32]  # (sum of n_particles, 3) mm

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where the hits of an event begin and end, (n_events + 1,)."""
        return np.concatenate([[0], np.cumsum(self.n_hits, dtype=np.int64)])

    def event(self, number: int) -> ForwardHits:
        """Hits of one event."""
        part = slice(*self.ends[number : number + 2])
        return ForwardHits(
            self.position[part], self.layer[part], self.particle[part], self.second[part]
        )

    def particles(self, number: int) -> slice:
        """Where the particles of one event are."""
        end = int(self.n_particles[: number + 1].sum())
        return slice(end - int(self.n_particles[number]), end)


class Particles(NamedTuple):
    """Particles on their way."""

    event: NDArray[np.int64]  # (n,)
    start: F64  # (n, 3) mm
    momentum: F64  # (n, 3) GeV
    mass: F64  # (n,) GeV
    kind: NDArray[np.int64]  # (n,) place in KINDS


def cached_forward_events(config: ForwardConfig, *, n_processes: int = 1) -> Path:
    """File of the events (.npz, see `read_forward_events`), made where it is not there."""
    key = cache_key("forwardhits", config=config)
    return keep_chunks(
        cache_folder() / "tracking" / f"forward-{key}.npz",
        functools.partial(simulate_forward_events, config), -(-config.n_events // config.chunk),
        join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def read_forward_events(path: Path) -> ForwardEvents:
    """Events of a file of `cached_forward_events`."""
    return ForwardEvents(**read_columns(path))


def simulate_forward_events(config: ForwardConfig, number: int) -> ForwardEvents:
    """Events of one chunk.

    Parameters
    ----------
    config : ForwardConfig
    number : int
        Of the chunk, from 0.
    """
    rng = np.random.default_rng((config.seed, number))
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    made = collide(config, n_events, rng)
    planes = np.array(config.planes)
    length = np.linalg.norm(made.momentum, axis=1)
    places = follow_lines(
        made.start, made.momentum / length[:, None], length, made.mass,
        np.array([*planes, config.foil, *config.radius, config.thickness]), rng,
    )  # fmt: skip
    seen = np.isfinite(places[..., 0]) & (rng.random(places.shape[:2]) < config.efficiency)
    track, layer = np.nonzero(seen)
    of, place = made.event[track], places[track, layer]
    n_noise = rng.poisson(config.noise * len(track) / n_events, n_events)
    noise = np.sqrt(rng.uniform(config.radius[0] ** 2, config.radius[1] ** 2, n_noise.sum()))
    phi = rng.uniform(-np.pi, np.pi, len(noise))
    place = np.concatenate([place, np.column_stack([noise * np.cos(phi), noise * np.sin(phi)])])
    layer = np.concatenate([layer, rng.integers(len(planes), size=len(noise))])
    first = np.searchsorted(made.event, np.arange(n_events))
    particle = np.concatenate([track - first[of], np.full(len(noise), NOISE)])
    of = np.concatenate([of, np.repeat(np.arange(n_events), n_noise)])
    pixel = np.floor(place / config.pitch).astype(np.int64)
    keys, hit = np.unique(np.column_stack([of, layer, pixel]), axis=0, return_inverse=True)
    order = np.lexsort((-particle, hit.ravel()))  # particles of a hit before noise
    begin = np.searchsorted(hit.ravel()[order], np.arange(len(keys) + 1))
    owners = np.full((len(keys), 2), NOISE)
    owners[:, 0] = particle[order[begin[:-1]]]
    more = np.diff(begin) > 1
    owners[more, 1] = particle[order[begin[:-1][more] + 1]]
    middle = config.pitch * (keys[:, 2:] + 0.5)
    mixed = np.lexsort((rng.random(len(keys)), keys[:, 0]))  # a hit does not tell its particle
    return ForwardEvents(
        n_hits=np.bincount(keys[:, 0], minlength=n_events).astype(np.int32),
        position=np.column_stack([middle, planes[keys[:, 1]]])[mixed].astype(np.float32),
        layer=keys[mixed, 1].astype(np.int8),
        particle=owners[mixed, 0].astype(np.int32),
        second=owners[mixed, 1].astype(np.int32),
        n_particles=np.bincount(made.event, minlength=n_events).astype(np.int32),
        kind=made.kind.astype(np.int8),
        p=length.astype(np.float32),
        eta=np.arctanh(made.momentum[:, 2] / length).astype(np.float32),
        start=made.start.astype(np.float32),
    )


def collide(config: ForwardConfig, n_events: int, rng: np.random.Generator) -> Particles:
    """Charged particles of all collisions, decays and conversions, by event."""
    n_vertices = rng.poisson(config.mu, n_events)
    of_vertex = np.repeat(np.arange(n_events), n_vertices)
    width = (config.sigma_xy, config.sigma_xy, config.sigma_z)
    vertices = rng.normal(0.0, width, (len(of_vertex), 3))
    mean = config.density * (config.eta[1] - config.eta[0])
    share = config.shape / (config.shape + mean)
    n_pions = rng.negative_binomial(config.shape, share, len(of_vertex))

    def born(a_pion: float, more: float = 0.0) -> tuple[NDArray[np.int64], F64, F64]:
        # event, place and momentum of particles of the collisions
        counts = n_pions if a_pion == 1.0 else rng.poisson(a_pion * n_pions)
        vertex = np.repeat(np.arange(len(of_vertex)), counts)
        pt, phi = more + levy(len(vertex), rng), rng.uniform(-np.pi, np.pi, len(vertex))
        eta = rng.uniform(*config.eta, len(vertex))
        momentum = pt[:, None] * np.column_stack([np.cos(phi), np.sin(phi), np.sinh(eta)])
        return of_vertex[vertex], vertices[vertex], momentum

    parts = [
        _alike(*born(1.0), M_PION, PION),
        _alike(*born(config.electrons), M_ELECTRON, ELECTRON),
    ]
    for mass, m1, m2, way, rate, more in MOTHERS:
        event, start, momentum = born(rate, more)
        start = start + rng.exponential(way, len(event))[:, None] * momentum / mass
        for daughter, m in zip(decay(momentum, mass, m1, m2, rng), (m1, m2), strict=True):
            parts.append(_alike(event, start, daughter, m, SECONDARY))
    event, start, momentum = born(config.photons)
    momentum = momentum * rng.random((len(event), 1))  # one of the two of a neutral pion
    of, place = convert(start, momentum, config, rng)
    for half in split(momentum[of], rng):
        parts.append(_alike(event[of], place, half, M_ELECTRON, ELECTRON))
    together = Particles(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    # what has no momentum left to speak of makes no hit
    kept = np.linalg.norm(together.momentum, axis=1) > 0.02
    order = np.flatnonzero(kept)[np.argsort(together.event[kept], kind="stable")]
    return Particles(
        together.event[order], together.start[order], together.momentum[order],
        together.mass[order], together.kind[order],
    )  # fmt: skip


def _alike(
    event: NDArray[np.int64], start: F64, momentum: F64, mass: float, kind: int
) -> Particles:
    return Particles(event, start, momentum, np.full(len(event), mass), np.full(len(event), kind))


def decay(momentum: F64, mass: float, m1: float, m2: float, rng: np.random.Generator) -> list[F64]:
    """Momenta of both particles of isotropic decays, (n, 3) each, GeV."""
    size = math.sqrt((mass**2 - (m1 + m2) ** 2) * (mass**2 - (m1 - m2) ** 2)) / (2.0 * mass)
    axis = rng.normal(size=momentum.shape)
    axis *= size / np.linalg.norm(axis, axis=1, keepdims=True)
    energy = np.sqrt(np.sum(momentum**2, axis=1, keepdims=True) + mass**2)
    found = []
    for sign, m in ((1.0, m1), (-1.0, m2)):
        along = sign * np.sum(axis * momentum, axis=1, keepdims=True) / (energy + mass)
        found.append(sign * axis + momentum / mass * (math.hypot(size, m) + along))
    return found


def convert(
    start: F64, momentum: F64, config: ForwardConfig, rng: np.random.Generator
) -> tuple[NDArray[np.int64], F64]:
    """Photons that become pairs in a plane, by 7/9 of its radiation lengths: which, and where."""
    direction = momentum / np.linalg.norm(momentum, axis=1, keepdims=True)
    z = np.array(config.planes)
    way = (z - start[:, 2:]) / direction[:, 2:]
    place = start[:, None] + way[..., None] * direction[:, None]
    radius = np.hypot(place[..., 0], place[..., 1])
    inside = (way > 0.0) & (radius > config.foil) & (radius < config.radius[1])
    share = 1.0 - np.exp(-7.0 / 9.0 * config.thickness / np.abs(direction[:, 2:]))
    converts = inside & (rng.random(inside.shape) < share)
    first = np.argmin(np.where(converts, way, np.inf), axis=1)
    of = np.flatnonzero(converts.any(axis=1))
    return of, place[of, first[of]]


def split(momentum: F64, rng: np.random.Generator) -> list[F64]:
    """Momenta of the two electrons of photons: shares by Bethe and Heitler, kicks of the mass."""
    n = len(momentum)
    share, tried = rng.random(n), np.ones(n, np.bool_)
    while tried.any():  # density 1 - 4/3 x (1 - x)
        tried[tried] = rng.random(tried.sum()) > 1.0 - 4.0 / 3.0 * (share * (1.0 - share))[tried]
        share[tried] = rng.random(tried.sum())
    kick = np.cross(momentum, rng.normal(scale=M_ELECTRON, size=momentum.shape))
    kick /= np.linalg.norm(momentum, axis=1, keepdims=True)
    return [share[:, None] * momentum + kick, (1.0 - share)[:, None] * momentum - kick]


@njit(cache=True)
def radiate(thickness: float, rng: np.random.Generator) -> float:
    """Share of its energy that an electron keeps after so many radiation lengths, by Bethe and
    Heitler: its logarithm follows a Gamma distribution.
    """
    return math.exp(-rng.standard_gamma(thickness / math.log(2.0)))


@njit(cache=True)
def follow_lines(
    start: F64, direction: F64, p: F64, mass: F64, detector: F64, rng: np.random.Generator
) -> F64:
    """Where particles cross the sensitive part of planes, (n, n_planes, 2), mm; NaN elsewhere.

    Parameters
    ----------
    start, direction : ndarray, shape (n, 3)
        mm, and of length 1.
    p, mass : ndarray, shape (n,), GeV
        The lightest ones radiate.
    detector : ndarray
        Places of the planes, radius where material begins, radii of what is sensitive, thickness in
        radiation lengths.
    rng : numpy.random.Generator
    """
    n_planes = len(detector) - 4
    foil, inner, outer, thickness = detector[n_planes:]
    places = np.full((len(start), n_planes, 2), np.nan)
    for i in range(len(start)):
        x, y, z = start[i]
        ux, uy, uz = direction[i]
        energy = p[i]
        for step in range(n_planes):
            j = step if uz > 0.0 else n_planes - 1 - step
            way = (detector[j] - z) / uz
            if way <= 1e-6:
                continue
            x, y, z = x + way * ux, y + way * uy, detector[j]
            radius = math.hypot(x, y)
            if radius < foil or radius > outer:
                continue
            if radius > inner:
                places[i, j, 0], places[i, j, 1] = x, y
            if thickness == 0.0:
                continue
            crossed = thickness / max(abs(uz), 0.05)
            if mass[i] < 0.001:
                energy *= radiate(crossed, rng)
            if energy < 0.01:
                break
            width = highland(energy, crossed, mass[i])
            # two directions across the way
            across = math.hypot(ux, uz)
            vx, vz = uz / across, -ux / across
            wx, wy, wz = uy * vz, uz * vx - ux * vz, -uy * vx
            a, b = width * rng.normal(), width * rng.normal()
            ux, uy, uz = ux + a * vx + b * wx, uy + b * wy, uz + a * vz + b * wz
            length = math.sqrt(ux * ux + uy * uy + uz * uz)
            ux, uy, uz = ux / length, uy / length, uz / length
            if abs(uz) < 0.05:
                break
    return places
