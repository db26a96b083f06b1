"""Showers of many events at once: the loop over particles in numba, chunks of fixed size, as many
processes as wanted.

Every chunk has its own random stream, spawned from the seed and the number of the chunk, so the
same seed gives the same bytes whatever the number of processes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid
from pfcalib.simulation.detector import FRONT, build_slabs, grid_arrays
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.hadronic import hadron
from pfcalib.simulation.kernels import (
    DEAD,
    DENSITY,
    LEAK,
    PHI_AXIS,
    Scratch,
    Setup,
    Track,
    kernel,
    new_scratch,
    pop,
    push,
)
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles, decay_at_origin, measurable_energy, propagate
from pfcalib.simulation.refine import merge, refine_hits
from pfcalib.simulation.species import (
    ANTINEUTRON,
    ANTIPROTON,
    ELECTRON,
    KAON,
    KAON_LONG,
    KAON_MINUS,
    MUON,
    NEUTRON,
    PHOTON,
    PI0,
    PION,
    PION_MINUS,
    PROTON,
    decay,
)
from pfcalib.simulation.upstream import electron, photon

# of PDG ids; a pi0 and a short-lived kaon decay before they shower
KIND = {
    22: PHOTON, 11: ELECTRON, -11: ELECTRON, 13: MUON, -13: MUON, 211: PION, -211: PION_MINUS,
    321: KAON, -321: KAON_MINUS, 130: KAON_LONG, 2212: PROTON, -2212: ANTIPROTON, 2112: NEUTRON,
    -2112: ANTINEUTRON,
}  # fmt: skip
SHOWERING = {*KIND, 111, 310}


@kernel
def run_stack(rng: np.random.Generator, setup: Setup, scratch: Scratch) -> float:
    """Carry all tracks on the stack and their descendants to the end; returns the energy given to
    neutral pions by hadrons.
    """
    neutral = 0.0
    while scratch.counts[1] > 0:
        track = pop(scratch)
        if track.kind == PHOTON:
            photon(rng, setup, scratch, track)
        elif track.kind == ELECTRON:
            electron(rng, setup, scratch, track)
        elif track.kind == PI0:
            neutral += track.energy
            decay(rng, setup, scratch, track)
        else:
            neutral += hadron(rng, setup, scratch, track)
    return neutral


@kernel
def run_events(
    rng: np.random.Generator,
    setup: Setup,
    scratch: Scratch,
    rows: NDArray[np.float64],
    starts: NDArray[np.int64],
    totals: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Showers of consecutive events; rows are (kind, energy, phi_axis, z, ux, uy, uz), starts the
    first row of each event, totals the energies that the density of spots goes with.

    Returns the offsets of the events, the cells, their (signal, em, non_em, invisible, escaped),
    and (dead, leak, to pi0) of the events.
    """
    n_events = len(starts) - 1
    offsets, lost = np.zeros(n_events + 1, np.int64), np.zeros((n_events, 3))
    cells, values = np.empty(4096, np.int32), np.empty((4096, 5))
    for event in range(n_events):
        scratch.event[DEAD] = scratch.event[LEAK] = 0.0
        scratch.event[DENSITY] = min(
            setup.config.spots_per_gev, setup.config.spots_max / max(totals[event], 1e-3)
        )
        for i in range(starts[event], starts[event + 1]):
            row = rows[i]
            scratch.event[PHI_AXIS] = row[2]
            push(scratch, Track(int(row[0]), row[1], FRONT, 0.0, row[3], row[4], row[5], row[6]))
            lost[event, 2] += run_stack(rng, setup, scratch)
        lost[event, 0], lost[event, 1] = scratch.event[DEAD], scratch.event[LEAK]
        offsets[event + 1] = offsets[event] + scratch.counts[0]
        while offsets[event + 1] > len(cells):
            cells, values = (
                np.concatenate((cells, np.empty_like(cells))),
                np.concatenate((values, np.empty_like(values))),
            )
        collect(
            scratch,
            cells[offsets[event] : offsets[event + 1]],
            values[offsets[event] : offsets[event + 1]],
        )
    return offsets, cells[: offsets[n_events]].copy(), values[: offsets[n_events]].copy(), lost


@kernel
def collect(scratch: Scratch, cells: NDArray[np.int32], values: NDArray[np.float64]) -> None:
    """Write the touched cells in rising order and clear them."""
    cells[:] = np.sort(scratch.touched[: scratch.counts[0]])
    for i in range(len(cells)):
        cell = cells[i]
        values[i] = scratch.cells[cell]
        scratch.cells[cell] = 0.0
        scratch.seen[cell] = False
    scratch.counts[0] = 0


