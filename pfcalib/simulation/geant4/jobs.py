"""Jobs for Geant4 as files, and the processes that shoot them.

A process of its own for each run manager, because Geant4 allows one a process, and none of the
pools of Python's library: Geant4 must leave without the destructors whose order Python does not
keep, prints where answers go, and may crash in compiled code, which breaks a whole
`ProcessPoolExecutor`. Here a crash costs the job in hand, which another worker takes, and a worker
never outlives the process that started it.

``python -m pfcalib.simulation.geant4.jobs SETUP`` is a worker. It reads a line ``["job file",
"result file"]`` for each job from standard input and answers with an empty line when the result has
its name. Every file is complete under its own name, so what an interrupted call has shot is found
again by it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import new_file, write_text
from pfcalib.errors import BadFileError, PfcalibError
from pfcalib.geometry import GRIDS, Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets
from pfcalib.simulation.geant4.session import Session
from pfcalib.simulation.geant4.shots import Shots

JOB_ENERGY = 50.0  # GeV; Geant4 takes some seconds for it
ATTEMPTS = 2  # at a job
TAIL_LINES = 15
# builds the tables of physics before time counts
_WARM_UP = (np.array([[0.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0]]), np.array([22]), np.array([[1, 1]]))


class Job(NamedTuple):
    """Consecutive events of a batch, their rows, and the file for what is shot."""

    events: slice
    rows: slice
    result: Path

    @property
    def n_rows(self) -> int:
        return self.rows.stop - self.rows.start


def cut_batch(
    event: NDArray[np.int64],
    energy: NDArray[np.float64],
    n_events: int,
    *,
    job_energy: float = JOB_ENERGY,
) -> list[tuple[slice, slice]]:
    """Cut a batch between events into pieces of about equal energy, to which the time of Geant4 is
    proportional.

    Parameters
    ----------
    event, energy : ndarray, shape (n_rows,)
        Event and energy in GeV of each row, sorted by event.
    n_events : int
    job_energy : float, GeV
        A piece ends with the event that passes a multiple of it.

    Returns
    -------
    list of (slice, slice)
        Events and rows of each piece; nothing where there is no row.

    Examples
    --------
    >>> cut_batch(np.array([0, 1, 2]), np.array([30.0, 30.0, 30.0]), 3)
    [(slice(0, 2, None), slice(0, 2, None)), (slice(2, 3, None), slice(2, 3, None))]
    """
    if len(event) == 0:
        return []
    before = np.concatenate([[0.0], np.cumsum(np.bincount(event, energy, n_events))[:-1]])
    _, first = np.unique(np.floor(before / job_energy), return_index=True)
    edges = [*first.tolist(), n_events]
    row_edges = np.searchsorted(event, edges).tolist()
    return [
        (slice(edges[i], edges[i + 1]), slice(row_edges[i], row_edges[i + 1]))
        for i in range(len(first))
    ]


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays under their names: rows (n, 7), pdg_id (n,) and seeds (n, 2) of a job, or hits
    and seconds of its result.
    """
    with new_file(path) as temporary:
        np.savez(temporary, **arrays)


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a file of `write_arrays`.

    Raises
    ------
    BadFileError
        If the file is damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return [file[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadFileError(
            f"{path}: not a complete file of {', '.join(names)} ({error})"
        ) from error


def read_result(path: Path, n_rows: int) -> tuple[Hits, float]:
    """Hits of a job of n_rows rows, and the processor time in seconds that they took.

    Raises
    ------
    BadFileError
        If the file is damaged or is the result of another job.
    """
    *columns, seconds = read_arrays(path, *Hits._fields, "seconds")
    hits = Hits(*columns)
    if not (
        len(hits.offsets) == n_rows + 1
        and len(hits.e_dead) == n_rows
        and len(hits.cell) == hits.offsets[-1]
    ):
        raise BadFileError(
            f"{path}: holds {len(hits.offsets) - 1} rows and {len(hits.cell)} hits: expected "
            f"{n_rows} rows"
        )
    return hits, float(seconds)


def write_setup(path: Path, grid: Grid, data: DataSets, config: Geant4Config) -> None:
    """Write what a worker has to know before its first job."""
    settings = {"grid": grid.name, "data": data._asdict(), "config": dataclasses.asdict(config)}
    write_text(path, json.dumps(settings))


def read_setup(path: Path) -> tuple[Grid, DataSets, Geant4Config]:
    """Grid, data sets and configuration that were written."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    return GRIDS[settings["grid"]], DataSets(**settings["data"]), Geant4Config(**settings["config"])


class WorkerError(PfcalibError):
    """A worker crashed again and again; the message ends with its last words."""


class Worker:
    """A process that shoots one job after the other, until a crash in Geant4 ends it."""

    def __init__(self, setup: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pfcalib.simulation.geant4.jobs", str(setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )

    def shoot(self, job: Path, result: Path) -> bool:
        """Shoot a job; False if the process died of it, or before."""
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018  # both are pipes
        with contextlib.suppress(BrokenPipeError):  # it is dead, so its output has ended too
            self.process.stdin.write(json.dumps([str(job), str(result)]).encode() + b"\n")
        return self.process.stdout.readline() == b"\n"

    def last_words(self) -> str:
        """Exit code of a dead process, and the end of what it wrote on standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return f"{self.process.poll()}:\n" + "\n".join(text.splitlines()[-TAIL_LINES:])


class Pool:
    """Workers, each fed by a thread of its own; as a context it ends them when it is left.

    Parameters
    ----------
    setup : Path
        As `write_setup` writes it; beside it comes what the workers write on standard error.
    n_processes : int
        Workers at most.
    """

    def __init__(self, setup: Path, *, n_processes: int) -> None:
        self._setup = setup
        self._threads = concurrent.futures.ThreadPoolExecutor(n_processes)
        self._started: list[Worker] = []
        self._idle: list[Worker] = []
        self._lock, self._left = threading.Lock(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._left = True
        for worker in self._started:
            worker.process.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._started:
            with worker.process:  # closes the pipes
                pass

    def submit(self, job: Job, shots: Shots) -> concurrent.futures.Future[None]:
        """Have the rows of a job shot, unless its result is there already; earlier jobs first.

        The answer comes when the result has its name, or as a WorkerError if a worker crashes, and
        the next one at the same job.
        """
        return self._threads.submit(self._shoot, job, shots)

    def _shoot(self, job: Job, shots: Shots) -> None:
        with contextlib.suppress(BadFileError):
            read_result(job.result, job.n_rows)
            return
        path, rows = job.result.with_suffix(".job.npz"), job.rows
        write_arrays(
            path, rows=shots.rows[rows], pdg_id=shots.pdg_id[rows], seeds=shots.seeds[rows]
        )
        for _ in range(ATTEMPTS):
            worker = self._take_worker()
            if worker.shoot(path, job.result):
                self._idle.append(worker)
                return
        raise WorkerError(
            f"a Geant4 worker crashed {ATTEMPTS} times at {path.name}, exit code "
            f"{worker.last_words()}"
        )

    def _take_worker(self) -> Worker:
        with self._lock:
            if self._left:
                raise WorkerError("the pool was left")
            if self._idle:
                return self._idle.pop()
            log = self._setup.with_name(f"worker-{os.getpid()}-{len(self._started) + 1}.log")
            self._started.append(Worker(self._setup, log))
            return self._started[-1]


def run(setup: Path) -> None:
    """Shoot the jobs that come on standard input until it ends; does not return before."""
    answers = os.dup(1)  # for answers alone: what Geant4 prints goes to standard error
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_take_jobs, args=(jobs,), daemon=True).start()
    session = Session(*read_setup(setup))
    session.shoot(*_WARM_UP)
    while True:
        job, result = map(Path, json.loads(jobs.get()))
        rows, pdg_id, seeds = read_arrays(job, "rows", "pdg_id", "seeds")
        start = time.process_time()
        hits = session.shoot(rows, pdg_id, seeds)
        write_arrays(result, **hits._asdict(), seconds=time.process_time() - start)
        os.write(answers, b"\n")


def _take_jobs(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    try:
        run(Path(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
