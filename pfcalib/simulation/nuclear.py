"""What happens at the end of a hadron's way: nuclei break up, slow nucleons stop, pions decay."""

from __future__ import annotations

import math

import numpy as np

from pfcalib.simulation.kernels import (
    EM,
    ESCAPED,
    INVISIBLE,
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
    turn,
)
from pfcalib.simulation.upstream import PHOTON

PION_MASS, PI0_MASS, PROTON_MASS = 0.13957, 0.13498, 0.93827
PION, PROTON, NEUTRON = 2, 3, 4
FAST_PROTON, FAST_NEUTRON = 0.08, 0.05  # GeV, nucleons above fly on as tracks
MU_KINETIC, POSITRON_MEAN = 0.0041, 0.0370  # GeV, decay of a pion at rest
IN_GATE = 0.09  # muons that decay within the 205 ns of the readout


@kernel
def mip_signal(setup: Setup, slab: int) -> float:
    """Signal at the EM scale per energy lost by ionisation in a slab."""
    if slab < 0 or slab >= len(setup.slabs.x_out):
        return 0.0
    return setup.config.mip_scale * setup.slabs.mip_visible[slab]


@kernel
def push_pi0(rng: np.random.Generator, scratch: Scratch, pion: Track) -> None:
    """Decay a neutral pion of given total energy into two photons, isotropic in its rest frame,
    onto the stack.
    """
    gamma = max(pion.energy / PI0_MASS, 1.0)
    beta = math.sqrt(1.0 - 1.0 / (gamma * gamma))
    cos_star, angle = isotropic(rng)
    for sign in (1.0, -1.0):
        boosted = 1.0 + sign * beta * cos_star
        cos_lab = (sign * cos_star + beta) / boosted
        ux, uy, uz = turn(
            pion.ux, pion.uy, pion.uz, cos_lab, angle if sign > 0 else angle + math.pi
        )
        push(
            scratch, Track(PHOTON, 0.5 * pion.energy * boosted, pion.x, pion.y, pion.z, ux, uy, uz)
        )


@kernel
def at_rest(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, x: float, y: float, z: float
) -> None:
    """Decay a stopped pi+: a short muon, a positron that mostly comes too late to be seen,
    neutrinos that escape.
    """
    slab = find_slab(setup.slabs, x)
    # the rising spectrum of muon decay, up to 1.5 times its mean
    positron = 1.5 * POSITRON_MEAN * math.sqrt(rng.random())
    visible = mip_signal(setup, slab)
    deposit(setup, scratch, slab, x, y, z, MU_KINETIC, visible * MU_KINETIC, NON_EM)
    deposit(
        setup,
        scratch,
        slab,
        x,
        y,
        z,
        positron,
        visible * positron if rng.random() < IN_GATE else 0.0,
        EM,
    )
    deposit(setup, scratch, slab, x, y, z, PION_MASS - MU_KINETIC - positron, 0.0, ESCAPED)


@kernel
def slow_neutron(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Leave a slow neutron's energy some distance away; little of it is seen, in argon less than in
    the scintillator's hydrogen.
    """
    config = setup.config
    path = config.neutron_path * rng.standard_exponential()
    x, y, z = track.x + track.ux * path, track.y + track.uy * path, track.z + track.uz * path
    slab = find_slab(setup.slabs, x)
    layer = layer_of(setup.slabs, slab)
    response = 0.0 if layer < 0 else config.neutron_lar if layer < 4 else config.neutron_tile
    signal = (
        track.energy * response * rng.standard_gamma(config.neutron_shape) / config.neutron_shape
    )
    deposit(setup, scratch, slab, x, y, z, 0.5 * track.energy, signal, NON_EM)
    deposit(setup, scratch, slab, x, y, z, 0.5 * track.energy, 0.0, INVISIBLE)


@kernel
def break_up(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, energy: float, hadron: Track
) -> None:
    """Break up a nucleus: a few photons, binding energy, and nucleons that stop near by or fly on
    when they are fast.
    """
    config, x, y, z = setup.config, hadron.x, hadron.y, hadron.z
    slab = find_slab(setup.slabs, x)
    glow = energy * config.f_gamma
    if glow > 0.0:
        cos_theta, angle = isotropic(rng)
        ux, uy, uz = turn(hadron.ux, hadron.uy, hadron.uz, abs(cos_theta), angle)
        push(scratch, Track(PHOTON, glow, x, y, z, ux, uy, uz))
    bound = (energy - glow) * config.binding
    deposit(setup, scratch, slab, x, y, z, bound, 0.0, INVISIBLE)
    left = energy - glow - bound
    while left > 0.0:
        kinetic = min(left, config.t_nucleon * rng.standard_exponential() + 0.002)
        left -= kinetic
        # faster ones go forward
        cos_theta = 1.0 - 2.0 * rng.random() ** (1.0 + 3.0 * min(1.0, kinetic / 0.4))
        ux, uy, uz = turn(hadron.ux, hadron.uy, hadron.uz, cos_theta, 2.0 * math.pi * rng.random())
        if rng.random() < config.f_proton:
            if kinetic > FAST_PROTON:
                push(scratch, Track(PROTON, kinetic, x, y, z, ux, uy, uz))
                continue
            response = config.proton_lar if layer_of(setup.slabs, slab) < 4 else config.proton_tile
            signal = (
                kinetic * response * rng.standard_gamma(config.proton_shape) / config.proton_shape
            )
            deposit(setup, scratch, slab, x, y, z, kinetic, signal, NON_EM)
        elif kinetic > FAST_NEUTRON:
            push(scratch, Track(NEUTRON, kinetic, x, y, z, ux, uy, uz))
        else:
            slow_neutron(rng, setup, scratch, Track(NEUTRON, kinetic, x, y, z, ux, uy, uz))
