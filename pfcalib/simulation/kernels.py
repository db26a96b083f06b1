"""What all shower kernels share: tracks, the scratch pad of one event, finding slabs and cells,
turning directions.

Particles move in a frame turned about the beam so that x points through the impact of the shot
particle on the calorimeter: x is the depth, y the azimuthal and z the beam direction, in mm.
Kernels are compiled by numba; energies are GeV.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.simulation.detector import GridArrays, Slabs
from pfcalib.simulation.parameters import ShowerConfig

kernel = njit(cache=True, error_model="numpy", fastmath=True)
# for leaves of the innermost loops
inlined = njit(cache=True, error_model="numpy", fastmath=True, forceinline=True)

EM, NON_EM, INVISIBLE, ESCAPED = 1, 2, 3, 4  # columns of Scratch.cells; 0 is the signal
DEAD, LEAK, PHI_AXIS, DENSITY = 0, 1, 2, 3  # entries of Scratch.event


class Track(NamedTuple):
    """A particle on its way."""

    kind: int
    energy: float  # GeV; total, but kinetic for nucleons
    x: float
    y: float
    z: float
    ux: float
    uy: float
    uz: float


class Scratch(NamedTuple):
    """Work space of one event; only the cells that were touched are cleared between events."""

    cells: NDArray[np.float64]  # (n_cells, 5): signal and the four components of the truth
    touched: NDArray[np.int32]  # (n_cells,)
    seen: NDArray[np.bool_]  # (n_cells,)
    counts: NDArray[np.int64]  # (2,) touched cells, height of the stack
    # (4,) GeV in dead material, GeV leaked, azimuth of the x axis, energy spots per GeV
    event: NDArray[np.float64]
    stack: NDArray[np.float64]  # (size, 8), rows are tracks
    # (40, 3) radial profile of one shower: core and tail in Moliere radii, share of the core
    radial: NDArray[np.float64]


class Setup(NamedTuple):
    """What stays the same for a whole batch: material, cells and parameters."""

    slabs: Slabs
    grid: GridArrays
    config: ShowerConfig


def new_scratch(n_cells: int, stack_size: int = 8192) -> Scratch:
    """An empty scratch pad."""
    counters = (
        np.zeros(n_cells, np.int32),
        np.zeros(n_cells, np.bool_),
        np.zeros(2, np.int64),
        np.zeros(4),
    )
    return Scratch(np.zeros((n_cells, 5)), *counters, np.zeros((stack_size, 8)), np.zeros((40, 3)))


@inlined
def find_slab(slabs: Slabs, x: float) -> int:
    """Index of the slab that holds depth x; -1 in front of all, n_slabs behind all."""
    if x < slabs.x_in[0]:
        return -1
    for i in range(len(slabs.x_out)):
        if x < slabs.x_out[i]:
            return i
    return len(slabs.x_out)


@inlined
def layer_of(slabs: Slabs, slab: int) -> int:
    """Layer of a slab; -1 for dead material and outside."""
    return slabs.layer[slab] if 0 <= slab < len(slabs.layer) else -1


@inlined
def find_cell(grid: GridArrays, layer: int, x: float, y: float, z: float, phi_axis: float) -> int:
    """Cell of a layer at a point of the turned frame; -1 outside the grid."""
    slope = z / math.sqrt(x * x + y * y)
    eta = math.log(slope + math.sqrt(1.0 + slope * slope))
    i_eta = math.floor((eta - grid.eta_min) / grid.d_eta[layer])
    if i_eta < 0 or i_eta >= grid.n_eta[layer]:
        return -1
    i_phi = math.floor((phi_axis + math.atan2(y, x) - grid.phi_min) / grid.d_phi[layer])
    n_phi = grid.n_phi[layer]
    if grid.wraps:
        i_phi = i_phi % n_phi
    elif i_phi < 0 or i_phi >= n_phi:
        return -1
    return int(grid.offset[layer] + i_eta * n_phi + i_phi)


@inlined
def deposit(
    setup: Setup,
    scratch: Scratch,
    slab: int,
    x: float,
    y: float,
    z: float,
    energy: float,
    signal: float,
    kind: int,
) -> None:
    """Add an energy and its signal to the cell at a point, or to dead material or leakage where
    there is none.
    """
    if slab >= len(setup.slabs.layer):
        scratch.event[LEAK] += energy
        return
    layer = layer_of(setup.slabs, slab)
    if layer < 0:
        scratch.event[DEAD] += energy
        return
    cell = find_cell(setup.grid, layer & 0xFFFF, x, y, z, scratch.event[PHI_AXIS])
    if cell < 0:
        scratch.event[LEAK] += energy
        return
    if not scratch.seen[cell]:
        scratch.seen[cell] = True
        scratch.touched[scratch.counts[0]] = cell
        scratch.counts[0] += 1
    scratch.cells[cell, 0] += signal
    scratch.cells[cell, kind] += energy


@kernel
def push(scratch: Scratch, track: Track) -> None:
    """Put a track on the stack; when the stack is full its energy counts as lost in dead
    material.
    """
    top = scratch.counts[1]
    if top >= len(scratch.stack):
        scratch.event[DEAD] += track.energy
        return
    row = scratch.stack[top]
    row[0], row[1], row[2], row[3] = track.kind, track.energy, track.x, track.y
    row[4], row[5], row[6], row[7] = track.z, track.ux, track.uy, track.uz
    scratch.counts[1] = top + 1


@kernel
def pop(scratch: Scratch) -> Track:
    """Take the last track off the stack."""
    scratch.counts[1] -= 1
    row = scratch.stack[scratch.counts[1]]
    return Track(int(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7])


@kernel
def turn(
    ux: float, uy: float, uz: float, cos_theta: float, angle: float
) -> tuple[float, float, float]:
    """Direction at polar angle theta and azimuth `angle` about a unit vector."""
    sin_theta = math.sqrt(max(0.0, 1.0 - cos_theta * cos_theta))
    a, b = sin_theta * math.cos(angle), sin_theta * math.sin(angle)
    norm = math.sqrt(ux * ux + uy * uy)
    if norm < 1e-9:
        return a, b, math.copysign(cos_theta, uz)
    vx = cos_theta * ux + (a * ux * uz - b * uy) / norm
    vy = cos_theta * uy + (a * uy * uz + b * ux) / norm
    return vx, vy, cos_theta * uz - a * norm


@kernel
def isotropic(rng: np.random.Generator) -> tuple[float, float]:
    """Cosine of the polar angle and azimuth of a random direction."""
    return 2.0 * rng.random() - 1.0, 2.0 * math.pi * rng.random()


@kernel
def scatter(
    rng: np.random.Generator, ux: float, uy: float, uz: float, depth: float, p_beta: float
) -> tuple[float, float, float]:
    """Multiple scattering through `depth` radiation lengths, Highland's core (PDG review, section
    34.3, without the logarithm); p beta in GeV.
    """
    theta0 = 0.0136 / p_beta * math.sqrt(depth)
    theta = min(theta0 * math.sqrt(2.0 * rng.standard_exponential()), 1.5)
    return turn(ux, uy, uz, math.cos(theta), 2.0 * math.pi * rng.random())
