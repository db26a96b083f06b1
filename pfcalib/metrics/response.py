"""Response, linearity and resolution of calibrations: one definition each, used by every study.

The response of a cluster is predicted over true energy. Its median measures linearity, half of its
central 68 % interval over the median ("IQR / (2 median)") measures resolution; both are quoted in
bins of true energy (ATL-PHYS-PUB-2022-040, section 5). Two calibrations of the same clusters are
correlated, so their ratio carries the error of a bootstrap whose resamples hold the same clusters
for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.bootstrap import N_BOOTSTRAP, bootstrap, bootstrap_quantiles
from pfcalib.metrics.curve import Curve, Estimate

QUANTILES = np.array([0.16, 0.5, 0.84])  # central 68 % and median
SPECIES_NAMES = {"pi0": "neutral pions", "pic": "charged pions"}  # of clusters, by their name
HALF_WIDTH = 0.1  # of the bin of an energy, in log10
MIN_COUNT = 30  # clusters in a bin

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ResponseCurves(NamedTuple):
    """Linearity and resolution in the same bins of true energy in GeV."""

    median: Curve  # of the response
    resolution: Curve


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


def resolution(response: ArrayLike) -> FloatArray:
    """Half of the central 68 % interval over the median along the last axis, "IQR / (2 median)" in
    the public plots.

    For a Gaussian of mean 1 and width s it equals s (to 0.6 %: 68 % is rounded):

    >>> rng = np.random.default_rng(1)
    >>> float(resolution(rng.normal(1.0, 0.1, 100_000)).round(2))
    0.1
    """
    return _half_width(np.quantile(np.asarray(response, dtype=np.float64), QUANTILES, axis=-1))


def _half_width(quantiles: FloatArray) -> FloatArray:
    """Resolution from QUANTILES of the response along the first axis."""
    low, median, high = quantiles
    return np.asarray((high - low) / (2.0 * median))


def response_curve(
    e_pred: ArrayLike, e_true: ArrayLike, edges: ArrayLike, *,
    min_count: int = 50, n_bootstrap: int = N_BOOTSTRAP, rng: np.random.Generator,
) -> ResponseCurves:  # fmt: skip
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

    Raises
    ------
    ValueError
        If the shapes differ, a true energy is not positive and finite, or the edges do not
        increase.
    """
    return ResponseCurves(
        *_curves_in_bins(
            e_pred, e_true, e_true, edges, QUANTILES, (itemgetter(1), _half_width),
            min_count=min_count, n_bootstrap=n_bootstrap, rng=rng,
        )
    )  # fmt: skip


def closure_in(
    e_pred: ArrayLike, e_true: ArrayLike, variable: ArrayLike, edges: ArrayLike, *,
    rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP, min_count: int = MIN_COUNT,
) -> Curve:  # fmt: skip
    """Median response in bins [low, high) of any variable, shape (n_clusters,), such as abs(eta) or
    the pile-up mu; other parameters as of `response_curve`.
    """
    return _curves_in_bins(
        e_pred, e_true, variable, edges, np.array([0.5]), [itemgetter(0)],
        min_count=min_count, n_bootstrap=n_bootstrap, rng=rng,
    )[0]  # fmt: skip


def _curves_in_bins(
    e_pred: ArrayLike, e_true: ArrayLike, variable: ArrayLike, edges: ArrayLike,
    quantiles: FloatArray, measures: Sequence[Callable[[FloatArray], FloatArray]], *,
    min_count: int, n_bootstrap: int, rng: np.random.Generator,
) -> list[Curve]:  # fmt: skip
    """Curves of measures of quantiles of the response, NaN in bins of fewer than min_count."""
    ratio, bins = response(e_pred, e_true), np.asarray(edges, dtype=np.float64)
    if bins.ndim != 1 or bins.size < 2 or not np.all(np.diff(bins) > 0.0):
        raise ValueError("edges: expected at least two, increasing")
    index = np.digitize(np.asarray(variable, dtype=np.float64), bins) - 1
    count = np.array([np.count_nonzero(index == b) for b in range(bins.size - 1)], dtype=np.int64)
    # the clusters themselves first, then their resamples
    table = np.full((np.size(quantiles), 1 + n_bootstrap, count.size), np.nan)
    for b in np.flatnonzero(count >= max(min_count, 2)):
        inside = np.sort(ratio[index == b])
        table[:, 0, b] = np.quantile(inside, quantiles)
        table[:, 1:, b] = bootstrap_quantiles(inside, quantiles, n_resamples=n_bootstrap, rng=rng).T
    found = [measure(table) for measure in measures]
    return [Curve(bins, each[0], np.std(each[1:], axis=0, ddof=1), count) for each in found]


