"""A variational autoencoder of showers, conditional on the energy, with terms of the loss for total
and layers (after ATL-SOFT-PUB-2018-001).

Compared are the total and the square roots of the shares of layers and voxels, each with a weight;
the latent quantities are pulled to standard Gaussians.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.fastsim.decoders import (
    Decoder,
    DecoderConfig,
    build_decoder,
    decoder_export,
    shower_table,
)
from pfcalib.fastsim.flowmatching import CONDITION, NOISE, condition_of
from pfcalib.fastsim.noisybatches import NoisyBatches
from pfcalib.fastsim.scores import turns
from pfcalib.fastsim.voxels import Voxels
from pfcalib.samples.layouts.calochallenge import Binning
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
TRUTH = "truth"


@dataclass(frozen=True, kw_only=True)
class VaeConfig(DecoderConfig):
    """Terms of the loss and training; the encoder is as large as the decoder.

    Parameters
    ----------
    total, layers, voxels : float
        Weights of the squared errors of total, roots of shares of layers and of voxels.
    latent : float
        Weight of the divergence of the latent quantities, against the sum of squared errors. That
        of the likelihood is twice the mean squared error; with less they are no Gaussians.
    train : TrainConfig
    """

    total: float = 30.0
    layers: float = 30.0
    voxels: float = 1.0
    latent: float = 0.02
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=128, epochs=100, patience=100, schedule="cosine_steps",
            loss="mse",
        )
    )  # fmt: skip


class VaeBatches(NoisyBatches):
    """Batches of showers as encoder and decoder see them, turned at random, with noise; drawn anew
    in each epoch, the same ones for the same seed.

    Parameters
    ----------
    showers : ndarray, shape (n, 1 + n_layers + n_voxels)
        Total, roots of shares of layers, and of voxels.
    condition : ndarray, shape (n, 1)
    scale : ndarray, shape (1 + n_layers + n_voxels,)
        Of each column in the loss.
    n_latent, batch_size, seed : int
    turns : ndarray of int, shape (n_turns, n_voxels)
    fixed : bool
        All epochs are the first one, for validation.
    """

    def __init__(
        self, showers: F32, condition: F32, scale: F32, *, n_latent: int, batch_size: int,
        seed: int, turns: NDArray[np.int64], fixed: bool = False,
    ) -> None:  # fmt: skip
        self.showers, self.condition, self.scale = showers, condition, scale
        self.n_latent, self.turns = n_latent, turns
        super().__init__(len(showers), batch_size=batch_size, seed=seed, fixed=fixed)

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[dict[str, F32], F32]:  # fmt: skip
        showers = self.showers[rows].copy()
        first = showers.shape[1] - self.turns.shape[1]
        which = self.turns[rng.integers(len(self.turns), size=len(rows))]
        showers[:, first:] = np.take_along_axis(showers[:, first:], which, axis=1)
        noise = rng.standard_normal((len(rows), self.n_latent)).astype(np.float32)
        inputs = {TRUTH: showers, CONDITION: self.condition[rows], NOISE: noise}
        return inputs, showers * self.scale


@keras.saving.register_keras_serializable(package="pfcalib")
class Latent(layers.Layer):
    """Draws from Gaussians of given means and logarithms of widths, whose divergence from standard
    ones is a loss.
    """

    def __init__(self, weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight

    def call(self, mean: Any, log_width: Any, noise: Any) -> Any:
        width = ops.exp(log_width)
        divergence = 0.5 * (mean * mean + width * width - 1.0) - log_width
        self.add_loss(self.weight * ops.mean(ops.sum(divergence, axis=-1)))
        return mean + width * noise

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight": self.weight}


def build_vae(binning: Binning, scale: F32, config: VaeConfig) -> keras.Model:
    """Untrained encoder and decoder: inputs "truth", "condition" and "noise"; output the shower,
    each column by its scale in the loss. The decoder is its layer "decoder".
    """
    truth, condition, noise = (
        keras.Input((size,), name=name)
        for name, size in ((TRUTH, len(scale)), (CONDITION, 1), (NOISE, config.n_latent))
    )
    x = layers.Concatenate(name="seen")([truth, condition])
    for i in range(config.n_layers):
        x = layers.Dense(config.width, activation="swish", name=f"encode{i}")(x)
    mean, log_width = (
        layers.Dense(config.n_latent, name=name)(x) for name in ("mean", "log_width")
    )
    # as of the mean over columns that the loss takes
    drawn = Latent(config.latent / len(scale), name="latent")(mean, log_width, noise)
    shower = build_decoder(binning, config)({NOISE: drawn, CONDITION: condition})
    scaled = layers.Multiply(name="scaled")([shower, Constant(scale.tolist())(condition)])
    return keras.Model({TRUTH: truth, CONDITION: condition, NOISE: noise}, scaled, name="vae")


@keras.saving.register_keras_serializable(package="pfcalib")
class Constant(layers.Layer):
    """The same row for each row of what comes in."""

    def __init__(self, values: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.values = values

    def call(self, x: Any) -> Any:
        return 0.0 * x[:, :1] + np.array(self.values, dtype=np.float32)[None, :]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "values": self.values}


def fit_vae(
    training: Voxels, held_out: Voxels, config: VaeConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Decoder:  # fmt: skip
    """Train encoder and decoder and export the latter, or find them.

    Parameters
    ----------
    training, held_out : Voxels
    config : VaeConfig, optional
    inputs : str
        What the showers are: part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    config = config or VaeConfig()
    binning = training.binning
    sizes = (1, len(binning.layers), binning.n_voxels)
    weights = np.repeat([config.total, config.layers, config.voxels], sizes)
    scale = np.sqrt(weights).astype(np.float32)
    orders = turns(binning) if config.turn else np.arange(binning.n_voxels)[None]
    data = [
        VaeBatches(
            shower_table(part),
            condition_of(part.energy), scale, n_latent=config.n_latent,
            batch_size=config.train.batch_size, seed=config.train.seed, turns=orders, fixed=bool(k),
        )
        for k, part in enumerate((training, held_out))
    ]  # fmt: skip
    told = decoder_export(held_out.energy, config)
    kept = fit_kept(
        f"vae_{binning.pdg_id}", functools.partial(build_vae, binning, scale, config),
        (data[0], data[1]), config.train, settings={"config": asdict(config), "inputs": inputs},
        export=functools.partial(_decoder, told), say=say,
    )  # fmt: skip
    return Decoder(binning, config, kept)


def _decoder(told: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    return {**told, "model": model.get_layer("decoder")}
