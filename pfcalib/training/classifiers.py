"""The classifiers of a study scored together: likelihood, trees and networks on the same clusters
of any sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.likelihood import COLUMNS_READ, EmLikelihood
from pfcalib.errors import ConfigError
from pfcalib.features.scalars import MOMENT_COLUMNS, moment_table
from pfcalib.samples.read import PathLike
from pfcalib.samples.select import Balance, balance_mask
from pfcalib.training.networks import Network, score_network
from pfcalib.training.stream import ClusterStream
from pfcalib.training.trees import BoostedTrees

COLUMNS_KEPT = ("truthE", "truthPdgId", "clusterE", "clusterEta", "cluster_ENG_CALIB_TOT")


class Scored(NamedTuple):
    """Clusters with the probability that each classifier gives them."""

    p_em: dict[str, NDArray[np.float64]]  # by classifier, (n_clusters,)
    is_em: NDArray[np.bool_]
    columns: dict[str, NDArray[Any]]  # COLUMNS_KEPT

    def select(self, chosen: NDArray[np.bool_]) -> Scored:
        """The clusters where `chosen` is true."""
        parts = (
            {name: values[chosen] for name, values in group.items()}
            for group in (self.p_em, self.columns)
        )
        p_em, columns = parts
        return Scored(p_em, self.is_em[chosen], columns)

    def balanced(self, column: str, *, rng: np.random.Generator) -> Scored:
        """As many neutral as charged clusters in each bin of an energy in GeV, chosen by chance;
        see `samples.select.balance_mask`.
        """
        return self.select(balance_mask(self.columns[column], self.is_em, rng=rng))


def read_columns(
    path: PathLike, *, split: str, balance: Balance = "subsample", seed: int
) -> dict[str, NDArray[Any]]:
    """Scalars that likelihood, trees and evaluation need, of the same clusters in the same order as
    `score_network`.
    """
    stream = ClusterStream(
        path, kind="layer:TileBar2", split=split, balance=balance, shuffle=False, seed=seed
    )
    names = dict.fromkeys((*MOMENT_COLUMNS, *COLUMNS_READ, *COLUMNS_KEPT))
    return {**{name: stream.column(name) for name in names}, "is_em": stream.labels[:, 1] > 0.5}


def score_sample(
    path: PathLike,
    likelihood: EmLikelihood,
    trees: BoostedTrees,
    networks: Mapping[str, Network],
    *,
    split: str,
    balance: Balance,
    seed: int,
) -> Scored:
    """All classifiers on the clusters of one split of a sample.

    Raises
    ------
    ConfigError
        If a network was trained with another seed, which balances the classes with other clusters.
    """
    for name, network in networks.items():
        if network.config.train.seed != seed:
            raise ConfigError(
                f"network {name!r} was trained with seed {network.config.train.seed}, not {seed}"
            )
    columns = read_columns(path, split=split, balance=balance, seed=seed)
    p_em = {"likelihood": likelihood.p_em(columns), "gbdt": trees.p_em(moment_table(columns))}
    p_em |= {
        name: score_network(network, path, split=split, balance=balance)
        for name, network in networks.items()
    }
    return Scored(p_em, columns["is_em"], {name: columns[name] for name in COLUMNS_KEPT})
