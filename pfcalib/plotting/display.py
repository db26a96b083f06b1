"""The event display: cells over their noise, layer by layer, and the borders of clusters."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import SymLogNorm
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.geometry import Grid
from pfcalib.plotting.style import SIMULATION, styled

CLUSTER_COLOURS = ("#000000", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f3fbf")


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
