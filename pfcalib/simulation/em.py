"""Electromagnetic showers in the calorimeter after Grindhammer and Peters, with correlated
fluctuations, in energy spots (hep-ex/0001020).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pfcalib.simulation.detector import Slabs
from pfcalib.simulation.kernels import (
    DENSITY,
    EM,
    LEAK,
    Scratch,
    Setup,
    Track,
    deposit,
    find_slab,
    inlined,
    kernel,
)
from pfcalib.simulation.parameters import ShowerConfig

PRESAMPLER, FRONT_SLAB = 2, 4  # slabs of the presampler and of the first calorimeter layer
GAP_SLAB = 8  # slab of the aluminium between the lead-argon layers and the tiles
SOFT_SPOT = 0.005  # GeV, soft showers have one spot and one more for each of these
GOLDEN_COS, GOLDEN_SIN = -0.7373688780783197, 0.6754902942615238  # of the golden angle
TAU_STEP = 0.15  # of the table of the radial profile, which ends at tau = 6
ALBEDO_QUANTUM = 0.001  # GeV, mean of one deposit that a shower sends back


@kernel
def profile(
    slabs: Slabs, config: ShowerConfig, slab: int, energy: float, z1: float, z2: float
) -> tuple[float, float]:
    """Depth T of the maximum in X0 and shape alpha of one shower in a sampling calorimeter, from
    two normal numbers.

    hep-ex/0001020, section 3: means of ln T and ln alpha from the homogeneous medium, corrected by
    the sampling frequency and by e/mip; their fluctuations are correlated by rho. Bounds keep the
    formulas sane for energies of a few times the critical energy.
    """
    log_y = math.log(max(energy / slabs.e_crit[slab], config.y_min))
    f_s, e_hat, z = slabs.f_s[slab], slabs.e_hat[slab], slabs.z_eff[slab]
    t_mean = max(log_y - 0.812 - 0.55 / f_s - 0.69 * (1.0 - e_hat) + config.t_shift, config.t_min)
    a_mean = config.a_scale * (0.81 + (0.458 + 2.26 / z) * log_y - 0.476 / f_s)
    s_t = min(1.0 / max(-2.5 + 1.25 * log_y, 0.1), config.s_max) * config.s_scale
    s_a = min(1.0 / max(-0.82 + 0.79 * log_y, 0.1), config.s_max) * config.s_scale
    rho = 0.784 - 0.023 * log_y
    plus, minus = math.sqrt(0.5 * (1.0 + rho)), math.sqrt(0.5 * (1.0 - rho))
    t_max = math.exp(math.log(t_mean) + s_t * (z1 * plus + z2 * minus))
    alpha = math.exp(math.log(max(a_mean, 1.2)) + s_a * (z1 * plus - z2 * minus))
    return t_max, max(alpha, config.a_min)


@kernel
def radial(slabs: Slabs, slab: int, log_e: float, tau: float) -> tuple[float, float, float]:
    """Radii of core and tail in Moliere radii and the share of the core at depth tau = t/T
    (hep-ex/0001020, section 3.2).
    """
    z, f_s, e_hat = slabs.z_eff[slab], slabs.f_s[slab], slabs.e_hat[slab]
    r_core = (
        0.0251
        + 0.00319 * log_e
        + (0.1162 - 0.000381 * z) * tau
        - 0.0203 * (1.0 - e_hat)
        + 0.0397 / f_s * math.exp(-tau)
    )
    grow = math.exp(min((0.3585 + 0.0412 * log_e) * (tau - 0.645), 3.0))
    r_tail = (
        (0.659 - 0.00309 * z) * (math.exp(-2.59 * (tau - 0.645)) + grow)
        - 0.14 * (1.0 - e_hat)
        - 0.495 / f_s * math.exp(-tau)
    )
    p1, p2, p3 = 2.632 - 0.00094 * z, 0.401 + 0.00187 * z, max(1.313 - 0.0686 * log_e, 0.2)
    ratio = (p2 - tau) / p3
    p = p1 * math.exp(ratio - math.exp(ratio)) + (1.0 - e_hat) * (
        0.348 - 0.642 / f_s * math.exp(-((tau - 1.0) ** 2))
    )
    return max(r_core, 0.01), max(r_tail, 0.05), p


@kernel
def fill_radial(table: NDArray[np.float64], slabs: Slabs, slab: int, log_e: float) -> None:
    """The radial profile on a grid of tau, once a shower, so that spots need no exponentials."""
    for i in range(len(table)):
        table[i, 0], table[i, 1], table[i, 2] = radial(slabs, slab, log_e, (i + 0.5) * TAU_STEP)


@inlined
def advance(slabs: Slabs, slab: int, x: float, ux: float, depth: float) -> tuple[int, float]:
    """Slab and depth x reached after `depth` radiation lengths along a direction; n_slabs when it
    leaves at the back.
    """
    while slab < len(slabs.x_out):
        step = (slabs.x_out[slab] - x) / (ux * slabs.x0[slab])
        if depth < step:
            # the mask tells the compiler that no index is negative: spots are five times as fast
            return slab & 0xFFFF, x + depth * slabs.x0[slab] * ux
        depth -= step
        x = slabs.x_out[slab]
        slab += 1
    return slab & 0xFFFF, x


@inlined
def em_response(config: ShowerConfig, layer: int) -> tuple[float, float]:
    """EM-scale signal per electromagnetic energy, and sampling term in sqrt(GeV), of a layer."""
    if layer == 0:
        return config.em_presampler, 0.05
    if layer < 4:
        return (config.em_strips if layer == 1 else config.em_lar), config.sampling_lar
    return config.em_tile, config.sampling_tile


@kernel
def forwards(ux: float, uy: float, uz: float) -> tuple[float, float, float]:
    """The direction itself, or for one that goes sideways or backwards the nearest that still
    crosses the layers.
    """
    if ux >= 0.1:
        return ux, uy, uz
    norm = math.sqrt(0.99 / max(uy * uy + uz * uz, 1e-12))
    return 0.1, uy * norm, uz * norm


@kernel
def albedo(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, energy: float, y: float, z: float
) -> float:
    """Soft particles that a shower sends back into the presampler, over a wide area; returns their
    energy.
    """
    config, total = setup.config, 0.0
    for _ in range(rng.poisson(config.albedo * energy**config.albedo_growth / ALBEDO_QUANTUM)):
        e = min(ALBEDO_QUANTUM * rng.standard_exponential(), 0.1 * energy)
        r, angle = config.albedo_radius * rng.standard_exponential(), 2.0 * math.pi * rng.random()
        spot_y, spot_z = y + r * math.cos(angle), z + r * math.sin(angle)
        deposit(
            setup,
            scratch,
            PRESAMPLER,
            setup.slabs.x_in[PRESAMPLER],
            spot_y,
            spot_z,
            e,
            config.em_presampler * e,
            EM,
        )
        total += e
        if total > 0.3 * energy:
            break
    return total


@inlined
def scatter_spot(
    rng: np.random.Generator,
    setup: Setup,
    scratch: Scratch,
    track: Track,
    slab: int,
    x: float,
    core: float,
    tail: float,
    energy: float,
    pieces: int,
) -> None:
    """Deposit a spot at depth x about the line of its track: in the core, if it has a radius, at a
    distance r with r^2 / core^2 = u / (1 - u); in the tail in equal pieces at distances that fall
    off exponentially, as soft photons do.
    """
    layer, path = setup.slabs.layer[slab], (x - track.x) / track.ux
    norm, piece = math.sqrt(track.ux * track.ux + track.uz * track.uz), energy / pieces
    response, term = em_response(setup.config, layer) if layer >= 0 else (0.0, 1.0)
    shape = energy / (term * term)  # so that signals fluctuate by term / sqrt(E)
    signal = piece * response * rng.standard_gamma(shape) / shape if response > 0.0 else 0.0
    angle = 2.0 * math.pi * rng.random()
    along, across = math.cos(angle), math.sin(angle)
    for _ in range(pieces):
        if core > 0.0:
            u = min(rng.random(), 0.995)
            r = core * math.sqrt(u / (1.0 - u))
        else:
            r = tail * rng.standard_exponential()
        a, b = r * along, r * across
        # the next piece is turned by the golden angle, which spreads them evenly
        along, across = (
            GOLDEN_COS * along - GOLDEN_SIN * across,
            GOLDEN_SIN * along + GOLDEN_COS * across,
        )
        # the axes across u are (-uz, 0, ux) / norm and their cross product; the depth stays the one
        # drawn
        y, z = (
            track.y + track.uy * path - b * norm,
            track.z + track.uz * path + (a * track.ux + b * track.uy * track.uz) / norm,
        )
        deposit(setup, scratch, slab, x, y, z, piece, signal, EM)


@kernel
def shower(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Spread an electron's energy as spots along and around its direction, and sample their visible
    part.
    """
    slabs, config, energy = setup.slabs, setup.config, track.energy
    first = max(find_slab(slabs, track.x), 0)
    if energy <= 0.0 or first >= len(slabs.x_out):
        scratch.event[LEAK] += energy
        return
    ux, uy, uz = forwards(track.ux, track.uy, track.uz)
    material = first
    # gaps and dead slabs: what follows sets the profile
    while material < len(slabs.x_out) - 1 and slabs.f_s[material] == 1.0:
        material += 1
    if slabs.layer[first] == 1:
        energy -= albedo(rng, setup, scratch, energy, track.y, track.z)
    t_max, alpha = profile(
        slabs, config, material, energy, rng.standard_normal(), rng.standard_normal()
    )
    beta = max((alpha - 1.0) / t_max, config.beta_min)
    economy = scratch.event[DENSITY] / config.spots_per_gev  # below 1 in events of high energy
    fewest = min(1.0 + (config.spots_min - 1.0) * economy, 1.0 + energy / SOFT_SPOT)
    n_spots = int(max(fewest, scratch.event[DENSITY] * energy))
    share, log_e = energy / n_spots, math.log(max(energy, 0.05))
    table, aimed = scratch.radial, Track(track.kind, energy, track.x, track.y, track.z, ux, uy, uz)
    tabulated = n_spots > len(table)
    if tabulated:
        fill_radial(table, slabs, material, log_e)
    for _ in range(n_spots):
        t = rng.standard_gamma(alpha) / beta
        slab, x = advance(slabs, first, track.x, ux, t)
        if slab >= len(slabs.x_out):
            scratch.event[LEAK] += share
            continue
        row = min(int(t / t_max / TAU_STEP), len(table) - 1)
        core, tail, p = (
            (table[row, 0], table[row, 1], table[row, 2])
            if tabulated
            else radial(slabs, material, log_e, (row + 0.5) * TAU_STEP)
        )
        in_core = rng.random() * (1.0 + config.tail_more) < p
        radius = slabs.moliere[slab]
        # what leaves the lead-argon layers spreads on its way to the tiles
        if first < GAP_SLAB < slab:
            radius *= config.gap_spread
        if in_core:
            scale = config.core_strips if slabs.layer[slab] == 1 else config.core_scale
            scatter_spot(rng, setup, scratch, aimed, slab, x, scale * core * radius, 0.0, share, 1)
        else:
            # a coarse spot in the tail would look like a particle
            pieces = 1 + int(economy * share / config.tail_quantum)
            radius *= config.tail_scale * tail
            scatter_spot(rng, setup, scratch, aimed, slab, x, 0.0, radius, share, pieces)
