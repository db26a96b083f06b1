"""Can boosted trees tell the fast simulation from Geant4? The area under their ROC curve, and which
moments give it away.

A classifier two-sample test (arXiv:1610.06545): 0.5 means that no difference was found, 1 that
every shower is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from pfcalib.columns import LAYER_NAMES
from pfcalib.metrics.fidelity_bins import Moments, layer_energy
from pfcalib.metrics.roc import Estimate, auc

FEATURES = (
    "response",
    *(f"share_{name}" for name in LAYER_NAMES[:6]),
    *(f"width_{axis}_{name}" for axis in ("eta", "phi") for name in LAYER_NAMES[1:4]),
    "width_eta_TileBar0",
    "n_cells",
    "max_share",
    "second_share",
    "depth",
    "depth_width",
    "core",
)


class Separation(NamedTuple):
    """How well two samples are told apart; scores are those of trees that have not seen the
    shower.
    """

    auc: Estimate  # mean of those of the folds
    score: NDArray[np.float64]  # (n,), larger for the fast simulation
    is_fast: NDArray[np.bool_]  # (n,)
    importance: dict[str, float]  # loss of AUC when a moment is shuffled, falling


def feature_table(
    moments: Moments, e_true: NDArray[np.float64], layer_sigma: Mapping[str, float]
) -> NDArray[np.float64]:
    """The moments of FEATURES and, last, log10 of the true energy, as the condition; shape (n, 21).

    Parameters
    ----------
    moments : dict of ndarray, shape (n,)
        As `metrics.fidelity.shower_moments` returns them.
    e_true : ndarray, shape (n,), GeV
    layer_sigma : mapping of str to float, GeV
        Noise of a cell of each layer: a layer below three times of it counts as empty, since no
        detector would see it (share 0, no width).
    """
    empty = {
        name: layer_energy(moments, e_true, name) < 3.0 * layer_sigma[name] for name in LAYER_NAMES
    }
    nothing = np.logical_and.reduce(list(empty.values()))
    columns = []
    for name in FEATURES:
        column = np.where(nothing & (name not in ("response", "n_cells")), np.nan, moments[name])
        kind, layer = name.split("_")[0], name.split("_")[-1]
        if kind in ("share", "width") and layer in empty:
            column = np.where(empty[layer], 0.0 if kind == "share" else np.nan, column)
        columns.append(np.where(empty["EMB2"], np.nan, column) if name == "core" else column)
    return np.column_stack([*columns, np.log10(e_true)])


def tell_apart(
    fast: NDArray[np.float64],
    geant4: NDArray[np.float64],
    *,
    copies: int,
    seed: int,
    n_folds: int = 5,
) -> Separation:
    """Train trees on all folds of the events but one and score that one, in turn.

    Parameters
    ----------
    fast : ndarray, shape (copies * n, n_features)
        Rows i * copies to (i + 1) * copies - 1 are copies of particle i and stay in its fold;
        together they weigh as one shower.
    geant4 : ndarray, shape (n, n_features)
    copies : int
    seed : int
        Of the folds, the trees and the shuffling.
    n_folds : int
        The importance of the moments is that in the first fold.

    Raises
    ------
    ValueError
        If the numbers of rows do not fit.
    """
    if len(fast) != copies * len(geant4):
        raise ValueError(f"fast has {len(fast)} rows: expected {copies} copies of {len(geant4)}")
    table = np.concatenate([fast, geant4])
    is_fast = np.arange(len(table)) < len(fast)
    weight = np.where(is_fast, 1.0 / copies, 1.0)
    event = np.concatenate([np.repeat(np.arange(len(geant4)), copies), np.arange(len(geant4))])
    fold = np.random.default_rng(seed).permutation(len(geant4))[event] % n_folds
    score, areas, loss = np.empty(len(table)), [], np.zeros(table.shape[1])
    with threadpool_limits(1, user_api="openmp"):  # trees this small are slower on several threads
        for k in range(n_folds):
            train, test = fold != k, fold == k
            trees = HistGradientBoostingClassifier(
                max_iter=100, learning_rate=0.1, max_leaf_nodes=15, random_state=seed
            )
            # trees cannot bin a moment that no shower has
            known = np.where(np.isfinite(table[train]).any(axis=0), table, 0.0)
            trees.fit(known[train], is_fast[train], sample_weight=weight[train])
            score[test] = trees.predict_proba(known[test])[:, 1]
            areas.append(auc(score[test], is_fast[test], weights=weight[test]))
            if k == 0:
                loss = permutation_importance(
                    trees,
                    known[test],
                    is_fast[test],
                    scoring="roc_auc",
                    n_repeats=3,
                    random_state=seed,
                ).importances_mean
    values, errors = np.array(areas).T
    area = Estimate(float(values.mean()), float(np.sqrt(np.sum(errors**2)) / n_folds))
    mean_loss = zip((*FEATURES, "log10 E"), loss.tolist(), strict=False)
    return Separation(area, score, is_fast, dict(sorted(mean_loss, key=lambda item: -item[1])))
