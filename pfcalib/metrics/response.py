"""Response, linearity and resolution of a calibration: one definition each, used by every study.

The response of a cluster is predicted over true energy. Its median measures linearity, half of its
central 68 % interval over the median measures resolution; both are quoted in bins of true energy
(ATL-PHYS-PUB-2022-040, section 5).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CENTRAL_68 = (0.16, 0.84)
QUANTILES = np.array([CENTRAL_68[0], 0.5, CENTRAL_68[1]])


class ResponseCurve(NamedTuple):
    """Linearity and resolution against true energy; every array has one entry per bin, NaN where a
    bin is too empty.
    """

    edges: NDArray[np.float64]  # (n_bins + 1,) GeV
    median: NDArray[np.float64]  # (n_bins,)
    median_error: NDArray[np.float64]
    resolution: NDArray[np.float64]
    resolution_error: NDArray[np.float64]
    n_clusters: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Geometric centres of the bins, shape (n_bins,), GeV."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])


def energy_edges(low: float, high: float, *, per_decade: int = 10) -> NDArray[np.float64]:
    """Bins of true energy 10^(k / per_decade) GeV that cover low to high, as in the public plots.

    >>> energy_edges(0.5, 2.0, per_decade=3).round(3)
    array([0.464, 1.   , 2.154])
    """
    if not 0.0 < low < high:
        raise ValueError(f"energy range ({low}, {high}): expected 0 < low < high")
    first, last = (
        np.floor(np.log10(low) * per_decade + 1e-9),
        np.ceil(np.log10(high) * per_decade - 1e-9),
    )
    return np.asarray(10.0 ** (np.arange(first, last + 1) / per_decade))


def response(e_pred: ArrayLike, e_true: ArrayLike) -> NDArray[np.float64]:
    """Predicted over true energy, shape (n_clusters,).

    Raises
    ------
    ValueError
        If the shapes differ, or a true energy is not positive and finite (its index is named).

    Examples
    --------
    >>> response([0.9, 2.2], [1.0, 2.0])
    array([0.9, 1.1])
    """
    predicted, truth = np.asarray(e_pred, dtype=np.float64), np.asarray(e_true, dtype=np.float64)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise ValueError(
            f"e_pred has shape {predicted.shape}, e_true {truth.shape}: expected the same, "
            "(n_clusters,)"
        )
    for name, values, bad in (
        ("e_true", truth, ~(np.isfinite(truth) & (truth > 0.0))),
        ("e_pred", predicted, ~np.isfinite(predicted)),
    ):
        if bad.any():
            index = int(np.argmax(bad))
            raise ValueError(
                f"{name}[{index}] = {values[index]} GeV: expected a "
                f"finite{' positive' if name == 'e_true' else ''} energy"
            )
    return predicted / truth


def resolution(response: ArrayLike) -> float:
    """Half of the central 68 % interval over the median, "IQR / (2 median)" in the public plots.

    For a Gaussian of mean 1 and width s it equals s (to 0.6 %: 68 % is rounded):

    >>> rng = np.random.default_rng(1)
    >>> round(resolution(rng.normal(1.0, 0.1, 100_000)), 2)
    0.1
    """
    low, median, high = np.quantile(np.asarray(response, dtype=np.float64), QUANTILES)
    return float((high - low) / (2.0 * median))


def response_curve(
    e_pred: ArrayLike,
    e_true: ArrayLike,
    edges: ArrayLike,
    *,
    min_count: int = 50,
    n_bootstrap: int = 200,
    rng: np.random.Generator,
) -> ResponseCurve:
    """Linearity and resolution in bins of true energy.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
        Calibrated and true energy. Truth must be positive and finite.
    edges : array_like, shape (n_bins + 1,), GeV
        Increasing bin edges in true energy, [low, high); clusters outside are left out.
    min_count : int
        A bin with fewer clusters yields NaN.
    n_bootstrap : int
        Resamples for the two errors; clusters are taken as independent.
    rng : numpy.random.Generator
        Source of the resampling.

    Raises
    ------
    ValueError
        If the shapes differ, a true energy is not positive and finite, or the edges do not
        increase.
    """
    ratio = response(e_pred, e_true)
    bin_edges = np.asarray(edges, dtype=np.float64)
    if bin_edges.ndim != 1 or bin_edges.size < 2 or not np.all(np.diff(bin_edges) > 0.0):
        raise ValueError("edges: expected at least two, increasing")
    n_bins = bin_edges.size - 1
    index = np.digitize(np.asarray(e_true, dtype=np.float64), bin_edges) - 1
    ordered = ratio[np.lexsort((ratio, index))]
    count = np.bincount(index[(index >= 0) & (index < n_bins)], minlength=n_bins)
    start = np.count_nonzero(index < 0) + np.concatenate([[0], np.cumsum(count)])
    curve = np.full((4, n_bins), np.nan)
    for b in np.flatnonzero(count >= max(min_count, 2)):
        curve[:, b] = _median_and_resolution(ordered[start[b] : start[b + 1]], n_bootstrap, rng)
    return ResponseCurve(bin_edges, curve[0], curve[1], curve[2], curve[3], count.astype(np.int64))


def _median_and_resolution(
    ordered: NDArray[np.float64], n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Median, its error, resolution, its error, of a sorted response."""
    low, median, high = np.quantile(ordered, QUANTILES)
    resampled = bootstrap_quantiles(ordered, QUANTILES, n_bootstrap=n_bootstrap, rng=rng)
    widths = (resampled[:, 2] - resampled[:, 0]) / (2.0 * resampled[:, 1])
    return (
        float(median),
        float(np.std(resampled[:, 1], ddof=1)),
        float((high - low) / (2.0 * median)),
        float(np.std(widths, ddof=1)),
    )


def bootstrap_quantiles(
    ordered: ArrayLike, quantiles: ArrayLike, *, n_bootstrap: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Quantiles of bootstrap resamples of a sorted sample, drawn without resampling it.

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
    ndarray, shape (n_bootstrap, n_quantiles)
    """
    values = np.asarray(ordered, dtype=np.float64)
    n = values.size
    place = np.asarray(quantiles, dtype=np.float64) * (n - 1)
    lower = np.floor(place).astype(np.int64)
    upper = np.minimum(lower + 1, n - 1)
    ranks = np.unique(np.concatenate([lower, upper])) + 1  # 1-based order statistics
    shapes = np.diff(np.concatenate([[0], ranks, [n + 1]]))
    gammas = np.cumsum(rng.standard_gamma(shapes, size=(n_bootstrap, shapes.size)), axis=1)
    drawn = values[np.minimum((gammas[:, :-1] / gammas[:, -1:] * n).astype(np.int64), n - 1)]
    below, above = (
        drawn[:, np.searchsorted(ranks, lower + 1)],
        drawn[:, np.searchsorted(ranks, upper + 1)],
    )
    return np.asarray(below + (place - lower) * (above - below))
