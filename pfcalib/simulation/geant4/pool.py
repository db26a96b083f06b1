"""Worker processes that shoot jobs: restarted when they crash, ended with the process that started
them.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pfcalib.errors import PfcalibError
from pfcalib.simulation.geant4.chunks import Job

AHEAD = 2  # jobs that a worker holds, so that it need not wait for the next one
ATTEMPTS = 2  # at a job
TAIL_LINES = 15


class WorkerError(PfcalibError):
    """A worker crashed again and again; the message ends with its last words."""


class Worker:
    """One worker process and the jobs that it holds."""

    def __init__(self, setup: Path, log: Path) -> None:
        self.jobs: collections.deque[Job] = collections.deque()
        self._log = log
        with log.open("wb") as errors:
            command = [sys.executable, "-m", "pfcalib.simulation.geant4.worker", str(setup)]
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
        As `worker.write_setup` writes it.
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
