"""Slopes are bounded by weights, whatever these are, and outputs rise where they should."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.models.lipschitz import (
    LipschitzDense,
    Piecewise,
    SortedPairs,
    build_lipschitz,
    steepest_pairs,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N, LIMIT, RISING = 3, 2.5, (0, 2)
MEAN, SCALE = np.array([1.0, -2.0, 0.5]), np.array([0.5, 3.0, 1.0])
POINT = arrays(np.float64, N, elements=st.floats(-50.0, 50.0))


def wild(seed, **options):
    """A network whose weights are far above all limits, as if a training had run away."""
    keras.utils.set_random_seed(seed)
    model = build_lipschitz(MEAN, SCALE, widths=(16, 8), limit=LIMIT, **options)
    rng = np.random.default_rng(seed)
    # moderate weights in some layers, so that not all rows sit at the limit
    for weight in model.trainable_weights:
        weight.assign(10.0 ** rng.uniform(-1.5, 1.5) * rng.standard_normal(weight.shape))
    return model


MODELS = {seed: wild(seed) for seed in (1, 2, 3)}
RISES = {seed: wild(seed, rising=RISING) for seed in (1, 2, 3)}


@settings(max_examples=300, deadline=None)
@given(seed=st.sampled_from(sorted(MODELS)), x=POINT, y=POINT)
def test_no_pair_of_points_is_steeper_than_the_limit(seed, x, y):
    function = Piecewise.of(MODELS[seed])
    a, b = function.value(np.stack([x, y]))
    assert abs(a - b) <= LIMIT * np.abs(x - y).sum() + 1e-12 * (1.0 + np.abs([x, y]).sum())


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(sorted(RISES)), x=POINT, i=st.sampled_from(RISING),
    step=st.floats(0.0, 100.0),
)  # fmt: skip
def test_a_rising_input_never_lowers_the_output(seed, x, i, step):
    y = x.copy()
    y[i] += step
    low, high = Piecewise.of(RISES[seed]).value(np.stack([x, y]))
    assert high >= low - 1e-12 * (1.0 + np.abs([x, y]).sum())


@pytest.mark.parametrize("seed", MODELS)
def test_pairs_that_are_sought_uphill_stay_within_the_certificate(seed):
    rng = np.random.default_rng(seed)
    for model in (MODELS[seed], RISES[seed]):
        function = Piecewise.of(model)
        low, high = function.bounds()
        start = rng.normal(0.0, 3.0, (2, 2000, N))
        steepest = {}
        for sign in (1.0, -1.0):
            x, y = steepest_pairs(function, *start, n_steps=30, sign=sign)
            difference, way = function.value(x) - function.value(y), x - y
            most = np.sum(np.where(way > 0.0, high, low) * way, axis=1)
            assert np.all(difference <= most + 1e-9)
            first = sign * (function.value(start[0]) - function.value(start[1]))
            first /= np.abs(start[0] - start[1]).sum(axis=1)
            steepest[sign] = (sign * difference / np.abs(way).sum(axis=1)).max()
            assert steepest[sign] >= first.max()


@pytest.mark.parametrize("seed", MODELS)
def test_the_certificate_is_within_the_limit_after_rounding(seed):
    low, high = Piecewise.of(MODELS[seed]).bounds()
    assert np.all(high <= LIMIT)
    assert np.all(low >= -LIMIT)
    low, high = Piecewise.of(RISES[seed]).bounds()
    assert np.all(low[list(RISING)] >= 0.0)
    assert np.all(high[list(RISING)] <= 2.0 * LIMIT)


def test_double_precision_and_keras_agree_and_slopes_are_derivatives():
    rng = np.random.default_rng(4)
    x = rng.normal(0.0, 2.0, (500, N))
    model = RISES[2]
    function = Piecewise.of(model)
    seen = (x * SCALE + MEAN).astype(np.float32)
    keras_value = keras.ops.convert_to_numpy(model({"inputs": seen}))[:, 0]
    assert function.value(x) == pytest.approx(keras_value, rel=2e-5, abs=2e-4)
    step = 1e-7
    numeric = [
        (function.value(x + step * e) - function.value(x - step * e)) / (2.0 * step)
        for e in np.eye(N)
    ]
    close = np.isclose(np.transpose(numeric), function.slope(x), atol=1e-5)
    assert close.mean() > 0.999  # not at a kink


def test_rows_below_the_limit_are_left_alone_and_others_scaled():
    layer = LipschitzDense(2, limit=1.0, first=True)
    layer.build((None, 3))
    layer.kernel.assign([[0.5, 4.0], [-0.2, 2.0], [0.1, -1.0]])
    used = keras.ops.convert_to_numpy(layer.used)
    assert used[:, 0] == pytest.approx([0.5, -0.2, 0.1])
    assert used[:, 1] == pytest.approx([1.0, 0.5, -0.25], rel=2e-5)
    later = LipschitzDense(2, limit=1.0)
    later.build((None, 3))
    later.kernel.assign([[0.5, 4.0], [-0.2, 2.0], [0.1, -2.0]])
    assert keras.ops.convert_to_numpy(later.used)[:, 1] == pytest.approx([0.5, 0.25, -0.25], 2e-5)


def test_pairs_are_sorted():
    x = np.array([[3.0, -1.0, 1.0, 5.0]], np.float32)
    assert keras.ops.convert_to_numpy(SortedPairs()(x)).tolist() == [[1.0, -1.0, 3.0, 5.0]]


def test_a_network_travels_by_file(tmp_path):
    model, x = RISES[1], np.random.default_rng(1).normal(size=(300, N)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(again({"inputs": x}), model({"inputs": x}))
    path = tmp_path / "model.onnx"
    export_onnx(model, path, inputs={"inputs": x}, kind="table", normalisation="inputs: x")
    assert check_stored_model(path).passed


@pytest.mark.parametrize(
    ("options", "text"),
    [({"widths": (3,)}, "even"), ({"limit": None, "rising": (0,)}, "limit")],
)
def test_what_cannot_be_built_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        build_lipschitz([0.0], [1.0], **{"widths": (4,), "limit": 1.0, **options})
