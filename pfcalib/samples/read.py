"""Read samples: whole, in part or chunk by chunk; whatever is wrong with a file is said with file, tree, branch and entry."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.columns import CELL_GEO, COLUMNS, JAGGED, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.samples.schema import CLUSTER_TREE, GEO_PREFIX, GEO_TREE, METADATA, CellGeo, Sample, concatenate

STEP = 20_000  # clusters in memory at once
PathLike = str | os.PathLike[str]


def read_sample(
    paths: PathLike | Sequence[PathLike],
    *,
    columns: Sequence[str] | None = None,
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Sample:
    """Read one or several files into memory.

    Parameters
    ----------
    paths : path-like or sequence of them
        Files of the same cells; entries are counted through all of them in the order given.
    columns : sequence of str, optional
        Scalars and jagged columns to read; all of `pfcalib.columns` by default.
    entry_start, entry_stop : int
        Range of clusters, half open.

    Raises
    ------
    BadFileError
        If a file is missing, not ROOT, lacks a tree or branch, has jagged branches of different lengths, energies that are not
        finite, or cells that are not in CellGeo.
    """
    files = as_paths(paths)
    parts = list(iterate_sample(files, columns=columns, entry_start=entry_start, entry_stop=entry_stop))
    if parts:
        return concatenate(parts)
    with open_sample(files[0]) as file:
        return _read_entries(files[0], file, _names(columns), (0, 0), read_geo(files[0], file), read_metadata(files[0], file))


def iterate_sample(
    paths: PathLike | Sequence[PathLike],
    *,
    step: int = STEP,
    columns: Sequence[str] | None = None,
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Iterator[Sample]:
    """Read chunk by chunk, at most `step` clusters at once; parameters and errors as in `read_sample`."""
    seen = 0
    for path in as_paths(paths):
        with open_sample(path) as file:
            n_entries = int(get_tree(path, file, CLUSTER_TREE).num_entries)
            start = max(entry_start - seen, 0)
            stop = n_entries if entry_stop is None else min(entry_stop - seen, n_entries)
            seen += n_entries
            if start >= stop:
                continue
            geo, metadata = read_geo(path, file), read_metadata(path, file)
            for first in range(start, stop, step):
                entries = (first, min(first + step, stop))
                yield _read_entries(path, file, _names(columns), entries, geo, metadata)


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    """A list of paths of one or several."""
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    if not files:
        raise BadFileError("no sample file was given")
    return files


@contextlib.contextmanager
def open_sample(path: PathLike) -> Iterator[Any]:
    """The ROOT file, closed at the end.

    Raises
    ------
    BadFileError
        If the file is missing or not ROOT.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: no such file")
    with _reading(path, "not a readable ROOT file"):
        file = uproot.open(path)
    with file:
        yield file


def get_tree(path: PathLike, file: Any, name: str) -> Any:
    """A tree of the file.

    Raises
    ------
    BadFileError
        If there is no tree of that name.
    """
    trees = file.keys(cycle=False, filter_classname="TTree")
    if name not in trees:
        raise BadFileError(f"{path}: no tree {name!r}; the file has {', '.join(trees) or 'no tree at all'}")
    with _reading(path, f"tree {name} cannot be read"):
        return file[name]


def read_geo(path: PathLike, file: Any) -> CellGeo:
    """The cells of an open sample."""
    tree = get_tree(path, file, GEO_TREE)
    if tree.num_entries != 1:
        raise BadFileError(f"{path}: {GEO_TREE} must have exactly one entry, it has {tree.num_entries}")
    _require_branches(path, tree, GEO_TREE, list(CELL_GEO))
    with _reading(path, f"{GEO_TREE} cannot be read"):
        arrays = tree.arrays(list(CELL_GEO), library="ak")
    flat = {name.removeprefix(GEO_PREFIX): ak.to_numpy(arrays[name][0]).astype(dtype) for name, dtype in CELL_GEO.items()}
    if len({len(array) for array in flat.values()}) != 1:
        raise BadFileError(f"{path}: {GEO_TREE}: the vectors do not have the same length")
    return CellGeo(**flat)


