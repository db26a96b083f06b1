"""Networks whose slope is bounded by their weights, and which so can be made to rise in some of
their inputs.

Rows of weights are scaled down to a norm, the first layer's to their largest entry and the others'
to the sum of theirs, so that |g(x) - g(y)| <= limit |x - y|_1; the activations are sorted pairs,
which keep the size of gradients. With `limit` times the sum of some inputs added, the output never
falls in these (Kitouni, Nolte and Williams, arXiv:2112.00038; sorting: arXiv:1811.05381).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.errors import ConfigError

Tensor = Any
F64 = NDArray[np.float64]
# by which norms stay below their limit, so that rounding to float32 does not lift them above
MARGIN = 1e-5
SCALED, SCORE = "scaled", "score"


@keras.saving.register_keras_serializable(package="pfcalib")
class LipschitzDense(layers.Layer):
    """Fully connected layer W x + b, each row of W divided by max(1, its norm / limit).

    Parameters
    ----------
    units : int
    limit : float
        Largest norm of a row.
    first : bool
        The norm is that of changes of |x|_1, the largest entry; else that of changes of the largest
        |x_i|, the sum of the entries.
    """

    def __init__(self, units: int, *, limit: float, first: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (units > 0 and limit > 0.0):
            raise ConfigError(f"LipschitzDense: units = {units}, limit = {limit}: expected above 0")
        self.units, self.limit, self.first = units, limit, first

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    @property
    def used(self) -> Tensor:
        """Weights as they are applied, (n_inputs, units)."""
        norm = (ops.max if self.first else ops.sum)(ops.abs(self.kernel), axis=0)
        limit = self.limit * (1.0 - MARGIN)
        return self.kernel / ops.maximum(norm / limit, 1.0)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.matmul(inputs, self.used) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "limit": self.limit, "first": self.first}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="pfcalib")
class SortedPairs(layers.Layer):
    """Each number of the first half of the inputs and its partner in the second half, the smaller
    ones first; no output changes by more than the largest change of an input.
    """

    def call(self, inputs: Tensor) -> Tensor:
        half = inputs.shape[-1] // 2
        a, b = inputs[:, :half], inputs[:, half:]
        return ops.concatenate([ops.minimum(a, b), ops.maximum(a, b)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class LinearTerm(layers.Layer):
    """The sum of the inputs with fixed slopes, (n, 1)."""

    def __init__(self, slopes: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slopes = [float(slope) for slope in slopes]

    def call(self, inputs: Tensor) -> Tensor:
        return ops.matmul(inputs, np.array(self.slopes, np.float32)[:, None])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slopes": self.slopes}


def build_lipschitz(
    mean: Sequence[float], scale: Sequence[float], *, widths: Sequence[int], limit: float | None,
    rising: Sequence[int] = (), name: str = "lipschitz", input_name: str = "inputs",
) -> keras.Model:  # fmt: skip
    """Untrained network f of inputs x' = (x - mean) / scale.

    Parameters
    ----------
    mean, scale : sequence of float
        Of each input.
    widths : sequence of int
        Of the hidden layers; even.
    limit : float, optional
        Of the slope of g, in changes of f over |x' - y'|_1; without it the layers are free.
    rising : sequence of int
        Inputs in which f = g + limit sum x'_i never falls; needs a limit. Its slopes there are
        between 0 and 2 limit.
    name, input_name : str

    Returns
    -------
    keras.Model
        Input (n, n_inputs) float32, output "score" (n, 1); "scaled" is the layer of x'.

    Raises
    ------
    ConfigError
        If a width is odd, or inputs are to rise without a limit.
    """
    if any(width < 2 or width % 2 for width in widths):
        raise ConfigError(f"build_lipschitz: widths = {list(widths)}, expected even ones above 0")
    if limit is None and rising:
        raise ConfigError("build_lipschitz: rising inputs need a limit")
    variance = np.square(np.asarray(scale, np.float64))
    inputs = keras.Input((len(mean),), name=input_name, dtype="float32")
    scaled = layers.Normalization(mean=np.asarray(mean), variance=variance, name=SCALED)(inputs)
    x = scaled
    for i, width in enumerate((*widths, 1)):
        if limit is None:
            x = layers.Dense(width, name=f"dense{i}")(x)
        else:
            each = limit ** (1.0 / (len(widths) + 1))
            x = LipschitzDense(width, limit=each, first=i == 0, name=f"dense{i}")(x)
        if i < len(widths):
            x = SortedPairs(name=f"sorted{i}")(x)
    if rising and limit is not None:
        slopes = [limit if i in rising else 0.0 for i in range(len(mean))]
        x = layers.Add(name="risen")([x, LinearTerm(slopes, name="linear")(scaled)])
    return keras.Model({input_name: inputs}, layers.Identity(name=SCORE)(x), name=name)


class Piecewise(NamedTuple):
    """A network of `build_lipschitz` in double precision, with its weights as they are applied: the
    function of x' that is certified, without the rounding of its evaluation.
    """

    kernels: list[F64]  # (n_inputs, n_outputs) of each layer
    biases: list[F64]
    slopes: F64  # (n_inputs,) of the linear term

    @classmethod
    def of(cls, model: keras.Model) -> Piecewise:
        """From a trained network, or a larger one that it is a part of."""
        dense = [one for one in model.layers if one.name.startswith("dense")]
        kernels = [ops.convert_to_numpy(getattr(one, "used", one.kernel)) for one in dense]
        linear = [one.slopes for one in model.layers if isinstance(one, LinearTerm)]
        return cls(
            [kernel.astype(np.float64) for kernel in kernels],
            [ops.convert_to_numpy(one.bias).astype(np.float64) for one in dense],
            np.array(linear[0], np.float32).astype(np.float64)
            if linear
            else np.zeros(len(kernels[0])),
        )

    def value(self, x: F64) -> F64:
        """Output at points x' (n, n_inputs), (n,)."""
        return self._walk(x)[0]

    def slope(self, x: F64) -> F64:
        """Gradient there, (n, n_inputs)."""
        return self._walk(x)[1]

    def _walk(self, x: F64) -> tuple[F64, F64]:
        value, last = x, len(self.kernels) - 1
        chosen = []
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            value = value @ kernel + bias
            if i < last:
                half = value.shape[1] // 2
                swap = value[:, :half] > value[:, half:]
                chosen.append(swap)
                value = _swapped(value, swap)
        back = np.broadcast_to(self.kernels[-1].T, (len(x), len(self.kernels[-1])))
        for swap, kernel in zip(reversed(chosen), reversed(self.kernels[:-1]), strict=True):
            back = _swapped(back, swap) @ kernel.T
        return value[:, 0] + x @ self.slopes, back + self.slopes

    def bounds(self) -> tuple[F64, F64]:
        """Certificate: lowest and highest slope in each input, by the weights alone, (n_inputs,)
        each.
        """
        size = np.abs(self.kernels[0]).max(axis=1)
        for kernel in self.kernels[1:]:
            size = size * np.abs(kernel).sum(axis=0).max()
        return self.slopes - size, self.slopes + size


