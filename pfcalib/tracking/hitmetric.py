"""A learned metric of hits: a network whose vectors of the hits of a particle are near each other,
trained on triplets, and its export.

A triplet is a hit, another one of its particle and, of the hits in a batch that are of other
particles, the one whose vector is nearest at that moment (arXiv:1703.07737). The network that is
trained gives the loss itself, to be nought: the share of the squared distances that is between hits
of one particle (arXiv:1412.6622), which knows no scale. A hit drawn from a batch of N is about the
n / N-th neighbour of n hits, so that N is chosen for that to be the size of a bucket.
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
from pfcalib.training.fit import Arrays, Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUT, OUTPUT = "hits", "vector"
PAIR = ("first", "second")
SCALE = 1000.0  # mm
N_REFERENCE = 500  # hits that check an export
MEANING = f"{INPUT}: x, y, z [mm]; {OUTPUT}: near for hits of one particle"


@dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """A network and its training.

    Parameters
    ----------
    widths : tuple of int
        Of the dense layers.
    n_out : int
        Length of the vector of a hit, 3 or more.
    reach : int
        Hits along a particle, before and behind, among which its other one is drawn.
    train : TrainConfig
        Its loss must be "mae".
    """

    widths: tuple[int, ...] = (64, 64, 64)
    n_out: int = 8
    reach: int = 3
    train: TrainConfig = field(default_factory=lambda: TrainConfig(loss="mae"))

    def __post_init__(self) -> None:
        if self.train.loss != "mae" or not (min(*self.widths, self.reach) > 0 and self.n_out > 3):
            raise ConfigError(
                f"MetricConfig: expected sizes above 0, 4 outputs and the loss 'mae', not {self}"
            )


@keras.saving.register_keras_serializable(package="pfcalib")
class HitFeatures(layers.Layer):
    """Of x, y, z: the direction across the beam, pseudorapidity and radius; and what else may help,
    z and its ratio to the radius.
    """

    def call(self, hits: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = (hits[..., i : i + 1] for i in range(3))
        radius = ops.sqrt(x * x + y * y) + 1e-3
        slope = z / radius
        eta = ops.log(ops.abs(slope) + ops.sqrt(1.0 + slope * slope)) * ops.sign(slope)
        plain = ops.concatenate((x / radius, y / radius, eta, 0.1 * radius / SCALE), axis=-1)
        return plain, ops.concatenate((plain, radius / SCALE, z / SCALE, slope), axis=-1)


@keras.saving.register_keras_serializable(package="pfcalib")
class TripletLoss(layers.Layer):
    """d+^2 / (d+^2 + d-^2), where d- is the distance to the nearest hit of another particle among
    the second ones of all pairs of the batch; (n, 1).
    """

    def call(self, first: Tensor, second: Tensor, particle: Tensor) -> Tensor:
        apart = ops.sum((first[:, None] - second[None]) ** 2, axis=-1) + 1e-9
        own = particle == ops.transpose(particle)
        near = ops.sum((first - second) ** 2, axis=-1, keepdims=True) + 1e-9
        far = ops.min(ops.where(own, 1e9, apart), axis=-1, keepdims=True)
        return near / (near + far)


def build_metric(config: MetricConfig) -> keras.Model:
    """Untrained network: input "hits" (n, 3) float32, mm; output "vector" (n, n_out)."""
    inputs = keras.Input((3,), name=INPUT)
    plain, x = HitFeatures(name="features")(inputs)
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="silu", name=f"dense{i}")(x)
    # it begins near the raw angle
    x = layers.Dense(config.n_out, kernel_initializer="zeros", name="change")(x)
    plain = layers.ZeroPadding1D((0, config.n_out - 4), name="pad")(plain[..., None])[..., 0]
    return keras.Model({INPUT: inputs}, layers.Add(name=OUTPUT)([plain, x]), name="hit_metric")


def build_trained(config: MetricConfig) -> keras.Model:
    """The network on both hits of a pair, with the loss as output; further input "particle"."""
    network = build_metric(config)
    inputs = {part: keras.Input((3,), name=part) for part in PAIR}
    particle = keras.Input((1,), name="particle")
    vectors = [network({INPUT: inputs[part]}) for part in PAIR]
    loss = TripletLoss(name="loss")(*vectors, particle)
    return keras.Model({**inputs, "particle": particle}, loss, name="triplets")


def pairs(
    events: BarrelEvents, numbers: NDArray[np.integer], config: MetricConfig, *, per_hit: int = 1,
    seed: int = 1,
) -> Arrays:  # fmt: skip
    """What `fit_metric` trains on: each hit of a particle with another one of it, of some events.

    Parameters
    ----------
    events : BarrelEvents
    numbers : ndarray of int
        Of the events.
    config : MetricConfig
    per_hit : int
        Pairs of a hit.
    seed : int
    """
    rng = np.random.default_rng(seed)
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for count, number in enumerate(numbers):
        hits = events.event(int(number))
        mine = np.flatnonzero(hits.particle != NOISE)
        # hits of a particle one after the other, from the inside
        order = mine[np.lexsort((hits.layer[mine], hits.particle[mine]))]
        place = np.arange(len(order))
        for _ in range(per_hit):
            step = rng.integers(1, config.reach, size=len(order), endpoint=True)
            step *= rng.choice(np.array([-1, 1]), len(order))
            other = order[np.clip(place + step, 0, len(order) - 1)]
            kept = (hits.particle[other] == hits.particle[order]) & (other != order)
            a, b = order[kept], other[kept]
            names = count * (hits.particle.max() + 1) + hits.particle[a]
            parts.append((hits.position[a], hits.position[b], names[:, None].astype(np.float32)))
    first, second, particle = (np.concatenate(part) for part in zip(*parts, strict=True))
    feed = {PAIR[0]: first, PAIR[1]: second, "particle": particle}
    return feed, np.zeros((len(first), 1), np.float32)


def fit_metric(
    config: MetricConfig, training: Arrays, held_out: Arrays, *, events: Mapping[str, Any],
    say: Say = print,
) -> Kept:  # fmt: skip
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    config : MetricConfig
    training, held_out : (inputs, zeros)
        See `pairs`.
    events : mapping
        JSON values: which pairs these are, part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """

    def file(model: keras.Model) -> dict[str, Any]:
        return {
            "model": model.get_layer("hit_metric"), "kind": "hit",
            "inputs": {INPUT: held_out[0]["first"][:N_REFERENCE]}, "normalisation": MEANING,
        }  # fmt: skip

    return fit_kept(
        "hit_metric", lambda: build_trained(config), (training, held_out), config.train,
        settings={"config": asdict(config), "events": dict(events)}, export=file, say=say,
    )  # fmt: skip


def apply_metric(model: keras.Model, position: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of hits, (n, n_out), by a model of `fit_metric`."""
    return predict(model.get_layer("hit_metric"), {INPUT: position}, batch=20_000)
