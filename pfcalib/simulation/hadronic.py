"""Hadronic showers: a cascade of tracks and nuclear interactions; its neutral pions shower
electromagnetically.

Tracks lose energy by ionisation until an exponentially distributed interaction. An interaction
breaks up a nucleus (binding energy is invisible, nucleons deposit near by) and shares what is left
among secondaries by breaking a stick; about a third are neutral pions, in every generation, so that
the electromagnetic fraction rises with energy (Wigmans, Calorimetry, 2nd ed., ch. 2; Gabriel et
al., NIM A338 (1994) 336).
"""

from __future__ import annotations

import math

import numpy as np

from pfcalib.simulation.kernels import (
    LEAK,
    NON_EM,
    Scratch,
    Setup,
    Track,
    deposit,
    find_slab,
    kernel,
    layer_of,
    push,
    scatter,
    turn,
)
from pfcalib.simulation.nuclear import (
    NEUTRON,
    PION,
    PION_MASS,
    PROTON,
    PROTON_MASS,
    at_rest,
    break_up,
    mip_signal,
    push_pi0,
)

STEP = 25.0  # mm, longest step in lead-argon and in dead material
TILE_STEP = 75.0  # mm, in the tiles
PI0 = 5
_SOFT = 0.2  # GeV, what is left below it goes to the nucleus


@kernel
def momentum_of(kind: int, energy: float) -> float:
    """Momentum in GeV of a pion of this total, or a nucleon of this kinetic energy."""
    if kind in (PROTON, NEUTRON):
        return math.sqrt(energy * (energy + 2.0 * PROTON_MASS))
    return math.sqrt(max(energy * energy - PION_MASS * PION_MASS, 1e-6))


