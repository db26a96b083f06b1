"""Anomalies among the regions of a trigger as CICADA finds them: an auto-encoder that is taught on
minimum bias (the teacher), and small networks that learn to say what its error will be (students),
also in fixed-point numbers.

Layers, losses, targets and widths in bits are those of CMS DP-2023/086 as its code has them
(Princeton-AD/cicada); normalisation by batch and dropout of the students are left out. All networks
take counts of regions; anomalies are in the published units, 32 ln(mean squared error of a region).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.cost import count_multiply_adds
from pfcalib.deploy.export import predict
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept
from pfcalib.trigger.fixedpoint import (
    Fixed,
    FixedConv2D,
    FixedDense,
    Rounded,
    SumRows,
    WholeNetwork,
    fitted,
    whole_network,
)
from pfcalib.trigger.regions import MOST_REGION, N_ETA, N_PHI, Crossings

INPUT, OUTPUT = "regions", "score"
SHAPE = (N_PHI, N_ETA)
LOG_UNIT = 32.0  # of the published anomaly in a natural logarithm
MOST = 256.0  # where it ends; networks give it in this unit
TARGET = Fixed(16, 8, signed=False)
INPUT_FORM = Fixed(10, 10, signed=False)
N_REFERENCE = 500  # crossings that check an export
BATCH = 20_000  # crossings that are judged together, in memory
F64 = NDArray[np.float64]


_TEACHING = TrainConfig(
    learning_rate=1e-3, batch_size=512, epochs=20, patience=20, schedule="cosine_steps", loss="mse"
)  # fmt: skip
_LEARNING = replace(_TEACHING, loss="mae")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Size and training of the auto-encoder.

    Parameters
    ----------
    filters : (int, int)
        Of the convolutions before and behind the pooling.
    latent : int
        Width of the bottleneck.
    train : TrainConfig
    """

    filters: tuple[int, int] = (20, 30)
    latent: int = 80
    train: TrainConfig = _TEACHING


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Size and training of a small network.

    Parameters
    ----------
    filters : int
        Of a convolution of 2 x 2 regions that do not overlap; 0 for none.
    mixed : int
        Of a layer that looks at these filters window by window, and whose answers are summed in
        azimuth, along which all crossings are alike; 0 for none. Ours, not published.
    width : int
        Of the hidden layer.
    train : TrainConfig
    """

    filters: int = 0
    mixed: int = 0
    width: int = 16
    train: TrainConfig = _LEARNING


class Bits(NamedTuple):
    """Widths in bits of weights, biases, what hidden layers hand on, and last weights."""

    kernel: int = 8
    bias: int = 8
    hidden: int = 10
    last: int = 12


def network_inputs(regions: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Inputs of a network or its file."""
    return {INPUT: np.asarray(regions, dtype=np.float32)}


def build_teacher(config: TeacherConfig) -> keras.Model:
    """Untrained auto-encoder: input "regions" and output "rebuilt" (n, N_PHI, N_ETA) float32, in
    counts.
    """
    first, second = config.filters
    small = (N_PHI // 2, N_ETA // 2, second)
    inputs = keras.Input(SHAPE, name=INPUT)

    def convolution(x: Any, filters: int, name: str) -> Any:
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)

    x = layers.Reshape((*SHAPE, 1))(inputs)
    x = layers.AveragePooling2D(2)(convolution(x, first, "conv1"))
    x = layers.Flatten()(convolution(x, second, "conv2"))
    x = layers.Dense(config.latent, activation="relu", name="latent")(x)
    x = layers.Dense(int(np.prod(small)), activation="relu", name="wide")(x)
    x = convolution(layers.Reshape(small)(x), second, "conv3")
    x = convolution(layers.UpSampling2D(2)(x), first, "conv4")
    x = convolution(x, 1, "conv5")
    return keras.Model({INPUT: inputs}, layers.Reshape(SHAPE, name="rebuilt")(x), name="teacher")


