"""From particles to rows that Geant4 shoots one by one, and from the hits of the rows back to
events.

The rows are those of the parametrised engine: with the same particles and the same generator both
engines shower the same photons and hadrons at the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.nuclear import PROTON_MASS
from pfcalib.simulation.particles import Particles, decay_pi0, propagate
from pfcalib.simulation.showers import KIND

NUCLEONS = (2212, 2112)
_SEEDS = (1, 2**31 - 1)


class Shots(NamedTuple):
    """Rows to be shot, sorted by event, and the energy of the events; what curls up in the field
    has no row.
    """

    # (n_rows, 7): kind, energy (kinetic of nucleons), phi_axis, z, ux, uy, uz
    rows: NDArray[np.float64]
    pdg_id: NDArray[np.int64]  # (n_rows,)
    seeds: NDArray[np.int64]  # (n_rows, 2)
    event: NDArray[np.int64]  # (n_rows,)
    e_total: NDArray[np.float64]  # (n_events,) GeV that was shot
    e_curled: NDArray[np.float64]  # (n_events,) GeV that did not reach the detector

    @property
    def n_events(self) -> int:
        return len(self.e_total)


def build_shots(particles: Particles, rng: np.random.Generator, *, field: float = 0.0) -> Shots:
    """Rows of a batch of particles: neutral pions decay, the field bends, every row gets seeds of
    its own.

    Parameters
    ----------
    particles : Particles
        Sorted by event, events counted from 0 without gaps: pi0, pi+-, photons, electrons, protons
        and neutrons.
    rng : numpy.random.Generator
        Source of the decays and, after them, of the seeds.
    field : float, tesla
        Solenoid up to the coil.

    Raises
    ------
    ConfigError
        If a particle is of a kind that is not shot.
    """
    if unknown := set(np.unique(particles.pdg_id).tolist()) - {*KIND, 111}:
        raise ConfigError(
            f"no shower for particles of PDG id {sorted(unknown)}; there are {sorted([*KIND, 111])}"
        )
    n_events = int(particles.event[-1]) + 1 if len(particles.event) else 0
    particles = decay_pi0(particles, rng)
    entry = propagate(particles, field=field)
    energy = particles.energy - PROTON_MASS * np.isin(particles.pdg_id, NUCLEONS)
    kind = np.array([KIND[int(pdg_id)] for pdg_id in particles.pdg_id], dtype=np.float64)
    rows = np.column_stack([kind, energy, entry.phi_axis, entry.z, entry.direction])
    e_total, e_curled = (
        np.bincount(particles.event, e, n_events).astype(np.float64)
        for e in (energy, energy * ~entry.reaches)
    )
    seeds = rng.integers(*_SEEDS, size=(len(rows), 2))
    reaches = entry.reaches
    return Shots(
        rows[reaches],
        particles.pdg_id[reaches].astype(np.int64),
        seeds[reaches],
        particles.event[reaches],
        e_total,
        e_curled,
    )


def merge_rows(shots: Shots, rows: Hits, grid: Grid) -> Hits:
    """Hits of events from those of their rows; a cell that several rows of an event hit becomes
    one.

    Parameters
    ----------
    shots : Shots
    rows : Hits
        Of all rows, in their order.
    grid : Grid
    """
    n_events = shots.n_events
    key = np.repeat(shots.event, np.diff(rows.offsets)) * grid.n_cells + rows.cell
    keys, place = np.unique(key, return_inverse=True)
    signal, em, non_em, invisible, escaped = (
        np.bincount(place, column, len(keys)).astype(np.float64)
        for column in (rows.signal, rows.em, rows.non_em, rows.invisible, rows.escaped)
    )
    e_dead, e_leak, e_pi0 = (
        np.bincount(shots.event, column, n_events).astype(np.float64)
        for column in (rows.e_dead, rows.e_leak, rows.e_pi0)
    )
    offsets = np.searchsorted(keys, np.arange(n_events + 1) * grid.n_cells).astype(np.int64)
    cell = (keys % grid.n_cells).astype(np.int32)
    return Hits(
        offsets,
        cell,
        signal,
        em,
        non_em,
        invisible,
        escaped,
        e_dead + shots.e_curled,
        e_leak,
        shots.e_total,
        e_pi0,
    )


def join_rows(parts: Sequence[Hits]) -> Hits:
    """Hits of consecutive rows as one; no parts are no rows."""
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)])
    dtypes = dict(zip(Hits._fields, (np.int64, np.int32), strict=False))
    columns = {
        name: np.concatenate(
            [np.zeros(0, dtypes.get(name)), *(getattr(part, name) for part in parts)]
        )
        for name in Hits._fields[1:]
    }
    return Hits(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), **columns)
