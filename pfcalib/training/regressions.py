"""What the study of regressions asks of its networks: species apart and together, other targets and
losses, fewer clusters, true uncertainties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import HALF_WIDTH, closure_in, in_energy_bin, response_curve
from pfcalib.metrics.uncertainty import (
    central_interval,
    coverage,
    interval_coverage,
    mixture,
    pull,
    quantile_interval,
    quantile_pull,
    sharpness,
)
from pfcalib.models.heads import LEVELS, split_mixture
from pfcalib.samples.read import PathLike
from pfcalib.training.fit import Say
from pfcalib.training.networks import (  # noqa: F401
    SELECTION,
    Network,
    NetworkConfig,
    apply_network,
    export_network,
    open_stream,
)
from pfcalib.training.regressors import (  # noqa: F401
    Clusters,
    energy_apart,
    fit_apart,
    fit_energy_trees,
    fit_regressor,
    fit_trees_apart,
    trees_energy_apart,
)
from pfcalib.training.trees import TreesConfig

# a small sample is trained in smaller batches, so that an epoch has enough steps
MIN_STEPS, MIN_BATCH = 30, 32


@dataclass(frozen=True, kw_only=True)
class SizeStudyConfig:
    """Numbers of training clusters, rising, and how many epochs the network gets at each."""

    sizes: tuple[int, ...]
    epochs: tuple[int, ...]

    def __post_init__(self) -> None:
        if (
            len(self.sizes) != len(self.epochs)
            or not self.sizes
            or min(*self.sizes, *self.epochs) < 1
        ):
            raise ConfigError(
                f"sizes {self.sizes} and epochs {self.epochs}: expected as many of both, above 0"
            )
        if any(b <= a for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ConfigError(f"sizes {self.sizes}: expected to rise")


class Variant(NamedTuple):
    """One setting of a comparison: its network, and its energies on the test split with and without
    inversion, GeV.
    """

    network: Network
    energy: NDArray[np.float64]
    plain: NDArray[np.float64]


def fit_variants(
    path: PathLike, configs: Mapping[str, NetworkConfig], *, split: str, say: Say | None = None
) -> dict[str, Variant]:
    """Train networks that differ in one setting; each is applied to the clusters of its own
    species.
    """
    variants = {}
    for name, config in configs.items():
        regressor = fit_regressor(path, config, say=say)
        plain = regressor._replace(inversion=None).energy(
            path, split=split, select=config.select or SELECTION
        )
        assert regressor.inversion is not None
        variants[name] = Variant(regressor.network, regressor.inversion.apply(plain), plain)
    return variants


def study_regression_sizes(
    path: PathLike,
    sizes: SizeStudyConfig,
    config: NetworkConfig,
    trees: TreesConfig,
    clusters: Mapping[str, Clusters],
    *,
    say: Say | None = None,
) -> dict[str, list[NDArray[np.float64]]]:
    """Energies on the test split after trainings on random parts of the training split, of a
    network and of trees, both for one species.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    sizes : SizeStudyConfig
    config : NetworkConfig
        Of the species wanted; its epochs and number of clusters are replaced, its batch size is an
        upper limit.
    trees : TreesConfig
    clusters : mapping of split to Clusters
        Of that species alone, for train, validation and test.
    say : callable, optional

    Returns
    -------
    dict of lists
        By the name of the network and "gbdt": energies in GeV for each size.
    """
    train = clusters["train"]
    order = np.random.default_rng(config.train.seed).permutation(len(train.rows))
    found: dict[str, list[NDArray[np.float64]]] = {config.name: [], "gbdt": []}
    for size, epochs in zip(sizes.sizes, sizes.epochs, strict=True):
        if size > len(train.rows):
            raise ConfigError(
                f"{size} clusters are wanted, the training split has {len(train.rows)}"
            )
        batch = min(config.train.batch_size, max(size // MIN_STEPS, MIN_BATCH))
        few = replace(
            config,
            n_clusters=size,
            train=replace(config.train, epochs=epochs, batch_size=batch, patience=epochs),
        )
        found[config.name].append(
            fit_regressor(path, few, say=say).energy(
                path, split="test", select=config.select or SELECTION
            )
        )
        part = train.take(np.sort(order[:size]))
        found["gbdt"].append(
            fit_energy_trees(part, clusters["validation"], config=trees).energy(
                clusters["test"].columns
            )
        )
    return found


def resolution_at(
    energies: Sequence[NDArray[np.float64]],
    e_true: NDArray[np.float64],
    e_ref: float,
    *,
    rng: np.random.Generator,
) -> list[Estimate]:
    """IQR / (2 median) of each calibration for true energies within 0.1 in log10 of e_ref, with
    bootstrap errors.
    """
    chosen = in_energy_bin(e_true, e_ref)
    edges = e_ref * 10.0 ** np.array([-HALF_WIDTH, HALF_WIDTH])
    curves = [
        response_curve(energy[chosen], e_true[chosen], edges, min_count=2, rng=rng)
        for energy in energies
    ]
    return [curve.resolution.largest() for curve in curves]


def median_at(
    energy: NDArray[np.float64], e_true: NDArray[np.float64], mask: NDArray[np.bool_], e_ref: float
) -> float:
    """Median response of the clusters of a mask for true energies within 0.1 in log10 of e_ref."""
    chosen = mask & in_energy_bin(e_true, e_ref)
    return float(np.median(energy[chosen] / e_true[chosen]))


def tabulate_variants(
    variants: Mapping[str, Variant],
    e_true: NDArray[np.float64],
    energies: Sequence[float],
    *,
    rng: np.random.Generator,
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table: medians without inversion and resolutions with it, for each
    variant at each energy.
    """
    everything = np.ones(len(e_true), dtype=np.bool_)
    columns = [
        "setting",
        *(f"{what} at {energy:g} GeV" for what in ("median", "resolution") for energy in energies),
    ]
    rows: list[list[Any]] = [
        [name, *(median_at(v.plain, e_true, everything, energy) for energy in energies)]
        for name, v in variants.items()
    ]
    for energy in energies:
        for row, estimate in zip(
            rows,
            resolution_at([v.energy for v in variants.values()], e_true, energy, rng=rng),
            strict=True,
        ):
            row.append(f"{estimate.value:.4f} ± {estimate.error:.4f}")
    return columns, rows


