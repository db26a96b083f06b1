"""Recipes say what is trained on what, in an order in which it can be done, and refuse what makes
no sense.
"""

from __future__ import annotations

import pytest
from studies.domain_recipes import SAMPLES, DomainConfig, RecipeConfig, plan_recipes, plan_size_scan

from pfcalib.errors import ConfigError
from pfcalib.training.settings import regression_config


@pytest.fixture
def base():
    return regression_config("cnn", epochs=8, seed=1)


def test_the_network_on_a_is_the_one_that_is_given(base):
    recipes = plan_recipes(base, DomainConfig())
    assert recipes["cnn_a"].network == base
    assert recipes["remeasured"].network == base


def test_every_recipe_comes_after_the_one_it_starts_from(base):
    names = list(plan_recipes(base, DomainConfig()))
    for place, recipe in enumerate(plan_recipes(base, DomainConfig()).values()):
        assert recipe.start is None or recipe.start in names[:place]


def test_all_samples_are_learnt_alone_and_by_fine_tuning(base):
    recipes = plan_recipes(base, DomainConfig())
    assert [recipes[f"cnn_{name}"].sample for name in SAMPLES] == list(SAMPLES)
    assert [recipes[f"tuned_{name}"].sample for name in "bcd"] == ["b", "c", "d"]
    assert all(recipes[f"tuned_{name}"].start == "cnn_a" for name in "bcd")


def test_fine_tuning_takes_a_smaller_rate_and_the_few_clusters_small_batches(base):
    recipes = plan_recipes(base, DomainConfig(tuned_rate=0.1, few_batch=32))
    assert recipes["tuned_b"].network.train.learning_rate == pytest.approx(
        0.1 * base.train.learning_rate
    )
    assert recipes["tuned_b"].network.train.batch_size == base.train.batch_size
    assert (
        recipes["tuned_c"].network.train.batch_size
        == recipes["cnn_c"].network.train.batch_size
        == 32
    )


def test_epochs_can_be_given_by_recipe(base):
    recipes = plan_recipes(base, DomainConfig(epochs={"mixed": 3}))
    assert (recipes["mixed"].network.train.epochs, recipes["cnn_b"].network.train.epochs) == (3, 8)


def test_only_the_augmented_training_is_augmented(base):
    recipes = plan_recipes(base, DomainConfig())
    assert [name for name, recipe in recipes.items() if recipe.network.augment is not None] == [
        "augmented"
    ]


def test_homes_are_the_samples_that_a_recipe_knows(base):
    recipes = plan_recipes(base, DomainConfig())
    homes = {name: recipe.homes for name, recipe in recipes.items()}
    assert homes["cnn_a"] == homes["augmented"] == ("a",)
    assert homes["tuned_c"] == ("c",)
    assert homes["mixed"] == homes["remeasured"] == ("a", "b", "c", "d")
    assert RecipeConfig(network=base, sample="b", extras={"b": 0.1}).homes == ("b",)


def test_the_scan_trains_on_the_numbers_of_clusters_that_are_asked_for(base):
    scan = plan_size_scan(base, DomainConfig(sizes=(100, 500)))
    assert {name: recipe.network.n_clusters for name, recipe in scan.items()} == {
        "tuned_c_100": 100,
        "cnn_c_100": 100,
        "tuned_c_500": 500,
        "cnn_c_500": 500,
    }
    assert {recipe.sample for recipe in scan.values()} == {"c"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": {"e": 1}}, r"epochs of \['e'\]"),
        ({"epochs": {"b": 0}}, "must be above 0"),
        ({"sizes": (0,)}, "must be above 0"),
        ({"tuned_rate": 0.0}, "must be above 0"),
        ({"shares": {"a": 0.2}}, "expected some of b, c, d"),
        ({"shares": {"b": 0.6, "d": 0.4}}, "a sum below 1"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DomainConfig(**options)
