"""Networks of which most weights are zero: the smallest ones of each kernel are taken out of a
trained network, which is then trained a little more without them (arXiv:1506.02626).

ONNX Runtime multiplies zeros as fast as any number: a pruned network packs smaller, and is faster
only where hardware or a compiler leaves zeros out. tensorflow-model-optimization, which does the
same, does not know the layers of Keras 3 (its issue 1167).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pfcalib.cache import locked
from pfcalib.errors import ConfigError
from pfcalib.models.families import copy_weights
from pfcalib.training.fit import Say, TrainConfig, fit_model
from pfcalib.training.networks import Network, Paths, _data, build_network, network_folder

PRUNED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)  # none of their subclasses


def prune_kernels(model: keras.Model, sparsity: float) -> None:
    """Set the smallest weights of each dense and convolutional kernel to zero; no training of this
    object changes that again.

    Parameters
    ----------
    model : keras.Model
    sparsity : float
        Share of each kernel, rounded to whole weights.

    Raises
    ------
    ConfigError
        If the share does not lie in [0, 1), or there is no such kernel.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"sparsity = {sparsity!r}: expected in [0, 1)")
    kernels = [layer.kernel for layer in model.layers if type(layer) in PRUNED]
    if not kernels:
        raise ConfigError(f"model {model.name!r} has no dense or convolutional kernel to prune")
    for kernel in kernels:
        weights = keras.ops.convert_to_numpy(kernel)
        order = np.argsort(np.abs(weights), axis=None, kind="stable")
        mask = np.ones(weights.size, dtype=np.float32)
        mask[order[: round(sparsity * weights.size)]] = 0.0
        # the optimiser calls it after each step
        kernel.constraint = _masked(mask.reshape(weights.shape))
        kernel.assign(kernel.constraint(kernel))


def _masked(mask: np.ndarray) -> Callable[[Any], Any]:
    return lambda weights: weights * mask


def fit_pruned(
    paths: Paths,
    network: Network,
    sparsity: float,
    train: TrainConfig,
    *,
    say: Say | None = None,
    folder: Path | None = None,
) -> Network:
    """Prune a trained network and train it on, or take the result from its folder.

    Parameters
    ----------
    paths : path-like or sequence of them
        ROOT samples, as of `training.networks.fit_network`.
    network : Network
        Stays as it is.
    sparsity : float
        See `prune_kernels`.
    train : TrainConfig
        Of the further training, with the loss of the first one and no average of the weights:
        Keras averages what comes before zeros are set.
    say, folder
        See `training.networks.fit_network`.

    Raises
    ------
    ConfigError
        If the share is none, or the weights shall be averaged.
    """
    if train.ema:
        raise ConfigError(f"ema = {train.ema!r}: an average of the weights does not keep zeros")
    config = replace(network.config, train=train)
    if folder is None:
        folder = network_folder(paths, config, start=network)
        folder = folder.with_name(f"{folder.name}-pruned-{sparsity:g}")
    with locked(folder):
        training, held_out = _data(paths, config, ())
        model = build_network(config, training)
        copy_weights(network.model, model)
        prune_kernels(model, sparsity)
        result = fit_model(model, training, held_out, train, out_dir=folder, say=say)
    return Network(config, model, result, folder)
