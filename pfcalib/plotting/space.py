"""Events in space: the cells of clusters as boxes, drawn once or, in JupyterLab, to be turned
around.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import (
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    Normalize,
    to_hex,
)
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray
from particle import Particle

from pfcalib.columns import SAMPLINGS
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.plotting.inspection import source_name
from pfcalib.plotting.style import CHARGED, NEUTRAL, styled
from pfcalib.samples.schema import Sample, event_index

REACH = 0.4  # in eta and phi around the leading cluster
THRESHOLD = 2.0  # lowest significance of a cell that is drawn
_TRUTH = ("EM", "nonEM", "Invisible", "Escaped")
# corners of a box through (r, phi, eta), the last fastest; its six faces, its twelve triangles
_CORNERS = np.array([(r, phi, eta) for r in (-1, 1) for phi in (-1, 1) for eta in (-1, 1)])
_FACES = np.array(
    [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
)
_TRIANGLES = np.concatenate([_FACES[:, :3], _FACES[:, (0, 2, 3)]])
_AXES = ("outwards [mm]", "around [mm]", "along the beam [mm]")
_CLUSTER_COLOURS = (CHARGED, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999")
_EM_COLOURS = (CHARGED, "#cccccc", NEUTRAL)  # from hadronic to electromagnetic
_LABELS = {
    "clusters": "cluster, by falling energy",
    "energy": "energy of a cell [GeV]",
    "truth": "true share of electrons and photons",
}


class SpaceCells(NamedTuple):
    """Cells of clusters of one event; arrays have one entry a cell of a cluster."""

    corners: NDArray[np.float64]  # (n, 8, 3) mm: outwards, around, along the beam
    energy: NDArray[np.float64]  # (n,) GeV at the EM scale, times the cluster's share
    significance: NDArray[np.float64]  # (n,) the same over the noise of the cell
    cluster: NDArray[np.int64]  # (n,) place of the cluster in the event, by falling energy
    sampling: NDArray[np.int64]  # (n,) as in `columns.SAMPLINGS`
    em_share: NDArray[np.float64]  # (n,) of electrons and photons in the true deposit; NaN: none
    what: str  # was shot

    def chosen(self, mask: NDArray[np.bool_]) -> SpaceCells:
        """The cells of a mask."""
        return self._replace(**{name: getattr(self, name)[mask] for name in self._fields[:-1]})

    def shown(self, threshold: float, colour: str) -> SpaceCells:
        """Those above a significance, and with the truth only those that a particle has hit."""
        hit = np.isfinite(self.em_share) if colour == "truth" else True
        return self.chosen((self.significance > threshold) & hit)


def space_cells(
    sample: Sample, event: int, *, reach: float = REACH, shrink: bool = True
) -> SpaceCells:
    """Cells around the most energetic cluster of an event, turned about the beam so that this
    cluster lies outwards.

    Parameters
    ----------
    sample : Sample
        Of a layout with cells, such as MLTree; truth is shown where there is any.
    event : int
        Place of the event among those of the sample.
    reach : float
        Largest distance from that cluster in eta and phi.
    shrink : bool
        Scale each box about its centre by the cube root of the cell's share of the largest energy,
        so that volumes in the same layer stand for energies; else it is the cell itself.

    Raises
    ------
    ConfigError
        If the sample has no such event.
    ValidationError
        If it has no cells.
    """
    if "cluster_cell_ID" not in sample.cells:
        raise ValidationError("the sample has no cells to be shown: its layout does not hold them")
    index = event_index(sample.scalars)
    if event not in index:
        raise ConfigError(f"event {event}: the sample has events 0 to {index.max(initial=-1)}")
    rows = np.flatnonzero(index == event)
    rows = rows[np.argsort(-sample["clusterE"][rows], kind="stable")]
    own, geo = sample[rows], sample.geo
    # single showers have the direction of their particle only
    kind = "cluster" if "clusterEta" in own.scalars else "truth"
    eta_0, phi_0 = (float(own[f"{kind}{name}"][0]) for name in ("Eta", "Phi"))
    cell = geo.rows(own.cells["cluster_cell_ID"])
    energy = own.cells["cluster_cell_E"].astype(np.float64)
    eta, phi, r, d_eta, d_phi, volume, sigma = (
        getattr(geo, name)[cell].astype(np.float64)
        for name in ("eta", "phi", "rPerp", "deta", "dphi", "volume", "sigma")
    )
    phi = np.angle(np.exp(1j * (phi - phi_0)))
    height = r * (np.sinh(eta + 0.5 * d_eta) - np.sinh(eta - 0.5 * d_eta))
    thickness = volume / (r * d_phi * height)  # as `geometry.Grid.volume` has it
    share = np.abs(energy) / np.abs(energy).max() if shrink else np.ones(len(energy))
    half = 0.5 * np.cbrt(share)[:, None] * np.column_stack([thickness, d_phi, d_eta])
    place = np.column_stack([r, phi, eta])[:, None] + half[:, None] * _CORNERS
    corners = np.stack(
        [
            place[..., 0] * np.cos(place[..., 1]),
            place[..., 0] * np.sin(place[..., 1]),
            place[..., 0] * np.sinh(place[..., 2]),
        ],
        axis=-1,
    )
    deposits = [own.cells.get(f"cluster_cell_hitsE_{name}", np.zeros(len(cell))) for name in _TRUTH]
    total = np.sum(deposits, axis=0, dtype=np.float64)
    em_share = np.divide(deposits[0], total, out=np.full(len(cell), np.nan), where=total > 0.0)
    cluster = np.repeat(np.arange(len(own)), np.diff(own.offsets))
    significance = np.divide(energy, sigma, out=np.full(len(cell), np.inf), where=sigma > 0.0)
    cells = SpaceCells(
        corners, energy, significance, cluster, geo.sampling[cell].astype(np.int64), em_share,
        _what_was_shot(own),
    )  # fmt: skip
    return cells.chosen(np.hypot(eta - eta_0, phi) < reach)


def _what_was_shot(sample: Sample) -> str:
    """Particle and energy as far as a sample tells them."""
    if not {"truthPdgId", "truthE"} <= sample.scalars.keys():
        return "clusters"
    name = Particle.from_pdgid(int(sample["truthPdgId"][0])).name
    return f"{name} of {sample['truthE'][0]:.3g} GeV"


@styled
def plot_space(
    cells: SpaceCells, *, colour: str = "clusters", threshold: float = THRESHOLD,
    source: str = "", limits: NDArray[np.float64] | None = None, ax: Axes3D | None = None,
) -> Axes3D:  # fmt: skip
    """The cells above a threshold as boxes, seen from the side.

    Parameters
    ----------
    cells : SpaceCells
    colour : str
        ``clusters``, ``energy`` or ``truth``: what the colours stand for.
    threshold : float
        Lowest significance of a cell that is drawn.
    source : str
        What made the sample.
    limits : ndarray, shape (2, 3), mm, optional
        Lowest and highest corner of what is shown; by default all that is above noise.
    ax : Axes3D, optional

    Returns
    -------
    Axes3D
    """
    shown = cells.shown(threshold, colour)
    values, norm, colours = _shades(shown, colour)
    if ax is None:
        figure = plt.figure(figsize=(6.4, 5.2))
        ax = figure.add_subplot(projection="3d")
    faces = shown.corners[:, _FACES].reshape(-1, 4, 3)
    boxes = Poly3DCollection(
        faces, facecolors=np.repeat(colours(norm(values)), 6, axis=0), edgecolors="#00000030",
        linewidths=0.2, alpha=0.85,
    )  # fmt: skip
    ax.add_collection3d(boxes)
    limits = _ends(cells) if limits is None else limits
    for name, (low, high), label in zip("xyz", limits.T, _AXES, strict=True):
        getattr(ax, f"set_{name}lim")(low, high)
        getattr(ax, f"set_{name}label")(label, fontsize=9.0)
        getattr(ax, f"{name}axis").set_major_locator(MaxNLocator(4))
    ax.set_box_aspect(limits[1] - limits[0])
    ax.minorticks_off()
    ax.tick_params(labelsize=8.0)
    ax.view_init(elev=18.0, azim=-62.0)
    bar = ax.figure.colorbar(plt.cm.ScalarMappable(norm, colours), ax=ax, shrink=0.6, pad=0.14)
    bar.set_label(_LABELS[colour], fontsize=9.5)
    bar.ax.minorticks_off()
    ax.set_title(f"{source}: {cells.what}", loc="left", style="italic", fontsize=10.5)
    return ax


def _ends(cells: SpaceCells) -> NDArray[np.float64]:
    """Lowest and highest corner of the cells above noise, of all where there is none; (2, 3) mm."""
    shown = cells.shown(THRESHOLD, "clusters")
    corners = (shown if len(shown.energy) else cells).corners
    return np.array([corners.min(axis=(0, 1)), corners.max(axis=(0, 1))])


def _shades(cells: SpaceCells, colour: str) -> tuple[NDArray[np.float64], Normalize, Any]:
    """What the colours stand for, one value a cell, with its scale and its map of colours."""
    if colour == "clusters":
        n = len(_CLUSTER_COLOURS)
        cluster = np.minimum(cells.cluster, n - 1).astype(np.float64)
        return cluster, Normalize(-0.5, n - 0.5), ListedColormap(_CLUSTER_COLOURS)
    if colour == "energy":
        energy = np.maximum(cells.energy, 1e-3)
        top = max(energy.max(initial=0.0), 2e-3)
        return energy, LogNorm(1e-3 * top, top), plt.get_cmap("viridis")
    if colour == "truth":
        colours = LinearSegmentedColormap.from_list("em_share", _EM_COLOURS)
        return cells.em_share, Normalize(0.0, 1.0), colours
    raise ConfigError(f"colour must be one of {', '.join(_LABELS)}, not {colour!r}")


def explore_space(sample: Sample, *, reach: float = REACH) -> Any:
    """Events to be turned around in JupyterLab, by event, layer and threshold, with the truth on or
    off.

    Parameters
    ----------
    sample : Sample
        See `space_cells`.
    reach : float

    Returns
    -------
    ipywidgets.VBox
        The controls and, below them, a plotly.graph_objects.FigureWidget of one mesh.

    Raises
    ------
    ConfigError
        If plotly, ipywidgets or anywidget, the extra ``lab``, is not installed.
    """
    require_lab()
    import ipywidgets
    import plotly.graph_objects as go

    n_events = int(event_index(sample.scalars).max()) + 1
    source = source_name(sample.metadata, "")
    layers = [SAMPLINGS[number] for number in np.unique(sample.geo.sampling)]
    wide = {"style": {"description_width": "initial"}, "continuous_update": False}
    event = ipywidgets.IntSlider(0, 0, n_events - 1, description="event", **wide)
    layer = ipywidgets.Dropdown(options=["all layers", *layers], description="layer")
    threshold = ipywidgets.FloatSlider(THRESHOLD, min=0.0, max=20.0, step=0.5, **wide)
    threshold.description = "cells above E/σ"
    colour = ipywidgets.Dropdown(options=["clusters", "energy"], description="colours")
    truth = ipywidgets.Checkbox(False, description="truth")
    figure = go.FigureWidget(
        go.Mesh3d(
            hovertemplate="%{text}<extra></extra>", intensitymode="cell", flatshading=True,
            lighting={"ambient": 0.75},
        )
    )  # fmt: skip
    eye = {"x": 1.1, "y": -2.05, "z": 0.75}  # as of the drawing
    figure.update_layout(
        height=560, margin={"l": 0, "r": 0, "t": 40, "b": 0}, uirevision="the eye stays",
        scene={"camera": {"eye": eye}},
    )  # fmt: skip

    def draw(*_: Any) -> None:
        cells = space_cells(sample, event.value, reach=reach)
        shades = "truth" if truth.value else colour.value
        shown = cells.shown(threshold.value, shades)
        if layer.value != "all layers":
            shown = shown.chosen(shown.sampling == SAMPLINGS.index(layer.value))
        with figure.batch_update():
            _update(figure.data[0], shown, shades)
            # the same box for all thresholds and layers of an event, a millimetre alike in all axes
            size = np.ptp(_ends(cells), axis=0)
            aspect = dict(zip("xyz", size / np.cbrt(size.prod()), strict=True))
            figure.layout.scene.update(aspectmode="manual", aspectratio=aspect)
            for name, text, ends in zip("xyz", _AXES, _ends(cells).T, strict=True):
                figure.layout.scene[f"{name}axis"].update(title={"text": text}, range=ends)
            figure.layout.title.text = (
                f"{source}: {cells.what}; {len(shown.energy)} cells, {shown.energy.sum():.4g} GeV"
            )

    for control in (event, layer, threshold, colour, truth):
        control.observe(draw, names="value")
    draw()
    rows = (event, threshold), (layer, colour, truth)
    return ipywidgets.VBox([*(ipywidgets.HBox(row) for row in rows), figure])


def _update(mesh: Any, cells: SpaceCells, colour: str) -> None:
    """Give a plotly mesh the boxes of some cells."""
    n = len(cells.energy)
    values, norm, colours = _shades(cells, colour)
    x, y, z = cells.corners.reshape(-1, 3).T
    i, j, k = (8 * np.arange(n)[:, None, None] + _TRIANGLES).reshape(-1, 3).T
    heights = np.log10(values) if colour == "energy" else values
    ends = np.array([norm.vmin, norm.vmax], dtype=np.float64)
    low, high = np.log10(ends) if colour == "energy" else ends
    edges = np.linspace(0.0, 1.0, 1 + (colours.N if colour == "clusters" else 64))
    scale = [
        (edge, to_hex(colours(0.5 * (a + b)))) for a, b in pairwise(edges) for edge in (a, b)
    ]  # steps of one colour each
    text = [
        f"{SAMPLINGS[s]}, cluster {c}<br>{e:.3g} GeV, E/σ = {over:.3g}"
        for s, c, e, over in zip(
            cells.sampling, cells.cluster, cells.energy, cells.significance, strict=True
        )
    ]
    mesh.update(x=x, y=y, z=z, i=i, j=j, k=k, text=np.repeat(text, 8))
    mesh.update(
        intensity=np.repeat(heights, 12), cmin=low, cmax=high, colorscale=scale,
        colorbar={"title": {"text": _LABELS[colour], "side": "right"}},
    )  # fmt: skip
    mesh.colorbar.update(tickprefix="10^" if colour == "energy" else "")


def require_lab() -> None:
    """Raise ConfigError where the packages of the extra ``lab`` are not installed; imports
    nothing.
    """
    needed = ("plotly", "ipywidgets", "anywidget")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"events to turn around need {', '.join(missing)}: pip install 'pfcalib[lab]'"
        )
