"""Figures that several studies draw: curves with their references, calibrations and classifiers
against a variable, ROC curves, distributions and trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import ResponseCurves
from pfcalib.metrics.roc import roc_curve
from pfcalib.plotting.style import (
    COLOURS,
    ENERGY_LABEL,
    GEANT4,
    GREY,
    NEUTRAL,
    QUANTITY_LABELS,
    SIMULATION,
    SPECIES_LABELS,
    Look,
    log_ticks,
    looks_of,
    name_figure,
    name_source,
    styled,
)

SOURCES = (SIMULATION, GEANT4)
Pair = tuple[Curve, Curve]  # a curve and its reference


def draw_curve(
    ax: Axes, curve: Curve, *, label: str, colour: str, hollow: bool = False,
    band: NDArray[np.float64] | None = None,
) -> None:  # fmt: skip
    """Points, hollow ones for a reference, with errors over the width of their bins; with a shaded
    band of a half width, shape (n_bins,), around them.
    """
    x = curve.centres
    ax.errorbar(
        x, curve.value, yerr=curve.error, xerr=(x - curve.edges[:-1], curve.edges[1:] - x),
        color=colour, elinewidth=1.0, label=label, marker="o", linestyle="none",
        mfc="white" if hollow else colour,
    )  # fmt: skip
    if band is not None:
        low, high = (np.append(y, y[-1]) for y in (curve.value - band, curve.value + band))
        ax.fill_between(
            curve.edges, low, high, step="post", color=colour, alpha=0.15, linewidth=0.0
        )


@styled
def plot_ratio_curves(
    pairs: Mapping[str, Pair], *, x_label: str, y_label: str, limits: Sequence[float],
    names: tuple[str, str] = ("fast", "Geant4"), colours: Sequence[str] = COLOURS,
    sources: Sequence[str] = SOURCES,
) -> NDArray[Any]:  # fmt: skip
    """Curves and their references, and below them the ratios with the tolerated band.

    Parameters
    ----------
    pairs : mapping of str to (Curve, Curve)
        By label, such as a species: curve and reference in the same bins.
    x_label, y_label : str
    limits : sequence of float
        Half width of the tolerated band of each pair.
    names : (str, str)
        Of the curves and of the references.
    colours, sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (2,)
    """
    _, (upper, lower) = plt.subplots(2, sharex=True, height_ratios=(2.2, 1.0), figsize=(5.6, 5.2))
    for (label, pair), limit, colour in zip(pairs.items(), limits, colours, strict=False):
        _draw_pair(upper, pair, label, names, colour)
        draw_curve(lower, pair[0].ratio(pair[1]), label=label, colour=colour)
        lower.axhspan(1.0 - limit, 1.0 + limit, color=colour, alpha=0.12, linewidth=0.0)
    lower.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
    log_ticks(lower)
    edges = next(iter(pairs.values()))[0].edges
    lower.set(xlabel=x_label, ylabel=" / ".join(names), xlim=(edges[0], edges[-1]))
    (low, high), spread = lower.get_ylim(), 1.35 * max(limits)
    lower.set_ylim(min(low, 1.0 - spread), max(high, 1.0 + spread))
    upper.set_ylabel(y_label)
    upper.legend(ncols=len(pairs))
    _add_room(upper, 0.22)
    name_source(upper, *sources)
    return np.asarray([upper, lower])


def _draw_pair(
    ax: Axes, pair: Pair, label: str, names: tuple[str, str], colour: str,
    band: NDArray[np.float64] | None = None,
) -> None:  # fmt: skip
    """A curve on top of its reference, which carries the band."""
    reference = f"{label} {names[1]}"
    draw_curve(ax, pair[1], label=reference, colour=colour, hollow=True, band=band)
    draw_curve(ax, pair[0], label=f"{label} {names[0]}", colour=colour)


def _add_room(ax: Axes, share: float) -> None:
    """Room above what is drawn, for a legend or a name."""
    low, high = ax.get_ylim()
    log = ax.get_yscale() == "log"
    ax.set_ylim(low, high * (high / low) ** share if log else high + share * (high - low))


@styled
def plot_curve_grid(
    panels: Mapping[str, Mapping[str, Pair]], *, x_label: str, y_label: str, tolerance: float,
    absolute: bool = False, n_columns: int = 4, names: tuple[str, str] = ("fast", "Geant4"),
    colours: Sequence[str] = COLOURS, sources: Sequence[str] = SOURCES,
) -> NDArray[Any]:  # fmt: skip
    """One panel for each name: curves on top of their references, which carry a band of the
    tolerated difference.

    Parameters
    ----------
    panels : mapping of str to mapping of str to (Curve, Curve)
        By the name that is written into the panel, then by label.
    x_label, y_label : str
    tolerance : float
        Half width of the band: relative, or absolute if so.
    absolute : bool
    n_columns : int
    names, colours, sources
        As of `plot_ratio_curves`.

    Returns
    -------
    ndarray of Axes
        Those of the panels in their order.
    """
    n_rows = -(-len(panels) // n_columns)
    size = (2.6 * n_columns, 2.2 * n_rows + 0.8)
    figure, grid = plt.subplots(n_rows, n_columns, sharex=True, figsize=size, squeeze=False)
    axes, spare = grid.flat[: len(panels)], grid.flat[len(panels) :]
    for i, (ax, (name, pairs)) in enumerate(zip(axes, panels.items(), strict=True)):
        for (label, pair), colour in zip(pairs.items(), colours, strict=False):
            scale = np.ones_like(pair[1].value) if absolute else np.abs(pair[1].value)
            _draw_pair(ax, pair, label, names, colour, tolerance * scale)
        ax.text(0.96, 0.94, name, transform=ax.transAxes, ha="right", va="top")
        log_ticks(ax, decades=True)
        ax.tick_params(labelbottom=i + n_columns >= len(panels))
        _add_room(ax, 0.18)
        values = np.concatenate([curve.value for pair in pairs.values() for curve in pair])
        if np.nanmin(np.append(values, np.inf)) > -1e-3:
            ax.set_ylim(bottom=max(ax.get_ylim()[0], 0.0))
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


def _draw_band(ax: Axes, curve: Curve, look: Look) -> None:
    """Points joined by a line, with a shaded band of one standard error."""
    known = np.isfinite(curve.value)
    x, value, error = curve.centres[known], curve.value[known], curve.error[known]
    ax.fill_between(x, value - error, value + error, color=look.colour, alpha=0.22, linewidth=0.0)
    ax.plot(
        x, value, color=look.colour, linestyle=look.line, marker=look.marker, markersize=3.8,
        linewidth=1.2, label=look.label,
    )  # fmt: skip


@styled
def plot_calibrations(
    curves: Mapping[str, Mapping[str, ResponseCurves]], quantity: str = "median", *,
    reference: str = "lcw", log_y: bool | None = None,
    goals: Sequence[tuple[float, float, float]] = (), y_limits: tuple[float, float] | None = None,
    ratio_limits: tuple[float, float] | None = None, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Linearity or resolution of calibrations against true energy, and below it the ratio to a
    reference; one column a species.

    The grey band around 1 in the lower panels is the relative error of the reference; the coloured
    ones are those of the calibrations alone.

    Parameters
    ----------
    curves : mapping of str to mapping of str to ResponseCurves
        ``curves[model][species]``, as of `pfcalib.metrics.response.curves_by_species`.
    quantity : str
        ``"median"`` or ``"resolution"``.
    reference : str
        Model that the others are divided by; the first one if it is not there.
    log_y : bool, optional
        By default for the resolution only.
    goals : sequence of (float, float, float)
        Low and high energy in GeV and the tolerated distance from 1, drawn as a box in the upper
        panels.
    y_limits, ratio_limits : (float, float), optional
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (2, n_species)
    """
    if quantity not in QUANTITY_LABELS:
        raise ValueError(f"quantity {quantity!r}: expected {' or '.join(QUANTITY_LABELS)}")
    reference = reference if reference in curves else next(iter(curves))
    looks, species = looks_of(list(curves)), list(next(iter(curves.values())))
    figure, axes = plt.subplots(
        2, len(species), sharex="col", sharey="row", squeeze=False, height_ratios=(1.9, 1.0),
        figsize=(4.5 * len(species) + 0.7, 5.6),
    )  # fmt: skip
    for (upper, lower), name in zip(axes.T, species, strict=True):
        found: dict[str, Curve] = {m: getattr(by[name], quantity) for m, by in curves.items()}
        base = found[reference]
        for i, (low, high, half) in enumerate(goals):
            box = {"color": GREY, "alpha": 0.18, "linewidth": 0.0, "label": "" if i else "goal"}
            upper.fill_between([low, high], 1.0 - half, 1.0 + half, **box)
        for model, curve in found.items():
            _draw_band(upper, curve, looks[model])
            if model != reference:
                ratio = Curve(base.edges, curve.value / base.value, curve.error / base.value)
                _draw_band(lower, ratio, looks[model])
        spread = base.error / base.value
        lower.fill_between(
            base.centres, 1.0 - spread, 1.0 + spread, color=GREY, alpha=0.25, linewidth=0.0
        )
        for ax in (lower, upper) if quantity == "median" else (lower,):
            ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        log_ticks(lower, decades=True)
        lower.set(xlabel=ENERGY_LABEL, xlim=_filled_range(base.edges, list(found.values())))
        _name_panel(upper, name)
    first, below = axes[:, 0]
    first.set_ylabel(QUANTITY_LABELS[quantity])
    below.set_ylabel(f"ratio to {looks[reference].label}")
    if log_y if log_y is not None else quantity == "resolution":
        _log_y_ticks(first)
    _add_room(first, 0.12)
    first.set_ylim(y_limits)
    below.set_ylim(ratio_limits)
    name_figure(figure, axes, sources)
    return np.asarray(axes)