@kernel
def rescatter(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Quasi-elastic interaction: the hadron is kicked and goes on, a struck proton takes the
    recoil.
    """
    config, rest = setup.config, PION_MASS if track.kind == PION else 0.0
    kick = 0.5 * config.pt_elastic * rng.standard_gamma(2.0)
    angle = min(kick / momentum_of(track.kind, track.energy), 2.0)
    lost = min(0.5 * kick * kick / PROTON_MASS, 0.5 * (track.energy - rest))
    slab = find_slab(setup.slabs, track.x)
    response = config.proton_lar if layer_of(setup.slabs, slab) < 4 else config.proton_tile
    deposit(setup, scratch, slab, track.x, track.y, track.z, lost, lost * response, NON_EM)
    ux, uy, uz = turn(track.ux, track.uy, track.uz, math.cos(angle), 2.0 * math.pi * rng.random())
    push(scratch, Track(track.kind, track.energy - lost, track.x, track.y, track.z, ux, uy, uz))


@kernel
def secondary(
    rng: np.random.Generator, setup: Setup, kind: int, energy: float, is_leading: bool
) -> int:
    """Kind of the next secondary; a leading nucleon stays a nucleon, a leading pion may exchange
    its charge.
    """
    config = setup.config
    nucleon = kind != PION if is_leading else rng.random() < config.p_nucleon
    if nucleon:
        return PROTON if rng.random() < 0.5 else NEUTRON
    free = 1.0 - math.exp(-energy / config.pi0_rise)
    return (
        PI0 if rng.random() < free * (config.p_exchange if is_leading else config.p_pi0) else PION
    )


@kernel
def interact(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> float:
    """One nuclear interaction of a hadron; returns the energy given to neutral pions."""
    config, energy = setup.config, track.energy
    if rng.random() < config.p_elastic + config.p_elastic_low * math.exp(-energy):
        rescatter(rng, setup, scratch, track)
        return 0.0
    slab = min(max(find_slab(setup.slabs, track.x), 0), len(setup.slabs.x0) - 1)
    material = (setup.slabs.z_eff[slab] / 59.0) ** config.nuclear_power  # 1 in the lead-argon
    mean = config.nuclear_scale * material * (1.0 + config.nuclear_slope * math.log(1.0 + energy))
    broken = min(energy, mean * rng.standard_gamma(config.nuclear_shape) / config.nuclear_shape)
    left, neutral, is_leading = energy - broken, 0.0, True
    while left > _SOFT:
        share = 1.0 - rng.random() ** (1.0 / (config.leading if is_leading else config.stick))
        e = min(left, max(left * share, 0.16))
        kind = secondary(rng, setup, track.kind, energy, is_leading)
        transverse = 0.5 * config.pt_mean * rng.standard_gamma(2.0)
        angle = min(transverse / momentum_of(kind, e), 2.0)
        ux, uy, uz = turn(
            track.ux, track.uy, track.uz, math.cos(angle), 2.0 * math.pi * rng.random()
        )
        made = Track(kind, e, track.x, track.y, track.z, ux, uy, uz)
        if kind == PI0:
            neutral += e
            push_pi0(rng, scratch, made)
        else:
            push(scratch, made)
        left -= e
        is_leading = False
    break_up(rng, setup, scratch, broken + left, track)
    return neutral


@kernel
def ionise(
    rng: np.random.Generator,
    setup: Setup,
    scratch: Scratch,
    slab: int,
    track: Track,
    step: float,
    kinetic: float,
    beta2: float,
) -> tuple[float, float]:
    """Deposit what a charged hadron loses in one step; returns the length it went, shorter where it
    stops, and the loss.
    """
    slabs, config = setup.slabs, setup.config
    loss = slabs.de_dx[slab] * step * max(1.0, 0.92 / beta2**0.83)  # Bethe's 1/beta^(5/3)
    if loss >= kinetic:
        step, loss = step * kinetic / loss, kinetic
    is_lar = layer_of(slabs, slab) < 4
    saturated = track.kind != PION and beta2 <= 0.25  # slow protons, Birks
    quench = 0.8 * (config.proton_lar if is_lar else config.proton_tile) if saturated else 1.0
    signal = loss * mip_signal(setup, slab) * quench
    if layer_of(slabs, slab) > 0:
        shape = 4.0 * step / STEP + 1e-3
        signal *= rng.standard_gamma(shape) / shape
    half = 0.5 * step
    x, y, z = track.x + track.ux * half, track.y + track.uy * half, track.z + track.uz * half
    deposit(setup, scratch, slab, x, y, z, loss, signal, NON_EM)
    return step, loss


@kernel
def hadron(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> float:
    """Carry a hadron to its interaction, its stop or its exit. Returns the energy given to neutral
    pions.
    """
    slabs, config = setup.slabs, setup.config
    kind, energy, x, y, z, ux, uy, uz = track
    mass, rest = (PION_MASS, PION_MASS) if kind == PION else (PROTON_MASS, 0.0)
    kinetic = energy - rest
    # in interaction lengths of a pion
    left = rng.standard_exponential() * config.lambda_scale * (1.0 if kind == PION else 0.85)
    slab = max(find_slab(slabs, x), 0)
    while 0 <= slab < len(slabs.x_out):
        edge = slabs.x_out[slab] if ux > 0.0 else slabs.x_in[slab]
        to_edge = abs(edge - x) / max(abs(ux), 1e-3)
        step = min(to_edge, left * slabs.lambda_int[slab])
        if slabs.de_dx[slab] > 0.0:
            step = min(step, STEP if slabs.layer[slab] < 4 else TILE_STEP)
        if kind != NEUTRON and slabs.de_dx[slab] > 0.0:
            momentum2 = kinetic * (kinetic + 2.0 * mass)
            beta2 = momentum2 / (kinetic + mass) ** 2
            step, loss = ionise(
                rng,
                setup,
                scratch,
                slab,
                Track(kind, kinetic, x, y, z, ux, uy, uz),
                step,
                kinetic,
                beta2,
            )
            kinetic -= loss
            x, y, z = x + ux * step, y + uy * step, z + uz * step
            if kinetic <= 0.0:
                if kind == PION:
                    at_rest(rng, setup, scratch, x, y, z)
                return 0.0
            if momentum2 < 4.0:  # above, the angle is too small for the cells
                ux, uy, uz = scatter(
                    rng, ux, uy, uz, step / slabs.x0[slab], math.sqrt(momentum2 * beta2)
                )
        else:
            x, y, z = x + ux * step, y + uy * step, z + uz * step
        left -= step / slabs.lambda_int[slab]
        if left <= 1e-9:
            return interact(rng, setup, scratch, Track(kind, kinetic + rest, x, y, z, ux, uy, uz))
        if step >= to_edge - 1e-9:
            slab += 1 if ux > 0.0 else -1
            x = edge
    scratch.event[LEAK] += kinetic + rest
    return 0.0
