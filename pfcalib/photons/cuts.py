"""Rectangular cuts on shower shapes: in each bin of abs(eta) and ET a box that keeps a wanted share
of the photons and as few fakes as it can.

A box is found by peeling (Friedman and Fisher, Statistics and Computing 9 (1999) 123): of all cuts
that take a small share of the photons that are left, the one that takes most of the fakes is made,
again and again. The boxes of one peeling lie in each other, so how long a candidate stays inside is
a score, and boxes can be compared with other scores at any efficiency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ValidationError

F64 = NDArray[np.float64]
MIN_FAKES = 20  # in a bin: with fewer inside, peeling goes by photons alone


class Boxes(NamedTuple):
    """Peelings of all bins."""

    eta_edges: F64
    et_edges: F64
    sides: F64  # (n_shapes,) 1 where photons lie above a cut, -1 below
    cuts: F64  # (n_bins, n_steps + 1, n_shapes) on side * shape, lower limits that rise
    kept: F64  # (n_bins, n_steps + 1) share of the photons of the bin inside, from 1

    def bins(self, eta: ArrayLike, et: ArrayLike) -> NDArray[np.int64]:
        """Bin of each candidate; those beyond an edge belong to the bin beside it."""
        places = [
            np.clip(np.digitize(np.asarray(values), edges) - 1, 0, len(edges) - 2)
            for values, edges in ((np.abs(eta), self.eta_edges), (et, self.et_edges))
        ]
        return np.asarray(places[0] * (len(self.et_edges) - 1) + places[1])

    def score(self, shapes: F64, eta: ArrayLike, et: ArrayLike) -> F64:
        """One less the share of photons that the smallest box around a candidate keeps, shape
        (n,): the larger, the more like a photon.
        """
        place = self.bins(eta, et)
        steps = np.full(len(shapes), self.cuts.shape[1])
        for k, side in enumerate(self.sides):
            for one in range(len(self.cuts)):
                rows = place == one
                limits = self.cuts[one, :, k]
                steps[rows] = np.minimum(
                    steps[rows], np.searchsorted(limits, side * shapes[rows, k], side="right")
                )
        return np.asarray(1.0 - self.kept[place, np.maximum(steps - 1, 0)])


def fit_cuts(
    shapes: F64,
    is_photon: NDArray[np.bool_],
    eta: ArrayLike,
    et: ArrayLike,
    *,
    sides: Sequence[float],
    eta_edges: Sequence[float],
    et_edges: Sequence[float],
    least: float = 0.5,
    step: float = 0.01,
) -> Boxes:
    """Peel each bin until `least` of its photons are left.

    Parameters
    ----------
    shapes : ndarray, shape (n, n_shapes)
    is_photon : ndarray of bool, shape (n,)
    eta, et : array_like, shape (n,)
    sides : sequence of float
        Of each shape 1 where photons lie above a cut, -1 below.
    eta_edges, et_edges : sequence of float
        Of the bins in abs(eta) and ET, GeV.
    least : float
        Share of the photons that the smallest box keeps.
    step : float
        Share of the photons still inside that a cut takes.

    Raises
    ------
    ValidationError
        If a bin has too few photons to peel.
    """
    n_steps = int(np.ceil(np.log(least) / np.log1p(-step)))
    n_bins = (len(eta_edges) - 1) * (len(et_edges) - 1)
    cuts = np.full((n_bins, n_steps + 1, shapes.shape[1]), -np.inf)
    kept = np.ones((n_bins, n_steps + 1))
    boxes = Boxes(np.array(eta_edges), np.array(et_edges), np.array(sides, float), cuts, kept)
    place = boxes.bins(eta, et)
    for one in range(n_bins):
        values = shapes[place == one] * boxes.sides
        photon = is_photon[place == one]
        if photon.sum() * step < 1.0:
            raise ValidationError(f"bin {one} has {photon.sum()} photons, too few to peel")
        _peel(values[photon], values[~photon], step, cuts[one], kept[one])
    return boxes


def _peel(photons: F64, fakes: F64, step: float, cuts: F64, kept: F64) -> None:
    """Fill the cuts and the shares of photons of one bin."""
    n_photons = len(photons)
    for k in range(1, len(cuts)):
        limits = np.quantile(photons, step, axis=0)
        of_fakes = (
            (fakes < limits).mean(axis=0) if len(fakes) > MIN_FAKES else np.zeros(len(limits))
        )
        of_photons = (photons < limits).mean(axis=0)
        # ties may take more photons than the step
        gain = of_fakes / np.maximum(of_photons, 0.5 * step)
        best = int(np.argmax(gain))
        cuts[k] = cuts[k - 1]
        cuts[k, best] = max(limits[best], cuts[k, best])
        photons = photons[photons[:, best] >= cuts[k, best]]
        fakes = fakes[fakes[:, best] >= cuts[k, best]]
        kept[k] = len(photons) / n_photons
