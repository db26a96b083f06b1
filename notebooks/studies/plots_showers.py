"""Figures of the showers before noise and clustering: the longitudinal profile, and how well two
simulations are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from pfcalib.geometry import Layer
from pfcalib.metrics.roc import RocCurve
from pfcalib.plotting.curves import draw_distributions
from pfcalib.plotting.style import (
    CHARGED,
    COLOURS,
    GEANT4,
    GREY,
    NEUTRAL,
    SIMULATION,
    name_source,
    styled,
)

_LABELS = {"pi0": r"$\pi^0$", "pi+": r"$\pi^+$"}


@styled
def plot_profile(
    shares: Mapping[str, tuple[ArrayLike, ArrayLike]],
    layers: Sequence[Layer],
    *,
    title: str = "",
    sources: Sequence[str] = (SIMULATION, GEANT4),
) -> NDArray[np.object_]:
    """Mean longitudinal profile of pi0 against radiation lengths and of pi+ against interaction
    lengths.

    Parameters
    ----------
    shares : mapping of str to (array_like, array_like), each of shape (n_layers,)
        For "pi0" and "pi+", the mean EM-scale energy of each layer over the true energy, of the
        fast simulation and of Geant4. The presampler is left out; pi0 are drawn up to EMB3.
    layers : sequence of Layer
    title : str
        Of the legends, such as the range of energies.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (2,)
    """
    _, axes = plt.subplots(1, 2, figsize=(8.6, 3.8))
    units = {
        "pi0": ("x0", "X_0", NEUTRAL, 4),
        "pi+": ("lambda_int", r"\lambda", CHARGED, len(layers)),
    }
    for ax, (species, (attribute, symbol, colour, last)) in zip(axes, units.items(), strict=True):
        thickness = np.array([getattr(layer, attribute) for layer in layers])
        edges = np.cumsum(np.append(0.0, thickness[1:]))
        fast, geant4 = (
            (np.asarray(values, dtype=np.float64) / thickness)[1:] for values in shares[species]
        )
        ax.stairs(fast, edges, color=colour, label="fast", linewidth=1.8)
        ax.plot(
            0.5 * (edges[1:] + edges[:-1]), geant4, "o", color=GREY, mfc="white", label="Geant4"
        )
        ax.set(
            xlabel=rf"depth from the front of EMB1 [${symbol}$]",
            ylabel=rf"$E_\mathrm{{layer}}/E_\mathrm{{true}}$ per ${symbol}$",
            yscale="log",
        )
        shown = np.concatenate([fast[: last - 1], geant4[: last - 1]])
        ax.set_ylim(0.3 * shown[shown > 0.0].min(), 8.0 * shown.max())
        ax.set_xlim(0.0, edges[last - 1])
        ax.legend(title=f"{_LABELS[species]}, {title}", alignment="left")
    name_source(axes[0], *sources)
    return np.asarray(axes)


@styled
def plot_responses(
    values: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    bins: Sequence[str],
    *,
    edges: ArrayLike,
) -> NDArray[np.object_]:
    """Distributions of the response, one panel a bin of energy.

    Parameters
    ----------
    values : mapping of str to sequence of (array_like, array_like)
        For "pi0" and "pi+", and each bin, the responses of the fast simulation and of Geant4.
    bins : sequence of str
        Names of the bins.
    edges : array_like
        Of the response.
    """
    _, axes = plt.subplots(1, len(bins), figsize=(3.3 * len(bins), 3.6))
    for i, ax in enumerate(axes):
        drawn: dict[str, Any] = {}
        for species, pairs in values.items():
            drawn[f"{_LABELS[species]} fast"], drawn[f"{_LABELS[species]} Geant4"] = pairs[i]
        draw_distributions(ax, drawn, edges=edges, colours=(NEUTRAL, NEUTRAL, CHARGED, CHARGED))
        ax.set_xlabel(r"$E^\mathrm{EM}/E_\mathrm{true}$")
        ax.text(0.96, 0.95, bins[i], transform=ax.transAxes, ha="right", va="top")
    axes[0].set_ylabel("share a bin")
    axes[0].legend(loc="upper left")
    axes[0].set_ylim(0.0, 1.35 * axes[0].get_ylim()[1])
    name_source(axes[0], SIMULATION, GEANT4)
    return np.asarray(axes)


@styled
def plot_separation(
    curves: Mapping[str, RocCurve], importance: Mapping[str, Mapping[str, float]], *, n_moments: int = 10,
    sources: Sequence[str] = (SIMULATION, GEANT4),
) -> NDArray[np.object_]:  # fmt: skip
    """ROC curves of the trees that tell the simulations apart, and the moments that they use most.

    Parameters
    ----------
    curves : mapping of str to RocCurve
        By label; the fast simulation is the signal.
    importance : mapping of str to mapping of str to float
        For each label, the loss of AUC by the moment that is shuffled.
    n_moments : int
        Moments to show, those with the largest loss for any label.
    sources : sequence of str
    """
    _, axes = plt.subplots(1, 2, figsize=(9.2, 4.2), width_ratios=(1.0, 1.05))
    for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes[0].plot(curve.had_efficiency, curve.em_efficiency, color=colour, label=label)
    axes[0].plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle=":", linewidth=1.0)
    axes[0].set(
        xlabel="share of Geant4 showers above the cut",
        ylabel="share of fast showers above the cut",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes[0].legend(loc="lower right")
    _draw_importance(axes[1], importance, n_moments)
    name_source(axes[0], *sources)
    return np.asarray(axes)


def _draw_importance(
    ax: Axes, importance: Mapping[str, Mapping[str, float]], n_moments: int
) -> None:
    largest = {
        name: max(losses[name] for losses in importance.values())
        for name in next(iter(importance.values()))
    }
    names = sorted(largest, key=lambda name: -largest[name])[:n_moments]
    height = 0.8 / len(importance)
    for i, (losses, colour) in enumerate(zip(importance.values(), COLOURS, strict=False)):
        ax.barh(
            np.arange(len(names)) + (i + 0.5) * height - 0.4,
            [losses[name] for name in names],
            height,
            color=colour,
        )
    ax.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
    ax.tick_params(axis="y", which="both", length=0)
    ax.invert_yaxis()
    ax.minorticks_off()
    ax.set_xlabel("loss of AUC when shuffled")
