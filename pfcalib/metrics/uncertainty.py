"""Are predicted uncertainties true? Mixtures and quantiles as distributions of y = ln(E / GeV),
their pulls, coverage and sharpness.

If the predicted distributions are right, the probability integral transform PIT = F(y_true) is
uniform, the pull Phi^-1(PIT) is a unit Gaussian, and a central interval of level L covers a share L
of the truths (Gneiting, Balabdaoui and Raftery, J. R. Stat. Soc. B 69 (2007) 243).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize.elementwise import find_root
from scipy.special import ndtr, ndtri

from pfcalib.metrics.bootstrap import N_BOOTSTRAP, bootstrap_quantiles
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import QUANTILES
from pfcalib.metrics.roc import proportion

FloatArray = NDArray[np.float64]
COVERAGE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.95)
CENTRAL = 0.6827  # one standard deviation of a Gaussian
_PRECISION = 1e-11  # of a quantile of y
_SMALLEST = 1e-300  # a tail probability that still has a pull


class Mixture(NamedTuple):
    """A Gaussian mixture in y for each cluster; arrays of shape (n_clusters, n_components)."""

    weights: FloatArray  # not negative, their sum over the components is 1
    means: FloatArray
    sigmas: FloatArray  # above 0

    def cdf(self, y: ArrayLike) -> FloatArray:
        """Probability below y, which has shape (n_clusters,) or (n_clusters, n_values); the same
        shape.
        """
        return self._sum(y, 1.0)

    def survival(self, y: ArrayLike) -> FloatArray:
        """Probability above y, exact far in the tail; shapes as of `cdf`."""
        return self._sum(y, -1.0)

    def _sum(self, y: ArrayLike, sign: float) -> FloatArray:
        values = np.asarray(y, dtype=np.float64)
        columns = values[:, None] if values.ndim == 1 else values
        z = sign * (columns[:, :, None] - self.means[:, None]) / self.sigmas[:, None]
        return np.asarray(np.sum(self.weights[:, None] * ndtr(z), axis=2).reshape(values.shape))


def mixture(weights: ArrayLike, means: ArrayLike, sigmas: ArrayLike) -> Mixture:
    """Checked arrays as a mixture in float64.

    Raises
    ------
    ValueError
        If the shapes differ or are not (n_clusters, n_components), a value is not finite, a weight
        is negative or a sigma not above 0, or the weights of a cluster do not sum to 1 within 1e-4
        (they are then made to do so exactly).

    Examples
    --------
    >>> mixture([[0.5, 0.5]], [[-1.0, 1.0]], [[0.1, 0.1]]).cdf([0.0]).tolist()
    [0.5]
    """
    w, m, s = (np.asarray(values, dtype=np.float64) for values in (weights, means, sigmas))
    if w.ndim != 2 or not w.shape == m.shape == s.shape:
        raise ValueError(
            f"weights {w.shape}, means {m.shape}, sigmas {s.shape}: expected one shape, "
            "(n_clusters, n_components)"
        )
    good = np.isfinite(w) & np.isfinite(m) & np.isfinite(s) & (w >= 0.0) & (s > 0.0)
    total = w.sum(axis=1)
    bad = ~good.all(axis=1) | ~(np.abs(total - 1.0) < 1e-4)
    if bad.any():
        raise ValueError(
            f"cluster {int(np.argmax(bad))}: expected finite means, sigmas above 0, and weights "
            "that sum to 1"
        )
    return Mixture(w / total[:, None], m, s)


def mixture_quantiles(predicted: Mixture, probabilities: ArrayLike) -> FloatArray:
    """Values of y below which given probabilities lie.

    A quantile of a mixture lies between the lowest and the highest of its components.

    Parameters
    ----------
    predicted : Mixture
    probabilities : array_like, shape (n_probabilities,)
        Each in (0, 1).

    Returns
    -------
    ndarray, shape (n_clusters, n_probabilities)

    Examples
    --------
    >>> mixture_quantiles(mixture([[1.0]], [[2.0]], [[0.5]]), [0.5, 0.8413447]).round(4).tolist()
    [[2.0, 2.5]]
    """
    p = np.atleast_1d(np.asarray(probabilities, dtype=np.float64))
    if not ((p > 0.0) & (p < 1.0)).all():
        raise ValueError(f"probabilities {p.tolist()}: expected inside (0, 1)")
    each = predicted.means[:, None] + predicted.sigmas[:, None] * ndtri(p)[None, :, None]
    margin = 1e-3 * predicted.sigmas.min(axis=1, keepdims=True)  # components may agree

    def excess(y: FloatArray, row: FloatArray, target: FloatArray) -> FloatArray:
        weights, means, sigmas = (values[row.astype(np.int64)] for values in predicted)
        return np.asarray(np.sum(weights * ndtr((y[..., None] - means) / sigmas), axis=-1) - target)

    found = find_root(
        excess,
        (each.min(axis=2) - margin, each.max(axis=2) + margin),
        args=(np.arange(len(each))[:, None], p[None, :]),
        tolerances={"xatol": _PRECISION},
    )
    return np.asarray(found.x)


def mixture_median(predicted: Mixture) -> FloatArray:
    """Median of y, shape (n_clusters,); its exponential is the median of the energy in GeV."""
    return mixture_quantiles(predicted, [0.5])[:, 0]


def central_interval(predicted: Mixture, level: float = CENTRAL) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the interval that leaves (1 - level) / 2 on either side, each
    (n_clusters,).
    """
    low, high = mixture_quantiles(predicted, [0.5 - 0.5 * level, 0.5 + 0.5 * level]).T
    return low, high


