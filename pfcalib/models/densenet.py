"""A DenseNet of three inputs, layers of like granularity stacked as channels (arXiv:1608.06993;
widths chosen for a CPU).
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
    dense_block,
    join,
    transition,
)
from pfcalib.models.heads import finish

# kernel and stride of the first convolution
STEMS = {"emb1": ((8, 2), (4, 2)), "emb23": ((4, 4), (2, 2)), "tile": ((2, 2), (1, 1))}


@dataclass(frozen=True, kw_only=True)
class DenseNetConfig(BodyConfig):
    """Three dense stacks. The published report names the inputs and the dense blocks but no widths:
    these are ours.
    """

    growth: int = 16
    # convolutions of each dense block; a transition stands between two blocks
    block_layers: tuple[int, ...] = (2, 2)
    compression: float = 0.5
    head_width: int = 64


def _branch(image: Tensor, name: str, config: DenseNetConfig) -> Tensor:
    """Stem, dense blocks with transitions, and a last transition whose maps are flattened: where
    the energy lies matters.
    """
    kernel, strides = STEMS[name]
    x = compress(image, power=config.pixel_power, name=name)
    x = layers.Conv2D(
        2 * config.growth,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        name=f"{name}_stem",
    )(x)
    for i, n_layers in enumerate(config.block_layers):
        x = dense_block(x, n_layers=n_layers, growth=config.growth, name=f"{name}_block{i}")
        x = transition(x, compression=config.compression, name=f"{name}_transition{i}")
    return layers.Flatten(name=f"{name}_flat")(x)


def build_densenet(config: DenseNetConfig | None = None) -> keras.Model:
    """Untrained DenseNet.

    Returns
    -------
    keras.Model
        Inputs "emb1" (n, 128, 4, 1), "emb23" (n, 16, 16, 2), "tile" (n, 4, 4, 3) float32; output
        "p" (n, 2), softmax over [charged, neutral], or that of another head.
    """
    config = config or DenseNetConfig()
    shapes = INPUT_SHAPES["stacks"]
    inputs = build_inputs(shapes, config)
    x = join([_branch(inputs[name], name, config) for name in shapes], inputs, config)
    x = layers.Dense(config.head_width, activation="relu", name="head")(x)
    features = layers.Dropout(config.dropout, name="head_dropout")(x)
    return finish(
        inputs, features, head=config.head, n_components=config.n_components, name="densenet"
    )
