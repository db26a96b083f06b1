"""Figures of the study of local cell weighting: the map of P_EM, maps of cell weights, closure step
by step and against pile-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from numpy.typing import NDArray

from pfcalib.metrics.curve import Curve
from pfcalib.metrics.response import ResponseCurves
from pfcalib.plotting.style import (
    CHARGED,
    GREY,
    NEUTRAL,
    SIMULATION,
    log_ticks,
    name_source,
    styled,
)

STEP_LABELS = {
    "em": (r"EM scale", r"$E_\mathrm{dep}$"),
    "cells": (r"cell weights", r"$E_\mathrm{dep}$"),
    "ooc": (r"out of cluster", r"$E_\mathrm{dep} + E_\mathrm{out}$"),
    "full": (r"dead material", r"$E_\mathrm{dep} + E_\mathrm{out} + E_\mathrm{dead}$"),
}
SPECIES_LOOKS = {"pi0": (NEUTRAL, "o", r"$\pi^0$"), "pic": (CHARGED, "s", r"$\pi^\pm$")}
# colour, marker
PILEUP_LOOKS = (("#999999", "s"), ("#000000", "o"), ("#009e73", "^"), ("#cc79a7", "v"))
MEV_IN_GEV = 1e3


@styled
def plot_p_em_maps(
    content: NDArray[np.float64], edges: Sequence[NDArray[np.float64]], *, eta_bin: int, energy_bins: Sequence[int],
    limits: tuple[tuple[float, float], tuple[float, float]] = ((-9.0, -5.0), (1.4, 3.6)), sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """P_EM against density and depth, one panel a bin of cluster energy.

    Parameters
    ----------
    content : ndarray, shape (n_eta, n_energy, n_density, n_lambda)
    edges : four ndarrays
        Of its axes: |eta|, log10(E / MeV), log10 density (MeV/mm3) - log10(E / MeV), log10(lambda /
        mm).
    eta_bin, energy_bins
        Which bins are shown.
    limits : pair of (float, float)
        Range of density and depth that is shown.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_energy_bins,)
    """
    figure, axes = plt.subplots(
        1, len(energy_bins), figsize=(3.3 * len(energy_bins) + 0.9, 3.7), sharey=True, squeeze=False
    )
    for ax, energy_bin in zip(axes[0], energy_bins, strict=True):
        drawn = ax.pcolormesh(
            edges[2], edges[3], content[eta_bin, energy_bin].T, cmap="RdBu_r", vmin=0.0, vmax=1.0
        )
        ax.set(xlabel=r"$\log_{10}\langle\rho\rangle - \log_{10}E$", xlim=limits[0], ylim=limits[1])
        low, high = 10.0 ** edges[1][energy_bin : energy_bin + 2] / MEV_IN_GEV
        ax.text(
            0.05,
            0.94,
            f"{low:.3g} to {high:.3g} GeV",
            transform=ax.transAxes,
            va="top",
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0},
        )
    axes[0, 0].set_ylabel(r"$\log_{10}(\lambda_\mathrm{centre}$ / mm)")
    figure.colorbar(drawn, ax=axes[0].tolist(), label=r"$P_\mathrm{EM}$")
    name_source(axes[0, 0], *sources)
    return np.asarray(axes[0])


@styled
def plot_weight_maps(
    weights: Mapping[str, NDArray[np.float64]], energy_edges: NDArray[np.float64], density_edges: NDArray[np.float64], *, title: str,
    limits: tuple[float, float] = (0.4, 2.0), sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Cell weights of one layer against cluster energy and energy density of the cell, one panel a
    kind; bins that keep weight 1 are left white.

    Parameters
    ----------
    weights : mapping of str to ndarray, shape (n_energy, n_density)
        By label.
    energy_edges : ndarray
        Of log10(E / MeV).
    density_edges : ndarray
        Of log10 of the density in MeV/mm3.
    title : str
        Layer and range of |eta|.
    limits : (float, float)
        Of the colours; 1 is white.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_kinds,)
    """
    figure, axes = plt.subplots(
        1, len(weights), figsize=(4.1 * len(weights) + 0.9, 4.0), sharey=True, squeeze=False
    )
    x = 10.0**energy_edges / MEV_IN_GEV
    for ax, (label, weight) in zip(axes[0], weights.items(), strict=True):
        shown = np.ma.masked_where(weight == 1.0, weight)
        drawn = ax.pcolormesh(
            x, density_edges, shown.T, cmap="PuOr_r", norm=TwoSlopeNorm(1.0, *limits)
        )
        log_ticks(ax, decades=True)
        ax.set(xlabel=r"$E^\mathrm{EM}_\mathrm{cluster}$ / GeV", xlim=(x[0], x[-1]))
        ax.text(0.05, 0.94, f"{label}\n{title}", transform=ax.transAxes, va="top")
    axes[0, 0].set_ylabel(r"$\log_{10}$ of cell density / (MeV/mm$^3$)")
    figure.colorbar(drawn, ax=axes[0].tolist(), label="cell weight", extend="both")
    name_source(axes[0, 0], *sources)
    return np.asarray(axes[0])


