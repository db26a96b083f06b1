"""After a kill, a full or forbidden disk, a lack of memory or a second workflow at once nothing
half-written is taken for complete, and a second call finishes with what is missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import kills
import numpy as np
import psutil
import pytest

from pfcalib import cache
from pfcalib.cache import _begun, locked, new_file, new_folder, one_maker
from pfcalib.errors import StorageError

N_KILLS = int(os.environ.get("PFCALIB_KILLS", "4"))
SHORT = ("simulation worker", "cached sample", "training", "study")
PRODUCE = """\
import sys
from pfcalib.simulation.produce import ProduceConfig, cached_sample
config = ProduceConfig(n_events=int(sys.argv[1]), grid="window", e_max=50.0, eta_max=0.05)
print(cached_sample(config))
"""


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Result and seconds of the undisturbed job of a kind."""
    found = {}

    def look_up(name):
        kind = kills.KINDS[name]
        if kind.prepare not in found:
            found[kind.prepare] = kills.undisturbed(kind, tmp_path_factory.mktemp("undisturbed"))
        return found[kind.prepare]

    return look_up


@pytest.mark.parametrize("number", range(N_KILLS))
def test_after_a_kill_at_a_random_moment_a_second_call_gives_the_same(number, known, tmp_path):
    name = SHORT[number % len(SHORT)]
    rng = np.random.default_rng((1, number))
    outcome = kills.kill_once(kills.KINDS[name], tmp_path / "job", *known(name), rng)
    assert not outcome.faults, name


@pytest.mark.lab
@pytest.mark.parametrize("number", range(20))
def test_kills_of_all_kinds(number, known, tmp_path):
    name = kills.ORDER[7 * number % len(kills.ORDER)]
    rng = np.random.default_rng((2, number))
    outcome = kills.kill_once(kills.KINDS[name], tmp_path / "job", *known(name), rng)
    assert not outcome.faults, name


@pytest.fixture
def small_disk(tmp_path):
    """A disk of the given size in kB, and how to change its options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        remount = "remount," if os.path.ismount(folder) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{remount}{options}", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")

    try:
        if shutil.which("mount") is None:
            pytest.skip("no mount on this machine")
        yield folder, mount
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def call(*arguments, folder=None, **variables):
    """Python with arguments in a folder: exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(kills.ROOT)} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=kills.LONGEST,
    )
    return done.returncode, done.stdout, done.stderr


def hidden(folder):
    return [path for path in Path(folder).rglob(".*") if not path.name.endswith(".lock")]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(small_disk):
    disk, mount = small_disk
    mount("size=100k")
    sample = ["-m", "pfcalib", "simulate", disk / "out.root", "-n", "900", "--grid", "window"]
    code, _, said = call(*sample)
    assert code == 1
    # the rest tells the progress
    last = said.splitlines()[-1]
    assert last.startswith(f"pfcalib: {disk / 'out.root'}: No space left on device; free some")
    assert "Traceback" not in said
    assert list(disk.iterdir()) == []
    mount("size=4m")
    assert call(*sample)[0] == 0


@pytest.mark.lab
def test_a_study_on_a_full_disk_is_told_in_one_line_too(small_disk):
    disk, mount = small_disk
    mount("size=200k")
    study = kills._study(disk)
    (disk / "fill").write_bytes(bytes(100_000))
    code, _, said = call(*study, folder=disk, PFCALIB_CACHE=str(disk / "cache"))
    assert code == 1
    assert "No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert kills._metrics(disk) is None
    (disk / "fill").unlink()
    mount("size=40m")
    code, _, said = call(*study, folder=disk, PFCALIB_CACHE=str(disk / "cache"))
    assert code == 0, said
    assert kills._metrics(disk) is not None
    assert not hidden(disk)


def test_a_checkpoint_on_a_full_disk_is_told_and_the_training_goes_on_later(small_disk, known):
    disk, mount = small_disk
    mount("size=40m")
    training = kills._training(disk)
    n_bytes = sum(path.stat().st_blocks * 512 for path in disk.iterdir())
    mount(f"size={n_bytes + 300_000}")
    code, _, said = call(*training)
    assert code != 0
    assert "No space left on device" in said
    assert kills._network(disk) is None
    mount("size=40m")
    assert call(*training)[0] == 0
    assert kills._network(disk) == known("training")[0]


def test_a_read_only_cache_gives_what_it_holds_and_tells_what_it_cannot_take(small_disk):
    disk, mount = small_disk
    mount("size=4m")
    code, path, _ = call("-c", PRODUCE, "20", PFCALIB_CACHE=str(disk))
    assert code == 0
    mount("ro")
    assert call("-c", PRODUCE, "20", PFCALIB_CACHE=str(disk))[:2] == (0, path)
    code, _, said = call("-c", PRODUCE, "21", PFCALIB_CACHE=str(disk))
    assert code == 1
    last = said.splitlines()[-1]
    assert "StorageError" in last
    assert (
        "Read-only file system; choose a folder that can be written, or set PFCALIB_CACHE" in last
    )
    mount("rw")
    assert call("-c", PRODUCE, "21", PFCALIB_CACHE=str(disk))[0] == 0


