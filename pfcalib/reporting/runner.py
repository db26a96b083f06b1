"""Papermill made strict: a study is checked before it starts, run in a process of its own, and its
folder is complete or not there.

Everything is written to a temporary folder beside ``reports/<study>/<profile>``, which takes that
name at the end; a notebook that breaks leaves its executed copy and results marked failed there.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from PIL import Image

from pfcalib import provenance
from pfcalib.cache import file_sha256, locked, new_folder, write_text
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.catalogue import (
    PROFILES,
    Study,
    find_root,
    find_study,
    read_profiles,
    resolve_parameters,
)
from pfcalib.reporting.entries import PUBLISHED_PROFILE
from pfcalib.reporting.results import empty_results, read_results, write_results
from pfcalib.reporting.studypage import write_run_page

RESERVED = (*PROFILES, "figures")  # names that a folder of other parameters may not have
KERNEL_LOG = "kernel.log"
MAX_LABEL = 60  # characters of the name of a folder, before a hash of the rest

DATA = Path(__file__).parents[1] / "data"

_FOLDER = r"[A-Za-z0-9][\w.,=+-]*"

# it warns of parameters like `x: int | None`, which it fails to see
logging.getLogger("papermill").setLevel(logging.ERROR)

Say = Callable[..., None]  # takes text and, as print does, the end of the line


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has passed every check before its start."""

    root: Path
    study: Study
    profile: str
    parameters: dict[str, Any]  # all but out_dir
    changed: dict[str, Any]  # those that differ from the profile's
    label: str  # of the folder: the profile, unless parameters differ or a name was given

    @property
    def folder(self) -> Path:
        """Where the results will lie."""
        return self.root / "reports" / self.study.name / self.label

    @property
    def publish(self) -> bool:
        """True if the results are copied to reports/<study>, where they are committed."""
        return self.label == PUBLISHED_PROFILE

    @functools.cached_property
    def marker(self) -> Path:
        """File of the folder that is there only if the run passed, with the code, parameters,
        packaged data and locked packages that there are now; its name holds their digest.
        """
        settings = [provenance.code_digests(self.study.path), self.parameters]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        files = [self.root / "requirements.lock", *sorted(DATA.rglob("*"))]
        for path in files:
            if path.is_file() and not path.is_relative_to(DATA / "profiles"):  # of batch systems
                digest.update(f"{path.name} {file_sha256(path)}".encode())
        return self.folder / f"passed-{digest.hexdigest()[:12]}"


class RunResult(NamedTuple):
    """How a run ended."""

    folder: Path
    results: dict[str, Any]
    seconds: float

    @property
    def passed(self) -> bool:
        """True if the notebook ran to its end and all required checks hold."""
        return bool(self.results["status"] == "passed")

    @property
    def error(self) -> str:
        """What broke the notebook, or which required checks failed; empty if it passed."""
        return str(self.results.get("error", ""))


def _kernel_manager(log: Path) -> type[AsyncKernelManager]:
    """A manager that starts the kernel of the running interpreter, whichever kernels Jupyter finds
    on the machine.

    What compiled code prints on standard error (TensorFlow's remarks on missing GPUs, a crash) goes
    to the log, not into the notebook.
    """

    class OwnKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [
                sys.executable,
                "-Xfrozen_modules=off",
                "-m",
                "ipykernel_launcher",
                "-f",
                "{connection_file}",
            ]
            return KernelSpec(argv=argv, display_name="pfcalib", language="python")

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("wb") as file:
                await super().start_kernel(stderr=file, **options)

    return OwnKernelManager


def plan_study(
    name: str,
    *,
    profile: str = "smoke",
    overrides: Mapping[str, Any] | None = None,
    folder: str | None = None,
    root: Path | None = None,
) -> Plan:
    """Check everything that can be checked before a study starts.

    Parameters
    ----------
    name : str
        Study, such as ``"01_showers"``, or its number.
    profile : str
        Parameter set of ``notebooks/profiles``: smoke, standard or full.
    overrides : mapping of str to JSON value, optional
        Parameters that differ from the profile's; such a run gets a folder of its own and is never
        published.
    folder : str, optional
        Name of that folder; by default the profile and the parameters that differ from it.
    root : Path, optional
        Top folder of the clone; found from the current folder by default.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the study, the profile or a parameter is unknown, missing, or of the wrong type, or the
        folder has no good name.
    """
    root = root or find_root()
    study = find_study(root, name)
    values = read_profiles(root, study.name).get(profile, {})
    parameters = resolve_parameters(study, profile, values, overrides or {})
    changed = {
        key: parameters[key] for key in overrides or {} if parameters[key] != values.get(key)
    }
    if folder is not None and (not re.fullmatch(_FOLDER, folder) or folder in RESERVED):
        raise ConfigError(
            f"--name {folder!r}: must be letters, digits and .,=+-_, and none of "
            f"{', '.join(RESERVED)}"
        )
    label = folder or _label(profile, changed)
    return Plan(root, study, profile, parameters, changed, label)


