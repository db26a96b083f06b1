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
from pfcalib.cache import VARIABLE, write_text
from pfcalib.errors import ValidationError
from pfcalib.reporting.catalogue import Study
from pfcalib.reporting.results import read_results
from pfcalib.reporting.runner import Plan, Say, plan_study, run_study

# times the events of the smoke profile; the first run compiles, and is replaced by the second
PILOT = (1, 1, 4)
NEAR = 2.0
FREE = ("n_events", "seed", "profile")  # parameters that may differ between like runs


class Record(NamedTuple):
    """What one run took."""

    parameters: dict[str, Any]
    n_events: int
    seconds: float  # of processors
    cache_bytes: int | None  # left in an empty cache; None if it was not empty
    cpu: str
    at_most: bool = False  # whether the processors may have been idle for a part of it


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
    """Run a study with the smoke profile and with more events, into ``reports/STUDY/.pilot-*``,
    and note what it took.

    Raises
    ------
    pfcalib.errors.ValidationError
        If a run fails.
    """
    smoke = plan_study(study.name, root=root)
    events = smoke.parameters["n_events"]
    for factor in PILOT:
        more = [n * factor for n in events] if isinstance(events, list) else events * factor
        plan = plan_study(study.name, overrides={"n_events": more}, root=root)
        plan = dataclasses.replace(plan, label=f".pilot-{factor}")  # pages do not show it
        cache = Path(tempfile.mkdtemp(prefix="pfcalib-pilot-"))
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(cache)
        try:
            result = run_study(plan, say=say)
            n_bytes = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        finally:
            shutil.rmtree(cache, ignore_errors=True)
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before
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
    at_most = "processor_seconds" not in made
    yield Record(parameters, count_events(parameters), seconds, n_bytes, cpu, at_most)


def estimate_cost(plan: Plan, records: Sequence[Record]) -> Cost:
    """Cost of a run, from the records of its study that tell most: those that differ from it in
    FREE only come before others, those of this processor before those of others; and there must be
    several numbers of events, or one within a factor of NEAR.
    """
    n_events = count_events(plan.parameters)
    here = provenance.machine()["cpu"]
    alike = [record for record in records if _is_like(record, plan)]
    choices = {
        "": [record for record in alike if record.cpu == here],
        ", another processor": alike,
        ", other parameters": [record for record in records if record.cpu == here],
        ", another processor, other parameters": list(records),
    }
    caches = [(r.n_events, r.cache_bytes) for r in records if r.cache_bytes is not None]
    n_bytes = _line(caches, n_events) if _tells(caches, n_events) else None
    cache_gb = None if n_bytes is None else n_bytes / 1e9
    for remark, chosen in choices.items():
        points = [(record.n_events, record.seconds) for record in chosen]
        if not _tells(points, n_events):
            continue
        least, most = min(points)[0], max(points)[0]
        events = f"{least} to {most}" if least < most else f"{most}"
        basis = f"{len(points)} run{'s' * (len(points) > 1)}, {events} events{remark}"
        if any(record.at_most for record in chosen):
            basis += ", at most: as if all cores had been busy"
        return Cost(plan, n_events, _line(points, n_events) / 3600.0, cache_gb, basis)
    return Cost(plan, n_events, None, cache_gb, "nothing near enough: call with --pilot")


def _tells(points: Sequence[tuple[int, float]], n: int) -> bool:
    return len({x for x, _ in points}) > 1 or any(1 / NEAR <= x / n <= NEAR for x, _ in points)


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
    weights = 1.0 / np.maximum(y, 1e-3 * max(y.max(), 1e-9))
    (a, b), _ = nnls(np.stack([weights, weights * x], axis=1), weights * y)
    return float(a + b * n)
