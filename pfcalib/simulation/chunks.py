"""Samples that are made chunk by chunk, by several processes, and kept as one file of arrays;
chunks that an interrupted call has left are taken.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import new_file, one_maker
from pfcalib.simulation.pileup import in_order

Columns = Mapping[str, NDArray[Any]]


def keep_chunks(
    path: Path,
    simulate: Callable[[int], Any],
    n_chunks: int,
    *,
    join: Callable[[list[dict[str, NDArray[Any]]]], Any],
    n_processes: int = 1,
) -> Path:
    """Make the file where it is not there; one process at a time does.

    Parameters
    ----------
    path : Path
        The file (.npz, no pickle).
    simulate : callable
        Arrays of the chunk of a number, as a mapping or a named tuple; it travels to other
        processes.
    n_chunks : int
    join : callable
        Arrays of all chunks to those of the file.
    n_processes : int
        The file does not depend on it.
    """
    with one_maker(path):
        if not path.exists():
            folder = path.with_suffix(".parts")
            make = functools.partial(_keep_chunk, simulate, folder)
            files = in_order(make, range(n_chunks), n_processes)
            _write(path, join([read_columns(file) for file in files]))
            shutil.rmtree(folder)
    return path


def _keep_chunk(simulate: Callable[[int], Any], folder: Path, number: int) -> Path:
    path = folder / f"{number:05d}.npz"
    if not path.exists():
        _write(path, simulate(number))
    return path


def _write(path: Path, arrays: Any) -> None:
    columns: Columns = arrays if isinstance(arrays, Mapping) else arrays._asdict()
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a file of `keep_chunks`, by name."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def join_columns(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Each array of all chunks, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
