"""A calibration keeps the inversion of the samples that it knows, and networks and trees of several
samples are trained as the recipes say.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample
from studies.domain import (
    TrainedTrees,
    fit_coarse_inversion,
    fit_recipes,
    fit_tree_recipes,
    invert,
    mix_clusters,
    read_splits,
)
from studies.domain_recipes import DomainConfig, RecipeConfig, plan_recipes

from pfcalib.calibration.inversion import Inversion
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.samples.write import write_sample
from pfcalib.training.regressors import Clusters, network_energy, read_clusters
from pfcalib.training.settings import regression_config
from pfcalib.training.trees import TreesConfig

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    """Four samples of spots; they differ in seed and size."""
    folder = tmp_path_factory.mktemp("domain")
    made = {name: folder / f"{name}.root" for name in "abcd"}
    for place, path in enumerate(made.values()):
        write_sample(path, make_sample(np.random.default_rng(place), 400 - 50 * place))
    return made


@pytest.fixture(scope="module")
def base():
    return regression_config(
        "dnn",
        epochs=2,
        seed=1,
        options={"widths": (8,)},
        train={"batch_size": 64, "learning_rate": 0.01},
    )


def test_a_coarse_inversion_undoes_a_factor(rng):
    e_true = 10.0 ** rng.uniform(0.0, 1.0, 500)
    e_pred = 1.2 * e_true * np.exp(0.01 * rng.standard_normal(500))
    assert np.median(fit_coarse_inversion(e_pred, e_true).apply(e_pred) / e_true) == pytest.approx(
        1.0, abs=0.002
    )


def test_a_coarse_inversion_undoes_a_slope(rng):
    e_true = np.sort(10.0 ** rng.uniform(0.0, 1.0, 2000))
    e_pred = e_true**1.1
    corrected = fit_coarse_inversion(e_pred, e_true).apply(e_pred) / e_true
    inner = slice(60, -60)  # beyond the last centres the correction is constant
    assert np.abs(corrected[inner] - 1.0).max() < 0.005


def test_a_handful_of_clusters_gives_one_factor():
    inversion = fit_coarse_inversion([2.0, 4.0, 20.0], [1.0, 2.0, 10.0])
    assert len(inversion.log_predicted) == 1
    assert inversion.apply([6.0, 600.0]) == pytest.approx([3.0, 300.0])


def test_no_clusters_give_no_inversion():
    with pytest.raises(ValidationError, match="no clusters"):
        fit_coarse_inversion([], [])


def test_many_clusters_get_the_inversion_of_the_other_studies(rng):
    e_true = 10.0 ** rng.uniform(-0.5, 2.0, 20_000)
    assert len(invert(e_true, e_true).log_predicted) > len(
        invert(e_true[:200], e_true[:200]).log_predicted
    )


def test_a_sample_that_is_not_known_gets_the_inversion_of_the_first():
    by_two, by_three = (Inversion(np.zeros(1), np.log([factor])) for factor in (2.0, 3.0))

    class Flat:
        def energy(self, columns):
            return columns["clusterE"]

    trained = TrainedTrees(Flat(), {"a": by_two, "c": by_three})
    got = {
        sample: float(trained.energy({"clusterE": np.ones(1)}, sample=sample)[0])
        for sample in "abc"
    }
    assert got == pytest.approx({"a": 2.0, "b": 2.0, "c": 3.0})


def _clusters(n: int, start: int) -> Clusters:
    rows = np.arange(start, start + n)
    return Clusters(rows, {"clusterE": rows.astype(np.float64)}, rows % 2 == 0, rows + 0.5)


def test_a_mixture_holds_all_of_a_and_the_shares_of_the_others(rng):
    mixed = mix_clusters(
        {"a": _clusters(600, 0), "b": _clusters(1000, 1000), "c": _clusters(20, 5000)},
        {"b": 0.3, "c": 0.1},
        rng=rng,
    )
    sample = np.select([mixed.rows < 600, mixed.rows < 5000], ["a", "b"], "c")
    assert {name: int(np.sum(sample == name)) for name in "abc"} == {"a": 600, "b": 300, "c": 100}
    assert np.array_equal(mixed.rows[:600], np.arange(600))
    assert len(set(mixed.rows[sample == "b"])) == 300  # none twice where there are enough
    assert set(mixed.rows[sample == "c"]) == set(range(5000, 5020))
    assert np.array_equal(mixed.e_true, mixed.columns["clusterE"] + 0.5)


def test_trees_of_a_mixture_know_all_its_samples(paths):
    trees = fit_tree_recipes(
        read_splits(paths), {"b": 0.2, "d": 0.1}, config=TreesConfig(max_iter=5), seed=1
    )
    assert {name: list(trained.inversions) for name, trained in trees.items()} == {
        "gbdt": ["a"],
        "gbdt_mixed": ["a", "b", "d"],
    }


def test_trees_are_inverted_to_the_truth_of_the_validation_split_of_each_home(paths):
    """The test split is not even there."""
    known = {
        home: {split: part for split, part in splits.items() if split != "test"}
        for home, splits in read_splits(paths).items()
    }
    trees = fit_tree_recipes(known, {"b": 0.2, "d": 0.1}, config=TreesConfig(max_iter=1), seed=1)
    for trained in trees.values():
        for home in trained.inversions:
            part = known[home]["validation"]
            energy = trained.energy(part.columns, sample=home)
            assert np.median(energy / part.e_true) == pytest.approx(1.0, abs=1e-4)


def test_all_recipes_are_trained_and_found_again(paths, base):
    chosen = {
        name: plan_recipes(base, DomainConfig(epochs={"tuned": 1, "mixed": 1}))[name]
        for name in ("dnn_a", "tuned_b", "mixed", "remeasured")
    }
    lines: list[str] = []
    networks = fit_recipes(chosen, paths, say=lines.append)
    assert list(networks) == list(chosen)
    # the last one is found
    assert {line.partition(":")[0] for line in lines} == {"dnn_a", "tuned_b", "mixed"}
    assert networks["remeasured"].network.folder == networks["dnn_a"].network.folder
    assert list(networks["mixed"].inversions) == ["a", "b", "c", "d"]
    energy = networks["tuned_b"].energy(paths["b"], sample="b", split="test")
    plain = network_energy(networks["tuned_b"].network, paths["b"], split="test")
    assert energy == pytest.approx(networks["tuned_b"].inversions["b"].apply(plain))
    assert not np.allclose(
        plain, network_energy(networks["dnn_a"].network, paths["b"], split="test")
    )


def test_networks_are_inverted_to_the_truth_of_the_validation_split_of_each_home(paths, base):
    """So few clusters make one factor, which puts their median at one and no other."""
    plan = plan_recipes(base, DomainConfig(epochs={"mixed": 1}))
    network = fit_recipes({"mixed": plan["mixed"]}, paths)["mixed"]
    for home in network.inversions:
        median = {}
        for split in ("validation", "test"):
            e_true = read_clusters(paths[home], split=split).e_true
            energy = network.energy(paths[home], sample=home, split=split)
            median[split] = np.median(energy / e_true)
        assert median["validation"] == pytest.approx(1.0, abs=1e-4)
        assert abs(median["test"] - 1.0) > 1e-3


def test_a_recipe_may_start_only_from_one_that_is_there(paths, base):
    recipe = RecipeConfig(network=replace(base, n_clusters=5), sample="b", start="dnn_a")
    with pytest.raises(
        ConfigError, match="starts from 'dnn_a', expected one that comes before it: none"
    ):
        fit_recipes({"tuned_b": recipe}, paths)
