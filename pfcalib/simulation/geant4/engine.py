"""Showers by Geant4 with the inputs and the output of the parametrised engine, by any number of
worker processes.

The work is cut into jobs (see `jobs`). Every row has its own seeds, so the hits depend neither on
the number of workers nor on how the rows were cut, nor on where an earlier attempt stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Generator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_key
from pfcalib.errors import BadFileError, ConfigError
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
    write_job,
    write_setup,
)
from pfcalib.simulation.geant4.shots import Shots, build_shots, join_rows, merge_rows
from pfcalib.simulation.particles import Particles

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


def simulate_showers_geant4(
    particles: Particles,
    grid: Grid,
    rng: np.random.Generator,
    *,
    field: float = 0.0,
    config: Geant4Config | None = None,
    n_processes: int = 1,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Hits:
    """Showers of a batch of particles, as `simulation.showers.simulate_showers` makes them, by
    Geant4.

    With a generator in the same state both engines shower the same particles: the decays of neutral
    pions are drawn first.

    Parameters
    ----------
    particles : Particles
        Sorted by event, events counted from 0 without gaps.
    grid : Grid
        Cells to fill, one of `geometry.GRIDS`.
    rng : numpy.random.Generator
        Source of the decays and of the seeds of Geant4.
    field : float, tesla
        Solenoid up to the coil.
    config : Geant4Config, optional
    n_processes : int
        Workers; the hits do not depend on it.
    folder : Path, optional
        Where results are kept, so that an interrupted call goes on there; by default a temporary
        one.
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If a particle is of a kind that has no shower here, or Geant4 is not installed.
    WorkerError
        If Geant4 crashes twice at the same rows.
    """
    shots = build_shots(particles, rng, field=field)
    with contextlib.ExitStack() as stack:
        folder = folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="pfcalib-geant4-"))
        )
        batches = stack.enter_context(
            contextlib.closing(
                simulate_batches(
                    [shots], grid, folder, config=config, n_processes=n_processes, progress=progress
                )
            )
        )
        return next(batches).hits


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
        By default those that `tables.find_data` finds or writes.
    n_processes : int
    job_energy : float, GeV
        Energy that a worker shoots at once.
    progress : callable, optional
        Called with the number of events finished since the last call.
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
    jobs = [_jobs(number, shots, folder, job_energy) for number, shots in enumerate(batches)]
    yield from _merge(
        batches,
        jobs,
        grid,
        _shoot(batches, jobs, folder, n_processes=n_processes),
        progress or (lambda n_events: None),
    )


def _jobs(number: int, shots: Shots, folder: Path, job_energy: float) -> list[Job]:
    """Jobs of one batch; their number and size are part of their names, so another cut makes other
    files.
    """
    cuts = cut_batch(shots.event, shots.rows[:, 1], shots.n_events, job_energy=job_energy)
    names = [f"{number:05d}-{rows.start:05d}-{rows.stop:05d}" for _, rows in cuts]
    return [
        Job(number, events, rows, folder / f"{name}.job.npz", folder / f"{name}.npz")
        for name, (events, rows) in zip(names, cuts, strict=True)
    ]


def _shoot(
    batches: Sequence[Shots], jobs: Sequence[Sequence[Job]], folder: Path, *, n_processes: int
) -> Generator[Job, None, None]:
    """Every job, when its result is there; those of an earlier attempt first."""
    missing = []
    for job in (job for batch in jobs for job in batch):
        if _is_complete(job):
            yield job
        else:
            shots = batches[job.batch]
            write_job(job.job, shots.rows[job.rows], shots.pdg_id[job.rows], shots.seeds[job.rows])
            missing.append(job)
    with Pool(folder / "setup.json", folder, n_processes=n_processes) as pool:
        yield from pool.run(missing)


def _is_complete(job: Job) -> bool:
    if not job.result.exists():
        return False
    try:
        read_result(job.result, job.rows.stop - job.rows.start)
    except BadFileError:
        return False
    return True


def _merge(
    batches: Sequence[Shots],
    jobs: Sequence[Sequence[Job]],
    grid: Grid,
    finished: Generator[Job, None, None],
    progress: Callable[[int], None],
) -> Generator[Batch, None, None]:
    """Batches in their order, each as soon as all of its jobs and all batches before it are
    there.
    """
    left = [len(batch) for batch in jobs]
    with contextlib.closing(finished):
        for number, shots in enumerate(batches):
            while left[number]:
                job = next(finished)
                left[job.batch] -= 1
                progress(job.events.stop - job.events.start)
            yield _batch(shots, jobs[number], grid)


def _batch(shots: Shots, jobs: Sequence[Job], grid: Grid) -> Batch:
    results = [read_result(job.result, job.rows.stop - job.rows.start) for job in jobs]
    hits = merge_rows(shots, join_rows([result.hits for result in results]), grid)
    energy = np.array([shots.rows[job.rows, 1].sum() for job in jobs])
    return Batch(hits, energy, np.array([result.seconds for result in results]))


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
