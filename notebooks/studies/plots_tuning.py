"""Figures of studies of hyper-parameters: which parameters mattered, how the trials went, and the
loss against single parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pfcalib.plotting.style import CHARGED, GREY, NEUTRAL, log_ticks, name_source, styled

LOSS_LABEL = r"validation loss of ln($E_\mathrm{dep}$ / $E_\mathrm{EM}$)"
PARAMETER_LABELS = {
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "pixel_power": "power of pixels",
    "n_layers": "hidden layers",
}
PRUNED: dict[str, Any] = {"marker": "x", "color": GREY, "linestyle": "none", "label": "pruned"}
COMPLETE: dict[str, Any] = {
    "marker": "o",
    "color": CHARGED,
    "linestyle": "none",
    "label": "complete",
}
BEST: dict[str, Any] = {
    "marker": "*",
    "color": NEUTRAL,
    "linestyle": "none",
    "markersize": 13,
    "label": "best",
}
DEFAULT: dict[str, Any] = {
    "marker": "s",
    "mfc": "none",
    "mec": "black",
    "markersize": 9,
    "linestyle": "none",
    "label": "default",
}


def parameter_label(name: str) -> str:
    """Name of a parameter in words."""
    return PARAMETER_LABELS.get(name, name.replace("_", " "))


@styled
def plot_importances(studies: Mapping[str, Mapping[str, tuple[float, float]]]) -> NDArray[Any]:
    """Share of the variance of the loss that each parameter alone accounts for, largest on top.

    Parameters
    ----------
    studies : mapping of str to (mapping of parameter to (importance, error))
        By title; one panel each.

    Returns
    -------
    ndarray of Axes, shape (n_studies,)
    """
    longest = max(map(len, studies.values()))
    _, axes = plt.subplots(
        1,
        len(studies),
        figsize=(4.2 * len(studies), 1.4 + 0.33 * longest),
        sharex=True,
        squeeze=False,
    )
    for ax, (title, found) in zip(axes[0], studies.items(), strict=True):
        place = np.arange(len(found))[::-1]
        values, errors = np.array(list(found.values()), dtype=np.float64).reshape(-1, 2).T
        low = np.minimum(errors, values)  # a share is not negative
        ax.barh(
            place,
            values,
            xerr=np.stack([low, errors]),
            color=CHARGED,
            alpha=0.7,
            error_kw={"elinewidth": 1.0, "capsize": 2.0},
        )
        ax.set_yticks(place, [parameter_label(name) for name in found])
        ax.tick_params(axis="y", which="both", length=0)
        ax.set_ylim(-0.6, longest - 0.4)
        ax.set(xlabel="importance")
        ax.text(0.96, 0.05, title, transform=ax.transAxes, ha="right")
        name_source(ax)
    axes[0, 0].set_xlim(0.0, 1.0)
    return np.asarray(axes[0])


@styled
def plot_history(studies: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> NDArray[Any]:
    """Loss of each trial, the pruned ones marked, and the best so far.

    Parameters
    ----------
    studies : mapping of str to (losses, pruned)
        By title: arrays of shape (n_trials,), the trials in their order; the first one holds the
        default settings.

    Returns
    -------
    ndarray of Axes, shape (n_studies,)
    """
    _, axes = plt.subplots(1, len(studies), figsize=(4.2 * len(studies), 3.7), squeeze=False)
    for ax, (title, (losses, cut)) in zip(axes[0], studies.items(), strict=True):
        loss, pruned = np.asarray(losses, dtype=np.float64), np.asarray(cut, dtype=np.bool_)
        number = np.arange(1, len(loss) + 1)
        so_far = np.minimum.accumulate(np.where(pruned | ~np.isfinite(loss), np.inf, loss))
        known = np.isfinite(so_far)
        ax.step(number[known], so_far[known], where="post", color=NEUTRAL, label="best so far")
        ax.plot(number[~pruned], loss[~pruned], **COMPLETE)
        ax.plot(number[pruned], loss[pruned], **PRUNED)
        ax.plot(number[:1], loss[:1], **DEFAULT)
        ax.set_ylim(*_loss_limits(loss, pruned))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2))
        ax.set(xlabel="trial")
        ax.text(0.96, 0.94, title, transform=ax.transAxes, ha="right", va="top")
        name_source(ax)
    axes[0, 0].set_ylabel(LOSS_LABEL)
    axes[0, -1].legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
    return np.asarray(axes[0])


def _loss_limits(loss: NDArray[np.float64], pruned: NDArray[np.bool_]) -> tuple[float, float]:
    """Limits that hold all complete trials, and pruned ones that are not far above them; the rest
    lies beyond.
    """
    complete = loss[~pruned & np.isfinite(loss)]
    if not len(complete):
        return 0.0, 1.0
    span = max(float(np.ptp(complete)), 0.02 * float(complete.min()))
    return float(complete.min()) - 0.15 * span, float(complete.max()) + 0.6 * span


@styled
def plot_slices(
    values: Mapping[str, Sequence[Any]],
    losses: ArrayLike,
    pruned: ArrayLike,
    *,
    best: int,
    title: str,
    log: Sequence[str] = (),
) -> NDArray[Any]:
    """Loss of each trial against single parameters; the first trial holds the default settings.

    Parameters
    ----------
    values : mapping of str to sequence
        Parameter: its value in each trial, numbers or names.
    losses, pruned : array_like, shape (n_trials,)
    best : int
        Place of the trial that is marked.
    title : str
    log : sequence of str
        Parameters on a logarithmic axis.

    Returns
    -------
    ndarray of Axes, shape (n_parameters,)
    """
    loss, cut = np.asarray(losses, dtype=np.float64), np.asarray(pruned, dtype=np.bool_)
    low, high = _loss_limits(loss, cut)
    shown = np.minimum(loss, high - 0.02 * (high - low))
    _, axes = plt.subplots(
        1, len(values), figsize=(4.2 * len(values), 3.7), sharey=True, squeeze=False
    )
    for ax, (name, chosen) in zip(axes[0], values.items(), strict=True):
        x = _positions(ax, chosen, log=name in log)
        ax.plot(x[cut], shown[cut], **PRUNED)
        ax.plot(x[~cut], shown[~cut], **COMPLETE)
        ax.plot(x[:1], shown[:1], **DEFAULT)
        ax.plot(x[best], shown[best], **BEST)
        ax.set(xlabel=parameter_label(name), ylim=(low, high))
        name_source(ax)
    axes[0, 0].set_ylabel(LOSS_LABEL)
    axes[0, 0].text(0.04, 0.94, title, transform=axes[0, 0].transAxes, va="top")
    axes[0, -1].legend(loc="upper right")
    return np.asarray(axes[0])


def _positions(ax: Axes, chosen: Sequence[Any], *, log: bool) -> NDArray[np.float64]:
    """Places on the x axis: numbers where they lie, names and the few values of a choice side by
    side, the points of one slightly apart.
    """
    distinct = sorted(set(chosen))
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in distinct
    )
    continuous = all(isinstance(value, float) for value in distinct) and len(distinct) == len(
        chosen
    )
    if numbers and (log or continuous or len(distinct) > 4):
        if log:
            log_ticks(ax)
        return np.asarray(chosen, dtype=np.float64)
    ax.set_xticks(range(len(distinct)), [str(value) for value in distinct])
    ax.tick_params(axis="x", which="minor", length=0)
    ax.set_xlim(-0.5, len(distinct) - 0.5)
    place = np.array([distinct.index(value) for value in chosen], dtype=np.float64)
    return place + 0.24 * (np.arange(len(place)) / max(len(place) - 1, 1) - 0.5)
