"""Regions tile the layers, whatever the inputs look like, and sums over inputs give the pixels
back.
"""

from __future__ import annotations

import numpy as np
import pytest
from studies.regions import (
    join_regions,
    layer_regions,
    pixel_distances,
    ring_regions,
    scalar_regions,
    sum_on_pixels,
)

from pfcalib.errors import ConfigError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs, input_layers

KINDS = ("flat", "layers", "stacks", "layer:EMB1", "layer:PreSamplerB")


def counts_of(regions, kind):
    """How many of the regions hold each input."""
    counts = {name: np.zeros(shape, dtype=int) for name, shape in INPUT_SHAPES[kind].items()}
    for region in regions:
        for name, mask in region.masks.items():
            counts[name] += mask
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_layers_tile_the_inputs(kind):
    assert [region.name for region in layer_regions(kind)] == list(input_layers(kind))
    for counts in counts_of(layer_regions(kind), kind).values():
        assert (counts == 1).all()


@pytest.mark.parametrize("edges", [(0.025, 0.075), (0.1,), (0.01, 0.05, 0.1, 0.2)])
@pytest.mark.parametrize("kind", KINDS)
def test_rings_tile_each_layer(kind, edges):
    rings = ring_regions(kind, edges=edges)
    for layer in layer_regions(kind):
        own = join_regions("all", [ring for ring in rings if ring.name.split()[0] == layer.name])
        assert own.masks.keys() == layer.masks.keys()
        for name, mask in layer.masks.items():
            np.testing.assert_array_equal(own.masks[name], mask)
    for counts in counts_of(rings, kind).values():
        assert (counts == 1).all()


def test_the_core_of_emb2_is_three_by_three_cells_around_the_central_one():
    core = next(region for region in ring_regions("layers") if region.name == "EMB2 core").masks[
        "EMB2"
    ][..., 0]
    expected = np.zeros((16, 16), dtype=bool)
    expected[7:10, 7:10] = True
    np.testing.assert_array_equal(core, expected)


def test_the_core_of_emb1_is_the_strips_across_the_axis():
    core = next(region for region in ring_regions("layers") if region.name == "EMB1 core").masks[
        "EMB1"
    ][..., 0]
    eta, phi = np.nonzero(core)
    assert sorted(set(phi)) == [1, 2]
    assert (eta.min(), eta.max()) == (64 - 8, 64 + 7)


@pytest.mark.parametrize("layer", IMAGE_SHAPES)
def test_distances_are_those_of_the_nearest_of_many_points(layer, rng):
    """Slow and obvious: points thrown into the window, each put into its pixel."""
    shape, half = IMAGE_SHAPES[layer], np.array([0.2, np.pi / 16.0])
    size = 2.0 * half / shape
    middle = np.array([0.5 if n == 16 else 0.0 for n in shape]) * size
    points = rng.uniform(-half - middle, half - middle, (400_000, 2))
    place = np.floor((points + half + middle) / size).astype(int)
    nearest = np.full(shape, np.inf)
    np.minimum.at(nearest, tuple(place.T), np.hypot(*points.T))
    assert (pixel_distances(layer) <= nearest + 1e-12).all()
    np.testing.assert_allclose(pixel_distances(layer), nearest, atol=0.02)


def test_a_region_means_the_same_pixels_in_every_kind_of_inputs(rng):
    images = {
        name: rng.random((3, *shape)).astype(np.float32) for name, shape in IMAGE_SHAPES.items()
    }
    for places in zip(*(ring_regions(kind) for kind in ("flat", "layers", "stacks")), strict=True):
        sums = []
        for region, kind in zip(places, ("flat", "layers", "stacks"), strict=True):
            inputs = build_inputs(images, kind)
            sums.append(
                sum(inputs[name][:, mask].sum(axis=1) for name, mask in region.masks.items())
            )
        np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)
        np.testing.assert_allclose(sums[2], sums[0], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_come_back_from_inputs(kind, rng):
    images = {
        name: rng.random((3, *shape)).astype(np.float32) for name, shape in IMAGE_SHAPES.items()
    }
    back = sum_on_pixels(build_inputs(images, kind), kind)
    assert tuple(back) == input_layers(kind)
    for name, image in back.items():
        np.testing.assert_allclose(image, images[name], rtol=1e-6)


def test_scalars_are_regions_and_only_the_energy_leaves_its_bin():
    energy, eta = scalar_regions(("clusterE", "clusterEta"))
    assert (energy.within_bins, eta.within_bins) == (False, True)
    assert eta.masks["scalars"].tolist() == [False, True]


def test_edges_that_do_not_rise_are_refused():
    for edges in ((), (0.0, 0.1), (0.1, 0.05)):
        with pytest.raises(ConfigError, match="ring edges"):
            ring_regions("flat", edges=edges)
    assert len(IMAGE_LAYERS) == len(layer_regions("flat"))
