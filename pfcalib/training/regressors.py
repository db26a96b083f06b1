"""Calibrations of a study on the same clusters: networks and boosted trees that give the true
energy, and what they are compared with.

A regressor is a network with the inversion that was measured on its validation split; it turns
clusters into GeV. The clusters of all studies of regression are those with a deposit of at least
0.2 GeV (ATL-PHYS-PUB-2020-018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.inversion import MIN_COUNT, Inversion, fit_inversion
from pfcalib.errors import ConfigError
from pfcalib.features.scalars import MOMENT_COLUMNS, MOMENT_FEATURES, moment_table
from pfcalib.features.targets import TargetConfig, flat_weights
from pfcalib.metrics.uncertainty import mixture, mixture_median
from pfcalib.models.heads import LEVELS, split_mixture
from pfcalib.samples.read import PathLike
from pfcalib.samples.select import SelectionConfig
from pfcalib.training.networks import (
    Extra,
    Network,
    NetworkConfig,
    apply_network,
    fit_network,
    open_stream,
)
from pfcalib.training.stream import ClusterStream
from pfcalib.training.trees import BoostedTrees, TreesConfig, fit_regression_trees

SELECTION = SelectionConfig(min_cluster_e=0.1, min_deposit=0.2)
SPECIES_OF = {"pi0": "neutral", "pic": "charged"}  # as in the names of metrics: as in a selection
LOWEST_ENERGY = 1e-3  # GeV; a linear scale can go below zero
TRUTH_COLUMNS = (
    "truthE",
    "truthPdgId",
    "clusterE",
    "clusterEta",
    "cluster_ENG_CALIB_TOT",
    "cluster_ENG_CALIB_OUT_T",
    "cluster_ENG_CALIB_DEAD_TOT",
)


class Clusters(NamedTuple):
    """Selected clusters of a split, in the order of the file."""

    rows: NDArray[np.int64]  # among all clusters of the file
    columns: dict[str, NDArray[Any]]  # moments and truth
    is_em: NDArray[np.bool_]
    e_true: NDArray[np.float64]  # GeV, as the target defines it

    @property
    def e_em(self) -> NDArray[np.float64]:
        """Energy at the EM scale, GeV."""
        return np.asarray(self.columns["clusterE"], dtype=np.float64)

    @property
    def species(self) -> dict[str, NDArray[np.bool_]]:
        """Masks of neutral and charged clusters by the names of metrics."""
        return {"pi0": self.is_em, "pic": ~self.is_em}


class Regressor(NamedTuple):
    """A network that gives energies, with its inversion."""

    network: Network
    inversion: Inversion | None

    def energy(
        self, path: PathLike, *, split: str, select: SelectionConfig = SELECTION
    ) -> NDArray[np.float64]:
        """Energies of the selected clusters of a split in GeV, as `read_clusters` orders them."""
        energy = network_energy(self.network, path, split=split, select=select)
        return energy if self.inversion is None else self.inversion.apply(energy)


def read_clusters(
    path: PathLike,
    *,
    split: str,
    target: TargetConfig | None = None,
    select: SelectionConfig = SELECTION,
) -> Clusters:
    """Columns and truth of the selected clusters of a split."""
    stream = ClusterStream(
        path, kind="layer:TileBar2", split=split, balance=None, shuffle=False, select=select
    )
    columns = {
        name: stream.column(name) for name in dict.fromkeys((*MOMENT_COLUMNS, *TRUTH_COLUMNS))
    }
    return Clusters(
        stream.rows.astype(np.int64),
        columns,
        stream.labels[:, 1] > 0.5,
        (target or TargetConfig()).energy_true(columns),
    )


def network_energy(
    network: Network, path: PathLike, *, split: str, select: SelectionConfig = SELECTION
) -> NDArray[np.float64]:
    """Energies of a regression network without inversion, GeV: the median where the head gives a
    distribution.

    Raises
    ------
    ConfigError
        If the network is a classifier.
    """
    stream = open_stream(path, network.config, split=split, select=select)
    return output_energy(network.config, apply_network(network, stream), stream.column("clusterE"))


def output_energy(
    config: NetworkConfig, output: NDArray[np.float32], cluster_e: NDArray[Any]
) -> NDArray[np.float64]:
    """Energies in GeV from the output of a network (n_clusters, n_outputs) and clusterE."""
    if config.target is None:
        raise ConfigError(f"network {config.name!r} with head {config.head!r} gives no energy")
    if config.head == "mixture":
        target = mixture_median(mixture(*split_mixture(output)))
    else:
        target = output[
            :, {"energy": 0, "quantiles": LEVELS.index(0.5), "class_and_energy": 2}[config.head]
        ].astype(np.float64)
    energy = config.target.decode(target, np.asarray(cluster_e, dtype=np.float64))
    return np.maximum(energy, LOWEST_ENERGY)


def fit_regressor(
    path: PathLike,
    config: NetworkConfig,
    *,
    invert: bool = True,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
    say: Callable[[str], None] | None = None,
) -> Regressor:
    """Train a network, or find it, and measure its inversion on the validation split; parameters as
    in `training.networks.fit_network`.
    """
    network = fit_network(path, config, extras=extras, start=start, say=say)
    return Regressor(network, measure_inversion(network, path) if invert else None)


def measure_inversion(network: Network, path: PathLike, *, split: str = "validation") -> Inversion:
    """Inversion of a network on the clusters of its own species."""
    select = network.config.select or SELECTION
    clusters = read_clusters(path, split=split, target=network.config.target, select=select)
    return fit_inversion(
        network_energy(network, path, split=split, select=select),
        clusters.e_true,
        min_count=_min_count(len(clusters.rows)),
    )


class EnergyTrees(NamedTuple):
    """Boosted trees on moments that give energies, with their inversion."""

    trees: BoostedTrees
    target: TargetConfig
    inversion: Inversion | None

    def energy(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Energies in GeV of clusters with the columns `MOMENT_COLUMNS`."""
        energy = np.maximum(
            self.target.decode(self.trees.raw(moment_table(columns)), columns["clusterE"]),
            LOWEST_ENERGY,
        )
        return energy if self.inversion is None else self.inversion.apply(energy)


