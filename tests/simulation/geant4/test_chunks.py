"""Jobs cover a batch once and weigh the same; their files are complete or refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfcalib.errors import BadFileError
from pfcalib.simulation.geant4.chunks import (
    Result,
    cut_batch,
    read_job,
    read_result,
    write_job,
    write_result,
)
from pfcalib.simulation.geant4.session import RowHits


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
def result(rng):
    return Result(
        RowHits(
            np.array([0, 2, 3]),
            np.array([4, 7, 5], np.int32),
            *rng.random((5, 3)),
            *rng.random((3, 2)),
        ),
        1.5,
    )


def test_a_job_comes_back_from_its_file(rng, tmp_path):
    job = (rng.random((3, 7)), np.array([22, 211, -211], np.int32), rng.integers(1, 9, (3, 2)))
    write_job(tmp_path / "a.job.npz", *job)
    for read, written in zip(read_job(tmp_path / "a.job.npz"), job, strict=True):
        np.testing.assert_array_equal(read, written)
        assert read.dtype == written.dtype


def test_a_result_comes_back_from_its_file_and_leaves_no_other(result, tmp_path):
    write_result(tmp_path / "a.npz", result)
    read = read_result(tmp_path / "a.npz", 2)
    assert read.seconds == 1.5
    for one, two in zip(read.hits, result.hits, strict=True):
        np.testing.assert_array_equal(one, two)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_a_truncated_result_is_refused(keep, result, tmp_path):
    path = tmp_path / "a.npz"
    write_result(path, result)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFileError, match=r"a\.npz: not a complete file"):
        read_result(path, 2)


def test_the_result_of_another_job_is_refused(result, tmp_path):
    write_result(tmp_path / "a.npz", result)
    with pytest.raises(BadFileError, match="holds 2 rows and 3 hits: expected 5 rows"):
        read_result(tmp_path / "a.npz", 5)
