"""Geant4 by many processes: the same hits whatever the number of them and however often they are
interrupted, and no process left behind.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW, build_grid
from pfcalib.simulation.geant4 import jobs
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets, find_data
from pfcalib.simulation.geant4.engine import (
    SYNTHETIC,
    describe_geant4,
    simulate_batches,
    work_key,
)
from pfcalib.simulation.geant4.jobs import Worker, WorkerError
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import Particles, simulate_gun
from pfcalib.simulation.showers import simulate_showers

JOB_ENERGY = 2.0  # GeV


def pions(seed=1, n=6):
    """Neutral and charged pions of 0.5 to 2 GeV in turn."""
    rng = np.random.default_rng(seed)
    neutral, charged = (
        simulate_gun(name, n, rng, energy=(0.5, 2.0), eta=(-0.05, 0.05), phi=(-0.05, 0.05))
        for name in ("pi0", "pi+")
    )
    chosen = np.arange(n) % 2 == 0
    return Particles(
        np.arange(n),
        *(np.where(chosen, one, two) for one, two in zip(neutral[1:], charged[1:], strict=True)),
    )


def two_batches():
    return [build_shots(pions(seed), np.random.default_rng(seed)) for seed in (1, 2)]


def shoot(folder, **options):
    return list(simulate_batches(two_batches(), WINDOW, folder, job_energy=JOB_ENERGY, **options))


def shoot_particles(folder, particles, **options):
    """Hits in the barrel, with its field."""
    shots = build_shots(particles, np.random.default_rng(1), field=2.0)
    return next(simulate_batches([shots], BARREL, folder, **options)).hits


def results(folder):
    return sorted(path for path in folder.glob("*/*.npz") if not path.name.endswith(".job.npz"))


def assert_same(one, two):
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a.hits, b.hits, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return shoot(folder), results(folder)


@pytest.fixture
def workers(monkeypatch):
    """The workers that the engine starts."""
    started = []

    class Watched(Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(jobs, "Worker", Watched)
    return started


class TestHits:
    def test_the_energy_shot_is_found_again(self, uninterrupted):
        for batch in uninterrupted[0]:
            hits = batch.hits
            found = (
                np.bincount(
                    hits.event, hits.em + hits.non_em + hits.invisible + hits.escaped, hits.n_events
                )
                + hits.e_dead
                + hits.e_leak
            )
            np.testing.assert_allclose(found, hits.e_total, rtol=0.02)

    def test_they_are_those_of_the_particles_that_the_fast_engine_showers(self, uninterrupted):
        geant4, fast = (
            uninterrupted[0][0].hits,
            simulate_showers(pions(1), WINDOW, np.random.default_rng(1)),
        )
        np.testing.assert_array_equal(geant4.e_total, fast.e_total)
        assert [one.dtype for one in geant4] == [two.dtype for two in fast]

    def test_cells_rise_within_an_event(self, uninterrupted):
        for batch in uninterrupted[0]:
            key = batch.hits.event * WINDOW.n_cells + batch.hits.cell
            assert np.all(np.diff(key) > 0)
            assert len(key) > 100

    def test_time_and_energy_of_the_jobs_are_told(self, uninterrupted):
        for batch in uninterrupted[0]:
            assert batch.job_energy.sum() == pytest.approx(batch.hits.e_total.sum(), rel=1e-12)
            assert np.all(batch.job_seconds > 0.0)

    def test_a_batch_may_hold_what_needs_no_shooting(self, tmp_path):
        kinds, energy = np.array([211, 22, 211], np.int32), np.array([0.3, 0.5, 0.3])
        hits = shoot_particles(
            tmp_path, Particles(np.arange(3), kinds, energy, np.zeros(3), np.zeros(3))
        )
        assert hits.e_dead[[0, 2]].tolist() == [0.3, 0.3]
        assert np.diff(hits.offsets)[[0, 2]].tolist() == [0, 0]
        assert hits.signal.sum() > 0.25

    @pytest.mark.parametrize("n_events", [0, 3])
    def test_where_nothing_needs_shooting_no_worker_starts(self, n_events, workers, tmp_path):
        soft = (
            np.arange(n_events),
            np.full(n_events, 211, np.int32),
            np.full(n_events, 0.3),
            np.zeros(n_events),
            np.zeros(n_events),
        )
        hits = shoot_particles(tmp_path, Particles(*soft))
        assert hits.e_dead.tolist() == [0.3] * n_events
        assert workers == []


def test_two_workers_make_the_hits_that_one_makes_and_tell_of_all_events(
    uninterrupted, tmp_path, workers
):
    done = []
    assert_same(shoot(tmp_path, n_processes=2, progress=done.append), uninterrupted[0])
    assert len(workers) == 2
    assert sum(done) == 12
    assert len(done) == len(uninterrupted[1])


def test_the_cut_decides_the_hits(tmp_path):
    shots = [build_shots(pions(n=1), np.random.default_rng(3))]
    fine, coarse = (
        next(simulate_batches(shots, WINDOW, tmp_path, config=Geant4Config(cut=cut))).hits
        for cut in (0.7, 20.0)
    )
    assert not np.array_equal(fine.signal, coarse.signal)


class TestInterruption:
    def test_a_call_goes_on_where_the_last_one_stopped_and_takes_no_damaged_files(
        self, uninterrupted, tmp_path, workers
    ):
        done = []

        def stop(n_events):
            done.append(n_events)
            if len(done) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            shoot(tmp_path, progress=stop)
        assert workers[0].process.poll() is not None
        kept = {path: path.stat().st_mtime_ns for path in results(tmp_path)}
        assert 2 <= len(kept) < len(uninterrupted[1])
        damaged = next(iter(kept))
        stale = damaged.with_name(f".{damaged.name}.99.tmp")
        stale.write_bytes(damaged.read_bytes())
        damaged.write_bytes(damaged.read_bytes()[:-100])
        assert_same(shoot(tmp_path), uninterrupted[0])
        again = [path for path, time_ns in kept.items() if path.stat().st_mtime_ns != time_ns]
        assert again == [damaged]
        assert not stale.exists()

    def test_what_is_complete_is_not_shot_again(self, uninterrupted, workers):
        folder = uninterrupted[1][0].parents[1]
        assert_same(shoot(folder), uninterrupted[0])
        assert workers == []

    def test_a_worker_that_dies_is_replaced(self, uninterrupted, tmp_path, workers):
        assert_same(shoot(tmp_path, progress=lambda _: workers[0].process.kill()), uninterrupted[0])
        assert len(workers) == 2

    def test_workers_die_with_their_parent_and_another_parent_goes_on(
        self, uninterrupted, tmp_path
    ):
        script = textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parents[3])!r})
            from pathlib import Path
            from tests.simulation.geant4 import test_engine
            from pfcalib.simulation.geant4.jobs import Worker
            start = Worker.__init__
            def tell(self, *arguments):
                start(self, *arguments)
                print(self.process.pid, flush=True)
            Worker.__init__ = tell
            say = lambda n_events: print("done", flush=True)
            test_engine.shoot(Path(sys.argv[1]), n_processes=2, progress=say)
        """)
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as parent:
            pids = [int(parent.stdout.readline()) for _ in range(2)]
            assert parent.stdout.readline() == "done\n"
            parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, pids))
        kept = {path: path.stat().st_mtime_ns for path in results(tmp_path)}
        assert 1 <= len(kept) < len(uninterrupted[1])
        assert_same(shoot(tmp_path), uninterrupted[0])
        assert {path: path.stat().st_mtime_ns for path in kept} == kept