class Incoming(NamedTuple):
    """Particles at the front of the material, one row each; what curls up in the field stays in,
    with `reaches` False.
    """

    # (n, 7): kind, measurable energy, phi_axis, z, ux, uy, uz
    rows: NDArray[np.float64]
    pdg_id: NDArray[np.int64]  # (n,)
    event: NDArray[np.int64]  # (n,)
    reaches: NDArray[np.bool_]  # (n,)
    e_total: NDArray[np.float64]  # (n_events,) GeV that was shot
    e_curled: NDArray[np.float64]  # (n_events,) GeV that did not reach the detector


def build_rows(particles: Particles, rng: np.random.Generator, *, field: float = 0.0) -> Incoming:
    """Rows of a batch of particles for either engine: pi0 and K0S decay, the field bends.

    Parameters
    ----------
    particles : Particles
        Sorted by event, events counted from 0 without gaps, of the kinds SHOWERING.
    rng : numpy.random.Generator
        Source of the decays.
    field : float, tesla
        Solenoid up to the coil.

    Raises
    ------
    ConfigError
        If a particle is of a kind that has no shower here.
    """
    if unknown := set(np.unique(particles.pdg_id).tolist()) - SHOWERING:
        raise ConfigError(
            f"no shower for particles of PDG id {sorted(unknown)}; there are {sorted(SHOWERING)}"
        )
    n_events = int(particles.event[-1]) + 1 if len(particles.event) else 0
    particles = decay_at_origin(particles, rng)
    entry = propagate(particles, field=field)
    energy = measurable_energy(particles)
    kind = np.array([KIND[int(pdg_id)] for pdg_id in particles.pdg_id], dtype=np.float64)
    e_total, e_curled = (
        np.bincount(particles.event, e, n_events).astype(np.float64)
        for e in (energy, energy * ~entry.reaches)
    )
    return Incoming(
        np.column_stack([kind, energy, entry.phi_axis, entry.z, entry.direction]),
        particles.pdg_id.astype(np.int64),
        particles.event,
        entry.reaches,
        e_total,
        e_curled,
    )


def simulate_showers(
    particles: Particles,
    grid: Grid,
    rng: np.random.Generator,
    *,
    field: float = 0.0,
    config: ShowerConfig | None = None,
    refine: bool = True,
) -> Hits:
    """Showers of a batch of particles in one process: one of each particle, refined, then those of
    an event added up.

    Parameters
    ----------
    particles : Particles
        As of `build_rows`.
    grid : Grid
        Cells to fill.
    rng : numpy.random.Generator
        Source of all fluctuations.
    field : float, tesla
        Solenoid up to the coil; what curls up in it counts as energy in dead material.
    config : ShowerConfig, optional
        The tuned parameters by default; showers with others are never refined, since the refinement
        was learned on the default ones.
    refine : bool
        False leaves the showers as the parametrisation makes them.

    Raises
    ------
    ConfigError
        If a particle is of a kind that has no shower here.
    """
    number = np.arange(len(particles.event))
    incoming = build_rows(particles._replace(event=number), rng, field=field)
    starts = np.searchsorted(incoming.event[incoming.reaches], np.arange(len(number) + 1))
    totals = np.bincount(particles.event, incoming.e_total)[particles.event]
    setup = Setup(build_slabs(grid), grid_arrays(grid), config or ShowerConfig())
    offsets, cell, values, lost = run_events(
        rng, setup, new_scratch(grid.n_cells), incoming.rows[incoming.reaches], starts, totals
    )
    columns = (np.ascontiguousarray(column) for column in (*values.T, *lost.T))
    signal, em, non_em, invisible, escaped, dead, leak, e_pi0 = columns
    e_dead, of_cells = dead + incoming.e_curled, (signal, em, non_em, invisible, escaped)
    hits = Hits._make((offsets, cell, *of_cells, e_dead, leak, incoming.e_total, e_pi0))
    if refine and config is None:
        hits = refine_hits(hits, particles, grid, rng, field=field)
    return add_up(hits, particles.event, grid)


def add_up(hits: Hits, event: NDArray[np.int64], grid: Grid) -> Hits:
    """Hits of events from those of single particles, whose events are counted from 0 without
    gaps.
    """
    if np.array_equal(event, np.arange(len(event))):
        return hits
    n = int(event[-1]) + 1
    offsets, cell, values = merge(
        event[hits.event], hits.cell, np.column_stack(hits[2:7]), n, grid.n_cells
    )
    of_events = (np.bincount(event, values, n) for values in hits[7:])
    columns = (np.ascontiguousarray(column) for column in values.T)
    return Hits._make((offsets, cell, *columns, *of_events))
