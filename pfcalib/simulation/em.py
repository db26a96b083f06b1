"""Electromagnetic showers: a cascade in the upstream material, then the parametrisation of Grindhammer and Peters in the calorimeter.

Photons convert and electrons radiate one by one in the aluminium in front; what reaches the calorimeter showers there with correlated
fluctuations of its profile, in energy spots (hep-ex/0001020; formula numbers below are that paper's).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pfcalib.simulation.config import ShowerConfig
from pfcalib.simulation.detector import Slabs
from pfcalib.simulation.kernels import DEAD, DENSITY, EM, LEAK, Scratch, Setup, deposit, find_slab, push, scatter

ELECTRON_MASS = 0.000511
PHOTON, ELECTRON = 0, 1
K_MIN = 0.001  # GeV, softest photon that is radiated as a particle


@njit(cache=True)
def attenuation(energy: float) -> float:
    """Interactions of a photon a radiation length: pair creation towards 7/9 at high energy, Compton scattering below 20 MeV."""
    pair = (7.0 / 9.0) / (1.0 + (0.0327 / energy) ** 0.844)
    return pair + compton(energy)


@njit(cache=True)
def compton(energy: float) -> float:
    """Compton scatters a radiation length of aluminium, Klein-Nishina at high energy."""
    kappa = energy / ELECTRON_MASS
    return 1.74 / (kappa + 2.7) * (math.log(2.0 * kappa + 1.0) + 0.5)


@njit(cache=True)
def profile(slabs: Slabs, config: ShowerConfig, slab: int, energy: float, z1: float, z2: float) -> tuple[float, float]:
    """Depth T of the maximum in X0 and shape alpha of one shower in a sampling calorimeter, eqs. (14)-(18), from two normal numbers."""
    log_y = math.log(max(energy / slabs.e_crit[slab], config.y_min))
    f_s, e_hat, z = slabs.f_s[slab], slabs.e_hat[slab], slabs.z_eff[slab]
    t_mean = max(log_y - 0.812 - 0.55 / f_s - 0.69 * (1.0 - e_hat) + config.t_shift, config.t_min)
    a_mean = config.a_scale * (0.81 + (0.458 + 2.26 / z) * log_y - 0.476 / f_s)
    s_t = min(1.0 / max(-2.5 + 1.25 * log_y, 0.1), config.s_max) * config.s_scale
    s_a = min(1.0 / max(-0.82 + 0.79 * log_y, 0.1), config.s_max) * config.s_scale
    rho = 0.784 - 0.023 * log_y
    plus, minus = math.sqrt(0.5 * (1.0 + rho)), math.sqrt(0.5 * (1.0 - rho))
    t = math.exp(math.log(t_mean) + s_t * (z1 * plus + z2 * minus))
    alpha = math.exp(math.log(max(a_mean, 1.2)) + s_a * (z1 * plus - z2 * minus))
    return t, max(alpha, config.a_min)


@njit(cache=True, forceinline=True)
def radius(rng: np.random.Generator, slabs: Slabs, config: ShowerConfig, slab: int, log_e: float, tau: float) -> float:
    """Distance of a spot from the shower axis in Moliere radii at depth tau = t/T, eqs. (23)-(31): a core and a tail."""
    z, f_s, e_hat = slabs.z_eff[slab], slabs.f_s[slab], slabs.e_hat[slab]
    tau = min(tau, 6.0)
    r_core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau - 0.0203 * (1.0 - e_hat) + 0.0397 / f_s * math.exp(-tau)
    grow = math.exp(min((0.3585 + 0.0421 * log_e) * (tau - 0.645), 3.0))
    r_tail = (0.659 - 0.00309 * z) * (math.exp(-2.59 * (tau - 0.645)) + grow) - 0.14 * (1.0 - e_hat) - 0.495 / f_s * math.exp(-tau)
    p1, p2, p3 = 2.632 - 0.00094 * z, 0.401 + 0.00187 * z, max(1.313 - 0.0686 * log_e, 0.2)
    ratio = (p2 - tau) / p3
    p = p1 * math.exp(ratio - math.exp(ratio)) + (1.0 - e_hat) * (0.348 - 0.642 / f_s * math.exp(-((tau - 1.0) ** 2)))
    size = config.core_scale * max(r_core, 0.01) if rng.random() < p else config.tail_scale * max(r_tail, 0.05)
    u = min(rng.random(), 0.995)
    return size * math.sqrt(u / (1.0 - u))


@njit(cache=True)
def shower(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> None:  # fmt: skip
    """Spread an electron's energy as spots along and around its direction, and sample their visible part."""
    if energy <= 0.0:
        return
    slabs = setup.slabs
    if ux < 0.1:  # sideways or backwards: along the layers as far as slabs allow
        norm = math.sqrt((1.0 - 0.01) / max(uy * uy + uz * uz, 1e-12))
        ux, uy, uz = 0.1, uy * norm, uz * norm
    first = max(find_slab(slabs, x), 0)
    if first >= len(slabs.x_out):
        scratch.lost[LEAK] += energy
        return
    material = first
    while material < len(slabs.x_out) - 1 and slabs.f_s[material] == 1.0:  # gaps and dead slabs: what follows sets the profile
        material += 1
    if slabs.layer[first] == 1:
        energy -= albedo(rng, setup, scratch, config, phi_axis, energy, x, y, z)
    t_max, alpha = profile(slabs, config, material, energy, rng.standard_normal(), rng.standard_normal())
    beta = (alpha - 1.0) / t_max
    n_spots = int(min(max(config.spots_min, scratch.lost[DENSITY] * energy), config.spots_max))
    share, log_e = energy / n_spots, math.log(max(energy, 0.05))
    norm = math.sqrt(ux * ux + uz * uz)
    for _ in range(n_spots):
        t = rng.standard_gamma(alpha) / beta
        slab, here = advance(slabs, first, x, ux, t)
        if slab >= len(slabs.x_out):
            scratch.lost[LEAK] += share
            continue
        r = radius(rng, slabs, config, material, log_e, t / t_max) * slabs.moliere[slab]
        angle = 2.0 * math.pi * rng.random()
        a, b, path = r * math.cos(angle), r * math.sin(angle), (here - x) / ux
        signal = 0.0
        if slabs.layer[slab] >= 0:
            response, term = em_response(config, slabs.layer[slab])
            shape = energy / (n_spots * term * term)
            signal = share * response * rng.standard_gamma(shape) / shape
        # the axes across u are (-uz, 0, ux) / norm and their cross product; the depth stays the one drawn
        spot_y, spot_z = y + uy * path - b * norm, z + uz * path + (a * ux + b * uy * uz) / norm
        deposit(setup, scratch, phi_axis, slab, here, spot_y, spot_z, share, signal, EM)


