"""A variational autoencoder of showers, conditional on the energy, with terms of the loss for total
and layers (after ATL-SOFT-PUB-2018-001).

The decoder gives the total energy over that of the particle, the shares of the layers and in each
layer the shares of the voxels. Compared are their square roots, of the total itself, each with a
weight; the latent quantities are pulled to standard Gaussians.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError
from pfcalib.fastsim.flowmatching import BATCH, CONDITION, N_REFERENCE, NOISE, condition_of
from pfcalib.fastsim.scores import compose, depths, layer_energies, shares_in_layers, turns
from pfcalib.fastsim.voxels import Voxels
from pfcalib.samples.layouts.calochallenge import Binning
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

F64, F32 = NDArray[np.float64], NDArray[np.float32]
TRUTH, OUTPUT = "truth", "shower"


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


class VaeBatches(keras.utils.PyDataset):
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
        super().__init__(workers=1, use_multiprocessing=False)
        self.showers, self.condition, self.scale = showers, condition, scale
        self.n_latent, self.batch_size, self.seed = n_latent, batch_size, seed
        self.turns, self.fixed, self.n_clusters = turns, fixed, len(showers)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order, turns and noise of that epoch."""
        self.epoch = 0 if self.fixed else epoch
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n_clusters)

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.n_clusters // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, F32], F32]:
        rng = np.random.default_rng((self.seed, self.epoch, 1 + index))
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
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
    parts = [layers.Dense(1, bias_initializer="ones", name="total")(x)]
    parts += [
        Root(name=f"root{i}")(layers.Dense(size, name=f"shares{i}")(x))
        for i, size in enumerate(sizes)
    ]
    shower = layers.Concatenate(name=OUTPUT)(parts)
    return keras.Model({NOISE: noise, CONDITION: condition}, shower, name="decoder")


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


@dataclass(frozen=True)
class Decoder:
    """A trained decoder."""

    binning: Binning
    config: DecoderConfig
    run: Callable[[dict[str, F32]], Any]  # from inputs to showers
    path: Path | None = None  # of its ONNX file

    def inputs(self, energy: F64, rng: np.random.Generator) -> dict[str, F32]:
        """Inputs of the file."""
        noise = rng.standard_normal((len(energy), self.config.n_latent)).astype(np.float32)
        return {NOISE: noise, CONDITION: condition_of(energy)}

    def generate(self, energy: ArrayLike, rng: np.random.Generator) -> Voxels:
        wanted, parts = np.asarray(energy, dtype=np.float64), []
        first = 1 + len(self.binning.layers)
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            shower = np.asarray(self.run(self.inputs(some, rng)), dtype=np.float64)
            shower[:, 0] = np.maximum(shower[:, 0], 0.0)
            shower[:, 1:] **= 2
            shares = shower[:, first:]
            parts.append(
                compose(
                    self.binning, layer_energies(some, shower[:, :first]), shares, shares,
                    threshold=self.config.threshold,
                )
            )  # fmt: skip
        showers = np.concatenate(parts or [np.zeros((0, self.binning.n_voxels))])
        return Voxels(self.binning, wanted, showers.astype(np.float32))


def open_decoder(path: Path, binning: Binning, config: DecoderConfig) -> Decoder:
    """The decoder of an ONNX file."""
    session = open_session(path)
    return Decoder(binning, config, lambda feed: session.run([OUTPUT], feed)[0], path)


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


@dataclass(frozen=True)
class Vae(Decoder):
    """The decoder of an autoencoder."""

    kept: Kept | None = None


def fit_vae(
    training: Voxels, held_out: Voxels, config: VaeConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Vae:  # fmt: skip
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
    return Vae(**vars(open_decoder(kept.path, binning, config)), kept=kept)


def _decoder(told: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    return {**told, "model": model.get_layer("decoder")}
