"""Jobs cover a batch once and weigh the same, their files are complete or refused; a worker answers
each job once, says why it fails, and never outlives the one who started it.
"""

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfcalib.errors import BadFileError
from pfcalib.geometry import WINDOW
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.jobs import (
    cut_batch,
    read_result,
    read_setup,
    write_arrays,
    write_setup,
)
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import simulate_gun

COMMAND = [sys.executable, "-m", "pfcalib.simulation.geant4.jobs"]
CONFIG = Geant4Config(cut=1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.2, 300.0)), min_size=1, max_size=60))
def test_jobs_cover_all_events_and_rows_once(events):
    """Events of 0 to 3 rows of the same energy."""
    event = np.repeat(np.arange(len(events)), [n for n, _ in events])
    energy = np.array([e for n, e in events for _ in range(n)])
    cuts = cut_batch(event, energy, len(events), job_energy=50.0)
    if not len(event):
        assert cuts == []
        return
    assert [cuts[0][0].start, cuts[0][1].start] == [0, 0]
    assert [cuts[-1][0].stop, cuts[-1][1].stop] == [len(events), len(energy)]
    for one, two in itertools.pairwise(cuts):
        assert [one[0].stop, one[1].stop] == [two[0].start, two[1].start]
    for of_events, of_rows in cuts:
        assert set(event[of_rows]) <= set(range(of_events.start, of_events.stop))
        without_last = energy[of_rows][event[of_rows] < of_events.stop - 1]
        assert without_last.sum() <= 50.0 + 1e-9


@pytest.fixture
def hits(rng):
    return Hits(
        np.array([0, 2, 3]), np.array([4, 7, 5], np.int32), *rng.random((5, 3)), *rng.random((4, 2))
    )


@pytest.fixture
def path(hits, tmp_path):
    """The file of a result."""
    write_arrays(tmp_path / "a.npz", **hits._asdict(), seconds=1.5)
    return tmp_path / "a.npz"


def test_a_result_comes_back_from_its_file_and_leaves_no_other(hits, path):
    read, seconds = read_result(path, 2)
    assert seconds == 1.5
    for one, two in zip(read, hits, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_a_truncated_result_is_refused(keep, path):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFileError, match=r"a\.npz: not a complete file"):
        read_result(path, 2)


def test_the_result_of_another_job_is_refused(path):
    with pytest.raises(BadFileError, match="holds 2 rows and 3 hits: expected 5 rows"):
        read_result(path, 5)


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
        job = {key: getattr(shots, key)[rows] for key in ("rows", "pdg_id", "seeds")}
        write_arrays(folder / f"{name}.job.npz", **job)
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
    first, seconds = read_result(tmp_path / "first.npz", 3)
    assert first.signal.sum() > 0.5
    assert seconds > 0.0
    assert len(read_result(tmp_path / "second.npz", 1)[0].cell) > 10


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
