"""Tables of a calibration in one file that a person can read: JSON of correctionlib, schema version
2.

Each table is a correction of its own with named inputs, in explicit bins, and an input beyond an
axis takes its first or last bin. Any program that knows correctionlib can so evaluate them
(https://cms-nanoaod.github.io/correctionlib).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import BadFileError

SCHEMA_VERSION = 2  # of correctionlib
PROVENANCE = "provenance: "  # what follows it in the description of a file is JSON


class Axis(NamedTuple):
    """One input of a table."""

    name: str
    meaning: str
    edges: NDArray[np.float64]  # rising, (n_bins + 1,)


class StoredTable(NamedTuple):
    """A table of numbers in bins."""

    name: str
    description: str
    axes: tuple[Axis, ...]
    content: NDArray[np.float64]  # one axis an input
    output: str  # meaning of the content


def write_tables(
    path: str | Path,
    tables: Sequence[StoredTable],
    *,
    description: str,
    version: int,
    provenance: Mapping[str, Any],
) -> None:
    """Write tables as a correctionlib `CorrectionSet`; the file appears when it is complete.

    Parameters
    ----------
    path : path-like
    tables : sequence of StoredTable
    description : str
        Of the whole; the provenance is appended.
    version : int
        Of each correction.
    provenance : mapping
        What the tables were made of and how; JSON values.
    """
    path = Path(path)
    head = {
        "schema_version": SCHEMA_VERSION,
        "description": f"{description}\n{PROVENANCE}{json.dumps(provenance, sort_keys=True)}",
    }
    corrections = ",\n".join(_correction(table, version) for table in tables)
    text = json.dumps(head, indent=1)[:-2] + f',\n "corrections": [\n{corrections}\n ]\n}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _correction(table: StoredTable, version: int) -> str:
    """One correction; edges of an axis, and the content along the last axis, stand on a line
    each.
    """
    inputs = [
        {"name": axis.name, "type": "real", "description": axis.meaning} for axis in table.axes
    ]
    head = {
        "name": table.name,
        "description": table.description,
        "version": version,
        "inputs": inputs,
    }
    head |= {"output": {"name": "value", "type": "real", "description": table.output}}
    edges = ",\n".join(f"    {json.dumps(axis.edges.tolist())}" for axis in table.axes)
    rows = ",\n".join(
        "    " + json.dumps(row.tolist())[1:-1]
        for row in table.content.reshape(-1, table.content.shape[-1])
    )
    names = json.dumps([axis.name for axis in table.axes])
    data = f'{{\n   "nodetype": "multibinning",\n   "inputs": {names},\n   "edges": [\n{edges}\n   ],\n'
    data += f'   "content": [\n{rows}\n   ],\n   "flow": "clamp"\n  }}'
    return (
        "  " + json.dumps(head, indent=1).replace("\n", "\n  ")[:-4] + f',\n   "data": {data}\n  }}'
    )


def read_tables(path: str | Path, *, version: int) -> tuple[dict[str, StoredTable], dict[str, Any]]:
    """Tables by name, and provenance, of a file of `write_tables`.

    Raises
    ------
    BadFileError
        If the file is missing or broken, of another version, or a table has edges that do not rise
        or values that are missing or not finite; file and table are named.
    """
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        if stored["schema_version"] != SCHEMA_VERSION:
            raise BadFileError(
                f"{path}: schema_version {stored['schema_version']}, expected {SCHEMA_VERSION} of "
                "correctionlib"
            )
        provenance = json.loads(stored["description"].partition(PROVENANCE)[2])
        tables = {
            correction["name"]: _table(path, correction, version)
            for correction in stored["corrections"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise BadFileError(f"{path}: not a file of calibration tables: {what}") from error
    return tables, provenance


def _table(path: str | Path, correction: Mapping[str, Any], version: int) -> StoredTable:
    name, data = correction["name"], correction["data"]
    if correction["version"] != version:
        raise BadFileError(
            f"{path}: {name} has version {correction['version']}, expected {version}: derive the "
            "tables anew"
        )
    if (
        data["nodetype"] != "multibinning"
        or data["flow"] != "clamp"
        or data["inputs"] != [entry["name"] for entry in correction["inputs"]]
    ):
        raise BadFileError(f"{path}: {name} is not one table in all of its inputs that clamps")
    edges = [np.asarray(axis, dtype=np.float64) for axis in data["edges"]]
    if not all(axis.ndim == 1 and len(axis) > 1 and np.all(np.diff(axis) > 0.0) for axis in edges):
        raise BadFileError(f"{path}: {name} has an axis whose edges do not rise")
    content, shape = (
        np.asarray(data["content"], dtype=np.float64),
        tuple(len(axis) - 1 for axis in edges),
    )
    if content.shape != (np.prod(shape),) or not np.isfinite(content).all():
        raise BadFileError(f"{path}: {name} should hold {np.prod(shape)} finite values, one a bin")
    axes = tuple(
        Axis(entry["name"], entry["description"], axis)
        for entry, axis in zip(correction["inputs"], edges, strict=True)
    )
    return StoredTable(
        name,
        correction["description"],
        axes,
        content.reshape(shape),
        correction["output"]["description"],
    )
