"""A Wasserstein GAN of showers with gradient penalty (arXiv:1704.00028), conditional on the energy,
with a second critic that sees total and layers alone (ATL-SOFT-PUB-2018-001).

The generator is the decoder of the autoencoder. Its losses do not say how good it is, so every few
epochs its showers are held against the validation split, and those of the nearest histograms stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from pfcalib.cache import cache_folder, cache_key, locked, write_text
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.errors import ConfigError
from pfcalib.fastsim.decoders import (
    Decoder,
    DecoderConfig,
    build_decoder,
    decoder_export,
    open_decoder,
    shower_table,
)
from pfcalib.fastsim.flowmatching import CONDITION, NOISE, condition_of
from pfcalib.fastsim.scores import turns
from pfcalib.fastsim.voxels import Voxels
from pfcalib.fastsim.yardstick import separations
from pfcalib.training.fit import Say

Tensor = Any
LEAK = 0.2  # of the critics' activations


@dataclass(frozen=True, kw_only=True)
class WganConfig(DecoderConfig):
    """Networks and their training.

    Parameters
    ----------
    penalty : float
        Weight of the squared distance of the critics' slopes from 1.
    n_critic : int
        Steps of the critics for one of the generator.
    learning_rate : float
        Of Adam with beta of 0 and 0.9.
    batch_size, epochs, seed : int
    n_checks : int
        Epochs between two looks at the validation split.
    """

    penalty: float = 10.0
    n_critic: int = 5
    learning_rate: float = 2e-4
    batch_size: int = 128
    epochs: int = 200
    n_checks: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (self.penalty, self.n_critic, self.learning_rate, self.batch_size, self.epochs)
        if min(*numbers, self.n_checks) <= 0:
            raise ConfigError(f"WganConfig: expected numbers above 0, got {self}")


def build_critic(n: int, config: WganConfig, name: str) -> keras.Model:
    """Untrained critic: inputs "shower" (n,) and "condition" (1,); output (1,)."""
    shower, condition = keras.Input((n,), name="shower"), keras.Input((1,), name=CONDITION)
    x = layers.Concatenate()([shower, condition])
    for _ in range(config.n_layers):
        x = layers.LeakyReLU(LEAK)(layers.Dense(config.width)(x))
    return keras.Model([shower, condition], layers.Dense(1)(x), name=name)


def fit_wgan(
    training: Voxels, held_out: Voxels, config: WganConfig | None = None, *, inputs: str,
    say: Say = print,
) -> Decoder:  # fmt: skip
    """Train generator and critics and export the former, or find it; a training that was killed
    goes on.

    Parameters
    ----------
    training, held_out : Voxels
    config : WganConfig, optional
    inputs : str
        What the showers are: part of the key of the cache.
    say : callable
        Takes one line a look at the validation split.
    """
    config = config or WganConfig()
    key = cache_key("training", name="wgan", config=config, inputs=inputs)
    path = cache_folder() / "models" / f"wgan-{key}" / f"wgan_{training.binning.pdg_id}.onnx"
    with locked(path.parent):
        if not contract_path(path).exists():  # it is written last
            keras.utils.set_random_seed(config.seed)
            generator = build_decoder(training.binning, config)
            _train(generator, training, held_out, config, path.parent, say)
            told = {"training": {**asdict(config), "inputs": inputs}, "model": generator}
            export_onnx(path=path, **told, **decoder_export(held_out.energy, config))
    return open_decoder(path, training.binning, config)


def _train(
    generator: keras.Model, training: Voxels, held_out: Voxels, config: WganConfig, folder: Path,
    say: Say,
) -> None:  # fmt: skip
    """Train the generator, which ends with its best weights."""
    folder.mkdir(parents=True, exist_ok=True)
    showers, condition = shower_table(training), condition_of(training.energy)
    first = showers.shape[1] - training.binning.n_voxels
    critics = [build_critic(n, config, f"critic{n}") for n in (showers.shape[1], first)]
    optimizers = [
        keras.optimizers.Adam(config.learning_rate, beta_1=0.0, beta_2=0.9) for _ in range(3)
    ]
    for optimizer, network in zip(optimizers, [generator, *critics], strict=True):
        optimizer.build(network.trainable_variables)
    steps = _steps(generator, critics, optimizers, config)
    done = tf.Variable(0, dtype=tf.int64)
    everything = tf.train.Checkpoint(
        done=done, networks=[generator, *critics], optimizers=optimizers
    )
    manager = tf.train.CheckpointManager(everything, str(folder / "wgan"), max_to_keep=1)
    if manager.latest_checkpoint:
        everything.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    history, best = folder / "wgan.json", folder / "best.weights.h5"
    found: list[float] = json.loads(history.read_text()) if history.exists() else []
    orders = turns(training.binning) if config.turn else np.arange(showers.shape[1] - first)[None]
    for epoch in range(int(done.numpy()), config.epochs):
        rng = np.random.default_rng((config.seed, epoch))
        for batch in np.array_split(
            rng.permutation(len(showers)), max(1, len(showers) // config.batch_size)
        ):
            real = showers[batch].copy()
            which = orders[rng.integers(len(orders), size=len(batch))]
            real[:, first:] = np.take_along_axis(real[:, first:], which, axis=1)
            noise = rng.standard_normal((2, len(batch), config.n_latent)).astype(np.float32)
            steps[0](real, condition[batch], noise[0])
            if rng.random() < 1.0 / config.n_critic:
                steps[1](condition[batch], noise[1])
        if (epoch + 1) % config.n_checks and epoch + 1 < config.epochs:
            continue
        made = Decoder(training.binning, config, lambda feed: generator(feed).numpy()).generate(
            held_out.energy, np.random.default_rng(1)
        )
        found.append(float(np.mean(list(separations(held_out, made).values()))))
        say(f"epoch {epoch + 1:>3}/{config.epochs}  mean separation {found[-1]:.4f}")
        if found[-1] <= min(found):
            generator.save_weights(best)
        done.assign(epoch + 1)
        manager.save()
        write_text(history, json.dumps(found))
    generator.load_weights(best)


def _steps(
    generator: keras.Model, critics: list[keras.Model], optimizers: list[Any], config: WganConfig
) -> tuple[Callable[..., None], Callable[..., None]]:
    """A step of the critics, given showers, conditions and noise, and one of the generator."""

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def of_critics(real: Tensor, condition: Tensor, noise: Tensor) -> None:
        fake = generator({NOISE: noise, CONDITION: condition})
        share = tf.random.uniform((tf.shape(real)[0], 1), seed=config.seed)
        for critic, optimizer in zip(critics, optimizers[1:], strict=True):
            n = critic.inputs[0].shape[1]
            true, false = real[:, :n], fake[:, :n]
            between = true + share * (false - true)
            with tf.GradientTape() as tape:
                with tf.GradientTape() as inner:
                    inner.watch(between)
                    value = critic([between, condition])
                slope = tf.sqrt(tf.reduce_sum(inner.gradient(value, between) ** 2, axis=1) + 1e-12)
                loss = tf.reduce_mean(
                    critic([false, condition]) - critic([true, condition])
                ) + config.penalty * tf.reduce_mean((slope - 1.0) ** 2)
            weights = critic.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def of_generator(condition: Tensor, noise: Tensor) -> None:
        with tf.GradientTape() as tape:
            fake = generator({NOISE: noise, CONDITION: condition})
            loss = -sum(
                tf.reduce_mean(critic([fake[:, : critic.inputs[0].shape[1]], condition]))
                for critic in critics
            )
        weights = generator.trainable_variables
        optimizers[0].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    return of_critics, of_generator
