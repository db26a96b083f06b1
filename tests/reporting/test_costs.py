"""What a run will cost follows from what like runs took."""

from __future__ import annotations

from pathlib import Path

import pytest

from pfcalib import provenance
from pfcalib.reporting.catalogue import find_study
from pfcalib.reporting.costs import Record, collect_records, count_events, estimate_cost
from pfcalib.reporting.runner import plan_study

ROOT = Path(__file__).resolve().parents[2]
HERE = provenance.machine()["cpu"]


def plan(n_events: int, **values: object):
    return plan_study("02", overrides={"n_events": n_events, **values}, root=ROOT)


def record(n_events: int, seconds: float, cpu: str = HERE, n_bytes=None, **values) -> Record:
    return Record(plan(n_events, **values).parameters, n_events, seconds, n_bytes, cpu)


def test_time_and_cache_grow_as_a_straight_line_in_the_events_of_like_runs():
    records = [record(600, 46.0, n_bytes=600), record(2400, 64.0, n_bytes=2400)]
    cost = estimate_cost(plan(6000), records)
    assert cost.core_hours == pytest.approx(100.0 / 3600)  # 40 s and 10 ms an event
    assert cost.cache_gb == pytest.approx(6000e-9)
    assert cost.basis == "2 runs, 600 to 2400 events"


def test_what_tells_most_of_a_run_comes_first():
    records = [
        record(600, 1.0, cpu="another", n_window=77),
        record(500, 5.0, n_window=77),
        record(800, 50.0, cpu="another"),
        record(900, 90.0),
    ]
    for hidden, hours, basis in (
        (0, 100.0, "1 run, 900 events"),
        (1, 62.5, "1 run, 800 events, another processor"),
        (2, 10.0, "1 run, 500 events, other parameters"),
        (3, 1000 / 600, "1 run, 600 events, another processor, other parameters"),
    ):
        cost = estimate_cost(plan(1000), records[: 4 - hidden])
        assert cost.basis == basis
        assert cost.core_hours == pytest.approx(hours / 3600)
    assert estimate_cost(plan(2000), records[:2]).core_hours is not None  # a line
    far = estimate_cost(plan(2000), records[1:2])
    assert far.core_hours is None
    assert far.basis.startswith("nothing near enough")


def test_what_is_published_is_a_record():
    study = find_study(ROOT, "02")
    records = collect_records(study, ROOT)
    assert records
    assert all(found.seconds > 0.0 and found.n_events > 0 for found in records)
    assert count_events({"n_events": [3, 4]}) == 7
