"""Networks trained once, kept in the cache under all that decides on them, and exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import keras

from pfcalib.cache import cache_folder, cache_key, locked
from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import export_onnx
from pfcalib.training.fit import Data, Say, TrainConfig, TrainResult, fit_model, weights_path


class Kept(NamedTuple):
    """A trained network."""

    model: Any  # keras.Model with the weights of its best epoch, or of the last
    result: TrainResult
    path: Path  # its ONNX file


def fit_kept(
    name: str,
    build: Callable[[], keras.Model],
    data: tuple[Data, Data],
    train: TrainConfig,
    *,
    settings: Mapping[str, Any],
    export: Callable[[keras.Model], Mapping[str, Any]] | None = None,
    last: bool = False,
    say: Say = print,
) -> Kept:
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    name : str
        Of the file.
    build : callable
        Makes the untrained network, whose layers are adapted.
    data : (training, validation)
        As `training.fit.fit_model` takes them.
    train : TrainConfig
        Its seed is set before the network is built.
    settings : mapping
        JSON values: all that decides on network and data, such as a hash of the data; part of the
        key of the cache, and told in the contract.
    export : callable, optional
        Of the trained network the arguments of `deploy.export.export_onnx`: inputs, kind,
        normalisation, and model if another one than the trained is to be in the file. Without it
        there is no file.
    last : bool
        Take the weights of the last epoch and not those of the best.
    say : callable
        Takes one line an epoch.
    """
    key = cache_key("training", name=name, train=asdict(train), last=last, settings=dict(settings))
    path = cache_folder() / "models" / f"{name}-{key}" / f"{name}.onnx"
    with locked(path.parent):
        keras.utils.set_random_seed(train.seed)
        model = build()
        result = fit_model(model, *data, train, out_dir=path.parent, say=say)
        if last:
            model.load_weights(weights_path(path.parent, len(result.history["val_loss"]) - 1))
        if export and not contract_path(path).exists():  # it is written last
            told = {"train": asdict(train), **settings, "best_epoch": result.best_epoch}
            export_onnx(**{"model": model, "path": path, "training": told, **export(model)})
    return Kept(model, result, path)
