"""Losses by name, one for each purpose of a head; all are means over the clusters of a batch,
weighted where weights are given.

`mse` leads to the conditional mean of the target, `mae` to its median, `huber` from one to the
other; `pinball` to quantiles (Koenker and Bassett, Econometrica 46 (1978) 33), `mixture`
to a density (Bishop, NCRG/94/004), `members` to one for each of several networks that repel each
other (arXiv:2106.11642).
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
    return -_log_density(y_true[:, :1], y_pred)


def _log_density(y: Tensor, mixtures: Tensor) -> Tensor:
    """Logarithm of the density of mixtures (..., 3 n_components) at y."""
    log_weights, means, log_widths = ops.split(mixtures, 3, axis=-1)
    pull = (y - means) * ops.exp(-log_widths)
    return ops.logsumexp(log_weights - log_widths - 0.5 * pull * pull - HALF_LOG_2_PI, axis=-1)


def members(repulsion: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean over the members of the negative logarithm of the density of each, and `repulsion` times
    what pushes their predictions on a batch apart; shape (n,).

    With f_i the means of member i on the clusters of a batch, that is

        mean_i [sum_j k(f_i, f_j) / sum_j k(f_i, f_j)'],   k = exp(-|f_i - f_j|^2 / 2h)

    where what has a dash and all f_j are taken as numbers, and h is the median of the squared
    distances over 2 ln(1 + members). With the reciprocal of the number of training clusters as
    repulsion the members come to lie as draws of the posterior do (arXiv:2106.11642, equation 11).
    """

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        log_weights, means, _ = ops.split(y_pred, 3, axis=-1)
        f = ops.transpose(ops.sum(ops.exp(log_weights) * means, axis=-1))  # (n_members, n)
        square = ops.mean((f[:, None] - ops.stop_gradient(f)[None]) ** 2, axis=-1)
        n_members = y_pred.shape[1]
        apart = ops.stop_gradient(square) + 1e-12
        width = ops.median(apart[~np.eye(n_members, dtype=bool)]) / (2.0 * np.log(1.0 + n_members))
        kernel = ops.exp(-square / (2.0 * width))
        push = ops.mean(ops.sum(kernel, axis=1) / ops.stop_gradient(ops.sum(kernel, axis=1)))
        return repulsion * push - ops.mean(_log_density(y_true[:, :1, None], y_pred), axis=-1)

    return loss


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


def build_loss(name: str, *, delta: float, energy_weight: float, repulsion: float = 0.0) -> Any:
    """Loss of `heads.HEADS` by name.

    Parameters
    ----------
    name : str
    delta : float
        Where the Huber loss turns from square to linear, in units of the target.
    energy_weight : float
        Of the energy in the loss of class and energy.
    repulsion : float
        Of the members in the loss of several networks.

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
        "members": members(repulsion),
        "class_and_energy": class_and_energy(energy_weight, delta),
    }
    if name not in losses:
        raise ConfigError(f"loss {name!r} is unknown: expected one of {', '.join(losses)}")
    return losses[name]
