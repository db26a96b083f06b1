"""Kills of simulations, trainings and studies at random moments: what must be there afterwards.

``python tests/kills.py 100`` kills that often, spread over the kinds, and prints a table: tries,
lost (the second call does not finish, or does again what was done), wrong (the result is not that
of an undisturbed call, or something half-written lies under its name), orphans (processes that
outlive the one that started them), unclear (a traceback in place of one line), left (temporary
files after the second call).
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nbformat
import numpy as np
import psutil
import yaml

from pfcalib.cache import _BEGUN
from pfcalib.reporting.results import read_results
from pfcalib.samples.rootfile import content_id
from pfcalib.training.fit import HISTORY, read_history

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds until what should end counts as an orphan
OF_TIME = ("seconds", "clusters_per_second")  # columns of a history that no seed rules
# of a call that would take too long: it counts as lost
LONGEST = 900.0

PARAMETERS = 'seed = 1  # seed\nprofile = "lab"  # name\nout_dir = "scratch"  # folder'
CELLS = (
    """\
from pfcalib.reporting.results import open_report
from pfcalib.samples.read import read_sample
from pfcalib.simulation.produce import ProduceConfig, cached_sample
report = open_report("01_tiny", globals())""",
    """\
config = ProduceConfig(n_events=600, grid="window", e_max=100.0, eta_max=0.05, seed=seed)
import dataclasses
sample = read_sample(cached_sample(dataclasses.replace(config, n_processes=2)))""",
    """\
report.metric("energy", float(sample["clusterE"].sum()), None, "GeV", "sum of all clusters")
report.finish()""",
)
SAMPLE = """\
from pfcalib.simulation.produce import ProduceConfig, cached_sample
if __name__ == "__main__":
    cached_sample(ProduceConfig(n_events=900, grid="window", e_max=100.0, eta_max=0.05))
"""
TRAINING = """\
import sys
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, fit_network
fit_network(sys.argv[1], NetworkConfig(
    name="dnn", options={"widths": [64, 64], "dropout": 0.2},
    train=TrainConfig(learning_rate=1e-3, batch_size=16, epochs=8, seed=3)))
"""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A job, the process that is killed, and how to tell its result."""

    prepare: Callable[[Path], list[str]]  # makes a folder ready; the arguments of Python
    result: Callable[[Path], Any]  # of the folder; None while there is none under its name
    done: Callable[[Path], Any] = lambda folder: []  # the first items of it, which stay as they are
    victim: str = ""  # in the command line of the child that is killed; the job itself if empty


@dataclasses.dataclass
class Outcome:
    """What a kill did: empty texts where all is well."""

    lost: str = ""
    wrong: str = ""
    orphans: str = ""
    unclear: str = ""
    left: str = ""

    @property
    def faults(self) -> dict[str, str]:
        return {name: text for name, text in vars(self).items() if text}


def _simulation(folder: Path) -> list[str]:
    options = ["--grid", "window", "--e-max", "100", "--workers", "2", "--force"]
    return ["-m", "pfcalib", "simulate", str(folder / "out.root"), "-n", "900", *options]


def _sample(folder: Path) -> list[str]:
    (folder / "sample.py").write_text(SAMPLE)
    return [str(folder / "sample.py")]


def _training(folder: Path) -> list[str]:
    path = folder / "toy.root"
    if not path.exists():
        from factories import make_sample

        from pfcalib.samples.write import write_sample

        write_sample(path, make_sample(np.random.default_rng(7), 3000))
    return ["-c", TRAINING, str(path)]


def _study(folder: Path) -> list[str]:
    new = nbformat.v4
    parameters = new.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, id="parameters")
    cells = [new.new_markdown_cell("# 01 Tiny\n\nWhat is there?", id="title"), parameters]
    cells += [new.new_code_cell(text, id=f"cell{i}") for i, text in enumerate(CELLS)]
    profiles = folder / "notebooks" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    nbformat.write(new.new_notebook(cells=cells), folder / "notebooks" / "01_tiny.ipynb")
    (profiles / "01_tiny.yaml").write_text(yaml.safe_dump({"smoke": {"seed": 1}}))
    return ["-m", "pfcalib", "run", "01_tiny"]


def _graph(folder: Path) -> list[str]:
    _study(folder)
    if not (folder / "Snakefile").exists():
        (folder / "Snakefile").symlink_to(ROOT / "Snakefile")
    return ["-m", "pfcalib", "report", "01_tiny", "--cores", "1"]


