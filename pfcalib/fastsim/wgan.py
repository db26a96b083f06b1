"""A Wasserstein GAN of showers with gradient penalty (arXiv:1704.00028), conditional on the energy,
with a second critic that sees total and layers alone (ATL-SOFT-PUB-2018-001).

The generator is the decoder of the autoencoder. Both critics see total and layers less their mean
and over their width at the energy of the particle: else a response of 1 % at high energy would
count for little beside one of 20 % at low energy. Losses of critics do not say how good the
generator is, so the epoch is that in which the distributions of all quantities are nearest to those
of the validation split.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.fastsim.adversarial import Rivals
from pfcalib.fastsim.decoders import (
    Decoder,
    DecoderConfig,
    build_decoder,
    decoder_export,
    shower_table,
)
from pfcalib.fastsim.flowmatching import CONDITION, NOISE, condition_of
from pfcalib.fastsim.scores import turns
from pfcalib.fastsim.vae import TRUTH, VaeBatches
from pfcalib.fastsim.voxels import Voxels
from pfcalib.samples.layouts.calochallenge import Binning
from pfcalib.training.fit import Say, TrainConfig
from pfcalib.training.kept import fit_kept

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
MEAN, WIDTH, BETWEEN, SHOWER = "mean", "width", "between", "seen"
LEAST = 5e-3  # width of total and of roots of shares of layers
VOXELS = 3.0  # factor of the roots of shares of voxels, which are smaller than those of layers
FAINT = 1e-3  # root of the share of a layer or voxel that is nearly never lit
SLOPE = 0.2  # of the critics' rectifiers below 0
CRITICS = ("critic", "layer_critic")


@dataclass(frozen=True, kw_only=True)
class WganConfig(DecoderConfig):
    """Networks and training; the critics are as large as the decoder.

    Parameters
    ----------
    penalty : float
        Weight of the squared distance of the critics' slopes from 1.
    n_critic : int
        Steps of the critics for one of the generator.
    train : TrainConfig
        Its loss is not used, its batch is that of one step.
    """

    penalty: float = 10.0
    n_critic: int = 2
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=5e-4, batch_size=128, epochs=100, patience=100, schedule="cosine_steps",
            loss="mse", ema=0.998,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.penalty, self.n_critic) <= 0:
            raise ConfigError(f"WganConfig: expected numbers above 0, got {self}")


class WganBatches(VaeBatches):
    """The same batches with mean and width of total and layers at the energy of each shower, and
    where critics' slopes are taken; all of them full.

    Parameters
    ----------
    mean, width : ndarray, shape (n, 1 + n_layers)
    options
        As of `VaeBatches`.
    """

    def __init__(self, mean: F32, width: F32, *data: F32, **options: Any) -> None:
        self.mean, self.width = mean, width
        super().__init__(*data, **options)

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[dict[str, F32], F32]:  # fmt: skip
        more = rng.integers(len(self.showers), size=self.batch_size - len(rows))
        rows = np.concatenate([rows, more])
        inputs, true = super().draw(rows, rng)
        inputs.pop(TRUTH)
        between = rng.random((len(rows), 1), np.float32)
        return {
            **inputs, MEAN: self.mean[rows], WIDTH: self.width[rows], BETWEEN: between,
        }, true  # fmt: skip


@keras.saving.register_keras_serializable(package="pfcalib")
class Wasserstein(Rivals):
    """Layers "decoder", "critic" of all of a shower and "layer_critic" of total and layers."""

    penalty = 0.0  # set by `build_wgan`, as are the rounds

    def compile(self, optimizer: Any, **options: Any) -> None:
        """Without momentum, which would follow critics of the past."""
        optimizer.beta_1 = 0.0
        super().compile(optimizer, **options)

    def losses(self, inputs: Any, true: Any) -> list[tuple[Any, keras.Model]]:
        found, fooled = [], 0.0
        for name, (real, made) in zip(CRITICS, self.pictures(inputs, true), strict=True):
            critic = self.get_layer(name)
            between = real + inputs[BETWEEN] * (made - real)
            with tf.GradientTape() as tape:
                tape.watch(between)
                value = critic({SHOWER: between, CONDITION: inputs[CONDITION]})
            slope = ops.sqrt(ops.sum(tape.gradient(value, between) ** 2, axis=1) + 1e-12)
            of_real, of_made = (
                ops.mean(critic({SHOWER: x, CONDITION: inputs[CONDITION]})) for x in (real, made)
            )
            penalty = self.penalty * ops.mean((slope - 1.0) ** 2)
            found.append((of_made - of_real + penalty, critic))
            fooled -= of_made
        return [*found, (fooled, self.get_layer("decoder"))]

    def pictures(self, inputs: Any, true: Any) -> list[tuple[Any, Any]]:
        made = self.get_layer("decoder")({NOISE: inputs[NOISE], CONDITION: inputs[CONDITION]})
        return list(zip(*(_views(inputs, x) for x in (true, made)), strict=True))


def _views(inputs: Any, shower: Any) -> tuple[Any, Any]:
    """What each critic sees of showers."""
    first = inputs[MEAN].shape[1]
    head = (shower[:, :first] - inputs[MEAN]) / inputs[WIDTH]
    return ops.concatenate([head, VOXELS * shower[:, first:]], axis=1), head


def build_wgan(binning: Binning, config: WganConfig, mean: F32 | None = None) -> Wasserstein:
    """Untrained decoder and critics in one: inputs "noise", "condition", "mean" and "width", and
    "between", a number from 0 to 1. From a mean shower, as the decoder gives it, the decoder knows
    how much layers and voxels have before any training.
    """
    first = 1 + len(binning.layers)
    sizes = {NOISE: config.n_latent, CONDITION: 1, MEAN: first, WIDTH: first, BETWEEN: 1}
    inputs = {name: keras.Input((size,), name=name) for name, size in sizes.items()}
    decoder = build_decoder(binning, config)
    if mean is not None:
        sizes_of = [1, len(binning.layers), *(layer.n_voxels for layer in binning.layers)]
        for i, roots in enumerate(np.split(mean, np.cumsum(sizes_of)[:-1])[1:]):
            decoder.get_layer(f"shares{i}").bias.assign(2.0 * np.log(np.maximum(roots, FAINT)))
    shower = decoder({k: inputs[k] for k in (NOISE, CONDITION)})
    values = [
        _build_critic(seen.shape[1], config, name)({SHOWER: seen, CONDITION: inputs[CONDITION]})
        for name, seen in zip(CRITICS, _views(inputs, shower), strict=True)
    ]
    model = Wasserstein(inputs, values, name="wgan")
    model.penalty, model.n_rounds = config.penalty, config.n_critic
    return model


def _build_critic(n: int, config: WganConfig, name: str) -> keras.Model:
    shower, condition = keras.Input((n,), name=SHOWER), keras.Input((1,), name=CONDITION)
    x = layers.Concatenate(name="both")([shower, condition])
    for i in range(config.n_layers):
        x = layers.LeakyReLU(SLOPE, name=f"bend{i}")(layers.Dense(config.width, name=f"look{i}")(x))
    value = layers.Dense(1, name="value")(x)
    return keras.Model({SHOWER: shower, CONDITION: condition}, value, name=name)


def fit_wgan(
    training: Voxels, held_out: Voxels, config: WganConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Decoder:  # fmt: skip
    """Train decoder and critics and export the former, or find them.

    Parameters
    ----------
    training, held_out : Voxels
        Of the same energies.
    config : WganConfig, optional
    inputs : str
        What the showers are: part of the key of the cache.
    say : callable
        Takes one line an epoch.
    """
    config = config or WganConfig()
    binning = training.binning
    orders = turns(binning) if config.turn else np.arange(binning.n_voxels)[None]
    first, energies = 1 + len(binning.layers), np.unique(training.energy)
    table = shower_table(training)
    head = table[:, :first]
    moments = np.array(
        [[of(head[training.energy == e], axis=0) for of in (np.mean, np.std)] for e in energies]
    )
    data = []
    for k, part in enumerate((training, held_out)):
        showers = shower_table(part)
        mean, width = np.moveaxis(moments[np.searchsorted(energies, part.energy)], 1, 0)
        data.append(
            WganBatches(
                mean.astype(np.float32), np.maximum(width, LEAST).astype(np.float32), showers,
                condition_of(part.energy), np.ones(showers.shape[1], np.float32),
                n_latent=config.n_latent, seed=config.train.seed, turns=orders, fixed=bool(k),
                batch_size=len(showers) if k else config.n_critic * config.train.batch_size,
            )
        )  # fmt: skip
    told = decoder_export(held_out.energy, config)
    build = functools.partial(build_wgan, binning, config, table.mean(axis=0))
    kept = fit_kept(
        f"wgan_{binning.pdg_id}", build, (data[0], data[1]), config.train,
        settings={"config": asdict(config), "inputs": inputs},
        export=lambda model: {**told, "model": model.get_layer("decoder")}, say=say,
    )  # fmt: skip
    return Decoder(binning, config, kept)
