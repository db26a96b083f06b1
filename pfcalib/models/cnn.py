"""The merged convolutional network: one small branch a layer of the calorimeter
(ATL-PHYS-PUB-2020-018, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.models.blocks import (
    BodyConfig,
    Tensor,
    build_inputs,
    compress,
    join,
    pool_window,
)
from pfcalib.models.heads import finish

KERNELS = {
    "EMB1": (4, 2),
    "EMB2": (4, 4),
    "EMB3": (2, 4),
    "TileBar0": (2, 2),
    "TileBar1": (2, 2),
    "TileBar2": (2, 2),
}


@dataclass(frozen=True, kw_only=True)
class CnnConfig(BodyConfig):
    """Merged network; the defaults are the published ones."""

    filters: int = 32
    branch_width: int = 128
    merged_width: int = 50


def _branch(image: Tensor, name: str, config: CnnConfig) -> Tensor:
    """Convolution, pooling, dropout and a dense layer on one image (n, n_eta, n_phi, 1)."""
    x = compress(image, power=config.pixel_power, name=name)
    x = layers.Conv2D(config.filters, KERNELS[name], activation="relu", name=f"{name}_conv")(x)
    x = layers.MaxPooling2D(pool_window(x), name=f"{name}_pool")(x)
    x = layers.Dropout(config.dropout, name=f"{name}_dropout")(x)
    x = layers.Flatten(name=f"{name}_flat")(x)
    return layers.Dense(config.branch_width, activation="relu", name=f"{name}_dense")(x)


def build_cnn(config: CnnConfig | None = None) -> keras.Model:
    """Untrained merged network.

    Returns
    -------
    keras.Model
        One input a layer, "EMB1" (n, 128, 4, 1) to "TileBar2" (n, 2, 4, 1) float32; output "p" (n,
        2), softmax over [charged, neutral], or that of another head.
    """
    config = config or CnnConfig()
    shapes = INPUT_SHAPES["layers"]
    inputs = build_inputs(shapes, with_scalars=config.with_scalars)
    merged = join([_branch(inputs[name], name, config) for name in shapes], inputs)
    return finish(
        inputs,
        layers.Dense(config.merged_width, activation="relu", name="merged")(merged),
        head=config.head,
        n_components=config.n_components,
        name="cnn",
    )