def _label(profile: str, changed: Mapping[str, Any]) -> str:
    """Name of the folder of a run: the profile, and what differs from it, made short by a hash.

    >>> _label("smoke", {"seed": 7})
    'smoke-seed=7'
    """
    texts = [profile, *(f"{name}={changed[name]}" for name in sorted(changed))]
    label = re.sub(r"[^\w.,=+-]", "", "-".join(texts))
    if label == "-".join(texts) and len(label) <= MAX_LABEL:
        return label
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
    return f"{label[:MAX_LABEL]}-{digest[:6]}"


def run_study(
    plan: Plan, *, missing: bool = False, say: Say = lambda text, end="\n": None
) -> RunResult:
    """Run a planned study and leave its complete folder, whether it passed or failed; a second run
    into the same folder waits for the first one, and with ``missing`` takes its results if they
    are up to date.
    """
    with locked(plan.folder):
        start, used = time.perf_counter(), _processor_seconds()
        if missing and plan.marker.exists():
            return RunResult(plan.folder, read_results(plan.folder / "results.json"), 0.0)
        marker = plan.marker  # of the code at the start
        with new_folder(plan.folder) as folder:
            error = _execute(plan, folder, say)
            results = _settle_results(
                plan, folder, error, time.perf_counter() - start, _processor_seconds() - used
            )
        write_run_page(plan.root, plan.study, plan.folder, results)
        result = RunResult(plan.folder, results, time.perf_counter() - start)
        if result.passed and plan.publish:
            publish(plan.folder)
        if result.passed:
            marker.touch()
    return result


def publish(folder: Path) -> None:
    """Copy the results and figures of a finished run one folder up, in place of those there."""
    target = folder.parent
    if (folder / "figures").is_dir():
        with new_folder(target / "figures") as figures:
            shutil.copytree(
                folder / "figures", figures, dirs_exist_ok=True, copy_function=copy_figure
            )
    else:
        shutil.rmtree(target / "figures", ignore_errors=True)
    for name in ("summary.md", "results.csv", "results.json"):
        write_text(target / name, (folder / name).read_text(encoding="utf-8"))


def copy_figure(source: str | Path, target: str | Path) -> None:
    """Copy a file; of a PNG no more than 256 colours, which takes a third of the room."""
    if Path(source).suffix != ".png":
        shutil.copy(source, target)
        return
    with Image.open(source) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(target, "PNG", optimize=True, dpi=image.info.get("dpi", (100, 100)))


def _execute(plan: Plan, folder: Path, say: Say) -> str:
    """Run the notebook; return what broke it in one line, or an empty string."""
    try:
        papermill.execute_notebook(
            plan.study.path,
            folder / "executed.ipynb",
            parameters={**plan.parameters, "out_dir": str(folder)},
            cwd=plan.study.path.parent,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=120,
            kernel_manager_class=_kernel_manager(folder / KERNEL_LOG),
            extra_arguments=[
                "--IPKernelApp.log_level=ERROR",
                "--IPKernelApp.capture_fd_output=False",
            ],
            **_progress_hooks(plan, say),
        )
    except papermill.PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return (
            "the kernel died, killed by hand or for lack of memory, or of a crash that "
            f"{plan.folder / KERNEL_LOG} tells"
        )
    # a kernel that died or did not start: the results have to say so too
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _processor_seconds() -> float:
    """Of the processes that this one has started and that have ended, kernels among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _settle_results(
    plan: Plan, folder: Path, error: str, seconds: float, processor_seconds: float
) -> dict[str, Any]:
    """See to it that valid results lie in the folder and tell of what broke; return them."""
    try:
        results = read_results(folder / "results.json")
    except ValidationError as broken:
        error = error or f"the notebook left no valid results.json ({broken})"
        results = empty_results(plan.study.name, plan.parameters, plan.parameters.get("seed"))
    results["provenance"]["seconds"] = round(seconds, 1)
    results["provenance"]["processor_seconds"] = round(processor_seconds, 1)
    if plan.changed:
        results["provenance"]["changed"] = plan.changed
    if error:
        results.update(status="failed", error=error)
    write_results(results, folder)
    return results


def _progress_hooks(plan: Plan, say: Say) -> dict[str, Callable[..., None]]:
    """Hooks of the notebook client: one line a code cell, with the heading above it and the time it
    took.
    """
    source = nbformat.read(plan.study.path, as_version=4)
    # papermill adds one with the parameters
    total = sum(cell.cell_type == "code" for cell in source.cells) + 1
    headings, heading = {}, plan.study.title
    for cell in source.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.partition("\n")[0].lstrip("# ")
        headings[cell.get("id")] = heading
    started: list[float] = []

    def begin(*, cell: Any, cell_index: int) -> None:
        started.append(time.perf_counter())
        heading = headings.get(cell.get("id"), "Parameters of this run")[:60]
        say(f"  {plan.study.name}  cell {len(started):2d}/{total}  {heading:60s}", end="")

    def end(**_: Any) -> None:
        say(f"{time.perf_counter() - started[-1]:8.1f} s")

    return {"on_cell_execute": begin, "on_cell_executed": end}
