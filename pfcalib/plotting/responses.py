"""Distributions of the response, whose tails median and width do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.plotting.style import (
    GREY,
    QUANTITY_LABELS,
    SIMULATION,
    looks_of,
    name_figure,
    styled,
)


@styled
def plot_responses(
    responses: Mapping[str, Mapping[str, ArrayLike]], *, reference: str = "lcw",
    n_columns: int = 3, n_bins: int = 30, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Distributions of the response, one panel a species and energy: the reference as an area, the
    others as points with their statistical errors.

    Parameters
    ----------
    responses : mapping of str to mapping of str to array_like
        ``responses[model][text of the panel]``: calibrated over true energy of each cluster.
    reference : str
        Model whose central 99 % each panel shows.
    n_columns, n_bins : int
        Panels of a row, and bins of each.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_rows, n_columns)
    """
    panels, looks = list(responses[reference]), looks_of(list(responses))
    n_rows = -(-len(panels) // n_columns)
    size = (3.3 * n_columns, 2.6 * n_rows + 0.6)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for ax, name in zip(axes.flat, panels, strict=True):
        base = np.asarray(responses[reference][name], dtype=np.float64)
        low, high = np.quantile(base, [0.005, 0.995]) if base.size else (0.0, 2.0)
        edges = np.linspace(low - 0.02, high + 0.02, n_bins + 1)
        for model, look in looks.items():
            values = np.asarray(responses[model][name], dtype=np.float64)
            count = np.histogram(values, edges)[0]
            unit = max(values.size, 1) * (edges[1] - edges[0])
            if model == reference:
                area = {"color": GREY, "alpha": 0.3, "fill": True, "linewidth": 0.0}
                ax.stairs(count / unit, edges, label=look.label, **area)
                continue
            ax.errorbar(
                0.5 * (edges[1:] + edges[:-1]), count / unit, yerr=np.sqrt(count) / unit,
                color=look.colour, marker=look.marker, markersize=3.0, linewidth=0.8,
                label=look.label,
            )  # fmt: skip
        ax.axvline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0.0, 1.3 * ax.get_ylim()[1]))
        ax.text(0.96, 0.95, name, transform=ax.transAxes, ha="right", va="top", fontsize=9.5)
    figure.supxlabel(QUANTITY_LABELS["median"].removeprefix("median of "), fontsize=12.0)
    figure.supylabel("clusters, density", fontsize=12.0)
    name_figure(figure, axes, sources)
    return np.asarray(axes)