def fit_energy_trees(
    train: Clusters,
    validation: Clusters,
    *,
    target: TargetConfig | None = None,
    species: str = "all",
    config: TreesConfig | None = None,
) -> EnergyTrees:
    """Boosted trees from the clusters of a species of two splits; those of validation stop the
    boosting and give the inversion.

    Parameters
    ----------
    train, validation : Clusters
    target : TargetConfig, optional
    species : str
        ``all``, ``neutral`` or ``charged``.
    config : TreesConfig, optional
    """
    target = target or TargetConfig()
    parts = [_of_species(clusters, species) for clusters in (train, validation)]
    tables = [moment_table(part.columns) for part in parts]
    goals = [target.encode(target.energy_true(part.columns), part.e_em) for part in parts]
    weights = [
        flat_weights(target.energy_true(part.columns), part.is_em) if target.flat else None
        for part in parts
    ]
    held_out = (tables[1], goals[1], weights[1])
    trees = fit_regression_trees(
        tables[0],
        goals[0],
        feature_names=MOMENT_FEATURES,
        weights=weights[0],
        validation=held_out,
        config=config,
    )
    plain = EnergyTrees(trees, target, None)
    inversion = fit_inversion(
        plain.energy(parts[1].columns),
        target.energy_true(parts[1].columns),
        min_count=_min_count(len(goals[1])),
    )
    return plain._replace(inversion=inversion)


def _min_count(n_clusters: int) -> int:
    """Clusters that a bin of an inversion needs: fewer where there are few clusters at all."""
    return max(min(MIN_COUNT, n_clusters // 40), 2)


def _of_species(clusters: Clusters, species: str) -> Clusters:
    if species == "all":
        return clusters
    keep = clusters.is_em == (species == "neutral")
    columns = {name: values[keep] for name, values in clusters.columns.items()}
    return Clusters(clusters.rows[keep], columns, clusters.is_em[keep], clusters.e_true[keep])


def for_species(config: NetworkConfig, species: str) -> NetworkConfig:
    """The same network for the clusters of one species, ``all``, ``neutral`` or ``charged``."""
    return replace(config, select=replace(config.select or SELECTION, species=species))
