"""Networks for windows of elements of an event, from tracks and clusters to particles: a
transformer with the distances of pairs (arXiv:1706.03762, arXiv:2202.03772), and a graph whose
messages are weighted by Gaussians in the distance.

Elements are scaled inside of the network; empty places are masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pfcalib.errors import ConfigError
from pfcalib.features.windows import (
    ELEMENT_COLUMNS,
    ENERGIES,
    ETA,
    FLAGS,
    LABELS,
    OUTPUTS,
    PHI,
    TARGETS,
)
from pfcalib.models.pointnets import CloudAttention

Tensor = Any  # a symbolic keras tensor
INPUT, OUTPUT = "elements", "particles"  # names of the tensors
ENERGY, LENGTH = 0.05, 0.1  # GeV and dR, scales of logarithms and of distances
FARTHEST = 3.0  # scales, beyond which a distance counts no more
RADII = (0.04, 0.1, 0.25)  # dR, of the Gaussians of the graph
ONE = float(np.log(np.e - 1.0))  # softplus of this is 1: where the energy of a track starts
# parts of the loss beside the class
ENERGY_WEIGHT, DIRECTION_WEIGHT, PILE_UP_WEIGHT = 1.0, 0.5, 0.5
STOCHASTIC, CONSTANT, NOISE = 0.3, 0.03, 0.2  # of the width by which errors of an energy count


@dataclass(frozen=True, kw_only=True)
class ElementsConfig:
    """A network on elements.

    Parameters
    ----------
    kind : str
        Of BODIES.
    n_elements : int
        Places of a window.
    width, n_blocks : int
    n_heads : int
        Of the attention of the transformer.
    pair_bias : bool
        Whether the transformer knows distances of pairs.
    """

    kind: str = "transformer"
    n_elements: int = 128
    width: int = 48
    n_blocks: int = 2
    n_heads: int = 4
    pair_bias: bool = True

    def __post_init__(self) -> None:
        if self.kind not in BODIES:
            raise ConfigError(
                f"ElementsConfig: kind = {self.kind!r}, expected one of {', '.join(BODIES)}"
            )
        for name in ("n_elements", "width", "n_blocks", "n_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ElementsConfig: {name} = {getattr(self, name)}, expected > 0")
        if self.width % self.n_heads:
            raise ConfigError(
                f"ElementsConfig: width = {self.width} is no multiple of n_heads = {self.n_heads}"
            )


@keras.saving.register_keras_serializable(package="pfcalib")
class ElementFeatures(layers.Layer):
    """Columns of elements as numbers of order one: flags, logarithms of energies, lengths."""

    def call(self, inputs: Tensor) -> Tensor:
        n_flags, n_logs = len(FLAGS), len(FLAGS) + len(ENERGIES)
        energies = inputs[..., n_flags:n_logs]
        logs = ops.sign(energies) * ops.log(1.0 + ops.abs(energies) / ENERGY) / 3.0
        lengths = ops.clip(inputs[..., n_logs:] / LENGTH, -10.0, 10.0) / 2.0
        return ops.concatenate([inputs[..., :n_flags], logs, lengths], axis=-1)


@keras.saving.register_keras_serializable(package="pfcalib")
class Present(layers.Layer):
    """1 where there is an element, (n, n_elements, 1)."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.sum(inputs[..., :2], axis=-1, keepdims=True)  # is_track, is_cluster

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 1)


