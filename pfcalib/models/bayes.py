"""Layers of networks that know how well they know: weights with a distribution, and several
networks side by side in one (arXiv:2412.04370, sections 4 and 5).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

Tensor = Any  # a symbolic keras tensor
START_LOG_SIGMA = -5.0  # of the weights: nearly sharp, so that a training finds its way first
N_MEMBERS = 5  # networks side by side, where nothing else is said
PRIOR_SIGMA = 1.0  # of every weight, around zero


@keras.saving.register_keras_serializable(package="pfcalib")
class BayesianDense(layers.Dense):
    """Dense layer whose kernel has independent Gaussian weights; their means and widths are
    trained.

    In training every cluster gets weights of its own: its activation is drawn from the Gaussian
    that these make of it (arXiv:1506.02557), and the Kullback-Leibler divergence of the weights
    from their prior, times `kl_weight`, is added to the loss. Otherwise the means are the weights,
    so that an exported file computes what a dense layer does.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.log_sigma = self.add_weight(
            shape=self.kernel.shape,
            initializer=keras.initializers.Constant(START_LOG_SIGMA),
            name="log_sigma",
        )
        self.kl_weight = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="kl_weight"
        )
        self.seed_generator = keras.random.SeedGenerator()

    def save_own_variables(self, store: Any) -> None:
        layers.Layer.save_own_variables(self, store)  # a dense layer knows of kernel and bias only

    def load_own_variables(self, store: Any) -> None:
        layers.Layer.load_own_variables(self, store)

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence of all weights from the prior, in nats."""
        variance = ops.exp(2.0 * self.log_sigma) / PRIOR_SIGMA**2
        square = ops.square(self.kernel) / PRIOR_SIGMA**2
        return 0.5 * ops.sum(variance + square - 1.0 - ops.log(variance))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return super().call(inputs)
        self.add_loss(self.kl_weight * self.divergence())
        mean = ops.add(ops.matmul(inputs, self.kernel), self.bias)
        variance = ops.matmul(ops.square(inputs), ops.exp(2.0 * self.log_sigma))
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return self.activation(mean + noise * ops.sqrt(variance + 1e-12))


def member_dense(
    units: int, n_members: int, *, activation: str | None = None, name: str
) -> layers.EinsumDense:
    """Dense layer of each of several networks, (n, n_members, n_in) to (n, n_members, units)."""
    return layers.EinsumDense(
        "nmi,mio->nmo",
        (n_members, units),
        bias_axes="mo",
        activation=activation,
        # Keras counts the axis of the members as inputs
        kernel_initializer=keras.initializers.VarianceScaling(
            float(n_members), "fan_avg", "uniform"
        ),
        name=name,
    )