STARVED = """\
import resource, sys
from pathlib import Path
import pfcalib.simulation.produce as produce
from pfcalib import cli
start = produce.start_chunk
def start_starved(config, number):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
    return start(config, number)
produce.start_chunk = start_starved
produce.ProduceConfig.__init__.__kwdefaults__["chunk"] = 2_000_000  # too many for 64 MB
cli.main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc tells the memory used")
def test_without_memory_nothing_is_left_and_the_error_is_one_line(tmp_path):
    sample = ["simulate", tmp_path / "out.root", "-n", "2000000", "--grid", "window"]
    code, _, said = call("-c", STARVED, *sample)
    assert code == 1
    assert said.splitlines()[-1].startswith("pfcalib: out of memory: Unable to allocate")
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_two_workflows_at_once_make_one_sample_and_both_end_well(known, tmp_path):
    expected, _ = known("study")
    kind = kills.KINDS["study"]
    jobs = [kills.start(kind, tmp_path) for _ in range(2)]
    assert [job.wait(kills.LONGEST) for job in jobs] == [0, 0], (tmp_path / "said.txt").read_text()
    assert kind.result(tmp_path) == expected
    assert len(list((tmp_path / "cache").glob("[!.]*.root"))) == 1
    assert not [path for path in hidden(tmp_path) if cache._BEGUN.fullmatch(path.name)]


def test_what_a_dead_process_began_goes_and_what_a_living_one_writes_stays(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **CAPTURED)
    mine, dead = f"{os.getpid()}-", f"{gone.stdout.strip()}-"
    begun = _begun("other")
    left = tmp_path / f"{begun.replace(mine, dead)}aaaa.new"
    left.mkdir()
    (left / "half").touch()
    (tmp_path / f"{begun.replace(mine, dead)}aaaa.old").mkdir()
    (tmp_path / f"{begun.replace(mine, dead)}bbbb.new.root").touch()
    living = tmp_path / f"{begun}cccc.new.root"
    living.touch()
    elsewhere = [tmp_path / f".other.0123abcd-{n}-dddd.new" for n in "12"]
    for path in elsewhere:
        path.mkdir()
    os.utime(elsewhere[0], (0.0, 0.0))  # in 1970
    (tmp_path / ".mine.new").touch()  # of somebody who names files so
    with new_file(tmp_path / "a.txt") as temporary:
        assert {path.name for path in tmp_path.iterdir()} == {
            *(temporary.name, living.name, elsewhere[1].name, ".mine.new")
        }


CAPTURED = {"capture_output": True, "text": True, "check": True}


def test_a_lock_of_a_dead_process_is_free_and_that_of_a_living_one_is_waited_for(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(cache, "SAY_SECONDS", 0.1)
    code = "import os; from pfcalib.cache import locked; "
    code += f"locked({str(tmp_path / 'a')!r}).__enter__(); os.kill(os.getpid(), 9)"
    assert call("-c", code)[0] == -9
    order = []
    with locked(tmp_path / "a"):
        assert not caplog.records  # nobody held it

        def second():
            with locked(tmp_path / "a"):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        while not caplog.records:
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting for another process" in caplog.text


def test_one_maker_makes_what_the_other_then_finds(tmp_path):
    made, barrier = [], threading.Barrier(4)

    def make(number):
        barrier.wait()
        with one_maker(tmp_path / "a"):
            if not (tmp_path / "a").exists():
                made.append(number)
                (tmp_path / "a").touch()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_two_writers_of_a_folder_at_once_leave_a_whole_one(tmp_path):
    failed, barrier = [], threading.Barrier(2)

    def write(number):
        for _ in range(100):
            with new_folder(tmp_path / "a") as folder:
                for name in "xy":
                    (folder / name).write_text(str(number))
                barrier.wait()

    def guarded(number):
        try:
            write(number)
        except Exception as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len({(tmp_path / "a" / name).read_text() for name in "xy"}) == 1


def test_an_error_of_the_disk_names_the_file_and_what_to_do(tmp_path):
    def fill():
        with new_file(tmp_path / "a.root"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"a\.root: No space left on device; free some"):
        fill()
    with pytest.raises(OSError, match="other") as told, new_file(tmp_path / "a.root"):
        raise OSError(errno.EIO, "other")
    assert not isinstance(told.value, StorageError)
    # h5py tells the number in words
    words = OSError("Can't write data (file write failed: errno = 28, error message = 'No space')")
    assert "No space left on device" in cache.describe_storage_error(words, "a.h5")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = """\
import concurrent.futures, multiprocessing, os, sys
from pfcalib.simulation.produce import ProduceConfig, produce_chunk
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    config = ProduceConfig(n_events=2, grid="window", eta_max=0.05, e_max=1.0)
    list(pool.map(produce_chunk, [config] * 2, [0, 0]))
    print(*pool._processes, flush=True)
    os.kill(os.getpid(), 9)
"""
    (tmp_path / "job.py").write_text(code)
    code, numbers, _ = call(tmp_path / "job.py")
    assert code == -9
    workers = []
    for number in numbers.split():
        with contextlib.suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(int(number)))
    _, alive = psutil.wait_procs(workers, timeout=kills.PATIENCE)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
