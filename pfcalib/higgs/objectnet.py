"""A transformer on the objects of an event themselves, jets, lepton and missing momentum, in place
of quantities that somebody made of them.

Every pair of objects tells its attention how far apart they are and what mass they have, as in
arXiv:2202.03772; all angles in azimuth are those from the lepton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.higgs.candidates import _wrap
from pfcalib.higgs.topevents import MAX_JETS, TopEvents
from pfcalib.models.blocks import Tensor
from pfcalib.models.pointnets import CloudAttention, PooledCloud
from pfcalib.training.classes import INPUT, N_REFERENCE, OUTPUT, Candidates, ClassNetwork
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import fit_kept

COLUMNS = ("pt", "eta", "phi", "mass", "tag", "is_jet", "is_lepton", "is_missing")
N_OBJECTS = MAX_JETS + 2
SCALE = 50.0  # GeV


@dataclass(frozen=True, kw_only=True)
class ObjectNetworkConfig:
    """A transformer on objects and its training.

    Parameters
    ----------
    width, n_heads, n_blocks : int
        Of the attention.
    dropout : float
        After each block.
    pair_bias : bool
        Whether pairs tell their distance and mass.
    train : TrainConfig
        Its seed is that of the first weights too.
    """

    width: int = 48
    n_heads: int = 4
    n_blocks: int = 3
    dropout: float = 0.1
    pair_bias: bool = True
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ConfigError(
                f"ObjectNetworkConfig: width = {self.width} is no multiple of n_heads = "
                f"{self.n_heads}"
            )


def event_objects(events: TopEvents) -> NDArray[np.float32]:
    """Jets, lepton and missing momentum as rows of COLUMNS, GeV and rad, azimuths from the lepton:
    (n, N_OBJECTS * len(COLUMNS)); zeros where there is none.
    """
    objects = np.zeros((events.n_events, N_OBJECTS, len(COLUMNS)), dtype=np.float32)
    there = events.jets[..., 0] > 0.0
    objects[:, :MAX_JETS, :4] = events.jets
    objects[:, :MAX_JETS, 4] = events.tag
    objects[:, :MAX_JETS, 5] = there
    objects[:, MAX_JETS, :3] = events.lepton
    objects[:, MAX_JETS + 1, 0], objects[:, MAX_JETS + 1, 2] = events.missing.T
    objects[:, MAX_JETS:, 6:] = np.eye(2)
    turned = _wrap(np.float64(objects[..., 2]) - events.lepton[:, None, 2])
    objects[..., 2] = turned * (objects[..., 5:].sum(axis=-1) > 0.0)
    return objects.reshape(events.n_events, -1)


@keras.saving.register_keras_serializable(package="pfcalib")
class ObjectFeatures(layers.Layer):
    """Objects (n, n_objects, len(COLUMNS)) as numbers of order one."""

    def call(self, inputs: Tensor) -> Tensor:
        pt, phi, mass = inputs[..., :1], inputs[..., 2:3], inputs[..., 3:4]
        found = [
            ops.log(1.0 + pt / SCALE),
            inputs[..., 1:2],
            *(ops.cos(phi), ops.sin(phi)),
            ops.log(1.0 + mass / (0.1 * SCALE)),
            inputs[..., 4:5] / 2.0 - 1.0,
            inputs[..., 5:],
        ]
        return ops.concatenate(found, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], len(COLUMNS) + 1)


@keras.saving.register_keras_serializable(package="pfcalib")
class ObjectWeights(layers.Layer):
    """Whether there is an object, and its pT, (n, n_objects, 2), as `CloudAttention` wants them."""

    def call(self, inputs: Tensor) -> Tensor:
        there = ops.sum(inputs[..., 5:], axis=-1, keepdims=True)
        return ops.concatenate([there, inputs[..., :1] / SCALE], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], 2)


@keras.saving.register_keras_serializable(package="pfcalib")
class ObjectPairs(layers.Layer):
    """What distance and mass of two objects add to their attention, (n, n_heads, n_objects,
    n_objects).
    """

    def __init__(self, n_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_heads = n_heads
        self.hidden = layers.Dense(16, activation="relu", name="hidden")
        self.out = layers.Dense(n_heads, name="out")

    def build(self, input_shape: Any) -> None:
        pairs = (input_shape[0], input_shape[1], input_shape[1])
        self.hidden.build((*pairs, 3))
        self.out.build((*pairs, 16))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        log_mass, distance, flag = pair_quantities(inputs)
        pairs = ops.stack([log_mass, distance, flag], axis=-1)
        return ops.transpose(self.out(self.hidden(pairs)), (0, 3, 1, 2))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.n_heads, input_shape[1], input_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_heads": self.n_heads}


def pair_quantities(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of two massless objects ln(1 + m / SCALE), their distance, and whether both are jets, each
    (n, n_objects, n_objects).
    """
    pt, eta, phi = (inputs[..., i] for i in range(3))
    deta = eta[:, :, None] - eta[:, None, :]
    dphi = phi[:, :, None] - phi[:, None, :]
    cosine = ops.cos(dphi)
    # 2 (cosh x - 1), without the difference of large numbers
    cosh = 4.0 * ops.square(0.5 * (ops.exp(0.5 * deta) - ops.exp(-0.5 * deta)))
    square = pt[:, :, None] * pt[:, None, :] * (cosh + 2.0 * (1.0 - cosine))
    # arccos and remainders do not convert: the azimuth counts by its chord, 2 sin(dphi / 2)
    distance = ops.sqrt(ops.square(deta) + 2.0 * (1.0 - cosine) + 1e-6)
    jets = inputs[..., 5][:, :, None] * inputs[..., 5][:, None, :]
    mass = ops.sqrt(ops.maximum(square, 0.0) + 1e-6)
    return ops.log(1.0 + mass / SCALE), distance, jets


