"""A learned metric of hits: a network that turns hits of one particle into the same direction,
trained on triplets, and its export.

A triplet is a hit, another one of its particle and one of another particle, which in most cases is
near in angle. The network that is trained gives the loss itself, to be nought: the share of the
squared distances that is between hits of one particle, as in arXiv:1412.6622. Unlike a margin it
knows no scale, so that it does not reward vectors that are all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.models.blocks import Tensor
from pfcalib.tracking.barrelhits import NOISE, BarrelEvents
from pfcalib.tracking.buckets import build_index, find_buckets, unit
from pfcalib.training.fit import Arrays, Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUT, OUTPUT = "hits", "direction"
PARTS = ("anchor", "positive", "negative")
SCALE = 1000.0  # mm
N_REFERENCE = 500  # hits that check an export
MEANING = f"{INPUT}: x, y, z [mm]; {OUTPUT}: a vector of length 1, alike for hits of one particle"


@dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """A network and its training.

    Parameters
    ----------
    widths : tuple of int
        Of the dense layers.
    n_out : int
        Length of the vector of a hit, 3 or more.
    far : float
        Share of the triplets whose other particle is any one.
    n_near : int
        Neighbours in angle among which the hit of another particle is drawn.
    train : TrainConfig
        Its loss must be "mae".
    """

    widths: tuple[int, ...] = (64, 64, 64)
    n_out: int = 8
    far: float = 0.1
    n_near: int = 50
    train: TrainConfig = field(default_factory=lambda: TrainConfig(loss="mae"))

    def __post_init__(self) -> None:
        sizes = (*self.widths, self.n_out, self.n_near)
        if self.train.loss != "mae" or not (
            min(sizes) > 0 and self.n_out >= 3 and 0.0 <= self.far < 1.0
        ):
            raise ConfigError(
                f"MetricConfig: expected sizes above 0 and the loss 'mae', not {self}"
            )


@keras.saving.register_keras_serializable(package="pfcalib")
class HitFeatures(layers.Layer):
    """Of x, y, z: the direction; and with it the direction across the beam, radius, z, their ratio
    and pseudorapidity.
    """

    def call(self, hits: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = (hits[..., i : i + 1] for i in range(3))
        radius = ops.sqrt(x * x + y * y) + 1e-3
        raw = hits / ops.sqrt(radius * radius + z * z)
        slope = z / radius
        eta = ops.log(ops.abs(slope) + ops.sqrt(1.0 + slope * slope)) * ops.sign(slope)
        parts = (raw, x / radius, y / radius, radius / SCALE, z / SCALE, slope, eta)
        return raw, ops.concatenate(parts, axis=-1)


@keras.saving.register_keras_serializable(package="pfcalib")
class Direction(layers.Layer):
    """Vectors of length 1."""

    def call(self, x: Tensor) -> Tensor:
        return x / ops.sqrt(ops.sum(x * x, axis=-1, keepdims=True) + 1e-12)


@keras.saving.register_keras_serializable(package="pfcalib")
class TripletLoss(layers.Layer):
    """d+^2 / (d+^2 + d-^2) of vectors, (n, 1)."""

    def call(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        near, far = (
            ops.sum((anchor - other) ** 2, axis=-1, keepdims=True) + 1e-9
            for other in (positive, negative)
        )
        return near / (near + far)


def build_metric(config: MetricConfig) -> keras.Model:
    """Untrained network: input "hits" (n, 3) float32, mm; output "direction" (n, n_out)."""
    inputs = keras.Input((3,), name=INPUT)
    raw, x = HitFeatures(name="features")(inputs)
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="silu", name=f"dense{i}")(x)
    # it begins as the raw direction
    x = layers.Dense(config.n_out, kernel_initializer="zeros", name="change")(x)
    raw = layers.ZeroPadding1D((0, config.n_out - 3), name="pad")(raw[..., None])[..., 0]
    x = layers.Add(name="vector")([raw, x])
    return keras.Model({INPUT: inputs}, Direction(name=OUTPUT)(x), name="hit_metric")


def build_trained(config: MetricConfig) -> keras.Model:
    """The network on each hit of a triplet, with the loss as output."""
    network = build_metric(config)
    inputs = {part: keras.Input((3,), name=part) for part in PARTS}
    vectors = [network({INPUT: inputs[part]}) for part in PARTS]
    return keras.Model(inputs, TripletLoss(name="loss")(*vectors), name="triplets")


def triplets(
    events: BarrelEvents, numbers: NDArray[np.integer], config: MetricConfig, *, per_hit: int = 1,
    seed: int = 1,
) -> Arrays:  # fmt: skip
    """What `fit_metric` trains on: triplets of each hit of a particle, of some events.

    Parameters
    ----------
    events : BarrelEvents
    numbers : ndarray of int
        Of the events.
    config : MetricConfig
    per_hit : int
        Triplets of a hit.
    seed : int
    """
    rng = np.random.default_rng(seed)
    parts: list[list[NDArray[np.float32]]] = [[], [], []]
    for number in numbers:
        hits = events.event(int(number))
        vectors = unit(hits.position)
        mine = np.flatnonzero(hits.particle != NOISE)
        near = find_buckets(build_index(vectors, kind="tree"), vectors, mine, config.n_near)
        others = (near >= 0) & (hits.particle[near] != hits.particle[mine, None])
        order = mine[np.argsort(hits.particle[mine], kind="stable")]
        sizes = np.bincount(hits.particle[mine])
        first = np.cumsum(sizes) - sizes
        for _ in range(per_hit):
            # one of the particle's hits, one of its foreign neighbours
            at = (rng.random(len(mine)) * sizes[hits.particle[mine]]).astype(int)
            positive = order[first[hits.particle[mine]] + at]
            chosen = np.argmax(others * rng.random(others.shape), axis=1)
            negative = near[np.arange(len(mine)), chosen]
            anyone = rng.integers(len(hits.particle), size=len(mine))
            negative = np.where(rng.random(len(mine)) < config.far, anyone, negative)
            kept = (positive != mine) & (hits.particle[negative] != hits.particle[mine])
            for out, rows in zip(parts, (mine, positive, negative), strict=True):
                out.append(hits.position[rows[kept]])
    feed = {name: np.concatenate(part) for name, part in zip(PARTS, parts, strict=True)}
    return feed, np.zeros((len(feed[PARTS[0]]), 1), np.float32)


def fit_metric(
    config: MetricConfig, training: Arrays, held_out: Arrays, *, events: Mapping[str, Any],
    say: Say = print,
) -> Kept:  # fmt: skip
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    config : MetricConfig
    training, held_out : (inputs, zeros)
        See `triplets`.
    events : mapping
        JSON values: which triplets these are, part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """

    def file(model: keras.Model) -> dict[str, Any]:
        return {
            "model": model.get_layer("hit_metric"), "kind": "hit",
            "inputs": {INPUT: held_out[0]["anchor"][:N_REFERENCE]}, "normalisation": MEANING,
        }  # fmt: skip

    return fit_kept(
        "hit_metric", lambda: build_trained(config), (training, held_out), config.train,
        settings={"config": asdict(config), "events": dict(events)}, export=file, say=say,
    )  # fmt: skip


def apply_metric(model: keras.Model, position: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of hits, (n, n_out), by a model of `fit_metric`."""
    return unit(predict(model.get_layer("hit_metric"), {INPUT: position}, batch=20_000))
