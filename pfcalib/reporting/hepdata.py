"""The numbers of a study as a submission to HEPData: tables of YAML with values, errors, units."""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pfcalib.cache import new_file

NUMBER = ("value", "error", "unit", "definition")  # columns of results.csv that are no keys
DIGITS = 6  # of values and errors
MAX_NAME = 60  # characters of a table's name; HEPData takes 64

Row = dict[str, str]


def has_hepdata() -> bool:
    """True if hepdata_lib is there: ``pip install 'pfcalib[hepdata]'``."""
    return importlib.util.find_spec("hepdata_lib") is not None


def write_hepdata(table: Path, comment: str, archive: Path) -> None:
    """Write ``submission.tar.gz`` of a results.csv.

    Rows of one quantity with the same keys become a table, with the keys as its independent
    variables; numbers that have no keys share one table. Rows without a value are left out.

    Parameters
    ----------
    table : Path
        A results.csv.
    comment : str
        What HEPData shows as the abstract.
    archive : Path
        The file to be written.
    """
    library = _library()
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["value"]]
    submission = library.Submission()
    submission.comment = comment
    for name, group in _group(rows):
        submission.add_table(_table(library, name, group))
    with new_file(archive) as final, tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder):  # the archive goes where the process stands
            submission.create_files("yaml", validate=False)
        shutil.copyfile(Path(folder) / "submission.tar.gz", final)


def _library() -> Any:
    """hepdata_lib without ROOT, which it loads where it is installed, to read histograms only."""
    without = {} if "ROOT" in sys.modules else {"ROOT": None}
    sys.modules |= without  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what its validator imports
            return importlib.import_module("hepdata_lib")
    finally:
        for name in without:
            del sys.modules[name]


def _group(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows that make a table, and its name."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        keys = tuple(key for key in row if key not in ("quantity", *NUMBER) and row[key])
        kind = (row["quantity"], row["unit"], *keys) if keys else ("single numbers",)
        groups.setdefault(kind, []).append(row)
    taken: set[str] = set()
    for (first, *_), group in groups.items():
        name = first[:MAX_NAME]
        while name in taken:
            name = f"{first[:MAX_NAME]} {len(taken)}"
        taken.add(name)
        yield name, group


def _table(library: Any, name: str, rows: list[Row]) -> Any:
    alone = name == "single numbers"
    same = {row["definition"] for row in rows}
    table = library.Table(name)
    table.location = "results.csv"
    table.description = same.pop() if len(same) == 1 else name
    columns = [key for key in rows[0] if key not in NUMBER and rows[0][key]]
    columns += ["unit"] * alone + ["definition"] * (len(same) > 1)
    for column in columns:
        if column == "quantity" and not alone:
            continue
        values = [_number(row[column]) for row in rows]
        units = "GeV" if column == "energy" else ""
        variable = library.Variable(column, is_binned=False, units=units, values=values)
        table.add_variable(variable)
    measured = library.Variable(
        "value" if alone else rows[0]["quantity"],
        is_independent=False,
        is_binned=False,
        units="" if alone else rows[0]["unit"],
        values=[float(row["value"]) for row in rows],
        zero_uncertainties_warning=False,
    )
    measured.digits = DIGITS
    error = library.Uncertainty("one standard deviation")
    error.values = [float(row["error"]) if row["error"] else None for row in rows]
    measured.add_uncertainty(error)
    table.add_variable(measured)
    return table


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
