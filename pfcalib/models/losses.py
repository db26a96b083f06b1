"""Losses by name, one for each purpose of a head; all are means over the clusters of a batch,
weighted where weights are given.

`mse` leads to the conditional mean of the target, `mae` to its median, `huber` from one to the
other; `pinball` to quantiles (Koenker and Bassett, Econometrica 46 (1978) 33), `mixture`
to a density (Bishop, NCRG/94/004).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from pfcalib.errors import ConfigError
from pfcalib.models.heads import LEVELS

Tensor = Any
HALF_LOG_2_PI = 0.5 * float(np.log(2.0 * np.pi))


def pinball(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Quantile loss max(q d, (q - 1) d), d = y - quantile, summed over the levels of
    `heads.LEVELS`; shape (n,).
    """
    difference = y_true[:, :1] - y_pred
    levels = np.asarray(LEVELS, dtype=np.float32)
    return ops.sum(ops.maximum(levels * difference, (levels - 1.0) * difference), axis=-1)


def mixture(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Negative logarithm of the density of the mixture at the target; shape (n,)."""
    log_weights, means, log_widths = ops.split(y_pred, 3, axis=-1)
    pull = (y_true[:, :1] - means) * ops.exp(-log_widths)
    return -ops.logsumexp(log_weights - log_widths - 0.5 * pull * pull - HALF_LOG_2_PI, axis=-1)


def class_and_energy(energy_weight: float, delta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of the class plus a weight times the Huber loss of the energy; both have rows
    [charged, neutral, y].
    """

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        entropy = keras.losses.categorical_crossentropy(y_true[:, :2], y_pred[:, :2])
        return entropy + energy_weight * _huber(y_true[:, 2] - y_pred[:, 2], delta)

    return loss


def huber(delta: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Huber's loss over delta: d^2 / (2 delta) near zero, |d| - delta / 2 beyond delta; shape
    (n,).
    """

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _huber(y_true[:, 0] - y_pred[:, 0], delta)

    return loss


def _huber(difference: Tensor, delta: float) -> Tensor:
    size = ops.abs(difference)
    return ops.where(size < delta, 0.5 * size * size / delta, size - 0.5 * delta)


def build_loss(name: str, *, delta: float, energy_weight: float) -> Any:
    """Loss of `heads.HEADS` by name.

    Parameters
    ----------
    name : str
    delta : float
        Where the Huber loss turns from square to linear, in units of the target.
    energy_weight : float
        Of the energy in the loss of class and energy.

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    losses: dict[str, Any] = {
        "crossentropy": keras.losses.CategoricalCrossentropy(),
        "mse": keras.losses.MeanSquaredError(),
        "mae": keras.losses.MeanAbsoluteError(),
        "huber": huber(delta),
        "pinball": pinball,
        "mixture": mixture,
        "class_and_energy": class_and_energy(energy_weight, delta),
    }
    if name not in losses:
        raise ConfigError(f"loss {name!r} is unknown: expected one of {', '.join(losses)}")
    return losses[name]
