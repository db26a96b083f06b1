"""Showers by Geant4, of the rows that the parametrised engine would shower, by any number of worker
processes.

The work is cut into jobs (see `jobs`). Every row has its own seeds, so the hits depend neither on
the number of workers nor on how the rows were cut, nor on where an earlier attempt stopped.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_key
from pfcalib.errors import ConfigError
from pfcalib.geometry import GRIDS, Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.actions import PHYSICS
from pfcalib.simulation.geant4.config import Geant4Config, require_geant4
from pfcalib.simulation.geant4.data import DataSets, find_data
from pfcalib.simulation.geant4.jobs import (
    JOB_ENERGY,
    Job,
    Pool,
    cut_batch,
    read_result,
    write_setup,
)
from pfcalib.simulation.geant4.shots import Shots, join_rows, merge_rows

SYNTHETIC = (
    "%s: no evaluated data sets of Geant4 are configured (GEANT4_DATA_DIR), so cross sections "
    "come from tables written from formulas"
)

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Hits of one batch of events and what they took."""

    hits: Hits
    job_energy: NDArray[np.float64]  # (n_jobs,) GeV
    job_seconds: NDArray[np.float64]  # (n_jobs,) processor time of one core


def describe_geant4(data: DataSets, config: Geant4Config | None = None) -> dict[str, str]:
    """What the metadata of a file of Geant4 showers say: generator, data sets, physics, cuts and
    readout.
    """
    config = config or Geant4Config()
    return {
        "generator": data.label,
        "data sets": "tables written from formulas, not the evaluated ones"
        if data.synthetic
        else "evaluated",
        "physics": "FTFP_BERT without extra EM physics, geant4-pybind "
        f"{version('geant4-pybind')}: {', '.join(PHYSICS)}",
        "cuts": f"range cut {config.cut:g} mm, neutron tracking cut",
        "readout": f"Birks' law and a gate of {config.gate:g} ns; no noise, no field in the "
        "calorimeter",
        "scale": f"EM scale: visible energy in argon x {config.lar_scale:g}, in scintillator x "
        f"{config.tile_scale:g}",
    }


def simulate_batches(
    batches: Sequence[Shots],
    grid: Grid,
    folder: Path,
    *,
    config: Geant4Config | None = None,
    data: DataSets | None = None,
    n_processes: int = 1,
    job_energy: float = JOB_ENERGY,
    progress: Callable[[int], None] | None = None,
) -> Generator[Batch, None, None]:
    """Showers of batches of events, each when it is complete; what lies in the folder already is
    not shot again.

    Parameters
    ----------
    batches : sequence of Shots
    grid : Grid
        One of `geometry.GRIDS`.
    folder : Path
        For jobs and results, in a folder named after all that decides the hits; the caller removes
        it when the hits are safe.
    config : Geant4Config, optional
    data : DataSets, optional
        By default those that `find_data` finds or writes.
    n_processes : int
        Workers; the hits do not depend on it.
    job_energy : float, GeV
        Energy that a worker shoots at once.
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If Geant4 is not installed, or the grid is another.
    WorkerError
        If Geant4 crashes twice at the same rows.
    """
    require_geant4()
    if GRIDS.get(grid.name) is not grid:
        raise ConfigError(f"Geant4 fills the grids {', '.join(GRIDS)}, not {grid.name!r}")
    config, data = config or Geant4Config(), data or find_data()
    if data.synthetic:
        log.warning(SYNTHETIC, data.label)
    folder = folder / work_key(batches, grid, config, data)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.tmp*"):
        stale.unlink(missing_ok=True)
    write_setup(folder / "setup.json", grid, data, config)
    # number and size of the jobs are part of their names, so another cut makes other files
    jobs = [
        [
            Job(events, rows, folder / f"{number:05d}-{rows.start:05d}-{rows.stop:05d}.npz")
            for events, rows in cut_batch(
                shots.event, shots.rows[:, 1], shots.n_events, job_energy=job_energy
            )
        ]
        for number, shots in enumerate(batches)
    ]
    with Pool(folder / "setup.json", n_processes=n_processes) as pool:
        answers = [
            [pool.submit(job, shots) for job in of_batch]
            for shots, of_batch in zip(batches, jobs, strict=True)
        ]
        for shots, of_batch, of_jobs in zip(batches, jobs, answers, strict=True):
            results = []
            for job, answer in zip(of_batch, of_jobs, strict=True):
                answer.result()
                results.append(read_result(job.result, job.n_rows))
                if progress is not None:
                    progress(job.events.stop - job.events.start)
            yield Batch(
                merge_rows(shots, join_rows([hits for hits, _ in results]), grid),
                np.array([shots.rows[job.rows, 1].sum() for job in of_batch]),
                np.array([seconds for _, seconds in results]),
            )


def work_key(batches: Sequence[Shots], grid: Grid, config: Geant4Config, data: DataSets) -> str:
    """Name of the folder of a job: it changes with whatever decides the hits, so nothing of another
    job is taken for this one's.
    """
    digest = hashlib.sha256()
    for shots in batches:
        for array in (shots.rows, shots.pdg_id, shots.seeds, shots.event):
            digest.update(np.ascontiguousarray(array).tobytes())
    return cache_key(
        "geant4", shots=digest.hexdigest(), grid=grid.name, config=config, data=data.label
    )
