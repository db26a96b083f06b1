"""Generative adversarial networks of images or tables, given what is known of each: with a
regressor of the conditions, and with a term for diversity where it is due (SDI-GAN,
arXiv:2207.01561).

The discriminator tells true from generated, and regresses the conditions of true images; the
generator is pulled to images of which it would read off the right ones. Two images of the same
condition shall differ in what the discriminator makes of them, the more, the more their noise
differs and true images of that condition do. Both learn in the same step, by the same optimiser.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.adversarial import Rivals
from pfcalib.fastsim.imagevae import CONDITION, IMAGE, NOISE, ImageBatches
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
SPREAD, OUTPUT, LOGIT, READ, FEATURES = "spread", "generated", "logit", "read", "features"
N_REFERENCE = 200  # images that check an export
BATCH = 1000  # images at once
SLOPE = 0.2  # of rectifiers below 0
N_BINS = 8  # of the first condition, in which the spread of true images is taken
Bodies: TypeAlias = Callable[[int, int, "GanConfig"], tuple[keras.Model, keras.Model]]


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Networks and training.

    Parameters
    ----------
    n_noise : int
    width : int
        Of dense layers.
    channels : int
        Of the first layer of the convolutional generator; 0: dense networks.
    regress, diversity : float
        Weights of both further terms.
    train : TrainConfig
        Its loss is not used.
    """

    n_noise: int = 10
    width: int = 128
    channels: int = 16
    regress: float = 1.0
    diversity: float = 0.1
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=2e-4, batch_size=128, epochs=50, patience=50, loss="mse", ema=0.999
        )
    )

    def __post_init__(self) -> None:
        if min(self.n_noise, self.width) < 1 or min(self.channels, self.regress) < 0:
            raise ConfigError(f"GanConfig: expected sizes above 0 and no weight below, not {self}")


@keras.saving.register_keras_serializable(package="pfcalib")
class Adversaries(Rivals):
    """Layers "generator" and "discriminator", whose distributions of pixels and of their means are
    compared.
    """

    weights_of = (0.0, 0.0)  # regress and diversity, set by `build_adversaries`

    def losses(self, inputs: Any, true: Any) -> list[tuple[Any, keras.Model]]:
        generator, discriminator = self.get_layer("generator"), self.get_layer("discriminator")
        condition, noises = inputs[CONDITION], ops.split(inputs[NOISE], 2, axis=1)
        regress, diversity = (float(of) for of in self.weights_of)
        made = [generator({NOISE: z, CONDITION: condition}, training=True) for z in noises]
        of_true, of_made, of_other = (
            discriminator({IMAGE: x, CONDITION: condition}, training=True) for x in (true, *made)
        )
        told = ops.mean(ops.softplus(-of_true[LOGIT]) + ops.softplus(of_made[LOGIT]))
        told += regress * ops.mean((of_true[READ] - condition) ** 2)
        noise = ops.mean(ops.abs(noises[0] - noises[1]), axis=1)
        apart = ops.mean(ops.abs(of_made[FEATURES] - of_other[FEATURES]), axis=1)
        alike = ops.mean(inputs[SPREAD][:, 0] * noise / (apart + 1e-2))
        fooled = ops.mean(ops.softplus(-of_made[LOGIT])) + diversity * alike
        fooled += regress * ops.mean((of_made[READ] - condition) ** 2)
        return [(told, discriminator), (fooled, generator)]

    def pictures(self, inputs: Any, true: Any) -> list[tuple[Any, Any]]:
        noise = ops.split(inputs[NOISE], 2, axis=1)[0]
        made = self.get_layer("generator")({NOISE: noise, CONDITION: inputs[CONDITION]})
        return [(true, made), (ops.mean(true, axis=1), ops.mean(made, axis=1))]


