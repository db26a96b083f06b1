"""The merged convolutional network: one small branch a layer of the calorimeter
(ATL-PHYS-PUB-2020-018, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from pfcalib.errors import ConfigError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES
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
    convolutions: int = 1  # of a branch
    padding: str = "valid"  # "same": the outermost pixels are seen as well, also by a large kernel
    n_channels: int = 1  # of an image, as the kind of input has them

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding not in ("valid", "same") or (
            self.padding == "valid" and self.convolutions > 1
        ):
            raise ConfigError(
                f"CnnConfig: padding = {self.padding!r} with {self.convolutions} convolutions, "
                "expected 'valid' with one, or 'same'"
            )


def _branch(image: Tensor, name: str, config: CnnConfig) -> Tensor:
    """Convolutions, pooling, dropout and a dense layer on one image (n, n_eta, n_phi,
    n_channels).
    """
    x = compress(image, power=config.pixel_power, name=name)
    for i in range(config.convolutions):
        x = layers.Conv2D(
            config.filters,
            KERNELS[name],
            padding=config.padding,
            activation="relu",
            name=f"{name}_conv{i or ''}",
        )(x)
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
    shapes = {name: (*IMAGE_SHAPES[name], config.n_channels) for name in IMAGE_LAYERS}
    inputs = build_inputs(shapes, config)
    merged = join([_branch(inputs[name], name, config) for name in shapes], inputs, config)
    return finish(
        inputs,
        layers.Dense(config.merged_width, activation="relu", name="merged")(merged),
        head=config.head,
        n_components=config.n_components,
        name="cnn",
    )
