"""Events of the barrel with particles that begin away from the beam: both pions of neutral kaons,
or of another particle that lives long.

Mass and lifetime of the short-lived kaon are those of the Review of Particle Physics. Outer layers
may measure as those of a strip detector: the place along the beam is the middle of a strip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import (
    F64,
    BarrelConfig,
    BarrelEvents,
    follow,
    simulate_barrel_events,
    smear,
)
from pfcalib.tracking.beamline import M_PION, levy


@dataclass(frozen=True, kw_only=True)
class LongLivedConfig(BarrelConfig):
    """Which events to make; lengths in mm.

    Parameters
    ----------
    n_decays : int
        Of an event, two particles each, on top of n_tracks.
    mass : float, GeV
    lifetime : float
        Times the speed of light.
    decay_pt_min : float, GeV
        Of what decays.
    strips : tuple of float
        Length along the beam of what a layer measures with, one a layer or none; 0 measures with
        the resolution.
    """

    n_decays: int = 100
    mass: float = 0.497611
    lifetime: float = 26.84
    decay_pt_min: float = 1.0
    strips: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (min(self.lifetime, self.decay_pt_min) > 0.0 and self.mass > 2.0 * M_PION):
            raise ConfigError(
                f"LongLivedConfig: mass = {self.mass}, lifetime = {self.lifetime}, decay_pt_min = "
                f"{self.decay_pt_min}: expected above two pions, and above 0"
            )
        if self.n_decays < 0 or len(self.strips) not in (0, len(self.radii)):
            raise ConfigError(
                f"LongLivedConfig: n_decays = {self.n_decays}, {len(self.strips)} strips: expected "
                f"not below 0, and none or {len(self.radii)}"
            )


class Decays(NamedTuple):
    """Decays of particles into two pions."""

    place: F64  # (n, 3) from where the particle began, mm
    momenta: F64  # (n, 2, 3) GeV


def simulate_decays(n: int, rng: np.random.Generator, config: LongLivedConfig) -> Decays:
    """Flight and decay of particles of the transverse momenta of `levy`, flat in pseudorapidity.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator
    config : LongLivedConfig
    """
    pt = levy(n, rng, pt_min=config.decay_pt_min)
    eta = rng.uniform(-config.eta_max, config.eta_max, n)
    phi, phi_star = rng.uniform(-np.pi, np.pi, (2, n))
    cosine = rng.uniform(-1.0, 1.0, n)
    boost = (pt * np.cosh(eta) / config.mass)[:, None]  # beta gamma
    way = np.column_stack([np.cos(phi), np.sin(phi), np.sinh(eta)]) / np.cosh(eta)[:, None]
    sine = np.sqrt(1.0 - cosine**2)
    star = np.column_stack([sine * np.cos(phi_star), sine * np.sin(phi_star), cosine])
    star *= np.sqrt(0.25 * config.mass**2 - M_PION**2)
    along = np.sum(star * way, axis=1, keepdims=True)
    turned = star + (np.hypot(1.0, boost) - 1.0) * along * way
    half = 0.5 * config.mass * boost * way
    flight = config.lifetime * rng.exponential(size=(n, 1)) * boost
    return Decays(flight * way, np.stack([half + turned, half - turned], axis=1))


def simulate_long_lived(config: LongLivedConfig, number: int) -> tuple[BarrelEvents, F64]:
    """Events of one chunk, those of `simulate_barrel_events` and the decays.

    Parameters
    ----------
    config : LongLivedConfig
    number : int
        Of the chunk, from 0.

    Returns
    -------
    events : BarrelEvents
        Of each event the particles of decays follow the others.
    began : ndarray, shape (sum of n_particles,), mm
        Distance from the beam at which a particle begins.
    """
    prompt = simulate_barrel_events(config, number)
    rng = np.random.default_rng((config.seed, number, 1))
    n_events, per_event = len(prompt.n_hits), 2 * config.n_decays
    n = n_events * per_event
    decays = simulate_decays(n // 2, rng, config)
    vertex_z = prompt.vertex_z.reshape(n_events, -1)
    first = rng.integers(vertex_z.shape[1], size=(n_events, config.n_decays))
    vertex = np.take_along_axis(vertex_z, first, axis=1).ravel()
    start = np.repeat(decays.place, 2, axis=0)
    start[:, 2] += np.repeat(vertex, 2)
    momentum = decays.momenta.reshape(-1, 3)
    pt, phi = np.hypot(*momentum[:, :2].T), np.arctan2(momentum[:, 1], momentum[:, 0])
    charge, cot = np.tile([1, -1], n // 2), momentum[:, 2] / pt
    states = np.column_stack([start, phi, cot, charge / pt])
    radii, began = np.array(config.radii), np.hypot(start[:, 0], start[:, 1])
    places = np.full((n, len(radii), 3), np.nan)
    inside = np.searchsorted(radii, began)
    for first_layer in range(len(radii)):
        these = inside == first_layer
        places[these, first_layer:] = follow(
            states[these], radii[first_layer:], config.field, config.thickness, rng
        )
    seen = np.isfinite(places[..., 0]) & (rng.random((n, len(radii))) < config.efficiency)
    track, layer = np.nonzero(seen)
    position = np.concatenate(
        [prompt.position, smear(places[track, layer], config.resolution, rng)]
    )
    layer = np.concatenate([prompt.layer, layer])
    if config.strips:
        length = np.array(config.strips)[layer]
        middle = (np.floor(position[:, 2] / np.maximum(length, 1e-9)) + 0.5) * length
        position[:, 2] = np.where(length > 0.0, middle, position[:, 2])
    event = np.repeat(np.arange(n_events), per_event)
    of = np.concatenate([np.repeat(np.arange(n_events), prompt.n_hits), event[track]])
    particle = np.concatenate([prompt.particle, config.n_tracks + track % max(per_event, 1)])
    order = np.lexsort((rng.random(len(of)), of))  # a hit does not tell its particle

    def both(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
        columns = [column.reshape(n_events, -1) for column in (ours, theirs)]
        return np.concatenate(columns, axis=1).ravel().astype(ours.dtype)

    events = BarrelEvents(
        n_hits=np.bincount(of, minlength=n_events).astype(np.int32),
        position=position[order].astype(np.float32),
        layer=layer[order].astype(np.int8),
        particle=particle[order].astype(np.int32),
        n_particles=prompt.n_particles + np.int32(per_event),
        pt=both(prompt.pt, pt),
        eta=both(prompt.eta, np.arcsinh(cot)),
        phi=both(prompt.phi, phi),
        charge=both(prompt.charge, charge),
        vertex_z=both(prompt.vertex_z, start[:, 2]),
    )
    return events, both(np.zeros(n_events * config.n_tracks), began)
