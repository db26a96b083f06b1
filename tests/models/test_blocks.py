"""Quantile bins follow the quantiles of columns, and shares of layers are those of the table of
moments.
"""

import keras
import numpy as np
import pytest

from pfcalib.columns import LAYER_NAMES
from pfcalib.features.scalars import MOMENT_COLUMNS, moment_table
from pfcalib.models.blocks import LayerShares, QuantileBins, adapt_bins
from pfcalib.models.families import build_model, load_model

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def adapted(values, n_bins):
    layer = QuantileBins(n_bins)
    layer.build((None, values.shape[1]))
    layer.adapt(values)
    return layer


def test_the_sum_of_the_bins_is_the_rank_of_a_value(rng):
    values = np.column_stack([rng.lognormal(0.0, 3.0, 5000), 1e-9 * rng.normal(size=5000)])
    bins = np.asarray(adapted(values, 20)(values.astype(np.float32))).reshape(5000, 2, 20)
    rank = np.argsort(np.argsort(values, axis=0), axis=0) / 4999
    np.testing.assert_allclose(bins.mean(axis=2), rank, atol=0.05)  # one bin
    filled = np.diff(bins, axis=2) <= 0.0  # a bin is not entered before the last one is full
    assert filled.all()


def test_beyond_what_was_seen_bins_are_full_or_empty():
    layer = adapted(np.linspace(0.0, 1.0, 101)[:, None], 4)
    outside = np.asarray(layer(np.array([[-5.0], [0.3], [7.0]], dtype=np.float32)))
    np.testing.assert_allclose(outside, [[0, 0, 0, 0], [1, 0.2, 0, 0], [1, 1, 1, 1]], atol=1e-6)


def test_a_value_that_many_share_is_a_step_and_all_is_finite(rng):
    values = np.where(rng.random(1000) < 0.6, 0.0, rng.random(1000))[:, None]
    layer = adapted(values, 10)
    at_zero, above = np.asarray(layer(np.array([[0.0], [0.02]], dtype=np.float32)))
    np.testing.assert_array_equal(at_zero, 0.0)
    assert above[:5].tolist() == [1.0] * 5
    constant = np.asarray(adapted(np.full((50, 1), 3.0), 4)(np.full((2, 1), 3.0, np.float32)))
    assert np.isfinite(constant).all()


def test_shares_of_layers_are_those_of_the_table_of_moments(rng):
    columns = {name: rng.uniform(0.5, 2.0, 30).astype(np.float32) for name in MOMENT_COLUMNS}
    columns["cluster_E_EMB3"][:5] *= -9.0
    raw = np.column_stack([columns[name] for name in MOMENT_COLUMNS])
    found = np.asarray(LayerShares()(raw))
    n = len(LAYER_NAMES)
    np.testing.assert_allclose(found[:, -n:], moment_table(columns)[:, -n:], rtol=1e-5)
    np.testing.assert_array_equal(found[:, :-n], raw[:, :-n])


@pytest.mark.parametrize("name", ["mlp", "points"])
def test_an_adapted_network_is_blind_to_units_and_its_file_knows_its_scale(name, rng, tmp_path):
    options = {"widths": [8], "n_bins": 8}
    inputs = {
        tensor.name: rng.lognormal(0.0, 1.0, (400, *tensor.shape[1:])).astype(np.float32)
        for tensor in build_model(name, **options).inputs
    }
    if "points" in inputs:
        inputs["points"][..., 4] = rng.integers(0, 7, inputs["points"].shape[:2])
    scaled = {key: array * np.float32(1.0) for key, array in inputs.items()}
    scaled["moments"] = inputs["moments"] * np.float32(1024.0)
    outputs = []
    for given in (inputs, scaled):
        model = build_model(name, seed=3, **options)
        fresh = np.asarray(model(given))
        adapt_bins(model, given)
        assert np.any(np.asarray(model(given)) != fresh)
        outputs.append(np.asarray(model(given)))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(scaled)), outputs[1])
    assert isinstance(again, keras.Model)
