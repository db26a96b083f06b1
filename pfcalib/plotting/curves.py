"""Figures of the studies of calibrations: linearity and resolution of each, response in bins,
closure, training size and trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hist
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import ResponseCurves
from pfcalib.plotting.style import GREY, SIMULATION, log_ticks, name_source, styled


class Look(NamedTuple):
    """How a calibration is drawn, the same in every figure."""

    colour: str
    label: str
    marker: str
    line: str = "-"


MODEL_LOOKS = {
    "em": Look("#999999", "EM scale", "s", ":"),
    "lcw": Look("#000000", "LCW", "s"),
    "lcw_cnn": Look("#e69f00", "LCW, classes by CNN", "P"),
    "gbdt": Look("#009e73", "boosted trees", "^"),
    "dnn": Look("#0072b2", "DNN", "o"),
    "cnn": Look("#d55e00", "CNN", "D"),
    "densenet": Look("#cc79a7", "DenseNet", "v"),
    "combined_hard": Look("#56b4e9", "combined, hard cut", "<"),
    "combined_soft": Look("#332288", "combined, weighted", ">"),
    "end_to_end": Look("#882255", "one network", "X"),
    "oracle": Look("#777777", "class known", "*", "--"),
}
SPARE_COLOURS = ("#44aa99", "#aa4499", "#999933", "#661100", "#6699cc", "#117733")
SPECIES_LABELS = {
    "pi0": r"$\pi^0$ clusters",
    "pic": r"$\pi^\pm$ clusters",
    "mixed": r"mixed $\pi^0$ and $\pi^\pm$ clusters",
}
QUANTITY_LABELS = {
    "median": r"median of $E_\mathrm{calib} / E_\mathrm{dep}$",
    "resolution": "IQR / (2 median)",
}
ENERGY_LABEL = r"$E_\mathrm{dep}$ / GeV"


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """The look of each calibration; one that has none of its own gets a spare colour and its name,
    in the order given.
    """
    spare = [name for name in names if name not in MODEL_LOOKS]
    return {
        name: MODEL_LOOKS[name]
        if name in MODEL_LOOKS
        else Look(
            SPARE_COLOURS[spare.index(name) % len(SPARE_COLOURS)], name.replace("_", " "), "h"
        )
        for name in names
    }


def _draw_band(
    ax: Axes, x: NDArray[Any], value: NDArray[Any], error: NDArray[Any], look: Look
) -> None:
    """Points joined by a line, with a shaded band of one standard error."""
    known = np.isfinite(value)
    x, value, error = x[known], value[known], error[known]
    ax.fill_between(x, value - error, value + error, color=look.colour, alpha=0.22, linewidth=0.0)
    ax.plot(
        x,
        value,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=3.8,
        linewidth=1.2,
        label=look.label,
    )


def name_figure(figure: Figure, axes: NDArray[Any], sources: Sequence[str]) -> None:
    """One legend for all panels above them, and the source over the first."""
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(labels), 4), columnspacing=1.4
    )
    name_source(axes.flat[0], *sources)


@styled
def plot_calibrations(
    curves: Mapping[str, Mapping[str, ResponseCurves]], quantity: str = "median", *, reference: str = "lcw", log_y: bool | None = None,
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
    reference = reference if reference in curves else next(iter(curves))
    looks, species = looks_of(list(curves)), list(next(iter(curves.values())))
    figure, axes = plt.subplots(
        2,
        len(species),
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=(1.9, 1.0),
        figsize=(4.5 * len(species) + 0.7, 5.6),
    )
    for (upper, lower), name in zip(axes.T, species, strict=True):
        base, base_error = _quantity(curves[reference][name], quantity)
        for place, (low, high, half) in enumerate(goals):
            label = {"label": "goal"} if place == 0 else {}
            upper.fill_between(
                [low, high], 1.0 - half, 1.0 + half, color=GREY, alpha=0.18, linewidth=0.0, **label
            )
        for model, by_species in curves.items():
            curve = by_species[name]
            value, error = _quantity(curve, quantity)
            _draw_band(upper, curve.median.centres, value, error, looks[model])
            if model != reference:
                _draw_band(lower, curve.median.centres, value / base, error / base, looks[model])
        known = np.isfinite(base)
        spread = (base_error / base)[known]
        lower.fill_between(
            curves[reference][name].median.centres[known],
            1.0 - spread,
            1.0 + spread,
            color=GREY,
            alpha=0.25,
            linewidth=0.0,
        )
        lower.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        upper.text(
            0.96,
            0.95,
            SPECIES_LABELS.get(name, name),
            transform=upper.transAxes,
            ha="right",
            va="top",
        )
        log_ticks(lower, decades=True)
        lower.set(
            xlabel=ENERGY_LABEL,
            xlim=_known_range([by_species[name] for by_species in curves.values()]),
        )
    _finish_calibrations(
        axes, quantity, looks[reference].label, quantity == "resolution" if log_y is None else log_y
    )
    for row, limits in ((axes[0], y_limits), (axes[1], ratio_limits)):
        if limits is not None:
            row[0].set_ylim(*limits)
    name_figure(figure, axes, sources)
    return np.asarray(axes)


def _quantity(
    curve: ResponseCurves, quantity: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A quantity of a curve and its error."""
    if quantity not in QUANTITY_LABELS:
        raise ValueError(f"quantity {quantity!r}: expected {' or '.join(QUANTITY_LABELS)}")
    found: Curve = getattr(curve, quantity)
    return found.value, found.error


