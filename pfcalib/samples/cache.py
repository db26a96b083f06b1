"""Samples turned once into memory-mapped arrays, so that any cluster can be had in microseconds at bounded memory.

Random reads from ROOT cost milliseconds each. A cache holds the scalars, the offsets, and for each cell its row in CellGeo (16 bits
where they suffice) and its energy. It is keyed by the content of the ROOT file and appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import CELL_GEO, COLUMNS, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.samples.read import PathLike, iterate_sample, open_sample, read_geo
from pfcalib.samples.schema import GEO_PREFIX, CellGeo

LAYOUT = 1  # goes up when the arrays below change; part of the key, as are the columns
_ARRAYS, _INDEX, _GEO = "arrays.bin", "index.json", "geo.npz"
_ALIGNMENT = 64  # bytes
_CELLS = ("cluster_cell_ID", "cluster_cell_E")


class CachedSample(NamedTuple):
    """Memory maps of one sample; the cells of cluster i lie at offsets[i]:offsets[i + 1]."""

    scalars: dict[str, NDArray[Any]]
    offsets: NDArray[np.int64]  # (n_clusters + 1,)
    cell: NDArray[np.unsignedinteger]  # row of CellGeo
    energy: NDArray[np.float32]  # GeV, times the cluster's share
    geo: CellGeo

    @property
    def n_clusters(self) -> int:
        return len(self.offsets) - 1


def open_cache(path: PathLike, *, cache_dir: PathLike | None = None) -> CachedSample:
    """The memory maps of a ROOT file, made now if they do not exist.

    Parameters
    ----------
    path : path-like
        ROOT file.
    cache_dir : path-like, optional
        Folder of the caches; by default ``.pfcalib_cache`` next to the file or, where that cannot be written, in the folder for
        temporary files.

    Raises
    ------
    BadFileError
        If the file is not a sound sample.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: no such file")
    folder = _cache_folder(path) if cache_dir is None else Path(cache_dir)
    final = folder / f"{path.stem}-{_digest(path)}"
    if not final.is_dir():
        _build(path, final)
    return _open(final)


def _cache_folder(path: Path) -> Path:
    if os.access(path.parent, os.W_OK):
        return path.parent / ".pfcalib_cache"
    return Path(tempfile.gettempdir()) / f"pfcalib_cache_{os.getuid()}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{LAYOUT} {' '.join(SCALARS)} {content}".encode()).hexdigest()[:16]


def _build(path: Path, final: Path) -> None:
    """Write all arrays into a folder of their own, then rename it; where two processes do so at once, the first one wins."""
    final.parent.mkdir(parents=True, exist_ok=True)
    ignore = final.parent / ".gitignore"
    if final.parent.name.startswith(".pfcalib_cache") and not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        _write_arrays(path, work)
        try:
            work.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_arrays(path: Path, folder: Path) -> None:
    with open_sample(path) as file:
        geo = read_geo(path, file)
    np.savez(folder / _GEO, **geo.arrays())  # type: ignore[arg-type]
    cell_type = np.min_scalar_type(max(len(geo) - 1, 0))
    types = {name: COLUMNS[name].dtype for name in SCALARS} | {
        "offsets": "int64",
        "cell": max(cell_type, np.dtype("uint16")).name,
        "energy": "float32",
    }
    n_cells = 0
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {name: stack.enter_context((folder / name).open("wb")) for name in types}
        files["offsets"].write(np.zeros(1, dtype=np.int64).data)
        for chunk in iterate_sample(path, columns=(*SCALARS, *_CELLS)):
            arrays = dict(chunk.scalars)
            arrays |= {"offsets": n_cells + chunk.offsets[1:], "cell": geo.rows(chunk.cells[_CELLS[0]]), "energy": chunk.cells[_CELLS[1]]}
            for name, array in arrays.items():
                files[name].write(np.ascontiguousarray(array, dtype=types[name]).data)
            n_cells += int(chunk.offsets[-1])
    _join(folder, types)


def _join(folder: Path, types: dict[str, str]) -> None:
    """Put all arrays into one file, so that a sample costs one open file, with an index of (dtype, first byte, length)."""
    index: dict[str, tuple[str, int, int]] = {}
    with (folder / _ARRAYS).open("wb") as whole:
        for name, dtype in types.items():
            whole.write(bytes(-whole.tell() % _ALIGNMENT))
            part = folder / name
            index[name] = (dtype, whole.tell(), part.stat().st_size // np.dtype(dtype).itemsize)
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
            part.unlink()
    (folder / _INDEX).write_text(json.dumps(index), encoding="ascii")


def _open(folder: Path) -> CachedSample:
    index = json.loads((folder / _INDEX).read_text(encoding="ascii"))
    raw = np.memmap(folder / _ARRAYS, dtype=np.uint8, mode="r")
    arrays = {name: raw[start : start + n * np.dtype(dtype).itemsize].view(dtype) for name, (dtype, start, n) in index.items()}
    with np.load(folder / _GEO, allow_pickle=False) as stored:
        geo = CellGeo(**{name.removeprefix(GEO_PREFIX): stored[name] for name in CELL_GEO})
    offsets, cell, energy = (arrays.pop(name) for name in ("offsets", "cell", "energy"))
    return CachedSample(arrays, offsets, cell, energy, geo)
