"""Auto-encoders that take pile-up out of images: one for each layer or one for all, and an encoder
that says what the latent numbers of the image without pile-up would be.

Pixels go in and come out in GeV; inside, they are arcsinh of a pixel over four times its noise. A
second part of what is learned, if wanted, is the logarithm of the energy of each layer, whose
squared difference is the square of a log ratio, so that energies are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pfcalib.errors import ConfigError
from pfcalib.models.blocks import BN_MOMENTUM
from pfcalib.photons.pairs import F32, N_PIXELS, SHAPES, SLICES
from pfcalib.photons.photonnets import SCALES, LogSums, dense

Tensor = Any  # a symbolic keras tensor
NAMES = tuple(SHAPES)
PIXEL_SCALES = np.concatenate(
    [np.full(SLICES[name].stop - SLICES[name].start, SCALES[name]) for name in NAMES]
).astype(np.float32)
LARGEST = 8.0  # of a scaled pixel: 75 GeV in a strip
LEAST = 0.05  # GeV of a layer, below which its logarithm stays


@keras.saving.register_keras_serializable(package="pfcalib")
class ScalePixels(layers.Layer):
    """Rows of pixels, GeV, to arcsinh(E / scale) or back."""

    def __init__(self, *, back: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.back = back

    def call(self, inputs: Tensor) -> Tensor:
        if self.back:
            # sinh, which ONNX has not in every opset
            bounded = ops.clip(inputs, -LARGEST, LARGEST)
            return PIXEL_SCALES * 0.5 * (ops.exp(bounded) - ops.exp(-bounded))
        return ops.arcsinh(inputs / PIXEL_SCALES)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "back": self.back}


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """An auto-encoder.

    Parameters
    ----------
    joint : bool
        One for all layers; else one for each.
    latent : int
        Latent numbers in all; those of a layer go with its pixels, at least four.
    width : int
        Of the hidden layers, shared out likewise.
    skip : bool
        Decode what is to be taken away from the image, and not the image, so that what pile-up did
        not touch need not fit through the latent numbers.
    energy_weight : float
        Of the logarithms of the energies of layers; 0 leaves them out.
    """

    joint: bool = True
    latent: int = 64
    width: int = 256
    skip: bool = False
    energy_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.latent < 4 or self.width < 4 or self.energy_weight < 0.0:
            raise ConfigError(f"DenoiserConfig: latent and width of 4 or more, not {self}")


def build_denoiser(config: DenoiserConfig | None = None) -> keras.Model:
    """Untrained auto-encoder.

    Returns
    -------
    keras.Model
        Input "pixels" (n, N_PIXELS) float32, GeV; output "learned", what `learned` makes of the
        image without pile-up. `denoiser_of` and `encoder_of` give its parts.
    """
    config = config or DenoiserConfig()
    pixels = keras.Input((N_PIXELS,), name="pixels", dtype="float32")
    scaled = ScalePixels(name="scaled")(pixels)
    parts = {"all": slice(0, N_PIXELS)} if config.joint else SLICES
    sizes = {
        name: tuple(
            max(round((where.stop - where.start) / N_PIXELS * n), 4)
            for n in (config.latent, config.width)
        )
        for name, where in parts.items()
    }
    codes = [
        layers.Dense(latent, name=f"{name}_latent")(
            dense(scaled[:, parts[name]], width, f"{name}_encode")
        )
        for name, (latent, width) in sizes.items()
    ]
    code = _join(codes, "latent")
    images, first = [], 0
    for name, (latent, width) in sizes.items():
        hidden = dense(code[:, first : first + latent], width, f"{name}_decode")
        first += latent
        where = parts[name]
        images.append(layers.Dense(where.stop - where.start, name=f"{name}_image")(hidden))
    image = _join(images, "images")
    if config.skip:
        image = layers.Add(name="kept")([scaled, image])
    image = layers.Activation("linear", name="clean")(image)
    found = [image]
    if config.energy_weight:
        sums = LogSums(NAMES, name="log_energies")(ScalePixels(back=True, name="back")(image))
        found.append(layers.Rescaling(config.energy_weight, name="weighted")(sums))
    return keras.Model({"pixels": pixels}, _join(found, "learned"), name="paed")


def _join(parts: list[Tensor], name: str) -> Tensor:
    """Side by side, under a name also where there is but one."""
    one = len(parts) == 1
    layer = layers.Activation("linear", name=name) if one else layers.Concatenate(name=name)
    return layer(parts[0] if one else parts)


def learned(config: DenoiserConfig, clean: F32) -> F32:
    """What an auto-encoder is to say of images without pile-up: scaled pixels, and the logarithms
    of the energies of layers times their weight if it has one.
    """
    found = [np.arcsinh(clean / PIXEL_SCALES)]
    if config.energy_weight:
        sums = np.stack([clean[:, SLICES[name]].sum(axis=1) for name in NAMES], axis=1)
        found.append(config.energy_weight * np.log(np.maximum(sums, LEAST)))
    return np.concatenate(found, axis=1).astype(np.float32)


def denoiser_of(model: keras.Model) -> keras.Model:
    """From pixels to pixels, GeV."""
    clean = ScalePixels(back=True, name="denoised")(model.get_layer("clean").output)
    return keras.Model(model.input, clean, name="denoiser")


def encoder_of(model: keras.Model) -> keras.Model:
    """From pixels to latent numbers."""
    return keras.Model(model.input, model.get_layer("latent").output, name="encoder")


def chain(first: keras.Model, then: keras.Model) -> keras.Model:
    """A network on what another one makes of the pixels, as one to be exported."""
    pixels = keras.Input((N_PIXELS,), name="pixels", dtype="float32")
    made = first({"pixels": pixels})
    last = then({"pixels": made} if isinstance(then.input, dict) else made)
    output = layers.Activation("linear", name="p_photon")(last)
    return keras.Model({"pixels": pixels}, output, name=f"{first.name}_{then.name}")


def build_head(n_latent: int, *, width: int = 64) -> keras.Model:
    """Untrained classifier of latent numbers (n, n_latent); output as of the CNN."""
    code = keras.Input((n_latent,), name="code", dtype="float32")
    x = dense(
        dense(layers.BatchNormalization(momentum=BN_MOMENTUM, name="norm")(code), width, "one"),
        width,
        "two",
    )
    photon = layers.Dense(1, activation="sigmoid", name="photon")(x)
    fake = layers.Rescaling(-1.0, 1.0, name="fake")(photon)
    return keras.Model(code, layers.Concatenate(name="p_photon")([fake, photon]), name="head")