@njit(cache=True)
def albedo(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float, energy: float, x: float, y: float, z: float
) -> float:  # fmt: skip
    """Soft particles that a shower sends back into the presampler, over a wide area; returns their energy."""
    slabs, total = setup.slabs, 0.0
    n = rng.poisson(config.albedo * energy**0.68 / 0.001)
    for _ in range(n):
        e = min(0.001 * rng.standard_exponential(), 0.1 * energy)
        r, angle = config.albedo_radius * rng.standard_exponential(), 2.0 * math.pi * rng.random()
        spot_y, spot_z = y + r * math.cos(angle), z + r * math.sin(angle)
        deposit(setup, scratch, phi_axis, 2, slabs.x_in[2], spot_y, spot_z, e, config.em_presampler * e, EM)
        total += e
        if total > 0.3 * energy:
            break
    return total


@njit(cache=True, forceinline=True)
def advance(slabs: Slabs, slab: int, x: float, ux: float, depth: float) -> tuple[int, float]:
    """Slab and depth x reached after `depth` radiation lengths along a direction; n_slabs when it leaves at the back."""
    while slab < len(slabs.x_out):
        step = (slabs.x_out[slab] - x) / (ux * slabs.x0[slab])
        if depth < step:
            return slab, x + depth * slabs.x0[slab] * ux
        depth -= step
        x = slabs.x_out[slab]
        slab += 1
    return slab, x


@njit(cache=True, forceinline=True)
def em_response(config: ShowerConfig, layer: int) -> tuple[float, float]:
    """EM-scale signal per electromagnetic energy, and sampling term in sqrt(GeV), of a layer."""
    if layer == 0:
        return config.em_presampler, 0.05
    if layer < 4:
        return (config.em_strips if layer == 1 else config.em_lar), config.sampling_lar
    return config.em_tile, config.sampling_tile


