"""What a trained network needs: parts of its inputs are shuffled among clusters of like energy, or
layers are taken away, without retraining.

Shuffling a part (Breiman, Mach. Learn. 45 (2001) 5; Fisher, Rudin and Dominici, arXiv:1801.01489)
breaks its tie to the truth and leaves its own distribution as it is. It is done among clusters of
the same bin of clusterE, so that the shape is lost and not the energy: pixels are shares of
clusterE, and an image that kept its part from a cluster of another energy would be none that the
network knows. A part that others can stand in for has little importance. The shares of a shuffled
image do not sum to one, which a network may notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.bootstrap import bootstrap_quantiles
from pfcalib.metrics.curve import Estimate, Metric
from pfcalib.metrics.response import (
    HALF_WIDTH,
    MIN_COUNT,
    N_BOOTSTRAP,
    QUANTILES,
    energy_name,
    response,
)
from pfcalib.training.networks import Network
from pfcalib.training.regressors import Regressor
from studies.probe import Probe, Rows, ask, rows_near
from studies.regions import Region, join_regions

FloatArray = NDArray[np.float64]
BIN_SIZE = 200  # clusters of like energy that a part is shuffled among


class Measure(NamedTuple):
    """A number that says how badly a network does on some clusters."""

    rows: Rows  # of the probe
    truth: FloatArray  # of these rows
    # of answers and truth, both (..., n_rows) -> (...)
    badness: Callable[[FloatArray, FloatArray], FloatArray]


class Importance(NamedTuple):
    """How much worse a network becomes when a part of its inputs is shuffled; errors by paired
    bootstrap of the clusters.
    """

    intact: dict[str, Estimate]  # by measure, on the inputs as they are
    lost: dict[str, dict[str, Estimate]]  # by measure and region: shuffled minus intact
    rise: dict[str, dict[str, Estimate]]  # the same over intact; NaN where intact is perfect


class DropoutRow(NamedTuple):
    """Response of a network some of whose layers were set to zero."""

    layers: str  # "all", "without EMB2", "only EMB2"
    species: str
    energy: float  # GeV, centre of the bin
    median: Estimate
    resolution: Estimate  # IQR / (2 median)
    n_clusters: int


def energy_measures(
    probe: Probe,
    energies: Sequence[float],
    *,
    half_width: float = HALF_WIDTH,
    min_count: int = MIN_COUNT,
) -> dict[str, Measure]:
    """Resolution ``iqr_<species>_<E>gev`` and mean abs(ln response) ``log_<species>_<E>gev`` near
    each true energy.

    Parameters
    ----------
    probe : Probe
    energies : sequence of float, GeV
    half_width : float
        Of the bin, in log10.
    min_count : int
        Clusters that a bin needs; it is left out otherwise.
    """
    found = {}
    for species, energy, rows in rows_near(
        probe, energies, half_width=half_width, min_count=min_count
    ):
        for name, badness in (("iqr", _half_width), ("log", _mean_log)):
            found[f"{name}_{species}_{energy_name(energy)}"] = Measure(
                rows, probe.e_true[rows], badness
            )
    return found


def class_measures(probe: Probe) -> dict[str, Measure]:
    """One minus the area under the ROC curve, as ``auc``: what is lost is area.

    Raises
    ------
    ValidationError
        If the probe holds one class only.
    """
    if probe.is_em.all() or not probe.is_em.any():
        raise ValidationError(
            "the probe holds one class only: an area under the ROC curve needs both"
        )
    return {
        "auc": Measure(np.arange(len(probe.is_em)), probe.is_em.astype(np.float64), _missing_area)
    }


def _half_width(energy: FloatArray, e_true: FloatArray) -> FloatArray:
    low, median, high = np.quantile(energy / e_true, QUANTILES, axis=-1)
    return np.asarray((high - low) / (2.0 * median))


def _mean_log(energy: FloatArray, e_true: FloatArray) -> FloatArray:
    return np.asarray(np.mean(np.abs(np.log(energy / e_true)), axis=-1))


def _missing_area(p_em: FloatArray, is_em: FloatArray) -> FloatArray:
    """From ranks, ties one half, as in `metrics.roc.auc` but for many resamples at once; they may
    differ in their number of neutral clusters.
    """
    n_em = is_em.sum(axis=-1)
    n_had = is_em.shape[-1] - n_em
    ranks = np.sum(rankdata(p_em, axis=-1) * is_em, axis=-1)
    return np.asarray(1.0 - (ranks - 0.5 * n_em * (n_em + 1.0)) / np.maximum(n_em * n_had, 1.0))


def energy_bins(energy: FloatArray, *, size: int = BIN_SIZE) -> NDArray[np.int64]:
    """Number of the bin of each cluster, in bins of rising energy that hold at least `size`
    clusters each (all of them, if there are fewer).

    >>> energy_bins(np.array([3.0, 1.0, 4.0, 2.0]), size=2).tolist()
    [1, 0, 1, 0]
    """
    n = len(energy)
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(energy, kind="stable")] = np.arange(n)
    return place * max(n // size, 1) // max(n, 1)


def shuffle_in_bins(bins: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """A random permutation of clusters that keeps each in its bin: the row that each takes from,
    shape (n_clusters,).
    """
    donors = np.empty(len(bins), dtype=np.int64)
    donors[np.argsort(bins, kind="stable")] = np.lexsort((rng.random(len(bins)), bins))
    return donors


def exchange(
    inputs: Mapping[str, NDArray[np.float32]], region: Region, rows: Rows, donors: Rows
) -> dict[str, NDArray[np.float32]]:
    """Inputs of some rows with a region taken from other rows, one donor a row."""
    result = {name: array[rows] for name, array in inputs.items()}
    for name, mask in region.masks.items():
        result[name][:, mask] = inputs[name][donors][:, mask]
    return result


def permutation_importance(
    network: Network | Regressor, probe: Probe, regions: Sequence[Region], measures: Mapping[str, Measure], *,
    rng: np.random.Generator, n_repeats: int = 3, bin_size: int = BIN_SIZE, n_bootstrap: int = 100,
) -> Importance:  # fmt: skip
    """How much worse a network becomes when a region is shuffled among clusters of like clusterE.

    All regions are shuffled alike, repeat by repeat. The donors come from the whole probe; only the
    clusters that a measure looks at are asked.

    Parameters
    ----------
    network : Network or Regressor
    probe : Probe
        Of `read_probe`: the test split.
    regions : sequence of Region
        See `reporting.catalogue.regions`.
    measures : mapping of str to Measure
        Of `energy_measures` or `class_measures`.
    rng : numpy.random.Generator
    n_repeats : int
        Shufflings that are averaged.
    bin_size : int
        Clusters in a bin of energy at least.
    n_bootstrap : int
        Resamples of the clusters; as each takes its cluster with its donors, the error covers the
        shuffling too.

    Raises
    ------
    ConfigError
        If there is no measure, as in a sample too small for the bins, or n_repeats is below 1.
    """
    if not measures or n_repeats < 1:
        raise ConfigError(
            f"{len(measures)} measures, {n_repeats} repeats: expected at least one of each"
        )
    rows = np.unique(np.concatenate([measure.rows for measure in measures.values()]))
    places = {name: np.searchsorted(rows, measure.rows) for name, measure in measures.items()}
    drawn = {
        name: np.vstack([np.arange(len(p)), rng.integers(0, len(p), (n_bootstrap, len(p)))])
        for name, p in places.items()
    }
    bins = energy_bins(probe.cluster_e, size=bin_size)
    donors = {
        kept: [
            shuffle_in_bins(bins if kept else np.zeros_like(bins), rng)[rows]
            for _ in range(n_repeats)
        ]
        for kept in (True, False)
    }
    cluster_e = probe.cluster_e[rows]
    before = ask(network, {name: array[rows] for name, array in probe.inputs.items()}, cluster_e)
    base = {
        name: _resampled(measure, before[places[name]], drawn[name])
        for name, measure in measures.items()
    }
    lost: dict[str, dict[str, Estimate]] = {name: {} for name in measures}
    rise: dict[str, dict[str, Estimate]] = {name: {} for name in measures}
    for region in regions:
        answers = [
            ask(network, exchange(probe.inputs, region, rows, given), cluster_e)
            for given in donors[region.within_bins]
        ]
        for name, measure in measures.items():
            after = np.mean(
                [_resampled(measure, answer[places[name]], drawn[name]) for answer in answers],
                axis=0,
            )
            lost[name][region.name] = _estimate(after - base[name])
            rise[name][region.name] = _estimate(
                np.divide(
                    after - base[name],
                    base[name],
                    out=np.full_like(after, np.nan),
                    where=base[name] > 0.0,
                )
            )
    return Importance({name: _estimate(values) for name, values in base.items()}, lost, rise)


def importance_metrics(
    found: Importance, regions: Sequence[Region], *, model: str, where: str
) -> Iterator[Metric]:
    """Metrics of a report, ``importance_<region>_<measure>``: by which share the measure rises.

    Parameters
    ----------
    found : Importance
    regions : sequence of Region
        Those to be quoted, among the ones that were shuffled.
    model, where : str
        Names of the network and the sample, for the definitions.
    """
    for measure, rise in found.rise.items():
        for region in regions:
            name = f"importance_{region.name.lower().replace(' ', '_')}_{measure}"
            definition = f"relative rise of {measure} when {region.name} is shuffled among clusters of like energy, {model}, {where}"
            yield (name, *rise[region.name], "", definition)


def _resampled(measure: Measure, answer: FloatArray, drawn: Rows) -> FloatArray:
    """The measure on the clusters themselves, first, and on their resamples."""
    return measure.badness(answer[drawn], measure.truth[drawn])


def _estimate(values: FloatArray) -> Estimate:
    return Estimate(float(values[0]), float(np.std(values[1:], ddof=1)))


def layer_dropout(
    network: Network | Regressor, probe: Probe, layers: Sequence[Region], energies: Sequence[float], *,
    rng: np.random.Generator, half_width: float = HALF_WIDTH, min_count: int = MIN_COUNT, n_bootstrap: int = N_BOOTSTRAP,
) -> list[DropoutRow]:  # fmt: skip
    """Response of a regression with all layers, with each layer set to zero, and with only one
    left.

    Nothing is trained again, and no image of a real cluster looks so: the table says what the
    network leans on, not what a layer is worth.

    Parameters
    ----------
    network : Network or Regressor
    probe : Probe
    layers : sequence of Region
        As of `studies.regions.layer_regions`.
    energies : sequence of float, GeV
        Centres of bins in true energy.
    rng : numpy.random.Generator
    half_width, min_count
        As in `energy_measures`.
    n_bootstrap : int
    """
    removed = {"all": Region("", {}), **{f"without {layer.name}": layer for layer in layers}}
    removed |= {
        f"only {layer.name}": join_regions(
            "rest", [other for other in layers if other is not layer]
        )
        for layer in layers
    }
    bins = rows_near(probe, energies, half_width=half_width, min_count=min_count)
    rows = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(entry[2] for entry in bins)]))
    table: list[DropoutRow] = []
    for name, region in removed.items() if bins else ():
        inputs = {key: array[rows] for key, array in probe.inputs.items()}
        for key, mask in region.masks.items():
            inputs[key][:, mask] = 0.0
        energy = ask(network, inputs, probe.cluster_e[rows])
        for species, centre, here in bins:
            ratio = np.sort(response(energy[np.searchsorted(rows, here)], probe.e_true[here]))
            drawn = np.vstack(
                [
                    np.quantile(ratio, QUANTILES),
                    bootstrap_quantiles(ratio, QUANTILES, n_resamples=n_bootstrap, rng=rng),
                ]
            )
            widths = (drawn[:, 2] - drawn[:, 0]) / (2.0 * drawn[:, 1])
            table.append(
                DropoutRow(
                    name, species, centre, _estimate(drawn[:, 1]), _estimate(widths), len(here)
                )
            )
    return table


def tabulate_dropout(rows: Sequence[DropoutRow]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: a line for each set of layers, a column for each species and
    energy, with resolution and median.
    """
    cells = {
        (
            row.layers,
            row.species,
            row.energy,
        ): f"{row.resolution.value:.3f} ± {row.resolution.error:.3f} ({row.median.value:.2f})"
        for row in rows
    }
    columns = list(dict.fromkeys((row.species, row.energy) for row in rows))
    header = ["layers", *(f"{species}, {energy:g} GeV" for species, energy in columns)]
    return header, [
        [layers, *(cells.get((layers, *column), "") for column in columns)]
        for layers in dict.fromkeys(row.layers for row in rows)
    ]