@keras.saving.register_keras_serializable(package="pfcalib")
class DistanceBias(layers.Layer):
    """What the distance of two elements adds to their attention, (n, n_heads, n_elements,
    n_elements).
    """

    def __init__(self, n_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_heads = n_heads
        self.hidden = layers.Dense(8, activation="relu", name="hidden")
        self.out = layers.Dense(n_heads, name="out")

    def build(self, input_shape: Any) -> None:
        pairs = (input_shape[0], input_shape[1], input_shape[1])
        self.hidden.build((*pairs, 3))
        self.out.build((*pairs, 8))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        away = ops.abs(_away(inputs))
        square = ops.sum(away**2, axis=-1, keepdims=True)
        pairs = ops.concatenate([ops.minimum(away, FARTHEST), ops.log(square + 1e-2)], axis=-1)
        return ops.transpose(self.out(self.hidden(pairs)), (0, 3, 1, 2))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.n_heads, input_shape[1], input_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_heads": self.n_heads}


@keras.saving.register_keras_serializable(package="pfcalib")
class Nearness(layers.Layer):
    """Weight of each other element for each, a Gaussian in their distance for each of RADII, (n,
    n_radii, n_elements, n_elements).
    """

    def call(self, inputs: Tensor, present: Tensor) -> Tensor:
        square = ops.sum(_away(inputs) ** 2, axis=-1)[:, None]
        radii = np.array(RADII, dtype=np.float32)[None, :, None, None] / LENGTH
        other = 1.0 - ops.eye(inputs.shape[1])
        there = ops.transpose(present, (0, 2, 1))[:, None]
        return ops.exp(-0.5 * square / radii**2) * other * there

    def compute_output_shape(self, inputs_shape: Any, present_shape: Any) -> Any:
        return (inputs_shape[0], len(RADII), inputs_shape[1], inputs_shape[1])


@keras.saving.register_keras_serializable(package="pfcalib")
class WeightedMessages(layers.Layer):
    """Sums over the others of messages (n, n_elements, width) with the weights of `Nearness`, (n,
    n_elements, n_radii * width); divided by 4, a usual number of neighbours.
    """

    def call(self, messages: Tensor, weights: Tensor) -> Tensor:
        sums = [ops.matmul(weights[:, i], messages) for i in range(len(RADII))]
        return ops.concatenate(sums, axis=-1) / 4.0

    def compute_output_shape(self, messages_shape: Any, weights_shape: Any) -> Any:
        return (*messages_shape[:2], len(RADII) * messages_shape[2])


@keras.saving.register_keras_serializable(package="pfcalib")
class Particles(layers.Layer):
    """From the last numbers of each element to OUTPUTS; the energy starts at that of a track and at
    half of that of a cluster.
    """

    def call(self, raw: Tensor, inputs: Tensor) -> Tensor:
        n = len(LABELS)
        start = ONE * inputs[..., :1] - 0.43 * inputs[..., 1:2]
        return ops.concatenate(
            [
                ops.softmax(raw[..., :n], axis=-1),
                ops.softplus(raw[..., n : n + 1] + start),
                0.1 * LENGTH * raw[..., n + 1 : n + 3],
                ops.sigmoid(raw[..., n + 3 :]),
            ],
            axis=-1,
        )

    def compute_output_shape(self, raw_shape: Any, inputs_shape: Any) -> Any:
        return raw_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class ElementNetwork(keras.Model):
    """A functional model that brings the loss of its elements along, see `elements_loss`."""

    with_xla = False  # compiled by XLA: half a minute for a third more speed

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs | {"jit_compile": self.with_xla})

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:  # fmt: skip
        return elements_loss(y, y_pred)


