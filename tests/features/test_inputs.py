"""Inputs have the promised names and shapes, and keep the energy of the images."""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, build_images
from pfcalib.features.inputs import INPUT_SHAPES, STACKS, build_inputs, input_layers


@pytest.fixture
def images(rng):
    return build_images(make_sample(rng, 12), layers=LAYER_NAMES)


IMAGE_KINDS = [kind for kind in INPUT_SHAPES if input_layers(kind)]


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_names_shapes_and_types_are_those_promised(images, kind):
    inputs = build_inputs(images, kind, significance=images)
    assert {name: array.shape[1:] for name, array in inputs.items()} == INPUT_SHAPES[kind]
    assert all(
        array.dtype == np.float32 and array.flags.c_contiguous and len(array) == 12
        for array in inputs.values()
    )


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_the_energy_of_each_cluster_is_kept(images, kind):
    nothing = {name: np.zeros_like(image) for name, image in images.items()}
    inputs = build_inputs(images, kind, significance=nothing)
    total = sum(array.reshape(12, -1).sum(axis=1) for array in inputs.values())
    wanted = sum(images[name].sum(axis=(1, 2)) for name in input_layers(kind))
    np.testing.assert_allclose(total, wanted, rtol=1e-5)


def test_flat_pixels_are_the_layers_one_after_the_other(images):
    pixels = build_inputs(images, "flat")["pixels"]
    np.testing.assert_array_equal(pixels[:, :512], images["EMB1"].reshape(12, -1))
    np.testing.assert_array_equal(pixels[:, -8:], images["TileBar2"].reshape(12, -1))


def test_a_coarse_pixel_is_spread_over_the_fine_ones_that_it_covers(images):
    stacks = build_inputs(images, "stacks")
    np.testing.assert_array_equal(stacks["emb23"][..., 0], images["EMB2"])
    for i, j in ((0, 0), (5, 3), (15, 15)):
        np.testing.assert_allclose(stacks["emb23"][:, i, j, 1], images["EMB3"][:, i // 2, j] / 2)
    np.testing.assert_allclose(stacks["tile"][:, 3, 2, 2], images["TileBar2"][:, 1, 2] / 2)
    assert tuple(name for names in STACKS.values() for name in names) == IMAGE_LAYERS


def test_unknown_kinds_and_missing_images_are_named(images):
    with pytest.raises(ConfigError, match="'round'"):
        build_inputs(images, "round")
    with pytest.raises(ValidationError, match="no image of EMB3"):
        build_inputs({name: image for name, image in images.items() if name != "EMB3"}, "flat")
    with pytest.raises(ValidationError, match="EMB3 must have shape"):
        build_inputs(images | {"EMB3": images["EMB2"]}, "flat")