@njit(cache=True)
def photon(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> None:  # fmt: skip
    """Carry a photon to its next interaction: pairs and Compton electrons go on the stack upstream and shower at once in the calorimeter."""
    slabs = setup.slabs
    if ux < 0.05:
        ux = 0.05
    slab, here = advance(slabs, max(find_slab(slabs, x), 0), x, ux, rng.standard_exponential() / attenuation(energy))
    if slab >= len(slabs.x_out):
        scratch.lost[LEAK] += energy
        return
    path = (here - x) / ux
    y, z = y + uy * path, z + uz * path
    if slab == 0:
        if energy < 0.0015:
            scratch.lost[DEAD] += energy
        elif rng.random() * attenuation(energy) < compton(energy):
            kept = energy / (1.0 + rng.random() * 2.0 * energy / ELECTRON_MASS)
            push(scratch, PHOTON, kept, here, y, z, ux, uy, uz)
            push(scratch, ELECTRON, energy - kept, here, y, z, ux, uy, uz)
        else:
            first = energy * rng.random()
            push(scratch, ELECTRON, first, here, y, z, ux, uy, uz)
            push(scratch, ELECTRON, energy - first, here, y, z, ux, uy, uz)
        return
    first = energy * rng.random()
    if energy > config.e_pair:
        shower(rng, setup, scratch, config, phi_axis, first, here, y, z, ux, uy, uz)
        shower(rng, setup, scratch, config, phi_axis, energy - first, here, y, z, ux, uy, uz)
    else:
        shower(rng, setup, scratch, config, phi_axis, energy, here, y, z, ux, uy, uz)


@njit(cache=True)
def radiate(rng: np.random.Generator, energy: float) -> float:
    """Energy of a bremsstrahlung photon above K_MIN from k dN/dk = 4/3 (1 - v) + v^2, v = k/E, by rejection."""
    while True:
        k = K_MIN * (energy / K_MIN) ** rng.random()
        v = k / energy
        if rng.random() * 4.0 / 3.0 < 4.0 / 3.0 * (1.0 - v) + v * v:
            return k


@njit(cache=True)
def electron(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float,
    energy: float, x: float, y: float, z: float, ux: float, uy: float, uz: float,
) -> None:  # fmt: skip
    """Carry an electron through the upstream slab and the presampler, losing, radiating and scattering, then let it shower."""
    slabs = setup.slabs
    x_end = slabs.x_out[0]
    while x < x_end:
        if ux < 0.02 or energy < 0.0015:
            scratch.lost[DEAD] += energy
            return
        step = min(0.1 * slabs.x0[0], (x_end - x) / ux + 1e-6)
        depth = step / slabs.x0[0]
        lost = min(energy, 1.08 * slabs.de_dx[0] * step)
        scratch.lost[DEAD] += lost
        energy -= lost
        x, y, z = x + ux * step, y + uy * step, z + uz * step
        if energy <= 0.0015:
            continue
        rate = depth * (4.0 / 3.0 * math.log(energy / K_MIN) - 5.0 / 6.0)
        if rng.random() < rate:
            k = radiate(rng, energy)
            push(scratch, PHOTON, k, x, y, z, ux, uy, uz)
            energy -= k
        ux, uy, uz = scatter(rng, ux, uy, uz, depth, max(energy, 0.001))
    presampler = find_slab(slabs, slabs.x_in[2])
    path = (slabs.x_in[2] - x) / ux
    y, z = y + uy * path, z + uz * path
    lost = min(energy, slabs.de_dx[2] * (slabs.x_out[2] - slabs.x_in[2]) / ux * (0.85 + 0.15 * rng.standard_gamma(1.0)))
    deposit(setup, scratch, phi_axis, presampler, slabs.x_in[2], y, z, lost, config.em_presampler * lost, EM)
    path = (slabs.x_in[4] - slabs.x_in[2]) / ux
    shower(rng, setup, scratch, config, phi_axis, energy - lost, slabs.x_in[4], y + uy * path, z + uz * path, ux, uy, uz)
