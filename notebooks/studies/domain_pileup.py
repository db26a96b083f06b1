"""Calibrations against pile-up: median and resolution of the response on samples that differ in the
mean number of interactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfcalib.calibration.lcw import LcwTables
from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import MIN_COUNT, ResponseCurves, response_curve, species_masks
from pfcalib.training.regressors import read_clusters
from studies.domain import TrainedNetwork
from studies.domain_results import calibrate_splits


class PileupCurves(NamedTuple):
    """Median and resolution of the response against the mean number of interactions, by calibration
    and species.
    """

    median: dict[str, dict[str, Curve]]
    resolution: dict[str, dict[str, Curve]]

    @property
    def drift(self) -> dict[tuple[str, str], Estimate]:
        """Median at the last mu minus that at the first, by calibration and species."""
        ends = {
            (model, name): (e.value[[0, -1]], e.error[[0, -1]])
            for model, species in self.median.items()
            for name, e in species.items()
        }
        return {
            key: Estimate(float(value[1] - value[0]), float(np.hypot(*error)))
            for key, (value, error) in ends.items()
        }


def follow_pileup(
    paths: Mapping[float, Path], *, networks: Mapping[str, TrainedNetwork], tables: Mapping[str, LcwTables],
    energies: tuple[float, float], rng: np.random.Generator, split: str = "test", min_count: int = MIN_COUNT,
) -> PileupCurves:  # fmt: skip
    """Calibrations against pile-up, on clusters of one band of true energy; networks with the
    inversion of the first sample of their recipe.

    Parameters
    ----------
    paths : mapping of float to Path
        Samples by mu, rising.
    networks : mapping of str to TrainedNetwork
    tables : mapping of str to LcwTables
    energies : (float, float), GeV
        Band of true energy.
    rng : numpy.random.Generator
    split : str
    min_count : int
        Clusters that a point needs.
    """
    mus = np.array(list(paths), dtype=np.float64)
    middle = 0.5 * (mus[1:] + mus[:-1])
    edges = (
        np.concatenate([[1.5 * mus[0] - 0.5 * mus[1]], middle, [1.5 * mus[-1] - 0.5 * mus[-2]]])
        if len(mus) > 1
        else mus[0] + np.array([-0.5, 0.5])
    )
    curves: list[dict[tuple[str, str], ResponseCurves]] = []
    for path in paths.values():
        clusters = {split: read_clusters(path, split=split)}
        found = calibrate_splits(
            path, "", clusters, networks=networks, trees={}, tables=tables, splits=(split,)
        )[split]
        masks = species_masks(found.is_em)
        curves.append(
            {
                (m, s): response_curve(
                    e[mask], found.e_true[mask], energies, min_count=min_count, rng=rng
                )
                for m, e in found.energy.items()
                for s, mask in masks.items()
            }
        )
    result = PileupCurves({}, {})
    for model, species in curves[0]:
        one = [point[model, species] for point in curves]
        count = np.concatenate([curve.median.count for curve in one])
        for by_model, quantity in ((result.median, "median"), (result.resolution, "resolution")):
            value, error = (
                np.array([getattr(getattr(curve, quantity), name)[0] for curve in one])
                for name in ("value", "error")
            )
            by_model.setdefault(model, {})[species] = Curve(edges, value, error, count)
    return result