def closures_by_species(
    energies: Mapping[str, NDArray[np.float64]],
    clusters: Clusters,
    variable: NDArray[Any],
    edges: NDArray[np.float64],
    *,
    keep: NDArray[np.bool_],
    rng: np.random.Generator,
) -> dict[str, dict[str, Curve]]:
    """Median response of each calibration in bins of a variable, for the kept clusters of each
    species.
    """
    chosen = {key: mask & keep for key, mask in clusters.species.items()}
    return {
        name: {
            key: closure_in(energy[m], clusters.e_true[m], variable[m], edges, rng=rng)
            for key, m in chosen.items()
        }
        for name, energy in energies.items()
    }


class Uncertainty(NamedTuple):
    """How true the predicted width of a network is, in ln E."""

    pulls: NDArray[np.float64]
    # share of the truths inside of the central interval of each level
    covered: dict[float, Estimate]
    width: Estimate  # mean half width of the central 68 % interval


def check_uncertainty(
    network: Network, path: PathLike, *, split: str, levels: Sequence[float] = (0.68, 0.95)
) -> Uncertainty:
    """Pulls and coverage of a mixture or of quantiles on the clusters of the network's own species.

    Parameters
    ----------
    network : Network
        With head "mixture" or "quantiles" and a logarithmic target.
    path : path-like
    split : str
    levels : sequence of float
        Of central intervals; for quantiles those that the head predicts.

    Raises
    ------
    ConfigError
        If the head predicts no width.
    """
    stream = open_stream(path, network.config, split=split)
    output = apply_network(network, stream).astype(np.float64)
    answers = np.concatenate([stream[i][1] for i in range(len(stream))])[:, 0].astype(np.float64)
    if network.config.head == "mixture":
        predicted = mixture(*split_mixture(output))
        low, high = central_interval(predicted, 0.68)
        covered = dict(zip(levels, coverage(predicted.cdf(answers), levels), strict=True))
        return Uncertainty(pull(predicted, answers), covered, sharpness(low, high))
    if network.config.head != "quantiles":
        raise ConfigError(
            f"head {network.config.head!r} predicts no width: expected mixture or quantiles"
        )
    intervals = {level: quantile_interval(output, LEVELS, level) for level in levels}
    covered = {
        level: interval_coverage(answers, *interval) for level, interval in intervals.items()
    }
    low, median, high = output[:, 1], output[:, 2], output[:, 3]
    return Uncertainty(quantile_pull(answers, low, median, high), covered, sharpness(low, high))
