"""Jobs for Geant4 workers as files: rows cut into pieces of about equal energy, and the hits that
come back.

Every file is written under a temporary name and renamed, so a file under its own name is complete;
what an interrupted job has shot is found again by its name.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import BadFileError
from pfcalib.simulation.geant4.session import RowHits

JOB_ENERGY = 50.0  # GeV; Geant4 takes a second or two for it


class Job(NamedTuple):
    """A piece of a batch: consecutive events with their rows, and the files of it."""

    batch: int
    events: slice
    rows: slice
    job: Path
    result: Path


class Result(NamedTuple):
    """What a worker made of a job."""

    hits: RowHits
    seconds: float  # processor time of the shooting


def cut_batch(
    event: NDArray[np.int64],
    energy: NDArray[np.float64],
    n_events: int,
    *,
    job_energy: float = JOB_ENERGY,
) -> list[tuple[slice, slice]]:
    """Cut a batch between events into pieces of about equal energy, to which the time of Geant4 is
    proportional.

    Parameters
    ----------
    event, energy : ndarray, shape (n_rows,)
        Event and energy in GeV of each row, sorted by event.
    n_events : int
    job_energy : float, GeV
        A piece ends with the event that passes a multiple of it.

    Returns
    -------
    list of (slice, slice)
        Events and rows of each piece; nothing where there is no row.

    Examples
    --------
    >>> cut_batch(np.array([0, 1, 2]), np.array([30.0, 30.0, 30.0]), 3)
    [(slice(0, 2, None), slice(0, 2, None)), (slice(2, 3, None), slice(2, 3, None))]
    """
    if len(event) == 0:
        return []
    before = np.concatenate([[0.0], np.cumsum(np.bincount(event, energy, n_events))[:-1]])
    _, first = np.unique(np.floor(before / job_energy), return_index=True)
    edges = [*first.tolist(), n_events]
    row_edges = np.searchsorted(event, edges).tolist()
    return [
        (slice(edges[i], edges[i + 1]), slice(row_edges[i], row_edges[i + 1]))
        for i in range(len(first))
    ]


def write_job(
    path: Path, rows: NDArray[np.float64], pdg_id: NDArray[np.int64], seeds: NDArray[np.int64]
) -> None:
    """Write the rows of a job, (n, 7), with their particles, (n,), and seeds, (n, 2)."""
    _write(path, rows=rows, pdg_id=pdg_id, seeds=seeds)


def read_job(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, particles and seeds of a job.

    Raises
    ------
    BadFileError
        If the file is damaged.
    """
    arrays = _read(path, ("rows", "pdg_id", "seeds"))
    return arrays["rows"], arrays["pdg_id"], arrays["seeds"]


def write_result(path: Path, result: Result) -> None:
    """Write what was shot."""
    _write(path, **result.hits._asdict(), seconds=np.float64(result.seconds))


def read_result(path: Path, n_rows: int) -> Result:
    """What was shot for a job of n_rows rows.

    Raises
    ------
    BadFileError
        If the file is damaged or is the result of another job.
    """
    arrays = _read(path, (*RowHits._fields, "seconds"))
    hits = RowHits(*(arrays[name] for name in RowHits._fields))
    if (
        len(hits.offsets) != n_rows + 1
        or len(hits.e_dead) != n_rows
        or len(hits.cell) != hits.offsets[-1]
    ):
        raise BadFileError(
            f"{path}: holds {len(hits.offsets) - 1} rows and {len(hits.cell)} hits: expected "
            f"{n_rows} rows"
        )
    return Result(hits, float(arrays["seconds"]))


def _write(path: Path, **arrays: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadFileError(
            f"{path}: not a complete file of {', '.join(names)} ({error})"
        ) from error