def quantile_interval(
    quantiles: ArrayLike, probabilities: Sequence[float], level: float
) -> tuple[FloatArray, FloatArray]:
    """Central interval from predicted quantiles.

    Parameters
    ----------
    quantiles : array_like, shape (n_clusters, n_probabilities)
    probabilities : sequence of float
        Of the columns.
    level : float
        Both (1 - level) / 2 and (1 + level) / 2 must be among the probabilities.

    Raises
    ------
    ValueError
        If they are not.

    Examples
    --------
    >>> quantile_interval([[0.8, 1.0, 1.3]], [0.16, 0.5, 0.84], 0.68)
    (array([0.8]), array([1.3]))
    """
    values = np.asarray(quantiles, dtype=np.float64)
    ends = []
    for wanted in (0.5 - 0.5 * level, 0.5 + 0.5 * level):
        found = np.flatnonzero(np.abs(np.asarray(probabilities) - wanted) < 1e-6)
        if not found.size:
            raise ValueError(
                f"level {level}: no quantile at {wanted:g} among {tuple(probabilities)}"
            )
        ends.append(values[:, found[0]])
    return ends[0], ends[1]


def pull(predicted: Mixture, y_true: ArrayLike) -> FloatArray:
    """Phi^-1(PIT), shape (n_clusters,): (y - mean) / sigma for a single Gaussian, and for a true
    mixture a unit Gaussian all the same.

    >>> pull(mixture([[1.0]], [[2.0]], [[0.5]]), [3.0]).round(6).tolist()
    [2.0]
    """
    below, above = predicted.cdf(y_true), predicted.survival(y_true)
    # taken from the smaller side, where float64 is fine
    tail = ndtri(np.maximum(np.minimum(below, above), _SMALLEST))
    return np.asarray(np.where(below < above, tail, -tail))


def quantile_pull(
    y_true: ArrayLike, low: ArrayLike, median: ArrayLike, high: ArrayLike
) -> FloatArray:
    """Distance to the median over the side of the central 68 % interval that it lies on, shape
    (n_clusters,).

    A unit Gaussian for Gaussians only; a side of no width gives an infinite pull.
    """
    y, q16, q50, q84 = (
        np.asarray(values, dtype=np.float64) for values in (y_true, low, median, high)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((y - q50) / np.where(y < q50, q50 - q16, q84 - q50))


def pull_shape(
    pulls: ArrayLike, *, rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP
) -> tuple[Estimate, Estimate]:
    """Median of pulls and half of their central 68 % interval, with bootstrap errors; 0 and 1
    (0.994 by rounding) if all is well.
    """
    ordered = np.sort(np.asarray(pulls, dtype=np.float64))
    drawn = bootstrap_quantiles(ordered, QUANTILES, n_resamples=n_bootstrap, rng=rng)
    low, median, high = np.vstack([np.quantile(ordered, QUANTILES), drawn]).T
    width = 0.5 * (high - low)
    return Estimate.resampled(median[0], median[1:]), Estimate.resampled(width[0], width[1:])


def coverage(pit: ArrayLike, levels: Sequence[float] = COVERAGE_LEVELS) -> list[Estimate]:
    """Share of the truths inside the central interval of each level, with binomial (Wilson) errors.

    Parameters
    ----------
    pit : array_like, shape (n_clusters,)
        Predicted probability below the truth, such as ``predicted.cdf(y_true)``.
    levels : sequence of float

    Examples
    --------
    >>> coverage(np.linspace(0.0, 1.0, 101), [0.5])[0].value.__round__(2)
    0.5
    """
    distance = 2.0 * np.abs(np.asarray(pit, dtype=np.float64) - 0.5)
    if distance.ndim != 1 or not np.all(distance <= 1.0):
        raise ValueError("pit: expected probabilities in [0, 1], shape (n_clusters,)")
    return [proportion(int(np.count_nonzero(distance <= level)), distance.size) for level in levels]


def interval_coverage(y_true: ArrayLike, low: ArrayLike, high: ArrayLike) -> Estimate:
    """Share of the truths inside predicted intervals [low, high], with its binomial (Wilson) error.

    >>> interval_coverage([1.0, 2.0], [0.0, 0.0], [1.5, 1.5]).value
    0.5
    """
    y = np.asarray(y_true, dtype=np.float64)
    inside = (y >= np.asarray(low)) & (y <= np.asarray(high))
    return proportion(int(np.count_nonzero(inside)), inside.size)


def sharpness(low: ArrayLike, high: ArrayLike) -> Estimate:
    """Mean half width of predicted intervals and its error; in y = ln E that of the central 68 % is
    about the relative resolution.
    """
    half = 0.5 * (np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64))
    return Estimate(float(half.mean()), float(half.std(ddof=1) / np.sqrt(half.size)))
