"""Photons and electrons one by one in the material in front of the calorimeter: conversion,
bremsstrahlung, ionisation, scattering.
"""

from __future__ import annotations

import math

import numpy as np

from pfcalib.simulation.em import FRONT_SLAB, PRESAMPLER, advance, shower
from pfcalib.simulation.kernels import (
    DEAD,
    DENSITY,
    EM,
    LEAK,
    Scratch,
    Setup,
    Track,
    deposit,
    find_slab,
    kernel,
    push,
    scatter,
)
from pfcalib.simulation.species import ELECTRON, ELECTRON_MASS, PHOTON

K_MIN = 0.002  # GeV, softest photon that is radiated as a particle
E_STOP = 0.0015  # GeV, below it a particle in dead material stays there


@kernel
def compton(energy: float) -> float:
    """Compton scatters a radiation length of aluminium, Klein-Nishina at high energy."""
    kappa = energy / ELECTRON_MASS
    return 1.74 / (kappa + 2.7) * (math.log(2.0 * kappa + 1.0) + 0.5)


@kernel
def attenuation(energy: float) -> float:
    """Interactions of a photon a radiation length: pairs, 7/9 at high energy, and Compton
    scattering.

    The fall of pair creation towards low energies is a fit to the cross sections of aluminium in
    the NIST XCOM tables.
    """
    return (7.0 / 9.0) / (1.0 + (0.0327 / energy) ** 0.844) + compton(energy)


@kernel
def photon(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Carry a photon to its next interaction: electrons go on the stack upstream and shower at once
    in the calorimeter.
    """
    slabs, energy = setup.slabs, track.energy
    ux, uy, uz = max(track.ux, 0.05), track.uy, track.uz
    slab, x = advance(
        slabs,
        max(find_slab(slabs, track.x), 0),
        track.x,
        ux,
        rng.standard_exponential() / attenuation(energy),
    )
    if slab >= len(slabs.x_out):
        scratch.event[LEAK] += energy
        return
    path = (x - track.x) / ux
    y, z = track.y + uy * path, track.z + uz * path
    if slab > 0:
        first = energy * rng.random()
        if energy * scratch.event[DENSITY] > setup.config.e_pair * setup.config.spots_per_gev:
            shower(rng, setup, scratch, Track(ELECTRON, first, x, y, z, ux, uy, uz))
            shower(rng, setup, scratch, Track(ELECTRON, energy - first, x, y, z, ux, uy, uz))
        else:
            shower(rng, setup, scratch, Track(ELECTRON, energy, x, y, z, ux, uy, uz))
    elif energy < E_STOP:
        scratch.event[DEAD] += energy
    elif rng.random() * attenuation(energy) < compton(energy):
        kept = energy / (1.0 + rng.random() * 2.0 * energy / ELECTRON_MASS)
        push(scratch, Track(PHOTON, kept, x, y, z, ux, uy, uz))
        push(scratch, Track(ELECTRON, energy - kept, x, y, z, ux, uy, uz))
    else:
        first = energy * rng.random()
        push(scratch, Track(ELECTRON, first, x, y, z, ux, uy, uz))
        push(scratch, Track(ELECTRON, energy - first, x, y, z, ux, uy, uz))


@kernel
def radiate(rng: np.random.Generator, energy: float) -> float:
    """Energy of a bremsstrahlung photon above K_MIN from k dN/dk = 4/3 (1 - v) + v^2, v = k/E (PDG
    review, section 34.4), by rejection.
    """
    while True:
        k = K_MIN * (energy / K_MIN) ** rng.random()
        v = k / energy
        if rng.random() * 4.0 / 3.0 < 4.0 / 3.0 * (1.0 - v) + v * v:
            return k


@kernel
def electron(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Carry an electron through the upstream slab, losing, radiating and scattering, then on into
    the calorimeter.
    """
    slabs = setup.slabs
    x_end = slabs.x_out[0]
    _, energy, x, y, z, ux, uy, uz = track
    if x >= x_end:  # knocked out or decayed inside
        shower(rng, setup, scratch, track)
        return
    while x < x_end:
        if ux < 0.02 or energy < E_STOP:
            scratch.event[DEAD] += energy
            return
        step = min(0.1 * slabs.x0[0], (x_end - x) / ux + 1e-6)
        depth = step / slabs.x0[0]
        lost = min(energy, 1.08 * slabs.de_dx[0] * step)  # electrons on the relativistic rise
        scratch.event[DEAD] += lost
        energy -= lost
        x, y, z = x + ux * step, y + uy * step, z + uz * step
        if energy <= E_STOP:
            continue
        for _ in range(
            rng.poisson(max(depth * (4.0 / 3.0 * math.log(energy / K_MIN) - 5.0 / 6.0), 0.0))
        ):
            if energy > K_MIN:
                k = radiate(rng, energy)
                push(scratch, Track(PHOTON, k, x, y, z, ux, uy, uz))
                energy -= k
        ux, uy, uz = scatter(rng, ux, uy, uz, depth, max(energy, 0.001))
    if ux < 0.02:  # turned back by the last scattering
        scratch.event[DEAD] += energy
        return
    enter_calorimeter(rng, setup, scratch, Track(ELECTRON, energy, x, y, z, ux, uy, uz))


@kernel
def enter_calorimeter(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track
) -> None:
    """Ionise the presampler, then shower from the front of the calorimeter."""
    slabs = setup.slabs
    front, ux = slabs.x_in[PRESAMPLER], track.ux
    path = (front - track.x) / ux
    y, z = track.y + track.uy * path, track.z + track.uz * path
    thickness = (slabs.x_out[PRESAMPLER] - front) / ux
    lost = min(
        track.energy, slabs.de_dx[PRESAMPLER] * thickness * (0.85 + 0.15 * rng.standard_gamma(1.0))
    )
    deposit(setup, scratch, PRESAMPLER, front, y, z, lost, setup.config.em_presampler * lost, EM)
    path = (slabs.x_in[FRONT_SLAB] - front) / ux
    inside = (slabs.x_in[FRONT_SLAB], y + track.uy * path, z + track.uz * path)
    shower(
        rng,
        setup,
        scratch,
        Track(
            ELECTRON, track.energy - lost, inside[0], inside[1], inside[2], ux, track.uy, track.uz
        ),
    )
