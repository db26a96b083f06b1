"""The networks have the published layers, take the inputs that the features give, and are built
without side effects.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.models.blocks import SignedPower
from pfcalib.models.dnn import DnnConfig
from pfcalib.models.families import MODEL_KINDS, PUBLISHED, build_model, load_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

TINY = {
    "dnn": {"widths": [8, 4]},
    "cnn": {"filters": 2, "branch_width": 4, "merged_width": 4},
    "densenet": {"growth": 2, "block_layers": [1, 1], "head_width": 4},
    "mlp": {"widths": [8, 4]},
    "points": {"widths": [8, 4]},
}


def inputs_of(model, rng, n=5):
    return {
        tensor.name: rng.random((n, *tensor.shape[1:])).astype(np.float32)
        for tensor in model.inputs
    }


@pytest.mark.parametrize("name", MODEL_KINDS)
@pytest.mark.parametrize(("with_scalars", "with_moments"), [(False, False), (True, True)])
def test_a_network_takes_the_named_inputs_of_its_kind_and_gives_two_probabilities(
    name, with_scalars, with_moments, rng
):
    moments = {"with_moments": True} if with_moments else {}
    model = build_model(name, **TINY[name], with_scalars=with_scalars, **moments)
    inputs = inputs_of(model, rng)
    expected = {**INPUT_SHAPES[MODEL_KINDS[name]], **({"scalars": (2,)} if with_scalars else {})}
    if with_moments or name not in PUBLISHED:
        expected |= INPUT_SHAPES["moments"]
    assert {key: array.shape[1:] for key, array in inputs.items()} == expected
    p = np.asarray(model(inputs, training=False))
    assert p.shape == (5, 2)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
    assert model.output_names == ["p"]


def test_the_flat_network_is_the_published_one():
    model = build_model("dnn")
    units = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    dropouts = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert units == [936, 936, 468, 2]
    assert dropouts == [0.2, 0.2, 0.2]
    assert {
        layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Dense)
    } == {"relu", "softmax"}


@pytest.mark.parametrize(("n_pixels", "hidden"), [(512, (512, 512, 256)), (8, (8, 8, 4))])
def test_a_network_of_one_layer_scales_with_its_pixels(n_pixels, hidden):
    assert DnnConfig(n_pixels=n_pixels).hidden == hidden
    assert build_model("dnn", n_pixels=n_pixels).inputs[0].shape == (None, n_pixels)


def test_the_merged_network_is_the_published_one():
    model = build_model("cnn")
    kernels = {
        layer.name: (layer.kernel_size, layer.filters)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert kernels["EMB1_conv"] == ((4, 2), 32)
    assert kernels["EMB2_conv"] == ((4, 4), 32)
    assert kernels["EMB3_conv"] == ((2, 4), 32)
    assert {kernels[f"TileBar{i}_conv"] for i in range(3)} == {((2, 2), 32)}
    assert sorted(
        layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)
    ) == [2, 50, *[128] * 6]


def test_a_deeper_merged_network_sees_every_pixel(rng):
    model = build_model("cnn", **TINY["cnn"], convolutions=3, padding="same", n_channels=2)
    inputs = inputs_of(model, rng, n=1)
    assert inputs["TileBar0"].shape == (1, 4, 4, 2)
    shapes = [model.get_layer(f"TileBar0_conv{i}").output.shape[1:3] for i in ("", 1, 2)]
    assert shapes == [(4, 4)] * 3


def test_every_convolution_of_a_dense_block_sees_all_maps_before_it():
    model = build_model("densenet", growth=3, block_layers=[3])
    maps = [model.get_layer(f"emb1_block0_conv{i}").input.shape[-1] for i in range(3)]
    assert maps == [6, 9, 12]


def test_the_dense_network_is_small_enough_for_a_processor():
    assert build_model("densenet").count_params() < 400_000


def test_the_power_keeps_signs_and_one_leaves_the_network_as_published(rng):
    pixels = np.array([[-0.04, 0.0, 0.25]], dtype=np.float32)
    np.testing.assert_allclose(SignedPower(0.5)(pixels), [[-0.2, 0.0, 0.5]], rtol=1e-6)
    assert not any(
        isinstance(layer, SignedPower) for layer in build_model("dnn", widths=[2]).layers
    )
    assert any(
        isinstance(layer, SignedPower)
        for layer in build_model("dnn", widths=[2], pixel_power=0.5).layers
    )


@pytest.mark.parametrize("name", MODEL_KINDS)
def test_the_same_seed_builds_the_same_network(name):
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        weights.append(build_model(name, **TINY[name]).get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_model_file_gives_back_the_same_function(tmp_path, rng):
    model = build_model("densenet", **TINY["densenet"], pixel_power=0.5)
    model.save(tmp_path / "model.keras")
    inputs = inputs_of(model, rng)
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(inputs), model(inputs))


def test_a_model_file_that_carries_code_is_refused(tmp_path):
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "evil.keras")
    with pytest.raises(BadFileError, match=r"evil\.keras"):
        load_model(tmp_path / "evil.keras")


def test_a_missing_model_file_is_named(tmp_path):
    with pytest.raises(BadFileError, match=r"none\.keras"):
        load_model(tmp_path / "none.keras")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "unknown model 'resnet'"),
        ("dnn", {"depth": 3}, "no option depth"),
        ("dnn", {"dropout": 1.0}, "dropout"),
        ("dnn", {"widths": []}, "n_widths"),
        ("cnn", {"filters": 0}, "filters"),
        ("densenet", {"block_layers": [0]}, r"block_layers\[0\]"),
        ("cnn", {"convolutions": 2}, "padding = 'valid' with 2 convolutions"),
        ("cnn", {"padding": "full"}, "padding = 'full'"),
        ("mlp", {"with_moments": False}, "leaves no moments"),
    ],
)
def test_an_option_that_makes_no_network_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, **options)