@keras.saving.register_keras_serializable(package="pfcalib")
class LogError(layers.Layer):
    """Logarithm of the mean squared error of (original, rebuilt), in units of MOST, (n, 1)."""

    def call(self, inputs: Sequence[Any]) -> Any:
        original, rebuilt = inputs
        error = ops.mean(ops.square(original - rebuilt), axis=(1, 2))
        return (LOG_UNIT / MOST) * ops.log(ops.maximum(error, 1e-6))[:, None]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0][0], 1)


def scoring(teacher: keras.Model) -> keras.Model:
    """The teacher with its error as output "score"."""
    original = keras.Input(SHAPE, name=INPUT)
    score = LogError(name=OUTPUT)([original, teacher({INPUT: original})])
    return keras.Model({INPUT: original}, score, name="teacher_score")


def fit_teacher(
    training: NDArray[Any], held_out: NDArray[Any], config: TeacherConfig | None = None, *,
    inputs: str, export: bool = True, say: Say = print,
) -> Kept:  # fmt: skip
    """Train the auto-encoder on minimum bias, or find it. Its file gives the anomaly.

    Parameters
    ----------
    training, held_out : ndarray, shape (n, N_PHI, N_ETA)
        Counts.
    config : TeacherConfig, optional
    inputs : str
        What the crossings are: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    config = config or TeacherConfig()
    data, check = ((network_inputs(x), network_inputs(x)[INPUT]) for x in (training, held_out))
    return fit_kept(
        "teacher", functools.partial(build_teacher, config), (data, check), config.train,
        settings={"config": asdict(config), "inputs": inputs},
        export=functools.partial(_told, held_out) if export else None, say=say,
    )  # fmt: skip


def _told(held_out: NDArray[Any], model: keras.Model) -> dict[str, Any]:
    return {
        "model": scoring(model) if model.name == "teacher" else model,
        "inputs": network_inputs(held_out[:N_REFERENCE]),
        "kind": "regions",
        "normalisation": f"{INPUT}: counts of half GeV; {OUTPUT}: 32 ln(mean squared error) / 256",
    }


def anomaly(model: keras.Model, regions: NDArray[Any]) -> F64:
    """What a teacher or student says of crossings, in published units, (n,)."""
    model = scoring(model) if model.name == "teacher" else model
    found = [
        predict(model, network_inputs(regions[i : i + BATCH]))[:, 0]
        for i in range(0, len(regions), BATCH)
    ]
    return MOST * np.concatenate(found).astype(np.float64)


def targets(anomalies: F64) -> NDArray[np.float32]:
    """What students learn: anomalies with 8 bits before and behind the point, in units of MOST,
    (n, 1).
    """
    values = TARGET.values(TARGET.integers(anomalies)) / MOST
    return values.astype(np.float32)[:, None]


def build_student(
    config: StudentConfig, formats: Mapping[str, Mapping[str, Any]] | None = None
) -> keras.Model:
    """Untrained student: input "regions" (n, N_PHI, N_ETA) float32, in counts; output "score" (n,
    1) in units of MOST.

    Parameters
    ----------
    config : StudentConfig
    formats : mapping, optional
        Of `fixed_formats`: then it computes in fixed-point numbers.
    """
    inputs = keras.Input(SHAPE, name=INPUT)
    x = layers.Reshape((*SHAPE, 1))(inputs)

    def finished(x: Any, name: str) -> Any:
        if formats:
            return Rounded(formats[name]["output"], name=f"{name}_out")(x)
        return x if name == "last" else layers.ReLU(name=f"{name}_out")(x)

    def settings(name: str) -> dict[str, Any]:
        weights = {key: formats[name][key] for key in ("form", "bias_form")} if formats else {}
        return {"name": name, "use_bias": name in ("mix", "dense"), **weights}

    dense = FixedDense if formats else layers.Dense
    if config.filters:
        convolution = FixedConv2D if formats else layers.Conv2D
        x = convolution(config.filters, 2, strides=2, **settings("conv"))(x)
        x = finished(x, "conv")
    if config.mixed:
        x = finished(dense(config.mixed, **settings("mix"))(x), "mix")
        x = SumRows(name="rings")(x)
    x = finished(dense(config.width, **settings("dense"))(layers.Flatten()(x)), "dense")
    x = finished(dense(1, **settings("last"))(x), "last")
    score = layers.Rescaling(1.0 / MOST, name=OUTPUT)(x)
    return keras.Model({INPUT: inputs}, score, name="student")


def fixed_formats(
    student: keras.Model, regions: NDArray[Any], bits: Bits | None = None
) -> dict[str, dict[str, Any]]:
    """Formats in which the weights of a student, and what its hidden layers hand on for crossings,
    just fit, by layer.
    """
    bits, found = bits or Bits(), {}
    for layer in student.layers:
        if not isinstance(layer, layers.Dense | layers.Conv2D):
            continue
        is_last = layer.name == "last"
        if is_last:
            output = TARGET
        else:
            hidden = keras.Model(student.inputs, student.get_layer(f"{layer.name}_out").output)
            most = predict(hidden, network_inputs(regions), batch=BATCH)
            output = fitted(most, bits.hidden, signed=False)
        bias = 0.0 if layer.bias is None else layer.bias.numpy()
        forms = {
            "form": fitted(layer.kernel.numpy(), bits.last if is_last else bits.kernel),
            "bias_form": fitted(bias, bits.bias),
            "output": output,
        }
        found[layer.name] = {name: asdict(form) for name, form in forms.items()}
    return found


def fit_student(
    data: tuple[tuple[NDArray[Any], F64], tuple[NDArray[Any], F64]],
    config: StudentConfig | None = None, *, inputs: str,
    formats: Mapping[str, Mapping[str, Any]] | None = None, start: keras.Model | None = None,
    export: bool = True, say: Say = print,
) -> Kept:  # fmt: skip
    """Train a student on what the teacher says, or find it.

    Parameters
    ----------
    data : (training, validation)
        Of each the regions and the anomalies by the teacher.
    config : StudentConfig, optional
    inputs : str
        What crossings and teacher are: part of the key of the cache.
    formats : mapping, optional
        Of `fixed_formats`: then it is trained through the rounding.
    start : keras.Model, optional
        Of the same size, from whose weights it starts.
    export, say
        As of `fit_teacher`.
    """
    config = config or StudentConfig()

    def build() -> keras.Model:
        model = build_student(config, formats)
        if start is not None:
            model.set_weights(start.get_weights())
        return model

    arrays = tuple((network_inputs(x), targets(y)) for x, y in data)
    settings = {"config": asdict(config), "inputs": inputs, "formats": formats or {}}
    return fit_kept(
        "student", build, (arrays[0], arrays[1]), config.train,
        settings={**settings, "has_start": start is not None},
        export=functools.partial(_told, data[1][0]) if export else None, say=say,
    )  # fmt: skip


def round_student(
    student: keras.Model, config: StudentConfig, formats: Mapping[str, Mapping[str, Any]]
) -> keras.Model:
    """A student whose weights are rounded after its training."""
    model = build_student(config, formats)
    model.set_weights(student.get_weights())
    return model


def student_in_integers(model: keras.Model) -> WholeNetwork:
    """A student with formats in whole numbers; its values are anomalies in published units."""
    return whole_network(model, INPUT_FORM)


def multiply_adds(model: keras.Model) -> float:
    """For a region."""
    return count_multiply_adds(model) / (N_PHI * N_ETA)


def outliers(crossings: Crossings, rng: np.random.Generator, *, most: int = 12) -> NDArray[Any]:
    """Crossings of minimum bias with up to so many regions anywhere to which up to the most that
    they can hold is added, flat in its logarithm: exposure to what is no process of physics.
    """
    regions = crossings.regions.astype(np.int64)
    n = len(regions)
    chosen = np.argsort(rng.random((n, N_PHI * N_ETA)), axis=1)[:, :most]
    some = np.arange(most) < rng.integers(1, most + 1, size=n)[:, None]
    added = np.exp(rng.uniform(np.log(10.0), np.log(MOST_REGION), (n, most))) * some
    flat = regions.reshape(n, -1)
    flat[np.arange(n)[:, None], chosen] += added.astype(np.int64)
    return np.minimum(flat, MOST_REGION).reshape(regions.shape).astype(np.uint16)
