"""Arrays that are made part by part, by several processes, and kept as one file; parts that an
interrupted call has left are taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pfcalib.cache import locked, new_file
from pfcalib.simulation.pileup import (
    NO_POOL,
    Pool,
    PoolConfig,
    cached_pool,
    in_order,
    read_pool,
)


def cached_parts(
    path: Path,
    kind: type,
    simulate: Callable[[Pool, int], Any],
    n_parts: int,
    *,
    join: Callable[[list[Any]], Any],
    n_pool: int,
    n_processes: int,
) -> Path:
    """Make the file where it is not there; one process at a time does.

    Parameters
    ----------
    path : Path
        The file (.npz, no pickle); a pool of pile-up is kept beside it.
    kind : type
        Of named tuples of arrays.
    simulate : callable
        The part of a number, with a pool of pile-up; it travels to other processes.
    n_parts : int
    join : callable
        Parts to the whole.
    n_pool : int
        Minimum-bias collisions of the pool; without any it is empty.
    n_processes : int
    """
    with locked(path):
        if not path.exists():
            pool, folder = None, path.with_suffix(".parts")
            if n_pool:
                of_pool = PoolConfig(n_events=n_pool, chunk=min(n_pool, 100))
                pool = cached_pool(of_pool, cache_dir=path.parent, n_processes=n_processes)
            make = functools.partial(_make_part, simulate, pool, folder)
            files = list(in_order(make, range(n_parts), n_processes))
            _write(path, join([read_arrays(kind, file) for file in files]))
            for file in files:
                file.unlink()
            folder.rmdir()
    return path


def _make_part(
    simulate: Callable[[Pool, int], Any], pool: Path | None, folder: Path, number: int
) -> Path:
    path = folder / f"{number:05d}.npz"
    if not path.exists():
        _write(path, simulate(read_pool(pool) if pool else NO_POOL, number))
    return path


def _write(path: Path, arrays: Any) -> None:
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays._asdict())


def read_arrays(kind: type, path: Path) -> Any:
    """A named tuple of the arrays of a file."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return kind(*(file[name] for name in kind._fields))  # type: ignore[attr-defined]