def elements_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean over the elements, weighted, of the cross-entropy of the class, the Huber loss of the
    energy in units of a calorimeter's resolution, that of the direction of what is there in units
    of LENGTH / 10, and the cross-entropy of the share of pile-up.

    The energy counts with the root of that of the element, so that the few hard ones are not lost
    among the soft.

    Parameters
    ----------
    y_true : tensor, shape (n, n_elements, len(TARGETS))
        A weight of 0 leaves an element out.
    y_pred : tensor, shape (n, n_elements, len(OUTPUTS))
    """
    true = {name: y_true[..., i] for i, name in enumerate(TARGETS)}
    said = {name: y_pred[..., i] for i, name in enumerate(OUTPUTS) if name not in LABELS}
    label = ops.one_hot(ops.cast(true["label"], "int32"), len(LABELS))
    entropy = -ops.sum(label * ops.log(ops.maximum(y_pred[..., : len(LABELS)], 1e-7)), axis=-1)
    scale = true["scale"]
    width = ops.sqrt(STOCHASTIC**2 * scale + (CONSTANT * scale) ** 2 + NOISE**2)
    energy = ops.sqrt(scale) * _huber((true["energy"] - said["energy"]) * scale / width)
    there = ops.minimum(true["energy"] * scale, 1.0)
    direction = sum(
        _huber((true[name] - said[name]) / (0.1 * LENGTH)) for name in ("d_eta", "d_phi")
    )
    p = ops.clip(said["pile_up"], 1e-6, 1.0 - 1e-6)
    share = true["pile_up"] * ops.log(p) + (1.0 - true["pile_up"]) * ops.log(1.0 - p)
    loss = entropy + ENERGY_WEIGHT * energy + DIRECTION_WEIGHT * there * direction
    loss = loss - PILE_UP_WEIGHT * share
    return ops.sum(true["weight"] * loss) / (ops.sum(true["weight"]) + 1e-6)


def _huber(pull: Tensor, delta: float = 2.0) -> Tensor:
    size = ops.abs(pull)
    return ops.where(size < delta, 0.5 * size * size, delta * (size - 0.5 * delta))


def _away(inputs: Tensor) -> Tensor:
    """Distances of pairs in eta and phi, (n, n_elements, n_elements, 2), in units of LENGTH."""
    place = ops.stack([inputs[..., ETA], inputs[..., PHI]], axis=-1) / LENGTH
    return place[:, None, :, :] - place[:, :, None, :]


def _transformer(inputs: Tensor, x: Tensor, present: Tensor, config: ElementsConfig) -> Tensor:
    bias: tuple[Tensor, ...] = ()
    if config.pair_bias:
        bias = (DistanceBias(config.n_heads, name="distance_bias")(inputs),)
    for i in range(config.n_blocks):
        y = layers.LayerNormalization(name=f"norm{i}a")(x)
        y = CloudAttention(config.width, config.n_heads, name=f"attention{i}")(y, present, *bias)
        x = layers.Add(name=f"added{i}a")([x, y])
        y = layers.LayerNormalization(name=f"norm{i}b")(x)
        y = layers.Dense(2 * config.width, activation="relu", name=f"wide{i}")(y)
        y = layers.Dense(config.width, name=f"narrow{i}")(y)
        x = layers.Add(name=f"added{i}b")([x, y])
    return x


def _graph(inputs: Tensor, x: Tensor, present: Tensor, config: ElementsConfig) -> Tensor:
    weights = Nearness(name="nearness")(inputs, present)
    for i in range(config.n_blocks):
        y = layers.LayerNormalization(name=f"norm{i}")(x)
        message = layers.Dense(config.width, activation="relu", name=f"message{i}")(y)
        heard = WeightedMessages(name=f"heard{i}")(message, weights)
        y = layers.Concatenate(name=f"both{i}")([y, heard])
        y = layers.Dense(config.width, activation="relu", name=f"wide{i}")(y)
        y = layers.Dense(config.width, name=f"narrow{i}")(y)
        x = layers.Add(name=f"added{i}")([x, y])
    return x


Body = Callable[[Tensor, Tensor, Tensor, ElementsConfig], Tensor]
BODIES: dict[str, Body] = {"transformer": _transformer, "graph": _graph}


def build_elements(config: ElementsConfig | None = None, *, seed: int | None = None) -> Any:
    """Untrained network on windows of elements.

    Parameters
    ----------
    config : ElementsConfig, optional
    seed : int, optional
        Sets the random state of Keras and so the first weights.

    Returns
    -------
    ElementNetwork
        Input "elements" (n, n_elements, len(ELEMENT_COLUMNS)) as `features.windows.write_windows`
        makes it, output "particles" (n, n_elements, len(OUTPUTS)).
    """
    config = config or ElementsConfig()
    if seed is not None:
        keras.utils.set_random_seed(seed)
    shape = (config.n_elements, len(ELEMENT_COLUMNS))
    inputs = keras.Input(shape, name=INPUT, dtype="float32")
    features = ElementFeatures(name="features")(inputs)
    present = Present(name="present")(inputs)
    x = layers.Dense(config.width, name="embedded")(features)
    x = BODIES[config.kind](inputs, x, present, config)
    x = layers.Concatenate(name="all")([layers.LayerNormalization(name="norm")(x), features])
    x = layers.Dense(2 * config.width, activation="relu", name="last")(x)
    raw = layers.Dense(len(OUTPUTS), name="raw")(x)
    output = Particles(name=OUTPUT)(raw, inputs)
    return ElementNetwork({INPUT: inputs}, output, name=f"elements_{config.kind}")