def is_alive(pid):
    """True for a process that runs; one that ended and that nobody asked for is not alive."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_folder_changes_with_whatever_decides_the_hits():
    shots, data, config = two_batches(), find_data(), Geant4Config()
    settings = [
        (shots, WINDOW, config, data),
        (shots[:1], WINDOW, config, data),
        (shots, BARREL, config, data),
    ]
    settings += [
        (shots, WINDOW, Geant4Config(cut=0.1), data),
        (shots, WINDOW, config, data._replace(label="other")),
    ]
    settings += [([shots[0], shots[1]._replace(seeds=shots[1].seeds + 1)], WINDOW, config, data)]
    assert len({work_key(*setting) for setting in settings}) == len(settings)
    assert work_key(*settings[0]) == work_key(two_batches(), WINDOW, Geant4Config(), find_data())


class TestErrors:
    def test_a_row_that_crashes_twice_ends_the_job_with_the_reason(self, tmp_path, workers):
        shots = build_shots(pions(n=2), np.random.default_rng(1))
        shots.rows[-1, 4] = np.nan
        with pytest.raises(
            WorkerError, match=r"(?s)crashed 2 times at 00000-.*exit code 1:.*needs finite numbers"
        ):
            list(simulate_batches([shots], WINDOW, tmp_path))
        assert len(workers) == 2
        assert all(worker.process.poll() is not None for worker in workers)

    def test_without_the_extra_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "geant4_pybind", None)
        with pytest.raises(ConfigError, match=r"pip install 'pfcalib\[geant4\]'"):
            shoot(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_grid_of_ones_own_is_refused(self, tmp_path):
        grid = build_grid("mine", eta_max=0.2, phi_max=0.2, n_towers_phi=4, wraps=False)
        with pytest.raises(ConfigError, match=r"grids barrel, window, not 'mine'"):
            list(simulate_batches(two_batches(), grid, tmp_path))


class TestLabel:
    def test_synthetic_tables_are_told_in_the_log(self, caplog, tmp_path):
        shoot_particles(tmp_path, pions(n=0))
        assert (SYNTHETIC % find_data().label in caplog.messages) == find_data().synthetic

    @pytest.mark.parametrize("synthetic", [True, False])
    def test_the_metadata_tell_the_data_sets_physics_and_cuts(self, synthetic):
        told = describe_geant4(DataSets({}, synthetic, "Geant4 0.0"), Geant4Config(cut=0.3))
        assert told["generator"] == "Geant4 0.0"
        assert ("formulas" in told["data sets"]) == synthetic
        assert "G4HadronPhysicsFTFP_BERT" in told["physics"]
        assert "0.3 mm" in told["cuts"]
