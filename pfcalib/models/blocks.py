"""Parts that several networks share: inputs, the compression of pixels and dense blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from pfcalib.errors import ConfigError
from pfcalib.models.heads import HEADS

Tensor = Any  # a symbolic keras tensor
SCALARS_INPUT = "scalars"
N_SCALARS = 2  # log10(clusterE / GeV), clusterEta
BN_MOMENTUM = 0.9  # of the running mean and variance: right within an epoch of a few hundred steps


@keras.saving.register_keras_serializable(package="pfcalib")
class SignedPower(layers.Layer):
    """sign(x) |x|^exponent: spreads out pixels that are tiny shares of a cluster's energy. Ours,
    not part of the published networks.
    """

    def __init__(self, exponent: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exponent = exponent

    def call(self, inputs: Tensor) -> Tensor:
        return keras.ops.sign(inputs) * keras.ops.power(keras.ops.abs(inputs), self.exponent)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "exponent": self.exponent}


@dataclass(frozen=True, kw_only=True)
class BodyConfig:
    """What every network may be told besides its widths."""

    dropout: float = 0.2
    pixel_power: float = 1.0  # 1 = published; see SignedPower
    with_scalars: bool = False  # log10(clusterE / GeV) and clusterEta join where the branches do
    head: str = "classes"  # of heads.HEADS
    n_components: int = 3  # Gaussians of the head "mixture"

    def __post_init__(self) -> None:
        name = type(self).__name__
        for field, value in vars(self).items():
            if isinstance(value, tuple):
                numbers = {f"n_{field}": len(value)}
                numbers |= {f"{field}[{i}]": number for i, number in enumerate(value)}
            else:
                free = value is None or isinstance(value, bool | str) or field == "dropout"
                numbers = {} if free else {field: value}
            for what, number in numbers.items():
                if not number > 0:
                    raise ConfigError(f"{name}: {what} = {number!r}, expected above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"{name}: dropout = {self.dropout!r}, expected in [0, 1)")
        if self.head not in HEADS:
            raise ConfigError(f"{name}: head = {self.head!r}, expected one of {', '.join(HEADS)}")


def build_inputs(shapes: Mapping[str, tuple[int, ...]], *, with_scalars: bool) -> dict[str, Tensor]:
    """One named input per entry of shapes (without the batch axis), and the scalars if wanted."""
    named = {**shapes, **({SCALARS_INPUT: (N_SCALARS,)} if with_scalars else {})}
    return {name: keras.Input(shape, name=name, dtype="float32") for name, shape in named.items()}


def compress(pixels: Tensor, *, power: float, name: str) -> Tensor:
    """Pixels to the signed power; a power of 1 leaves them, as published."""
    return pixels if power == 1.0 else SignedPower(power, name=f"{name}_power")(pixels)


def join(features: list[Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """Features of all branches side by side, with the scalars if they are among the inputs."""
    parts = [*features, *([inputs[SCALARS_INPUT]] if SCALARS_INPUT in inputs else [])]
    return layers.Concatenate(name="join")(parts) if len(parts) > 1 else parts[0]


def dense_block(x: Tensor, *, n_layers: int, growth: int, name: str) -> Tensor:
    """Convolutions of which each sees the maps of all before it (arXiv:1608.06993, figure 1): BN,
    ReLU, 3 x 3, joined to its input.
    """
    for i in range(n_layers):
        y = layers.BatchNormalization(momentum=BN_MOMENTUM, name=f"{name}_bn{i}")(x)
        y = layers.Activation("relu", name=f"{name}_relu{i}")(y)
        y = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_conv{i}")(y)
        x = layers.Concatenate(name=f"{name}_join{i}")([x, y])
    return x


def transition(x: Tensor, *, compression: float, name: str) -> Tensor:
    """Between dense blocks: BN, ReLU, 1 x 1 convolution to a share of the maps, average pooling by
    2 (arXiv:1608.06993, section 3).
    """
    x = layers.BatchNormalization(momentum=BN_MOMENTUM, name=f"{name}_bn")(x)
    x = layers.Activation("relu", name=f"{name}_relu")(x)
    x = layers.Conv2D(
        max(int(x.shape[-1] * compression), 1), 1, use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.AveragePooling2D(pool_window(x), name=f"{name}_pool")(x)


def pool_window(x: Tensor) -> tuple[int, int]:
    """2 x 2, or 1 along an axis of one pixel."""
    return min(2, x.shape[1]), min(2, x.shape[2])
