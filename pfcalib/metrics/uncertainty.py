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
from scipy.special import ndtr, ndtri

from pfcalib.metrics.response import QUANTILES, bootstrap_quantiles
from pfcalib.metrics.roc import BinnedEstimate, Estimate, proportion

FloatArray = NDArray[np.float64]
COVERAGE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.95)
CENTRAL = 0.6827  # one standard deviation of a Gaussian
_MAX_STEPS = 80  # of the search for a quantile; bisection alone needs about 50
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

    def density(self, y: ArrayLike) -> FloatArray:
        """Probability per unit of y; shapes as of `cdf`."""
        values = np.asarray(y, dtype=np.float64)
        columns = values[:, None] if values.ndim == 1 else values
        z = (columns[:, :, None] - self.means[:, None]) / self.sigmas[:, None]
        each = np.exp(-0.5 * z**2) / (np.sqrt(2.0 * np.pi) * self.sigmas[:, None])
        return np.asarray(np.sum(self.weights[:, None] * each, axis=2).reshape(values.shape))


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

    Newton's method inside a bracket that shrinks: a quantile of a mixture lies between the lowest
    and the highest of its components; a step out of the bracket becomes a bisection.

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
    shape = each.shape[:2]
    low, high = each.min(axis=2).ravel(), each.max(axis=2).ravel()
    row, target, y = (
        np.repeat(np.arange(shape[0]), p.size),
        np.tile(p, shape[0]),
        0.5 * (low + high),
    )
    going = np.arange(y.size)
    for _ in range(_MAX_STEPS):
        here, now = Mixture(*(values[row[going]] for values in predicted)), y[going]
        excess = here.cdf(now) - target[going]
        low[going], high[going] = (
            np.where(excess < 0.0, now, low[going]),
            np.where(excess > 0.0, now, high[going]),
        )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = now - excess / here.density(now)
        inside = (step > low[going]) & (step < high[going])
        y[going] = np.where(
            excess == 0.0, now, np.where(inside, step, 0.5 * (low[going] + high[going]))
        )
        going = going[np.abs(y[going] - now) > _PRECISION]
        if not going.size:
            break
    return y.reshape(shape)


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
    pulls: ArrayLike, *, rng: np.random.Generator, n_bootstrap: int = 200
) -> tuple[Estimate, Estimate]:
    """Median of pulls and half of their central 68 % interval, with bootstrap errors; 0 and 1
    (0.994 by rounding) if all is well.
    """
    ordered = np.sort(np.asarray(pulls, dtype=np.float64))
    low, median, high = np.quantile(ordered, QUANTILES)
    drawn = bootstrap_quantiles(ordered, QUANTILES, n_bootstrap=n_bootstrap, rng=rng)
    widths = 0.5 * (drawn[:, 2] - drawn[:, 0])
    return Estimate(float(median), float(np.std(drawn[:, 1], ddof=1))), Estimate(
        float(0.5 * (high - low)), float(np.std(widths, ddof=1))
    )


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
    distance = 2.0 * np.abs(_checked_pit(pit) - 0.5)
    return [proportion(int(np.count_nonzero(distance <= level)), distance.size) for level in levels]


def interval_coverage(y_true: ArrayLike, low: ArrayLike, high: ArrayLike) -> Estimate:
    """Share of the truths inside predicted intervals [low, high], with its binomial (Wilson) error.

    >>> interval_coverage([1.0, 2.0], [0.0, 0.0], [1.5, 1.5]).value
    0.5
    """
    y = np.asarray(y_true, dtype=np.float64)
    inside = (y >= np.asarray(low)) & (y <= np.asarray(high))
    return proportion(int(np.count_nonzero(inside)), inside.size)


def pit_histogram(pit: ArrayLike, *, n_bins: int = 20) -> BinnedEstimate:
    """Density of the PIT in equal bins of [0, 1] with its statistical error; 1 everywhere if the
    distributions are right.
    """
    values = _checked_pit(pit)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    count = np.histogram(values, edges)[0]
    share = count / values.size
    return BinnedEstimate(
        edges,
        share * n_bins,
        np.sqrt(share * (1.0 - share) / values.size) * n_bins,
        count.astype(np.int64),
    )


def calibration_error(
    pit: ArrayLike, *, rng: np.random.Generator, n_levels: int = 100, n_bootstrap: int = 200
) -> Estimate:
    """Expected calibration error: mean distance of the share of PIT below p from p, over levels p
    (Kuleshov et al., arXiv:1807.00263).

    Right distributions give about 0.31 / sqrt(n_clusters), not zero. The error is that of the
    bootstrap.
    """
    values = _checked_pit(pit)
    edges = np.linspace(0.0, 1.0, n_levels + 1)
    count = np.histogram(values, edges)[0]
    resampled = rng.multinomial(values.size, count / values.size, size=n_bootstrap)
    table = np.cumsum(np.vstack([count, resampled]), axis=1)[:, :-1] / values.size
    distance = np.abs(table - edges[1:-1]).mean(axis=1)
    return Estimate(float(distance[0]), float(np.std(distance[1:], ddof=1)))


def sharpness(low: ArrayLike, high: ArrayLike) -> Estimate:
    """Mean half width of predicted intervals and its error; in y = ln E that of the central 68 % is
    about the relative resolution.
    """
    half = 0.5 * (np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64))
    return Estimate(float(half.mean()), float(half.std(ddof=1) / np.sqrt(half.size)))


def _checked_pit(pit: ArrayLike) -> FloatArray:
    """Probabilities in [0, 1], at least one."""
    values = np.asarray(pit, dtype=np.float64)
    bad = ~((values >= 0.0) & (values <= 1.0))  # also where not a number
    if values.ndim != 1 or not values.size or bad.any():
        where = (
            f"[{int(np.argmax(bad))}] = {values[np.argmax(bad)]}"
            if values.ndim == 1 and bad.any()
            else f" of shape {values.shape}"
        )
        raise ValueError(f"pit{where}: expected probabilities in [0, 1], shape (n_clusters,)")
    return values
