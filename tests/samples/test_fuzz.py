"""Whatever bytes a file holds, it is read as a sound sample or refused with an error of pfcalib's
own, in bounded time and memory.
"""

from __future__ import annotations

import dataclasses
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_sample
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from samples.damage import write_clusters
from samples.real_root import mltree_of, write_trees

from pfcalib.errors import PfcalibError
from pfcalib.samples.check import check_sample
from pfcalib.samples.faults import FaultLog, find_bad_values
from pfcalib.samples.read import read_sample
from pfcalib.samples.schema import CellGeo, Sample

SECONDS, MEMORY = 30, 2 << 30  # of a processor and in bytes, that one file may take
COLUMNS = (
    "eventNumber",
    "truthPdgId",
    "truthE",
    "clusterE",
    "clusterEta",
    "clusterPhi",
    "cluster_ENG_CALIB_TOT",
)
ADDRESS_SPACE = resource.RLIMIT_AS


class TooLongError(BaseException):
    """Not an Exception, so that no reader can take it for a damaged file."""


@contextmanager
def bounded() -> Iterator[None]:
    """Limits on time and memory; warnings of numpy about odd numbers are none of the reader's."""

    def stop(*_: Any) -> None:
        raise TooLongError(f"more than {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limits, handler = resource.getrlimit(ADDRESS_SPACE), signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    resource.setrlimit(ADDRESS_SPACE, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        resource.setrlimit(ADDRESS_SPACE, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = few_columns(make_sample(np.random.default_rng(5), 12, max_cells=8))
    return write_clusters(
        tmp_path_factory.mktemp("native") / "good.root", sample, basket_size=6, compress=False
    )


@pytest.fixture(scope="module")
def mltree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = np.array([2, 0, 3, 1])
    content = mltree_of(
        make_sample(np.random.default_rng(5), 6, max_cells=8), counts, np.random.default_rng(6)
    )
    return write_trees(tmp_path_factory.mktemp("mltree") / "good.root", content.trees)


def few_columns(sample: Sample) -> Sample:
    cells = {name: sample.cells[name] for name in ("cluster_cell_ID", "cluster_cell_E")}
    return dataclasses.replace(
        sample, scalars={name: sample[name] for name in COLUMNS}, cells=cells
    )


places = st.floats(0.0, 1.0, exclude_max=True)  # as shares of the length of the file
changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), places, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("cut"), places, st.just(b"")),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, steps: list[tuple[str, float, bytes]]) -> bytes:
    """Bytes with some of them overwritten, inserted, taken out, or with the end cut off."""
    for what, share, new in steps:
        place = int(share * len(content))
        skipped = {"flip": len(new), "insert": 0, "remove": len(new), "cut": len(content)}[what]
        content = content[:place] + (b"" if what == "remove" else new) + content[place + skipped :]
    return content


def assert_sound_or_refused(path: Path) -> None:
    with bounded():
        try:
            sample = read_sample(path)
        except PfcalibError as error:
            assert str(path) in str(error)  # noqa: PT017 (both outcomes are right)
        else:
            assert_sound(sample)
        try:
            log = FaultLog()
            kept = read_sample(path, on_error="skip", faults=log)
        except PfcalibError:
            assert len(log)
        else:
            assert_sound(kept)


def assert_sound(sample: Sample) -> None:
    assert not list(find_bad_values(sample))
    assert sample.offsets[0] == 0
    assert np.all(np.diff(sample.offsets) >= 0)
    assert {len(array) for array in sample.scalars.values()} <= {len(sample)}
    assert {len(array) for array in sample.cells.values()} <= {int(sample.offsets[-1])}


options = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # no search for the smallest failing example, which takes minutes


@settings(options, max_examples=120)
@given(steps=changes)
def test_no_change_of_bytes_gets_past_the_reader_of_native_files(native, steps):
    path = native.with_name("changed.root")
    path.write_bytes(changed(native.read_bytes(), steps))
    assert_sound_or_refused(path)


@settings(options, max_examples=80)
@given(steps=changes)
def test_no_change_of_bytes_gets_past_the_reader_of_mltrees(mltree, steps):
    path = mltree.with_name("changed.root")
    path.write_bytes(changed(mltree.read_bytes(), steps))
    assert_sound_or_refused(path)


energies = st.one_of(
    st.floats(0.125, 100.0, width=32),
    st.sampled_from([0.0, -1.0, -1e-7, np.nan, np.inf, -np.inf, 3e38]),
)
cell_ids = st.one_of(st.integers(0, 99), st.sampled_from([100, 101, 2**63, 2**64 - 1]))
tables = st.lists(
    st.fixed_dictionaries(
        {
            "truthE": energies,
            "clusterE": energies,
            "cluster_ENG_CALIB_TOT": energies,
            "cells": st.lists(st.tuples(cell_ids, energies), max_size=3),
        }
    ),
    max_size=5,
)


def is_bad(cluster: dict[str, Any]) -> bool:
    """The rules once more, one number at a time."""
    scalars = [cluster["truthE"], cluster["clusterE"], cluster["cluster_ENG_CALIB_TOT"]]
    if any(
        value != value or abs(value) == float("inf")
        for value in [*scalars, *(energy for _, energy in cluster["cells"])]
    ):
        return True
    return (
        cluster["truthE"] <= 0
        or cluster["cluster_ENG_CALIB_TOT"] < -1e-6
        or any(cell > 99 for cell, _ in cluster["cells"])
    )


@settings(options, max_examples=60)
@given(table=tables)
@example(table=[])
@example(table=[{"truthE": 1.0, "clusterE": 1.0, "cluster_ENG_CALIB_TOT": -1e-7, "cells": []}])
def test_the_verdict_on_random_clusters_is_that_of_a_slow_check(tmp_path_factory, table):
    path = write_table(tmp_path_factory.getbasetemp() / "table.root", table)
    bad = [is_bad(cluster) for cluster in table]
    log = FaultLog()
    kept = read_sample(path, on_error="skip", faults=log)
    assert kept["eventNumber"].tolist() == [i for i, wrong in enumerate(bad) if not wrong]
    assert log.n_lost == sum(bad)
    report = check_sample(path)
    assert any(" must " in problem for problem in report.problems) == any(bad)
    if any(bad):
        entries = "|".join(str(i) for i, wrong in enumerate(bad) if wrong)
        where = rf"table\.root: ClusterTree: entry ({entries}): "
        with pytest.raises(PfcalibError, match=where):
            read_sample(path)
    else:
        whole = read_sample(path)
        assert whole["truthE"].tolist() == [np.float32(cluster["truthE"]) for cluster in table]
        assert np.diff(whole.offsets).tolist() == [len(cluster["cells"]) for cluster in table]


def write_table(path: Path, table: list[dict[str, Any]]) -> Path:
    n = 100
    geo = CellGeo(np.arange(n), np.full(n, 2), *np.zeros((7, n)))  # type: ignore[arg-type]
    counts = np.array([len(cluster["cells"]) for cluster in table], dtype=np.int64)
    cells = [cell for cluster in table for cell in cluster["cells"]]
    scalars = {
        name: np.array([cluster[name] for cluster in table], dtype=np.float32)
        for name in ("truthE", "clusterE", "cluster_ENG_CALIB_TOT")
    }
    jagged = {
        "cluster_cell_ID": np.array([cell for cell, _ in cells], dtype=np.uint64),
        "cluster_cell_E": np.array([energy for _, energy in cells], dtype=np.float32),
    }
    scalars = {"eventNumber": np.arange(len(table)), **scalars}
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return write_clusters(path, Sample(scalars, offsets, jagged, geo, {}))
