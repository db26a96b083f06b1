"""Hadronic showers: a cascade of tracks and nuclear interactions; its neutral pions shower electromagnetically.

Tracks lose energy by ionisation until an exponentially distributed interaction. An interaction breaks up a nucleus (binding energy is
invisible, nucleons deposit near by) and shares what is left among secondaries by breaking a stick; about a third are neutral pions, in every
generation, so that the electromagnetic fraction rises with energy (Wigmans, Calorimetry, 2nd ed., ch. 2; Gabriel et al., NIM A338 (1994) 336).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pfcalib.simulation.config import ShowerConfig
from pfcalib.simulation.detector import Slabs
from pfcalib.simulation.em import PHOTON
from pfcalib.simulation.kernels import EM, ESCAPED, INVISIBLE, LEAK, NON_EM, Scratch, Setup, deposit, find_slab, push, scatter, turn

PION_MASS, PI0_MASS, PROTON_MASS = 0.13957, 0.13498, 0.93827
PION, PROTON, NEUTRON, PI0 = 2, 3, 4, 5
STEP = 25.0  # mm, longest step inside a layer
MU_KINETIC, POSITRON_MEAN = 0.0041, 0.0370  # GeV, decay of a pion at rest


@njit(cache=True)
def push_pi0(rng: np.random.Generator, scratch: Scratch, energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float) -> None:
    """Decay a neutral pion of total energy `energy` into two photons, isotropic in its rest frame, onto the stack."""
    gamma = max(energy / PI0_MASS, 1.0)
    beta = math.sqrt(1.0 - 1.0 / (gamma * gamma))
    cos_star, angle = 2.0 * rng.random() - 1.0, 2.0 * math.pi * rng.random()
    for sign in (1.0, -1.0):
        e = 0.5 * energy * (1.0 + sign * beta * cos_star)
        cos_lab = (sign * cos_star + beta) / (1.0 + sign * beta * cos_star)
        vx, vy, vz = turn(ux, uy, uz, cos_lab, angle if sign > 0 else angle + math.pi)
        push(scratch, PHOTON, e, x, y, z, vx, vy, vz)


@njit(cache=True)
def at_rest(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float,
) -> None:  # fmt: skip
    """Decay a stopped pi+: a short muon, a late positron of which 9 % fall into the readout gate, neutrinos that escape."""
    slab = find_slab(setup.slabs, x)
    muon = min(MU_KINETIC, energy)
    positron = min(2.0 * POSITRON_MEAN * math.sqrt(rng.random()) * 0.75, energy - muon)
    visible = mip_signal(setup.slabs, slab, config)
    deposit(setup, scratch, phi_axis, slab, x, y, z, muon, visible * muon, NON_EM)
    deposit(setup, scratch, phi_axis, slab, x, y, z, positron, visible * positron if rng.random() < 0.09 else 0.0, EM)
    deposit(setup, scratch, phi_axis, slab, x, y, z, energy - muon - positron, 0.0, ESCAPED)


@njit(cache=True)
def mip_signal(slabs: Slabs, slab: int, config: ShowerConfig) -> float:
    """Signal at the EM scale per energy lost by ionisation in a slab."""
    if slab < 0 or slab >= len(slabs.x_out):
        return 0.0
    return config.mip_scale * slabs.mip_visible[slab]


@njit(cache=True)
def nucleons(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> None:  # fmt: skip
    """Break up a nucleus: binding energy, a few photons, and nucleons that stop near by or fly on when they are fast."""
    slabs = setup.slabs
    slab = find_slab(slabs, x)
    layer = slabs.layer[slab] if 0 <= slab < len(slabs.x_out) else -1
    is_lar = layer < 4
    glow = energy * config.f_gamma
    if glow > 0.0:
        cos_theta, angle = 2.0 * rng.random() - 1.0, 2.0 * math.pi * rng.random()
        vx, vy, vz = turn(ux, uy, uz, abs(cos_theta), angle)
        push(scratch, PHOTON, glow, x, y, z, vx, vy, vz)
    energy -= glow
    deposit(setup, scratch, phi_axis, slab, x, y, z, energy * config.binding, 0.0, INVISIBLE)
    energy -= energy * config.binding
    while energy > 0.0:
        kinetic = min(energy, config.t_nucleon * rng.standard_exponential() + 0.002)
        energy -= kinetic
        forward = min(1.0, kinetic / 0.4)
        cos_theta = 1.0 - 2.0 * rng.random() ** (1.0 + 3.0 * forward)
        vx, vy, vz = turn(ux, uy, uz, cos_theta, 2.0 * math.pi * rng.random())
        if rng.random() < config.f_proton:
            if kinetic > 0.08:
                push(scratch, PROTON, kinetic, x, y, z, vx, vy, vz)
                continue
            response = config.proton_lar if is_lar else config.proton_tile
            signal = kinetic * response * rng.standard_gamma(0.7) / 0.7
            deposit(setup, scratch, phi_axis, slab, x, y, z, kinetic, signal, NON_EM)
        elif kinetic > 0.05:
            push(scratch, NEUTRON, kinetic, x, y, z, vx, vy, vz)
        else:
            slow_neutron(rng, setup, scratch, config, phi_axis, kinetic, x, y, z, vx, vy, vz)


@njit(cache=True)
def slow_neutron(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> None:  # fmt: skip
    """Leave a slow neutron's energy some distance away; little of it is seen, in argon less than in the scintillator's hydrogen."""
    path = config.neutron_path * rng.standard_exponential()
    x, y, z = x + ux * path, y + uy * path, z + uz * path
    slab = find_slab(setup.slabs, x)
    response = 0.0
    if 0 <= slab < len(setup.slabs.x_out) and setup.slabs.layer[slab] >= 0:
        response = config.neutron_lar if setup.slabs.layer[slab] < 4 else config.neutron_tile
    signal = energy * response * rng.standard_gamma(0.4) / 0.4
    deposit(setup, scratch, phi_axis, slab, x, y, z, 0.5 * energy, signal, NON_EM)
    deposit(setup, scratch, phi_axis, slab, x, y, z, 0.5 * energy, 0.0, INVISIBLE)


@njit(cache=True)
def interact(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    kind: int, energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> float:  # fmt: skip
    """One nuclear interaction of a hadron with available energy `energy`; returns the energy given to neutral pions."""
    if rng.random() < config.p_elastic:
        kick = 0.5 * config.pt_elastic * rng.standard_gamma(2.0)
        mass = PION_MASS if kind == PION else PROTON_MASS
        momentum = math.sqrt(max(energy * energy - mass * mass, 1e-6) if kind == PION else energy * (energy + 2.0 * mass))
        lost = min(0.5 * kick * kick / PROTON_MASS, 0.5 * (energy - (PION_MASS if kind == PION else 0.0)))
        deposit(setup, scratch, phi_axis, find_slab(setup.slabs, x), x, y, z, lost, lost * config.proton_lar, NON_EM)
        vx, vy, vz = turn(ux, uy, uz, math.cos(min(kick / momentum, 2.0)), 2.0 * math.pi * rng.random())
        push(scratch, kind, energy - lost, x, y, z, vx, vy, vz)
        return 0.0
    mean = config.nuclear_scale * (1.0 + config.nuclear_slope * math.log(1.0 + energy))
    broken = min(energy, mean * rng.standard_gamma(config.nuclear_shape) / config.nuclear_shape)
    left, neutral, is_leading = energy - broken, 0.0, True
    while left > 0.2:
        share = 1.0 - rng.random() ** (1.0 / (config.leading if is_leading else config.stick))
        e = min(left, max(left * share, 0.16))
        nucleon = rng.random() < config.p_nucleon if not is_leading else kind != PION
        if nucleon:
            new = PROTON if rng.random() < 0.5 else NEUTRON
            momentum = math.sqrt(e * (e + 2.0 * PROTON_MASS))
        else:
            new = PI0 if rng.random() < (config.p_exchange if is_leading else config.p_pi0) else PION
            momentum = math.sqrt(max(e * e - PION_MASS * PION_MASS, 1e-6))
        transverse = 0.5 * config.pt_mean * rng.standard_gamma(2.0)
        cos_theta = math.cos(min(transverse / momentum, 2.0))
        vx, vy, vz = turn(ux, uy, uz, cos_theta, 2.0 * math.pi * rng.random())
        if new == PI0:
            neutral += e
            push_pi0(rng, scratch, e, x, y, z, vx, vy, vz)
        else:
            push(scratch, new, e, x, y, z, vx, vy, vz)
        left -= e
        is_leading = False
    nucleons(rng, setup, scratch, config, phi_axis, broken + left, x, y, z, ux, uy, uz)
    return neutral


@njit(cache=True)
def hadron(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    kind: int, energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> float:  # fmt: skip
    """Track a hadron to its interaction, stop or exit; pions carry total, nucleons kinetic energy. Returns the energy given to neutral pions."""
    slabs = setup.slabs
    mass = PION_MASS if kind == PION else PROTON_MASS
    rest = PION_MASS if kind == PION else 0.0
    charged = kind != NEUTRON
    kinetic = energy - rest
    left = rng.standard_exponential() * config.lambda_scale * (1.0 if kind == PION else 0.85)
    slab = max(find_slab(slabs, x), 0)
    while True:
        if slab < 0 or slab >= len(slabs.x_out):
            scratch.lost[LEAK] += kinetic + rest
            return 0.0
        edge = slabs.x_out[slab] if ux > 0.0 else slabs.x_in[slab]
        to_edge = abs(edge - x) / max(abs(ux), 1e-3)
        to_interaction = left * slabs.lambda_int[slab]
        step = min(to_edge, to_interaction)
        if slabs.de_dx[slab] > 0.0:
            step = min(step, STEP)
        momentum2 = kinetic * (kinetic + 2.0 * mass)
        beta2 = momentum2 / (kinetic + mass) ** 2
        if charged and slabs.de_dx[slab] > 0.0:
            loss = slabs.de_dx[slab] * step * max(1.0, 0.92 / beta2**0.83)
            stops = loss >= kinetic
            if stops:
                step, loss = step * kinetic / loss, kinetic
            half = 0.5 * step
            saturation = 1.0 if kind == PION or beta2 > 0.25 else (config.proton_lar if slabs.layer[slab] < 4 else config.proton_tile) * 0.8
            signal = loss * mip_signal(slabs, slab, config) * saturation
            if slabs.layer[slab] > 0:
                shape = 4.0 * step / STEP + 1e-3
                signal *= rng.standard_gamma(shape) / shape
            deposit(setup, scratch, phi_axis, slab, x + ux * half, y + uy * half, z + uz * half, loss, signal, NON_EM)
            kinetic -= loss
            x, y, z = x + ux * step, y + uy * step, z + uz * step
            if stops:
                if kind == PION:
                    at_rest(rng, setup, scratch, config, phi_axis, rest, x, y, z)
                return 0.0
            if momentum2 < 9.0:
                ux, uy, uz = scatter(rng, ux, uy, uz, step / slabs.x0[slab], math.sqrt(momentum2 * beta2))
        else:
            x, y, z = x + ux * step, y + uy * step, z + uz * step
        left -= step / slabs.lambda_int[slab]
        if left <= 1e-9:
            return interact(rng, setup, scratch, config, phi_axis, kind, kinetic + rest, x, y, z, ux, uy, uz)
        if step >= to_edge - 1e-9:
            slab += 1 if ux > 0.0 else -1
            x = edge
