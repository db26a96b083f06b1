"""The style that all figures share, and the figures that several studies draw: curves against a
binned variable, and distributions.

A plot function takes arrays and results, draws, and returns the Axes; it computes nothing that a
study would quote. Every figure names its source, ``SIMULATION`` or ``GEANT4``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

SIMULATION = "pfcalib simulation"
GEANT4 = "Geant4 (synthetic tables)"
# of the set by Okabe and Ito, told apart by all readers
NEUTRAL, CHARGED, GREY = "#d55e00", "#0072b2", "#555555"
COLOURS = (NEUTRAL, CHARGED, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLE: dict[Any, Any] = {
    **mplhep.style.ROOT,
    **{
        "font.size": 11.0,
        "axes.labelsize": 12.0,
        "xtick.labelsize": 10.5,
        "ytick.labelsize": 10.5,
        "legend.fontsize": 10.0,
    },
    **{
        "figure.figsize": (5.6, 4.2),
        "figure.dpi": 80,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
        "axes.linewidth": 1.0,
    },
    **{
        "xtick.major.size": 6,
        "xtick.minor.size": 3,
        "ytick.major.size": 6,
        "ytick.minor.size": 3,
        "axes.autolimit_mode": "data",
    },
    **{
        "xtick.major.pad": 5,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "axes.ymargin": 0.08,
        "axes.labelpad": 4,
    },
    **{"xtick.minor.top": True, "figure.constrained_layout.use": True, "axes.titlesize": 11.0},
}

P = ParamSpec("P")
T = TypeVar("T")


class Curve(NamedTuple):
    """A quantity in bins of another one."""

    label: str
    edges: NDArray[np.float64]  # (n_bins + 1,)
    value: NDArray[np.float64]  # (n_bins,), NaN where nothing is known
    error: NDArray[np.float64] | None = None  # (n_bins,)
    colour: str = NEUTRAL
    reference: bool = False  # drawn as open points, what it is compared with as filled ones

    @property
    def centres(self) -> NDArray[np.float64]:
        """Geometric centres of the bins, or the arithmetic ones where an edge is not positive,
        shape (n_bins,).
        """
        low, high = self.edges[:-1], self.edges[1:]
        return np.asarray(np.sqrt(low * high) if np.all(self.edges > 0.0) else 0.5 * (low + high))


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """Have a plot function draw in the shared style, and leave that of the caller alone."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        _load_backend()
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapped


@functools.cache
def _load_backend() -> None:
    """Have the backend set itself up outside of any context, whose end would undo it: a notebook
    would show its first figure only.
    """
    plt.close(plt.figure())


def name_source(ax: Axes, *sources: str) -> None:
    """Write above the axes where the data come from."""
    ax.set_title(" / ".join(sources or (SIMULATION,)), loc="left", style="italic", fontsize=10.5)


def log_ticks(ax: Axes, *, decades: bool = False) -> None:
    """A logarithmic x axis whose labels are plain numbers (1, 2, 5, 10, ... or the decades
    only).
    """
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def draw_curve(
    ax: Axes, curve: Curve, *, band: NDArray[np.float64] | None = None, line: bool = False
) -> None:
    """Points with errors over the width of their bins; with a band of half width `band` around
    them.

    Parameters
    ----------
    ax : Axes
    curve : Curve
    band : ndarray, shape (n_bins,), optional
        Half width of a shaded band, such as a tolerance.
    line : bool
        Join the points.
    """
    x = curve.centres
    x_error = np.abs(np.stack([x - curve.edges[:-1], curve.edges[1:] - x]))
    style: dict[str, Any] = {
        "marker": "o",
        "mfc": "white" if curve.reference else curve.colour,
        "linestyle": "-" if line else "none",
    }
    ax.errorbar(
        x,
        curve.value,
        yerr=curve.error,
        xerr=x_error,
        color=curve.colour,
        elinewidth=1.0,
        label=curve.label,
        **style,
    )
    if band is not None:
        low, high = (
            np.append(curve.value + sign * band, (curve.value + sign * band)[-1])
            for sign in (-1.0, 1.0)
        )
        ax.fill_between(
            curve.edges, low, high, step="post", color=curve.colour, alpha=0.15, linewidth=0.0
        )


