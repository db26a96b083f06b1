"""Network inputs: images as flat pixels, one array a layer or the three stacks of the DenseNet, and
hottest cells or moments in physical units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES, N_PIXELS
from pfcalib.features.points import N_POINTS, POINT_FEATURES
from pfcalib.features.scalars import MOMENT_COLUMNS

STACKS = {
    "emb1": ("EMB1",),
    "emb23": ("EMB2", "EMB3"),
    "tile": ("TileBar0", "TileBar1", "TileBar2"),
}
_ONE_LAYER = "layer:"
WITH_SIGNIFICANCE = "layers+significance"
# kind of input: name of each input, its shape without the batch axis
INPUT_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "flat": {"pixels": (N_PIXELS,)},
    "layers": {name: (*IMAGE_SHAPES[name], 1) for name in IMAGE_LAYERS},
    WITH_SIGNIFICANCE: {name: (*IMAGE_SHAPES[name], 2) for name in IMAGE_LAYERS},
    "moments": {"moments": (len(MOMENT_COLUMNS),)},
    "points": {"points": (N_POINTS, len(POINT_FEATURES))},
    "stacks": {stack: (*IMAGE_SHAPES[names[0]], len(names)) for stack, names in STACKS.items()},
    **{f"{_ONE_LAYER}{name}": {"pixels": (n * m,)} for name, (n, m) in IMAGE_SHAPES.items()},
}


def input_layers(kind: str) -> tuple[str, ...]:
    """Layers whose images a kind of input is made of; none for points and moments.

    Raises
    ------
    ConfigError
        If the kind is unknown.

    >>> input_layers("layer:EMB2")
    ('EMB2',)
    """
    if kind not in INPUT_SHAPES:
        raise ConfigError(f"kind of input must be one of {', '.join(INPUT_SHAPES)}, got {kind!r}")
    if kind.startswith(_ONE_LAYER):
        return (kind.removeprefix(_ONE_LAYER),)
    return () if kind in ("moments", "points") else IMAGE_LAYERS


def build_inputs(
    images: Mapping[str, NDArray[np.float32]],
    kind: str,
    *,
    significance: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Inputs of a network that are made of images.

    Parameters
    ----------
    images : mapping of str to array of float32, shape (n, n_eta, n_phi)
        Made by `pfcalib.features.images.build_images`.
    kind : str
        "flat": all pixels in one row, layer after layer; "layers": one image with one channel a
        layer, "layers+significance": one with a second channel for the significance; "stacks":
        EMB1, EMB2 with EMB3, and the three tile layers as images with 1, 2 and 3 channels, the
        coarser layers repeated to the finer cells with their energy shared, so that sums are kept;
        "layer:<name>": flat pixels of one layer.
    significance : mapping, optional
        Like `images`, of E / sigma; asked for by "layers+significance".

    Returns
    -------
    dict of str to array of float32, shape (n, *INPUT_SHAPES[kind][name])

    Raises
    ------
    ConfigError
        If the kind is unknown.
    ValidationError
        If an image is missing or has another shape.

    >>> shapes = IMAGE_SHAPES.items()
    >>> images = {name: np.ones((5, *shape), dtype=np.float32) for name, shape in shapes}
    >>> {name: array.shape for name, array in build_inputs(images, "stacks").items()}
    {'emb1': (5, 128, 4, 1), 'emb23': (5, 16, 16, 2), 'tile': (5, 4, 4, 3)}
    """
    layers = input_layers(kind)
    for name in layers:
        if name not in images:
            raise ValidationError(
                f"no image of {name}; there are images of {', '.join(images) or 'no layer'}"
            )
        if images[name].shape[1:] != IMAGE_SHAPES[name]:
            raise ValidationError(
                f"image of {name} must have shape (n, {IMAGE_SHAPES[name][0]}, "
                f"{IMAGE_SHAPES[name][1]}), got {images[name].shape}"
            )
    if kind == WITH_SIGNIFICANCE:
        second = significance or {}
        return {name: np.stack([images[name], second[name]], axis=-1) for name in layers}
    if kind == "layers":
        return {name: np.ascontiguousarray(images[name][..., None]) for name in layers}
    if kind == "stacks":
        return {stack: _stack(images, names) for stack, names in STACKS.items()}
    flat = [images[name].reshape(-1, math.prod(IMAGE_SHAPES[name])) for name in layers]
    return {"pixels": np.concatenate(flat, axis=1)}


def _stack(images: Mapping[str, NDArray[np.float32]], names: Sequence[str]) -> NDArray[np.float32]:
    """Layers as channels on the cells of the first: each pixel of a coarser layer is repeated, its
    energy divided by the repetitions.
    """
    n_eta, n_phi = IMAGE_SHAPES[names[0]]
    stack = np.empty((len(images[names[0]]), n_eta, n_phi, len(names)), dtype=np.float32)
    for channel, name in enumerate(names):
        rows, columns = IMAGE_SHAPES[name]
        by_eta, by_phi = n_eta // rows, n_phi // columns
        # a view: splitting axes copies nothing
        blocks = stack[..., channel].reshape(-1, rows, by_eta, columns, by_phi)
        blocks[...] = (images[name] / np.float32(by_eta * by_phi))[:, :, None, :, None]
    return stack
