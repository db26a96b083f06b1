"""Particle guns, the decay of neutral pions at the origin, and the way through the solenoid to the
front of the material.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from particle import Particle

from pfcalib.errors import ConfigError
from pfcalib.simulation.detector import COIL_RADIUS, FRONT

GUNS = {"pi0": 111, "pi+": 211, "pi-": -211, "gamma": 22, "e-": 11}
_BEND = 0.299792458e-3  # GeV / (T mm): pT = 0.3 B R


class Particles(NamedTuple):
    """Particles at the origin, sorted by event; arrays of shape (n,)."""

    event: NDArray[np.int64]
    pdg_id: NDArray[np.int32]
    energy: NDArray[np.float64]  # GeV, total
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]  # rad


class Entry(NamedTuple):
    """Particles at the front of the upstream material, in the frame turned by `phi_axis` about the
    beam; arrays of shape (n,).
    """

    phi_axis: NDArray[np.float64]  # rad, azimuth of the impact
    z: NDArray[np.float64]  # mm; x is FRONT and y is 0
    direction: NDArray[np.float64]  # (n, 3) unit vectors
    reaches: NDArray[np.bool_]  # False where the field curls the particle up in front of the coil


def simulate_gun(
    name: str,
    n_events: int,
    rng: np.random.Generator,
    *,
    energy: tuple[float, float] = (0.2, 2000.0),
    eta: tuple[float, float] = (-0.7, 0.7),
    phi: tuple[float, float] = (-np.pi, np.pi),
) -> Particles:
    """One particle an event, flat in the logarithm of the energy, uniform in eta and phi.

    Parameters
    ----------
    name : str
        One of GUNS; ``pi0`` is not decayed yet, see `decay_pi0`.
    n_events : int
    rng : numpy.random.Generator
    energy : (float, float), GeV
        Range of the total energy.
    eta, phi : (float, float)
        Window at the origin; phi in rad.

    Raises
    ------
    ConfigError
        If the name is unknown or the energies are not increasing, positive and above the particle's
        mass.
    """
    if name not in GUNS:
        raise ConfigError(f"unknown gun {name!r}; there are {', '.join(GUNS)}")
    pdg_id = GUNS[name]
    mass = _mass(pdg_id)
    if not mass < energy[0] <= energy[1]:
        raise ConfigError(
            f"gun {name}: energy range {energy} GeV must increase and lie above the mass, "
            f"{mass:.5f} GeV"
        )
    energies = energy[0] * (energy[1] / energy[0]) ** rng.random(n_events)
    return Particles(
        np.arange(n_events),
        np.full(n_events, pdg_id, np.int32),
        energies,
        rng.uniform(*eta, n_events),
        rng.uniform(*phi, n_events),
    )


def decay_pi0(particles: Particles, rng: np.random.Generator) -> Particles:
    """Particles with every pi0 replaced by its two photons: isotropic in the rest frame, boosted
    along the flight.

    The opening angle is at least 2 asin(m / E); energies add up to the pion's exactly.
    """
    pion = particles.pdg_id == 111
    n = int(pion.sum())
    if n == 0:
        return particles
    mass, e = _mass(111), particles.energy[pion]
    beta = np.sqrt(1.0 - (mass / e) ** 2)
    cos_star, angle = rng.uniform(-1.0, 1.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
    axis = directions(particles.eta[pion], particles.phi[pion])
    side = np.column_stack([-np.sin(particles.phi[pion]), np.cos(particles.phi[pion]), np.zeros(n)])
    across = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(axis, side)
    energies, etas, phis = [], [], []
    for sign in (1.0, -1.0):
        boosted = 1.0 + sign * beta * cos_star
        cos_lab = (beta + sign * cos_star) / boosted
        sin_lab = sign * np.sqrt(np.maximum(1.0 - cos_star**2, 0.0)) * (mass / e) / boosted
        u = cos_lab[:, None] * axis + sin_lab[:, None] * across
        energies.append(0.5 * e * boosted)
        etas.append(np.arcsinh(u[:, 2] / np.hypot(u[:, 0], u[:, 1])))
        phis.append(np.arctan2(u[:, 1], u[:, 0]))
    photons = np.full(2 * n, 22, np.int32)
    made = Particles(
        np.tile(particles.event[pion], 2),
        photons,
        np.concatenate(energies),
        np.concatenate(etas),
        np.concatenate(phis),
    )
    order = np.argsort(np.concatenate([particles.event[~pion], made.event]), kind="stable")
    return Particles(
        *(
            np.concatenate([getattr(particles, name)[~pion], getattr(made, name)])[order]
            for name in Particles._fields
        )
    )


def directions(eta: NDArray[np.float64], phi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors of shape (n, 3)."""
    return np.column_stack([np.cos(phi), np.sin(phi), np.sinh(eta)]) / np.cosh(eta)[:, None]


def propagate(particles: Particles, *, field: float = 0.0) -> Entry:
    """Carry particles from the origin to the front of the material: a helix up to the coil, then a
    straight line.

    On a circle of radius R = pT / (0.3 B) through the origin the chord to the coil stands at psi =
    asin(r_coil / 2R) from the first heading, the heading there at 2 psi, and the arc is r_coil psi
    / sin psi long. Behind the coil r sin(psi) stays the same, the distance of the line from the
    beam.

    Parameters
    ----------
    particles : Particles
    field : float, tesla
        Along the beam, for r < COIL_RADIUS; a positive charge then turns towards smaller phi.
    """
    kinds, kind = np.unique(particles.pdg_id, return_inverse=True)
    mass, charge = (
        np.array([(_mass(int(k)), _charge(int(k))) for k in kinds]).reshape(-1, 2)[kind].T
    )
    pt = np.sqrt(np.maximum(particles.energy**2 - mass**2, 0.0)) / np.cosh(particles.eta)
    sine = 0.5 * COIL_RADIUS * charge * _BEND * field / np.maximum(pt, 1e-9)
    reaches = np.abs(sine) < 1.0
    sine = np.where(reaches, sine, 0.0)
    psi, psi_front = np.arcsin(sine), np.arcsin(COIL_RADIUS / FRONT * sine)
    arc = COIL_RADIUS / np.sinc(psi / np.pi)
    line = FRONT * np.cos(psi_front) - COIL_RADIUS * np.cos(psi)
    direction = (
        np.column_stack([np.cos(psi_front), -np.sin(psi_front), np.sinh(particles.eta)])
        / np.cosh(particles.eta)[:, None]
    )
    return Entry(
        particles.phi - 2.0 * psi + psi_front,
        (arc + line) * np.sinh(particles.eta),
        direction,
        reaches,
    )


def _mass(pdg_id: int) -> float:
    """Mass in GeV."""
    return float(Particle.from_pdgid(pdg_id).mass or 0.0) * 1e-3


def _charge(pdg_id: int) -> float:
    """Charge in units of the proton's."""
    return float(Particle.from_pdgid(pdg_id).charge or 0.0)
