"""A DenseNet of three inputs, layers of like granularity stacked as channels (arXiv:1608.06993;
widths chosen for a CPU).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.models.blocks import (
    Tensor,
    build_inputs,
    compress,
    dense_block,
    join,
    require_positive,
    require_share,
    transition,
)
from pfcalib.models.heads import finish, require_head

# kernel and stride of the first convolution
STEMS = {"emb1": ((8, 2), (4, 2)), "emb23": ((4, 4), (2, 2)), "tile": ((2, 2), (1, 1))}


@dataclass(frozen=True)
class DenseNetConfig:
    """Three dense stacks. The published report names the inputs and the dense blocks but no widths:
    these are ours.
    """

    growth: int = 16
    # convolutions of each dense block; a transition stands between two blocks
    block_layers: tuple[int, ...] = (2, 2)
    compression: float = 0.5
    head_width: int = 64
    dropout: float = 0.2
    pixel_power: float = 1.0
    with_scalars: bool = False  # log10(clusterE / GeV) and clusterEta join where the branches do
    head: str = "classes"  # of heads.HEADS
    n_components: int = 3  # Gaussians of the head "mixture"

    def __post_init__(self) -> None:
        require_positive(
            "DenseNetConfig",
            growth=self.growth,
            head_width=self.head_width,
            pixel_power=self.pixel_power,
        )
        require_positive(
            "DenseNetConfig", n_blocks=len(self.block_layers), compression=self.compression
        )
        require_positive(
            "DenseNetConfig", **{f"block_layers[{i}]": n for i, n in enumerate(self.block_layers)}
        )
        require_share("DenseNetConfig", dropout=self.dropout)
        require_head("DenseNetConfig", self.head, self.n_components)


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
    inputs = build_inputs(shapes, with_scalars=config.with_scalars)
    x = join([_branch(inputs[name], name, config) for name in shapes], inputs)
    x = layers.Dense(config.head_width, activation="relu", name="head")(x)
    features = layers.Dropout(config.dropout, name="head_dropout")(x)
    return finish(
        inputs, features, head=config.head, n_components=config.n_components, name="densenet"
    )
