"""Parts of a cluster's image: layers, and rings around its centre, as masks on the inputs of any
network.

A mask is made on the images of the layers and then sent through the function that makes inputs of
images, so that it fits every kind of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.features.images import IMAGE_SHAPES
from pfcalib.features.inputs import STACKS, build_inputs, input_layers

WINDOW = (0.4, np.pi / 8.0)  # size of an image in eta and phi
# between core, inner and outer ring; in EMB2 the core is 3 x 3 cells, core and inner together about
# 7 x 7
RING_EDGES = (0.025, 0.075)
RING_NAMES = ("core", "inner", "outer")
SCALARS_INPUT = "scalars"
_ROUNDING = 1e-9

Mask = NDArray[np.bool_]


class Region(NamedTuple):
    """A part of the inputs that is treated as one."""

    name: str
    # by input, the shape of that input without the batch axis; inputs that are not touched are
    # missing
    masks: dict[str, Mask]
    # shuffled among clusters of like energy; else among all, as a scalar that is the energy has to
    # be
    within_bins: bool = True


def pixel_distances(layer: str) -> NDArray[np.float64]:
    """Distance in eta and phi of the nearest point of each pixel from the centre of the image,
    shape (n_eta, n_phi).

    The centre is that of an EMB2 cell; pixels of another size lie around it by chance, on average
    as if their edges met there. The nearest point is taken, not the centre of the pixel, so that
    long pixels and large ones that hold the axis of the shower belong to the core.

    >>> pixel_distances("TileBar0").round(3).tolist()[1]
    [0.098, 0.0, 0.0, 0.098]
    """
    away = []
    for axis, n_pixels in enumerate(IMAGE_SHAPES[layer]):
        size = WINDOW[axis] / n_pixels
        # a pixel of EMB2 has the centre in its middle
        shift = 0.5 if n_pixels == IMAGE_SHAPES["EMB2"][axis] else 0.0
        low = (np.arange(n_pixels) - n_pixels // 2 - shift) * size
        away.append(np.maximum(np.maximum(low, -(low + size)), 0.0))
    return np.hypot(away[0][:, None], away[1][None, :])


def layer_regions(kind: str) -> list[Region]:
    """Each layer of a kind of inputs as one region.

    Raises
    ------
    ConfigError
        If the kind is unknown.
    """
    return [
        Region(layer, _on_inputs({layer: np.ones(IMAGE_SHAPES[layer], dtype=np.bool_)}, kind))
        for layer in input_layers(kind)
    ]


def ring_regions(kind: str, *, edges: Sequence[float] = RING_EDGES) -> list[Region]:
    """The rings of each layer, ``EMB2 core`` and so on; a ring without a pixel, as coarse layers
    have it, is left out.

    Parameters
    ----------
    kind : str
        Kind of inputs, see `features.inputs`.
    edges : sequence of float
        Distances between the rings, rising; three rings have the names of RING_NAMES, other numbers
        of them are counted.

    Raises
    ------
    ConfigError
        If the kind is unknown or the edges do not rise.

    >>> [region.name for region in ring_regions("layer:TileBar0")]
    ['TileBar0 core', 'TileBar0 outer']
    """
    if not edges or not np.all(np.diff([0.0, *edges]) > 0.0):
        raise ConfigError(f"ring edges {tuple(edges)}: expected above 0 and rising")
    names = RING_NAMES if len(edges) == 2 else [f"ring {i}" for i in range(len(edges) + 1)]
    regions = []
    for layer in input_layers(kind):
        ring = np.searchsorted(np.asarray(edges), pixel_distances(layer) + _ROUNDING, side="right")
        regions += [
            Region(f"{layer} {name}", _on_inputs({layer: ring == i}, kind))
            for i, name in enumerate(names)
            if (ring == i).any()
        ]
    return regions


def scalar_regions(names: Sequence[str], *, energy: str = "clusterE") -> list[Region]:
    """Each scalar as a region; the energy itself is shuffled among all clusters, as it hardly
    varies among those of like energy.
    """
    places = np.arange(len(names))
    return [
        Region(name, {SCALARS_INPUT: places == i}, within_bins=name != energy)
        for i, name in enumerate(names)
    ]


def join_regions(name: str, regions: Sequence[Region]) -> Region:
    """Several regions as one."""
    masks: dict[str, Mask] = {}
    for region in regions:
        for key, mask in region.masks.items():
            masks[key] = masks[key] | mask if key in masks else mask
    return Region(name, masks, all(region.within_bins for region in regions))


def _on_inputs(marked: Mapping[str, Mask], kind: str) -> dict[str, Mask]:
    """Masks on images as masks on inputs."""
    images = {
        layer: marked.get(layer, np.zeros(IMAGE_SHAPES[layer]))[None].astype(np.float32)
        for layer in input_layers(kind)
    }
    masks = {name: array[0] != 0.0 for name, array in build_inputs(images, kind).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def sum_on_pixels(
    inputs: Mapping[str, NDArray[np.floating]], kind: str
) -> dict[str, NDArray[np.float64]]:
    """Arrays in the shape of inputs as one array a layer; what was repeated in the stacks is
    summed, as attributions have to be.

    Parameters
    ----------
    inputs : mapping of str to array, shape (n, *INPUT_SHAPES[kind][name])
        Scalars may be among them and are left out.
    kind : str

    Returns
    -------
    dict of str to array of float64, shape (n, n_eta, n_phi)

    >>> images = {name: np.ones((1, *shape), dtype=np.float32) for name, shape in IMAGE_SHAPES.items()}
    >>> float(sum_on_pixels(build_inputs(images, "stacks"), "stacks")["TileBar2"].min())
    1.0
    """
    layers = input_layers(kind)
    if kind == "layers":
        return {layer: np.asarray(inputs[layer][..., 0], dtype=np.float64) for layer in layers}
    if kind == "stacks":
        return {
            layer: _block_sums(inputs[stack][..., channel], IMAGE_SHAPES[layer])
            for stack, names in STACKS.items()
            for channel, layer in enumerate(names)
        }
    edges = np.cumsum([0, *(np.prod(IMAGE_SHAPES[layer]) for layer in layers)])
    pixels = np.asarray(inputs["pixels"], dtype=np.float64)
    parts = zip(layers, edges[:-1], edges[1:], strict=True)
    return {
        layer: pixels[:, first:last].reshape(len(pixels), *IMAGE_SHAPES[layer])
        for layer, first, last in parts
    }


def _block_sums(stack: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Sums of the fine pixels that a coarse one was repeated to."""
    n, n_eta, n_phi = stack.shape
    blocks = np.asarray(stack, dtype=np.float64).reshape(
        n, shape[0], n_eta // shape[0], shape[1], n_phi // shape[1]
    )
    return np.asarray(blocks.sum(axis=(2, 4)))
