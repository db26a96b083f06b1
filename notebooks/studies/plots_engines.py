"""Figures that set Geant4 beside the parametrised showers: where the energy goes, and electrons
against their resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.plotting.style import STYLE, log_ticks, styled

BUDGET_LABELS = {  # parts of `studies.engines.BUDGET`, from below
    "em": "electromagnetic",
    "non_em": "ionisation by hadrons",
    "invisible": "nuclear binding",
    "escaped": "neutrinos",
    "dead": "dead material",
    "leak": "leakage",
}
BUDGET_COLOURS = ("#d55e00", "#0072b2", "#56b4e9", "#f0e442", "#999999", "#dddddd")


@styled
def plot_budgets(
    budgets: Mapping[str, Mapping[str, ArrayLike]],
    edges: Sequence[float],
    *,
    sources: Sequence[str],
    n_columns: int = 2,
) -> NDArray[np.object_]:
    """Mean shares of the true energy in bins of it, on top of each other; one panel a sample.

    Parameters
    ----------
    budgets : mapping of str to mapping of str to array_like, shape (n_bins,)
        For each panel, by its title, the shares of BUDGET_LABELS; NaN leaves a bin empty.
    edges : sequence of float, GeV
        Of the bins.
    sources : sequence of str
    n_columns : int

    Returns
    -------
    ndarray of Axes
    """
    n_rows = -(-len(budgets) // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        sharex=True,
        sharey=True,
        figsize=(3.6 * n_columns, 2.7 * n_rows + 0.9),
        squeeze=False,
    )
    for ax, (title, shares) in zip(grid.flat, budgets.items(), strict=True):
        below = np.zeros(len(edges) - 1)
        for (name, label), colour in zip(BUDGET_LABELS.items(), BUDGET_COLOURS, strict=True):
            above = below + np.asarray(shares[name], dtype=np.float64)
            ax.stairs(above, edges, baseline=below, fill=True, color=colour, label=label)
            below = above
        ax.text(
            0.04,
            0.06,
            title,
            transform=ax.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        log_ticks(ax)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0.0, 1.02))
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    figure.supxlabel(r"$E_\mathrm{true}$ [GeV]", fontsize=STYLE["axes.labelsize"])
    figure.supylabel(r"mean share of $E_\mathrm{true}$", fontsize=STYLE["axes.labelsize"])
    figure.suptitle(" / ".join(sources), x=0.01, ha="left", style="italic", fontsize=10.5)
    return np.asarray(list(grid.flat))
