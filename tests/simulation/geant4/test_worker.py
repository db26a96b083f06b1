"""A worker answers each job once, says why it fails, and never outlives the one who started it."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.simulation.geant4.chunks import read_result, write_job
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.geant4.worker import read_setup, write_setup
from pfcalib.simulation.particles import simulate_gun

COMMAND = [sys.executable, "-m", "pfcalib.simulation.geant4.worker"]
CONFIG = Geant4Config(cut=1.0)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A setup and two jobs beside it: photons of 0.5 GeV."""
    folder = tmp_path_factory.mktemp("worker")
    write_setup(folder / "setup.json", WINDOW, find_data(), CONFIG)
    rng = np.random.default_rng(1)
    shots = build_shots(
        simulate_gun("gamma", 4, rng, energy=(0.5, 0.6), eta=(-0.05, 0.05), phi=(-0.05, 0.05)), rng
    )
    for name, rows in (("first", slice(0, 3)), ("second", slice(3, 4))):
        write_job(
            folder / f"{name}.job.npz", shots.rows[rows], shots.pdg_id[rows], shots.seeds[rows]
        )
    return folder / "setup.json"


@pytest.fixture
def worker(setup):
    with subprocess.Popen(
        [*COMMAND, str(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def order(job, result):
    return json.dumps([str(job), str(result)]).encode() + b"\n"


def test_the_setup_comes_back_from_its_file(setup):
    grid, data, config = read_setup(setup)
    assert grid is WINDOW
    assert data == find_data()
    assert config == CONFIG


def test_jobs_are_answered_one_by_one_and_nothing_else_is_said(setup, worker, tmp_path):
    answers = []
    for name in ("first", "second"):
        worker.stdin.write(order(setup.parent / f"{name}.job.npz", tmp_path / f"{name}.npz"))
        worker.stdin.flush()
        answers.append(worker.stdout.readline())
    rest, errors = worker.communicate()
    assert answers == [b"\n", b"\n"]
    assert rest == b""
    assert b"Geant4" in errors  # its banner goes where it does no harm
    assert worker.returncode == 0
    first, second = read_result(tmp_path / "first.npz", 3), read_result(tmp_path / "second.npz", 1)
    assert len(second.hits.cell) > 10
    assert first.hits.signal.sum() > 0.5
    assert first.seconds > 0.0


def test_it_leaves_when_its_input_ends_before_any_job(worker):
    worker.stdin.close()
    assert worker.wait(30) == 0


def test_it_ignores_the_interrupt_that_is_meant_for_its_parent(setup, worker, tmp_path):
    worker.stdin.write(order(setup.parent / "first.job.npz", tmp_path / "first.npz"))
    worker.stdin.flush()
    assert worker.stdout.readline() == b"\n"
    worker.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert worker.poll() is None


def test_a_damaged_job_ends_it_with_the_reason(setup, worker, tmp_path):
    (tmp_path / "damaged.job.npz").write_bytes(b"no job")
    worker.stdin.write(order(tmp_path / "damaged.job.npz", tmp_path / "damaged.npz"))
    worker.stdin.flush()
    assert worker.stdout.read() == b""
    assert worker.wait() == 1
    assert b"damaged.job.npz: not a complete file" in worker.stderr.read()
    assert not (tmp_path / "damaged.npz").exists()