def _content(pattern: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        found = list(folder.glob(pattern))
        return content_id(found[0]) if found else None

    return read


def _network(folder: Path) -> Any:
    """Losses, and a hash of the weights of the stored model."""
    found = list(folder.glob("models/*/model.keras"))
    if not found:
        return None
    history = read_history(found[0].with_name(HISTORY))
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            digest.update(name.encode() + np.ascontiguousarray(item[()]).tobytes())

    with zipfile.ZipFile(found[0]) as file, file.open("model.weights.h5") as raw:
        h5py.File(io.BytesIO(raw.read())).visititems(add)
    losses = {name: values.tolist() for name, values in history.items() if name not in OF_TIME}
    return losses, digest.hexdigest()


def _rows(folder: Path) -> list[str]:
    """Lines of the history, whose seconds tell whether an epoch was done again."""
    found = list(folder.glob(f"models/*/{HISTORY}"))
    return found[0].read_text().splitlines() if found else []


def _metrics(folder: Path) -> Any:
    path = folder / "reports" / "01_tiny" / "smoke" / "results.json"
    results = read_results(path) if path.exists() else {"status": "failed"}
    return results["metrics"] if results["status"] == "passed" else None


KINDS = {
    "simulation": Kind(_simulation, _content("out.root")),
    "simulation worker": Kind(_simulation, _content("out.root"), victim="spawn_main"),
    "cached sample": Kind(_sample, _content("cache/[!.]*.root")),
    "training": Kind(_training, _network, _rows),
    "study": Kind(_study, _metrics),
    "workflow": Kind(_graph, _metrics),
    "job of a workflow": Kind(_graph, _metrics, victim="pfcalib run"),
    "kernel": Kind(_study, _metrics, victim="ipykernel_launcher"),
    "worker of a kernel": Kind(_study, _metrics, victim="spawn_main"),
}
# how often each is tried in twenty: quick ones more often
TIMES = (3, 2, 7, 3, 1, 1, 1, 1, 1)
ORDER = [name for name, times in zip(KINDS, TIMES, strict=True) for _ in range(times)]


def start(kind: Kind, folder: Path) -> subprocess.Popen[str]:
    """Start the job of a folder, in a session of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    one = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    own = {"PFCALIB_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    own |= dict.fromkeys(one, "1")
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *kind.prepare(folder)],
            cwd=folder,
            env=os.environ | own,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def undisturbed(kind: Kind, folder: Path) -> tuple[Any, float]:
    """Result of a call that nobody kills, and its seconds."""
    begun = time.monotonic()
    code = start(kind, folder).wait(LONGEST)
    assert code == 0, (folder / "said.txt").read_text()
    return kind.result(folder), time.monotonic() - begun


def kill_once(
    kind: Kind, folder: Path, expected: Any, seconds: float, rng: np.random.Generator
) -> Outcome:
    """Start a job, kill at a random moment, call again, and look."""
    outcome, job = Outcome(), start(kind, folder)
    process = psutil.Process(job.pid)
    _wait_for_moment(kind, job, seconds, rng)
    family = _family(process)
    for victim in [each for each in family if kind.victim in _command(each)][:1]:
        victim.kill()
    if not kind.victim:
        job.kill()
    job.wait(LONGEST)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    outcome.orphans = ", ".join(_command(each) for each in alive)
    for each in alive:
        each.kill()
    said = (folder / "said.txt").read_text()
    if kind.victim and job.returncode and ("Traceback" in said or "\npfcalib: " not in f"\n{said}"):
        outcome.unclear = said
    between, before = kind.result(folder), kind.done(folder)
    if between is not None and between != expected:
        outcome.wrong = f"half: {between}"
    if start(kind, folder).wait(LONGEST) != 0:
        outcome.lost = (folder / "said.txt").read_text()
    elif kind.done(folder)[: len(before)] != before:
        outcome.lost = f"done again: {before}"
    elif kind.result(folder) != expected:
        outcome.wrong = f"{kind.result(folder)}, not {expected}"
    left = [path.name for path in folder.rglob("*") if _BEGUN.fullmatch(path.name)]
    outcome.left = ", ".join(left)
    return outcome


def _wait_for_moment(
    kind: Kind, job: subprocess.Popen[str], seconds: float, rng: np.random.Generator
) -> None:
    begun, share = time.monotonic(), rng.uniform(0.0, 0.95)
    process = psutil.Process(job.pid)
    if kind.victim:
        while job.poll() is None and not any(kind.victim in _command(p) for p in _family(process)):
            time.sleep(0.02)
    # of the time that is left
    time.sleep(max(seconds - (time.monotonic() - begun), 0.0) * share)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main(n_kills: int, seed: int = 1) -> None:
    """Kill, and print the table and what went wrong."""
    table = {name: collections.Counter() for name in KINDS}
    with tempfile.TemporaryDirectory() as root:
        jobs: dict[Any, tuple[Any, float]] = {}
        for number in range(n_kills):
            name = ORDER[7 * number % len(ORDER)]
            kind, folder = KINDS[name], Path(root, name, str(number))
            if kind.prepare not in jobs:
                jobs[kind.prepare] = undisturbed(kind, folder.with_name("undisturbed"))
            rng = np.random.default_rng((seed, number))
            outcome = kill_once(kind, folder, *jobs[kind.prepare], rng)
            table[name].update(["tries", *outcome.faults])
            print(f"{number + 1:4d}  {name}  {json.dumps(outcome.faults)}", flush=True)
    columns = ["tries", *vars(Outcome())]
    print(f"{'kind':20s}" + "".join(f"{column:>9s}" for column in columns))
    for name, counts in table.items():
        print(f"{name:20s}" + "".join(f"{counts[column]:9d}" for column in columns))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
