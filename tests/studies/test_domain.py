"""A regression keeps the inversion of the samples that it knows, measured on their validation
splits, and the weighted quantile is held against distributions whose answer is known.
"""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from studies.domain import (
    Training,
    fit_coarse_inversion,
    invert,
    invert_column,
    weighted_quantile,
)

from pfcalib.errors import ValidationError
from pfcalib.training.settings import regression_config


def _tables(rng, factors: dict[str, dict[str, float]]) -> dict[str, dict[str, ak.Array]]:
    """Clusters of some samples; their raw energy is off by a factor that depends on the split."""
    tables = {}
    for sample, splits in factors.items():
        tables[sample] = {}
        for split, factor in splits.items():
            e_dep = 10.0 ** rng.uniform(0.0, 1.0, 40)
            tables[sample][split] = ak.zip({"e_dep": e_dep, "raw": factor * e_dep}, depth_limit=1)
    return tables


def test_the_inversion_is_measured_on_the_validation_split_of_each_home(rng):
    """So few clusters make one factor."""
    factors = {"a": {"validation": 1.5, "test": 2.0}, "b": {"validation": 2.5, "test": 1.2}}
    tables = _tables(rng, factors)
    inversions = invert_column(tables, "raw", "energy", homes=["a", "b"])
    assert list(inversions) == ["a", "b"]
    for sample, splits in factors.items():
        for split, factor in splits.items():
            response = tables[sample][split]["energy"] / tables[sample][split]["e_dep"]
            np.testing.assert_allclose(response, factor / splits["validation"])


def test_a_sample_that_is_not_known_gets_the_inversion_of_the_first_home(rng):
    tables = _tables(rng, {name: {"validation": 1.5 + 0.5 * i} for i, name in enumerate("abc")})
    invert_column(tables, "raw", "energy", homes=["b", "c"])
    median = {
        name: float(np.median(splits["validation"]["energy"] / splits["validation"]["e_dep"]))
        for name, splits in tables.items()
    }
    assert median == pytest.approx({"a": 0.75, "b": 1.0, "c": 1.0})


def test_homes_are_the_samples_that_a_training_knows():
    base = regression_config("cnn", epochs=1, seed=1)
    assert Training("a", base).homes == ("a",)
    assert Training("c", base, start="cnn_a").homes == ("c",)
    assert Training("a", base, extras={"b": 0.2, "d": 0.1}).homes == ("a", "b", "d")
    assert Training("a", base, inverted_on="bcd").homes == ("a", "b", "c", "d")
    assert Training("b", base, extras={"b": 0.1}).homes == ("b",)


def test_a_coarse_inversion_undoes_a_factor(rng):
    e_true = 10.0 ** rng.uniform(0.0, 1.0, 500)
    e_pred = 1.2 * e_true * np.exp(0.01 * rng.standard_normal(500))
    inverted = fit_coarse_inversion(e_pred, e_true).apply(e_pred)
    assert np.median(inverted / e_true) == pytest.approx(1.0, abs=0.002)


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
    few, many = (len(invert(e, e).log_predicted) for e in (e_true[:200], e_true))
    assert many > few


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_68_percent_of_a_gaussian_lie_within_its_width(rng, width):
    distance = np.abs(width * rng.standard_normal(50_000))
    found = weighted_quantile(distance, np.ones(50_000), 0.68, rng=rng)
    assert found.value == pytest.approx(0.9945 * width, rel=0.02)
    assert 0.0 < found.error < 0.02 * width


def test_the_error_of_a_quantile_is_its_spread_over_experiments():
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = weighted_quantile(rng.random(400), np.ones(400), 0.68, rng=rng)
        values.append(found.value)
        errors.append(found.error)
    assert np.std(values, ddof=1) == pytest.approx(np.mean(errors), rel=0.3)


def test_weights_count_and_the_order_does_not(rng):
    values = np.array([0.3, 0.1, 0.2])
    for weights, expected in (([1.0, 1.0, 100.0], 0.2), ([100.0, 1.0, 1.0], 0.3)):
        for order in ([0, 1, 2], [2, 1, 0]):
            found = weighted_quantile(values[order], np.array(weights)[order], 0.68, rng=rng)
            assert found.value == expected


def test_a_quantile_of_nothing_is_nan(rng):
    assert np.isnan(weighted_quantile(np.zeros(0), np.zeros(0), 0.68, rng=rng).value)
