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

from pfcalib.simulation.em import em_response
from pfcalib.simulation.kernels import (
    EM,
    LEAK,
    NON_EM,
    Scratch,
    Setup,
    Track,
    deposit,
    find_slab,
    isotropic,
    kernel,
    layer_of,
    push,
    scatter,
    turn,
)
from pfcalib.simulation.nuclear import break_up, mip_signal, muon_at_rest
from pfcalib.simulation.species import (
    ANTINEUTRON,
    ANTIPROTON,
    C_TAU,
    CHARGED,
    ELECTRON,
    ELECTRON_MASS,
    KAON,
    KAON_LONG,
    KAON_MINUS,
    MASS,
    MUON,
    NEUTRON,
    OPACITY,
    PI0,
    PION,
    PION_MINUS,
    PROTON,
    PROTON_MASS,
    REST,
    decay,
    momentum_of,
)

STEP = 25.0  # mm, longest step in lead-argon and in dead material
TILE_STEP = 75.0  # mm, in the tiles
# GeV, knock-on electrons above are made one by one, and above the second shower
DELTA_MIN, DELTA_SHOWER = 0.001, 0.005
# GeV of knock-on electrons in each interval d(ln T) over GeV that a mip loses, K Z / (2 A dE/dx),
# within 5 % in aluminium, argon, iron and lead (PDG review, section 34.2.4)
DELTA_SHARE = 0.047
RESTRICTED = 0.97  # loss below DELTA_MIN of fast particles over that of a mip (same, 34.2.6)
# estimates, neither fitted nor taken from a table: kinetic energy in GeV at which half of the
# antinucleons annihilate, and the share of a kaon's interactions that leave a kaon in front
ANNIHILATION, STRANGE = 3.0, 0.6


