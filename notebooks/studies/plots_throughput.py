"""Figures of the speed and the memory of training feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from pfcalib.plotting.style import (
    CHARGED,
    COLOURS,
    GREY,
    SIMULATION,
    log_ticks,
    name_source,
    styled,
)


class Series(NamedTuple):
    """Points of one feed."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    error: NDArray[np.float64] | None = None
    colour: str = COLOURS[0]
    dashed: bool = False  # open points on a dashed line


@styled
def plot_series(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    ticks: Sequence[float] | None = None,
    log_y: bool = False,
    level: float | None = None,
    level_label: str | None = None,
) -> Axes:
    """Points joined by lines, against a size on a logarithmic axis or against a few given values.

    Parameters
    ----------
    series : sequence of Series
    x_label, y_label : str
        With units.
    ticks : sequence of float, optional
        Values of x, drawn at equal distances, such as numbers of workers; without them the axis is
        logarithmic.
    log_y : bool
    level, level_label : float, str, optional
        Height of a dotted line, such as a goal, and its entry in the legend.
    """
    _, ax = plt.subplots(figsize=(5.8, 4.4))
    for one in series:
        x = one.x if ticks is None else np.searchsorted(ticks, one.x)
        style = {
            "marker": "o",
            "linestyle": "--" if one.dashed else "-",
            "mfc": "white" if one.dashed else one.colour,
        }
        ax.errorbar(
            x, one.y, yerr=one.error, color=one.colour, label=one.label, elinewidth=1.0, **style
        )  # type: ignore[arg-type]
    if level is not None:
        ax.axhline(level, color=GREY, linestyle=":", linewidth=1.0, label=level_label)
    if ticks is None:
        log_ticks(ax, decades=True)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.set_xlim(
            min(one.x.min() for one in series) / 1.5, max(one.x.max() for one in series) * 1.5
        )
    else:
        ax.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.set_xlim(-0.4, len(ticks) - 0.6)
    if log_y:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0.0)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    name_source(ax, SIMULATION)
    return ax


@styled
def plot_rates(
    rates: Mapping[str, tuple[float, float]], *, x_label: str, level: float, level_label: str
) -> Axes:
    """One bar for each feed, with its error.

    Parameters
    ----------
    rates : mapping of str to (float, float)
        Rate and error by label.
    x_label : str
    level, level_label : float, str
        Where the dotted line stands, and its entry in the legend.
    """
    _, ax = plt.subplots(figsize=(5.8, 1.6 + 0.5 * len(rates)))
    values, errors = np.array(list(rates.values()), dtype=np.float64).T
    ax.barh(
        range(len(rates)),
        values,
        xerr=np.nan_to_num(errors),
        color=CHARGED,
        height=0.6,
        error_kw={"elinewidth": 1.0},
    )
    for place, (value, error) in enumerate(zip(values, np.nan_to_num(errors), strict=True)):
        ax.annotate(
            f"{value:,.0f}",
            (value + error, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10.0,
        )
    ax.set_yticks(range(len(rates)), list(rates))
    ax.yaxis.set_minor_locator(plt.NullLocator())
    ax.tick_params(axis="y", length=0)
    ax.axvline(level, color=GREY, linestyle=":", label=level_label)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=x_label, xlim=(0.0, 1.25 * max(level, values.max())))
    ax.invert_yaxis()
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center")
    name_source(ax, SIMULATION)
    return ax
