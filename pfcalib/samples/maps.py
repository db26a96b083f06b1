"""Samples turned once into memory-mapped arrays, so that any cluster can be had in microseconds at
bounded memory.

Random reads from ROOT cost milliseconds each. A cache holds the scalars, the offsets, and a record
of row in CellGeo and energy for each cell. It is keyed by the content of the ROOT file and appears
under its name only when it is complete; one process builds it, others wait.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import tempfile
import warnings
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numba as nb
import numpy as np
from numba import types
from numpy.typing import NDArray

from pfcalib.cache import cache_key, file_sha256, locked, new_folder
from pfcalib.columns import CELL_GEO, COLUMNS, SCALARS
from pfcalib.errors import BadFileError, ValidationError
from pfcalib.samples.read import PathLike, iterate_sample, read_sample
from pfcalib.samples.rootfile import identity, is_url, require_readable
from pfcalib.samples.schema import GEO_PREFIX, CellGeo

# row of CellGeo; GeV, times the cluster's share
CELL_RECORD = np.dtype([("cell", "int32"), ("energy", "float32")])
_ARRAYS, _INDEX, _GEO = "arrays.bin", "index.json", "geo.npz"
_ALIGNMENT = 64  # bytes
_CELLS = ("cluster_cell_ID", "cluster_cell_E")


# Memory maps would do the same with page faults, but each maps the neighbours of a page too: a
# few hundred random clusters make a sample of a million resident. What pread(2) reads lands in a
# buffer of its own and nowhere else.
_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64)
)


@nb.njit(cache=True, nogil=True)
def read_ranges(descriptor, start, length, out) -> int:  # type: ignore[no-untyped-def] # pragma: no cover
    """Read ranges of open files one after the other into `out`; safe to call from several threads.

    Parameters
    ----------
    descriptor : array of int32, shape (n,)
        File of each range.
    start, length : arrays of int64, shape (n,), bytes
    out : array of uint8, shape (sum of lengths,)

    Returns
    -------
    int
        -1, or the first range that could not be read to its end.
    """
    place = 0
    for i in range(len(start)):
        done = 0
        while done < length[i]:
            count = _pread(descriptor[i], out[place:].ctypes, length[i] - done, start[i] + done)
            if count <= 0:
                return i
            place += count
            done += count
    return -1


class CachedSample:
    """An open cache; the cells of cluster i lie at offsets[i]:offsets[i + 1].

    Parameters
    ----------
    folder : Path
        Of the cache.
    verify : bool
        Compare the checksums of all arrays too.

    Raises
    ------
    FileNotFoundError, KeyError, ValueError, zipfile.BadZipFile, ValidationError
        If the cache is damaged.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self.folder = folder
        index = json.loads((folder / _INDEX).read_text(encoding="ascii"))
        for name, (n_bytes, digest) in index["files"].items():
            if (found := (folder / name).stat().st_size) != n_bytes:
                raise ValueError(f"{name} has {found} bytes, expected {n_bytes}")
            if verify and file_sha256(folder / name) != digest:
                raise ValueError(f"the checksum of {name} is not what it was")
        self.descriptor = os.open(folder / _ARRAYS, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        self._map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        arrays = {
            name: np.frombuffer(self._map, dtype, n, start)
            for name, (dtype, start, n) in index["arrays"].items()
        }
        self.first_cell = int(index["cells"][0])  # byte
        cells = np.frombuffer(self._map, CELL_RECORD, index["cells"][1], self.first_cell)
        self.cell: NDArray[np.int32] = cells["cell"]
        self.energy: NDArray[np.float32] = cells["energy"]
        self.offsets: NDArray[np.int64] = arrays.pop("offsets")
        self.scalars: dict[str, NDArray[Any]] = arrays
        if self.offsets[0] != 0 or self.offsets[-1] != len(cells):
            raise ValueError("the offsets do not end at the number of cells")
        with np.load(folder / _GEO, allow_pickle=False) as stored:
            self.geo = CellGeo(**{name.removeprefix(GEO_PREFIX): stored[name] for name in CELL_GEO})

    @property
    def n_clusters(self) -> int:
        """Clusters of the sample."""
        return len(self.offsets) - 1

    def release(self) -> None:
        """Let go of the pages of the map that are resident; they come back when they are looked
        at.
        """
        self._map.madvise(mmap.MADV_DONTNEED)


class CachedCells:
    """Cells of the clusters of several caches, which are numbered through all of them.

    All clusters of a batch are read in one call, and no page of a map becomes resident; eight bytes
    a cluster stay in memory.

    Parameters
    ----------
    caches : sequence of CachedSample
    """

    def __init__(self, caches: Sequence[CachedSample]) -> None:
        self._caches = caches
        self._first = np.cumsum([0, *(cache.n_clusters for cache in caches)])
        self._descriptor = np.array([cache.descriptor for cache in caches], dtype=np.int32)
        # of each cluster and of the end of each file
        self._byte = np.concatenate(
            [cache.first_cell + CELL_RECORD.itemsize * cache.offsets for cache in caches]
        )
        for cache in caches:
            cache.release()

    def read(
        self, rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Offsets, rows of CellGeo and energies of the cells of some clusters.

        Raises
        ------
        BadFileError
            If the arrays end before the cells do: they were cut while they were open.
        """
        file = np.searchsorted(self._first, rows, side="right") - 1
        start = self._byte[rows + file]
        size = self._byte[rows + file + 1] - start
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(size // CELL_RECORD.itemsize, out=offsets[1:])
        cells = np.empty(offsets[-1], dtype=CELL_RECORD)
        failed = read_ranges(self._descriptor[file], start, size, cells.view(np.uint8))
        if failed >= 0:
            raise BadFileError(
                f"{self._caches[file[failed]].folder / _ARRAYS}: cells of cluster "
                f"{rows[failed] - self._first[file[failed]]} cannot be read; the cache was changed "
                "while it was in use"
            )
        return offsets, cells["cell"], cells["energy"]


def open_cache(
    path: PathLike, *, cache_dir: PathLike | None = None, verify: bool = False
) -> CachedSample:
    """The memory maps of a sample, made now if they do not exist, and anew, with a warning, if they
    are damaged.

    Sizes are compared each time, checksums if asked for. Any number of processes may open the same
    sample at once.

    Parameters
    ----------
    path : path-like
        A file of any layout with cells.
    cache_dir : path-like, optional
        Folder of the caches; by default ``.pfcalib_cache`` next to the file or, where that cannot
        be written, in the folder for temporary files.
    verify : bool
        Read all arrays and compare their checksums.

    Raises
    ------
    BadFileError
        If the file is not a sound sample, is at an address instead of on a disk, or is replaced
        meanwhile.
    """
    if is_url(path):
        raise BadFileError(
            f"{path}: only files on disk have a cache; copy it here, or stream it with "
            "source='root'"
        )
    require_readable(path)
    path, version = Path(path), identity(path)
    digest = cache_key("maps", columns=SCALARS, file=file_sha256(path))
    final = _cache_folder(path, cache_dir) / f"{path.stem}-{digest}"
    cached = _try_open(final, verify=verify)
    if cached is not None:
        return cached
    final.parent.mkdir(parents=True, exist_ok=True)
    with locked(final):
        cached = _try_open(final, verify=verify, warn=True)  # another process may have been first
        if cached is None:
            _build(path, final)
            cached = CachedSample(final)
    if identity(path) != version:
        clear_cache(path, cache_dir=cache_dir)
        raise BadFileError(f"{path}: the file was replaced or changed while it was read")
    return cached


def clear_cache(paths: PathLike | Sequence[PathLike], *, cache_dir: PathLike | None = None) -> int:
    """Remove the caches of files, those of older contents too, while nobody reads them; returns the
    bytes set free.

    Parameters
    ----------
    paths : path-like or sequence of them
        The files, which need not exist any more.
    cache_dir : path-like, optional
        As in `open_cache`.
    """
    n_bytes = 0
    for path in [Path(paths)] if isinstance(paths, str | os.PathLike) else map(Path, paths):
        folder = _cache_folder(path, cache_dir)
        named = re.compile(re.escape(path.stem) + r"-[0-9a-f]{16}")
        for final in [entry for entry in folder.glob("*") if named.fullmatch(entry.name)]:
            with locked(final):
                n_bytes += sum(file.stat().st_size for file in final.rglob("*"))
                shutil.rmtree(final)
            final.with_name(f".{final.name}.lock").unlink(missing_ok=True)
    return n_bytes


def _cache_folder(path: Path, cache_dir: PathLike | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if os.access(path.parent, os.W_OK):
        return path.parent / ".pfcalib_cache"
    return Path(tempfile.gettempdir()) / f"pfcalib_cache_{os.getuid()}"


def _try_open(final: Path, *, verify: bool, warn: bool = False) -> CachedSample | None:
    """The cache, or None where there is none that is whole."""
    if not final.is_dir():
        return None
    try:
        return CachedSample(final, verify=verify)
    except (
        FileNotFoundError,
        KeyError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        ValidationError,
    ) as error:
        if warn:
            warnings.warn(
                f"{final}: the cache is damaged ({error}) and is built anew", stacklevel=3
            )
        return None


def _build(path: Path, final: Path) -> None:
    """Write all arrays into a folder that takes its name when it is complete; what builders that
    were killed have left goes.
    """
    for left in final.parent.glob(f".{final.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    ignore = final.parent / ".gitignore"
    if final.parent.name.startswith(".pfcalib_cache") and not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")
    with new_folder(final) as work:
        _write_arrays(path, work)


def _write_arrays(path: Path, folder: Path) -> None:
    """All arrays in one file, so that a sample costs one open file, the cells, and an index of
    (dtype, first byte, length) and checksums.
    """
    empty = read_sample(path, entry_stop=0)
    if not set(_CELLS) <= set(empty.cells):
        raise BadFileError(f"{path}: has no cells ({', '.join(_CELLS)}), which images are made of")
    np.savez(folder / _GEO, **empty.geo.arrays())  # type: ignore[arg-type]
    scalars = [name for name in SCALARS if name in empty.scalars]
    types = {name: COLUMNS[name].dtype for name in scalars} | {"offsets": "int64"}
    parts = [*types, "cells"]
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / name).open("wb")) for name in parts
        }
        for arrays in _arrays_of(path, scalars, empty.geo):
            for name, array in arrays.items():
                files[name].write(np.ascontiguousarray(array, dtype=types.get(name)).data)
    starts, n_bytes = {}, {}
    with (folder / _ARRAYS).open("wb") as whole:
        for name in parts:
            whole.write(bytes(-whole.tell() % _ALIGNMENT))
            starts[name], n_bytes[name] = whole.tell(), (folder / name).stat().st_size
            with (folder / name).open("rb") as file:
                shutil.copyfileobj(file, whole)
            (folder / name).unlink()
    places = {
        name: (dtype, starts[name], n_bytes[name] // np.dtype(dtype).itemsize)
        for name, dtype in types.items()
    }
    cells = (starts["cells"], n_bytes["cells"] // CELL_RECORD.itemsize)
    checks = {
        name: ((folder / name).stat().st_size, file_sha256(folder / name))
        for name in (_ARRAYS, _GEO)
    }
    index = {"arrays": places, "cells": cells, "files": checks}
    (folder / _INDEX).write_text(json.dumps(index), encoding="ascii")


def _arrays_of(
    path: Path, scalars: Sequence[str], geo: CellGeo
) -> Iterator[dict[str, NDArray[Any]]]:
    n_cells = 0
    yield {"offsets": np.zeros(1, dtype=np.int64)}
    for chunk in iterate_sample(path, columns=(*scalars, *_CELLS)):
        cells = np.empty(int(chunk.offsets[-1]), dtype=CELL_RECORD)
        cells["cell"], cells["energy"] = geo.rows(chunk.cells[_CELLS[0]]), chunk.cells[_CELLS[1]]
        yield {**chunk.scalars, "offsets": n_cells + chunk.offsets[1:], "cells": cells}
        n_cells += len(cells)
