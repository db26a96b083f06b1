"""Boosted trees give scikit-learn's probabilities and numbers, survive a file without pickle, and
refuse files that are not theirs.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.metrics.roc import auc
from pfcalib.training.trees import (
    MAX_BINS,
    BoostedTrees,
    TreesConfig,
    _bin_edges,
    _from_sklearn,
    fit_trees,
)

NAMES = ("a", "b", "c")
SMALL = TreesConfig(max_iter=30, seed=3)


@pytest.fixture
def data(rng):
    table = rng.normal(size=(3000, 3)).astype(np.float32)
    table[rng.random(table.shape) < 0.05] = np.nan
    return table, np.nan_to_num(table[:, 0] * table[:, 1]) + 0.5 * rng.normal(size=3000) > 0


def test_probabilities_are_those_of_scikit_learn(data, rng):
    table, is_em = data
    model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0).fit(
        table, is_em, sample_weight=rng.random(len(table))
    )
    other = np.concatenate(
        [
            rng.normal(size=(2000, 3)),
            np.full((1, 3), np.nan),
            np.full((1, 3), np.inf),
            -np.full((1, 3), np.inf),
        ]
    )
    trees = _from_sklearn(model, NAMES)
    for rows in (table, other):
        np.testing.assert_allclose(
            trees.p_em(rows), model.predict_proba(rows)[:, 1], rtol=0, atol=1e-12
        )


def test_trees_of_few_values_with_weights_are_those_of_scikit_learn(data, rng):
    """At most 255 values a column are bins of their own; beyond, bins hold like weight."""
    table, is_em = data[0].round(1), data[1]
    weights = rng.random(len(table))
    trees = fit_trees(table, is_em, feature_names=NAMES, weights=weights, config=SMALL)
    model = HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=3)
    expected = model.fit(table, is_em, sample_weight=weights).predict_proba(table)[:, 1]
    np.testing.assert_allclose(trees.p_em(table), expected, rtol=0, atol=1e-12)


def test_many_values_fall_into_bins_of_like_weight(rng):
    column, weights = rng.normal(size=20_000), rng.random(20_000)
    column[rng.random(20_000) < 0.05] = np.nan
    edges = _bin_edges(column, weights)
    known = ~np.isnan(column)
    held = np.bincount(np.searchsorted(edges, column[known]), weights[known]) / weights[known].sum()
    assert len(held) == MAX_BINS
    np.testing.assert_allclose(held, 1 / MAX_BINS, atol=1.01 * 2 / weights[known].sum())


def test_trees_split_where_the_bins_of_many_values_end(rng):
    table = rng.normal(size=(20_000, 1))
    edge = _bin_edges(table[:, 0], None)[100]
    trees = fit_trees(table, table[:, 0] > edge, feature_names=("a",), config=SMALL)
    assert set(trees.nodes["num_threshold"][trees.roots]) == {edge}
    sides = np.array([[edge], [np.nextafter(edge, np.inf)]])
    assert np.diff(trees.p_em(sides))[0] > 0.5


def test_trees_learn_a_product_of_two_features(data):
    table, is_em = data
    trees = fit_trees(table[:2000], is_em[:2000], feature_names=NAMES, config=SMALL)
    assert auc(trees.p_em(table[2000:]), is_em[2000:]).value > 0.8


def test_the_same_seed_gives_the_same_trees(data):
    first, second = (fit_trees(*data, feature_names=NAMES, config=SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.p_em(data[0]), second.p_em(data[0]))


def test_a_validation_part_stops_the_boosting(data, rng):
    table, is_em = data
    noise = rng.random(1000) < 0.5
    trees = fit_trees(
        table,
        is_em,
        feature_names=NAMES,
        validation=(table[:1000], noise, None),
        config=TreesConfig(max_iter=200, patience=5),
    )
    assert trees.n_trees < 50
    assert fit_trees(table, is_em, feature_names=NAMES, config=SMALL).n_trees == SMALL.max_iter


def test_a_file_gives_back_the_same_probabilities(data, tmp_path):
    trees = fit_trees(*data, feature_names=NAMES, config=SMALL)
    trees.save(tmp_path / "trees.npz")
    loaded = BoostedTrees.load(tmp_path / "trees.npz")
    assert loaded.feature_names == NAMES
    np.testing.assert_array_equal(loaded.p_em(data[0]), trees.p_em(data[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["trees.npz"]


def test_a_file_with_a_pickled_object_is_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", meta=np.array([{"schema_version": 1}], dtype=object))
    with pytest.raises(BadFileError, match=r"evil\.npz"):
        BoostedTrees.load(tmp_path / "evil.npz")


@pytest.mark.parametrize(
    ("field", "value"), [("left", 0), ("right", 10_000), ("feature_idx", 3), ("feature_idx", -1)]
)
def test_a_tree_that_leads_astray_is_refused(data, tmp_path, field, value):
    trees = fit_trees(*data, feature_names=NAMES, config=SMALL)
    trees.nodes[field][0] = value
    trees.save(tmp_path / "astray.npz")
    with pytest.raises(BadFileError, match="node 0"):
        BoostedTrees.load(tmp_path / "astray.npz")


def test_a_truncated_file_is_refused(data, tmp_path):
    path = tmp_path / "trees.npz"
    fit_trees(*data, feature_names=NAMES, config=SMALL).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadFileError, match="not a file of boosted trees"):
        BoostedTrees.load(path)


def test_a_table_of_another_width_is_refused(data):
    trees = fit_trees(*data, feature_names=NAMES, config=SMALL)
    with pytest.raises(ValidationError, match="3 features"):
        trees.p_em(np.zeros((4, 2)))


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="max_iter = 0"):
        TreesConfig(max_iter=0)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_a_regression_gives_the_numbers_of_scikit_learn(data, rng, loss):
    table = data[0]
    target = np.nan_to_num(table[:, 0] * table[:, 1]) + 0.1 * rng.normal(size=len(table))
    weights = rng.random(len(table))
    trees = fit_trees(
        table,
        target,
        feature_names=NAMES,
        weights=weights,
        config=TreesConfig(max_iter=30, loss=loss, seed=3),
    )
    model = HistGradientBoostingRegressor(
        loss=loss, max_iter=30, early_stopping=False, random_state=3
    ).fit(table, target, sample_weight=weights)
    other = np.concatenate(
        [
            rng.normal(size=(2000, 3)),
            np.full((1, 3), np.nan),
            np.full((1, 3), np.inf),
            -np.full((1, 3), np.inf),
        ]
    )
    for rows in (table, other):
        np.testing.assert_allclose(trees.raw(rows), model.predict(rows), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("loss", "wanted"), [("squared_error", np.mean), ("absolute_error", np.median)]
)
def test_the_loss_decides_between_mean_and_median(loss, wanted, rng):
    side = rng.random(6000) < 0.5
    target = rng.exponential(size=6000) + 2.0 * side
    trees = fit_trees(
        side[:, None], target, feature_names=("side",), config=TreesConfig(max_iter=200, loss=loss)
    )
    for value in (False, True):
        assert trees.raw([[value]])[0] == pytest.approx(wanted(target[side == value]), abs=0.02)


def test_a_regression_stops_at_its_validation_part_and_survives_its_file(data, rng, tmp_path):
    table = data[0]
    target, noise = np.nan_to_num(table[:, 0]), rng.normal(size=1000)
    settings = TreesConfig(max_iter=200, patience=5)
    trees = fit_trees(
        table,
        target,
        feature_names=NAMES,
        validation=(table[:1000], noise, np.ones(1000)),
        config=settings,
    )
    assert trees.n_trees < 50
    trees.save(tmp_path / "trees.npz")
    np.testing.assert_array_equal(
        BoostedTrees.load(tmp_path / "trees.npz").raw(table), trees.raw(table)
    )


def test_a_loss_that_is_none_of_a_regression_is_refused():
    with pytest.raises(ConfigError, match="loss = 'hinge'"):
        TreesConfig(loss="hinge")
