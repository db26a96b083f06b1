"""Networks that calibrate jets: all variables at once, as the global neural network calibration
does (arXiv:2303.17312), with or without the constituents of the jet.

A network gives the logarithm of a factor of each of its answers, such as ln(true pT / pT). Its loss
is a mean absolute error, which leads to the median, or the leaky Gaussian kernel
(ATL-PHYS-PUB-2020-001), which leads to about the mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.jets.jetvariables import POINT
from pfcalib.models.blocks import QuantileBins, Tensor
from pfcalib.models.pointnets import CloudAttention, PooledCloud
from pfcalib.samples.split import SPLITS
from pfcalib.training.fit import Say, TrainConfig, TrainResult
from pfcalib.training.kept import fit_kept

VARIABLES_INPUT, POINTS_INPUT, OUTPUT = "variables", "constituents", "log_factors"
N_REFERENCE = 500  # jets that check an export
LEAK = 1e-3  # slope of the kernel's loss far away

FloatArray = NDArray[np.float64]
Inputs = Mapping[str, NDArray[np.float32]]


class JetData(NamedTuple):
    """Jets as a network takes them."""

    inputs: Inputs  # VARIABLES_INPUT (n, n_variables), and POINTS_INPUT (n, n_points, len(POINT))
    answers: NDArray[np.float32]  # (n, n_answers)
    split: NDArray[Any]  # (n,) place in samples.split.SPLITS

    def of(self, split: str) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Inputs and answers of one split."""
        rows = self.split == SPLITS.index(split)
        return {name: of[rows] for name, of in self.inputs.items()}, self.answers[rows]


@dataclass(frozen=True, kw_only=True)
class JetNetworkConfig:
    """A network and its training.

    Parameters
    ----------
    widths : tuple of int
        Of the dense layers, with swish, that see everything.
    n_bins : int
        Quantile bins of each variable.
    kernel : float
        Width of the Gaussian of the loss, in the logarithm; 0 stands for the absolute error.
    point_widths : tuple of int
        Of the dense layers that see one constituent, the last summed over all of them.
    n_blocks, n_heads : int
        Rounds in which constituents attend to each other before, and heads; the last of
        `point_widths` is a multiple of these. Without rounds they are deep sets.
    train : TrainConfig
        Its seed is that of the first weights too.
    """

    widths: tuple[int, ...] = (128, 128, 64)
    n_bins: int = 16
    kernel: float = 0.0
    point_widths: tuple[int, ...] = (64, 64)
    n_blocks: int = 0
    n_heads: int = 4
    train: TrainConfig = field(default_factory=lambda: TrainConfig(loss="mae"))


class JetNetwork(NamedTuple):
    """A trained network."""

    config: JetNetworkConfig
    model: Any  # keras.Model with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file

    def factors(self, inputs: Inputs) -> FloatArray:
        """Factors of all answers, (n, n_answers)."""
        return np.exp(predict(self.model, inputs).astype(np.float64))


@keras.saving.register_keras_serializable(package="pfcalib")
class KernelModel(keras.Model):
    """A functional model whose loss is the leaky Gaussian kernel if it has a width."""

    kernel = 0.0

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:  # fmt: skip
        """That loss, or the one that the model was compiled with."""
        if not self.kernel:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return ops.mean(leaky_kernel(y_pred - y, self.kernel))


def leaky_kernel(difference: Tensor, width: float) -> Tensor:
    """Leaky Gaussian kernel: 1 - exp(-d^2 / 2 width^2) + LEAK |d| / width.

    The first part alone has its lowest mean at the mode of a density that is smeared by the width;
    the second pulls in what lies beyond.
    """
    pull = difference / width
    return 1.0 - ops.exp(-0.5 * pull * pull) + LEAK * ops.abs(pull)


@keras.saving.register_keras_serializable(package="pfcalib")
class ConstituentFeatures(layers.Layer):
    """Constituents as numbers of order one, (n, n_points, 8)."""

    def call(self, inputs: Tensor) -> Tensor:
        pt, d_eta, d_phi, kind, em_share = (inputs[:, :, i : i + 1] for i in range(len(POINT)))
        distance = ops.sqrt(d_eta**2 + d_phi**2 + 1e-6)
        kinds = ops.cast(ops.equal(kind, np.arange(3, dtype=np.float32)), "float32")
        log_pt = ops.log(1.0 + ops.abs(pt)) / 2.0
        place = [5.0 * d_eta, 5.0 * d_phi, 5.0 * distance]
        return ops.concatenate([log_pt, *place, kinds, em_share], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], 8)


