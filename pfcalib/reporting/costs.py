"""What a run will cost before it starts: events, core hours and GB of cache, from what runs of the
same study took on this machine.

The processor time of a study is taken as a + b n_events, and so is what it leaves in the cache; a
pilot, two short runs with an empty cache, measures both where no results of this machine do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from pfcalib import provenance
from pfcalib.cache import VARIABLE, cache_folder, write_text
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.catalogue import Study
from pfcalib.reporting.results import read_results
from pfcalib.reporting.runner import Plan, Say, plan_study, run_study

PILOT = (1, 4)  # times the events of the smoke profile
FREE = ("n_events", "seed", "profile")  # parameters that may differ between like runs


class Record(NamedTuple):
    """What one run took."""

    parameters: dict[str, Any]
    n_events: int
    seconds: float  # of processors
    cache_bytes: int | None  # left in an empty cache; None if it was not empty
    cpu: str


class Cost(NamedTuple):
    """What one run will take; None where nothing was measured."""

    plan: Plan
    n_events: int
    core_hours: float | None
    cache_gb: float | None  # 1 GB = 1e9 bytes
    basis: str  # what it was measured on


def count_events(parameters: Mapping[str, Any]) -> int:
    """Events of a run: ``n_events``, or the sum of its entries."""
    return int(np.sum(parameters["n_events"]))


def run_pilot(study: Study, root: Path, say: Say = lambda text, end="\n": None) -> None:
    """Run a study twice, with the smoke profile and with more events, into
    ``reports/STUDY/.pilot-*``, and note what it took.

    Raises
    ------
    pfcalib.errors.ValidationError
        If a run fails.
    """
    smoke = plan_study(study.name, root=root)
    events = smoke.parameters["n_events"]
    # compiled once, whichever cache the pilot has
    kernels = os.environ.get("NUMBA_CACHE_DIR")
    for factor in PILOT:
        more = [n * factor for n in events] if isinstance(events, list) else events * factor
        plan = plan_study(study.name, overrides={"n_events": more}, root=root)
        plan = dataclasses.replace(plan, label=f".pilot-{factor}")  # pages do not show it
        cache = Path(tempfile.mkdtemp(prefix="pfcalib-pilot-"))
        before = os.environ.get(VARIABLE)
        if not kernels:
            os.environ["NUMBA_CACHE_DIR"] = str(cache_folder() / "kernels" / "pilot")
        os.environ[VARIABLE] = str(cache)
        try:
            result = run_study(plan, say=say)
            n_bytes = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        finally:
            shutil.rmtree(cache, ignore_errors=True)
            for name, value in ((VARIABLE, before), ("NUMBA_CACHE_DIR", kernels)):
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        if not result.passed:
            raise ValidationError(f"{study.name}: the pilot failed: {result.error}")
        write_text(plan.folder / "cache.json", json.dumps({"bytes": n_bytes}))


def collect_records(study: Study, root: Path) -> list[Record]:
    """What runs of a study took: all results of the clone that passed and say so, pilots among
    them.
    """
    folder = root / "reports" / study.name
    return [
        record
        for path in sorted([*folder.glob("results.json"), *folder.glob("*/results.json")])
        for record in _read_record(path)
    ]


def _read_record(path: Path) -> Iterator[Record]:
    results = read_results(path)
    made = results["provenance"]
    if results["status"] != "passed":
        return
    # older results tell only how long it took
    seconds = made.get("processor_seconds", made["seconds"] * made["machine"]["cores"])
    cache = path.with_name("cache.json")
    n_bytes = json.loads(cache.read_text("utf-8"))["bytes"] if cache.is_file() else None
    parameters = made["parameters"]
    cpu = made["machine"]["cpu"]
    yield Record(parameters, count_events(parameters), seconds, n_bytes, cpu)


def estimate_cost(plan: Plan, records: Sequence[Record]) -> Cost:
    """Cost of a run, from the records of its study.

    Those of this processor count, or, if there are none, those of others; among them those that
    differ in FREE only, if they have several numbers of events, or one that is nearer than a
    factor of two. Otherwise all, and what the other parameters cost is then not known.
    """
    n_events = count_events(plan.parameters)
    here = provenance.machine()["cpu"]
    measured = [record for record in records if record.cpu == here]
    where = "" if measured else " of another processor"
    measured = measured or list(records)
    like = [record for record in measured if _is_like(record, plan)]
    other = ""
    if not (
        len({record.n_events for record in like}) > 1
        or any(0.5 <= record.n_events / n_events <= 2.0 for record in like)
    ):
        like, other = measured, ", other parameters"
    if not like:
        return Cost(plan, n_events, None, None, "nothing: call with --pilot")
    seconds = _line([(r.n_events, r.seconds) for r in like], n_events)
    caches = [(r.n_events, r.cache_bytes) for r in records if r.cache_bytes is not None]
    n_bytes = _line(caches, n_events) if caches else None
    runs = f"{len(like)} run{'s' * (len(like) > 1)}"
    return Cost(
        plan,
        n_events,
        seconds / 3600.0,
        None if n_bytes is None else n_bytes / 1e9,
        f"{runs}{where}{other}, {min(r.n_events for r in like)} to "
        f"{max(r.n_events for r in like)} events",
    )


def _is_like(record: Record, plan: Plan) -> bool:
    names = (record.parameters.keys() | plan.parameters.keys()) - set(FREE)
    return all(record.parameters.get(name) == plan.parameters.get(name) for name in names)


def _line(points: Sequence[tuple[int, float]], n: int) -> float:
    """Value at `n` of a + b n, neither negative, through points with equal relative errors.

    >>> round(_line([(10, 12.0), (20, 14.0)], 100), 6)
    30.0
    """
    x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    if len(set(x)) == 1:
        return float(np.mean(y) * n / x[0])
    if not np.all(y > 0.0):
        raise ConfigError("a run that took no time, or left nothing, tells nothing")
    (a, b), _ = nnls(np.stack([1.0 / y, x / y], axis=1), np.ones_like(y))
    return float(a + b * n)
