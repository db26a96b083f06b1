"""Regressions that are used on samples which they did not learn from: their inversions, and a
measure of bias and width in one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.inversion import Inversion, fit_inversion
from pfcalib.errors import ValidationError
from pfcalib.metrics.curve import UNKNOWN, Estimate
from pfcalib.training.networks import NetworkConfig

FEW = 5000  # validation clusters below which the inversion is a coarse one
PER_BIN = 60  # clusters a bin of a coarse inversion


class Training(NamedTuple):
    """How a network comes about."""

    sample: str  # that it is trained on
    network: NetworkConfig
    extras: Mapping[str, float] = {}  # further samples, each with its share of a batch
    start: str | None = None  # training whose weights are the first ones
    inverted_on: Sequence[str] = ()  # samples on which the inversion alone is measured too

    @property
    def homes(self) -> tuple[str, ...]:
        """Samples that have an inversion of their own; the first one's serves all others."""
        return tuple(dict.fromkeys((self.sample, *self.extras, *self.inverted_on)))


def invert_column(
    tables: Mapping[str, Mapping[str, ak.Array]], raw: str, name: str, *, homes: Sequence[str]
) -> dict[str, Inversion]:
    """Add energies after the inversion of the median to the tables of clusters.

    The inversion is measured on the validation split of each sample that the regression knows, its
    homes. On a sample that it does not know it keeps that of the first home: nothing of the new
    sample enters.

    Parameters
    ----------
    tables : mapping of str to mapping of str to awkward.Array
        By sample and split (validation and test), with `e_dep`, the true energy in GeV.
    raw, name : str
        Columns with the energies before and, added here, after the inversion, GeV.
    homes : sequence of str

    Returns
    -------
    dict
        Inversions by home.
    """
    inversions = {}
    for home in homes:
        known = tables[home]["validation"]
        inversions[home] = invert(np.asarray(known[raw]), np.asarray(known["e_dep"]))
    for sample, splits in tables.items():
        inversion = inversions.get(sample, inversions[homes[0]])
        for table in splits.values():
            if raw in table.fields:
                table[name] = inversion.apply(np.asarray(table[raw]))
    return inversions


def invert(e_pred: ArrayLike, e_true: ArrayLike) -> Inversion:
    """Inversion that suits the number of clusters: `calibration.inversion.fit_inversion`, or
    `fit_coarse_inversion` below FEW; energies in GeV.
    """
    fit = fit_inversion if np.size(e_true) >= FEW else fit_coarse_inversion
    return fit(e_pred, e_true)


def fit_coarse_inversion(e_pred: ArrayLike, e_true: ArrayLike) -> Inversion:
    """Inversion from few clusters: in bins of true energy that hold equal numbers of them, PER_BIN
    at least, so that no point is a matter of chance; one factor where there are fewer in all.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
        Positive.

    Raises
    ------
    ValidationError
        If there are no clusters.
    """
    log_true, log_pred = np.log(np.asarray(e_true, float)), np.log(np.asarray(e_pred, float))
    if log_true.size == 0:
        raise ValidationError("inversion: no clusters in the validation split, expected some")
    bins = np.array_split(np.argsort(log_true, kind="stable"), max(log_true.size // PER_BIN, 1))
    centre = np.array([log_true[part].mean() for part in bins])
    predicted = centre + np.array([np.median((log_pred - log_true)[part]) for part in bins])
    rising = np.maximum.accumulate(predicted) == predicted
    return Inversion(predicted[rising], centre[rising])


def weighted_quantile(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    share: float,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
) -> Estimate:
    """The value below which this share of the weights lies; NaN without values.

    The error is that of a bootstrap by random weights (Rubin, Annals of Statistics 9 (1981) 130).

    Parameters
    ----------
    values, weights : ndarray, shape (n,)
    share : float
        In (0, 1).
    rng : numpy.random.Generator
    n_bootstrap : int

    Examples
    --------
    >>> values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 5.0, 1.0])
    >>> weighted_quantile(values, weights, 0.68, rng=np.random.default_rng(1)).value
    1.0
    """
    if not len(values):
        return UNKNOWN
    order = np.argsort(values)
    ordered, weights = values[order], weights[order]

    def quantile(weights: NDArray[np.float64]) -> float:
        cumulative = np.cumsum(weights)
        place = int(np.searchsorted(cumulative, share * cumulative[-1]))
        return float(ordered[min(place, len(ordered) - 1)])

    drawn = [quantile(weights * rng.standard_exponential(len(weights))) for _ in range(n_bootstrap)]
    return Estimate.resampled(quantile(weights), drawn)
