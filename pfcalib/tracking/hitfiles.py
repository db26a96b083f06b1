"""Hits that users own: events of TrackML, and tables of hits in ROOT, CSV or a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import BadFileError
from pfcalib.samples.rootfile import read_flat
from pfcalib.tracking.barrelhits import NOISE, Hits

POSITION = ("x", "y", "z")  # mm
HITS, TRUTH = "-hits.csv", "-truth.csv"  # what follows the name of an event of TrackML


def read_trackml(event: str | Path) -> Hits:
    """Hits of one event of TrackML (arXiv:1904.06778) with their particles, if these are known.

    Parameters
    ----------
    event : path
        What the names of the files begin with, such as ``train_1/event000001000``: of
        ``<event>-hits.csv`` and, where it is, ``<event>-truth.csv``.

    Returns
    -------
    Hits
        Layers are numbered from 0 in the order of volume and layer, particles in that of their
        numbers; without truth all hits are noise.

    Raises
    ------
    BadFileError
        If a file or a column is missing, or truth and hits are not of the same event.
    """
    path = Path(f"{event}{HITS}")
    columns = _read_csv(path, ("hit_id", *POSITION, "volume_id", "layer_id"))
    layer = columns["volume_id"] * 1000 + columns["layer_id"]
    _, layer = np.unique(layer, return_inverse=True)
    particle = np.zeros(len(layer), np.int64)
    truth = Path(f"{event}{TRUTH}")
    if truth.exists():
        # particle numbers do not fit into a float
        known = _read_csv(truth, ("hit_id", "particle_id"), dtype=np.int64)
        order, place = np.argsort(known["hit_id"]), columns["hit_id"].astype(np.int64)
        at = np.searchsorted(known["hit_id"][order], place)
        at = order[np.minimum(at, len(order) - 1)] if len(order) else at
        if not len(order) or not np.array_equal(known["hit_id"][at], place):
            raise BadFileError(f"{truth}: expected one row for each hit of {path.name}")
        particle = known["particle_id"][at]
    return _hits(columns, layer, particle)


def read_hits(
    source: str | Path | Mapping[str, Any], *, tree: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Hits:  # fmt: skip
    """Hits of one event from a table with a row a hit.

    Parameters
    ----------
    source : path or mapping
        A ROOT file with a tree of numbers, a CSV file with a line of names, or columns by name,
        such as a data frame of pandas.
    tree : str, optional
        Of the ROOT file, if it holds several.
    names : mapping, optional
        What the columns x, y, z [mm], layer and particle are called there; particle may be missing,
        and what is not above 0 in it is noise.

    Raises
    ------
    BadFileError
        If the file is not readable, or a column is missing or not a number for each hit.
    """
    called = {**{name: name for name in (*POSITION, "layer", "particle")}, **(names or {})}
    wanted = tuple(called.values())
    where = "columns" if isinstance(source, Mapping) or hasattr(source, "columns") else str(source)
    found: Mapping[str, Any]
    if where == "columns":
        found = {name: source[name] for name in wanted if name in source}  # type: ignore[index,operator]
    elif where.endswith(".root"):
        found = read_flat(where, wanted, tree=tree)
    else:
        found = _read_csv(Path(where), tuple(called[name] for name in (*POSITION, "layer")), wanted)
    columns = {}
    for name, key in called.items():
        if key in found:
            columns[name] = np.asarray(found[key])
        elif name != "particle":
            raise BadFileError(f"{where}: no column {key!r}; it has {', '.join(map(str, found))}")
    for name, column in columns.items():
        if column.ndim != 1 or column.dtype.kind not in "iuf" or len(column) != len(columns["x"]):
            raise BadFileError(
                f"{where}: column {called[name]!r} must hold one number for each hit"
            )
    _, layer = np.unique(columns["layer"], return_inverse=True)
    return _hits(columns, layer, columns.get("particle", np.zeros(len(layer), np.int64)))


def _hits(
    columns: Mapping[str, NDArray[Any]], layer: NDArray[np.int64], particle: NDArray[Any]
) -> Hits:
    position = np.stack([columns[name] for name in POSITION], axis=-1).astype(np.float32)
    names = np.unique(particle[particle > 0])
    number = np.where(particle > 0, np.searchsorted(names, particle), NOISE)
    return Hits(position, layer.astype(np.int8), number.astype(np.int32))


def _read_csv(
    path: Path, wanted: tuple[str, ...], also: tuple[str, ...] = (), *, dtype: Any = np.float64
) -> dict[str, NDArray[Any]]:
    """Columns of a CSV file: those wanted, and further ones where they are."""
    try:
        with path.open(encoding="utf-8") as file:
            names = [name.strip() for name in file.readline().split(",")]
            missing = [name for name in wanted if name not in names]
            if missing:
                raise BadFileError(f"{path}: no column {missing[0]!r}; it has {', '.join(names)}")
            chosen = [name for name in dict.fromkeys((*wanted, *also)) if name in names]
            places = [names.index(name) for name in chosen]
            rows = np.loadtxt(file, delimiter=",", usecols=places, ndmin=2, dtype=dtype)
    except (OSError, ValueError) as error:
        raise BadFileError(f"{path}: not a table of numbers ({error})") from error
    return {name: rows[:, i] for i, name in enumerate(chosen)}
