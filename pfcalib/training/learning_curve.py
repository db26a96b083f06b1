"""How two kinds of classifier gain from more clusters to learn from: a network on cells against
trees on moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.features.scalars import MOMENT_FEATURES, moment_table
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.roc import auc, auc_difference
from pfcalib.samples.read import PathLike
from pfcalib.training.networks import NetworkConfig, fit_network, score_network
from pfcalib.training.regressions import MIN_BATCH, MIN_STEPS, SizeStudyConfig
from pfcalib.training.trees import TreesConfig, fit_trees

Columns = Mapping[str, NDArray[Any]]  # of `training.classifiers.read_columns`


class SizePoint(NamedTuple):
    """Areas on the test split after a training on so many clusters."""

    n_clusters: int
    network: Estimate
    trees: Estimate
    lead: Estimate  # network minus trees, on the same clusters


def compare_scores(
    n_clusters: int,
    network: NDArray[np.float64],
    trees: NDArray[np.float64],
    is_em: NDArray[np.bool_],
) -> SizePoint:
    """A point from the scores of both on the test split."""
    difference = auc_difference(network, trees, is_em)
    return SizePoint(
        n_clusters,
        auc(network, is_em),
        auc(trees, is_em),
        Estimate(difference.value, difference.error),
    )


def study_sizes(
    path: PathLike,
    config: SizeStudyConfig,
    network: NetworkConfig,
    trees: TreesConfig,
    columns: Mapping[str, Columns],
) -> list[SizePoint]:
    """Train both on random parts of the training split.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    config : SizeStudyConfig
    network : NetworkConfig
        Its epochs and number of clusters are replaced; its batch size is an upper limit.
    trees : TreesConfig
    columns : mapping of split to columns
        Of the same sample, as `training.classifiers.read_columns` gives them, for train, validation
        and test.

    Raises
    ------
    ConfigError
        If the training split has fewer clusters than the largest size.
    """
    n_training = len(columns["train"]["is_em"])
    if n_training < config.sizes[-1]:
        raise ConfigError(
            f"{config.sizes[-1]} clusters are wanted, the training split has {n_training}"
        )
    tables = {split: moment_table(columns[split]) for split in columns}
    is_em = {split: columns[split]["is_em"] for split in columns}
    held_out = (tables["validation"], is_em["validation"], None)
    order = np.random.default_rng(network.train.seed).permutation(n_training)
    points = []
    for size, epochs in zip(config.sizes, config.epochs, strict=True):
        batch_size = min(network.train.batch_size, max(size // MIN_STEPS, MIN_BATCH))
        small = replace(
            network,
            n_clusters=size,
            train=replace(network.train, epochs=epochs, batch_size=batch_size, patience=epochs),
        )
        score = score_network(fit_network(path, small), path, split="test")
        chosen = order[:size]
        few = fit_trees(
            tables["train"][chosen],
            is_em["train"][chosen],
            feature_names=MOMENT_FEATURES,
            validation=held_out,
            config=trees,
        )
        points.append(compare_scores(size, score, few.p_em(tables["test"]), is_em["test"]))
    return points
