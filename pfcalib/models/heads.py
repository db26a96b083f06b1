"""What a network ends in: two classes, an energy, its quantiles, a mixture of Gaussians, one of
each of several networks side by side, or class and energy from one body.

Every head is one output tensor, so that one ONNX file holds the network. A head that speaks of an
energy speaks of the target that the stream gives, as a rule ln(E_dep / E_EM); see
`pfcalib.features.targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pfcalib.models.bayes import N_MEMBERS, member_dense

Tensor = Any  # a symbolic keras tensor
CLASSES = ("charged", "neutral")  # columns of the output "p", so that p_em = output[:, 1]
LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)  # probabilities of the quantiles
MIN_LOG_WIDTH, MAX_LOG_WIDTH = -5.0, 1.5  # of the Gaussians of a mixture: 0.7 % to 450 %
HEADS = {  # name: (name of the output, losses that fit it)
    "classes": ("p", ("crossentropy",)),
    "energy": ("y", ("mse", "huber", "mae")),
    "quantiles": ("quantiles", ("pinball",)),
    "mixture": ("mixture", ("mixture",)),
    "members": ("members", ("members",)),
    "class_and_energy": ("p_and_y", ("class_and_energy",)),
}
MEANINGS = {
    "p": "probability of [charged, neutral]",
    "y": "the target, see normalisation",
    "quantiles": f"quantiles of the target at {', '.join(map(str, LEVELS))}",
    "mixture": "[log weights, means, log widths] of Gaussians in the target",
    "members": "[log weights, means, log widths] of Gaussians in the target, of each network",
    "p_and_y": "probability of [charged, neutral], then the target",
}


def finish(
    inputs: Mapping[str, Tensor], features: Tensor, *, head: str, n_components: int, name: str
) -> keras.Model:
    """Functional model that ends in a head; its output is named as in HEADS."""
    return keras.Model(
        dict(inputs), _BUILDERS[head](features, n_components, HEADS[head][0]), name=name
    )


def _classes(features: Tensor, n_components: int, name: str) -> Tensor:
    return layers.Dense(len(CLASSES), activation="softmax", name=name)(features)


def _energy(features: Tensor, n_components: int, name: str) -> Tensor:
    return layers.Dense(1, name=name)(features)


def _quantiles(features: Tensor, n_components: int, name: str) -> Tensor:
    """The lowest quantile and positive steps to the next ones, so that they never cross."""
    lowest = layers.Dense(1, name="lowest")(features)
    steps = layers.Dense(
        len(LEVELS) - 1,
        activation="softplus",
        bias_initializer=keras.initializers.Constant(-1.5),
        name="steps",
    )(features)
    return RunningSum(name=name)(layers.Concatenate(name="lowest_and_steps")([lowest, steps]))


def _mixture(features: Tensor, n_components: int, name: str) -> Tensor:
    """Logarithms of the weights, means that start apart, and logarithms of the widths, bounded."""
    logits = layers.Activation("log_softmax", name="log_weights")(
        layers.Dense(n_components, name="logits")(features)
    )
    start = keras.initializers.Constant(_first_means(n_components))
    means = layers.Dense(n_components, bias_initializer=start, name="means")(features)
    raw = layers.Dense(n_components, activation="sigmoid", name="widths")(features)
    widths = layers.Rescaling(MAX_LOG_WIDTH - MIN_LOG_WIDTH, MIN_LOG_WIDTH, name="log_widths")(raw)
    return layers.Concatenate(name=name)([logits, means, widths])


def _first_means(n_components: int) -> NDArray[np.float64]:
    return np.linspace(-0.3, 0.3, n_components) if n_components > 1 else np.zeros(1)


def _members(features: Tensor, n_components: int, name: str) -> Tensor:
    """A mixture of each member, (n, n_members, 3 n_components); those of a network that does not
    hold several ones side by side share its body.
    """
    if len(features.shape) == 2:
        features = layers.RepeatVector(N_MEMBERS, name="for_each_member")(features)

    def part(what: str, activation: str | None = None) -> Tensor:
        dense = member_dense(n_components, features.shape[1], activation=activation, name=what)
        return dense(features)

    logits = layers.Activation("log_softmax", name="log_weights")(part("logits"))
    shifts = layers.Rescaling(1.0, _first_means(n_components), name="shifted")
    widths = layers.Rescaling(MAX_LOG_WIDTH - MIN_LOG_WIDTH, MIN_LOG_WIDTH, name="log_widths")
    return layers.Concatenate(name=name)(
        [logits, shifts(part("means")), widths(part("widths", "sigmoid"))]
    )


def _class_and_energy(features: Tensor, n_components: int, name: str) -> Tensor:
    return layers.Concatenate(name=name)(
        [_classes(features, n_components, "p"), _energy(features, n_components, "y")]
    )


_BUILDERS: dict[str, Callable[[Tensor, int, str], Tensor]] = {
    "classes": _classes,
    "energy": _energy,
    "quantiles": _quantiles,
    "mixture": _mixture,
    "members": _members,
    "class_and_energy": _class_and_energy,
}


@keras.saving.register_keras_serializable(package="pfcalib")
class RunningSum(layers.Layer):
    """Sums of the first 1, 2, ... columns, by a product with a triangle of ones, which ONNX has in
    every opset.
    """

    def call(self, inputs: Tensor) -> Tensor:
        n = inputs.shape[-1]
        return keras.ops.matmul(inputs, np.triu(np.ones((n, n), dtype=np.float32)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


def split_mixture(
    output: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weights, means and widths of a mixture from the output of its head, each (n_clusters,
    n_components).

    Outputs of several networks, (n_clusters, n_members, n_outputs), are one mixture of all their
    components; those of drawn weights likewise.
    """
    parts = np.split(np.asarray(output, dtype=np.float64), 3, axis=-1)
    log_weights, means, log_widths = (part.reshape(len(part), -1) for part in parts)
    weights = np.exp(log_weights)
    return weights / weights.sum(axis=1, keepdims=True), means, np.exp(log_widths)
