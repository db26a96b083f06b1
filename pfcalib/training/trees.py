"""Gradient-boosted trees on a table of cluster moments: the baseline that a network has to beat.

Fitted by scikit-learn's `HistGradientBoostingClassifier` or `HistGradientBoostingRegressor`; kept
as plain arrays, stored as .npz without pickle and applied by a numba kernel that gives
scikit-learn's numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from pfcalib.cache import new_file
from pfcalib.errors import BadFileError, ConfigError, ValidationError

SCHEMA_VERSION = 1
NODE_FIELDS = {  # field of scikit-learn's nodes: dtype in the file
    "feature_idx": np.int64,
    "num_threshold": np.float64,
    "left": np.int64,
    "right": np.int64,
    "is_leaf": np.bool_,
    "missing_go_to_left": np.bool_,
    "value": np.float64,
}
MAX_BINS = 255  # of scikit-learn, for each feature
Validation = tuple[ArrayLike, ArrayLike, ArrayLike | None]  # table, is_em or target, weights


@dataclass(frozen=True)
class TreesConfig:
    """Options of the boosting."""

    learning_rate: float = 0.1
    max_iter: int = 300
    max_leaf_nodes: int = 31
    min_samples_leaf: int = 20
    l2_regularization: float = 0.0
    patience: int = 20  # iterations without gain on the validation part, where one is given
    loss: str = "squared_error"  # of a regression; absolute_error leads to the median
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in ("squared_error", "absolute_error"):
            raise ConfigError(
                f"TreesConfig: loss = {self.loss!r}, expected squared_error or absolute_error"
            )
        for name, value in asdict(self).items():
            if name != "loss" and (
                value < 0 or (value == 0 and name not in ("seed", "l2_regularization"))
            ):
                raise ConfigError(f"TreesConfig: {name} = {value!r}, expected above 0")


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Fitted trees; nodes of all trees lie one after the other, tree t starts at roots[t]."""

    feature_names: tuple[str, ...]
    baseline: float  # log odds, or target of a regression, before the first tree
    roots: NDArray[np.int64]  # (n_trees,)
    # NODE_FIELDS, each (n_nodes,); left and right count from the root of the tree
    nodes: dict[str, NDArray]

    @property
    def n_trees(self) -> int:
        """Boosting iterations kept."""
        return len(self.roots)

    def p_em(self, table: ArrayLike) -> NDArray[np.float64]:
        """Probability of a neutral pion, shape (n_clusters,).

        Parameters
        ----------
        table : array_like, shape (n_clusters, n_features)
            Columns as in feature_names; NaN stands for a missing value.

        Raises
        ------
        ValidationError
            If the number of columns differs.
        """
        return np.asarray(expit(self.raw(table)))

    def raw(self, table: ArrayLike) -> NDArray[np.float64]:
        """Sum over the trees, shape (n_clusters,): the target of a regression, the log odds of a
        classifier.

        Raises
        ------
        ValidationError
            If the number of columns differs.
        """
        values = np.ascontiguousarray(table, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.feature_names):
            raise ValidationError(
                f"table of shape {values.shape}: the trees were fitted to "
                f"{len(self.feature_names)} features"
            )
        return np.asarray(
            _raw(values, self.baseline, self.roots, *(self.nodes[name] for name in NODE_FIELDS))
        )

    def save(self, path: str | Path) -> None:
        """Write the trees to a .npz file, completely or not at all."""
        meta = {
            "schema_version": SCHEMA_VERSION,
            "feature_names": self.feature_names,
            "baseline": self.baseline,
        }
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), "roots": self.roots}
        with new_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, **self.nodes)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> BoostedTrees:
        """Trees from a file of `save`; raises BadFileError where it is missing or broken."""
        try:
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                nodes = {
                    name: file[name].astype(dtype, casting="safe")
                    for name, dtype in NODE_FIELDS.items()
                }
                roots = file["roots"].astype(np.int64, casting="safe")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise BadFileError(f"{path}: not a file of boosted trees: {error}") from error
        if meta.get("schema_version") != SCHEMA_VERSION:
            raise BadFileError(
                f"{path}: schema_version {meta.get('schema_version')}, expected {SCHEMA_VERSION}"
            )
        trees = cls(tuple(meta["feature_names"]), float(meta["baseline"]), roots, nodes)
        trees.require_sound(str(path))
        return trees

    def require_sound(self, source: str) -> None:
        """Raise BadFileError unless every branch leads forwards inside its own tree and to an
        existing feature.
        """
        n_nodes = len(self.nodes["value"])
        ends = np.append(self.roots[1:], n_nodes)
        split = ~self.nodes["is_leaf"]
        tree = (
            np.repeat(np.arange(self.n_trees), ends - self.roots)
            if self.n_trees and np.all(ends > self.roots)
            else np.empty(0, np.int64)
        )
        if (
            self.n_trees == 0
            or self.roots[0] != 0
            or any(len(self.nodes[name]) != n_nodes for name in NODE_FIELDS)
            or len(tree) != n_nodes
        ):
            raise BadFileError(f"{source}: the trees do not tile the {n_nodes} nodes")
        place = np.arange(n_nodes) - self.roots[tree]
        size = (ends - self.roots)[tree]
        sound = (self.nodes["feature_idx"] >= 0) & (
            self.nodes["feature_idx"] < len(self.feature_names)
        )
        for side in ("left", "right"):
            sound &= (self.nodes[side] > place) & (self.nodes[side] < size)
        if not sound[split].all():
            raise BadFileError(
                f"{source}: node {int(np.flatnonzero(split & ~sound)[0])} does not lead forwards "
                "to a node of its tree"
            )


