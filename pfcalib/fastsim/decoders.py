"""The network from a few latent quantities and the energy to the total
energy, the shares of the layers and in each layer the shares of the voxels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.flowmatching import BATCH, CONDITION, N_REFERENCE, NOISE, condition_of
from pfcalib.fastsim.scores import compose, depths, layer_energies, shares_in_layers
from pfcalib.fastsim.voxels import Voxels, layer_of
from pfcalib.samples.layouts.calochallenge import Binning
from pfcalib.training.kept import Kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
OUTPUT = "shower"
SPREAD = 0.05  # width of the total over the energy before any training, at 8 GeV


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A network from latent quantities to showers.

    Parameters
    ----------
    width, n_layers : int
    n_latent : int
    turn : bool
        Turn showers about their axis at random in training.
    threshold : float, GeV
        Below it a voxel is empty.
    """

    width: int = 256
    n_layers: int = 3
    n_latent: int = 16
    turn: bool = True
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.width, self.n_layers, self.n_latent) < 1:
            raise ConfigError(f"{type(self).__name__}: expected numbers above 0, got {self}")


@keras.saving.register_keras_serializable(package="pfcalib")
class Root(layers.Layer):
    """Square roots of the shares that a softmax gives."""

    def call(self, x: Any) -> Any:
        return ops.exp(0.5 * ops.log_softmax(x, axis=-1))


def build_decoder(binning: Binning, config: DecoderConfig) -> keras.Model:
    """Untrained network: inputs "noise" (n_latent,) and "condition" (1,); output total, roots of
    the shares of layers and of voxels (1 + n_layers + n_voxels,).
    """
    noise, condition = (
        keras.Input((config.n_latent,), name=NOISE),
        keras.Input((1,), name=CONDITION),
    )
    x = layers.Concatenate(name="both")([noise, condition])
    for i in range(config.n_layers):
        x = layers.Dense(config.width, activation="swish", name=f"dense{i}")(x)
    sizes = [len(binning.layers), *(layer.n_voxels for layer in binning.layers)]
    # the width of the total goes with E^(-1/2), as does exp(-condition)
    parts = [1.0 + SPREAD * ops.exp(-condition) * layers.Dense(1, name="total")(x)]
    parts += [
        Root(name=f"root{i}")(layers.Dense(size, name=f"shares{i}")(x))
        for i, size in enumerate(sizes)
    ]
    shower = layers.Concatenate(name=OUTPUT)(parts)
    return keras.Model({NOISE: noise, CONDITION: condition}, shower, name="decoder")


@dataclass(frozen=True)
class Decoder:
    """A trained decoder."""

    binning: Binning
    config: DecoderConfig
    kept: Kept  # whose file is the decoder alone

    @functools.cached_property
    def _session(self) -> Any:
        return open_session(self.kept.path)

    def inputs(self, energy: F64, rng: np.random.Generator) -> dict[str, F32]:
        """Inputs of the file."""
        noise = rng.standard_normal((len(energy), self.config.n_latent)).astype(np.float32)
        return {NOISE: noise, CONDITION: condition_of(energy)}

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted, parts = np.asarray(energy, dtype=np.float64), []
        first = 1 + len(self.binning.layers)
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            shower = self._session.run([OUTPUT], self.inputs(some, rng))[0].astype(np.float64)
            shower[:, 0] = np.maximum(shower[:, 0], 0.0)
            shower[:, 1:] **= 2
            shares = shower[:, first:]
            parts.append(
                compose(
                    layer_energies(some, shower[:, :first]), layer_of(self.binning), shares,
                    shares, threshold=self.config.threshold,
                )
            )  # fmt: skip
        showers = np.concatenate(parts or [np.zeros((0, self.binning.n_voxels))])
        return Voxels(self.binning, wanted, showers.astype(np.float32))


def shower_table(voxels: Voxels) -> F32:
    """Showers as the decoder gives them: total over energy, roots of shares of layers and of voxels
    in layers, (n, 1 + n_layers + n_voxels).
    """
    values = depths(voxels)
    roots = [np.sqrt(values[:, 1:]), np.sqrt(shares_in_layers(voxels))]
    return np.column_stack([values[:, :1], *roots]).astype(np.float32)


def decoder_export(energy: F64, config: DecoderConfig) -> dict[str, Any]:
    """What `export_onnx` is told of a decoder, with reference showers of some of the energies."""
    condition = condition_of(energy[:N_REFERENCE])
    noise = np.random.default_rng(1).standard_normal((len(condition), config.n_latent))
    return {
        "inputs": {NOISE: noise.astype(np.float32), CONDITION: condition}, "kind": "noise",
        "normalisation": f"{NOISE}: standard Gaussian; {CONDITION}: ln(energy / 8 GeV) / 2; "
        f"{OUTPUT}: total over energy, roots of shares of layers and of voxels in layers",
    }  # fmt: skip