@keras.saving.register_keras_serializable(package="pfcalib")
class ConstituentWeights(layers.Layer):
    """Two weights a constituent, (n, n_points, 2): 1 where there is one, and its pT in GeV."""

    def call(self, inputs: Tensor) -> Tensor:
        pt = inputs[:, :, :1]
        return ops.concatenate([ops.cast(pt > 0.0, "float32"), pt], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], 2)


def build_jet_network(
    n_variables: int, n_answers: int, config: JetNetworkConfig, *, n_points: int = 0
) -> keras.Model:
    """Untrained network that at first changes nothing: input "variables" (n, n_variables) float32
    in physical units, and with n_points "constituents" (n, n_points, len(POINT)), zeros behind the
    last; output "log_factors" (n, n_answers).
    """
    keras.utils.set_random_seed(config.train.seed)
    inputs = {VARIABLES_INPUT: keras.Input((n_variables,), name=VARIABLES_INPUT)}
    x = QuantileBins(config.n_bins, name="bins")(inputs[VARIABLES_INPUT])
    if n_points:
        points = keras.Input((n_points, len(POINT)), name=POINTS_INPUT)
        inputs[POINTS_INPUT] = points
        weights = ConstituentWeights(name="weights")(points)
        y = ConstituentFeatures(name="features")(points)
        for i, width in enumerate(config.point_widths):
            y = layers.Dense(width, activation="swish", name=f"point{i}")(y)
        for i in range(config.n_blocks):
            z = layers.LayerNormalization(name=f"norm{i}")(y)
            z = CloudAttention(config.point_widths[-1], config.n_heads, name=f"attention{i}")(
                z, weights
            )
            y = layers.Add(name=f"added{i}")([y, z])
        pooled = PooledCloud(("sum", "energy"), name="pooled")(y, weights)
        x = layers.Concatenate(name="join")([x, pooled])
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="swish", name=f"dense{i}")(x)
    output = layers.Dense(n_answers, kernel_initializer="zeros", name=OUTPUT)(x)
    model = KernelModel(inputs, output, name="jet_network")
    model.kernel = config.kernel
    return model


def fit_jet_network(
    data: JetData,
    config: JetNetworkConfig,
    *,
    names: Sequence[str],
    answers: Sequence[str],
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> JetNetwork:
    """Train a network on the training split and export it, or find it; a training that was killed
    goes on.

    Parameters
    ----------
    data : JetData
    config : JetNetworkConfig
    names, answers : sequence of str
        Of the variables, with units, and of the answers, for the contract.
    inputs : str
        What the jets are, such as the name of their file: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    train, held_out = data.of("train"), data.of("validation")
    points = data.inputs.get(POINTS_INPUT)

    def build() -> keras.Model:
        model = build_jet_network(
            len(names), len(answers), config, n_points=0 if points is None else points.shape[1]
        )
        model.get_layer("bins").adapt(train[0][VARIABLES_INPUT])
        return model

    def file(_: keras.Model) -> dict[str, Any]:
        return {
            "inputs": {name: of[:N_REFERENCE] for name, of in held_out[0].items()},
            "kind": "jets",
            "normalisation": f"{VARIABLES_INPUT}: {', '.join(names)}; {POINTS_INPUT}: "
            f"{', '.join(POINT)}, by falling pT; {OUTPUT}: {', '.join(answers)}",
        }

    settings = {
        "config": asdict(config), "inputs": inputs, "names": list(names), "answers": list(answers),
        "points": points is not None,
    }  # fmt: skip
    found = fit_kept(
        "jet_network", build, (train, held_out), config.train, settings=settings,
        export=file if export else None, say=say,
    )  # fmt: skip
    return JetNetwork(config, *found)


def write_constituents(
    points: NDArray[np.float32], offsets: NDArray[np.int64], n_points: int
) -> NDArray[np.float32]:
    """Constituents of jets as networks take them, shape (n, n_points, len(POINT)): the hardest
    ones, then zeros.

    >>> found = write_constituents(np.ones((3, 5), np.float32), np.array([0, 1, 3]), 2)
    >>> found[:, :, 0].tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    sizes = np.minimum(np.diff(offsets), n_points)
    jet = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(jet)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    padded = np.zeros((len(sizes), n_points, points.shape[1]), dtype=np.float32)
    padded[jet, place] = points[offsets[:-1][jet] + place]
    return padded
