"""Integrated gradients: which pixels move the answer of a network away from that for an empty
image, pixel by pixel and exactly shared out.

The attribution of an input is its value times the mean gradient along the straight line from the
baseline; the attributions of a cluster sum to the difference of the two answers, which is called
completeness (Sundararajan, Taly and Yan, arXiv:1703.01365, equation 1 and proposition 1).
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
from pfcalib.metrics.curve import Estimate
from studies.regions import SCALARS_INPUT, sum_on_pixels

FloatArray = NDArray[np.float64]
Inputs = Mapping[str, NDArray[np.float32]]


class Attribution(NamedTuple):
    """Attributions of clusters, in the shape of the inputs."""

    inputs: dict[str, NDArray[np.float32]]  # each (n_clusters, ...)
    answer: FloatArray  # (n_clusters,) output of the network
    baseline: FloatArray  # (n_clusters,) output for the baseline

    @property
    def gap(self) -> FloatArray:
        """Sum of the attributions minus (answer - baseline) of each cluster: zero if the line was
        followed finely enough.
        """
        total = sum(
            array.reshape(len(array), -1).sum(axis=1, dtype=np.float64)
            for array in self.inputs.values()
        )
        return np.asarray(total - (self.answer - self.baseline))

    @property
    def incompleteness(self) -> float:
        """Root mean square of the gap over that of answer - baseline."""
        moved = np.sqrt(np.mean((self.answer - self.baseline) ** 2))
        return (
            float(np.sqrt(np.mean(self.gap**2)) / moved)
            if moved > 0.0
            else float(np.abs(self.gap).max(initial=0.0))
        )


class AttributionImages(NamedTuple):
    """Means over clusters, by layer."""

    size: dict[str, FloatArray]  # (n_eta, n_phi) mean |attribution| of each pixel
    signed: dict[str, FloatArray]  # (n_eta, n_phi) mean attribution
    total: dict[str, Estimate]  # mean over clusters of the sum of |attribution| over the pixels
    net: dict[str, Estimate]  # the same with signs


def integrated_gradients(
    model: keras.Model,
    inputs: Inputs,
    *,
    baseline: Inputs | None = None,
    output: int = 0,
    n_steps: int = 64,
    batch: int = 250,
) -> Attribution:
    """Attributions of one output of a network.

    The mean gradient along the line, at baseline + a (input - baseline), is a Gauss-Legendre sum in
    t with a = t^2. Points so lie denser near the baseline, where a network that takes powers of
    pixels (`models.blocks.SignedPower`) is steepest; the square root becomes a straight line.

    Parameters
    ----------
    model : keras.Model
        With named inputs and one output (n_clusters, n_outputs).
    inputs : mapping of str to array of float32, shape (n_clusters, ...)
    baseline : mapping of str to array of float32, broadcasting to the inputs, optional
        Inputs that it lacks have an empty image, and the scalars their own values, so that all is
        attributed to pixels.
    output : int
        Column of the output that is explained.
    n_steps : int
        Points on the line. A linear network needs one, one with many kinks some tens: look at
        `Attribution.incompleteness`.
    batch : int
        Clusters at once, which bounds the memory.

    Raises
    ------
    ConfigError
        If n_steps or batch is below 1, or the baseline names an input that is not there.
    ValidationError
        If the inputs are empty or of different lengths.
    """
    given = dict(baseline or {})
    lengths = {len(array) for array in inputs.values()}
    if n_steps < 1 or batch < 1 or not set(given) <= set(inputs):
        raise ConfigError(
            f"n_steps = {n_steps}, batch = {batch}: expected above 0; baseline of {sorted(given)}: "
            f"expected among {sorted(inputs)}"
        )
    if len(lengths) != 1 or not max(lengths):
        raise ValidationError(f"inputs of {sorted(lengths)} clusters: expected one number above 0")
    start = {
        name: np.broadcast_to(
            _default(name, array) if name not in given else given[name], array.shape
        )
        for name, array in inputs.items()
    }
    gradient = _gradient(model, inputs, output)
    pieces = [slice(i, i + batch) for i in range(0, max(lengths), batch)]
    parts = [
        _along_line(gradient, _take(inputs, piece), _take(start, piece), n_steps)
        for piece in pieces
    ]
    attributed = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
    answers = (predict(model, side)[:, output].astype(np.float64) for side in (inputs, start))
    return Attribution(attributed, *answers)


def _default(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array if name == SCALARS_INPUT else np.zeros(array.shape[1:], dtype=np.float32)


def _take(inputs: Inputs, piece: slice) -> Inputs:
    return {name: array[piece] for name, array in inputs.items()}


def _gradient(model: keras.Model, inputs: Inputs, output: int) -> Any:
    """Compiled gradient of one output with respect to all inputs, for any number of clusters."""
    signature = {
        name: tf.TensorSpec((None, *array.shape[1:]), tf.float32) for name, array in inputs.items()
    }

    @tf.function(input_signature=[signature])
    def gradient(point: dict[str, Any]) -> dict[str, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            answer = tf.reduce_sum(model(point, training=False)[:, output])
        return dict(
            tape.gradient(answer, point, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        )

    return gradient


def _along_line(
    gradient: Any, end: Inputs, start: Inputs, n_steps: int
) -> dict[str, NDArray[np.float32]]:
    """Attributions of a batch; a pixel that does not differ from the baseline has none, even where
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


def attribution_images(
    attribution: Attribution, kind: str, *, chosen: NDArray[np.bool_] | None = None
) -> AttributionImages:
    """Mean attribution of each pixel of each layer; the first dictionary is what
    `plots_calibration_networks.plot_attribution` draws.

    Parameters
    ----------
    attribution : Attribution
    kind : str
        Kind of the inputs, see `features.inputs`. The pixels of the stacks that a coarse pixel was
        repeated to are summed.
    chosen : array of bool, shape (n_clusters,), optional
        Such as the clusters of a species; all by default.

    Raises
    ------
    ValidationError
        If no cluster is chosen.
    """
    inputs = (
        attribution.inputs
        if chosen is None
        else {name: array[chosen] for name, array in attribution.inputs.items()}
    )
    layers = sum_on_pixels(inputs, kind)
    if not all(map(len, layers.values())):
        raise ValidationError("no cluster is chosen: there is no mean attribution")
    size = {name: np.abs(image) for name, image in layers.items()}
    return AttributionImages(
        {name: image.mean(axis=0) for name, image in size.items()},
        {name: image.mean(axis=0) for name, image in layers.items()},
        {name: _mean(image.sum(axis=(1, 2))) for name, image in size.items()},
        {name: _mean(image.sum(axis=(1, 2))) for name, image in layers.items()},
    )


def _mean(values: FloatArray) -> Estimate:
    """Mean and its standard error, NaN for a single cluster."""
    error = (
        float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    )
    return Estimate(float(values.mean()), error)
