"""Attributions are complete, exact for a linear network, and lie where the network looks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from studies.attribution import Attribution, integrated_gradients

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES
from pfcalib.features.inputs import build_inputs
from pfcalib.models.families import MODEL_KINDS, PUBLISHED, build_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

TINY = {
    "dnn": {"widths": [16, 8]},
    "cnn": {"filters": 4, "branch_width": 8, "merged_width": 8},
    "densenet": {"growth": 2, "block_layers": [1, 1], "head_width": 4},
}


def inputs_of(kind, rng, n=20, scalars=True):
    """Sparse images, as those of clusters are, with some negative pixels."""
    images = {
        name: (rng.random((n, *shape)) < 0.2).astype(np.float32)
        * rng.normal(0.02, 0.03, (n, *shape)).astype(np.float32)
        for name, shape in IMAGE_SHAPES.items()
    }
    extra = {"scalars": rng.uniform(-0.5, 0.5, (n, 2)).astype(np.float32)} if scalars else {}
    return {**build_inputs(images, kind), **extra}


def test_a_linear_network_has_weight_times_input_with_one_step(rng):
    pixels = keras.Input((936,), name="pixels")
    dense = keras.layers.Dense(2)
    model = keras.Model({"pixels": pixels}, dense(pixels))
    inputs = inputs_of("flat", rng, scalars=False)
    for n_steps in (1, 5):
        found = integrated_gradients(model, inputs, n_steps=n_steps)
        expected = inputs["pixels"] * dense.get_weights()[0][:, 0]
        np.testing.assert_allclose(found.inputs["pixels"], expected, rtol=1e-5, atol=1e-9)
        assert np.abs(found.gap).max() < 1e-6


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("name", PUBLISHED)
def test_attributions_are_complete(name, power, rng):
    """Also where the network takes a root of the pixels, whose gradient is infinite for an empty
    one.
    """
    model = build_model(
        name, seed=3, **TINY[name], head="energy", with_scalars=True, pixel_power=power
    )
    inputs = inputs_of(MODEL_KINDS[name], rng)
    found = integrated_gradients(model, inputs, n_steps=64, batch=7)
    assert found.incompleteness < 0.01
    assert np.ptp(found.answer - found.baseline) > 0.0
    for key, array in found.inputs.items():
        assert array.shape == inputs[key].shape
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert (found.inputs["scalars"] == 0.0).all()


def test_a_root_of_the_pixels_needs_few_steps():
    pixels = keras.Input((3,), name="pixels")
    model = keras.Model(
        {"pixels": pixels}, keras.ops.sum(keras.ops.sqrt(pixels), axis=1, keepdims=True)
    )
    found = integrated_gradients(
        model, {"pixels": np.array([[0.25, 1.0, 0.01]], dtype=np.float32)}, n_steps=2
    )
    np.testing.assert_allclose(found.inputs["pixels"], [[0.5, 1.0, 0.1]], rtol=1e-5)


def test_empty_pixels_have_no_attribution(rng):
    model = build_model("cnn", seed=3, **TINY["cnn"], head="energy", pixel_power=0.5)
    inputs = inputs_of("layers", rng, scalars=False)
    found = integrated_gradients(model, inputs, n_steps=4)
    for name, array in found.inputs.items():
        assert (array[inputs[name] == 0.0] == 0.0).all()


def test_what_the_network_does_not_look_at_has_no_attribution(rng):
    model = build_model("cnn", seed=3, **TINY["cnn"])
    kernel, bias = model.get_layer("EMB3_dense").get_weights()
    model.get_layer("EMB3_dense").set_weights([np.zeros_like(kernel), bias])
    found = integrated_gradients(model, inputs_of("layers", rng, scalars=False), n_steps=4)
    assert {layer: bool(found.inputs[layer].any()) for layer in IMAGE_LAYERS} == {
        layer: layer != "EMB3" for layer in IMAGE_LAYERS
    }


def test_the_batch_does_not_matter(rng):
    model = build_model("dnn", seed=3, **TINY["dnn"], head="energy", with_scalars=True)
    inputs = inputs_of("flat", rng)
    one, many = (integrated_gradients(model, inputs, n_steps=8, batch=batch) for batch in (100, 3))
    np.testing.assert_allclose(one.inputs["pixels"], many.inputs["pixels"], rtol=1e-4, atol=1e-8)


def test_the_incompleteness_is_the_gap_over_the_change_of_the_answer():
    """Attributions of 3 and 1 to changes of 2 and 2 leave gaps of 1 and -1, half of the change."""
    inputs = {"a": np.array([[1.0], [0.5]], np.float32), "b": np.array([[2.0], [0.5]], np.float32)}
    found = Attribution(inputs, np.array([5.0, 3.0]), np.array([3.0, 1.0]))
    np.testing.assert_allclose(found.gap, [1.0, -1.0])
    assert found.incompleteness == pytest.approx(0.5)
    assert found._replace(answer=found.baseline).incompleteness == pytest.approx(3.0)


def test_one_step_along_a_curved_line_is_incomplete():
    """The slope of a square at the one point on the line is x / 2: half of it is missing."""
    pixels = keras.Input((1,), name="pixels")
    model = keras.Model({"pixels": pixels}, pixels**2)
    line = {"pixels": np.array([[1.0], [3.0]], dtype=np.float32)}
    assert integrated_gradients(model, line, n_steps=1).incompleteness == pytest.approx(0.5)
    fine = integrated_gradients(model, line, n_steps=4)
    assert fine.incompleteness == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_attributed_is_refused(rng):
    model = build_model("dnn", seed=3, **TINY["dnn"])
    inputs = inputs_of("flat", rng, scalars=False)
    with pytest.raises(ConfigError, match="n_steps"):
        integrated_gradients(model, inputs, n_steps=0)
    with pytest.raises(ValidationError, match="clusters"):
        integrated_gradients(model, {"pixels": inputs["pixels"][:0]})