def curves_by_species(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask],
    edges: ArrayLike, *, rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP,
    min_count: int = MIN_COUNT,
) -> dict[str, dict[str, ResponseCurves]]:  # fmt: skip
    """Linearity and resolution of every calibration for every species.

    Parameters
    ----------
    e_pred : mapping of str to array_like, shape (n_clusters,), GeV
        By calibration.
    e_true : array_like, shape (n_clusters,), GeV
    species : mapping of str to ndarray of bool, shape (n_clusters,)
        As of `species_masks`.
    edges, rng, n_bootstrap, min_count
        As of `response_curve`.

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


def point_rows(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask],
    energies: Sequence[float], *, rng: np.random.Generator, reference: str = "lcw",
    n_bootstrap: int = N_BOOTSTRAP,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Median, resolution and its ratio to a reference at given energies, as tidy rows.

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
    rng : numpy.random.Generator
    reference : str
        Calibration that the others are held against; without it in e_pred there are no ratios.
    n_bootstrap : int

    Yields
    ------
    dict
        ``quantity`` ("median", "iqr", "ratio_to_<reference>"), ``model``, ``species``, ``energy``
        in GeV, ``value``, ``error`` and ``definition``.
    """
    truth, models = np.asarray(e_true, dtype=np.float64), list(e_pred)
    ratios = np.stack([response(e_pred[model], truth) for model in models])
    what = {
        "median": "median of calibrated over true energy",
        "iqr": "half of the central 68 % over the median response",
        f"ratio_to_{reference}": f"iqr over that of {reference}",
    }
    for name, mask in species.items():
        for energy in energies:
            inside = mask & in_energy_bin(truth, energy)
            if np.count_nonzero(inside) < MIN_COUNT:
                continue
            here = ratios[:, inside]
            drawn = bootstrap(_quantiles, here, n_resamples=n_bootstrap, rng=rng)
            # (n_quantiles, 1 + n_resamples, n_models), the clusters themselves first
            table = np.moveaxis(np.concatenate([_quantiles(here)[None], drawn]), 1, 0)
            found = {"median": table[1], "iqr": _half_width(table)}
            for m, model in enumerate(models):
                values = {key: each[:, m] for key, each in found.items()}
                if reference in models and model != reference:
                    base = found["iqr"][:, models.index(reference)]
                    values[f"ratio_to_{reference}"] = values["iqr"] / base
                for quantity, each in values.items():
                    value, error = Estimate.resampled(each[0], each[1:])
                    where = f"{model}, {SPECIES_NAMES.get(name, name)} at {energy:g} GeV"
                    definition = f"{what[quantity]}, {where}"
                    yield {
                        "quantity": quantity, "model": model, "species": name, "energy": energy,
                        "value": value, "error": error, "definition": definition,
                    }  # fmt: skip


def _quantiles(ratios: FloatArray) -> FloatArray:
    """QUANTILES of each row, shape (n_quantiles, n_rows)."""
    return np.asarray(np.quantile(ratios, QUANTILES, axis=-1))


