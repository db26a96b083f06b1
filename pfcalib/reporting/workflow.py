"""All studies, or the points of a sweep, as one graph of files that Snakemake runs, here or on a
batch system.

The graph itself is the Snakefile, which asks :func:`plan_jobs` for its rules. A job is done if its
target is there: nothing else is remembered, so that a workflow that was killed goes on with what is
missing.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.catalogue import Study, find_root, find_studies, select_studies
from pfcalib.reporting.grid import plan_sweep
from pfcalib.reporting.results import describe_verdict, read_results
from pfcalib.reporting.runner import DATA, Plan, Say, plan_study

PLACES = ("local", "slurm", "htcondor", "kubernetes", "panda")
CARRIED = ("kubernetes", "panda")  # without a file system that all share: files are carried back
PROFILES = DATA / "profiles"  # of Snakemake
SECONDS = 0.5  # between two looks at the targets


class Resources(NamedTuple):
    """What a batch system is asked for."""

    threads: int
    mem_mb: int
    minutes: int


RESOURCES = {
    "smoke": Resources(1, 4_000, 60),
    "standard": Resources(2, 12_000, 360),
    "full": Resources(4, 32_000, 2_880),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A run as a rule of the Snakefile; paths are relative to the top folder of the clone."""

    plan: Plan
    after: tuple[str, ...]  # targets of the jobs that come first
    carried: bool = False  # whether Snakemake has to know all results, to bring them back

    @property
    def name(self) -> str:
        """Of the rule, such as ``01_showers_smoke``."""
        return f"{self.plan.study.name}_{self.plan.label}"

    @property
    def target(self) -> str:
        """The file that says that it passed."""
        return str(self.plan.marker.relative_to(self.plan.root))

    @property
    def results(self) -> list[str]:
        """Files beside the target that are brought back."""
        names = ("results.json", "results.csv", "summary.md", "executed.ipynb", "report.html")
        return [str(Path(self.target).with_name(name)) for name in names if self.carried]

    @property
    def folders(self) -> list[str]:
        """Folders beside the target that are brought back."""
        return [str(Path(self.target).with_name("figures"))] if self.carried else []

    @property
    def log(self) -> str:
        """What `pfcalib run` says: a line a cell."""
        return f"reports/logs/{self.plan.study.name}-{self.plan.label}.log"

    def command(self, wildcards: object = None) -> str:
        """For a shell; a function of what Snakemake gives, so that it leaves braces alone."""
        plan = self.plan
        words = [sys.executable, "-m", "pfcalib", "run", plan.study.name, "--missing", "--no-site"]
        words += ["--profile", plan.profile]
        for name, value in plan.changed.items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["-p", f"{name}={text}"]
        return shlex.join(words)

    @property
    def threads(self) -> int:
        """Cores that it is given."""
        return RESOURCES[self.plan.profile].threads

    @property
    def mem_mb(self) -> int:
        """Memory that it is given, in 1e6 bytes."""
        return RESOURCES[self.plan.profile].mem_mb

    @property
    def minutes(self) -> int:
        """Time after which a batch system ends it."""
        return RESOURCES[self.plan.profile].minutes


class Outcome(NamedTuple):
    """What became of a job."""

    job: Job
    passed: bool
    text: str  # verdict, or why there is none
    seconds: float | None  # that the study took; None if it was up to date or did not run


def plan_jobs(config: Mapping[str, Any], root: Path | None = None) -> list[Job]:
    """The jobs of a configuration of the Snakefile: ``studies`` and ``profile``, or ``sweep``.

    A study comes after those of its metadata's ``after``, and after theirs, as far as they are
    chosen.

    Raises
    ------
    pfcalib.errors.ConfigError
        If an entry, a study, a profile or a parameter is unknown, or nothing is chosen.
    """
    root = root or find_root()
    if unknown := config.keys() - {"studies", "profile", "sweep", "carried"}:
        raise ConfigError(f"the Snakefile knows studies, profile, sweep, not {min(unknown)!r}")
    carried = bool(config.get("carried", False))
    if "sweep" in config:
        return [Job(plan, (), carried) for plan in plan_sweep(Path(config["sweep"]), root)]
    studies, profile = find_studies(root), str(config.get("profile", "smoke"))
    names = select_studies(studies, str(config.get("studies", "")).split(), root)
    if not names:
        raise ConfigError("no study is chosen: none is a core one; name some, or all")
    jobs: dict[str, Job] = {}
    for name in names:
        before = [jobs[other].target for other in _all_before(studies, name) if other in jobs]
        plan = plan_study(name, profile=profile, root=root)
        jobs[name] = Job(plan, tuple(before), carried)
    return list(jobs.values())


def _all_before(studies: Mapping[str, Study], name: str) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(studies[name].after)
    while waiting:
        found.setdefault(other := waiting.pop())
        waiting += [each for each in studies[other].after if each not in found]
    return list(found)


