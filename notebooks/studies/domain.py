"""Domain shift: networks and boosted trees that learn on one sample of clusters, or on several, and
are applied to all of them.

A recipe names the samples that a network is trained on and the network that it starts from. The
inversion, its last step, is measured on the validation split of a sample that the recipe has seen:
on the sample itself where it is one of those, else on the first of them. So a network that knows
one sample only is applied to another one as it is, which is what a transfer means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.inversion import Inversion, fit_inversion
from pfcalib.calibration.lcw import LcwTables, cached_lcw
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.samples.read import PathLike
from pfcalib.samples.split import SPLITS
from pfcalib.simulation.produce import ProduceConfig, cached_sample
from pfcalib.training.networks import Extra, Network, fit_network
from pfcalib.training.regressors import (
    Clusters,
    EnergyTrees,
    fit_energy_trees,
    network_energy,
    read_clusters,
)
from pfcalib.training.trees import TreesConfig
from studies.domain_recipes import RecipeConfig

FEW = 5000  # validation clusters below which the inversion is a coarse one
PER_BIN = 60  # clusters a bin of a coarse inversion


class TrainedNetwork(NamedTuple):
    """A network and its inversions."""

    network: Network
    inversions: dict[str, Inversion]  # by sample; the first one is for all others

    def energy(self, path: PathLike, *, sample: str, split: str) -> NDArray[np.float64]:
        """Energies of the selected clusters of a split in GeV, as `read_clusters` orders them."""
        return _inversion_for(self.inversions, sample).apply(
            network_energy(self.network, path, split=split)
        )


class TrainedTrees(NamedTuple):
    """Boosted trees without inversion, and their inversions."""

    trees: EnergyTrees
    inversions: dict[str, Inversion]

    def energy(self, columns: Mapping[str, NDArray[Any]], *, sample: str) -> NDArray[np.float64]:
        """Energies in GeV of clusters with the columns of moments."""
        return _inversion_for(self.inversions, sample).apply(
            np.maximum(self.trees.energy(columns), 1e-3)
        )


def _inversion_for(inversions: Mapping[str, Inversion], sample: str) -> Inversion:
    return inversions.get(sample, next(iter(inversions.values())))


def make_samples(configs: Mapping[str, ProduceConfig]) -> dict[str, Path]:
    """Paths of the samples, by name; what is not in the cache is made."""
    return {name: cached_sample(config) for name, config in configs.items()}


def read_splits(paths: Mapping[str, PathLike]) -> dict[str, dict[str, Clusters]]:
    """Selected clusters of every sample, by sample and split."""
    return {
        name: {split: read_clusters(path, split=split) for split in SPLITS}
        for name, path in paths.items()
    }


def fit_recipes(
    recipes: Mapping[str, RecipeConfig], paths: Mapping[str, Path], *, known: Mapping[str, TrainedNetwork] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, TrainedNetwork]:  # fmt: skip
    """Train the networks, or find them in the cache, and measure their inversions.

    Parameters
    ----------
    recipes : mapping of str to RecipeConfig
    paths : mapping of str to Path
        By sample.
    known : mapping of str to TrainedNetwork, optional
        Recipes that others may start from.
    say : callable, optional
        Takes one line an epoch; silent by default.

    Raises
    ------
    ConfigError
        If a recipe starts from one that is neither known nor before it.
    """
    done = dict(known or {})
    for name, recipe in recipes.items():
        if recipe.start is not None and recipe.start not in done:
            raise ConfigError(
                f"recipe {name!r} starts from {recipe.start!r}, expected one that comes before it: "
                f"{', '.join(done) or 'none'}"
            )
        start = None if recipe.start is None else done[recipe.start].network
        extras = [Extra(paths[sample], share) for sample, share in recipe.extras.items()]
        network = fit_network(
            paths[recipe.sample],
            recipe.network,
            extras=extras,
            start=start,
            say=_prefixed(say, name),
        )
        done[name] = TrainedNetwork(
            network, {home: _invert_network(network, paths[home]) for home in recipe.homes}
        )
    return {name: done[name] for name in recipes}


def _prefixed(say: Callable[[str], None] | None, name: str) -> Callable[[str], None] | None:
    return None if say is None else lambda line: say(f"{name}: {line}")


def _invert_network(network: Network, path: Path) -> Inversion:
    clusters = read_clusters(path, split="validation")
    return invert(network_energy(network, path, split="validation"), clusters.e_true)


def invert(e_pred: ArrayLike, e_true: ArrayLike) -> Inversion:
    """Inversion that suits the number of clusters: `calibration.inversion.fit_inversion`, or
    `fit_coarse_inversion` below FEW.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
    """
    return (
        fit_inversion(e_pred, e_true)
        if np.size(e_true) >= FEW
        else fit_coarse_inversion(e_pred, e_true)
    )


def fit_coarse_inversion(
    e_pred: ArrayLike, e_true: ArrayLike, *, per_bin: int = PER_BIN
) -> Inversion:
    """Inversion from few clusters: in bins of true energy that hold equal numbers of them, so that
    no point is a matter of chance.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
        Positive.
    per_bin : int
        Clusters that a bin holds at least; if there are fewer in all, one factor is applied to all
        energies.

    Raises
    ------
    ValidationError
        If there are no clusters.
    """
    log_true, log_pred = (
        np.log(np.asarray(e_true, dtype=np.float64)),
        np.log(np.asarray(e_pred, dtype=np.float64)),
    )
    if log_true.size == 0:
        raise ValidationError("inversion: no clusters in the validation split, expected some")
    bins = np.array_split(np.argsort(log_true, kind="stable"), max(log_true.size // per_bin, 1))
    centre = np.array([log_true[part].mean() for part in bins])
    predicted = centre + np.array([np.median((log_pred - log_true)[part]) for part in bins])
    rising = np.maximum.accumulate(predicted) == predicted
    return Inversion(predicted[rising], centre[rising])


def fit_tree_recipes(
    clusters: Mapping[str, Mapping[str, Clusters]],
    shares: Mapping[str, float],
    *,
    config: TreesConfig,
    seed: int,
) -> dict[str, TrainedTrees]:
    """Boosted trees on A, ``gbdt``, and on the mixture, ``gbdt_mixed``.

    Parameters
    ----------
    clusters : mapping of str to mapping of str to Clusters
        By sample and split, see `read_splits`.
    shares : mapping of str to float
        Of the samples other than A in the mixture.
    config : TreesConfig
    seed : int
        Of the order in which clusters are taken for the mixture.
    """
    rng = np.random.default_rng(seed)
    mixtures = [
        mix_clusters({name: splits[split] for name, splits in clusters.items()}, shares, rng=rng)
        for split in ("train", "validation")
    ]
    plain = {
        "gbdt": fit_energy_trees(
            clusters["a"]["train"], clusters["a"]["validation"], config=config
        ),
        "gbdt_mixed": fit_energy_trees(*mixtures, config=config),
    }
    homes = {"gbdt": ("a",), "gbdt_mixed": ("a", *shares)}
    trained = {}
    for name, trees in plain.items():
        bare = TrainedTrees(trees._replace(inversion=None), {})
        validation = {home: clusters[home]["validation"] for home in homes[name]}
        energies = {
            home: np.maximum(bare.trees.energy(part.columns), 1e-3)
            for home, part in validation.items()
        }
        trained[name] = bare._replace(
            inversions={
                home: invert(energies[home], part.e_true) for home, part in validation.items()
            }
        )
    return trained


def mix_clusters(
    parts: Mapping[str, Clusters], shares: Mapping[str, float], *, rng: np.random.Generator
) -> Clusters:
    """All clusters of A and of the other samples as many as their shares of the whole say, some of
    them more than once if need be.

    Parameters
    ----------
    parts : mapping of str to Clusters
        By sample.
    shares : mapping of str to float
        Of the samples other than A.
    rng : numpy.random.Generator
        Source of the choice.
    """
    n_total = len(parts["a"].rows) / (1.0 - sum(shares.values()))
    chosen = {"a": np.arange(len(parts["a"].rows))}
    chosen |= {
        name: np.resize(rng.permutation(len(parts[name].rows)), max(round(share * n_total), 1))
        for name, share in shares.items()
    }
    columns = {
        column: np.concatenate([parts[name].columns[column][rows] for name, rows in chosen.items()])
        for column in parts["a"].columns
    }
    rows, is_em, e_true = (
        np.concatenate([getattr(parts[name], of)[at] for name, at in chosen.items()])
        for of in ("rows", "is_em", "e_true")
    )
    return Clusters(rows, columns, is_em, e_true)


def derive_tables(
    paths: Mapping[str, Path], clusters: Mapping[str, Mapping[str, Clusters]], *, min_clusters: int
) -> dict[str, dict[str, LcwTables]]:
    """Tables of local cell weighting for every sample: ``lcw``, derived on A, and
    ``lcw_retrained``, on a sample with min_clusters to train on.
    """
    on_a = LcwTables.load(cached_lcw(paths["a"]))
    tables = {name: {"lcw": on_a} for name in paths}
    for name, path in paths.items():
        if name != "a" and len(clusters[name]["train"].rows) >= min_clusters:
            tables[name]["lcw_retrained"] = LcwTables.load(cached_lcw(path))
    return tables
