"""Bootstrap over clusters: the spread of a statistic over samples drawn with replacement (Efron
and Tibshirani, An Introduction to the Bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_BOOTSTRAP = 200  # resamples of an error

FloatArray = NDArray[np.float64]


def bootstrap(
    statistic: Callable[..., ArrayLike],
    *arrays: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = N_BOOTSTRAP,
) -> FloatArray:
    """A statistic of resamples of clusters.

    All arrays are resampled together, so what is compared on the same clusters stays paired.

    Parameters
    ----------
    statistic : callable
        Of the resampled arrays, clusters along their last axis.
    *arrays : array_like, shape (..., n_clusters)
    rng : numpy.random.Generator
    n_resamples : int

    Returns
    -------
    ndarray, shape (n_resamples, ...)

    Examples
    --------
    >>> means = bootstrap(np.mean, np.arange(100.0), rng=np.random.default_rng(1))
    >>> round(float(np.std(means)), 1)  # of a mean: 28.9 / sqrt(100)
    2.9
    """
    columns = [np.asarray(array) for array in arrays]
    n = columns[0].shape[-1]
    drawn = []
    for _ in range(n_resamples):
        chosen = rng.integers(0, n, n, dtype=np.uint32)
        drawn.append(statistic(*(np.take(column, chosen, axis=-1) for column in columns)))
    return np.asarray(drawn, dtype=np.float64)


def bootstrap_events(
    statistic: Callable[..., ArrayLike],
    *arrays: ArrayLike,
    event: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = N_BOOTSTRAP,
) -> FloatArray:
    """`bootstrap` whose resamples hold whole events: what lies in one event may be correlated.

    Parameters
    ----------
    statistic, *arrays, rng, n_resamples
        As of `bootstrap`, the last axis over jets, clusters or tracks.
    event : array_like of int, shape (n_jets,)
        Any number that tells the events apart; events of which nothing is here do not count.

    Returns
    -------
    ndarray, shape (n_resamples, ...)

    Examples
    --------
    >>> twice = np.repeat(np.arange(100.0), 2)  # two jets an event that measure the same
    >>> rng = np.random.default_rng(1)
    >>> means = bootstrap_events(np.mean, twice, event=twice.astype(int), rng=rng)
    >>> round(float(np.std(means)), 1)
    2.9
    """
    columns = [np.asarray(array) for array in arrays]
    names, place = np.unique(event, return_inverse=True)
    jets = np.arange(place.size)

    def of_events(chosen: NDArray[np.int64]) -> ArrayLike:
        drawn = np.repeat(jets, np.bincount(chosen, minlength=names.size)[place])
        return statistic(*(column[..., drawn] for column in columns))

    return bootstrap(of_events, np.arange(names.size), rng=rng, n_resamples=n_resamples)


def bootstrap_quantiles(
    ordered: ArrayLike,
    quantiles: ArrayLike,
    *,
    rng: np.random.Generator,
    n_resamples: int = N_BOOTSTRAP,
) -> FloatArray:
    """`bootstrap` of quantiles of one sorted sample, drawn without resampling it.

    The k-th smallest of n values drawn with replacement is the value at place floor(n U_(k)), where
    U_(k) is the k-th smallest of n uniform numbers; the U_(k) of several k are partial sums of
    Gamma variates over their total (David and Nagaraja, Order Statistics, 2.5). Each resample so
    costs a few Gamma variates, whatever the size of the sample.

    Parameters
    ----------
    ordered : array_like, shape (n,)
        The sample in rising order.
    quantiles : array_like, shape (n_quantiles,)
        Rising, each in (0, 1).

    Returns
    -------
    ndarray, shape (n_resamples, n_quantiles)
    """
    values = np.asarray(ordered, dtype=np.float64)
    n = values.size
    place = np.asarray(quantiles, dtype=np.float64) * (n - 1)
    lower = np.floor(place).astype(np.int64)
    upper = np.minimum(lower + 1, n - 1)
    ranks = np.unique(np.concatenate([lower, upper])) + 1  # 1-based order statistics
    shapes = np.diff(np.concatenate([[0], ranks, [n + 1]]))
    gammas = np.cumsum(rng.standard_gamma(shapes, size=(n_resamples, shapes.size)), axis=1)
    drawn = values[np.minimum((gammas[:, :-1] / gammas[:, -1:] * n).astype(np.int64), n - 1)]
    below = drawn[:, np.searchsorted(ranks, lower + 1)]
    above = drawn[:, np.searchsorted(ranks, upper + 1)]
    return np.asarray(below + (place - lower) * (above - below))
