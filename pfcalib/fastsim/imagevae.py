"""Variational autoencoder of images of counts or energies, whose pixels are drawn independently
about the rates that it decodes; and flow matching in its latent space (as in arXiv:2507.18811).

Given its rate mu, a pixel is of Tweedie's family: variance dispersion * mu^power. Power 1 with
dispersion 1 are counts of photons, Poisson; between 1 and 2 a Poisson number of deposits of Gamma's
distribution, 0 or above (Dunn and Smyth, Stat. Comput. 15 (2005) 267). So the network has to learn
only what pixels have in common, and images have as many zeros as true ones.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.noisybatches import NoisyBatches
from pfcalib.fastsim.tableflow import TableFlow, TableFlowConfig, fit_table_flow
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
IMAGE, NOISE, CONDITION, OUTPUT = "image", "noise", "condition", "log_rate"
N_REFERENCE = 200  # images that check an export
TINY = 1e-6  # rate of a pixel that is never lit
BATCH = 1000  # images at once


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Networks and training.

    Parameters
    ----------
    n_latent : int
    widths : (int, int)
        Of the layers of the decoder; the encoder has them in turned order.
    power, dispersion : float
        Of the pixels, see above.
    unit : float
        Signal above which the encoder sees logarithms.
    flow : TableFlowConfig
        Of the flow in the latent space.
    train : TrainConfig
    """

    n_latent: int = 8
    widths: tuple[int, int] = (128, 256)
    power: float = 1.0
    dispersion: float = 1.0
    unit: float = 1.0
    flow: TableFlowConfig = field(default_factory=TableFlowConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=256, epochs=50, patience=50, schedule="cosine_steps",
            loss="mae", ema=0.999, clip_norm=100.0,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not (1.0 <= self.power < 2.0 and min(self.dispersion, self.unit) > 0.0):
            raise ConfigError(
                f"VaeConfig: expected a power from 1 to below 2, dispersion and unit above 0, not "
                f"{self}"
            )


class ImageBatches(NoisyBatches):
    """Batches of images, conditions and noise; order and noise are drawn anew in each epoch, the
    same ones for the same seed.

    Parameters
    ----------
    images : ndarray, shape (n, n_pixels)
    condition : ndarray, shape (n, n_conditions)
    n_noise : int
        Random numbers of an image.
    batch_size, seed : int
    more : mapping of str to ndarray, shape (n, ...)
        Further inputs.
    image_in : bool
        Images are inputs, and answers are zeros; without, images are the answers.
    fixed : bool
        All epochs are the first one, for validation.
    """

    def __init__(
        self, images: F32, condition: F32, *, n_noise: int, batch_size: int, seed: int,
        more: dict[str, F32] | None = None, image_in: bool = True, fixed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(len(images), batch_size=batch_size, seed=seed, fixed=fixed)
        self.images, self.inputs = images, {CONDITION: condition, **(more or {})}
        self.n_noise, self.image_in = n_noise, image_in

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[dict[str, F32], F32]:  # fmt: skip
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        inputs[NOISE] = rng.standard_normal((len(rows), self.n_noise)).astype(np.float32)
        images = self.images[rows].astype(np.float32)
        if not self.image_in:
            return inputs, images
        return {**inputs, IMAGE: images}, np.zeros((len(rows), 1), np.float32)


@keras.saving.register_keras_serializable(package="pfcalib")
class LogSignal(layers.Layer):
    """ln(1 + signal / unit)."""

    def __init__(self, unit: float, **options: Any) -> None:
        super().__init__(**options)
        self.unit = unit

    def call(self, signal: Any) -> Any:
        return ops.log1p(signal / self.unit)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit": self.unit}


@keras.saving.register_keras_serializable(package="pfcalib")
class Draw(layers.Layer):
    """Point of a Gaussian of given mean and logarithm of the width, by standard noise."""

    def call(self, mean: Any, log_width: Any, noise: Any) -> Any:
        return mean + ops.exp(log_width) * noise


@keras.saving.register_keras_serializable(package="pfcalib")
class Evidence(layers.Layer):
    """Bound of the negative logarithm of the evidence of an image, (n, 1): half the deviance of its
    pixels over the dispersion, never below 0, and the divergence of the latent Gaussian from the
    standard one.
    """

    def __init__(self, power: float, dispersion: float, **options: Any) -> None:
        super().__init__(**options)
        self.power, self.dispersion = power, dispersion

    def call(self, image: Any, log_rate: Any, mean: Any, log_width: Any) -> Any:
        deviance = ops.sum(_half_deviance(image, log_rate, self.power), axis=1, keepdims=True)
        divergence = 0.5 * (mean**2 + ops.exp(2.0 * log_width) - 1.0) - log_width
        return deviance / self.dispersion + ops.sum(divergence, axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power, "dispersion": self.dispersion}


def _half_deviance(x: Any, log_rate: Any, power: float) -> Any:
    safe = ops.maximum(x, 1e-12)
    if power == 1.0:
        return ops.exp(log_rate) - x + x * (ops.log(safe) - log_rate)
    up, down = 2.0 - power, 1.0 - power
    best = ops.where(x > 0.0, safe**up, 0.0) / (up * down)
    return ops.exp(up * log_rate) / up - x * ops.exp(down * log_rate) / down + best


def build_vae(config: VaeConfig, images: NDArray[np.generic], condition: F32) -> keras.Model:
    """Untrained networks in one: inputs "image" (n_pixels,), "condition" and "noise" (n_latent,),
    output the bound of `Evidence`; its layer "decoder" has the inputs "noise" and "condition" and
    the output "log_rate". Rates begin at mean and slope of the examples given, the slope that of
    the first condition.
    """
    n_pixels, n_conditions = images.shape[1], condition.shape[1]
    latent, about = (
        keras.Input((n,), name=name)
        for n, name in ((config.n_latent, NOISE), (n_conditions, CONDITION))
    )
    x = layers.Concatenate(name="seen")([latent, about])
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="swish", name=f"decode{i}")(x)
    x = layers.Concatenate(name="last")([x, about])
    log_rate = layers.Dense(n_pixels, name=OUTPUT)(x)
    decoder = keras.Model({NOISE: latent, CONDITION: about}, log_rate, name="decoder")
    kernel, _ = decoder.get_layer(OUTPUT).get_weights()
    total = np.log(images.sum(axis=1, dtype=np.float64) + TINY)
    kernel[config.widths[-1], :] = np.polyfit(condition[:, 0], total, 1)[0]
    start = np.log(images.mean(axis=0, dtype=np.float64) + TINY)
    decoder.get_layer(OUTPUT).set_weights([kernel, start])

    image, given = (
        keras.Input((n,), name=name) for n, name in ((n_pixels, IMAGE), (n_conditions, CONDITION))
    )
    noise = keras.Input((config.n_latent,), name=NOISE)
    y = layers.Concatenate(name="all")([LogSignal(config.unit, name="logs")(image), given])
    for i, width in enumerate(config.widths[::-1]):
        y = layers.Dense(width, activation="swish", name=f"encode{i}")(y)
    mean = layers.Dense(config.n_latent, name="mean")(y)
    log_width = layers.Dense(config.n_latent, kernel_initializer="zeros", name="log_width")(y)
    point = Draw(name="point")(mean, log_width, noise)
    bound = Evidence(config.power, config.dispersion, name="bound")(
        image, decoder({NOISE: point, CONDITION: given}), mean, log_width
    )
    return keras.Model({IMAGE: image, CONDITION: given, NOISE: noise}, bound, name="vae")


def draw_pixels(rates: F64, config: VaeConfig, rng: np.random.Generator) -> F32:
    """Pixels of given rates, of Tweedie's family."""
    if config.power == 1.0:
        lit = config.dispersion * rng.poisson(rates / config.dispersion)
        return lit.astype(np.float32)
    p, phi = config.power, config.dispersion
    number = rng.poisson(rates ** (2.0 - p) / (phi * (2.0 - p)))
    shape = number * (2.0 - p) / (p - 1.0)
    scale = phi * (p - 1.0) * rates ** (p - 1.0)
    return np.where(number > 0, scale * rng.gamma(np.maximum(shape, 1e-9)), 0.0).astype(np.float32)


class ImageVae(NamedTuple):
    """A trained autoencoder, and the flow in its latent space."""

    config: VaeConfig
    mean: F64  # of the conditions
    width: F64
    kept: Kept
    flow: TableFlow

    def inputs(
        self, condition: F64, rng: np.random.Generator, *, by_flow: bool = True
    ) -> dict[str, F32]:
        """Inputs of the file of the decoder: points from the flow or from the standard Gaussian."""
        shape = (len(condition), self.config.n_latent)
        latent = self.flow.generate(condition, rng) if by_flow else rng.standard_normal(shape)
        return {
            NOISE: latent.astype(np.float32),
            CONDITION: ((condition - self.mean) / self.width).astype(np.float32),
        }

    def generate(
        self, condition: F64, rng: np.random.Generator, *, by_flow: bool = True
    ) -> F32:  # fmt: skip
        """An image for each row of conditions, (n, n_pixels)."""
        feed, session = self.inputs(condition, rng, by_flow=by_flow), open_session(self.kept.path)
        parts = []
        for i in range(0, len(condition), BATCH):
            log_rate = session.run([OUTPUT], {k: x[i : i + BATCH] for k, x in feed.items()})[0]
            parts.append(draw_pixels(np.exp(log_rate.astype(np.float64)), self.config, rng))
        return np.concatenate(parts)


def fit_image_vae(
    training: tuple[NDArray[np.generic], F64], held_out: tuple[NDArray[np.generic], F64],
    config: VaeConfig | None = None, *, name: str, inputs: str, say: Say = print,
) -> ImageVae:  # fmt: skip
    """Train an autoencoder, then a flow to the latent points of its training images, and export
    both, or find them.

    Parameters
    ----------
    training, held_out : (images, condition)
        Shapes (n, n_pixels) and (n, n_conditions); the first condition is the one with which the
        logarithm of the signal grows, such as that of the energy.
    config : VaeConfig, optional
    name : str
        Of the files.
    inputs : str
        What the images are: part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    config = config or VaeConfig()
    mean, width = training[1].mean(axis=0), training[1].std(axis=0) + 1e-9
    scaled = [((part[1] - mean) / width).astype(np.float32) for part in (training, held_out)]
    options = {"n_noise": config.n_latent, "batch_size": config.train.batch_size}
    batches = [
        ImageBatches(part[0], condition, seed=config.train.seed, fixed=bool(k), **options)  # type: ignore[arg-type]
        for k, (part, condition) in enumerate(zip((training, held_out), scaled, strict=True))
    ]
    told = {
        "inputs": {name: batches[1][0][0][name][:N_REFERENCE] for name in (NOISE, CONDITION)},
        "kind": "noise",
        "normalisation": f"{NOISE}: latent point; {CONDITION}: mean 0 and width 1; {OUTPUT}: "
        "logarithm of the mean signal",
    }
    settings = {"config": asdict(config), "inputs": inputs}
    kept = fit_kept(
        f"{name}_vae", functools.partial(build_vae, config, training[0], scaled[0]),
        (batches[0], batches[1]), config.train, settings=settings,
        export=lambda model: {**told, "model": model.get_layer("decoder")}, say=say,
    )  # fmt: skip
    point = keras.Model(kept.model.inputs, kept.model.get_layer("point").output)
    rng, parts = np.random.default_rng((config.train.seed, 2)), []
    for part, condition in zip((training, held_out), scaled, strict=True):
        noise = rng.standard_normal((len(condition), config.n_latent)).astype(np.float32)
        feed = {IMAGE: part[0].astype(np.float32), CONDITION: condition, NOISE: noise}
        parts.append((predict(point, feed).astype(np.float64), part[1]))
    flow = fit_table_flow(
        parts[0], parts[1], config.flow, name=f"{name}_latent", inputs=str(settings), say=say
    )
    return ImageVae(config, mean, width, kept, flow)


def dispersion_of(images: F64, rates: F64, power: float) -> float:
    """Dispersion by Pearson's statistic of images about their rates, (n, n_pixels) both."""
    return float(np.mean((images - rates) ** 2 / np.maximum(rates, TINY) ** power))
