"""What happens at the end of a hadron's way: nuclei break up, slow nucleons stop, muons decay."""

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
from pfcalib.simulation.species import MUON_MASS, NEUTRON, PHOTON, PROTON

FAST_PROTON, FAST_NEUTRON = 0.08, 0.05  # GeV, nucleons above fly on as tracks
PROTON_RANGE = 20.0  # mm, of a proton of FAST_PROTON in lead-argon
POSITRON_MEAN = 0.0370  # GeV, decay of a muon
IN_GATE = 0.09  # muons that decay within the 205 ns of the readout


@kernel
def mip_signal(setup: Setup, slab: int) -> float:
    """Signal at the EM scale per energy lost by ionisation in a slab."""
    if slab < 0 or slab >= len(setup.slabs.x_out):
        return 0.0
    return setup.config.mip_scale * setup.slabs.mip_visible[slab]


@kernel
def muon_at_rest(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, x: float, y: float, z: float
) -> None:
    """Decay a stopped muon: a positron that mostly comes too late to be seen, neutrinos that
    escape.
    """
    slab = find_slab(setup.slabs, x)
    # the rising spectrum of muon decay, up to 1.5 times its mean
    positron = 1.5 * POSITRON_MEAN * math.sqrt(rng.random())
    signal = mip_signal(setup, slab) * positron if rng.random() < IN_GATE else 0.0
    deposit(setup, scratch, slab, x, y, z, positron, signal, EM)
    deposit(setup, scratch, slab, x, y, z, MUON_MASS - positron, 0.0, ESCAPED)


@kernel
def slow_neutron(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Leave a slow neutron's energy in pieces around; little of it is seen, in argon less than in
    the scintillator's hydrogen.
    """
    config = setup.config
    in_tile = layer_of(setup.slabs, find_slab(setup.slabs, track.x)) > 3
    mean_path = config.neutron_path_tile if in_tile else config.neutron_path
    pieces = 1 + int(track.energy / config.neutron_quantum)
    piece = track.energy / pieces
    shape = config.neutron_shape
    for _ in range(pieces):
        path = mean_path * rng.standard_exponential()
        cos_theta, angle = isotropic(rng)
        ux, uy, uz = turn(track.ux, track.uy, track.uz, cos_theta, angle)
        x, y, z = track.x + ux * path, track.y + uy * path, track.z + uz * path
        slab = find_slab(setup.slabs, x)
        layer = layer_of(setup.slabs, slab)
        response = 0.0 if layer < 0 else config.neutron_lar if layer < 4 else config.neutron_tile
        signal = piece * response * rng.standard_gamma(shape) / shape
        deposit(setup, scratch, slab, x, y, z, 0.5 * piece, signal, NON_EM)
        deposit(setup, scratch, slab, x, y, z, 0.5 * piece, 0.0, INVISIBLE)


@kernel
def stop_proton(rng: np.random.Generator, setup: Setup, scratch: Scratch, track: Track) -> None:
    """Leave a slow proton's energy at the end of its range, of Bragg and Kleeman's power law."""
    config, path = setup.config, PROTON_RANGE * (track.energy / FAST_PROTON) ** 1.77
    x, y, z = track.x + track.ux * path, track.y + track.uy * path, track.z + track.uz * path
    slab = find_slab(setup.slabs, x)
    response = config.proton_lar if layer_of(setup.slabs, slab) < 4 else config.proton_tile
    signal = track.energy * response * rng.standard_gamma(config.proton_shape) / config.proton_shape
    deposit(setup, scratch, slab, x, y, z, track.energy, signal, NON_EM)


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
        is_proton = rng.random() < config.f_proton
        made = Track(PROTON if is_proton else NEUTRON, kinetic, x, y, z, ux, uy, uz)
        if kinetic > (FAST_PROTON if is_proton else FAST_NEUTRON):
            push(scratch, made)
        elif is_proton:
            stop_proton(rng, setup, scratch, made)
        else:
            slow_neutron(rng, setup, scratch, made)
