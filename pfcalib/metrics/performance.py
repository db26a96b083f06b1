"""What the studies of calibrations quote of each: median response and resolution at given energies,
closure, and who beats whom.

The resolution is "IQR / (2 median)", half of the central 68 % interval of the response over its
median (ATL-PHYS-PUB-2022-040, section 5). Two calibrations of the same clusters are correlated, so
their ratio carries the error of a paired bootstrap: every resample holds the same clusters for both
(Efron and Tibshirani, An Introduction to the Bootstrap, chapter 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.response import (
    QUANTILES,
    ResponseCurve,
    bootstrap_quantiles,
    response,
    response_curve,
)
from pfcalib.metrics.roc import BinnedEstimate, Estimate
from pfcalib.metrics.separation import Metric

SPECIES = ("pi0", "pic")  # clusters of neutral and of charged pions
SPECIES_NAMES = {"pi0": "neutral pions", "pic": "charged pions"}
HALF_WIDTH = 0.1  # of the bin of an energy, in log10
MIN_COUNT = 30  # clusters in the bin of an energy
N_BOOTSTRAP = 200
_MAX_COUNTS = 20_000_000  # entries of the table of resamples that is held at once
_REACH = 6.0  # standard deviations of a resampled quantile within which it is looked for

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Comparison(NamedTuple):
    """Resolution of the first calibration over that of the second, on the same clusters; NaN where
    they are too few.
    """

    ratio: float
    error: float
    # standard deviations by which the ratio lies below 1; negative where it lies above
    significance: float
    n_clusters: int


def species_masks(is_em: ArrayLike) -> dict[str, Mask]:
    """The clusters of each species, by its name in the metrics.

    >>> species_masks([True, False])
    {'pi0': array([ True, False]), 'pic': array([False,  True])}
    """
    neutral = np.asarray(is_em, dtype=np.bool_)
    return {"pi0": neutral, "pic": ~neutral}


def energy_name(energy: float) -> str:
    """An energy in GeV as a part of a metric's name.

    >>> energy_name(10.0), energy_name(0.5)
    ('10gev', '0p5gev')
    """
    return f"{energy:g}".replace(".", "p") + "gev"


def in_energy_bin(e_true: ArrayLike, energy: float) -> Mask:
    """Clusters with abs(log10(e_true / energy)) < HALF_WIDTH, shape (n_clusters,); energies in GeV
    and positive.
    """
    return np.asarray(np.abs(np.log10(np.asarray(e_true, dtype=np.float64) / energy)) < HALF_WIDTH)


def curves_by_species(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask], edges: ArrayLike, *,
    rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP, min_count: int = MIN_COUNT,
) -> dict[str, dict[str, ResponseCurve]]:  # fmt: skip
    """Linearity and resolution of every calibration for every species.

    Parameters
    ----------
    e_pred : mapping of str to array_like, shape (n_clusters,), GeV
        By calibration.
    e_true : array_like, shape (n_clusters,), GeV
    species : mapping of str to ndarray of bool, shape (n_clusters,)
        As of `species_masks`.
    edges, rng, n_bootstrap, min_count
        As of `pfcalib.metrics.response.response_curve`.

    Returns
    -------
    dict
        ``curves[model][species]``
    """
    truth = np.asarray(e_true, dtype=np.float64)
    return {
        model: {
            name: response_curve(
                np.asarray(energy)[mask],
                truth[mask],
                edges,
                min_count=min_count,
                n_bootstrap=n_bootstrap,
                rng=rng,
            )
            for name, mask in species.items()
        }
        for model, energy in e_pred.items()
    }


def paired_quantiles(
    samples: ArrayLike,
    quantiles: ArrayLike = QUANTILES,
    *,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Quantiles of several quantities of the same clusters in bootstrap resamples that they share.

    A resample is a count for each cluster (multinomial). The counts below a window of ``_REACH``
    standard deviations around each quantile are summed by one matrix product; only inside the
    window they are put in order. The result is that of the plain bootstrap.

    Parameters
    ----------
    samples : array_like, shape (n_quantities, n_clusters)
    quantiles : array_like, shape (n_quantiles,)
        Each in (0, 1).
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_bootstrap, n_quantities, n_quantiles)
    """
    values, shares = np.asarray(samples, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
    n = values.shape[1]
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    place = shares * (n - 1)
    reach = _REACH * np.sqrt(n * shares * (1.0 - shares)) + 2.0
    first, last = (
        np.maximum(place - reach, 0.0).astype(np.int64),
        np.minimum(place + reach + 2.0, n).astype(np.int64),
    )
    below = np.zeros((len(values), len(shares), n), dtype=np.float32)
    for q, start in enumerate(first):
        np.put_along_axis(below[:, q], order[:, :start], 1.0, axis=1)
    result = np.empty((n_bootstrap, len(values), len(shares)))
    step = max(1, _MAX_COUNTS // n)
    for begin in range(0, n_bootstrap, step):
        counts = _resample_counts(n, min(step, n_bootstrap - begin), rng)
        beneath = below @ counts  # (n_quantities, n_quantiles, n_resamples)
        for m, q in np.ndindex(beneath.shape[:2]):
            window = slice(first[q], last[q])
            cumulative = beneath[m, q] + np.cumsum(counts[order[m, window]], axis=0)
            result[begin : begin + step, m, q] = _value_at(ordered[m, window], cumulative, place[q])
    return result


def _resample_counts(n: int, n_resamples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each cluster occurs in each resample, shape (n, n_resamples); float32 holds such
    counts exactly.
    """
    drawn = [
        np.bincount(rng.integers(0, n, n, dtype=np.uint32), minlength=n).astype(np.float32)
        for _ in range(n_resamples)
    ]
    return np.ascontiguousarray(np.array(drawn).T)


def _value_at(ordered: FloatArray, cumulative: NDArray[np.float32], place: float) -> FloatArray:
    """The value at a place between order statistics, counted from 0, of each column of cumulative
    counts.
    """
    rank = np.floor(place)
    low, high = (
        ordered[np.minimum(np.count_nonzero(cumulative <= r, axis=0), ordered.size - 1)]
        for r in (rank, rank + 1.0)
    )
    return np.asarray(low + (place - rank) * (high - low))


def _half_widths(quantiles: FloatArray) -> FloatArray:
    """Resolution from the quantiles of the response along the last axis."""
    return np.asarray((quantiles[..., 2] - quantiles[..., 0]) / (2.0 * quantiles[..., 1]))


def point_metrics(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask], energies: Sequence[float], *,
    where: str, rng: np.random.Generator, reference: str = "lcw", suffix: str = "", n_bootstrap: int = N_BOOTSTRAP,
) -> Iterator[Metric]:  # fmt: skip
    """The metrics of a report: ``median_``, ``iqr_`` and ``ratio_to_lcw_``, each with
    ``<model>_<species>_<E>gev`` and a suffix.

    All models share the resamples of a bin. A bin with fewer than MIN_COUNT clusters yields
    nothing.

    Parameters
    ----------
    e_pred : mapping of str to array_like, shape (n_clusters,), GeV
        By calibration.
    e_true : array_like, shape (n_clusters,), GeV
    species : mapping of str to ndarray of bool, shape (n_clusters,)
    energies : sequence of float, GeV
        Centres of the bins, see `in_energy_bin`.
    where : str
        Name of the sample, for the definitions.
    rng : numpy.random.Generator
    reference : str
        Calibration that the others are held against; without it in e_pred there are no ratios.
    suffix : str
        Of the names.
    n_bootstrap : int

    Examples
    --------
    >>> e_true = np.full(40, 10.0)
    >>> pred = {"lcw": np.linspace(8, 12, 40), "dnn": np.linspace(9, 11, 40)}
    >>> metrics = point_metrics(pred, e_true, species_masks(np.ones(40)), [10.0], where="toy", rng=np.random.default_rng(1))
    >>> [(name, round(value, 3)) for name, value, *_ in metrics][-1]
    ('ratio_to_lcw_dnn_pi0_10gev', 0.5)
    """
    truth, models = np.asarray(e_true, dtype=np.float64), list(e_pred)
    ratios = np.stack([response(e_pred[model], truth) for model in models])
    for name, mask in species.items():
        for energy in energies:
            inside = mask & in_energy_bin(truth, energy)
            if np.count_nonzero(inside) < MIN_COUNT:
                continue
            found = np.quantile(ratios[:, inside], QUANTILES, axis=1).T
            resampled = paired_quantiles(ratios[:, inside], n_bootstrap=n_bootstrap, rng=rng)
            width, widths = _half_widths(found), _half_widths(resampled)
            tail = f"{name}_{energy_name(energy)}{suffix}"
            for m, model in enumerate(models):
                of = f"{model}, {SPECIES_NAMES.get(name, name)} at {energy:g} GeV, {where}"
                yield (
                    f"median_{model}_{tail}",
                    float(found[m, 1]),
                    _spread(resampled[:, m, 1]),
                    "",
                    f"median of calibrated over true energy, {of}",
                )
                yield (
                    f"iqr_{model}_{tail}",
                    float(width[m]),
                    _spread(widths[:, m]),
                    "",
                    f"half of the central 68 % over the median response, {of}",
                )
                if reference in models and model != reference:
                    r = models.index(reference)
                    error = _spread(widths[:, m] / widths[:, r])
                    yield (
                        f"ratio_to_{reference}_{model}_{tail}",
                        float(width[m] / width[r]),
                        error,
                        "",
                        f"iqr over that of {reference}, {of}",
                    )


def _spread(resampled: FloatArray) -> float:
    """Standard error from resamples."""
    return float(np.std(resampled, ddof=1))


def compare(
    e_a: ArrayLike,
    e_b: ArrayLike,
    e_true: ArrayLike,
    mask: Mask,
    energy: float,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = N_BOOTSTRAP,
) -> Comparison:
    """Does calibration a resolve better than b at an energy? Paired bootstrap on the same clusters.

    Parameters
    ----------
    e_a, e_b, e_true : array_like, shape (n_clusters,), GeV
    mask : ndarray of bool, shape (n_clusters,)
        Clusters to look at, such as one species.
    energy : float, GeV
        Centre of the bin, see `in_energy_bin`.
    rng : numpy.random.Generator
    n_bootstrap : int
    """
    inside = np.asarray(mask, dtype=np.bool_) & in_energy_bin(e_true, energy)
    n = int(np.count_nonzero(inside))
    if n < MIN_COUNT:
        return Comparison(np.nan, np.nan, np.nan, n)
    ratios = np.stack(
        [response(np.asarray(e)[inside], np.asarray(e_true)[inside]) for e in (e_a, e_b)]
    )
    width = _half_widths(np.quantile(ratios, QUANTILES, axis=1).T)
    widths = _half_widths(paired_quantiles(ratios, n_bootstrap=n_bootstrap, rng=rng))
    ratio, error = float(width[0] / width[1]), _spread(widths[:, 0] / widths[:, 1])
    significance = (
        (1.0 - ratio) / error
        if error > 0.0
        else float(np.copysign(np.inf, 1.0 - ratio))
        if ratio != 1.0
        else 0.0
    )
    return Comparison(ratio, error, significance, n)


def worst_deviation(curve: ResponseCurve, low: float, high: float) -> Estimate:
    """Largest abs(median - 1) over the bins with their centre in [low, high] GeV, and the error of
    that bin; NaN where none is known.
    """
    return _largest(np.abs(curve.median - 1.0), curve.median_error, curve.centres, low, high)


def largest_ratio(
    curve_a: ResponseCurve, curve_b: ResponseCurve, low: float, high: float
) -> Estimate:
    """Largest resolution of a over b in the same bins, with their centre in [low, high] GeV.

    The error takes the two as independent, which is too large for calibrations of the same
    clusters; `compare` gives the paired one.

    Raises
    ------
    ValueError
        If the bins differ.
    """
    if not np.array_equal(curve_a.edges, curve_b.edges):
        raise ValueError("two curves with different bins: expected the same edges")
    ratio = curve_a.resolution / curve_b.resolution
    error = ratio * np.hypot(
        curve_a.resolution_error / curve_a.resolution, curve_b.resolution_error / curve_b.resolution
    )
    return _largest(ratio, error, curve_a.centres, low, high)


def _largest(
    value: FloatArray, error: FloatArray, centres: FloatArray, low: float, high: float
) -> Estimate:
    """The largest known value with its centre in [low, high]."""
    inside = (centres >= low) & (centres <= high) & np.isfinite(value)
    if not inside.any():
        return Estimate(np.nan, np.nan)
    worst = int(np.argmax(np.where(inside, value, -np.inf)))
    return Estimate(float(value[worst]), float(error[worst]))


def closure_in(
    e_pred: ArrayLike, e_true: ArrayLike, variable: ArrayLike, edges: ArrayLike, *,
    rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP, min_count: int = MIN_COUNT,
) -> BinnedEstimate:  # fmt: skip
    """Median response in bins [low, high) of any variable, such as abs(eta) or the pile-up mu; NaN
    where fewer than min_count clusters.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
    variable : array_like, shape (n_clusters,)
    edges : array_like, shape (n_bins + 1,)
        Increasing, in the unit of the variable.
    rng, n_bootstrap, min_count
        As of `pfcalib.metrics.response.response_curve`.
    """
    ratio, bin_edges = response(e_pred, e_true), np.asarray(edges, dtype=np.float64)
    index = np.digitize(np.asarray(variable, dtype=np.float64), bin_edges) - 1
    result, count = (
        np.full((2, bin_edges.size - 1), np.nan),
        np.zeros(bin_edges.size - 1, dtype=np.int64),
    )
    for b in range(count.size):
        inside = np.sort(ratio[index == b])
        count[b] = inside.size
        if inside.size >= max(min_count, 2):
            result[:, b] = (
                np.median(inside),
                _spread(bootstrap_quantiles(inside, [0.5], n_bootstrap=n_bootstrap, rng=rng)[:, 0]),
            )
    return BinnedEstimate(bin_edges, result[0], result[1], count)