def snakemake_command(
    config: Mapping[str, Any],
    *,
    on: str = "local",
    cores: int | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> list[str]:
    """How Snakemake is called: with the profile of `on` and, for all of them, the default one.

    Parameters
    ----------
    config : mapping
        As of :func:`plan_jobs`.
    on : str
        One of PLACES.
    cores : int, optional
        That all studies together may use; on a batch system the number of jobs at a time.
    dry_run, force : bool
        Only tell; run also what is up to date.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the place is unknown, or Snakemake not installed.
    """
    if on not in PLACES:
        raise ConfigError(f"--on {on!r}: choose one of {', '.join(PLACES)}")
    if importlib.util.find_spec("snakemake") is None:
        raise ConfigError("Snakemake is not installed: pip install 'pfcalib[workflow]'")
    words = [sys.executable, "-m", "snakemake", "--workflow-profile", str(PROFILES / "default")]
    if on != "local":
        words += ["--profile", str(PROFILES / on)]
    if on == "local":
        words += ["--cores", str(cores or "all")]
    elif cores:
        words += ["--jobs", str(cores)]
    words += ["--dry-run"] * dry_run + ["--forceall"] * force
    config = {**config, "carried": True} if on in CARRIED else config
    return [*words, "--config", *(f"{name}={value}" for name, value in config.items())]


def run_workflow(
    config: Mapping[str, Any],
    *,
    on: str = "local",
    cores: int | None = None,
    force: bool = False,
    root: Path | None = None,
    say: Say = lambda text, end="\n": None,
) -> list[Outcome]:
    """Run what is missing, and say a line when a study starts and when it ends.

    The same lines are in ``reports/workflow.log``, what Snakemake says in
    ``reports/snakemake.log``, the cells of each study in ``reports/logs``.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the configuration is wrong.
    pfcalib.errors.ValidationError
        If another workflow is running in this clone.
    """
    root = root or find_root()
    jobs = plan_jobs(config, root)
    command = snakemake_command(config, on=on, cores=cores, force=force)
    logs = root / "reports" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (root / "reports" / ".workflow.lock").open("w") as lock:
        try:
            # Snakemake inherits it, so that it holds as long as either process lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValidationError(f"another workflow is running in {root}; wait for it") from None
        with (
            (root / "reports" / "snakemake.log").open("w", encoding="utf-8") as output,
            (root / "reports" / "workflow.log").open("w", encoding="utf-8") as lines,
        ):
            watch = _Watch(jobs, force, say, lines)
            if not watch.waiting:
                return watch.outcomes()
            process = subprocess.Popen(
                command, cwd=root, stdout=output, stderr=output, pass_fds=[lock.fileno()]
            )
            try:
                while process.poll() is None:
                    time.sleep(SECONDS)
                    watch.look()
            except BaseException:
                process.terminate()  # it waits for what is running; Ctrl-C has reached all of them
                process.wait()
                raise
            watch.end()
    return watch.outcomes()


class _Watch:
    """Tells what happens from the files that jobs leave, which is the same on each batch system."""

    def __init__(self, jobs: Sequence[Job], force: bool, say: Say, lines: Any) -> None:
        self._jobs, self._say, self._lines = jobs, say, lines
        self._start = time.time()
        self._settled: dict[str, Outcome] = {}
        self._started: set[str] = set()
        self._old: dict[str, int] = {}  # when results that were there before were written
        for job in jobs:
            (job.plan.root / job.log).unlink(missing_ok=True)
            if job.plan.marker.exists() and not force:
                self._settle(Outcome(job, True, "up to date", None))
            else:
                self._old[job.name] = _written(job)

    @property
    def waiting(self) -> list[Job]:
        """Jobs that have not ended."""
        return [job for job in self._jobs if job.name not in self._settled]

    def look(self) -> None:
        """Say what has happened since the last look."""
        for job in self.waiting:
            if job.name not in self._started and (job.plan.root / job.log).exists():
                self._started.add(job.name)
                self._tell(f"{job.plan.study.name} ({job.plan.label}) starts")
            is_new = _written(job) not in (self._old[job.name], 0)
            if is_new and (job.plan.marker.exists() or _status(job) == "failed"):
                self._settle(_outcome(job))

    def end(self) -> None:
        """Settle what has not ended when Snakemake has."""
        self.look()
        for job in self.waiting:
            if _written(job) not in (self._old[job.name], 0):
                self._settle(_outcome(job))
                continue
            if job.name in self._started:
                text = f"ended without results, see {job.log}"
            else:
                text = "did not start, see reports/snakemake.log"
            self._settle(Outcome(job, False, text, None))

    def outcomes(self) -> list[Outcome]:
        """In the order of the jobs."""
        return [self._settled[job.name] for job in self._jobs]

    def _settle(self, outcome: Outcome) -> None:
        job = outcome.job
        self._settled[job.name] = outcome
        took = "" if outcome.seconds is None else f" ({outcome.seconds:.0f} s)"
        number = f"[{len(self._settled)}/{len(self._jobs)}]"
        self._tell(f"{number} {job.plan.study.name} ({job.plan.label}): {outcome.text}{took}")

    def _tell(self, text: str) -> None:
        passed = time.time() - self._start
        line = f"{int(passed) // 60:3d}:{int(passed) % 60:02d}  {text}"
        self._say(line)
        print(line, file=self._lines, flush=True)


def _written(job: Job) -> int:
    """When the results of a job were written, in ns; 0 if there are none."""
    try:
        return os.stat(job.plan.folder / "results.json").st_mtime_ns  # noqa: PTH116
    except FileNotFoundError:
        return 0


def _status(job: Job) -> str:
    status: str = read_results(job.plan.folder / "results.json")["status"]
    return status


def _outcome(job: Job) -> Outcome:
    results = read_results(job.plan.folder / "results.json")
    error = results.get("error", "")
    text = describe_verdict(results) + (f": {error}" if error else "")
    passed = job.plan.marker.exists()
    if results["status"] == "passed" and not passed:
        text = "its code has changed while it ran; call again"
    return Outcome(job, passed, text, results["provenance"]["seconds"])
