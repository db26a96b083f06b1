"""Figures of clusters: event displays layer by layer, moments, and layers against energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import SymLogNorm
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import COLUMNS, LAYER_NAMES, label
from pfcalib.geometry import Grid
from pfcalib.plotting.curves import draw_distributions
from pfcalib.plotting.style import (
    CHARGED,
    GREY,
    NEUTRAL,
    SIMULATION,
    log_ticks,
    name_source,
    styled,
)

# presampler, EMB, Tile
LAYER_COLOURS = ("#999999", "#fee08b", "#f46d43", "#a50026", "#c6dbef", "#4292c6", "#08306b")
BUDGET_COLOURS = ("#4292c6", "#c6dbef", "#999999")  # in clusters, outside of them, dead material
CLUSTER_COLOURS = ("#000000", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f3fbf")
TELLING_MOMENTS = {  # bins of the moments that tell neutral and charged pions apart best
    "cluster_CENTER_LAMBDA": np.geomspace(50.0, 2500.0, 31),
    "cluster_FIRST_ENG_DENS": np.geomspace(1e-8, 1e-2, 31),
    "cluster_SECOND_R": np.geomspace(100.0, 1e5, 31),
    "cluster_SECOND_LAMBDA": np.geomspace(300.0, 1e6, 31),
    "cluster_LATERAL": np.linspace(0.0, 1.0, 31),
    "cluster_ENG_FRAC_CORE": np.linspace(0.0, 1.0, 31),
}
AXIS_LABELS = {
    "cluster_ISOLATION": "isolation",
    "cluster_LATERAL": "lateral moment",
    "cluster_LONGITUDINAL": "longitudinal moment",
}


@styled
def plot_event(
    energy: ArrayLike,
    owner: ArrayLike,
    sigma: ArrayLike,
    grid: Grid,
    *,
    title: str,
    layers: Sequence[str] = LAYER_NAMES[1:],
) -> NDArray[np.object_]:
    """Energy of the cells of an event over their noise, one image a layer, with the borders of the
    clusters.

    Parameters
    ----------
    energy : array_like, shape (n_cells,), GeV
    owner : array_like of int, shape (n_cells,)
        Cluster of each cell; -1 for none. The first ones have borders of their own colour.
    sigma : array_like, shape (n_cells,), GeV
    grid : Grid
        A window; a whole barrel shows little.
    title : str
        What was shot.
    layers : sequence of str
    """
    significance, clusters = np.asarray(energy) / np.asarray(sigma), np.asarray(owner)
    highest = max(20.0, float(significance.max()))
    figure, axes = plt.subplots(
        2,
        -(-len(layers) // 2),
        figsize=(2.7 * -(-len(layers) // 2) + 1.0, 5.6),
        sharex=True,
        sharey=True,
    )
    norm = SymLogNorm(2.0, vmin=-highest, vmax=highest)
    for ax, name in zip(axes.flat, layers, strict=True):
        place = next(i for i, layer in enumerate(grid.layers) if layer.name == name)
        shape = (grid.layers[place].n_eta, grid.layers[place].n_phi)
        cells = slice(grid.offset[place], grid.offset[place + 1])
        edges_eta = grid.eta_min + np.arange(shape[0] + 1) * grid.layers[place].d_eta
        edges_phi = grid.phi_min + np.arange(shape[1] + 1) * grid.layers[place].d_phi
        image = ax.pcolormesh(
            edges_eta,
            edges_phi,
            significance[cells].reshape(shape).T,
            norm=norm,
            cmap="RdBu_r",
            rasterized=True,
        )
        _draw_borders(ax, clusters[cells].reshape(shape), edges_eta, edges_phi)
        ax.set_title(name, fontsize=10.5, loc="right")
    for ax in axes[-1]:
        ax.set_xlabel(r"$\eta$")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"$\phi$ [rad]")
    bar = figure.colorbar(image, ax=axes, label=r"$E/\sigma_\mathrm{noise}$", pad=0.015, aspect=30)
    bar.set_ticks(
        [tick for tick in (-4, 0, 2, 4, 10, 30, 100, 300, 1000, 3000) if tick < highest],
        labels=None,
    )
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.minorticks_off()
    bar.ax.set_ylim(-4.0, highest)
    figure.suptitle(f"{SIMULATION}: {title}", x=0.01, ha="left", style="italic", fontsize=10.5)
    return np.asarray(axes)


def _draw_borders(
    ax: Axes,
    owner: NDArray[np.int64],
    edges_eta: NDArray[np.floating],
    edges_phi: NDArray[np.floating],
) -> None:
    """Lines around the cells of each cluster, those of the least energetic one first."""
    framed = np.pad(owner, 1, constant_values=-1)
    for cluster in np.unique(owner[owner >= 0])[::-1]:
        mine = framed == cluster
        i, j = np.nonzero(mine[1:, 1:-1] != mine[:-1, 1:-1])  # border between i - 1 and i in eta
        lines = [
            ((edges_eta[a], edges_phi[b]), (edges_eta[a], edges_phi[b + 1]))
            for a, b in zip(i, j, strict=True)
        ]
        i, j = np.nonzero(mine[1:-1, 1:] != mine[1:-1, :-1])
        lines += [
            ((edges_eta[a], edges_phi[b]), (edges_eta[a + 1], edges_phi[b]))
            for a, b in zip(i, j, strict=True)
        ]
        colour = CLUSTER_COLOURS[min(int(cluster), len(CLUSTER_COLOURS) - 1)]
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.3))


@styled
def plot_moments(
    values: Mapping[str, Mapping[str, ArrayLike]],
    *,
    edges: Mapping[str, ArrayLike] = TELLING_MOMENTS,
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[np.object_]:
    """Distributions of moments, one panel each.

    Parameters
    ----------
    values : mapping of str to mapping of str to array_like
        By label, then by column of `pfcalib.columns`. Labels in pairs are drawn in one colour, the
        second one dashed, when there are four.
    edges : mapping of str to array_like
        Bins of each moment; where they are in constant ratios the axis is logarithmic.
    sources : sequence of str
    """
    figure, axes = plt.subplots(2, -(-len(edges) // 2), figsize=(9.0, 5.4))
    colours = (NEUTRAL, NEUTRAL, CHARGED, CHARGED) if len(values) == 4 else (NEUTRAL, CHARGED)
    for ax, (name, bins) in zip(axes.flat, edges.items(), strict=False):
        draw_distributions(
            ax,
            {text: columns[name] for text, columns in values.items()},
            edges=bins,
            colours=colours,
        )
        steps = np.asarray(bins, dtype=np.float64)
        if steps[0] > 0.0 and np.allclose(np.diff(np.log(steps)), np.log(steps[1] / steps[0])):
            ax.set_xscale("log")
        ax.set_xlabel(AXIS_LABELS.get(name, label(name) if name in COLUMNS else name))
    for ax in axes[:, 0]:
        ax.set_ylabel("share a bin")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    name_source(axes.flat[0], *sources)
    return np.asarray(axes)


@styled
def plot_stacks(
    stacks: Mapping[str, NDArray[np.float64]], edges: ArrayLike, labels: Sequence[str], *,
    x_label: str, y_label: str,
    colours: Sequence[str] = LAYER_COLOURS, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[np.object_]:  # fmt: skip
    """Shares on top of each other against a variable, one panel a species.

    Parameters
    ----------
    stacks : mapping of str to ndarray, shape (n_bins, n_parts)
        By title of the panel.
    edges : array_like, shape (n_bins + 1,)
    labels, colours : sequence of str
        Of the parts, from the bottom to the top.
    x_label, y_label : str
    sources : sequence of str
    """
    figure, axes = plt.subplots(1, len(stacks), figsize=(4.0 * len(stacks) + 0.6, 4.2), sharey=True)
    for ax, (title, shares) in zip(axes, stacks.items(), strict=True):
        upper = np.cumsum(np.nan_to_num(shares), axis=1)
        for i, (part, colour) in enumerate(zip(labels, colours, strict=False)):
            ax.stairs(
                upper[:, i],
                edges,
                baseline=upper[:, i - 1] if i else 0.0,
                fill=True,
                color=colour,
                label=part,
            )
        log_ticks(ax, decades=True)
        ax.set(
            xlabel=x_label,
            xlim=(np.min(edges), np.max(edges)),
            ylim=(0.0, 1.12 * float(upper[:, -1].max())),
        )
        ax.text(0.04, 0.96, title, transform=ax.transAxes, va="top")
        ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
    axes[0].set_ylabel(y_label)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside right center")
    name_source(axes[0], *sources)
    return np.asarray(axes)