def _name_panel(ax: Axes, name: str) -> None:
    """Name of a species, or another text, in the upper right corner."""
    text = SPECIES_LABELS.get(name, name)
    ax.text(0.96, 0.95, text, transform=ax.transAxes, ha="right", va="top")


def _filled_range(edges: NDArray[np.float64], curves: Sequence[Curve]) -> tuple[float, float]:
    """Ends of the bins in which anything is known, or of all if nothing is."""
    filled = np.flatnonzero(np.any([np.isfinite(curve.value) for curve in curves], axis=0))
    first, last = (filled[0], filled[-1] + 1) if filled.size else (0, -1)
    return float(edges[first]), float(edges[last])


def _log_y_ticks(ax: Axes) -> None:
    """A logarithmic y axis whose labels are plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


@styled
def plot_binned(
    curves: Mapping[str, Mapping[str, Curve]], *, x_label: str | Sequence[str],
    y_label: str = QUANTITY_LABELS["median"], level: float | None = 1.0,
    tolerance: float | None = None, log_x: bool | Sequence[bool] = False,
    y_limits: tuple[float, float] | None = None, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """A quantity of several models in bins of a variable such as abs(eta), mu or the energy, one
    panel a species or sample; the points of a bin stand side by side.

    Parameters
    ----------
    curves : mapping of str to mapping of str to Curve
        ``curves[model][panel]``.
    x_label, log_x
        Of all panels, or one a panel; with unit.
    y_label : str
    level, tolerance : float, optional
        Height of a dotted line, and half width of a band around it.
    y_limits : (float, float), optional
    sources : sequence of str
        Of the first panel, or one a panel.

    Returns
    -------
    ndarray of Axes, shape (n_panels,)
    """
    looks, panels = looks_of(list(curves)), list(next(iter(curves.values())))
    n = len(panels)
    figure, axes = plt.subplots(
        1, n, sharey=True, squeeze=False, figsize=(4.4 * n + 0.7, 4.2)
    )  # fmt: skip
    x_labels = [x_label] * n if isinstance(x_label, str) else x_label
    log_axes = [log_x] * n if isinstance(log_x, bool) else log_x
    for ax, name, text, log in zip(axes[0], panels, x_labels, log_axes, strict=True):
        if level is not None:
            ax.axhline(level, color=GREY, linestyle=":", linewidth=1.0)
        if level is not None and tolerance is not None:
            ax.axhspan(level - tolerance, level + tolerance, color=GREY, alpha=0.15, linewidth=0.0)
        for place, (model, by_panel) in enumerate(curves.items()):
            curve, look = by_panel[name], looks[model]
            low, high = curve.edges[:-1], curve.edges[1:]
            share = (place + 1.0) / (len(curves) + 1.0)
            ax.errorbar(
                low * (high / low) ** share if log else low + share * (high - low),
                curve.value, yerr=curve.error, linewidth=0.9, color=look.colour,
                marker=look.marker, linestyle=look.line, label=look.label,
            )  # fmt: skip
        ends = _filled_range(curve.edges, [by_panel[name] for by_panel in curves.values()])
        if log:
            log_ticks(ax, decades=ends[1] > 200.0 * ends[0])
        ax.set(xlabel=text, xlim=ends)
        _name_panel(ax, name)
    _add_room(axes[0, 0], 0.15)
    axes[0, 0].set(ylabel=y_label, ylim=y_limits)
    name_figure(figure, axes, sources[:1])
    for ax, source in zip(axes[0], sources, strict=False):
        name_source(ax, source)
    return np.asarray(axes[0])


@styled
def plot_size_study(
    sizes: Sequence[float], results: Mapping[str, Sequence[Estimate]], *, y_label: str,
    levels: Mapping[str, float] | None = None, crossing: float | None = None, log_y: bool = False,
    sources: Sequence[str] = (SIMULATION,),
) -> Axes:  # fmt: skip
    """A figure of merit on the test split against the number of training clusters.

    Parameters
    ----------
    sizes : sequence of float
    results : mapping of str to sequence of Estimate
        By model, one a size; NaN where it was not trained.
    y_label : str
    levels : mapping of str to float, optional
        Values of models that are not trained on the sizes, drawn as lines.
    crossing : float, optional
        Size that is marked.
    log_y : bool
    sources : sequence of str
    """
    _, ax = plt.subplots()
    looks = looks_of([*results, *(levels or {})])
    for name, estimates in results.items():
        value, error = np.array(estimates, dtype=np.float64).T
        look = looks[name]
        ax.errorbar(
            sizes, value, yerr=error, color=look.colour, marker=look.marker, label=look.label
        )
    for name, level in (levels or {}).items():
        ax.axhline(
            level, color=looks[name].colour, linestyle="--", linewidth=1.2, label=looks[name].label
        )
    if crossing is not None:
        ax.axvline(crossing, color=GREY, linestyle=":", label=f"crossing at {crossing:.2g}")
    ax.set(xscale="log", xlabel="clusters to train on", ylabel=y_label)
    if log_y:
        _log_y_ticks(ax)
    ax.legend(loc="best")
    name_source(ax, *sources)
    return ax


@styled
def plot_trainings(
    histories: Mapping[str, Mapping[str, NDArray[np.float64]]], best_epochs: Mapping[str, int], *,
    y_label: str = "loss a cluster", sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Loss of each network on training (dashed, with dropout) and validation split against the
    epoch; a ring marks the epoch that is kept.

    Parameters
    ----------
    histories : mapping of str to mapping of str to ndarray, shape (n_epochs,)
        By model, with ``loss`` and ``val_loss``.
    best_epochs : mapping of str to int
        Counted from 0.
    y_label : str
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_models,)
    """
    columns = min(len(histories), 4)
    rows = -(-len(histories) // columns)
    size = (3.3 * columns + 0.3, 2.9 * rows + 0.3)
    _, grid = plt.subplots(rows, columns, squeeze=False, figsize=size)
    looks = looks_of(list(histories))
    for ax in grid.flat[len(histories) :]:
        ax.axis("off")
    for ax, (name, history) in zip(grid.flat, histories.items(), strict=False):
        loss, val_loss, best = history["loss"], history["val_loss"], best_epochs[name]
        epoch = np.arange(1, len(loss) + 1)
        ax.plot(epoch, loss, color=GREY, linestyle="--", label="training")
        ax.plot(epoch, val_loss, color=NEUTRAL, marker="o", markersize=3.5, label="validation")
        ring = {"markersize": 10, "mfc": "none", "mec": "black", "linestyle": "none"}
        ax.plot(best + 1, val_loss[best], marker="o", label="kept", **ring)
        shown = np.concatenate([loss, val_loss])
        # a first epoch far above the others is cut off
        low, high = np.nanmin(shown), np.nanquantile(shown, 0.95)
        ax.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2, nbins=5))
        ax.set_xlabel("epoch")
        ax.legend(loc="upper right", title=looks[name].label, alignment="right")
    for ax in grid[:, 0]:
        ax.set_ylabel(y_label)
    name_source(grid[0, 0], *sources)
    return np.asarray(grid.flat[: len(histories)])


