"""Integrated gradients: which pixels move the answer of a network away from that for an empty
image, pixel by pixel and exactly shared out.

The attribution of an input is its value times the mean gradient along the straight line from an
empty image to the cluster; the attributions of a cluster sum to the difference of the two answers,
which is called completeness (Sundararajan, Taly and Yan, arXiv:1703.01365, equation 1 and
proposition 1). Scalars keep their values on the whole line, so that all is attributed to pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError, ValidationError

FloatArray = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.float32]]


class Attribution(NamedTuple):
    """Attributions of clusters, in the shape of the inputs."""

    inputs: dict[str, NDArray[np.float32]]  # each (n_clusters, ...)
    answer: FloatArray  # (n_clusters,) output of the network
    baseline: FloatArray  # (n_clusters,) output for the empty image

    @property
    def gap(self) -> FloatArray:
        """Sum of the attributions minus (answer - baseline) of each cluster: zero if the line was
        followed finely enough.
        """
        sums = [a.reshape(len(a), -1).sum(axis=1, dtype=np.float64) for a in self.inputs.values()]
        return np.asarray(sum(sums) - (self.answer - self.baseline))

    @property
    def incompleteness(self) -> float:
        """Root mean square of the gap over that of answer - baseline."""
        moved = np.sqrt(np.mean((self.answer - self.baseline) ** 2))
        if not moved > 0.0:
            return float(np.abs(self.gap).max(initial=0.0))
        return float(np.sqrt(np.mean(self.gap**2)) / moved)


def integrated_gradients(
    model: keras.Model, inputs: Arrays, *, n_steps: int = 64, batch: int = 250
) -> Attribution:
    """Attributions of the first output of a network.

    The mean gradient along the line, at a times the image, is a Gauss-Legendre sum in t with
    a = t^2. Points so lie denser near the empty image, where a network that takes powers of pixels
    (`models.blocks.SignedPower`) is steepest; the square root becomes a straight line.

    Parameters
    ----------
    model : keras.Model
        With named inputs and one output (n_clusters, n_outputs).
    inputs : mapping of str to array of float32, shape (n_clusters, ...)
    n_steps : int
        Points on the line. A linear network needs one, one with many kinks some tens: look at
        `Attribution.incompleteness`.
    batch : int
        Clusters at once, which bounds the memory.

    Raises
    ------
    ConfigError
        If n_steps or batch is below 1.
    ValidationError
        If there are no clusters.
    """
    n = len(next(iter(inputs.values())))
    if n_steps < 1 or batch < 1:
        raise ConfigError(f"n_steps = {n_steps}, batch = {batch}: expected above 0")
    if not n:
        raise ValidationError("inputs of no clusters: expected some")
    start = {
        name: array if name == "scalars" else np.zeros_like(array) for name, array in inputs.items()
    }
    gradient = _gradient(model, inputs)
    parts = []
    for i in range(0, n, batch):
        ends = [{k: a[i : i + batch] for k, a in side.items()} for side in (inputs, start)]
        parts.append(_along_line(gradient, *ends, n_steps))
    attributed = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
    answers = (predict(model, side)[:, 0].astype(np.float64) for side in (inputs, start))
    return Attribution(attributed, *answers)


def _gradient(model: keras.Model, inputs: Arrays) -> Any:
    """Compiled gradient of the output with respect to all inputs, for any number of clusters."""
    signature = {
        name: tf.TensorSpec((None, *array.shape[1:]), tf.float32) for name, array in inputs.items()
    }

    @tf.function(input_signature=[signature])
    def gradient(point: dict[str, Any]) -> dict[str, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            answer = tf.reduce_sum(model(point, training=False)[:, 0])
        return dict(
            tape.gradient(answer, point, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        )

    return gradient


def _along_line(
    gradient: Any, end: Arrays, start: Arrays, n_steps: int
) -> dict[str, NDArray[np.float32]]:
    """Attributions of a batch; a pixel that does not differ from the start has none, even where
    its gradient is infinite.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    t = 0.5 * (nodes + 1.0)
    way = {name: end[name] - start[name] for name in end}
    mean = {name: np.zeros(end[name].shape) for name in end}
    for place, weight in zip(t**2, t * weights, strict=True):
        slopes = gradient(
            {name: tf.constant(start[name] + np.float32(place) * way[name]) for name in end}
        )
        for name, slope in slopes.items():
            mean[name] += weight * slope.numpy()
    parts = {
        name: np.multiply(
            mean[name], way[name], out=np.zeros_like(mean[name]), where=way[name] != 0.0
        )
        for name in end
    }
    return {name: part.astype(np.float32) for name, part in parts.items()}
