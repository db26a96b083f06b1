"""A variant differs from its original as its precision tells, keeps what a classifier with a known
answer achieves, and stays beside the original under its own name.
"""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.special import ndtr

from pfcalib.deploy.bandwidth import read_bandwidth, read_bound
from pfcalib.deploy.contract import contract_path, read_contract
from pfcalib.deploy.examination import FAILED, Finding, examine
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.deploy.variants import METHODS, write_float16, write_int8
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.roc import auc
from pfcalib.models.families import build_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

N_PIXELS, N_HIDDEN, DISTANCE = 12, 64, 1.5


def discriminant():
    """Logistic discriminant of two Gaussians whose means differ by DISTANCE along the first axis,
    in a hidden layer of pairs relu(u x), relu(-u x) of random directions u.
    """
    directions = np.random.default_rng(2).normal(size=(N_PIXELS, N_HIDDEN // 2))
    wanted = np.eye(N_PIXELS)[0] * DISTANCE
    share = np.linalg.lstsq(directions, wanted, rcond=None)[0]
    pixels = keras.Input((N_PIXELS,), name="pixels")
    hidden = keras.layers.Dense(N_HIDDEN, activation="relu", use_bias=False)(pixels)
    model = keras.Model(
        {"pixels": pixels}, keras.layers.Dense(2, activation="softmax", name="p")(hidden)
    )
    behind = np.concatenate([share, -share])
    model.set_weights(
        [
            np.concatenate([directions, -directions], axis=1),
            np.stack([np.zeros(N_HIDDEN), behind], axis=1),
            np.zeros(2),
        ]
    )
    return model


def two_gaussians(rng, n):
    neutral = rng.random(n) < 0.5
    x = rng.normal(size=(n, N_PIXELS)).astype(np.float32)
    x[:, 0] += np.where(neutral, DISTANCE / 2, -DISTANCE / 2)
    return {"pixels": x}, neutral


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("variants") / "dnn.onnx"
    inputs, _ = two_gaussians(np.random.default_rng(3), 300)
    export_onnx(discriminant(), path, inputs=inputs, kind="flat")
    return path


def run(path, inputs):
    return run_in_batches(open_session(path), inputs, 100)


def write(name, path, inputs, calibration):
    if name == "float16":
        return write_float16(path, inputs=inputs)
    return write_int8(path, calibration=calibration, inputs=inputs, method=name)


@pytest.mark.parametrize(
    ("name", "least", "most", "size"),
    [("float16", 1e-6, 1e-2, 0.6), *((method, 1e-4, 0.3, 0.7) for method in METHODS)],
)
def test_a_variant_keeps_the_known_answer(original, name, least, most, size, rng):
    inputs, neutral = two_gaussians(rng, 10_000)
    calibration, _ = two_gaussians(rng, 600)
    variant = write(name, original, inputs, calibration)
    expected, found = run(original, inputs), run(variant.path, inputs)
    assert np.allclose(variant.difference, found.astype(np.float64) - expected, atol=1e-6)
    assert least < np.abs(variant.difference).max() < most
    best = ndtr(DISTANCE / np.sqrt(2.0))  # of two Gaussians
    areas = [auc(output[:, 1], neutral).value for output in (expected, found)]
    assert areas[0] == pytest.approx(best, abs=0.01)
    assert areas[1] == pytest.approx(areas[0], abs=0.002)
    kept = [sum(t.nbytes for t in tensors(path)) for path in (variant.path, original)]
    assert kept[0] < size * kept[1]


def tensors(path):
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


def test_variants_lie_beside_the_original_which_stays(original, rng):
    before = original.read_bytes()
    inputs, _ = two_gaussians(rng, 300)
    paths = [
        write_float16(original, inputs=inputs).path,
        write_int8(original, calibration=inputs, inputs=inputs).path,
    ]
    assert [path.name for path in paths] == ["dnn.float16.onnx", "dnn.int8.onnx"]
    assert all(path.parent == original.parent for path in paths)
    assert original.read_bytes() == before
    assert not list(original.parent.glob(".*.new*"))
    for path, precision in zip(paths, ("float16", "int8"), strict=True):
        assert read_contract(path).precision == precision
        assert not [
            sign for sign in examine(path) if isinstance(sign, Finding) and sign.verdict == FAILED
        ]
    for path in (original, *paths):
        session = open_session(path)
        assert [node.type for node in (*session.get_inputs(), *session.get_outputs())] == [
            "tensor(float)"
        ] * 2


@pytest.mark.parametrize("name", ["float16", "minmax"])
def test_moments_beyond_half_precision_are_not_rounded(name, rng, tmp_path):
    """They are scaled before the first product; two nodes take the input."""
    model = build_model("mlp", seed=4, widths=[16, 8])
    shape = (400, *model.inputs[0].shape[1:])
    inputs = {"moments": (10.0 ** rng.uniform(-2.0, 6.0, shape)).astype(np.float32)}
    low = rng.uniform(0.0, 1e5, model.get_layer("moment_bins").low.shape)
    model.get_layer("moment_bins").low.assign(low)
    model.get_layer("moment_bins").density.assign(np.full_like(low, 1e-6))
    path = tmp_path / "mlp.onnx"
    export_onnx(model, path, inputs=inputs, kind="moments")
    variant = write(name, path, inputs, inputs)
    assert np.abs(variant.difference).max() < (1e-3 if name == "float16" else 0.05)


def test_convolutions_become_integers_with_a_scale_for_each_map(rng, tmp_path):
    model = build_model("cnn", seed=5, filters=4, branch_width=8, merged_width=8)
    inputs = {
        tensor.name: rng.exponential(0.1, (120, *tensor.shape[1:])).astype(np.float32)
        for tensor in model.inputs
    }
    path = tmp_path / "cnn.onnx"
    export_onnx(model, path, inputs=inputs, kind="layers")
    few = {name: array[:50] for name, array in inputs.items()}
    variant = write_int8(path, calibration=few, inputs=inputs)
    assert 0.0 < np.abs(variant.difference).max() < 0.05
    kernels = [t for t in tensors(variant.path) if t.dtype == np.int8 and t.ndim == 4]
    assert kernels
    assert all(np.abs(kernel).max(axis=(1, 2, 3)).min() == 127 for kernel in kernels)


@pytest.mark.parametrize("name", ["float16", "minmax"])
def test_inputs_that_do_not_fit_leave_no_file(original, name, tmp_path, rng):
    path = tmp_path / "net.onnx"
    path.write_bytes(original.read_bytes())
    good, bad = two_gaussians(rng, 10)[0], {"cells": np.zeros((10, 3), np.float32)}
    contract_path(path).write_bytes(contract_path(original).read_bytes())
    with pytest.raises(ValidationError, match="ONNX Runtime fails"):
        write(name, path, bad, good)
    if name == "minmax":
        with pytest.raises(ValidationError, match="cannot be quantised"):
            write(name, path, good, bad)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.json", "net.onnx"]


def test_a_method_that_is_none_is_refused(original, rng):
    inputs, _ = two_gaussians(rng, 10)
    with pytest.raises(ConfigError, match="'best': expected one of minmax, entropy, percentile"):
        write_int8(original, calibration=inputs, inputs=inputs, method="best")


def test_the_bound_of_a_call_is_the_time_to_read_its_weights(original):
    bound = read_bound(original)
    assert bound.n_bytes == 4 * (N_PIXELS * N_HIDDEN + 2 * N_HIDDEN)  # its biases are 0
    assert bound.cached_us > 0.0
    assert bound.memory_us > 0.0


def test_bandwidth_is_bytes_over_seconds():
    """A machine of this century: between 100 MB/s and 10 TB/s."""
    assert 1e8 < read_bandwidth(10_000_000) < 1e13