def read_metadata(path: PathLike, file: Any) -> dict[str, Any]:
    """The metadata of an open sample; empty where the file has none."""
    if METADATA not in file.keys(cycle=False):
        return {}
    try:
        return dict(json.loads(str(file[METADATA])))
    except ValueError as error:
        raise BadFileError(f"{path}: {METADATA} is not JSON: {error}") from error


def read_columns(
    path: PathLike, file: Any, columns: Sequence[str], entries: tuple[int, int]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Scalars, offsets and cells of a range of entries, as they are; only the lengths of jagged branches are checked."""
    tree = get_tree(path, file, CLUSTER_TREE)
    _require_branches(path, tree, CLUSTER_TREE, columns)
    with _reading(path, f"{CLUSTER_TREE}: entries {entries[0]} to {entries[1]} cannot be read"):
        arrays = tree.arrays(list(columns), entry_start=entries[0], entry_stop=entries[1], library="ak")
    scalars = {name: ak.to_numpy(arrays[name]).astype(COLUMNS[name].dtype, copy=False) for name in columns if not COLUMNS[name].jagged}
    offsets = np.zeros(entries[1] - entries[0] + 1, dtype=np.int64)
    cells: dict[str, NDArray[Any]] = {}
    for name in (name for name in columns if COLUMNS[name].jagged):
        layout = ak.to_packed(arrays[name]).layout
        own = np.asarray(layout.offsets.data, dtype=np.int64)
        if cells and not np.array_equal(own, offsets):
            entry = entries[0] + int(np.flatnonzero(np.diff(own) != np.diff(offsets))[0])
            raise BadFileError(f"{path}: {CLUSTER_TREE}: entry {entry}: {name} and {next(iter(cells))} do not have the same length")
        offsets, cells[name] = own, np.asarray(layout.content.data).astype(COLUMNS[name].dtype, copy=False)
    return scalars, offsets, cells


@contextlib.contextmanager
def _reading(path: PathLike, trouble: str) -> Iterator[None]:
    """Turn any error of uproot, which has many kinds for files that are damaged or cut short, into a BadFileError."""
    try:
        yield
    except Exception as error:
        raise BadFileError(f"{path}: {trouble} ({type(error).__name__})") from error


def _names(columns: Sequence[str] | None) -> tuple[str, ...]:
    names = (*SCALARS, *JAGGED) if columns is None else tuple(columns)
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise BadFileError(f"no such columns in pfcalib: {', '.join(unknown)}")
    return names


def _read_entries(path: Path, file: Any, columns: Sequence[str], entries: tuple[int, int], geo: CellGeo, metadata: dict[str, Any]) -> Sample:
    scalars, offsets, cells = read_columns(path, file, columns, entries)
    for name, array in scalars.items():
        _require(path, name, np.isfinite(array), array, entries[0] + np.arange(len(array)), "must be finite")
    owner = entries[0] + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) if cells else np.zeros(0, dtype=np.int64)
    for name, array in cells.items():
        good = geo.rows(array) >= 0 if name == "cluster_cell_ID" else np.isfinite(array)
        _require(path, name, good, array, owner, f"must be in {GEO_TREE}" if name == "cluster_cell_ID" else "must be finite")
    return Sample(scalars, offsets, cells, geo, metadata)


def _require(path: Path, name: str, good: NDArray[np.bool_], values: NDArray[Any], entry: NDArray[np.int64], wish: str) -> None:
    if not good.all():
        i = int(np.argmin(good))
        raise BadFileError(f"{path}: {CLUSTER_TREE}: entry {entry[i]}: {name} is {values[i]}, it {wish}")


def _require_branches(path: PathLike, tree: Any, name: str, wanted: Sequence[str]) -> None:
    there = set(tree.keys())
    missing = [branch for branch in wanted if branch not in there]
    if missing:
        raise BadFileError(f"{path}: {name} has no branch {', '.join(missing)}")