def compare(
    e_a: ArrayLike, e_b: ArrayLike, e_true: ArrayLike, mask: Mask, energy: float, *,
    rng: np.random.Generator, n_bootstrap: int = N_BOOTSTRAP,
) -> Comparison:  # fmt: skip
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
    truth = np.asarray(e_true)[inside]
    ratios = np.stack([response(np.asarray(e)[inside], truth) for e in (e_a, e_b)])
    (a, b), drawn = (
        resolution(ratios),
        bootstrap(resolution, ratios, n_resamples=n_bootstrap, rng=rng),
    )
    ratio = Estimate.resampled(a / b, drawn[:, 0] / drawn[:, 1])
    return Comparison(*ratio, (Estimate(1.0, 0.0) - ratio).significance, n)


class Narrowest(NamedTuple):
    """Which of several calibrations is the narrowest in bins of true energy, for each species."""

    edges: FloatArray  # GeV; what lies outside counts in the first or last bin
    names: dict[str, tuple[str, ...]]  # of the calibration in each bin, by species
    scales: dict[str, FloatArray]  # (n_bins,) median of the first calibration over that of each

    def take(
        self, e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask]
    ) -> FloatArray:
        """Energies of clusters, GeV, each by the calibration of its species and bin at the median
        of the first calibration there, so that no step lies between two bins; NaN for those of no
        species. Arguments as of `narrowest`.
        """
        place = _bins_of(e_true, self.edges)
        energy = np.full(len(place), np.nan)
        for name, mask in species.items():
            for model, values in e_pred.items():
                here = mask & (np.array(self.names[name]) == model)[place]
                energy[here] = np.asarray(values)[here] * self.scales[name][place[here]]
        return energy


def narrowest(
    e_pred: Mapping[str, ArrayLike], e_true: ArrayLike, species: Mapping[str, Mask],
    edges: ArrayLike, *, rng: np.random.Generator, min_count: int = MIN_COUNT,
    n_bootstrap: int = N_BOOTSTRAP,
) -> Narrowest:  # fmt: skip
    """The calibration of smallest resolution in each bin of true energy: a rival that is as strong
    as it can be. Choose on clusters that nothing is judged by.

    Parameters
    ----------
    e_pred : mapping of str to array_like, shape (n_clusters,), GeV
        By calibration; another than the first one must be narrower by more than the error of their
        ratio, and does not count where a bin has fewer clusters than min_count.
    e_true : array_like, shape (n_clusters,), GeV
    species : mapping of str to ndarray of bool, shape (n_clusters,)
    edges : array_like, shape (n_bins + 1,), GeV
    rng : numpy.random.Generator
    min_count, n_bootstrap : int
    """
    bins, models = np.asarray(edges, dtype=np.float64), list(e_pred)
    ratios = np.stack([response(e_pred[model], e_true) for model in models])
    place = _bins_of(e_true, bins)

    def choose(inside: FloatArray) -> tuple[str, float]:
        if inside.shape[1] < min_count:
            return models[0], 1.0
        width, medians = resolution(inside), np.median(inside, axis=1)
        drawn = bootstrap(resolution, inside, n_resamples=n_bootstrap, rng=rng)
        error = np.std(drawn / drawn[:, :1], axis=0, ddof=1)
        best = int(np.argmin(width / width[0] + error))
        return models[best], float(medians[0] / medians[best])

    chosen = {
        name: [choose(ratios[:, mask & (place == b)]) for b in range(len(bins) - 1)]
        for name, mask in species.items()
    }
    return Narrowest(
        bins,
        {name: tuple(model for model, _ in each) for name, each in chosen.items()},
        {name: np.array([scale for _, scale in each]) for name, each in chosen.items()},
    )


def _bins_of(energy: ArrayLike, edges: FloatArray) -> NDArray[np.int64]:
    """Bin of each energy; the first or last one beyond the edges."""
    return np.clip(np.digitize(np.asarray(energy), edges) - 1, 0, len(edges) - 2)


def worst_deviation(median: Curve, low: float, high: float) -> Estimate:
    """Largest abs(median - 1) over the bins with their centre in [low, high] GeV, and the error of
    that bin; NaN where none is known.
    """
    return median.distance(1.0).largest(low, high)