@styled
def plot_curves(
    curves: Sequence[Curve], *, x_label: str, y_label: str, sources: Sequence[str] = (SIMULATION,), log_y: bool = False,
    level: float | None = None, level_label: str | None = None, y_limits: tuple[float, float] | None = None, line: bool = False,
    decades: bool = False,
) -> Axes:  # fmt: skip
    """Curves against a variable on a logarithmic axis.

    Parameters
    ----------
    curves : sequence of Curve
    x_label, y_label : str
        With units.
    sources : sequence of str
        Of the data.
    log_y : bool
    level, level_label : float, str, optional
        Height of a dotted line, such as 1 or an expectation, and its entry in the legend.
    y_limits : (float, float), optional
    line : bool
        Join the points of a curve.
    decades : bool
        Label decades only.
    """
    _, ax = plt.subplots()
    for curve in curves:
        draw_curve(ax, curve, line=line)
    if level is not None:
        ax.axhline(level, color=GREY, linestyle=":", linewidth=1.0, label=level_label)
    log_ticks(ax, decades=decades)
    if log_y:
        ax.set_yscale("log")
    if y_limits is not None:
        ax.set_ylim(*y_limits)
    ax.set(
        xlabel=x_label,
        ylabel=y_label,
        xlim=(min(c.edges[0] for c in curves), max(c.edges[-1] for c in curves)),
    )
    ax.legend()
    name_source(ax, *sources)
    return ax


@styled
def plot_ratio_curves(
    pairs: Sequence[tuple[Curve, Curve]], *, x_label: str, y_label: str, limits: Sequence[float], ratio_label: str = "fast / Geant4",
    sources: Sequence[str] = (SIMULATION, GEANT4),
) -> NDArray[Any]:  # fmt: skip
    """Curves and their references, and below them the ratios with the tolerated band.

    Parameters
    ----------
    pairs : sequence of (Curve, Curve)
        Curve and reference in the same bins.
    x_label, y_label, ratio_label : str
    limits : sequence of float
        Half width of the tolerated band of each pair; the same ones are drawn once.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (2,)
    """
    _, axes = plt.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0), figsize=(5.6, 5.2))
    for (curve, reference), limit in zip(pairs, limits, strict=True):
        draw_curve(axes[0], reference._replace(reference=True))
        draw_curve(axes[0], curve)
        ratio = curve.value / reference.value
        variance = sum((c.error / c.value) ** 2 for c in (curve, reference) if c.error is not None)
        draw_curve(
            axes[1],
            curve._replace(
                value=ratio,
                error=np.abs(ratio) * np.sqrt(variance),
                label=f"within {100 * limit:g} %",
            ),
        )
        axes[1].axhspan(1.0 - limit, 1.0 + limit, color=curve.colour, alpha=0.12, linewidth=0.0)
    axes[1].axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
    log_ticks(axes[1])
    spread = 1.35 * max(limits)
    axes[1].set(
        xlabel=x_label, ylabel=ratio_label, xlim=(pairs[0][0].edges[0], pairs[0][0].edges[-1])
    )
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(min(low, 1.0 - spread), max(high, 1.0 + spread))
    axes[0].set_ylabel(y_label)
    axes[0].legend(ncols=len(pairs))
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.22 * (high - low))  # room for the legend
    name_source(axes[0], *sources)
    return np.asarray(axes)


