"""Particle guns, the decay of neutral pions and short-lived kaons at the origin, and the way
through the solenoid to the front of the material.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from particle import Particle

from pfcalib.errors import ConfigError
from pfcalib.simulation.detector import COIL_RADIUS, FRONT

GUNS = {
    "pi0": 111, "pi+": 211, "pi-": -211, "gamma": 22, "e-": 11, "e+": -11, "mu-": 13, "mu+": -13,
    "K+": 321, "K-": -321, "K0L": 130, "K0S": 310, "p": 2212, "pbar": -2212, "n": 2112,
    "nbar": -2112,
}  # fmt: skip
K0S_CHARGED = 0.692  # decays of the short-lived kaon to charged pions; the others to neutral ones
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
        One of GUNS; ``pi0`` is not decayed yet, see `decay_at_origin`.
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


def decay_at_origin(particles: Particles, rng: np.random.Generator) -> Particles:
    """Particles with every pi0 replaced by its two photons and every K0S by two pions, whose decays
    follow; energies add up exactly.
    """
    pairs = ((310, K0S_CHARGED, (211, -211)), (310, 1.0, (111, 111)), (111, 1.0, (22, 22)))
    for parent, share, daughters in pairs:
        chosen = particles.pdg_id == parent
        if share < 1.0 and chosen.any():
            chosen &= rng.random(len(chosen)) < share
        if chosen.any():
            particles = _decay(particles, chosen, daughters, rng)
    return particles


def _decay(
    particles: Particles,
    chosen: NDArray[np.bool_],
    daughters: tuple[int, int],
    rng: np.random.Generator,
) -> Particles:
    """Decay the chosen ones into two particles of equal mass: isotropic in the rest frame, boosted
    along the flight.
    """
    parent = Particles._make(values[chosen] for values in particles)
    n, mass, m_daughter = len(parent.energy), _mass(int(parent.pdg_id[0])), _mass(daughters[0])
    gamma = parent.energy / mass
    boost, p_star = np.sqrt(gamma**2 - 1.0), np.sqrt(0.25 * mass**2 - m_daughter**2)
    cos_star, angle = rng.uniform(-1.0, 1.0, n), rng.uniform(0.0, 2.0 * np.pi, n)
    axis = directions(parent.eta, parent.phi)
    side = np.column_stack([-np.sin(parent.phi), np.cos(parent.phi), np.zeros(n)])
    around = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(axis, side)
    across = (p_star * np.sqrt(1.0 - cos_star**2))[:, None] * around
    made = []
    for sign, pdg_id in zip((1.0, -1.0), daughters, strict=True):
        along = sign * p_star * cos_star
        p = (gamma * along + 0.5 * boost * mass)[:, None] * axis + sign * across
        energy = 0.5 * parent.energy + boost * along
        eta, phi = np.arcsinh(p[:, 2] / np.hypot(p[:, 0], p[:, 1])), np.arctan2(p[:, 1], p[:, 0])
        made.append(Particles(parent.event, np.full(n, pdg_id, np.int32), energy, eta, phi))
    rest = Particles._make(values[~chosen] for values in particles)
    joined = [np.concatenate(columns) for columns in zip(rest, *made, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return Particles._make(column[order] for column in joined)


def measurable_energy(particles: Particles) -> NDArray[np.float64]:
    """What each particle can leave in a calorimeter in GeV, shape (n,): the total energy; of
    nucleons the kinetic one, of antinucleons also the mass of the nucleon with which they
    annihilate.
    """
    matter = np.isin(particles.pdg_id, (2212, 2112)).astype(np.float64)
    return particles.energy - _mass(2212) * (matter - np.isin(particles.pdg_id, (-2212, -2112)))


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
