"""The CNN that tells photons from fakes by windows of pixels, after the talk "Machine Learning @
ATLAS-LAPP".

It takes rows of pixels in GeV and cuts and scales the images itself, so that a file holds its
normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from pfcalib.errors import ConfigError
from pfcalib.photons.pairs import N_PIXELS, SHAPES, SLICES

Tensor = Any  # a symbolic keras tensor
EM_LAYERS = ("EMB1", "EMB2", "EMB3")
KERNELS = {"EMB1": (5, 3), "EMB2": (3, 3), "EMB3": (3, 3)}
SCALES = {  # GeV of a pixel at which arcsinh turns from linear to logarithmic, about four sigma
    "PreSamplerB": 0.16, "EMB1": 0.05, "EMB2": 0.14, "EMB3": 0.16, "TileBar0": 0.3, "TileBar1": 0.2,
}  # fmt: skip
MU_SCALE = 0.01  # of the input "mu"
NORMALISATION = (
    "pixels: GeV at the EM scale, "
    + ", ".join(f"{name} {n_eta} x {n_phi}" for name, (n_eta, n_phi) in SHAPES.items())
    + " about the hottest cell of EMB2, eta first; scaled inside; mu: collisions a crossing"
)


@keras.saving.register_keras_serializable(package="pfcalib")
class OverTotal(layers.Layer):
    """An image over the sum of its absolute values, as published; which may not be near zero, where
    a layer holds nothing but noise.
    """

    def call(self, inputs: Tensor) -> Tensor:
        total = ops.sum(ops.abs(inputs), axis=(1, 2, 3), keepdims=True)
        return inputs / ops.maximum(total, 1e-3)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class Arcsinh(layers.Layer):
    """arcsinh(x / scale): linear in the noise and logarithmic above, so that the energy stays."""

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs: Tensor) -> Tensor:
        return ops.arcsinh(inputs / self.scale)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable(package="pfcalib")
class LogSums(layers.Layer):
    """ln(E / GeV) of the images, (n, n_images), of rows of pixels; no less than that of 50 MeV."""

    def __init__(self, names: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)

    def call(self, inputs: Tensor) -> Tensor:
        sums = [ops.sum(inputs[:, SLICES[name]], axis=1, keepdims=True) for name in self.names]
        return ops.log(ops.maximum(ops.concatenate(sums, axis=1), 0.05))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], len(self.names))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "names": self.names}


@dataclass(frozen=True, kw_only=True)
class PhotonCnnConfig:
    """The CNN; the defaults are of the published size, 1.4 million parameters."""

    filters: int = 32
    convolutions: int = 2  # of a branch
    pooled: bool = False  # EMB1 halved in eta after each convolution but the first
    branch_width: int = 128
    widths: tuple[int, ...] = (256, 128)  # after the branches
    dropout: float = 0.08
    # False: each of EMB1-3 over its own energy, as published; True: beside that the arcsinh of its
    # pixels, so that energies are kept, and presampler and tiles
    energies: bool = False
    with_mu: bool = False

    def __post_init__(self) -> None:
        numbers = (self.filters, self.convolutions, self.branch_width, *self.widths)
        if min(numbers) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"PhotonCnnConfig: sizes above 0 and dropout in [0, 1), not {self}")


def build_photon_cnn(config: PhotonCnnConfig | None = None) -> keras.Model:
    """Untrained CNN: He initialisation, SELU, one sigmoid.

    Returns
    -------
    keras.Model
        Input "pixels" (n, N_PIXELS) float32, GeV, and "mu" (n, 1) if wanted; output "p_photon" (n,
        2): probability of a fake and of a photon. The cross-entropy of the two is the binary one.
    """
    config = config or PhotonCnnConfig()
    pixels = keras.Input((N_PIXELS,), name="pixels", dtype="float32")
    inputs = {"pixels": pixels}
    branches = [_branch(pixels, name, config) for name in EM_LAYERS]
    if config.energies:
        branches.append(LogSums(EM_LAYERS, name="log_energies")(pixels))
        for name in ("PreSamplerB", "TileBar0", "TileBar1"):
            flat = Arcsinh(SCALES[name], name=f"{name}_scaled")(pixels[:, SLICES[name]])
            branches.append(dense(flat, max(config.branch_width // 8, 4), f"{name}_dense"))
    if config.with_mu:
        inputs["mu"] = keras.Input((1,), name="mu", dtype="float32")
        branches.append(layers.Rescaling(MU_SCALE, name="mu_scaled")(inputs["mu"]))
    x = layers.Concatenate(name="merged")(branches)
    for i, width in enumerate(config.widths):
        x = dense(x, width, f"dense{i}")
        x = layers.Dropout(config.dropout, name=f"dropout{i}")(x)
    photon = layers.Dense(1, activation="sigmoid", name="photon")(x)
    fake = layers.Rescaling(-1.0, 1.0, name="fake")(photon)
    both = layers.Concatenate(name="p_photon")([fake, photon])
    return keras.Model(inputs, both, name="photon_cnn")


def dense(x: Tensor, width: int, name: str) -> Tensor:
    """A dense layer with SELU and He initialisation."""
    return layers.Dense(width, activation="selu", kernel_initializer="he_normal", name=name)(x)


def _branch(pixels: Tensor, name: str, config: PhotonCnnConfig) -> Tensor:
    """Convolutions on one image and a dense layer."""
    image = layers.Reshape((*SHAPES[name], 1), name=f"{name}_image")(pixels[:, SLICES[name]])
    x = OverTotal(name=f"{name}_shares")(image)
    if config.energies:
        energies = Arcsinh(SCALES[name], name=f"{name}_energies")(image)
        shares = layers.Rescaling(10.0, name=f"{name}_scaled")(x)
        x = layers.Concatenate(name=f"{name}_both")([energies, shares])
    for i in range(config.convolutions):
        x = layers.Conv2D(
            config.filters, KERNELS[name], padding="same", activation="selu",
            kernel_initializer="he_normal", name=f"{name}_conv{i}",
        )(x)  # fmt: skip
        if config.pooled and i > 0 and name == "EMB1":
            x = layers.MaxPooling2D((2, 1), name=f"{name}_pool{i}")(x)
    x = layers.Flatten(name=f"{name}_flat")(x)
    x = layers.Dropout(config.dropout, name=f"{name}_dropout")(x)
    return dense(x, config.branch_width, f"{name}_dense")
