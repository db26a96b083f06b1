"""Are predicted uncertainties true? Gaussian mixtures as distributions of y = ln(E / GeV), and
their pulls.

If the predicted distributions are right, the probability integral transform PIT = F(y_true) is
uniform, the pull Phi^-1(PIT) is a unit Gaussian, and a central interval of level L covers a share L
of the truths (Gneiting, Balabdaoui and Raftery, J. R. Stat. Soc. B 69 (2007) 243).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize.elementwise import find_root
from scipy.special import ndtr, ndtri

from pfcalib.metrics.bootstrap import N_BOOTSTRAP, bootstrap_quantiles
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import QUANTILES

FloatArray = NDArray[np.float64]


_PRECISION = 1e-11  # of a quantile of y
_SMALLEST = 1e-300  # a tail probability that still has a pull


class Mixture(NamedTuple):
    """A Gaussian mixture in y for each cluster; arrays of shape (n_clusters, n_components)."""

    weights: FloatArray  # not negative, their sum over the components is 1
    means: FloatArray
    sigmas: FloatArray  # above 0

    def cdf(self, y: ArrayLike, *, sign: float = 1.0) -> FloatArray:
        """Probability below y, or with sign -1 above it (exact far in the tail); y has shape
        (n_clusters,) or (n_clusters, n_values), so has the answer.
        """
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


def pull(predicted: Mixture, y_true: ArrayLike) -> FloatArray:
    """Phi^-1(PIT), shape (n_clusters,): (y - mean) / sigma for a single Gaussian, and for a true
    mixture a unit Gaussian all the same.

    >>> pull(mixture([[1.0]], [[2.0]], [[0.5]]), [3.0]).round(6).tolist()
    [2.0]
    """
    below, above = predicted.cdf(y_true), predicted.cdf(y_true, sign=-1.0)
    # taken from the smaller side, where float64 is fine
    tail = ndtri(np.maximum(np.minimum(below, above), _SMALLEST))
    return np.asarray(np.where(below < above, tail, -tail))


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


class Parts(NamedTuple):
    """Mean and width of a prediction in y of each cluster, (n_clusters,); in the words of
    arXiv:2412.04370, section 4.2.
    """

    mean: FloatArray
    # spread of the means over the networks or the drawn weights: vanishes with ever more clusters
    statistical: FloatArray
    systematic: FloatArray  # predicted width, which stays: what the inputs do not tell

    @property
    def total(self) -> FloatArray:
        """Standard deviation of the whole prediction."""
        return np.hypot(self.statistical, self.systematic)


def uncertainty_parts(predicted: Mixture, n_members: int) -> Parts:
    """What the spread over networks, or over drawn weights, and what the width of each contributes
    to a prediction.

    Parameters
    ----------
    predicted : Mixture
        The components of the first member, of the second, and so on, as
        `models.heads.split_mixture` gives them.
    n_members : int

    Examples
    --------
    >>> two = mixture([[0.5, 0.5]], [[-3.0, 3.0]], [[4.0, 4.0]])
    >>> [float(x[0]) for x in (*uncertainty_parts(two, 2), uncertainty_parts(two, 2).total)]
    [0.0, 3.0, 4.0, 5.0]
    """
    weights, means, sigmas = (part.reshape(len(part), n_members, -1) for part in predicted)
    weights = weights / weights.sum(axis=2, keepdims=True)
    centre = np.sum(weights * means, axis=2)  # of each member
    variance = np.sum(weights * (sigmas**2 + (means - centre[:, :, None]) ** 2), axis=2)
    return Parts(centre.mean(axis=1), centre.std(axis=1), np.sqrt(variance.mean(axis=1)))