@styled
def plot_roc(
    samples: Mapping[str, tuple[Mapping[str, ArrayLike], ArrayLike]],
    *,
    sources: Sequence[str] = SOURCES,
) -> NDArray[Any]:
    """Rejection of charged against efficiency of neutral clusters, one panel a sample.

    Parameters
    ----------
    samples : mapping of str to (p_em by classifier, is_em)
        Name of the sample: scores and truth.
    sources : sequence of str
        One a sample.

    Returns
    -------
    ndarray of Axes, shape (n_samples,)
    """
    n = len(samples)
    figure, axes = plt.subplots(1, n, figsize=(4.7 * n, 4.6), sharey=True, squeeze=False)
    for ax, (title, (scores, is_em)), source in zip(axes[0], samples.items(), sources, strict=True):
        for name, look in looks_of(list(scores)).items():
            curve = roc_curve(scores[name], is_em)
            seen = (curve.had_efficiency > 0.0) & (curve.em_efficiency > 0.5)
            rejection = 1.0 / curve.had_efficiency[seen]
            ax.plot(curve.em_efficiency[seen], rejection, color=look.colour, label=look.label)
        ax.axvline(0.9, color=GREY, linestyle=":", linewidth=1.0)
        ax.set(yscale="log", xlim=(0.6, 1.0), xlabel=r"efficiency of $\pi^0$ clusters")
        ax.set_ylim(bottom=1.0)
        ax.text(0.04, 0.05, title, transform=ax.transAxes)
        name_source(ax, source)
    axes[0, 0].set_ylabel(r"rejection of $\pi^\pm$ clusters, 1 / efficiency")
    name_figure(figure, axes, sources[:1])
    return np.asarray(axes[0])


