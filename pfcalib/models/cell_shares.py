"""Networks that give the share of each cell that a track left: on points with what is pooled over
them (arXiv:1703.06114), and on images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

from pfcalib.errors import ConfigError
from pfcalib.models.blocks import Tensor
from pfcalib.models.shapes import N_LAYERS


@dataclass(frozen=True, kw_only=True)
class SharesConfig:
    """Form and size of the network.

    Parameters
    ----------
    form : str
        ``points`` or ``images``.
    width : int
        Of all layers; a quarter of it for images.
    depth : int
        Times that what is pooled over the points goes back to each of them; convolutions of images
        after the first.
    """

    form: str = "points"
    width: int = 32
    depth: int = 2

    def __post_init__(self) -> None:
        if self.form not in _BUILDERS:
            raise ConfigError(
                f"SharesConfig: form = {self.form!r}, expected one of {', '.join(_BUILDERS)}"
            )
        if self.width < 4 or self.depth < 1:
            raise ConfigError(
                f"SharesConfig: width = {self.width!r}, depth = {self.depth!r}, expected at least "
                "4 and 1"
            )


@keras.saving.register_keras_serializable(package="pfcalib")
class LayerFlags(layers.Layer):
    """The first feature of points, place of the layer + 1, as one flag a layer."""

    def call(self, inputs: Tensor) -> Tensor:
        numbers = np.arange(1, N_LAYERS + 1, dtype=np.float32)
        flags = ops.cast(ops.equal(inputs[:, :, :1], numbers), "float32")
        return ops.concatenate([flags, inputs[:, :, 1:]], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], N_LAYERS + (input_shape[2] or 0) - 1)


@keras.saving.register_keras_serializable(package="pfcalib")
class PooledPoints(layers.Layer):
    """Mean of the features of points weighted by abs(E), and their maximum or 0, over the points
    that hold a cell.

    Takes the features (n, n_points, width) and the points, whose first two columns are the place of
    the layer + 1 and a logarithm of the energy, sign(E) ln(1 + abs(E) / scale).
    """

    def call(self, features: Tensor, points: Tensor) -> Tensor:
        filled = ops.cast(points[:, :, :1] > 0.0, "float32")
        size = filled * (ops.exp(ops.abs(points[:, :, 1:2])) - 1.0)
        share = size / (ops.sum(size, axis=1, keepdims=True) + 1e-6)
        mean = ops.sum(share * features, axis=1)
        return ops.concatenate([mean, ops.max(filled * features, axis=1)], axis=-1)

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], points_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (features_shape[0], 2 * (features_shape[2] or 0))


def build_cell_shares(
    shapes: Mapping[str, tuple[int, ...]], config: SharesConfig | None = None
) -> keras.Model:
    """Untrained network.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Name and shape, without the batch axis, of the inputs of the form, see
        `pfcalib.particleflow.surroundings.INPUT_SHAPES`.
    config : SharesConfig, optional

    Returns
    -------
    keras.Model
        Inputs "cells" or "images", and "track", float32; output "shares" (n, n_slots, 2), softmax
        over [what the track left, all else].
    """
    config = config or SharesConfig()
    inputs = {
        name: keras.Input(shape, name=name, dtype="float32") for name, shape in shapes.items()
    }
    x = _BUILDERS[config.form](inputs, config)
    # the converter needs to be told the number of slots
    logits = layers.Reshape((math.prod(x.shape[1:]) // 2, 2), name="logits")(x)
    shares = layers.Softmax(name="shares")(logits)
    return keras.Model(inputs, shares, name=f"cell_shares_{config.form}")


def _of_points(inputs: Mapping[str, Tensor], config: SharesConfig) -> Tensor:
    """Each point sees itself, the track, and what is pooled over all points."""
    points, track, width = inputs["cells"], inputs["track"], config.width
    x = layers.Dense(width, activation="swish", name="point0")(LayerFlags(name="flags")(points))
    for i in range(config.depth):
        pooled = PooledPoints(name=f"pooled{i}")(x, points)
        context = layers.Concatenate(name=f"context{i}")([pooled, track])
        context = layers.Dense(width, activation="swish", name=f"set{i}")(context)
        context = layers.Reshape((1, width), name=f"for_each{i}")(
            layers.Dense(width, name=f"back{i}")(context)
        )
        x = layers.Add(name=f"joined{i}")([layers.Dense(width, name=f"point{i + 1}")(x), context])
        x = layers.Activation("swish", name=f"swish{i}")(x)
    x = layers.Dense(width, activation="swish", name="last")(x)
    return layers.Dense(2, name="points")(x)


def _of_images(inputs: Mapping[str, Tensor], config: SharesConfig) -> Tensor:
    """Convolutions, each on the maps of all before it; the track is added to all pixels."""
    images, track, width = inputs["images"], inputs["track"], config.width // 4
    context = layers.Dense(config.width, activation="swish", name="set")(track)
    context = layers.Reshape((1, 1, width), name="for_each")(
        layers.Dense(width, name="back")(context)
    )
    x = layers.Conv2D(width, 3, padding="same", name="conv0")(images)
    x = layers.Activation("swish", name="swish0")(layers.Add(name="joined")([x, context]))
    for i in range(config.depth):
        y = layers.Conv2D(width, 3, padding="same", activation="swish", name=f"conv{i + 1}")(x)
        x = layers.Concatenate(name=f"join{i}")([x, y])
    return layers.Conv2D(2 * N_LAYERS, 1, name="pixels")(x)


_BUILDERS: dict[str, Callable[[Mapping[str, Tensor], SharesConfig], Tensor]] = {
    "points": _of_points,
    "images": _of_images,
}