def _swapped(x: F64, swap: NDArray[np.bool_]) -> F64:
    half = x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([np.where(swap, b, a), np.where(swap, a, b)], axis=1)


def steepest_pairs(
    function: Piecewise, x: F64, y: F64, *, n_steps: int = 50, rate: float = 0.1, sign: float = 1.0
) -> tuple[F64, F64]:
    """Pairs that have gone uphill in sign (f(x) - f(y)) / |x - y|_1 step by step; of each pair the
    best one that was met.

    Parameters
    ----------
    function : Piecewise
    x, y : ndarray, shape (n, n_inputs)
        Where to begin, in units of x'.
    n_steps : int
    rate : float
        Length of a step in each input at first; it falls to a tenth.
    sign : float
        1 for steep rise, -1 for steep fall of f from y to x.
    """

    def ratio(x: F64, y: F64) -> F64:
        apart = np.abs(x - y).sum(axis=1)
        return sign * (function.value(x) - function.value(y)) / apart

    best_x, best_y, best = x.copy(), y.copy(), ratio(x, y)
    for step in range(n_steps):
        pull = ratio(x, y)[:, None] * np.sign(x - y)
        size = rate * 0.1 ** (step / n_steps)
        x, y = (
            z + size * up / (np.abs(up).max(axis=1, keepdims=True) + 1e-12)
            for z, up in (
                (x, sign * function.slope(x) - pull),
                (y, pull - sign * function.slope(y)),
            )
        )
        y = np.where(np.abs(x - y).sum(axis=1, keepdims=True) > 1e-6, y, y + 1e-3)
        now = ratio(x, y)
        better = now > best
        best[better], best_x[better], best_y[better] = now[better], x[better], y[better]
    return best_x, best_y
