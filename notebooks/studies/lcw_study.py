"""What the study of local cell weighting needs: calibrated clusters with the target of each step,
and how far each step closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.lcw import LcwTables, apply_lcw
from pfcalib.calibration.lcw_fit import TARGETS
from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import (
    Mask,
    ResponseCurves,
    closure_in,
    curves_by_species,
    species_masks,
    worst_deviation,
)
from pfcalib.samples.read import PathLike, read_sample
from pfcalib.samples.select import choose_clusters

# of LCW, in this order; "em" stands for the EM scale before the first
STEPS = ("cells", "ooc", "full")
_COLUMNS = ("eventNumber", "truthPdgId", "clusterE", "clusterEta", *TARGETS)

FloatArray = NDArray[np.float64]


class CalibratedClusters(NamedTuple):
    """Clusters of one split with their energies and targets; each array has shape (n_clusters,)."""

    energy: dict[str, FloatArray]  # GeV, by "em" and STEPS
    # GeV: the deposit for "em" and "cells", with what is out of the cluster for "ooc", and dead for
    # "full"
    target: dict[str, FloatArray]
    p_em: FloatArray
    is_em: NDArray[np.bool_]
    abs_eta: FloatArray

    @property
    def species(self) -> dict[str, Mask]:
        """Masks of the clusters of neutral and of charged pions."""
        return species_masks(self.is_em)


def calibrate_split(
    path: PathLike, tables: LcwTables, *, split: str = "test", p_em: ArrayLike | None = None
) -> CalibratedClusters:
    """Apply tables to the clusters of a split that pass the selection of their configuration.

    Parameters
    ----------
    path : path-like
        Sample with calibration truth.
    tables : LcwTables
    split : "train", "validation", "test" or "all"
    p_em : array_like, optional
        Of another classifier, for all clusters of the file.

    Raises
    ------
    BadFileError, ConfigError, ValidationError
        As `apply_lcw` and `choose_clusters`.
    """
    sample = read_sample(path, columns=_COLUMNS)
    rows = choose_clusters(sample.scalars, split=split, select=tables.config.selection).rows
    columns = {
        name: sample[name][rows].astype(np.float64) for name in _COLUMNS if name != "eventNumber"
    }
    energies = apply_lcw(path, tables, p_em=p_em)
    deposit, out, dead = (columns[name] for name in TARGETS)
    energy = {"em": columns["clusterE"], **{step: getattr(energies, step)[rows] for step in STEPS}}
    target = {"em": deposit, "cells": deposit, "ooc": deposit + out, "full": deposit + out + dead}
    return CalibratedClusters(
        energy, target, energies.p_em[rows], sample.is_em[rows], np.abs(columns["clusterEta"])
    )


def step_curves(
    clusters: CalibratedClusters, edges: ArrayLike, *, rng: np.random.Generator
) -> dict[str, dict[str, ResponseCurves]]:
    """Median and resolution of the response after each step against the target of this step.

    Returns
    -------
    dict
        ``curves[step][species]`` for "em" and STEPS.
    """
    return {
        step: curves_by_species(
            {step: energy}, clusters.target[step], clusters.species, edges, rng=rng
        )[step]
        for step, energy in clusters.energy.items()
    }


def closures_in_eta(
    clusters: CalibratedClusters,
    edges: ArrayLike,
    *,
    energies: tuple[float, float],
    rng: np.random.Generator,
) -> dict[str, dict[str, Curve]]:
    """Median response after each step in bins of |eta|, ``closures[step][species]``, of clusters
    whose target lies in a range of GeV.
    """
    closures: dict[str, dict[str, Curve]] = {}
    for step, energy in clusters.energy.items():
        target = clusters.target[step]
        inside = (target >= energies[0]) & (target < energies[1])
        masks = {name: mask & inside for name, mask in clusters.species.items()}
        closures[step] = {
            name: closure_in(energy[m], target[m], clusters.abs_eta[m], edges, rng=rng)
            for name, m in masks.items()
        }
    return closures


def worst_in_eta(closures: dict[str, dict[str, Curve]]) -> dict[str, Estimate]:
    """Largest abs(median - 1) of any step in any bin of |eta|, and the error of that bin, by
    species.
    """
    worst = {}
    for species in next(iter(closures.values())):
        off = np.concatenate(
            [np.abs(by_species[species].value - 1.0) for by_species in closures.values()]
        )
        error = np.concatenate([by_species[species].error for by_species in closures.values()])
        place = int(np.nanargmax(off))
        worst[species] = Estimate(float(off[place]), float(error[place]))
    return worst


def closures_in_mu(
    clusters: dict[float, CalibratedClusters],
    *,
    energies: tuple[float, float],
    rng: np.random.Generator,
    step: str = "full",
) -> dict[str, Curve]:
    """Median response after a step against pile-up, by species, of clusters whose target lies in a
    range of GeV.

    Parameters
    ----------
    clusters : dict of float to CalibratedClusters
        By mu, rising in equal steps.
    energies : (float, float), GeV
    rng : numpy.random.Generator
    step : str
        "em" or one of STEPS.
    """
    mus = np.array(list(clusters), dtype=np.float64)
    half = 0.5 * float(np.diff(mus).min()) if len(mus) > 1 else 0.5
    edges = np.append(mus - half, mus[-1] + half)
    target, energy, mu, is_em = (
        np.concatenate(parts)
        for parts in zip(
            *(
                (c.target[step], c.energy[step], np.full(len(c.is_em), m), c.is_em)
                for m, c in clusters.items()
            ),
            strict=True,
        )
    )
    inside = (target >= energies[0]) & (target < energies[1])
    masks = {name: mask & inside for name, mask in species_masks(is_em).items()}
    return {
        name: closure_in(energy[m], target[m], mu[m], edges, rng=rng) for name, m in masks.items()
    }


def worst_closures(
    curves: dict[str, dict[str, ResponseCurves]], energies: Sequence[float]
) -> dict[tuple[str, str], Estimate]:
    """Largest distance of the median from one in a range of GeV, by (step, species), with the error
    of that bin.
    """
    return {
        (step, name): worst_deviation(curve.median, *energies)
        for step, by_species in curves.items()
        for name, curve in by_species.items()
    }