@styled
def plot_curve_grid(
    panels: Mapping[str, Sequence[tuple[Curve, Curve]]], *, x_label: str, y_label: str, tolerance: float, absolute: bool = False,
    n_columns: int = 4, sources: Sequence[str] = (SIMULATION, GEANT4),
) -> NDArray[Any]:  # fmt: skip
    """One panel for each name: curves on top of their references, which carry a band of the
    tolerated difference.

    Parameters
    ----------
    panels : mapping of str to sequence of (Curve, Curve)
        Curve and reference; the name is written into the panel.
    x_label, y_label : str
    tolerance : float
        Half width of the band: relative, or absolute if so.
    absolute : bool
    n_columns : int
    sources : sequence of str

    Returns
    -------
    ndarray of Axes
        Those of the panels in their order.
    """
    n_rows = -(-len(panels) // n_columns)
    figure, grid = plt.subplots(
        n_rows, n_columns, sharex=True, figsize=(2.6 * n_columns, 2.2 * n_rows + 0.8), squeeze=False
    )
    axes, spare = grid.flat[: len(panels)], grid.flat[len(panels) :]
    for i, (ax, (name, pairs)) in enumerate(zip(axes, panels.items(), strict=True)):
        for curve, reference in pairs:
            band = (
                np.full(reference.value.shape, tolerance)
                if absolute
                else tolerance * np.abs(reference.value)
            )
            draw_curve(ax, reference._replace(reference=True), band=band)
            draw_curve(ax, curve)
        ax.text(0.96, 0.94, name, transform=ax.transAxes, ha="right", va="top")
        log_ticks(ax, decades=True)
        ax.tick_params(labelbottom=i + n_columns >= len(panels))
        low, high = ax.get_ylim()
        lowest = min(np.nanmin(np.append(c.value, np.inf)) for pair in pairs for c in pair)
        ax.set_ylim(max(low, 0.0) if lowest > -1e-3 else low, high + 0.18 * (high - low))
    for ax in spare:
        ax.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    if len(spare):
        spare[-1].legend(handles, labels, loc="center")
    else:
        figure.legend(handles, labels, loc="outside lower right", ncols=len(labels))
    figure.supxlabel(x_label, fontsize=12.0)
    figure.supylabel(y_label, fontsize=12.0)
    figure.suptitle(" / ".join(sources), x=0.01, ha="left", style="italic", fontsize=10.5)
    return np.asarray(list(axes))


@styled
def plot_distributions(
    values: Mapping[str, ArrayLike], *, edges: ArrayLike, x_label: str, colours: Sequence[str] = COLOURS, sources: Sequence[str] = (SIMULATION,),
    title: str = "", log_x: bool = False, log_y: bool = False,
) -> Axes:  # fmt: skip
    """Distributions on top of each other, each as its share a bin of all its entries, those outside
    included.

    Parameters
    ----------
    values : mapping of str to array_like
        By label; the values may be of different numbers.
    edges : array_like, shape (n_bins + 1,)
    x_label : str
    colours, sources : sequence of str
    title : str
        Of the legend.
    log_x, log_y : bool
    """
    _, ax = plt.subplots()
    draw_distributions(ax, values, edges=edges, colours=colours)
    if log_x:
        log_ticks(ax, decades=True)
    if log_y:
        ax.set_yscale("log")
    ax.set(xlabel=x_label, ylabel="share a bin")
    ax.legend(title=title or None, alignment="left")
    name_source(ax, *sources)
    return ax


def draw_distributions(
    ax: Axes, values: Mapping[str, ArrayLike], *, edges: ArrayLike, colours: Sequence[str] = COLOURS
) -> None:
    """Steps of the share of the entries in each bin; every second distribution of a pair of equal
    colours is dashed.
    """
    drawn: list[str] = []
    highest = 0.0
    for (label, entries), colour in zip(values.items(), colours, strict=False):
        array, bins = np.asarray(entries, dtype=np.float64), np.asarray(edges, dtype=np.float64)
        counts = np.histogram(array[np.isfinite(array)], bins)[0] / max(array.size, 1)
        ax.stairs(
            counts,
            bins,
            color=colour,
            label=label,
            linewidth=1.5,
            linestyle="--" if colour in drawn else "-",
            fill=False,
        )
        drawn.append(colour)
        highest = max(highest, float(counts.max()))
    ax.set_xlim(bins[0], bins[-1])
    ax.set_ylim(0.0, 1.12 * highest or 1.0)
