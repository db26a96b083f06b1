"""Figures of calibrations in combination and on other samples: the cut between two regressors, and
a table of ratios to LCW.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.curve import Estimate
from pfcalib.plotting.style import (
    CHARGED,
    GREY,
    NEUTRAL,
    SIMULATION,
    SPECIES_LABELS,
    looks_of,
    name_source,
    styled,
)

OUTCOMES = {  # name: (label, colour, line style)
    "em_as_em": (r"$\pi^0$ as $\pi^0$", NEUTRAL, "-"),
    "em_as_had": (r"$\pi^0$ as $\pi^\pm$", NEUTRAL, "--"),
    "had_as_had": (r"$\pi^\pm$ as $\pi^\pm$", CHARGED, "-"),
    "had_as_em": (r"$\pi^\pm$ as $\pi^0$", CHARGED, "--"),
    "accuracy": ("right in all", "#000000", "-"),
}


@styled
def plot_confusion_scan(
    cuts: ArrayLike, rates: Mapping[str, ArrayLike], *, quality: Mapping[str, Sequence[Estimate]] | None = None,
    quality_label: str = "IQR / (2 median)", chosen: float | None = None, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Rates of the outcomes of a cut on p_em, and beside it what the calibration gains from the
    cut.

    Parameters
    ----------
    cuts : array_like, shape (n_cuts,)
    rates : mapping of str to array_like, shape (n_cuts,)
        Of those in OUTCOMES: shares of the neutral (``em_``) or charged (``had_``) clusters, or of
        all (``accuracy``).
    quality : mapping of str to sequence of Estimate, optional
        Figures of merit by what they are of, such as a species, one a cut.
    quality_label : str
    chosen : float, optional
        Cut that is marked.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (1,) or (2,)
    """
    n_panels = 1 if quality is None else 2
    _, axes = plt.subplots(1, n_panels, squeeze=False, figsize=(4.8 * n_panels, 4.2))
    for name, values in rates.items():
        label, colour, line = OUTCOMES[name]
        axes[0, 0].plot(cuts, values, color=colour, linestyle=line, label=label)
    axes[0, 0].set(ylabel="share of the clusters", ylim=(0.0, 1.4))
    axes[0, 0].legend(loc="upper center", ncols=2)
    looks = looks_of(list(quality or {}))
    colours = {"pi0": NEUTRAL, "pic": CHARGED, "mixed": "#000000"}
    for name, estimates in (quality or {}).items():
        value, error = np.array(estimates, dtype=np.float64).T
        label = SPECIES_LABELS.get(name, looks[name].label)
        axes[0, 1].errorbar(
            cuts,
            value,
            yerr=error,
            color=colours.get(name, looks[name].colour),
            marker=looks[name].marker,
            label=label,
        )
    if quality is not None:
        axes[0, 1].set_ylabel(quality_label)
        axes[0, 1].margins(y=0.2)
        axes[0, 1].legend(loc="best")
    for ax in axes[0]:
        if chosen is not None:
            ax.axvline(chosen, color=GREY, linestyle=":", linewidth=1.0)
        ax.set(xlabel=r"cut on $p_\mathrm{EM}$", xlim=(0.0, 1.0))
    name_source(axes[0, 0], *sources)
    return np.asarray(axes[0])


@styled
def plot_ratio_matrix(
    ratios: Mapping[str, Sequence[Estimate | float]], columns: Sequence[tuple[str, str, str]], *, label: str = "IQR / IQR of LCW on the sample",
    spread: float = 0.5, sources: Sequence[str] = (SIMULATION,),
) -> Axes:  # fmt: skip
    """A table of ratios in colour: rows are trainings, columns samples, species and energies; blue
    below 1, red above.

    Parameters
    ----------
    ratios : mapping of str to sequence of Estimate or float
        By the name of the training, one a column; NaN where nothing is known.
    columns : sequence of (str, str, str)
        Sample, species and energy of each column, equal samples and species side by side.
    label : str
        Of the colours.
    spread : float
        Distance from 1 at which the colours end.
    sources : sequence of str
    """
    value = np.array(
        [
            [cell.value if isinstance(cell, Estimate) else cell for cell in row]
            for row in ratios.values()
        ],
        dtype=np.float64,
    )
    if value.shape != (len(ratios), len(columns)):
        raise ValueError(
            f"ratios of shape {value.shape}: expected one a column, {(len(ratios), len(columns))}"
        )
    figure, ax = plt.subplots(figsize=(2.6 + 0.5 * len(columns), 1.9 + 0.38 * len(ratios)))
    drawn = ax.imshow(
        value, cmap="RdBu_r", norm=TwoSlopeNorm(1.0, 1.0 - spread, 1.0 + spread), aspect="auto"
    )
    for (row, column), ratio in np.ndenumerate(value):
        colour = "white" if abs(ratio - 1.0) > 0.72 * spread else "black"
        ax.text(
            column,
            row,
            f"{ratio:.2f}" if np.isfinite(ratio) else "–",
            ha="center",
            va="center",
            color=colour,
            fontsize=9.0,
        )
    ax.set_yticks(np.arange(len(ratios)), list(ratios))
    ax.set_xticks(
        np.arange(len(columns)), [energy for _, _, energy in columns], rotation=90, fontsize=9.0
    )
    ax.tick_params(which="both", length=0, labeltop=False)
    ax.minorticks_off()
    _name_groups(ax, columns)
    figure.colorbar(drawn, ax=ax, label=label, pad=0.01, extend="both", fraction=0.04)
    figure.suptitle(" / ".join(sources), x=0.01, ha="left", style="italic", fontsize=10.5)
    return ax


def _name_groups(ax: Axes, columns: Sequence[tuple[str, str, str]]) -> None:
    """Names of samples and species above the columns that belong to them, with lines between the
    groups.
    """
    for depth, height, width in ((1, 1.02, 0.8), (2, 1.02, 0.0)):
        start = 0
        for key, group in itertools.groupby(columns, key=lambda column: column[:depth]):
            end = start + len(list(group))
            if start:
                ax.axvline(start - 0.5, color="white", linewidth=1.5 + 2.5 * width)
            middle = 0.5 * (start + end) / len(columns)
            name = (
                SPECIES_LABELS.get(key[-1], key[-1]).removesuffix(" clusters")
                if depth == 2
                else key[0]
            )
            offset = (0, 16) if depth == 1 else (0, 0)
            ax.annotate(
                name,
                (middle, height),
                xycoords="axes fraction",
                xytext=offset,
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
            start = end