@numba.njit(cache=True, parallel=False, nogil=True)
def _raw(table, baseline, roots, feature, threshold, left, right, is_leaf, missing_left, value):  # type: ignore[no-untyped-def]
    """Log odds of each row: baseline plus the leaf of every tree, added in order."""
    result = np.empty(len(table))
    for row in range(len(table)):
        total = baseline
        for root in roots:
            node = root
            while not is_leaf[node]:
                x = table[row, feature[node]]
                go_left = missing_left[node] if np.isnan(x) else x <= threshold[node]
                node = root + (left[node] if go_left else right[node])
            total += value[node]
        result[row] = total
    return result


def fit_trees(
    table: ArrayLike,
    target: ArrayLike,
    *,
    feature_names: Sequence[str],
    weights: ArrayLike | None = None,
    validation: Validation | None = None,
    config: TreesConfig | None = None,
) -> BoostedTrees:
    """Fit boosted trees: a classifier where the target is a boolean, else a regression.

    Parameters
    ----------
    table : array_like, shape (n_clusters, n_features)
        Moments; NaN stands for a missing value.
    target : array_like, shape (n_clusters,)
        True for neutral pions, or a number such as ln(E_dep / E_EM).
    feature_names : sequence of str
        Names of the columns, kept with the trees.
    weights : array_like, shape (n_clusters,), optional
        Weight of each cluster.
    validation : (table, target, weights or None), optional
        Clusters of other events; with them the boosting stops once they no longer gain, without
        them it runs for all iterations.
    """
    config, target = config or TreesConfig(), np.asarray(target)
    table = np.asarray(table, dtype=np.float64)
    if len(feature_names) != table.shape[1]:
        raise ValidationError(f"{len(feature_names)} feature names for {table.shape[1]} columns")
    edges = [_bin_edges(column, weights) for column in table.T]
    options = asdict(config)
    seed, patience, loss = (options.pop(name) for name in ("seed", "patience", "loss"))
    options |= {
        "random_state": seed,
        "n_iter_no_change": patience,
        "early_stopping": validation is not None,
    }
    if target.dtype == np.bool_:
        model = HistGradientBoostingClassifier(**options)
    else:
        model = HistGradientBoostingRegressor(loss=loss, **options)
    held_out: dict[str, Any] = {}
    if validation is not None:
        held_table, held_target, held_weights = validation
        held_out = {"X_val": _bin_numbers(held_table, edges), "y_val": held_target}
        held_out["sample_weight_val"] = held_weights
    model.fit(_bin_numbers(table, edges), target, sample_weight=weights, **held_out)
    trees = _from_sklearn(model, tuple(feature_names))
    feature, threshold, is_leaf = (
        trees.nodes[name] for name in ("feature_idx", "num_threshold", "is_leaf")
    )
    for node in np.flatnonzero(~is_leaf & np.isfinite(threshold)):  # infinite: known from missing
        threshold[node] = edges[feature[node]][int(threshold[node])]
    return trees


def _bin_edges(column: NDArray[np.float64], weights: ArrayLike | None) -> NDArray[np.float64]:
    """Upper edges of at most MAX_BINS bins of like weight, but for the last bin.

    Those of scikit-learn, which takes minutes for them where clusters have weights (its pull
    request 34248).
    """
    known = ~np.isnan(column)
    values = np.unique(column[known])
    if len(values) <= MAX_BINS:
        return 0.5 * (values[:-1] + values[1:])
    share = np.arange(1, MAX_BINS) / MAX_BINS
    weights = None if weights is None else np.asarray(weights, dtype=np.float64)[known]
    return np.unique(np.quantile(column[known], share, weights=weights, method="inverted_cdf"))


def _bin_numbers(table: ArrayLike, edges: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Bin of each value, NaN where it is missing: x lies in bin k or below if x <= edges[k]."""
    columns = np.asarray(table, dtype=np.float64).T
    numbers = [
        np.where(np.isnan(column), np.nan, np.searchsorted(cuts, column))
        for column, cuts in zip(columns, edges, strict=True)
    ]
    return np.stack(numbers, axis=1)


def _from_sklearn(
    model: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
    feature_names: tuple[str, ...],
) -> BoostedTrees:
    """Arrays of a fitted binary classifier or regression with numerical features."""
    trees = [predictors[0].nodes for predictors in model._predictors]
    joined = np.concatenate(trees)
    roots = np.cumsum([0, *map(len, trees[:-1])])
    nodes: dict[str, NDArray] = {
        name: np.ascontiguousarray(joined[name], dtype=dtype) for name, dtype in NODE_FIELDS.items()
    }
    return BoostedTrees(
        feature_names, float(np.ravel(model._baseline_prediction)[0]), roots.astype(np.int64), nodes
    )