def build_dense(n_pixels: int, n_conditions: int, config: GanConfig) -> tuple[Any, Any]:
    """Generator and discriminator of tables; see `build_adversaries`."""
    noise, about = _given(n_conditions, config)
    x = layers.Concatenate(name="seen")([noise, about])
    for i in range(3):
        x = layers.Dense(config.width, activation="leaky_relu", name=f"dense{i}")(x)
    made = layers.Dense(n_pixels, name=OUTPUT)(x)

    image, given = (
        keras.Input((n_pixels,), name=IMAGE),
        keras.Input((n_conditions,), name=CONDITION),
    )
    y = image
    for i in range(2):
        y = layers.Dense(config.width, activation="leaky_relu", name=f"look{i}")(y)
    return _pair(noise, about, made, image, given, y, config)


def build_convolutional(n_pixels: int, n_conditions: int, config: GanConfig) -> tuple[Any, Any]:
    """Generator and discriminator of square images, after DCGAN (arXiv:1511.06434); see
    `build_adversaries`.
    """
    side, channels = round(n_pixels**0.5), config.channels
    start = -(-side // 4)
    noise, about = _given(n_conditions, config)
    x = layers.Concatenate(name="seen")([noise, about])
    x = layers.Dense(config.width, activation="leaky_relu", name="dense")(x)
    x = layers.Dense(start * start * channels, activation="leaky_relu", name="spread_out")(x)
    x = layers.Reshape((start, start, channels), name="square")(x)
    for i, n in enumerate((channels, channels // 2)):
        x = layers.Conv2DTranspose(
            n, 4, strides=2, padding="same", activation="leaky_relu", name=f"up{i}"
        )(x)
    # what is a little below 0 counts as 0, and still has a gradient
    x = layers.Conv2D(1, 3, padding="same", activation="leaky_relu", name="paint")(x)
    extra = 4 * start - side
    x = layers.Cropping2D(((extra // 2, extra - extra // 2),) * 2, name="crop")(x)
    made = layers.Reshape((n_pixels,), name=OUTPUT)(x)

    image, given = (
        keras.Input((n_pixels,), name=IMAGE),
        keras.Input((n_conditions,), name=CONDITION),
    )
    y = layers.Reshape((side, side, 1), name="frame")(image)
    for i, n in enumerate((channels // 2, channels, 2 * channels)):
        y = layers.Conv2D(
            n, 5, strides=2, padding="same", activation="leaky_relu", name=f"look{i}"
        )(y)
    return _pair(noise, about, made, image, given, layers.Flatten(name="flat")(y), config)


def _given(n_conditions: int, config: GanConfig) -> tuple[Any, Any]:
    return (
        keras.Input((config.n_noise,), name=NOISE),
        keras.Input((n_conditions,), name=CONDITION),
    )


def _pair(
    noise: Any, about: Any, made: Any, image: Any, given: Any, seen: Any, config: GanConfig
) -> tuple[Any, Any]:  # fmt: skip
    generator = keras.Model({NOISE: noise, CONDITION: about}, made, name="generator")
    features = layers.Dense(config.width, activation="leaky_relu", name=FEATURES)(seen)
    both = layers.Concatenate(name="both")([features, given])
    both = layers.Dense(config.width, activation="leaky_relu", name="judge")(both)
    outputs = {
        LOGIT: layers.Dense(1, name=LOGIT)(both),
        READ: layers.Dense(given.shape[1], name=READ)(features),
        FEATURES: features,
    }
    return generator, keras.Model({IMAGE: image, CONDITION: given}, outputs, name="discriminator")


def build_adversaries(n_pixels: int, n_conditions: int, config: GanConfig) -> Adversaries:
    """Untrained networks in one: inputs "noise" (two each image), "condition", and "spread", the
    diversity of true images of that condition; layers "generator" and "discriminator".
    """
    bodies = build_convolutional if config.channels else build_dense
    generator, discriminator = bodies(n_pixels, n_conditions, config)
    noise = keras.Input((2 * config.n_noise,), name=NOISE)
    about, spread = keras.Input((n_conditions,), name=CONDITION), keras.Input((1,), name=SPREAD)
    first = noise[:, : config.n_noise]
    image = generator({NOISE: first, CONDITION: about})
    logit = discriminator({IMAGE: image, CONDITION: about})[LOGIT]
    model = Adversaries({NOISE: noise, CONDITION: about, SPREAD: spread}, logit, name="adversaries")
    model.weights_of = (config.regress, config.diversity)
    return model


class Gan(NamedTuple):
    """Trained networks."""

    config: GanConfig
    mean: F64  # of the conditions
    width: F64
    kept: Kept

    def inputs(self, condition: F64, rng: np.random.Generator) -> dict[str, F32]:
        """Inputs of the file of the generator."""
        noise = rng.standard_normal((len(condition), self.config.n_noise))
        return {
            NOISE: noise.astype(np.float32),
            CONDITION: ((condition - self.mean) / self.width).astype(np.float32),
        }

    def generate(self, condition: F64, rng: np.random.Generator) -> F32:
        """A row of pixels or quantities for each row of conditions, as they were in training."""
        feed, session = self.inputs(condition, rng), open_session(self.kept.path)
        parts = [
            session.run([OUTPUT], {k: x[i : i + BATCH] for k, x in feed.items()})[0]
            for i in range(0, len(condition), BATCH)
        ]
        return np.concatenate(parts)


def fit_gan(
    training: tuple[F32, F64], held_out: tuple[F32, F64], config: GanConfig | None = None, *,
    name: str, inputs: str, groups: NDArray[np.int64] | None = None, say: Say = print,
) -> Gan:  # fmt: skip
    """Train both networks and export the generator, or find it.

    Parameters
    ----------
    training, held_out : (images, condition)
        Shapes (n, n_pixels) and (n, n_conditions); images of about unit size, such as logarithms.
    config : GanConfig, optional
    name : str
        Of the file.
    inputs : str
        What the images are: part of the key of the cache.
    groups : ndarray of int, shape (n,), optional
        Of the training images, such as kinds of particles: their spread is taken in each, in bins
        of the first condition.
    say : callable
        Takes one line an epoch.
    """
    config = config or GanConfig()
    mean, width = training[1].mean(axis=0), training[1].std(axis=0) + 1e-9
    batches = []
    for k, (images, condition) in enumerate((training, held_out)):
        own = groups if groups is not None and not k else np.zeros(len(images), np.int64)
        batches.append(
            ImageBatches(
                images, ((condition - mean) / width).astype(np.float32),
                n_noise=2 * config.n_noise, batch_size=config.train.batch_size,
                seed=config.train.seed, image_in=False, fixed=bool(k),
                more={SPREAD: spread_of(images, condition[:, 0], own)},
            )
        )  # fmt: skip
    given = batches[1][0][0]
    told = {
        "inputs": {
            NOISE: given[NOISE][:N_REFERENCE, : config.n_noise],
            CONDITION: given[CONDITION][:N_REFERENCE],
        },
        "kind": "noise",
        "normalisation": f"{NOISE}: standard Gaussian; {CONDITION}: mean 0 and width 1",
    }
    sizes = training[0].shape[1], training[1].shape[1]
    kept = fit_kept(
        f"{name}_gan", functools.partial(build_adversaries, *sizes, config),
        (batches[0], batches[1]), config.train,
        settings={"config": asdict(config), "inputs": inputs},
        export=lambda model: {**told, "model": model.get_layer("generator")}, say=say,
    )  # fmt: skip
    return Gan(config, mean, width, kept)


def spread_of(images: NDArray[np.floating], first: F64, group: NDArray[np.int64]) -> F32:
    """Mean standard deviation of the pixels of the images of the same group and bin of a condition,
    over the largest such, (n, 1).
    """
    edges = np.quantile(first, np.linspace(0.0, 1.0, N_BINS + 1)[1:-1])
    _, place = np.unique(group * N_BINS + np.digitize(first, edges), return_inverse=True)
    found = np.array([images[place == k].std(axis=0).mean() for k in range(place.max() + 1)])
    return (found / max(found.max(), 1e-12))[place][:, None].astype(np.float32)
