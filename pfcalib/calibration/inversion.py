"""Numerical inversion: a last step that makes the median response one at every energy, as the
calibration of jets does (arXiv:1703.09665).

A regression that is right on average at a given measured energy is not so at a given true energy
where its resolution is poor or its range ends. With R(E) the median response at the true energy E,
the energy R(E) E is what a cluster of true energy E is given; reading that line backwards corrects
any predicted energy without a look at the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.response import response_curve

PER_DECADE = 8
MIN_COUNT = 50
LARGEST_STEP = np.log(3.0)  # a correction beyond a factor three is not believed


@dataclass(frozen=True, eq=False)
class Inversion:
    """Corrected against predicted energy; between the points linear in the logarithms, beyond them
    the correction of the last point.
    """

    log_predicted: NDArray[np.float64]  # (n_points,) ln(GeV), rising
    log_corrected: NDArray[np.float64]  # (n_points,)

    def apply(self, energy: ArrayLike) -> NDArray[np.float64]:
        """Corrected energies in GeV, shape as the argument; energies must be positive."""
        log_e = np.log(np.asarray(energy, dtype=np.float64))
        step = np.interp(log_e, self.log_predicted, self.log_corrected - self.log_predicted)
        return np.exp(log_e + np.clip(step, -LARGEST_STEP, LARGEST_STEP))


def fit_inversion(
    e_pred: ArrayLike,
    e_true: ArrayLike,
    *,
    e_min: float = 0.2,
    e_max: float = 2000.0,
    min_count: int = MIN_COUNT,
) -> Inversion:
    """Inversion from clusters that the test does not hold, such as those of the validation split.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
    e_min, e_max : float, GeV
        Range of true energy in which the median response is measured, in eight bins a decade.
    min_count : int
        Clusters that a bin needs.

    Raises
    ------
    ConfigError
        If the range is empty.
    ValidationError
        If fewer than two bins have enough clusters and a positive median response.
    """
    if not 0.0 < e_min < e_max:
        raise ConfigError(f"inversion: range {e_min} to {e_max} GeV, expected 0 < e_min < e_max")
    predicted, truth = np.asarray(e_pred, dtype=np.float64), np.asarray(e_true, dtype=np.float64)
    n_bins = max(int(np.ceil(PER_DECADE * np.log10(e_max / e_min))), 1)
    edges = e_min * (e_max / e_min) ** np.linspace(0.0, 1.0, n_bins + 1)
    curve = response_curve(
        predicted, truth, edges, min_count=min_count, n_bootstrap=2, rng=np.random.default_rng(0)
    )
    place = np.digitize(truth, edges) - 1
    # not where a bin is too empty (NaN), or a linear scale went below zero
    known = np.flatnonzero(curve.median.value > 0.0)
    if len(known) < 2:
        enough = f"{min_count} clusters and a positive median response"
        raise ValidationError(
            f"inversion: {len(known)} bins between {e_min} and {e_max} GeV have {enough}, expected "
            "two at least"
        )
    log_true = np.array([np.log(truth[place == b]).mean() for b in known])
    log_predicted = log_true + np.log(curve.median.value[known])
    # a point that turns back says nothing
    rising = np.append(True, log_predicted[1:] > np.maximum.accumulate(log_predicted)[:-1])
    return Inversion(log_predicted[rising], log_true[rising])
