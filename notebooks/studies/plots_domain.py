"""Figures of the study of domain shift: the resolution of calibrations against pile-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pfcalib.metrics.curve import Curve
from pfcalib.plotting.style import (
    QUANTITY_LABELS,
    SIMULATION,
    SPECIES_LABELS,
    looks_of,
    name_figure,
    styled,
)


@styled
def plot_resolution(
    resolutions: Mapping[str, Mapping[str, Curve]],
    *,
    x_label: str,
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:
    """Resolution of calibrations against a variable such as mu, one column a species.

    Parameters
    ----------
    resolutions : mapping of str to mapping of str to Curve
        ``resolutions[model][species]``, as of `reporting.catalogue.domain_results.follow_pileup`.
    x_label : str
        With unit.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_species,)
    """
    looks, species = looks_of(list(resolutions)), list(next(iter(resolutions.values())))
    figure, axes = plt.subplots(
        1, len(species), squeeze=False, figsize=(4.4 * len(species) + 0.7, 4.2)
    )
    for ax, name in zip(axes[0], species, strict=True):
        for place, (model, by_species) in enumerate(resolutions.items()):
            _draw_points(
                ax, by_species[name], (place + 1.0) / (len(resolutions) + 1.0), looks[model]
            )
        ax.text(0.04, 0.95, SPECIES_LABELS.get(name, name), transform=ax.transAxes, va="top")
        ax.set(xlabel=x_label, ylim=(0.0, 1.15 * ax.get_ylim()[1]))
    axes[0, 0].set_ylabel(QUANTITY_LABELS["resolution"])
    name_figure(figure, axes, sources)
    return np.asarray(axes[0])


def _draw_points(ax: Axes, estimate: Curve, place: float, look: Any) -> None:
    """Points with errors, joined by a line; the place, from 0 to 1, sets those of several
    calibrations a little apart.
    """
    low, high = estimate.edges[:-1], estimate.edges[1:]
    style: dict[str, Any] = {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": look.line,
        "linewidth": 0.9,
        "label": look.label,
    }
    ax.errorbar(
        0.5 * (low + high) + 0.3 * (place - 0.5) * (high - low),
        estimate.value,
        yerr=estimate.error,
        **style,
    )
