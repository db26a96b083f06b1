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

from pfcalib.geometry import Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import build_rows

_SEEDS = (1, 2**31 - 1)


class Shots(NamedTuple):
    """Rows to be shot, sorted by event, and the energy of the events; what curls up in the field
    has no row.
    """

    # (n_rows, 7): kind, measurable energy, phi_axis, z, ux, uy, uz
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
    """Rows of a batch of particles that reach the detector, each with seeds of its own.

    Parameters
    ----------
    particles : Particles
        As of `simulation.showers.build_rows`.
    rng : numpy.random.Generator
        Source of the decays and, after them, of the seeds.
    field : float, tesla
        Solenoid up to the coil.

    Raises
    ------
    ConfigError
        If a particle is of a kind that is not incoming.
    """
    incoming = build_rows(particles, rng, field=field)
    seeds = rng.integers(*_SEEDS, size=(len(incoming.rows), 2))
    of_rows = (incoming.rows, incoming.pdg_id, seeds, incoming.event)
    shot = [values[incoming.reaches] for values in of_rows]
    return Shots._make((*shot, incoming.e_total, incoming.e_curled))


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
    key = np.repeat(shots.event, np.diff(rows.offsets)) * grid.n_cells + rows.cell
    keys, place = np.unique(key, return_inverse=True)
    of_cells = (
        np.bincount(place, getattr(rows, name), len(keys)).astype(np.float64)
        for name in ("signal", "em", "non_em", "invisible", "escaped")
    )
    e_dead, e_leak, e_pi0 = (
        np.bincount(shots.event, column, shots.n_events).astype(np.float64)
        for column in (rows.e_dead, rows.e_leak, rows.e_pi0)
    )
    offsets = np.searchsorted(keys, np.arange(shots.n_events + 1) * grid.n_cells).astype(np.int64)
    cell = (keys % grid.n_cells).astype(np.int32)
    e_dead = e_dead + shots.e_curled
    return Hits._make((offsets, cell, *of_cells, e_dead, e_leak, shots.e_total, e_pi0))


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
