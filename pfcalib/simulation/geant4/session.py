"""A session of Geant4: run manager, physics and detector of one process, shooting rows of particles
into the slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.actions import start_geant4
from pfcalib.simulation.geant4.cells import EventHits, collect_event
from pfcalib.simulation.geant4.config import Geant4Config, require_geant4
from pfcalib.simulation.geant4.data import DataSets
from pfcalib.simulation.geant4.scoring import Records
from pfcalib.simulation.geant4.slice import Stack, reference_stack

PARTICLES = {  # PDG id: name in Geant4, least energy in GeV
    22: ("gamma", 0.0),
    11: ("e-", 0.0),
    -11: ("e+", 0.00103),
    111: ("pi0", 0.13498),
    211: ("pi+", 0.13958),
    -211: ("pi-", 0.13958),
    13: ("mu-", 0.10566),
    -13: ("mu+", 0.10566),
    321: ("kaon+", 0.49368),
    -321: ("kaon-", 0.49368),
    130: ("kaon0L", 0.49761),
    2212: ("proton", 0.0),
    -2212: ("anti_proton", 1.87655),
    2112: ("neutron", 0.0),
    -2112: ("anti_neutron", 1.87784),
}
MAX_SEED = 2**32
_LIGHT_SPEED = 299.792458  # mm/ns
_STEP_BACK = 1.0  # mm of vacuum, so that no track begins on a surface


class Session:
    """The one session of a process; `shoot` may be called as often as wanted.

    Parameters
    ----------
    grid : Grid
        Cells to fill.
    data : DataSets
        From `find_data`.
    config : Geant4Config, optional
    stack : Stack, optional
        Slabs to shoot at; the reference slice by default.

    Raises
    ------
    ConfigError
        If geant4-pybind is missing or cannot find its data, or there is a session in this process
        already.

    Notes
    -----
    Leave the process with ``os._exit`` after the output is written: Geant4 and Python do not agree
    on the order of the end.
    """

    _alive = False

    def __init__(
        self,
        grid: Grid,
        data: DataSets,
        config: Geant4Config | None = None,
        *,
        stack: Stack | None = None,
    ) -> None:
        require_geant4()
        if Session._alive:
            raise ConfigError(
                "Geant4 has one run manager a process: start another process for another session"
            )
        Session._alive = True
        self.grid, self.data, self.config = grid, data, config or Geant4Config()
        self.stack = stack or reference_stack(grid)
        # (n_rows,) GeV of the last rows: their energy less all truth, what the balance cannot place
        self.unattributed = np.zeros(0)
        # (n_rows, n_layers, 2) GeV in absorbers and in active material, cells or not
        self.tally = np.zeros((0, grid.n_layers, 2))
        data.export()
        self._records = Records()
        self._events: list[EventHits] = []
        self._queue = np.zeros((0, 7)), np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        self._manager, self._energy, self._kept = start_geant4(
            self.stack, self._records, self.config, self._begin_event, self._end_event
        )

    def shoot(
        self, rows: NDArray[np.float64], pdg_id: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> Hits:
        """Shoot each row as one event, seeded for itself: a row gives the same bits whatever was
        shot before. The events of the hits are the rows.

        Parameters
        ----------
        rows : ndarray, shape (n, 7)
            (kind, energy, phi_axis, z, ux, uy, uz) as `simulate_showers` makes them: GeV; rad; mm
            at the front; unit vector in the frame turned by phi_axis. The kind is not read. The
            energy is what can be measured: kinetic energy of nucleons and electrons, kinetic energy
            and 2 m of antinucleons and positrons, total energy of the others.
        pdg_id : ndarray, shape (n,)
            One of PARTICLES.
        seeds : ndarray, shape (n, 2)
            Numbers from 1 below 2^32.

        Raises
        ------
        ConfigError
            If shapes, particles or seeds are not as above, or an energy is not enough to make the
            particle.
        """
        rows, pdg_id, seeds = (
            np.asarray(rows, np.float64),
            np.asarray(pdg_id, np.int64),
            np.asarray(seeds, np.int64),
        )
        require_rows(rows, pdg_id, seeds)
        self._events.clear()
        self._queue = (rows, pdg_id, seeds)
        if len(rows):
            self._manager.BeamOn(len(rows))
        if len(self._events) != len(rows):
            raise ConfigError(f"Geant4 ended after {len(self._events)} of {len(rows)} rows")
        offsets = np.cumsum([0, *(len(event.cell) for event in self._events)])
        cell = np.concatenate([np.zeros(0, np.int32), *(event.cell for event in self._events)])
        values = np.concatenate([np.zeros((0, 5)), *(event.values for event in self._events)])
        per_row = np.array(
            [(event.e_dead, event.e_leak, event.e_pi0) for event in self._events]
        ).reshape(-1, 3)
        e_dead, e_leak, e_pi0 = per_row.T
        columns = (*values.T, e_dead, e_leak, rows[:, 1], e_pi0)
        hits = Hits(
            offsets.astype(np.int64), cell, *(np.ascontiguousarray(column) for column in columns)
        )
        self.tally = np.array([event.tally for event in self._events]).reshape(
            -1, self.grid.n_layers, 2
        )
        found = np.array([event.values[:, 1:].sum() for event in self._events])
        self.unattributed = rows[:, 1] - found - hits.e_dead - hits.e_leak
        return hits

    def _begin_event(self, gun: Any, event: Any) -> None:
        """Seed and aim at the next row; called by Geant4."""
        import geant4_pybind as g4

        rows, pdg_id, seeds = self._queue
        i = len(self._events)
        g4.HepRandom.setTheSeeds([*seeds[i].tolist(), 0], 2)  # the list ends with its first zero
        _, energy, _, z, ux, uy, uz = rows[i].tolist()
        definition = g4.G4ParticleTable.GetParticleTable().FindParticle(
            PARTICLES[int(pdg_id[i])][0]
        )
        gun.SetParticleDefinition(definition)
        gun.SetParticleEnergy(1e3 * energy - self._energy.rest(definition))
        back = _STEP_BACK / ux
        gun.SetParticlePosition(
            g4.G4ThreeVector(self.stack.front - _STEP_BACK, -back * uy, z - back * uz)
        )
        gun.SetParticleMomentumDirection(g4.G4ThreeVector(ux, uy, uz))
        gun.SetParticleTime(float(np.hypot(self.stack.front, z)) / _LIGHT_SPEED)
        gun.GeneratePrimaryVertex(event)
        self._records.clear()

    def _end_event(self) -> None:
        """Make cells of the records; called by Geant4."""
        self._records.settle()
        phi_axis = float(self._queue[0][len(self._events), 2])
        self._events.append(collect_event(self._records, self.grid, phi_axis, self.config))


def require_rows(
    rows: NDArray[np.float64], pdg_id: NDArray[np.int64], seeds: NDArray[np.int64]
) -> None:
    """Raise ConfigError where rows, particles or seeds are not what `Session.shoot` takes."""
    n = len(rows)
    if rows.shape != (n, 7) or pdg_id.shape != (n,) or seeds.shape != (n, 2):
        raise ConfigError(
            f"expected rows (n, 7), pdg_id (n,), seeds (n, 2), not {rows.shape}, {pdg_id.shape}, "
            f"{seeds.shape}"
        )
    unknown = sorted(set(pdg_id.tolist()) - set(PARTICLES))
    if unknown:
        raise ConfigError(f"Geant4 rows may hold PDG ids {sorted(PARTICLES)}, not {unknown}")
    bad = np.flatnonzero(~((seeds > 0) & (seeds < MAX_SEED)).all(axis=1))
    if len(bad):
        raise ConfigError(
            f"row {bad[0]}: seeds must be from 1 below 2^32, not {seeds[bad[0]].tolist()}"
        )
    floor = np.array([PARTICLES[int(code)][1] for code in pdg_id])
    bad = np.flatnonzero(
        ~(np.isfinite(rows).all(axis=1) & (rows[:, 1] > floor) & (rows[:, 4] > 0.0))
    )
    if len(bad):
        raise ConfigError(
            f"row {bad[0]}: needs finite numbers, an energy above {floor[bad[0]]:.5f} GeV and ux > "
            f"0, not {rows[bad[0]].tolist()}"
        )
