"""The history of a training: one row an epoch, kept as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import BadFileError


@dataclass(frozen=True)
class History:
    """Columns of equal length by name, one entry an epoch."""

    columns: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> NDArray[np.float64]:
        """A column; empty before the first epoch."""
        return self.columns[name] if self.columns else np.empty(0)

    @property
    def best_epoch(self) -> int:
        """Epoch, from 0, of the lowest validation loss; a loss that is not a number is never the
        best.
        """
        return int(np.argmin(np.nan_to_num(self.column("val_loss"), nan=np.inf, posinf=np.inf)))

    def with_row(self, row: Mapping[str, float]) -> History:
        """History with one epoch more.

        >>> len(History({}).with_row({"val_loss": 0.5}).with_row({"val_loss": 0.4}))
        2
        """
        if self.columns and self.columns.keys() != row.keys():
            raise ValueError(f"row has {', '.join(row)}: expected {', '.join(self.columns)}")
        return History(
            {
                name: np.append(self.columns.get(name, np.empty(0)), float(value))
                for name, value in row.items()
            }
        )

    def write(self, path: Path) -> None:
        """Write as CSV with an epoch column, under a temporary name first; numbers are read back
        exactly.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *self.columns])
        writer.writerows(
            [i, *map(repr, row)]
            for i, row in enumerate(
                zip(*(values.tolist() for values in self.columns.values()), strict=True)
            )
        )
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text.getvalue(), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> History:
        """History from a file of `write`; raises BadFileError where it is broken."""
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        try:
            table = np.array([[float(value) for value in row] for row in rows]).reshape(
                len(rows), len(header)
            )
        except ValueError as error:
            raise BadFileError(f"{path}: not a training history: {error}") from error
        if (
            not rows
            or header[0] != "epoch"
            or "val_loss" not in header
            or not np.array_equal(table[:, 0], np.arange(len(rows)))
        ):
            raise BadFileError(
                f"{path}: expected columns epoch, val_loss, ... and epochs 0, 1, 2, ..."
            )
        return cls({name: table[:, i].copy() for i, name in enumerate(header) if i})
