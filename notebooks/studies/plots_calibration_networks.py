"""Figures of what networks learnt: their trainings, predicted uncertainties, and what they look
at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
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

PULL_RANGE = 5.0
HALF_WINDOW = (0.2, 0.196)  # of an image, in eta and phi
FLOOR = 1e-3  # of the largest attribution: what is less is drawn alike


@styled
def plot_pulls(pulls: Mapping[str, ArrayLike], *, sources: Sequence[str] = (SIMULATION,)) -> Axes:
    """Distribution of the pulls of each model, with the unit Gaussian; pulls beyond PULL_RANGE
    count in the outermost bins.

    Parameters
    ----------
    pulls : mapping of str to array_like, shape (n_clusters,)
    sources : sequence of str
    """
    _, ax = plt.subplots()
    edges = np.linspace(-PULL_RANGE, PULL_RANGE, 51)
    x = np.linspace(-PULL_RANGE, PULL_RANGE, 201)
    ax.fill_between(
        x,
        np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi),
        color=GREY,
        alpha=0.2,
        linewidth=0.0,
        label="unit Gaussian",
    )
    looks = looks_of(list(pulls))
    for name, values in pulls.items():
        known = np.clip(np.asarray(values, dtype=np.float64), edges[0], edges[-1])
        counts = np.histogram(known[np.isfinite(known)], edges)[0]
        density = counts / max(counts.sum(), 1) / np.diff(edges)
        ax.stairs(
            density,
            edges,
            color=looks[name].colour,
            linestyle=looks[name].line,
            label=looks[name].label,
            linewidth=1.4,
        )
    ax.set(xlabel=r"pull of $\ln E$", ylabel="density", xlim=(edges[0], edges[-1]))
    ax.set_ylim(0.0, 1.15 * ax.get_ylim()[1])
    ax.legend(loc="upper left", fontsize=9.5)
    name_source(ax, *sources)
    return ax


@styled
def plot_coverage(
    levels: Sequence[float],
    observed: Mapping[str, Sequence[Estimate]],
    *,
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:
    """Observed against nominal coverage of central intervals, and below it their difference, with
    binomial errors.

    Parameters
    ----------
    levels : sequence of float
    observed : mapping of str to sequence of Estimate
        By model, one a level, as of `pfcalib.metrics.uncertainty.coverage`.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (2,)
    """
    _, axes = plt.subplots(2, 1, sharex=True, height_ratios=(2.0, 1.0), figsize=(5.0, 5.4))
    axes[0].plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle=":", linewidth=1.0)
    axes[1].axhline(0.0, color=GREY, linestyle=":", linewidth=1.0)
    nominal, looks = np.asarray(levels, dtype=np.float64), looks_of(list(observed))
    for name, estimates in observed.items():
        value, error = np.array(estimates, dtype=np.float64).T
        style: dict[str, Any] = {
            "color": looks[name].colour,
            "marker": looks[name].marker,
            "linewidth": 1.0,
            "label": looks[name].label,
        }
        axes[0].errorbar(nominal, value, yerr=error, **style)
        axes[1].errorbar(nominal, value - nominal, yerr=error, **style)
    axes[0].set(ylabel="observed coverage", ylim=(0.0, 1.0), xlim=(0.0, 1.0))
    axes[1].set(ylabel="observed - nominal", xlabel="nominal coverage of the central interval")
    axes[0].legend(loc="upper left")
    name_source(axes[0], *sources)
    return np.asarray(axes)


@styled
def plot_importance(
    groups: Mapping[str, Mapping[str, Estimate]],
    *,
    x_label: str,
    n_shown: int = 20,
    sources: Sequence[str] = (SIMULATION,),
) -> Axes:
    """Importance of features or layers as horizontal bars with errors, the greatest of the first
    group on top.

    Parameters
    ----------
    groups : mapping of str to mapping of str to Estimate
        One or two groups, such as the species, of importances by feature; a feature that a group
        lacks has no bar there.
    x_label : str
        What the importance is, with unit.
    n_shown : int
        Features at most.
    sources : sequence of str
    """
    first = next(iter(groups.values()))
    names = sorted(first, key=lambda name: first[name].value)[-n_shown:]
    _, ax = plt.subplots(figsize=(5.8, 1.4 + 0.3 * len(names) * (1.0 if len(groups) == 1 else 1.3)))
    thickness = 0.75 / len(groups)
    for place, ((group, importances), colour) in enumerate(
        zip(groups.items(), (NEUTRAL, CHARGED, GREY), strict=False)
    ):
        value, error = np.array(
            [importances.get(name, Estimate(np.nan, np.nan)) for name in names], dtype=np.float64
        ).T
        y = np.arange(len(names)) + (0.5 * (len(groups) - 1) - place) * thickness
        label = SPECIES_LABELS.get(group, group)
        ax.barh(
            y,
            value,
            height=0.92 * thickness,
            color=colour,
            alpha=0.75,
            label=label,
            xerr=error,
            error_kw={"elinewidth": 1.0, "capsize": 2.0},
        )
    ax.set_yticks(np.arange(len(names)), names)
    ax.tick_params(axis="y", which="minor", left=False, right=False)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set(xlabel=x_label, ylim=(-0.6, len(names) - 0.4))
    if len(groups) > 1:
        ax.legend(loc="lower right")
    name_source(ax, *sources)
    return ax


@styled
def plot_attribution(
    images: Mapping[str, Mapping[str, ArrayLike]],
    *,
    colour_label: str = "mean |attribution| of a pixel",
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:
    """Mean size of the attribution of each pixel, one row a group of clusters and one column a
    layer, on one logarithmic scale.

    Parameters
    ----------
    images : mapping of str to mapping of str to array_like, shape (n_eta, n_phi)
        By group, such as the species, and by layer; not negative. Shapes as of
        `pfcalib.features.images.IMAGE_SHAPES`.
    colour_label : str
        With unit.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_groups, n_layers)
    """
    layers = list(next(iter(images.values())))
    figure, axes = plt.subplots(
        *(len(images), len(layers)),
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(1.75 * len(layers) + 1.4, 2.0 * len(images) + 0.9),
    )
    highest = max(
        float(np.max(image)) for by_layer in images.values() for image in by_layer.values()
    )
    norm = LogNorm(FLOOR * highest, highest) if highest > 0.0 else None
    for row, (group, by_layer) in zip(axes, images.items(), strict=True):
        for ax, layer in zip(row, layers, strict=True):
            image = np.maximum(np.asarray(by_layer[layer], dtype=np.float64), FLOOR * highest)
            eta, phi = (
                np.linspace(-half, half, n + 1)
                for half, n in zip(HALF_WINDOW, image.shape, strict=True)
            )
            mesh = ax.pcolormesh(eta, phi, image.T, norm=norm, cmap="viridis")
            ax.set_xticks([-0.1, 0.1], ["-0.1", "0.1"])
            ax.set_yticks([-0.1, 0.1], ["-0.1", "0.1"])
            ax.minorticks_off()
            label = (
                layer
                if len(images) == 1
                else f"{layer}, {SPECIES_LABELS.get(group, group).removesuffix(' clusters')}"
            )
            ax.text(
                0.05,
                0.95,
                label,
                transform=ax.transAxes,
                ha="left",
                va="top",
                color="white",
                fontsize=9.5,
            )
    figure.colorbar(mesh, ax=axes, label=colour_label, pad=0.01)
    figure.supxlabel(r"$\Delta\eta$", fontsize=12.0)
    figure.supylabel(r"$\Delta\phi$ / rad", fontsize=12.0)
    name_source(axes[0, 0], *sources)
    return np.asarray(axes)
