"""Parts that several networks share: inputs, the scale of moments, the compression of pixels and
dense blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.features.scalars import N_SHARES
from pfcalib.models.heads import HEADS

Tensor = Any  # a symbolic keras tensor
SCALARS_INPUT = "scalars"
MOMENTS_INPUT = "moments"
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


@keras.saving.register_keras_serializable(package="pfcalib")
class LayerShares(layers.Layer):
    """Moments with the energies of the layers, which are the last columns, over clusterE, which is
    the first: as in `pfcalib.features.scalars.moment_table`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        rest, energies = inputs[:, :-N_SHARES], inputs[:, -N_SHARES:]
        shares = energies / keras.ops.maximum(inputs[:, :1], 1e-6)
        return keras.ops.concatenate([rest, keras.ops.clip(shares, -1.0, 2.0)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class QuantileBins(layers.Layer):
    """How far each column has come through each of its quantile bins, from 0 to 1: the
    piecewise-linear encoding of arXiv:2203.05556, section 3.2.

    The edges are weights that are not trained: `adapt` takes them from clusters. So a model file,
    and an ONNX file, take moments in physical units and know how to scale them.
    """

    def __init__(self, n_bins: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_bins = n_bins

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1], self.n_bins)
        self.low = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="low")
        self.density = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="density"
        )

    def adapt(self, values: ArrayLike) -> None:
        """Take the edges from the quantiles of columns, shape (n_clusters, n_columns); a bin
        without width, of a value that many clusters share, is a step; it is no sharper than
        what rounding leaves of a value.
        """
        columns = np.asarray(values, dtype=np.float64)
        edges = np.quantile(columns, np.linspace(0.0, 1.0, self.n_bins + 1), axis=0).T
        low, high = edges[:, :-1], edges[:, 1:]
        size = np.ma.median(np.ma.masked_equal(np.abs(columns), 0.0), axis=0).filled(1.0)
        least = 1e-3 * (np.abs(low) + size[:, None])
        width = np.maximum(high - low, least)
        self.low.assign(low.astype(np.float32))
        self.density.assign((1.0 / width).astype(np.float32))

    def call(self, inputs: Tensor) -> Tensor:
        way = keras.ops.clip((inputs[:, :, None] - self.low) * self.density, 0.0, 1.0)
        return keras.ops.reshape(way, (-1, self.low.shape[0] * self.n_bins))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], (input_shape[-1] or 0) * self.n_bins)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_bins": self.n_bins}


@dataclass(frozen=True, kw_only=True)
class BodyConfig:
    """What every network may be told besides its widths."""

    dropout: float = 0.2
    pixel_power: float = 1.0  # 1 = published; see SignedPower
    with_scalars: bool = False  # log10(clusterE / GeV) and clusterEta join where the branches do
    with_moments: bool = False  # so do the moments of the cluster, in quantile bins; not published
    n_bins: int = 32  # of each moment
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


def build_inputs(shapes: Mapping[str, tuple[int, ...]], config: BodyConfig) -> dict[str, Tensor]:
    """One named input per entry of shapes (without the batch axis), and scalars and moments if
    wanted.
    """
    scalars = {SCALARS_INPUT: (N_SCALARS,)} if config.with_scalars else {}
    moments = INPUT_SHAPES[MOMENTS_INPUT] if config.with_moments else {}
    return {
        name: keras.Input(shape, name=name, dtype="float32")
        for name, shape in {**shapes, **scalars, **moments}.items()
    }


def compress(pixels: Tensor, *, power: float, name: str) -> Tensor:
    """Pixels to the signed power; a power of 1 leaves them, as published."""
    return pixels if power == 1.0 else SignedPower(power, name=f"{name}_power")(pixels)


def join(features: list[Tensor], inputs: Mapping[str, Tensor], config: BodyConfig) -> Tensor:
    """Features of all branches side by side, with scalars and moments if they are among the
    inputs.
    """
    parts = [*features, *([inputs[SCALARS_INPUT]] if SCALARS_INPUT in inputs else [])]
    if MOMENTS_INPUT in inputs:
        shares = LayerShares(name="layer_shares")(inputs[MOMENTS_INPUT])
        parts.append(QuantileBins(config.n_bins, name="moment_bins")(shares))
    return layers.Concatenate(name="join")(parts) if len(parts) > 1 else parts[0]


def adapt_bins(model: keras.Model, inputs: Mapping[str, NDArray[np.float32]]) -> None:
    """Give the quantile bins of a network, if it has any, the quantiles of clusters, on which it is
    to be trained.
    """
    for layer in model.layers:
        if isinstance(layer, QuantileBins):
            values = keras.Model(model.inputs, layer.input).predict(
                [inputs[tensor.name] for tensor in model.inputs], batch_size=1000, verbose=0
            )
            layer.adapt(values)


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
