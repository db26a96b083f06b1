"""Networks in fixed-point numbers as programmable logic computes them: formats, layers of Keras
that are trained through the rounding, and the same networks in whole numbers, bit by bit.

A format is an ap_fixed of Vitis HLS: so many bits, of which some, with that of the sign, stand
before the point. Sums of products are not rounded; weights, and what a layer hands on, are. What
cannot be written ends at the last number (AP_SAT) or loses its first bits (AP_WRAP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ROUNDINGS = ("RND", "RND_CONV", "TRN")  # half up, half to even, down
OVERFLOWS = ("SAT", "WRAP")
_REGISTER = keras.saving.register_keras_serializable(package="pfcalib")


@dataclass(frozen=True)
class Fixed:
    """A format.

    Parameters
    ----------
    width, integer : int
        Bits in all, 2 to 40, and of these before the point, which may lie outside.
    signed : bool
    rounding, overflow : str
        Of ROUNDINGS and OVERFLOWS.

    Examples
    --------
    >>> Fixed(8, 2).values(Fixed(8, 2).integers([0.01, -3.0])).tolist()
    [0.015625, -2.0]
    """

    width: int
    integer: int
    signed: bool = True
    rounding: str = "RND"
    overflow: str = "SAT"

    def __post_init__(self) -> None:
        known = self.rounding in ROUNDINGS and self.overflow in OVERFLOWS
        if not known or not 2 <= self.width <= 40 or abs(self.integer) > 40:
            raise ConfigError(
                f"Fixed: expected 2 to 40 bits, a point within 40 of them, {'|'.join(ROUNDINGS)} "
                f"and {'|'.join(OVERFLOWS)}, not {self}"
            )

    @property
    def fraction(self) -> int:
        """Bits behind the point."""
        return self.width - self.integer

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest whole number."""
        half = 1 << (self.width - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def integers(self, values: ArrayLike) -> I64:
        """Whole numbers that stand for values."""
        scaled = np.ldexp(np.asarray(values, dtype=np.float64), self.fraction)
        below = np.floor(scaled)
        rest = scaled - below
        up = rest > 0.5
        if self.rounding == "RND":
            up |= rest == 0.5
        elif self.rounding == "RND_CONV":
            up |= (rest == 0.5) & (below % 2.0 == 1.0)
        return self._ended((below + (up if self.rounding != "TRN" else 0)).astype(np.int64))

    def rescaled(self, numbers: I64, fraction: int) -> I64:
        """Whole numbers with so many bits behind the point as those of this format, exactly."""
        shift = fraction - self.fraction
        if shift <= 0:
            return self._ended(numbers << -shift)
        below, half = numbers >> shift, np.int64(1) << (shift - 1)
        rest = numbers - (below << shift)
        if self.rounding == "RND":
            below = below + (rest >= half)
        elif self.rounding == "RND_CONV":
            below = below + ((rest > half) | ((rest == half) & (below % 2 == 1)))
        return self._ended(below)

    def values(self, integers: I64) -> F64:
        """What whole numbers stand for."""
        return np.ldexp(integers.astype(np.float64), -self.fraction)

    def _ended(self, numbers: I64) -> I64:
        low, high = self.limits
        if self.overflow == "SAT":
            return np.clip(numbers, low, high)
        return (numbers - low) % (high - low + 1) + low


def fitted(values: ArrayLike, width: int, *, signed: bool = True) -> Fixed:
    """The format of a width with the most bits behind the point that still holds all values.

    >>> fitted([0.3, -0.2], 8)
    Fixed(width=8, integer=0, signed=True, rounding='RND', overflow='SAT')
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    least = int(np.floor(np.log2(max(largest, 2.0**-20)))) + 1 + signed
    for integer in (least, least + 1):
        one = Fixed(width, integer, signed)
        if np.ldexp(float(one.limits[1]) + 0.5, -one.fraction) > largest:
            break
    return one


def round_through(x: Any, form: Fixed) -> Any:
    """Values of a format for a tensor; its gradient is that of the clipping alone."""
    if form.rounding != "RND" or form.overflow != "SAT":
        raise ConfigError(f"layers are trained with RND and SAT, not with {form}")
    low, high = form.limits
    scale = 2.0**form.fraction
    clipped = ops.clip(x, low / scale, high / scale)
    return clipped + ops.stop_gradient(ops.floor(clipped * scale + 0.5) / scale - clipped)


@_REGISTER
class Rounded(layers.Layer):
    """Values in a format; without a sign it is the ReLU too."""

    def __init__(self, form: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = Fixed(**form)

    def call(self, inputs: Any) -> Any:
        return round_through(inputs, self.form)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": asdict(self.form)}


class _FixedWeights:
    """Weights in formats, of a layer of Keras."""

    def __init__(
        self, *args: Any, form: Mapping[str, Any], bias_form: Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.form, self.bias_form = Fixed(**form), Fixed(**bias_form)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return {**config, "form": asdict(self.form), "bias_form": asdict(self.bias_form)}


@_REGISTER
class FixedDense(_FixedWeights, layers.Dense):
    """A dense layer whose weights are in formats."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = ops.matmul(inputs, round_through(self.kernel, self.form))
        return x if self.bias is None else x + round_through(self.bias, self.bias_form)


@_REGISTER
class FixedConv2D(_FixedWeights, layers.Conv2D):
    """A convolution without bias whose weights are in a format."""

    def call(self, inputs: Any) -> Any:
        return self.convolution_op(inputs, round_through(self.kernel, self.form))


@_REGISTER
class SumRows(layers.Layer):
    """Sum over the first axis of images."""

    def call(self, inputs: Any) -> Any:
        return ops.sum(inputs, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *input_shape[2:])


class WholeLayer(NamedTuple):
    """Weights of a layer, and what it hands on."""

    kernel: I64  # (n_inputs, n_outputs) of the last axis, or (size, size, 1, n_outputs)
    bias: I64  # (n_outputs,)
    form: Fixed
    bias_form: Fixed
    output: Fixed


FLATTEN, SUM_ROWS = "flatten", "sum of rows"


class WholeNetwork(NamedTuple):
    """Layers, FLATTEN and SUM_ROWS, one after the other in whole numbers; the first layer may be a
    convolution whose windows do not overlap.
    """

    steps: tuple[WholeLayer | str, ...]
    inputs: Fixed

    def integers(self, images: NDArray[Any]) -> I64:
        """Whole numbers of the last layer for images (n, n_rows, n_columns): (n, n_outputs)."""
        x, form = self.inputs.integers(images), self.inputs
        for step in self.steps:
            if isinstance(step, str):
                x = x.sum(axis=1) if step == SUM_ROWS else x.reshape(len(x), -1)
                continue
            kernel = step.kernel
            if kernel.ndim == 4:
                size = kernel.shape[0]
                n, rows, columns = x.shape
                windows = x.reshape(n, rows // size, size, columns // size, size)
                x = windows.transpose(0, 1, 3, 2, 4).reshape(*windows.shape[:2], -1, size * size)
                kernel = kernel.reshape(size * size, -1)
            fraction = form.fraction + step.form.fraction
            most = max(fraction, step.bias_form.fraction)
            total = (x @ kernel) << (most - fraction)
            total += step.bias << (most - step.bias_form.fraction)
            x, form = step.output.rescaled(total, most), step.output
        return x

    def values(self, images: NDArray[Any], *, batch: int = 20_000) -> F64:
        """What they stand for, (n, n_outputs)."""
        parts = [self.integers(images[i : i + batch]) for i in range(0, len(images), batch)]
        last = self.steps[-1]
        assert isinstance(last, WholeLayer)
        return last.output.values(np.concatenate(parts))


def whole_network(model: keras.Model, inputs: Fixed) -> WholeNetwork:
    """The network of a model of `FixedConv2D`, `FixedDense` and `Rounded`, each of the first two
    followed by one of the last; of other layers only `SumRows` and those that reshape.

    Raises
    ------
    ConfigError
        If the model computes anything else.
    """
    found: list[WholeLayer | str] = []
    for layer in model.layers:
        if isinstance(layer, FixedDense | FixedConv2D):
            kernel = layer.form.integers(layer.kernel.numpy())
            bias = np.zeros(kernel.shape[-1]) if layer.bias is None else layer.bias.numpy()
            form = layer.bias_form
            found.append(WholeLayer(kernel, form.integers(bias), layer.form, form, form))
        elif isinstance(layer, Rounded) and isinstance(found[-1], WholeLayer):
            found[-1] = found[-1]._replace(output=layer.form)
        elif isinstance(layer, layers.Flatten):
            found.append(FLATTEN)
        elif isinstance(layer, SumRows):
            found.append(SUM_ROWS)
        elif not isinstance(layer, layers.InputLayer | layers.Reshape | layers.Rescaling):
            raise ConfigError(f"{layer.name}: {type(layer).__name__} has no whole numbers")
    return WholeNetwork(tuple(found), inputs)
