"""The steps of networks that train against each other, which all adversarial generators share."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


class Rivals(keras.Model):
    """Layers that train against each other by one optimiser, the generator among them; the loss on
    validation data is how far the distributions of true and generated are apart, after Wasserstein.
    """

    n_rounds = 1  # steps of the others for one of the generator, each on a share of the batch

    @property
    def metrics(self) -> list[Any]:
        """The loss alone."""
        return [self._loss_tracker] if self.compiled else []

    def losses(self, inputs: Any, true: Any) -> list[tuple[Any, keras.Model]]:
        """A loss for each network, that of the generator last."""
        raise NotImplementedError

    def pictures(self, inputs: Any, true: Any) -> list[tuple[Any, Any]]:
        """Tables of true and of as many generated quantities, whose columns are compared."""
        raise NotImplementedError

    def train_step(self, data: Any) -> dict[str, Any]:
        for k in range(self.n_rounds):
            inputs, true = tf.nest.map_structure(lambda x, k=k: x[k :: self.n_rounds], data)
            with tf.GradientTape(persistent=True) as tape:
                losses = self.losses(inputs, true)
            pairs: list[Any] = []
            for loss, part in losses if k == self.n_rounds - 1 else losses[:-1]:
                variables = part.trainable_variables
                pairs += zip(tape.gradient(loss, variables), variables, strict=True)
            self.optimizer.apply_gradients(pairs)
        self._loss_tracker.update_state(losses[-1][0])
        return {"loss": self._loss_tracker.result()}

    def test_step(self, data: Any) -> dict[str, Any]:
        distance = sum(
            ops.mean(ops.abs(ops.sort(true, axis=0) - ops.sort(made, axis=0)))
            for true, made in self.pictures(*data)
        )
        self._loss_tracker.update_state(distance)
        return {"loss": self._loss_tracker.result()}
