"""Figures of the studies of classifiers: ROC curves, areas against energy and sample size,
trainings, scores, parity and latency.
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
from pfcalib.metrics.roc import roc_curve
from pfcalib.plotting.style import (
    CHARGED,
    GEANT4,
    GREY,
    NEUTRAL,
    SIMULATION,
    log_ticks,
    name_source,
    styled,
)

SOURCES = (SIMULATION, GEANT4)
MODEL_COLOURS = {
    "likelihood": "#555555",
    "gbdt": "#009e73",
    "dnn": "#0072b2",
    "cnn": "#d55e00",
    "densenet": "#cc79a7",
    "end_to_end": "#882255",
}
MODEL_MARKERS = {"likelihood": "s", "gbdt": "^", "dnn": "o", "cnn": "D", "densenet": "v"}
MODEL_LABELS = {
    "likelihood": "EM likelihood",
    "gbdt": "boosted trees",
    "dnn": "DNN",
    "cnn": "CNN",
    "densenet": "DenseNet",
    "end_to_end": "one network",
}


def _look(name: str) -> dict[str, Any]:
    """Colour and label of a classifier."""
    return {"color": MODEL_COLOURS.get(name, GREY), "label": MODEL_LABELS.get(name, name)}


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
    _, axes = plt.subplots(
        1, len(samples), figsize=(4.7 * len(samples), 4.2), sharey=True, squeeze=False
    )
    for ax, (title, (scores, is_em)), source in zip(axes[0], samples.items(), sources, strict=True):
        for name, score in scores.items():
            curve = roc_curve(score, is_em)
            seen = (curve.had_efficiency > 0.0) & (curve.em_efficiency > 0.5)
            ax.plot(curve.em_efficiency[seen], 1.0 / curve.had_efficiency[seen], **_look(name))
        ax.axvline(0.9, color=GREY, linestyle=":", linewidth=1.0)
        ax.set(yscale="log", xlim=(0.6, 1.0), xlabel=r"efficiency of $\pi^0$ clusters")
        ax.set_ylim(bottom=1.0)
        ax.text(0.04, 0.05, title, transform=ax.transAxes)
        name_source(ax, source)
    axes[0, 0].set_ylabel(r"rejection of $\pi^\pm$ clusters, 1 / efficiency")
    axes[0, -1].legend(loc="upper right")
    return np.asarray(axes[0])


@styled
def plot_binned_auc(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    log_x: Sequence[bool],
    sources: Sequence[str] = (SIMULATION, SIMULATION),
) -> NDArray[Any]:
    """AUC of each classifier in bins of one or more variables.

    Parameters
    ----------
    panels : mapping of str to (mapping of classifier to Curve)
        By the label of the x axis.
    log_x : sequence of bool
        One a panel.
    sources : sequence of str
        Likewise.

    Returns
    -------
    ndarray of Axes, shape (n_panels,)
    """
    _, axes = plt.subplots(
        1, len(panels), figsize=(4.7 * len(panels), 4.2), sharey=True, squeeze=False
    )
    for ax, (label, curves), log, source in zip(
        axes[0], panels.items(), log_x, sources, strict=True
    ):
        for place, (name, curve) in enumerate(curves.items()):
            low, high = curve.edges[:-1], curve.edges[1:]
            share = (place + 1.0) / (len(curves) + 1.0)  # side by side in a bin
            x = low * (high / low) ** share if log else low + share * (high - low)
            ax.errorbar(
                x,
                curve.value,
                yerr=curve.error,
                marker=MODEL_MARKERS.get(name, "o"),
                linestyle="-",
                linewidth=0.8,
                **_look(name),
            )
        ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        filled = np.flatnonzero(
            np.any([np.isfinite(curve.value) for curve in curves.values()], axis=0)
        )
        end = high[filled[-1]] if len(filled) else high[-1]
        if log:
            log_ticks(ax, decades=end > 200.0 * low[0])
        ax.set(xlabel=label, xlim=(low[0], end))
        name_source(ax, source)
    axes[0, 0].set_ylabel("area under the ROC curve")
    axes[0, -1].legend(loc="lower right")
    return np.asarray(axes[0])


@styled
def plot_trainings(
    histories: Mapping[str, Mapping[str, NDArray[np.float64]]], best_epochs: Mapping[str, int]
) -> NDArray[Any]:
    """Loss of each network on training (with dropout) and validation split against the epoch; a
    ring marks the epoch that is kept.

    The scale fits the training losses; a validation loss far above them, as batch normalisation
    gives in its first epochs, is cut off.

    Returns
    -------
    ndarray of Axes, shape (n_networks,)
    """
    _, axes = plt.subplots(
        1, len(histories), figsize=(3.4 * len(histories), 3.6), sharey=True, squeeze=False
    )
    for ax, (name, history) in zip(axes[0], histories.items(), strict=True):
        epoch = np.arange(1, len(history["loss"]) + 1)
        ax.plot(
            epoch,
            history["loss"],
            color=GREY,
            linestyle="--",
            marker=".",
            label="training, with dropout",
        )
        ax.plot(
            epoch,
            history["val_loss"],
            marker="o",
            color=MODEL_COLOURS.get(name, NEUTRAL),
            label="validation",
        )
        best = best_epochs[name]
        ax.plot(
            best + 1,
            history["val_loss"][best],
            marker="o",
            markersize=11,
            mfc="none",
            mec="black",
            linestyle="none",
            label="kept",
        )
        ax.text(0.96, 0.62, MODEL_LABELS.get(name, name), transform=ax.transAxes, ha="right")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2))
        ax.set_xlabel("epoch")
        ax.legend(loc="upper right")
        name_source(ax)
    losses = np.concatenate([history["loss"] for history in histories.values()])
    axes[0, 0].set_ylim(0.8 * losses.min(), 1.3 * losses.max())
    axes[0, 0].set_ylabel("cross-entropy a cluster")
    return np.asarray(axes[0])


@styled
def plot_size_study(
    sizes: Sequence[float], areas: Mapping[str, Sequence[Estimate]], *, crossing: float | None
) -> Axes:
    """One minus the AUC on the test split against the number of training clusters; lower is better.

    Parameters
    ----------
    sizes : sequence of float
    areas : mapping of str to sequence of Estimate
        AUC of each classifier at each size.
    crossing : float, optional
        Size that is marked.
    """
    _, ax = plt.subplots()
    for name, estimates in areas.items():
        value, error = np.array(estimates).T
        ax.errorbar(
            sizes, 1.0 - value, yerr=error, marker=MODEL_MARKERS.get(name, "o"), **_look(name)
        )
    if crossing is not None:
        ax.axvline(crossing, color=GREY, linestyle=":", label=f"crossing at {crossing:.2g}")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="clusters to train on",
        ylabel="1 - area under the ROC curve",
    )
    ax.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend()
    name_source(ax)
    return ax


@styled
def plot_scores(
    samples: Mapping[str, tuple[Mapping[str, ArrayLike], ArrayLike]],
    *,
    n_bins: int = 25,
    sources: Sequence[str] = SOURCES,
) -> NDArray[Any]:
    """Distribution of the score of each classifier, neutral and charged apart; the first sample as
    steps, the second as points.

    Parameters
    ----------
    samples : mapping of str to (p_em by classifier, is_em)
        One or two, by name.
    n_bins : int
    sources : sequence of str
        One a sample.

    Returns
    -------
    ndarray of Axes, shape (n_classifiers,)
    """
    names = list(next(iter(samples.values()))[0])
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.75 * len(names), 3.4), sharey=True, squeeze=False
    )
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    for ax, name in zip(axes[0], names, strict=True):
        for place, (sample, (scores, is_em)) in enumerate(samples.items()):
            for side, colour, of in ((True, NEUTRAL, r"$\pi^0$"), (False, CHARGED, r"$\pi^\pm$")):
                score = np.asarray(scores[name])[np.asarray(is_em) == side]
                counts = np.histogram(score, edges)[0]
                if place == 0:
                    ax.stairs(
                        counts / len(score),
                        edges,
                        color=colour,
                        linewidth=1.5,
                        label=f"{of}, {sample}",
                    )
                else:
                    shown = counts > 0
                    centres = 0.5 * (edges[1:] + edges[:-1])[shown]
                    share, error = counts[shown] / len(score), np.sqrt(counts[shown]) / len(score)
                    ax.errorbar(
                        centres,
                        share,
                        yerr=error,
                        color=colour,
                        linestyle="none",
                        marker=".",
                        elinewidth=0.8,
                        label=f"{of}, {sample}",
                    )
        ax.set(yscale="log", xlim=(0.0, 1.0), xlabel=r"$p_\mathrm{EM}$")
        ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
        ax.text(
            0.5, 0.95, MODEL_LABELS.get(name, name), transform=ax.transAxes, ha="center", va="top"
        )
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set(ylim=(low, 2.5 * high), ylabel="share a bin")
    figure.suptitle(" / ".join(sources), x=0.01, ha="left", style="italic", fontsize=10.5)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2 * len(samples)
    )
    return np.asarray(axes[0])


@styled
def plot_layers(ours: Mapping[str, Estimate], published: Mapping[str, float]) -> Axes:
    """AUC of a flat network on each layer alone and on all, with the published values of another
    simulation beside it.
    """
    _, ax = plt.subplots()
    place = np.arange(len(ours))
    value, error = np.array(list(ours.values())).T
    ax.errorbar(
        place, value, yerr=error, marker="o", linestyle="none", color=NEUTRAL, label=SIMULATION
    )
    known = [published.get(name, np.nan) for name in ours]
    ax.plot(
        place + 0.18,
        known,
        marker="s",
        mfc="white",
        linestyle="none",
        color=GREY,
        label="ATLAS full simulation, published",
    )
    ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
    ax.set_xticks(place, list(ours), rotation=25)
    ax.tick_params(axis="x", which="minor", bottom=False, top=False)
    ax.set(ylabel="area under the ROC curve", xlim=(-0.5, len(ours) - 0.3))
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.2 * (high - low), high)  # room for the legend
    ax.legend(loc="lower left")
    name_source(ax)
    return ax


@styled
def plot_differences(differences: Mapping[str, NDArray[np.floating]], *, tolerance: float) -> Axes:
    """Largest difference of each cluster between ONNX Runtime and Keras; exact agreement counts in
    the lowest bin.
    """
    _, ax = plt.subplots()
    edges = np.logspace(-9.0, np.log10(tolerance) + 0.5, 40)
    for name, values in differences.items():
        ax.hist(
            np.clip(values, edges[0] * 1.01, edges[-1]),
            bins=edges.tolist(),
            histtype="step",
            linewidth=1.5,
            **_look(name),
        )
    ax.axvline(tolerance, color=GREY, linestyle=":", label="tolerance")
    ax.set(
        xscale="log",
        xlabel=r"$|p_\mathrm{ONNX} - p_\mathrm{Keras}|$ of a cluster",
        ylabel="clusters a bin",
    )
    low, high = ax.get_ylim()
    ax.set_ylim(low, 1.3 * high)
    ax.legend(ncols=2, loc="upper left")
    name_source(ax)
    return ax


@styled
def plot_latency(
    batches: Sequence[int], median: Mapping[str, ArrayLike], quartiles: Mapping[str, ArrayLike]
) -> Axes:
    """Time of a cluster against the batch size, with its quartiles.

    Parameters
    ----------
    batches : sequence of int
    median : mapping of str to array_like, shape (n_batches,), us a call
    quartiles : mapping of str to array_like, shape (n_batches, 2), us a call
    """
    _, ax = plt.subplots()
    size = np.asarray(batches, dtype=np.float64)
    for name, times in median.items():
        time = np.asarray(times) / size
        low, high = np.asarray(quartiles[name]).T / size
        ax.errorbar(
            size,
            time,
            yerr=(time - low, high - time),
            marker=MODEL_MARKERS.get(name, "o"),
            **_look(name),
        )
    ax.set(xscale="log", yscale="log", xlabel="clusters a call", ylabel=r"time a cluster / $\mu$s")
    ax.set_xticks(size, [f"{batch:g}" for batch in size])
    ax.tick_params(axis="x", which="minor", bottom=False, top=False)
    ax.legend()
    ax.set_title("ONNX Runtime, one thread", loc="left", style="italic", fontsize=10.5)
    return ax
