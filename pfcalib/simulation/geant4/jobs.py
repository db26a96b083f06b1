"""Jobs for Geant4 as files, and the processes that shoot them.

A process of its own for each run manager, because Geant4 allows one a process, and none of the
pools of Python's library: Geant4 must leave without the destructors whose order Python does not
keep, prints where answers go, and may crash in compiled code, which breaks a whole
`ProcessPoolExecutor`. Here a crash costs the job in hand, which another worker takes; and a worker
never outlives the process that started it.

``python -m pfcalib.simulation.geant4.jobs SETUP`` is a worker. It reads a line ``["job file",
"result file"]`` for each job from standard input and answers with an empty line when the result has
its name. Every file is complete under its own name, so what an interrupted call has shot is found
again by it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import new_file, write_text
from pfcalib.errors import BadFileError, PfcalibError
from pfcalib.geometry import GRIDS, Grid
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets
from pfcalib.simulation.geant4.session import Session

JOB_ENERGY = 50.0  # GeV; Geant4 takes some seconds for it
AHEAD = 2  # jobs that a worker holds, so that it need not wait for the next one
ATTEMPTS = 2  # at a job
TAIL_LINES = 15
# builds the tables of physics before time counts
_WARM_UP = (np.array([[0.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0]]), np.array([22]), np.array([[1, 1]]))


class Job(NamedTuple):
    """A piece of a batch: consecutive events with their rows, and the files of it."""

    batch: int
    events: slice
    rows: slice
    job: Path
    result: Path


class Result(NamedTuple):
    """What a worker made of a job."""

    hits: Hits
    seconds: float  # processor time of the shooting


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


def write_job(
    path: Path, rows: NDArray[np.float64], pdg_id: NDArray[np.int64], seeds: NDArray[np.int64]
) -> None:
    """Write the rows of a job, (n, 7), with their particles, (n,), and seeds, (n, 2)."""
    _write(path, rows=rows, pdg_id=pdg_id, seeds=seeds)


def read_job(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, particles and seeds of a job.

    Raises
    ------
    BadFileError
        If the file is damaged.
    """
    arrays = _read(path, ("rows", "pdg_id", "seeds"))
    return arrays["rows"], arrays["pdg_id"], arrays["seeds"]


def write_result(path: Path, result: Result) -> None:
    """Write what was shot."""
    _write(path, **result.hits._asdict(), seconds=np.float64(result.seconds))


def read_result(path: Path, n_rows: int) -> Result:
    """What was shot for a job of n_rows rows.

    Raises
    ------
    BadFileError
        If the file is damaged or is the result of another job.
    """
    arrays = _read(path, (*Hits._fields, "seconds"))
    hits = Hits(*(arrays[name] for name in Hits._fields))
    if (
        len(hits.offsets) != n_rows + 1
        or len(hits.e_dead) != n_rows
        or len(hits.cell) != hits.offsets[-1]
    ):
        raise BadFileError(
            f"{path}: holds {len(hits.offsets) - 1} rows and {len(hits.cell)} hits: expected "
            f"{n_rows} rows"
        )
    return Result(hits, float(arrays["seconds"]))


def _write(path: Path, **arrays: Any) -> None:
    with new_file(path) as temporary:
        np.savez(temporary, **arrays)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadFileError(
            f"{path}: not a complete file of {', '.join(names)} ({error})"
        ) from error


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
    """One worker process and the jobs that it holds."""

    def __init__(self, setup: Path, log: Path) -> None:
        self.jobs: collections.deque[Job] = collections.deque()
        self._log = log
        with log.open("wb") as errors:
            command = [sys.executable, "-m", "pfcalib.simulation.geant4.jobs", str(setup)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018  # both are pipes
        self._input, self.output = self.process.stdin, self.process.stdout

    def give(self, job: Job) -> None:
        """Add a job to those that the worker holds."""
        self.jobs.append(job)
        # it is dead: its output has ended too, which is seen there
        with contextlib.suppress(BrokenPipeError):
            self._input.write(json.dumps([str(job.job), str(job.result)]).encode() + b"\n")

    def answers(self) -> int:
        """Jobs that it has finished since the last call; 0 if it is dead."""
        return os.read(self.output.fileno(), 4096).count(b"\n")

    def last_words(self) -> str:
        """The end of what it wrote on standard error."""
        return "\n".join(
            self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        )

    def end(self, *, patience: float = 0.0) -> int:
        """End the process, if it does not within so many seconds; returns its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        self._input.close()
        self.output.close()
        return self.process.wait()


class Pool:
    """A number of workers on the same jobs; as a context it ends them when it is left.

    Parameters
    ----------
    setup : Path
        As `write_setup` writes it.
    folder : Path
        For what the workers write on standard error.
    n_processes : int
        Workers at most.
    """

    def __init__(self, setup: Path, folder: Path, *, n_processes: int) -> None:
        self.workers: list[Worker] = []
        self._setup, self._folder, self._n_processes = setup, folder, n_processes
        self._waiting: collections.deque[Job] = collections.deque()
        self._crashes: collections.Counter[Path] = collections.Counter()
        self._selector = selectors.DefaultSelector()
        self._n_started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        self._selector.close()

    def run(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Shoot jobs, the first ones first; yields each when its result is there.

        Raises
        ------
        WorkerError
            If a worker crashes, and the next one at the same job.
        """
        self._waiting.extend(jobs)
        for _ in range(min(self._n_processes, len(jobs))):
            self._start()
        while self._waiting or any(worker.jobs for worker in self.workers):
            self._deal()
            for key, _ in self._selector.select():
                if not (n_done := key.data.answers()):
                    self._replace(key.data)
                yield from (key.data.jobs.popleft() for _ in range(n_done))

    def _start(self) -> None:
        self._n_started += 1
        worker = Worker(self._setup, self._folder / f"worker-{os.getpid()}-{self._n_started}.log")
        self.workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)

    def _deal(self) -> None:
        """Give every worker its first job before any gets a second one."""
        for held in range(AHEAD):
            for worker in self.workers:
                if self._waiting and len(worker.jobs) <= held:
                    worker.give(self._waiting.popleft())

    def _replace(self, worker: Worker) -> None:
        """Start another worker for the jobs of a dead one."""
        self._selector.unregister(worker.output)
        self.workers.remove(worker)
        code = worker.end(patience=5.0)
        if worker.jobs:
            job = worker.jobs[0].job
            self._crashes[job] += 1
            if self._crashes[job] == ATTEMPTS:
                raise WorkerError(
                    f"a Geant4 worker crashed {ATTEMPTS} times at {job.name}, exit code "
                    f"{code}:\n{worker.last_words()}"
                )
            self._waiting.extendleft(reversed(worker.jobs))
        if self._waiting:
            self._start()


def run(setup: Path, answers: BinaryIO) -> None:
    """Shoot the jobs that come on standard input until it ends; does not return before."""
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_take_jobs, args=(jobs,), daemon=True).start()
    session = Session(*read_setup(setup))
    session.shoot(*_WARM_UP)
    while True:
        job, result = map(Path, json.loads(jobs.get()))
        rows, pdg_id, seeds = read_job(job)
        start = time.process_time()
        hits = session.shoot(rows, pdg_id, seeds)
        write_result(result, Result(hits, time.process_time() - start))
        answers.write(b"\n")
        answers.flush()


def _take_jobs(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _keep_answers() -> Any:
    """The standard output for answers alone; what Geant4 prints there goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    try:
        run(Path(sys.argv[1]), _keep_answers())
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
