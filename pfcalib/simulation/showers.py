"""Showers of many events at once: the loop over particles in numba, chunks of fixed size, as many processes as wanted.

Every chunk has its own random stream, spawned from the seed and the number of the chunk, so the same seed gives the same bytes whatever the
number of processes.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid
from pfcalib.simulation.config import ShowerConfig
from pfcalib.simulation.detector import FRONT, build_slabs, grid_arrays
from pfcalib.simulation.em import ELECTRON, PHOTON, electron, photon
from pfcalib.simulation.hadronic import NEUTRON, PI0, PION, PROTON, PROTON_MASS, hadron, push_pi0
from pfcalib.simulation.hits import Hits
from pfcalib.simulation.kernels import DENSITY, Scratch, Setup, new_scratch, push
from pfcalib.simulation.particles import Particles, decay_pi0, propagate

KIND = {22: PHOTON, 11: ELECTRON, -11: ELECTRON, 211: PION, -211: PION, 2212: PROTON, 2112: NEUTRON, 111: PI0}


@njit(cache=True)
def run_stack(rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, phi_axis: float) -> float:
    """Carry all particles on the stack and their descendants to the end; returns the energy given to neutral pions by hadrons."""
    neutral = 0.0
    while scratch.count[1] > 0:
        scratch.count[1] -= 1
        row = scratch.stack[scratch.count[1]]
        kind, e, x, y, z, ux, uy, uz = int(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7]
        if kind == PHOTON:
            photon(rng, setup, scratch, config, phi_axis, e, x, y, z, ux, uy, uz)
        elif kind == ELECTRON:
            electron(rng, setup, scratch, config, phi_axis, e, x, y, z, ux, uy, uz)
        elif kind == PI0:
            push_pi0(rng, scratch, e, x, y, z, ux, uy, uz)
        else:
            neutral += hadron(rng, setup, scratch, config, phi_axis, kind, e, x, y, z, ux, uy, uz)
    return neutral


@njit(cache=True)
def run_events(
    rng: np.random.Generator, setup: Setup, scratch: Scratch, config: ShowerConfig, rows: NDArray[np.float64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Showers of consecutive events; rows are (kind, energy, phi_axis, z, ux, uy, uz), starts the first row of each event."""
    n_events = len(starts) - 1
    offsets, lost = np.zeros(n_events + 1, np.int64), np.zeros((n_events, 3))
    cells, values = np.empty(4096, np.int32), np.empty((4096, 5))
    for event in range(n_events):
        scratch.lost[:] = 0.0
        total = rows[starts[event] : starts[event + 1], 1].sum()
        scratch.lost[DENSITY] = min(config.spots_per_gev, config.spots_max / max(total, 1e-3))
        for i in range(starts[event], starts[event + 1]):
            row = rows[i]
            push(scratch, int(row[0]), row[1], FRONT, 0.0, row[3], row[4], row[5], row[6])
            lost[event, 2] += run_stack(rng, setup, scratch, config, row[2])
        n = scratch.count[0]
        start = offsets[event]
        while start + n > len(cells):
            cells, values = np.concatenate((cells, np.empty_like(cells))), np.concatenate((values, np.empty_like(values)))
        found = np.sort(scratch.touched[:n])
        for j in range(n):
            cell = found[j]
            cells[start + j] = cell
            values[start + j] = scratch.cells[cell]
            scratch.cells[cell] = 0.0
            scratch.seen[cell] = False
        scratch.count[0] = 0
        lost[event, :2] = scratch.lost[:2]
        offsets[event + 1] = start + n
    return offsets, cells[: offsets[n_events]].copy(), values[: offsets[n_events]].copy(), lost


def simulate_showers(
    particles: Particles, grid: Grid, rng: np.random.Generator, *, field: float = 0.0, config: ShowerConfig | None = None
) -> Hits:
    """Showers of a batch of particles in one process.

    Parameters
    ----------
    particles : Particles
        Sorted by event, events counted from 0 without gaps: pi0, pi+-, photons, electrons, protons and neutrons.
    grid : Grid
        Cells to fill.
    rng : numpy.random.Generator
        Source of all fluctuations.
    field : float, tesla
        Solenoid up to the coil; what curls up in it counts as energy in dead material.
    config : ShowerConfig, optional
        The tuned parameters by default.

    Raises
    ------
    ConfigError
        If a particle is of a kind that has no shower here.
    """
    unknown = set(np.unique(particles.pdg_id).tolist()) - set(KIND)
    if unknown:
        raise ConfigError(f"no shower for particles of PDG id {sorted(unknown)}; there are {sorted(KIND)}")
    n_events = int(particles.event[-1]) + 1 if len(particles.event) else 0
    particles = decay_pi0(particles, rng)
    entry = propagate(particles, field=field)
    rows = np.zeros((len(particles.energy), 7))
    rows[:, 0] = [KIND[int(pdg_id)] for pdg_id in particles.pdg_id]
    rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4:] = particles.energy, entry.phi_axis, entry.z, entry.direction
    rows[np.isin(particles.pdg_id, (2212, 2112)), 1] -= PROTON_MASS  # nucleons bring their kinetic energy only
    total = np.bincount(particles.event, rows[:, 1], n_events)
    curled = np.bincount(particles.event, rows[:, 1] * ~entry.reaches, n_events)
    starts = np.searchsorted(particles.event[entry.reaches], np.arange(n_events + 1))
    setup = Setup(build_slabs(grid), grid_arrays(grid))
    offsets, cell, values, lost = run_events(rng, setup, new_scratch(grid.n_cells), config or ShowerConfig(), rows[entry.reaches], starts)
    return Hits(offsets, cell, *(values[:, i].copy() for i in range(5)), lost[:, 0] + curled, lost[:, 1].copy(), total)
