"""A process that shoots jobs with one Geant4 run manager: ``python -m
pfcalib.simulation.geant4.worker SETUP``.

It reads a line ``["job file", "result file"]`` for each job from standard input and answers with an
empty line when the result has its name. At the end of the input it leaves at once, so it never
outlives the process that started it; and it leaves without the destructors of Geant4, whose order
Python does not keep.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pfcalib.geometry import GRIDS, Grid
from pfcalib.simulation.geant4.chunks import Result, read_job, write_result
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets
from pfcalib.simulation.geant4.session import Session

# builds the tables of physics before time counts
_WARM_UP = (np.array([[0.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0]]), np.array([22]), np.array([[1, 1]]))


def write_setup(path: Path, grid: Grid, data: DataSets, config: Geant4Config) -> None:
    """Write what a worker has to know before its first job."""
    settings = {"grid": grid.name, "data": data._asdict(), "config": dataclasses.asdict(config)}
    path.write_text(json.dumps(settings), encoding="utf-8")


def read_setup(path: Path) -> tuple[Grid, DataSets, Geant4Config]:
    """Grid, data sets and configuration that were written."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    return GRIDS[settings["grid"]], DataSets(**settings["data"]), Geant4Config(**settings["config"])


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
