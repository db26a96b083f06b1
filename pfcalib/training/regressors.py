"""Calibrations: networks and boosted trees that give the true energy of clusters, with an inversion
measured on the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.inversion import MIN_COUNT, Inversion, fit_inversion
from pfcalib.features.scalars import MOMENT_COLUMNS, MOMENT_FEATURES, moment_table
from pfcalib.features.targets import TargetConfig, flat_weights
from pfcalib.models.shapes import SHAPE_FEATURES, shape_table
from pfcalib.samples.select import SelectionConfig
from pfcalib.training.fit import Say
from pfcalib.training.networks import (
    LOWEST_ENERGY,
    SELECTION,
    Extra,
    Network,
    NetworkConfig,
    Paths,
    fit_network,
    for_species,
    network_energy,
)
from pfcalib.training.stream import ClusterStream
from pfcalib.training.trees import BoostedTrees, TreesConfig, fit_trees

SPECIES_OF = {"pi0": "neutral", "pic": "charged"}  # as in the names of metrics: as in a selection
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
    table: NDArray[np.float32]  # what trees see, columns as in `feature_names`

    @property
    def e_em(self) -> NDArray[np.float64]:
        """Energy at the EM scale, GeV."""
        return np.asarray(self.columns["clusterE"], dtype=np.float64)

    @property
    def species(self) -> dict[str, NDArray[np.bool_]]:
        """Masks of neutral and charged clusters by the names of metrics."""
        return {"pi0": self.is_em, "pic": ~self.is_em}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Of the columns of the table: moments, and shapes of the layers if these were read."""
        return (*MOMENT_FEATURES, *SHAPE_FEATURES)[: self.table.shape[1]]

    def take(self, chosen: NDArray[Any]) -> Clusters:
        """Some of the clusters, by mask or index."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        rest = (self.is_em[chosen], self.e_true[chosen], self.table[chosen])
        return Clusters(self.rows[chosen], columns, *rest)


class Regressor(NamedTuple):
    """A network that gives energies, with its inversion."""

    network: Network
    inversion: Inversion | None

    def energy(
        self, path: Paths, *, split: str, select: SelectionConfig = SELECTION
    ) -> NDArray[np.float64]:
        """Energies of the selected clusters of a split in GeV, as `read_clusters` orders them."""
        energy = network_energy(self.network, path, split=split, select=select)
        return energy if self.inversion is None else self.inversion.apply(energy)


def read_clusters(
    path: Paths,
    *,
    split: str,
    target: TargetConfig | None = None,
    select: SelectionConfig = SELECTION,
    with_shapes: bool = False,
) -> Clusters:
    """Columns and truth of the selected clusters of a split; with shapes the table for trees holds
    all that the network "points" makes of their cells.
    """
    stream = ClusterStream(
        path, kind="points", split=split, balance=None, shuffle=False, select=select
    )
    columns = {
        name: stream.column(name) for name in dict.fromkeys((*MOMENT_COLUMNS, *TRUTH_COLUMNS))
    }
    table = moment_table(columns)
    if with_shapes:
        shapes = [shape_table(stream[i][0]["points"]) for i in range(len(stream))]
        table = np.hstack([table, np.concatenate(shapes)])
    return Clusters(
        stream.rows.astype(np.int64),
        columns,
        stream.labels[:, 1] > 0.5,
        (target or TargetConfig()).energy_true(columns),
        table,
    )


def fit_regressor(
    path: Paths,
    config: NetworkConfig,
    *,
    invert: bool = True,
    extras: Sequence[Extra] = (),
    start: Network | None = None,
    say: Say | None = None,
) -> Regressor:
    """Train a network, or find it, and measure its inversion on the validation split; parameters as
    in `training.networks.fit_network`.
    """
    network = fit_network(path, config, extras=extras, start=start, say=say)
    return Regressor(network, measure_inversion(network, path) if invert else None)


def measure_inversion(network: Network, path: Paths, *, split: str = "validation") -> Inversion:
    """Inversion of a network on the clusters of its own species."""
    select = network.config.select or SELECTION
    clusters = read_clusters(path, split=split, target=network.config.target, select=select)
    energy = network_energy(network, path, split=split, select=select)
    return _inversion(energy, clusters.e_true)


def _inversion(e_pred: NDArray[np.float64], e_true: NDArray[np.float64]) -> Inversion:
    """Where there are few clusters at all a bin needs fewer."""
    return fit_inversion(e_pred, e_true, min_count=max(min(MIN_COUNT, len(e_true) // 40), 2))


def fit_apart(
    path: Paths, config: NetworkConfig, *, invert: bool = True, say: Say | None = None
) -> dict[str, Regressor]:
    """One regressor for neutral ("pi0") and one for charged ("pic") pions, of the same settings."""
    return {
        key: fit_regressor(path, for_species(config, species), invert=invert, say=say)
        for key, species in SPECIES_OF.items()
    }


def energy_apart(
    regressors: Mapping[str, Regressor],
    path: Paths,
    clusters: Clusters,
    *,
    split: str,
    select: SelectionConfig = SELECTION,
) -> NDArray[np.float64]:
    """Energies in GeV where each cluster is given to the regressor of its own species, in the order
    of the clusters, which were selected likewise.
    """
    energy = np.full(len(clusters.rows), np.nan)
    for key, regressor in regressors.items():
        energy[clusters.species[key]] = regressor.energy(
            path, split=split, select=replace(select, species=SPECIES_OF[key])
        )
    return energy


class EnergyTrees(NamedTuple):
    """Boosted trees on moments, and on shapes if these were read, that give energies, with their
    inversion.
    """

    trees: BoostedTrees
    target: TargetConfig
    inversion: Inversion | None

    def energy(self, clusters: Clusters) -> NDArray[np.float64]:
        """Energies in GeV of clusters, whose table has the columns that were learnt from."""
        energy = np.maximum(
            self.target.decode(self.trees.raw(clusters.table), clusters.e_em), LOWEST_ENERGY
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
    """Boosted trees from the clusters of a species (``all``, ``neutral`` or ``charged``) of two
    splits; those of validation stop the boosting and give the inversion.
    """
    target = target or TargetConfig()
    if species != "all":
        train, validation = (c.take(c.is_em == (species == "neutral")) for c in (train, validation))
    goals, weights = [], []
    for part in (train, validation):
        e_true = target.energy_true(part.columns)
        goals.append(target.encode(e_true, part.e_em))
        weights.append(flat_weights(e_true, part.is_em) if target.flat else None)
    trees = fit_trees(
        train.table,
        goals[0],
        feature_names=train.feature_names,
        weights=weights[0],
        validation=(validation.table, goals[1], weights[1]),
        config=config,
    )
    plain = EnergyTrees(trees, target, None)
    inversion = _inversion(plain.energy(validation), target.energy_true(validation.columns))
    return plain._replace(inversion=inversion)


def fit_trees_apart(
    train: Clusters,
    validation: Clusters,
    *,
    target: TargetConfig | None = None,
    config: TreesConfig,
) -> dict[str, EnergyTrees]:
    """Boosted trees for neutral and for charged pions."""
    return {
        key: fit_energy_trees(train, validation, target=target, species=species, config=config)
        for key, species in SPECIES_OF.items()
    }


def trees_energy_apart(trees: Mapping[str, EnergyTrees], clusters: Clusters) -> NDArray[np.float64]:
    """Energies in GeV by the trees of each cluster's own species."""
    both = {key: each.energy(clusters) for key, each in trees.items()}
    return np.where(clusters.is_em, both["pi0"], both["pic"])