def draw_distributions(
    ax: Axes, values: Mapping[str, ArrayLike], *, edges: ArrayLike,
    colours: Sequence[str] = COLOURS, log_y: bool = False,
) -> None:  # fmt: skip
    """Steps of the share of all entries in each bin; the second distribution of a colour is
    dashed.
    """
    bins = np.asarray(edges, dtype=np.float64)
    drawn: list[str] = []
    for (label, entries), colour in zip(values.items(), colours, strict=False):
        array = np.asarray(entries, dtype=np.float64)
        share = np.histogram(array, bins)[0] / max(array.size, 1)
        style = "--" if colour in drawn else "-"
        ax.stairs(share, bins, color=colour, label=label, linewidth=1.5, linestyle=style)
        drawn.append(colour)
    ax.set_xlim(bins[0], bins[-1])
    if log_y:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0.0)
    _add_room(ax, 0.05)


@styled
def plot_distributions(
    values: Mapping[str, ArrayLike], *, edges: ArrayLike, x_label: str, title: str = "",
    colours: Sequence[str] = COLOURS, sources: Sequence[str] = (SIMULATION,), log_y: bool = False,
) -> Axes:  # fmt: skip
    """Distributions on top of each other, each as its share a bin of all its entries, those outside
    included.

    Parameters
    ----------
    values : mapping of str to array_like
        By label; the values may be of different numbers.
    edges : array_like, shape (n_bins + 1,)
    x_label : str
    title : str
        Of the legend.
    colours, sources : sequence of str
    log_y : bool
    """
    _, ax = plt.subplots()
    draw_distributions(ax, values, edges=edges, colours=colours, log_y=log_y)
    ax.set(xlabel=x_label, ylabel="share a bin")
    ax.legend(title=title or None, alignment="left")
    name_source(ax, *sources)
    return ax