@kernel
def rescatter(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Quasi-elastic interaction: the hadron is kicked and goes on, a struck proton takes the
    recoil.
    """
    config = setup.config
    kick = 0.5 * config.pt_elastic * rng.standard_gamma(2.0)
    angle = min(kick / momentum_of(track.kind, track.energy), 2.0)
    lost = min(0.5 * kick * kick / PROTON_MASS, 0.5 * (track.energy - REST[track.kind]))
    slab = find_slab(setup.slabs, track.x)
    response = config.proton_lar if layer_of(setup.slabs, slab) < 4 else config.proton_tile
    deposit(setup, scratch, slab, track.x, track.y, track.z, lost, lost * response, NON_EM)
    ux, uy, uz = turn(track.ux, track.uy, track.uz, math.cos(angle), 2.0 * math.pi * rng.random())
    push(scratch, Track(track.kind, track.energy - lost, track.x, track.y, track.z, ux, uy, uz))


@kernel
def leading(rng: np.random.Generator, setup: Setup, kind: int, energy: float, left: float) -> int:
    """Kind of the leading secondary: a nucleon stays one, an antinucleon too and mostly a kaon, if
    the energy makes its mass; a pion may turn neutral.
    """
    if kind in (PROTON, NEUTRON):
        return PROTON if rng.random() < 0.5 else NEUTRON
    if left > REST[kind] + 0.05:
        if kind in (ANTIPROTON, ANTINEUTRON):
            return ANTIPROTON if rng.random() < 0.5 else ANTINEUTRON
        if kind in (KAON, KAON_MINUS, KAON_LONG) and rng.random() < STRANGE:
            return KAON_LONG if rng.random() < 0.3 and left > 0.6 else kind
    free = 1.0 - math.exp(-energy / setup.config.pi0_rise)
    exchange = setup.config.p_exchange + setup.config.p_exchange_low * math.exp(-0.5 * energy)
    if rng.random() < free * exchange:
        return PI0
    if kind in (PION, PION_MINUS):
        return kind
    return PION if rng.random() < 0.5 else PION_MINUS


@kernel
def secondary(rng: np.random.Generator, setup: Setup, energy: float) -> int:
    """Kind of any other secondary."""
    config = setup.config
    if rng.random() < config.p_nucleon:
        return PROTON if rng.random() < 0.5 else NEUTRON
    if rng.random() < config.p_pi0 * (1.0 - math.exp(-energy / config.pi0_rise)):
        return PI0
    return PION if rng.random() < 0.5 else PION_MINUS


@kernel
def interact(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> float:
    """One nuclear interaction of a hadron; returns the energy given to neutral pions."""
    config, energy = setup.config, track.energy
    if rng.random() < config.p_elastic + config.p_elastic_low * math.exp(-energy):
        rescatter(rng, setup, scratch, track)
        return 0.0
    kinetic = energy - REST[track.kind]
    annihilates = track.kind in (ANTIPROTON, ANTINEUTRON) and (
        rng.random() * (kinetic + ANNIHILATION) < ANNIHILATION
    )
    return collide(rng, setup, scratch, track, not annihilates)


@kernel
def collide(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track, is_leading: bool
) -> float:
    """Break up a nucleus and share what is left among secondaries; returns the energy given to
    neutral pions.
    """
    config, energy = setup.config, track.energy
    slab = min(max(find_slab(setup.slabs, track.x), 0), len(setup.slabs.x0) - 1)
    material = (setup.slabs.z_eff[slab] / 59.0) ** config.nuclear_power  # 1 in the lead-argon
    mean = config.nuclear_scale * material * (1.0 + config.nuclear_slope * math.log(1.0 + energy))
    broken = min(energy, mean * rng.standard_gamma(config.nuclear_shape) / config.nuclear_shape)
    left, neutral = energy - broken, 0.0
    while left > config.soft:
        share = 1.0 - rng.random() ** (1.0 / (config.leading if is_leading else config.stick))
        kind = (
            leading(rng, setup, track.kind, energy, left)
            if is_leading
            else secondary(rng, setup, energy)
        )
        e = min(left, max(left * share, config.soft, REST[kind] + 0.02))
        transverse = 0.5 * config.pt_mean * rng.standard_gamma(2.0)
        angle = min(transverse / momentum_of(kind, e), 2.0)
        ux, uy, uz = turn(
            track.ux, track.uy, track.uz, math.cos(angle), 2.0 * math.pi * rng.random()
        )
        made = Track(kind, e, track.x, track.y, track.z, ux, uy, uz)
        if kind == PI0:
            neutral += e
            decay(rng, setup, scratch, made)
        else:
            push(scratch, made)
        left -= e
        is_leading = False
    break_up(rng, setup, scratch, broken + left, track)
    return neutral


@kernel
def knock_on(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, slab: int, track: Track,
    step: float, most: float,
) -> float:  # fmt: skip
    """Electrons that a particle of this kinetic energy knocks out in one step, dN/dT falling with
    T^-2; returns their energy, which is less than `most`.
    """
    config, mass = setup.config, MASS[track.kind]
    gamma = 1.0 + track.energy / mass
    beta2 = 1.0 - 1.0 / (gamma * gamma)
    highest = 2.0 * ELECTRON_MASS * beta2 * gamma * gamma
    highest /= 1.0 + 2.0 * gamma * ELECTRON_MASS / mass
    if highest < 1.5 * DELTA_MIN:
        return 0.0
    spent, span = 0.0, 1.0 - DELTA_MIN / highest
    rate = DELTA_SHARE * setup.slabs.de_dx[slab] * step / beta2 / DELTA_MIN * span
    layer = layer_of(setup.slabs, slab)
    response = em_response(config, layer)[0] if layer >= 0 else 0.0
    for _ in range(rng.poisson(rate)):
        e = DELTA_MIN / (1.0 - span * rng.random())
        if rng.random() < beta2 * e / highest or spent + e > most:
            continue
        spent += e
        way = step * rng.random()
        x, y, z = track.x + track.ux * way, track.y + track.uy * way, track.z + track.uz * way
        if e > DELTA_SHOWER:
            push(scratch, Track(ELECTRON, e, x, y, z, track.ux, track.uy, track.uz))
            continue
        r, angle = config.delta_radius * rng.standard_exponential(), 2.0 * math.pi * rng.random()
        y, z = y + r * math.cos(angle), z + r * math.sin(angle)
        deposit(setup, scratch, slab, x, y, z, e, e * response * rng.standard_exponential(), EM)
    return spent


@kernel
def ionise(
    rng: np.random.Generator,
    setup: Setup,
    scratch: Scratch,
    slab: int,
    track: Track,
    step: float,
    beta2: float,
) -> tuple[float, float]:
    """Deposit what a charged particle of this kinetic energy loses in one step; returns the length
    it went, shorter where it stops, and the loss.
    """
    slabs, config, kinetic = setup.slabs, setup.config, track.energy
    # Bethe's 1/beta^(5/3)
    loss = RESTRICTED * slabs.de_dx[slab] * step * max(1.0, 0.92 / beta2**0.83)
    if loss >= kinetic:
        step, loss = step * kinetic / loss, kinetic
    is_lar = layer_of(slabs, slab) < 4
    saturated = MASS[track.kind] > 0.9 and beta2 <= 0.25  # slow protons, Birks
    quench = 0.8 * (config.proton_lar if is_lar else config.proton_tile) if saturated else 1.0
    shape = config.mip_shape * step / STEP + 1e-3
    signal = loss * mip_signal(setup, slab) * quench * rng.standard_gamma(shape) / shape
    half = 0.5 * step
    x, y, z = track.x + track.ux * half, track.y + track.uy * half, track.z + track.uz * half
    r, angle = config.mip_radius * rng.standard_exponential(), 2.0 * math.pi * rng.random()
    y, z = y + r * math.cos(angle), z + r * math.sin(angle)
    deposit(setup, scratch, slab, x, y, z, loss, signal, NON_EM)
    if loss < kinetic:
        loss += knock_on(rng, setup, scratch, slab, track, step, 0.5 * (kinetic - loss))
    return step, loss


@kernel
def at_rest(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> float:
    """End of a charged particle that has stopped, with its rest energy: mesons decay, negative ones
    are captured, antiprotons annihilate. Returns the energy given to neutral pions.
    """
    cos_theta, angle = isotropic(rng)
    ux, uy, uz = turn(track.ux, track.uy, track.uz, cos_theta, angle)
    kind, rest, x, y, z = track.kind, REST[track.kind], track.x, track.y, track.z
    stopped = Track(kind, rest, x, y, z, ux, uy, uz)
    if kind == MUON:
        muon_at_rest(rng, setup, scratch, x, y, z)
    elif kind in (PION, KAON):
        decay(rng, setup, scratch, stopped)
    elif rest > 0.0:
        return collide(rng, setup, scratch, stopped, False)
    return 0.0


@kernel
def hadron(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> float:
    """Carry a hadron or a muon to its interaction, decay, stop or exit. Returns the energy given to
    neutral pions.
    """
    slabs, config = setup.slabs, setup.config
    kind, energy, x, y, z, ux, uy, uz = track
    mass, rest, charged = MASS[kind], REST[kind], CHARGED[kind]
    kinetic = energy - rest
    # in interaction lengths of a pion, and in mm
    left = rng.standard_exponential() * config.lambda_scale / OPACITY[kind]
    life = rng.standard_exponential() * C_TAU[kind] * momentum_of(kind, energy) / mass
    slab = max(find_slab(slabs, x), 0)
    while 0 <= slab < len(slabs.x_out):
        slab = slab & 0xFFFF  # as in `em.advance`
        edge = slabs.x_out[slab] if ux > 0.0 else slabs.x_in[slab]
        to_edge = abs(edge - x) / max(abs(ux), 1e-3)
        step = min(to_edge, left * slabs.lambda_int[slab], life)
        if slabs.de_dx[slab] > 0.0:
            step = min(step, STEP if slabs.layer[slab] < 4 else TILE_STEP)
        if charged and slabs.de_dx[slab] > 0.0:
            momentum2 = kinetic * (kinetic + 2.0 * mass)
            beta2 = momentum2 / (kinetic + mass) ** 2
            now = Track(kind, kinetic, x, y, z, ux, uy, uz)
            step, loss = ionise(rng, setup, scratch, slab, now, step, beta2)
            kinetic -= loss
            x, y, z = x + ux * step, y + uy * step, z + uz * step
            if kinetic <= 0.0:
                return at_rest(rng, setup, scratch, Track(kind, rest, x, y, z, ux, uy, uz))
            if momentum2 < 4.0:  # above, the angle is too small for the cells
                ux, uy, uz = scatter(
                    rng, ux, uy, uz, step / slabs.x0[slab], math.sqrt(momentum2 * beta2)
                )
        else:
            x, y, z = x + ux * step, y + uy * step, z + uz * step
        left -= step / slabs.lambda_int[slab]
        life -= step
        now = Track(kind, kinetic + rest, x, y, z, ux, uy, uz)
        if life <= 1e-9:
            decay(rng, setup, scratch, now)
            return 0.0
        if left <= 1e-9:
            return interact(rng, setup, scratch, now)
        if step >= to_edge - 1e-9:
            slab += 1 if ux > 0.0 else -1
            x = edge
    scratch.event[LEAK] += kinetic + rest
    return 0.0