def _known_range(curves: Sequence[ResponseCurves]) -> tuple[float, float]:
    """Edges of the bins in which anything is known."""
    filled = np.flatnonzero(np.any([np.isfinite(curve.median.value) for curve in curves], axis=0))
    edges = curves[0].median.edges
    return (
        (float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        if filled.size
        else (float(edges[0]), float(edges[-1]))
    )


def _finish_calibrations(axes: NDArray[Any], quantity: str, reference: str, log_y: bool) -> None:
    """Scales and labels of the y axes; room for the name of the species."""
    axes[0, 0].set_ylabel(QUANTITY_LABELS[quantity])
    axes[1, 0].set_ylabel(f"ratio to {reference}")
    low, high = axes[0, 0].get_ylim()
    if log_y:
        axes[0, 0].set_yscale("log")
        low, high = axes[0, 0].get_ylim()
        axes[0, 0].set_ylim(low, high * (high / low) ** 0.12)
        axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0, 0].yaxis.set_minor_formatter(NullFormatter())
    else:
        axes[0, 0].set_ylim(low, high + 0.12 * (high - low))
    if quantity == "median":
        for ax in axes[0]:
            ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)


@styled
def plot_response_distributions(
    histogram: hist.Hist,
    *,
    x_label: str = QUANTITY_LABELS["median"].removeprefix("median of "),
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:
    """Distributions of the response of several calibrations, one row a species and one column an
    energy.

    Parameters
    ----------
    histogram : hist.Hist
        With the categories ``model``, ``species``, ``energy`` and the axis ``response``, as of
        `pfcalib.metrics.response.response_histogram`. Entries outside the axis count in
        the norm.
    x_label : str
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_species, n_energies)
    """
    models, species, energies = (
        list(histogram.axes[name]) for name in ("model", "species", "energy")
    )
    figure, axes = plt.subplots(
        *(len(species), len(energies)),
        sharex="col",
        squeeze=False,
        figsize=(2.6 * len(energies) + 0.8, 2.4 * len(species) + 1.0),
    )
    edges = histogram.axes["response"].edges
    for (row, column), ax in np.ndenumerate(axes):
        for model, look in looks_of(models).items():
            counts = histogram[
                {"model": model, "species": species[row], "energy": energies[column]}
            ].values(flow=True)
            density = counts[1:-1] / max(counts.sum(), 1.0) / np.diff(edges)
            ax.stairs(
                density,
                edges,
                color=look.colour,
                linestyle=look.line,
                label=look.label,
                linewidth=1.3,
            )
        ax.axvline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        ax.set_xlim(
            *_populated(histogram[{"energy": energies[column]}].project("response").values(), edges)
        )
        ax.set_ylim(0.0, 1.3 * ax.get_ylim()[1])
        ax.text(
            0.95,
            0.93,
            f"{SPECIES_LABELS.get(species[row], species[row])}\n{energies[column]}",
            transform=ax.transAxes,
            ha="right",
            va="top",
        )
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel(x_label, fontsize=12.0)
    figure.supylabel("density", fontsize=12.0)
    name_figure(figure, axes, sources)
    return np.asarray(axes)


def _populated(counts: NDArray[Any], edges: NDArray[Any]) -> tuple[float, float]:
    """Edges of the range outside of which every bin has less than half a percent of the fullest."""
    filled = np.flatnonzero(counts >= 0.005 * max(counts.max(), 1.0))
    return (
        (float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        if filled.size
        else (float(edges[0]), float(edges[-1]))
    )


@styled
def plot_closure(
    closures: Mapping[str, Mapping[str, Curve]], *, x_label: str, tolerance: float | None = None,
    y_limits: tuple[float, float] | None = None, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Median response of calibrations against a variable such as abs(eta) or mu, one column a
    species.

    Parameters
    ----------
    closures : mapping of str to mapping of str to Curve
        ``closures[model][species]``, each as of `pfcalib.metrics.response.closure_in`.
    x_label : str
        With unit.
    tolerance : float, optional
        Half width of a band around 1.
    y_limits : (float, float), optional
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_species,)
    """
    looks, species = looks_of(list(closures)), list(next(iter(closures.values())))
    figure, axes = plt.subplots(
        1, len(species), sharey=True, squeeze=False, figsize=(4.4 * len(species) + 0.7, 4.2)
    )
    for ax, name in zip(axes[0], species, strict=True):
        if tolerance is not None:
            ax.axhspan(1.0 - tolerance, 1.0 + tolerance, color=GREY, alpha=0.15, linewidth=0.0)
        ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        for place, (model, by_species) in enumerate(closures.items()):
            low, high = by_species[name].edges[:-1], by_species[name].edges[1:]
            x = low + (place + 1.0) / (len(closures) + 1.0) * (high - low)  # side by side in a bin
            style: dict[str, Any] = {
                "color": looks[model].colour,
                "marker": looks[model].marker,
                "linestyle": looks[model].line,
            }
            ax.errorbar(
                x,
                by_species[name].value,
                yerr=by_species[name].error,
                linewidth=0.9,
                label=looks[model].label,
                **style,
            )
        ax.text(
            0.96, 0.95, SPECIES_LABELS.get(name, name), transform=ax.transAxes, ha="right", va="top"
        )
        ax.set(xlabel=x_label, xlim=(low[0], high[-1]))
    low_y, high_y = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(*(y_limits or (low_y, high_y + 0.15 * (high_y - low_y))))
    axes[0, 0].set_ylabel(QUANTITY_LABELS["median"])
    name_figure(figure, axes, sources)
    return np.asarray(axes[0])


@styled
def plot_size_study(
    sizes: Sequence[float], results: Mapping[str, Sequence[Estimate]], *, y_label: str, levels: Mapping[str, float] | None = None,
    log_y: bool = False, sources: Sequence[str] = (SIMULATION,),
) -> Axes:  # fmt: skip
    """A figure of merit on the test split against the number of training clusters.

    Parameters
    ----------
    sizes : sequence of float
    results : mapping of str to sequence of Estimate
        By model, one a size; NaN where it was not trained.
    y_label : str
    levels : mapping of str to float, optional
        Values of calibrations that are not trained on the sizes, drawn as lines.
    log_y : bool
    sources : sequence of str
    """
    _, ax = plt.subplots()
    looks = looks_of([*results, *(levels or {})])
    for name, estimates in results.items():
        value, error = np.array(estimates, dtype=np.float64).T
        ax.errorbar(
            sizes,
            value,
            yerr=error,
            color=looks[name].colour,
            marker=looks[name].marker,
            label=looks[name].label,
        )
    for name, level in (levels or {}).items():
        ax.axhline(
            level, color=looks[name].colour, linestyle="--", linewidth=1.2, label=looks[name].label
        )
    ax.set(
        xscale="log",
        yscale="log" if log_y else "linear",
        xlabel="clusters to train on",
        ylabel=y_label,
    )
    ax.legend(loc="best")
    name_source(ax, *sources)
    return ax
