"""One training by several processes, on one machine or many: each takes its part of every batch,
and all take the same step, that of the whole batch.

``TF_CONFIG`` tells each process of the others, as for any training of TensorFlow with several
workers, and `tf.distribute` adds up what they find. Keras 3 cannot fit under
MultiWorkerMirroredStrategy itself (https://github.com/keras-team/keras/issues/20585), so every
process keeps a model of its own, and only gradients and losses travel.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from pfcalib.cache import locked
from pfcalib.errors import ConfigError, PfcalibError
from pfcalib.training.fit import HISTORY, ArrayBatches, Data, Say, fit_model, read_history
from pfcalib.training.networks import Network, NetworkConfig, Paths, build_network, network_folder
from pfcalib.training.networks import _data as network_data

VARIABLE = "TF_CONFIG"


class LostWorkerError(PfcalibError):
    """Another process of a training is gone, or none can be reached."""


class Workers(NamedTuple):
    """The processes of a training."""

    strategy: tf.distribute.MultiWorkerMirroredStrategy
    number: int  # of this one, from 0, which keeps the results
    of: int

    def total(self, values: Any) -> Any:
        """Sum over all processes, of tensors that all have; each waits for the others."""

        def add(parts: Any) -> Any:
            here = tf.nest.map_structure(tf.identity, parts)  # on the device that sends them
            return tf.distribute.get_replica_context().all_reduce("SUM", here)

        return self.strategy.run(add, args=(values,))

    def gathered(self, values: list[Any]) -> list[Any]:
        """Rows of all processes, of tensors that may have other numbers of them; None stays."""

        def join(parts: Any) -> Any:
            here = tf.nest.map_structure(tf.identity, parts)
            return tf.distribute.get_replica_context().all_gather(here, axis=0)

        there = [value for value in values if value is not None]
        found = iter(self.strategy.run(join, args=(there,)))
        return [None if value is None else next(found) for value in values]

    def counts(self, value: int) -> set[int]:
        """A number of each process, when all have come here."""
        mine = tf.one_hot(self.number, self.of, dtype=tf.float32) * float(value)
        return {int(count) for count in tf.function(self.total)(mine).numpy()}


def join_workers() -> Workers:
    """Meet the other processes of ``TF_CONFIG``; before TensorFlow does anything else.

    Raises
    ------
    ConfigError
        If ``TF_CONFIG`` does not list workers, or one has several accelerators.
    """
    try:
        told = json.loads(os.environ.get(VARIABLE, ""))
        number, of = int(told["task"]["index"]), len(told["cluster"]["worker"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{VARIABLE} must be {{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": '
            f'"worker", "index": 0}}}}, with the index of each: {error!r}'
        ) from None
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if strategy.num_replicas_in_sync != of:
        raise ConfigError(
            f"{of} workers have {strategy.num_replicas_in_sync} accelerators: give each at most "
            "one, by CUDA_VISIBLE_DEVICES"
        )
    return Workers(strategy, number, of)


class _Part(keras.utils.PyDataset):
    """Every n-th cluster of each batch; nothing of a batch that has fewer."""

    def __init__(self, whole: Any, workers: Workers) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.whole, self.mine = whole, slice(workers.number, None, workers.of)
        self.n_clusters = whole.n_clusters

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        inputs, *rest = self.whole[index]
        mine = {name: array[self.mine] for name, array in inputs.items()}
        return mine, *(array[self.mine] for array in rest)

    def set_epoch(self, epoch: int) -> None:
        """Order of the clusters in that epoch."""
        self.whole.set_epoch(epoch)

    def on_epoch_end(self) -> None:
        self.whole.on_epoch_end()


def fit_together(
    workers: Workers,
    paths: Paths,
    config: NetworkConfig,
    *,
    say: Say | None = None,
    folder: Path | None = None,
) -> Network:
    """Train a network as `training.networks.fit_network` does, each process with its part of every
    batch; all return it, and the first has written it.

    The steps are those of one process but for rounding and, with dropout, other draws of it.

    Parameters
    ----------
    workers : Workers
        Of `join_workers`.
    paths, config, say, folder
        As in `fit_network`; all processes must see the folder, where the training goes on.

    Raises
    ------
    ConfigError
        If the processes see different folders.
    LostWorkerError
        If another process is gone; all have to be started again, and go on after the last epoch.
    """
    folder = folder or network_folder(paths, config)
    try:
        with ExitStack() as stack:
            place = folder
            if workers.number == 0:
                stack.enter_context(locked(folder))
            workers.counts(0)  # the first one has the folder now, and waits
            if workers.number > 0:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfcalib-")))
                for path in [folder / "config.json", folder / HISTORY, *folder.glob("epoch-*.h5")]:
                    if path.exists():
                        shutil.copyfile(path, place / path.name)
            done = len(read_history(place / HISTORY).get("val_loss", ()))
            if len(workers.counts(done)) > 1:
                raise ConfigError(f"{folder}: not on a disk that all workers share")
            training, held_out = network_data(paths, config, ())
            model = build_network(config, training)
            _share_steps(model, workers)
            first = workers.number == 0
            result = fit_model(
                model,
                _part(training, config, workers, shuffle=True),
                _part(held_out, config, workers, shuffle=False),
                config.train,
                out_dir=place,
                say=say if first else lambda line: None,
            )
    except tf.errors.OpError as error:
        raise LostWorkerError(
            f"{folder}: another worker is gone ({error.message.splitlines()[0]}): start all again, "
            "and the training goes on after its last epoch"
        ) from error
    return Network(config, model, result, folder)


def _part(data: Data, config: NetworkConfig, workers: Workers, *, shuffle: bool) -> _Part:
    if isinstance(data, tuple):
        train = config.train
        data = ArrayBatches(data, batch_size=train.batch_size, seed=train.seed, shuffle=shuffle)
    return _Part(data, workers)


def _share_steps(model: keras.Model, workers: Workers) -> None:
    """Have a model step and judge by what all processes find."""

    def judge(data: Any, training: bool) -> tuple[Any, ...]:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        n = tf.cast(tf.shape(y)[0], tf.float32)
        y_pred = model(x, training=training)
        loss = model.compute_loss(x, y, y_pred, weight, training=training)
        return tf.math.multiply_no_nan(loss, n), n, [x, y, y_pred, weight]

    def told(loss: Any, n: Any, found: list[Any]) -> dict[str, Any]:
        tracker, *others = model.metrics
        tracker.update_state(loss / n, sample_weight=n)
        if others:
            found[1:] = workers.gathered(found[1:])
        return model.compute_metrics(*found)

    @tf.function(reduce_retracing=True)
    def train(data: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss, n, found = judge(data, True)
        gradients = tape.gradient(loss, model.trainable_weights)
        *gradients, loss, n = workers.total([*gradients, loss, n])
        model.optimizer.apply_gradients(
            [
                (gradient / n, weight)
                for gradient, weight in zip(gradients, model.trainable_weights, strict=True)
            ]
        )
        return told(loss, n, found)

    @tf.function(reduce_retracing=True)
    def test(data: Any) -> dict[str, Any]:
        loss, n, found = judge(data, False)
        loss, n = workers.total([loss, n])
        return told(loss, n, found)

    def use(name: str, step: Callable[[Any], Any]) -> Callable[..., None]:
        def make(force: bool = False) -> None:
            setattr(model, name, lambda iterator: step(next(iterator)))

        return make

    model.make_train_function = use("train_function", train)
    model.make_test_function = use("test_function", test)
