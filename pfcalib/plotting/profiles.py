"""Longitudinal profiles of showers and their ratios to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from pfcalib.plotting.curves import SOURCES, Pair, draw_curve
from pfcalib.plotting.style import COLOURS, GREY, name_source, styled


@styled
def plot_profiles(
    profiles: Mapping[str, Pair], *, units: Sequence[str],
    names: tuple[str, str] = ("fast", "Geant4"), colours: Sequence[str] = COLOURS,
    sources: Sequence[str] = SOURCES,
) -> NDArray[Any]:  # fmt: skip
    """Longitudinal profiles and their references, and below them the ratios; one column each.

    Parameters
    ----------
    profiles : mapping of str to (Curve, Curve)
        By label, such as a species: energy a unit of depth of either sample, against depth.
    units : sequence of str
        Of the depth, one a profile, in LaTeX.
    names, colours, sources
        As of `pfcalib.plotting.curves.plot_ratio_curves`.

    Returns
    -------
    ndarray of Axes, shape (2, n_profiles)
    """
    size = (4.5 * len(profiles), 5.2)
    _, axes = plt.subplots(
        2, len(profiles), sharex="col", squeeze=False, height_ratios=(2.2, 1.0), figsize=size
    )
    for (upper, lower), (label, pair), unit, colour in zip(
        axes.T, profiles.items(), units, colours, strict=False
    ):
        for name, curve, hollow in zip(names[::-1], pair[::-1], (True, False), strict=True):
            draw_curve(upper, curve, label=f"{label} {name}", colour=colour, hollow=hollow)
        draw_curve(lower, pair[0].ratio(pair[1]), label=label, colour=colour)
        lower.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        upper.set(yscale="log", ylabel=rf"$E_\mathrm{{layer}}/E_\mathrm{{true}}$ per ${unit}$")
        edges = pair[0].edges
        lower.set(xlabel=rf"depth behind the presampler [${unit}$]", xlim=(edges[0], edges[-1]))
        low, high = upper.get_ylim()
        upper.set_ylim(low, high * (high / low) ** 0.3)  # for the legend
        upper.legend()
    axes[1, 0].set_ylabel(" / ".join(names))
    name_source(axes[0, 0], *sources)
    return np.asarray(axes)
