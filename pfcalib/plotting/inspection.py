"""The page about a sample that `pfcalib inspect --plot` draws: energies, response, directions,
cells and layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import hist
import matplotlib.pyplot as plt
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.columns import label
from pfcalib.plotting.style import GEANT4, GREY, NEUTRAL, SIMULATION, log_ticks, name_source, styled
from pfcalib.samples.histograms import SAMPLINGS, SampleHistograms

MIN_BINS, MAX_BINS = 12, 60  # of an axis of the map of directions


def source_name(metadata: Mapping[str, Any], layout: str) -> str:
    """What made a sample, as figures name it; a foreign file without a word about that is named by
    its layout.

    >>> source_name({"generator": "Geant4 11.4.1, synthetic tables"}, "showers")
    'Geant4 (synthetic tables)'
    >>> source_name({}, "PHYSLITE")
    'PHYSLITE file'
    """
    generator = str(metadata.get("generator", ""))
    if generator.startswith("pfcalib"):
        return SIMULATION
    if generator.startswith("Geant4"):
        return GEANT4 if "synthetic" in generator else "Geant4"
    return generator or f"{metadata.get('converted_from', layout)} file"


@styled
def plot_sample(histograms: SampleHistograms, *, title: str, source: str) -> NDArray[np.object_]:
    """One page of six panels; a panel says so where the file does not have what it shows.

    Parameters
    ----------
    histograms : SampleHistograms
    title : str
        File and number of clusters.
    source : str
        What made the sample, see `source_name`.

    Returns
    -------
    array of Axes, shape (2, 3)
    """
    figure, axes = plt.subplots(2, 3, figsize=(13.0, 7.6))
    reco, truth = (label(name).removesuffix(" [GeV]") for name in ("clusterE", "truthE"))
    _draw_histogram(axes[0, 0], histograms.truth_energy, x_label=label("truthE"))
    _draw_histogram(axes[0, 1], histograms.cluster_energy, x_label=label("clusterE"))
    _draw_histogram(axes[0, 2], histograms.response, x_label=f"{reco} / {truth}", log=False)
    axes[0, 2].axvline(1.0, color=GREY, linestyle=":", linewidth=1.0)
    _draw_directions(axes[1, 0], histograms.directions, histograms.directions_of)
    _draw_histogram(axes[1, 1], histograms.n_cells, x_label="cells of a cluster")
    _draw_layers(axes[1, 2], histograms.layer_energy)
    name_source(axes[0, 0], source)
    figure.suptitle(title, fontsize=11.0)
    return np.asarray(axes)


@styled
def save_page(
    path: str | os.PathLike[str], histograms: SampleHistograms, *, title: str, source: str
) -> None:
    """Draw the page into a file, which appears when it is complete; its suffix gives the format,
    other parameters as in `plot_sample`.
    """
    figure = plot_sample(histograms, title=title, source=source)[0, 0].figure
    try:
        with new_file(path) as temporary:
            figure.savefig(temporary)
    finally:
        plt.close(figure)


def _draw_histogram(ax: Axes, histogram: hist.Hist, *, x_label: str, log: bool = True) -> None:
    """A histogram, on a logarithmic axis without its empty ends; entries outside of the axis are
    counted in a corner.
    """
    below, *_, above = histogram.view(flow=True)
    outside = below if log else below + above
    edges, values = histogram.axes[0].edges, histogram.values()
    shown = _shown(values)
    ax.set_xlabel(x_label)
    if shown is None:
        _say_nothing(ax, outside)
        return
    if log:
        step = 2 if shown.stop - shown.start > MAX_BINS else 1
        edges, values = _merged(edges, values, shown, step)
        log_ticks(ax, decades=edges[-1] / edges[0] > 100.0)
    mplhep.histplot(values, edges, ax=ax, histtype="fill", color=NEUTRAL, alpha=0.25)
    mplhep.histplot(values, edges, ax=ax, histtype="step", color=NEUTRAL, yerr=False)
    ax.set(ylabel="entries a bin", xlim=(edges[0], edges[-1]), ylim=(0.0, 1.2 * values.max()))
    if outside:
        text = f"{outside:.0f} {'below the' if log else 'outside of the'} axis"
        ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize=9.5)


def _draw_directions(ax: Axes, histogram: hist.Hist, what: str) -> None:
    """Map of directions, trimmed to where clusters are, in at most MAX_BINS bins a side."""
    ax.set(xlabel=label(f"{what}Eta"), ylabel=label(f"{what}Phi"))
    values = histogram.values()
    in_eta, in_phi = _shown(values.sum(axis=1)), _shown(values.sum(axis=0))
    if in_eta is None or in_phi is None:
        _say_nothing(ax)
        return
    n_bins = min(MAX_BINS, max(MIN_BINS, int(np.sqrt(values.sum()))))
    edges = []
    for side, shown in enumerate((in_eta, in_phi)):
        step = -(-(shown.stop - shown.start) // n_bins)
        side_edges, flat = _merged(
            histogram.axes[side].edges, np.moveaxis(values, side, 0), shown, step
        )
        edges.append(side_edges)
        values = np.moveaxis(flat, 0, side)
    image = ax.pcolormesh(
        *edges,
        np.where(values > 0, values, np.nan).T,
        norm=LogNorm() if values.max() > 20 else None,
        cmap="viridis",
        rasterized=True,
    )
    ax.figure.colorbar(image, ax=ax, label="clusters a bin", pad=0.02)


def _draw_layers(ax: Axes, layer_energy: NDArray[np.float64]) -> None:
    used = np.flatnonzero(layer_energy)
    ax.set_ylabel("share of the energy")
    if not len(used):
        _say_nothing(ax)
        return
    share = layer_energy[used] / layer_energy.sum()
    ax.bar(np.arange(len(used)), share, color=NEUTRAL, alpha=0.25, edgecolor=NEUTRAL, linewidth=1.5)
    ax.set_xticks(
        np.arange(len(used)),
        [SAMPLINGS[place] for place in used],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=9.5,
    )
    ax.tick_params(axis="x", which="both", length=0)
    ax.set_ylim(min(0.0, 1.2 * share.min()), 1.2 * share.max())
    ax.axhline(0.0, color="black", linewidth=0.8)


def _say_nothing(ax: Axes, n_outside: float = 0.0) -> None:
    """A panel about something that the file does not have."""
    text = f"all {n_outside:.0f} entries lie outside" if n_outside else "not in this file"
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set(xticks=[], yticks=[])
    ax.minorticks_off()


def _shown(values: NDArray[np.float64]) -> slice | None:
    """Bins from the first to the last that is filled, None where all are empty."""
    filled = np.flatnonzero(values)
    return slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else None


def _merged(
    edges: NDArray[np.float64], values: NDArray[np.float64], shown: slice, step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges and sums of each `step` bins of the range shown, which grows at its end to whole steps,
    along the first axis.
    """
    n_bins = -(-(shown.stop - shown.start) // step)
    places = np.minimum(shown.start + step * np.arange(n_bins + 1), len(edges) - 1)
    return edges[places], np.add.reduceat(values[: places[-1]], places[:-1], axis=0)
