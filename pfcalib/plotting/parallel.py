"""Parallel coordinates: what many settings lead to, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from pfcalib.plotting.style import GREY, SIMULATION, name_source, styled

WORDS = 24  # characters of a name in a line


@styled
def plot_parallel_coordinates(
    columns: Mapping[str, Sequence[Any]], *, source: str = SIMULATION
) -> Axes:
    """Each column as an upright axis with a scale of its own, each row as a line through all of
    them, coloured by the last column.

    Numbers are spread evenly from their least to their greatest; anything else is put at even
    distances in the order of appearance. Rows in which a value is missing (None) are left out.

    Parameters
    ----------
    columns : mapping of str to sequence
        Values by name, all of the same length.
    source : str
        What the numbers come from.
    """
    n_rows = len(next(iter(columns.values())))
    complete = [
        row for row in range(n_rows) if all(column[row] is not None for column in columns.values())
    ]
    scaled, ticks = [], []  # where the rows cross each axis, from 0 to 1; what stands there
    for column in columns.values():
        values = [column[row] for row in complete]
        marks: dict[float, str]
        if all(isinstance(value, int | float) for value in values):
            distinct = sorted(set(values))
            few = distinct if len(distinct) <= 6 else np.linspace(distinct[0], distinct[-1], 5)
            marks = {float(value): f"{value:.4g}" for value in few}
        else:
            names = list(dict.fromkeys(map(str, values)))
            values = [float(names.index(str(value))) for value in values]
            marks = {float(place): name for place, name in enumerate(names)}
        low, high = min(values, default=0.0), max(values, default=1.0)
        width, shift = (high - low, 0.0) if high > low else (1.0, 0.5)
        scaled.append([(value - low) / width + shift for value in values])
        ticks.append({(at - low) / width + shift: text for at, text in marks.items()})
    _, ax = plt.subplots(figsize=(max(5.6, 1.5 * len(columns)), 4.2))
    places = range(len(columns))
    for line in zip(*scaled, strict=True):
        ax.plot(places, line, color=plt.get_cmap("cividis")(line[-1]), alpha=0.8, marker="o")
    for place, texts in zip(places, ticks, strict=True):
        ax.axvline(place, color=GREY, linewidth=0.8, zorder=0)
        for at, text in texts.items():
            ax.annotate(
                text, (place, at), (4, 3), textcoords="offset points", fontsize=8.5,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 0.5},
            )  # fmt: skip
    ax.set_xticks(
        places, [_in_lines(name) for name in columns], fontsize=9, rotation=20, ha="right"
    )
    ax.set_yticks([])
    ax.minorticks_off()
    ax.set_xlim(-0.2, len(columns) - 0.4)
    ax.spines[["top", "left", "right", "bottom"]].set_visible(False)
    name_source(ax, source)
    return ax


def _in_lines(name: str) -> str:
    """A name with underscores as spaces, broken after WORDS characters."""
    lines = [""]
    for word in name.split("_"):
        if len(lines[-1]) + len(word) > WORDS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