@styled
def plot_steps(
    curves: Mapping[str, Mapping[str, ResponseCurves]], *, tolerance: float = 0.02, goal: tuple[float, float] = (2.0, 500.0),
    y_limits: tuple[float, float] | None = None, sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:  # fmt: skip
    """Median response after each step over the target of this step, with statistical bands; one
    panel a step.

    Parameters
    ----------
    curves : mapping of str to mapping of str to ResponseCurves
        ``curves[step][species]`` with steps of STEP_LABELS and species of SPECIES_LOOKS.
    tolerance, goal : float, (float, float)
        Half width of the box around 1, and its range of true energy in GeV.
    y_limits : (float, float), optional
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_steps,)
    """
    _, axes = plt.subplots(
        1, len(curves), figsize=(3.35 * len(curves) + 0.6, 3.9), sharey=True, squeeze=False
    )
    for ax, (step, by_species) in zip(axes[0], curves.items(), strict=True):
        ax.fill_between(
            goal,
            1.0 - tolerance,
            1.0 + tolerance,
            color=GREY,
            alpha=0.18,
            linewidth=0.0,
            label=f"within {100 * tolerance:g} %",
        )
        ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        for species, curves_of in by_species.items():
            curve = curves_of.median
            colour, marker, label = SPECIES_LOOKS[species]
            known = np.isfinite(curve.value)
            x, value, error = curve.centres[known], curve.value[known], curve.error[known]
            ax.fill_between(
                x, value - error, value + error, color=colour, alpha=0.25, linewidth=0.0
            )
            ax.plot(
                x, value, color=colour, marker=marker, markersize=3.5, linewidth=1.1, label=label
            )
        log_ticks(ax, decades=True)
        title, target = STEP_LABELS[step]
        ax.set(xlabel=f"{target} / GeV")
        ax.text(0.95, 0.95, title, transform=ax.transAxes, ha="right", va="top")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(*(y_limits or (low, high + 0.1 * (high - low))))
    axes[0, 0].set_ylabel(r"median of $E_\mathrm{calib}$ / target")
    axes[0, -1].legend(loc="upper right", bbox_to_anchor=(1.0, 0.91))
    name_source(axes[0, 0], *sources)
    return np.asarray(axes[0])


@styled
def plot_pileup(
    closures: Mapping[str, Mapping[str, Curve]],
    *,
    tolerance: float = 0.02,
    sources: Sequence[str] = (SIMULATION,),
) -> NDArray[Any]:
    """Median response against the mean number of interactions, one panel a kind.

    Parameters
    ----------
    closures : mapping of str to mapping of str to Curve
        ``closures[label][species]``, a bin around each mu, as of
        `reporting.catalogue.lcw_study.closures_in_mu`.
    tolerance : float
        Half width of a band around 1.
    sources : sequence of str

    Returns
    -------
    ndarray of Axes, shape (n_species,)
    """
    names = list(next(iter(closures.values())))
    _, axes = plt.subplots(
        1, len(names), figsize=(4.4 * len(names) + 0.4, 4.0), sharey=True, squeeze=False
    )
    for ax, name in zip(axes[0], names, strict=True):
        ax.axhspan(1.0 - tolerance, 1.0 + tolerance, color=GREY, alpha=0.15, linewidth=0.0)
        ax.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        for (label, by_species), (colour, marker) in zip(
            closures.items(), PILEUP_LOOKS, strict=False
        ):
            found = by_species[name]
            mu = 0.5 * (found.edges[1:] + found.edges[:-1])
            ax.errorbar(
                mu,
                found.value,
                yerr=found.error,
                color=colour,
                marker=marker,
                linewidth=1.0,
                label=label,
            )
        ax.set_xlabel(r"$\mu$")
        ax.text(
            0.95,
            0.95,
            f"{SPECIES_LOOKS[name][2]} clusters",
            transform=ax.transAxes,
            ha="right",
            va="top",
        )
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high + 0.12 * (high - low))
    axes[0, 0].set_ylabel(r"median of $E_\mathrm{calib}$ / target")
    axes[0, 0].legend(loc="best")
    name_source(axes[0, 0], *sources)
    return np.asarray(axes[0])