def build_object_network(n_classes: int, config: ObjectNetworkConfig) -> keras.Model:
    """Untrained network: input "candidates" (n, N_OBJECTS * len(COLUMNS)) float32 as of
    `event_objects`; output "probabilities" (n, n_classes), softmax.
    """
    keras.utils.set_random_seed(config.train.seed)
    inputs = keras.Input((N_OBJECTS * len(COLUMNS),), name=INPUT, dtype="float32")
    objects = layers.Reshape((N_OBJECTS, len(COLUMNS)), name="objects")(inputs)
    weights = ObjectWeights(name="weights")(objects)
    bias = (ObjectPairs(config.n_heads, name="pairs")(objects),) if config.pair_bias else ()
    x = layers.Dense(config.width, name="embedded")(ObjectFeatures(name="features")(objects))
    for i in range(config.n_blocks):
        y = layers.LayerNormalization(name=f"norm{i}a")(x)
        y = CloudAttention(config.width, config.n_heads, name=f"attention{i}")(y, weights, *bias)
        x = layers.Add(name=f"added{i}a")([x, y])
        y = layers.LayerNormalization(name=f"norm{i}b")(x)
        y = layers.Dense(2 * config.width, activation="relu", name=f"wide{i}")(y)
        y = layers.Dense(config.width, name=f"narrow{i}")(y)
        y = layers.Dropout(config.dropout, name=f"dropout{i}")(y)
        x = layers.Add(name=f"added{i}b")([x, y])
    x = PooledCloud(("mean", "max"), name="pooled")(
        layers.LayerNormalization(name="norm")(x), weights
    )
    x = layers.Dense(config.width, activation="relu", name="dense")(x)
    output = layers.Dense(n_classes, activation="softmax", name=OUTPUT)(x)
    return keras.Model({INPUT: inputs}, output, name="object_network")


def fit_object_network(
    data: Candidates,
    config: ObjectNetworkConfig,
    *,
    classes: Sequence[str],
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> ClassNetwork:
    """Train a network on objects on the training split and export it, or find it, as
    `training.classes.fit_class_network` does on quantities; a training that was killed goes on.

    Parameters
    ----------
    data : Candidates
        Its table is that of `event_objects`.
    config : ObjectNetworkConfig
    classes : sequence of str
        Names, for the contract.
    inputs : str
        What the events are, such as a hash of their content: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    held_out = data.of("validation")
    sides = [
        (
            {INPUT: part.table},
            np.eye(data.n_classes, dtype=np.float32)[part.label],
            part.balanced.astype(np.float32),
        )
        for part in (data.of("train"), held_out)
    ]

    def file(_: keras.Model) -> dict[str, Any]:
        return {
            "inputs": {INPUT: held_out.table[:N_REFERENCE]},
            "kind": "objects",
            "normalisation": f"{INPUT}: {N_OBJECTS} objects by {', '.join(COLUMNS)}; {OUTPUT}: "
            f"{', '.join(classes)}, as if all were equally common",
        }

    found = fit_kept(
        "object_network", lambda: build_object_network(data.n_classes, config),
        (sides[0], sides[1]), config.train,
        settings={"config": asdict(config), "inputs": inputs, "columns": list(COLUMNS)},
        export=file if export else None, say=say,
    )  # fmt: skip
    return ClassNetwork(config, *found)  # type: ignore[arg-type]
