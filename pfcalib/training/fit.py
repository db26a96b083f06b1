"""Training of a network with Keras callbacks: checkpoints, early stopping, restart, one line an
epoch.

After every epoch the weights (with the optimiser's state) go to a file named by the epoch, then a
row to `history.csv`: the rows are the record of what is done, and all decisions (best epoch,
patience, learning rate) are functions of them. So a killed training that is started again in the
same folder goes on as if nothing had happened. Keras' BackupAndRestore, EarlyStopping and
ReduceLROnPlateau forget how long they have waited, and none keeps the state of dropout.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from pfcalib.cache import new_file
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.models.bayes import BayesianDense
from pfcalib.models.losses import build_loss

Arrays = tuple[Any, ...]  # (inputs, labels or targets) or (inputs, labels or targets, weights)
History = Mapping[str, NDArray[np.float64]]  # by column, one entry an epoch; empty before the first
# takes the epoch, from 0, and its row of the history
Watch: TypeAlias = Callable[[int, Mapping[str, float]], None]
Data: TypeAlias = keras.utils.PyDataset | Arrays
Say: TypeAlias = Callable[[str], None]
SCHEDULES = ("constant", "cosine", "cosine_steps", "plateau")
WARM_UP = 0.05  # of all steps, in the schedule "cosine_steps"
ANNEALING = 0.3  # of the epochs, in which the divergence of Gaussian weights comes to count
HISTORY = "history.csv"


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training; learning rate, batch and epochs are the published ones of the flat
    network.
    """

    learning_rate: float = 5e-5  # of Adam, or AdamW
    batch_size: int = 200  # for arrays; a stream brings its own
    epochs: int = 100
    patience: int = 20  # epochs without a lower validation loss before the training stops
    # "cosine": falls to 1 % over the epochs; "cosine_steps": rises in the first steps, then falls
    # to 0, step by step; "plateau": halves after plateau_patience epochs without gain
    schedule: str = "constant"
    plateau_patience: int = 3
    loss: str = "crossentropy"  # of models.losses, to fit the head of the network
    huber_delta: float = 0.1  # where the loss "huber" becomes linear, in units of the target
    energy_weight: float = 5.0  # of the energy in the loss "class_and_energy"
    # of networks side by side in the loss "members"; 1 is that of draws from the posterior
    repulsion: float = 1.0
    clip_norm: float | None = None  # largest norm of a gradient
    weight_decay: float = 0.0  # of AdamW (arXiv:1711.05101), not of biases; 0 is Adam
    # momentum of the average of the weights over the steps, which is validated and kept; 0: none
    ema: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            free = ("schedule", "loss", "seed", "clip_norm", "weight_decay", "ema")
            if name not in free and not value > 0:
                raise ConfigError(f"TrainConfig: {name} = {value!r}, expected above 0")
        if not (self.weight_decay >= 0.0 and 0.0 <= self.ema < 1.0):
            raise ConfigError(
                f"TrainConfig: weight_decay = {self.weight_decay!r}, ema = {self.ema!r}, expected "
                "not below 0, and the latter below 1"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"TrainConfig: clip_norm = {self.clip_norm!r}, expected above 0")
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"TrainConfig: schedule = {self.schedule!r}, expected one of {', '.join(SCHEDULES)}"
            )


@dataclass(frozen=True)
class TrainResult:
    """What a training did; the model holds the weights of the best epoch when it ends."""

    # loss, accuracy, val_loss, val_accuracy, learning_rate, seconds: (n_epochs,)
    history: Mapping[str, NDArray[np.float64]]
    best_epoch: int  # from 0; lowest validation loss
    seconds: float  # in all epochs, those before a restart included
    n_parameters: int
    clusters_per_second: float  # of training, the median over epochs


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays, shuffled anew every epoch by seed and epoch, so that a restart sees what
    it would have seen.
    """

    def __init__(self, data: Arrays, *, batch_size: int, seed: int, shuffle: bool) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        if len(data) not in (2, 3):
            raise ConfigError(
                f"arrays: expected (inputs, labels) or (inputs, labels, weights), got {len(data)} "
                "of them"
            )
        self.inputs, *self.targets = data
        self.n_clusters, self.batch_size, self.seed, self.shuffle = (
            len(self.targets[0]),
            batch_size,
            seed,
            shuffle,
        )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order of the clusters in that epoch."""
        self.epoch = epoch
        order = np.arange(self.n_clusters)
        self.order = (
            np.random.default_rng((self.seed, epoch)).permutation(order) if self.shuffle else order
        )

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.n_clusters // self.batch_size)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return {name: array[rows] for name, array in self.inputs.items()}, *(
            target[rows] for target in self.targets
        )


class _Epochs(keras.callbacks.CSVLogger):
    """Adds speed and time to the row of an epoch and, when it is written, forgets old weights, says
    one line and stops when patience is over; sets the rate of each step.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        losses: list[float],
        n_clusters: int,
        n_steps: int,
        say: Say,
    ) -> None:
        super().__init__(folder / HISTORY, append=True)
        self.config, self.folder, self.losses = config, folder, losses
        self.n_clusters, self.n_steps, self.say = n_clusters, n_steps, say

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # checkpoints do not hold the random numbers of dropout and of weights: they start anew from
        # seed, epoch and place in the model; a layer of rate 0 has none
        for place, layer in enumerate(self.model.layers):
            drops = isinstance(layer, keras.layers.Dropout) and layer.rate > 0.0
            if drops or isinstance(layer, BayesianDense):
                layer.seed_generator.state.assign(
                    np.random.SeedSequence((self.config.seed, epoch, place)).generate_state(2)
                )
            if isinstance(layer, BayesianDense):
                share = (epoch + 1) / (ANNEALING * self.config.epochs)
                layer.kl_weight.assign(min(share, 1.0) / self.n_clusters)
        if self.losses:  # a checkpoint and a validation leave the averages in the model
            _swap_averages(self.model)
        self.started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self.config.schedule == "cosine_steps":
            self.model.optimizer.learning_rate = learning_rate(
                self.config, self.losses, batch / self.n_steps
            )

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # the validation of an epoch begins where its training ends
        self.trained = time.perf_counter()
        _swap_averages(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {} if logs is None else logs
        row["seconds"] = time.perf_counter() - self.started
        row["clusters_per_second"] = self.n_clusters / (self.trained - self.started)
        super().on_epoch_end(epoch, row)
        self.losses.append(row["val_loss"])
        best = best_epoch(self.losses)
        kept = (weights_path(self.folder, epoch), weights_path(self.folder, best))
        for path in self.folder.glob("epoch-*.weights.h5"):
            if path not in kept:
                path.unlink()
        told = [name for name in ("loss", "val_loss", "val_accuracy") if name in row]
        numbers = "  ".join(f"{name} {row[name]:.4f}" for name in told)
        speed = f"{row['clusters_per_second']:.0f} clusters/s  {row['seconds']:.1f} s"
        end = "  best" if epoch == best else ""
        self.say(f"epoch {epoch + 1:>3}/{self.config.epochs}  {numbers}  {speed}{end}")
        self.model.stop_training = epoch - best >= self.config.patience


def _swap_averages(model: keras.Model) -> None:
    """Exchange the weights of a model and their averages over the steps, if there are any.

    Keras' SwapEMAWeights does not know after a restart that a checkpoint holds the averages.
    """
    optimizer = model.optimizer
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for weight, average in zip(model.trainable_variables, averages, strict=True):
            value = keras.ops.convert_to_numpy(weight)
            weight.assign(average)
            average.assign(value)


def weights_path(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch (from 0) are kept; the name counts from 1, as Keras does."""
    return folder / f"epoch-{epoch + 1:04d}.weights.h5"


def best_epoch(val_loss: ArrayLike) -> int:
    """Epoch, from 0, of the lowest validation loss; one that is not a number is never the best."""
    return int(np.argmin(np.nan_to_num(val_loss, nan=np.inf, posinf=np.inf)))


def read_history(path: Path) -> History:
    """Columns of a history, (n_epochs,) each, without the epoch; none before the first epoch.

    Raises
    ------
    BadFileError
        If a row is broken or an epoch is missing.
    """
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        table = (
            {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}
        )
        if rows and not np.array_equal(table.pop("epoch"), np.arange(len(table["val_loss"]))):
            raise ValueError("its epochs are not 0, 1, 2, ...")
    except (ValueError, TypeError, KeyError) as error:
        raise BadFileError(f"{path}: not a training history: {error}") from error
    return table


def learning_rate(config: TrainConfig, val_loss: Sequence[float], done: float = 0.0) -> float:
    """Learning rate of the next epoch, or of a step of which a share `done` of its epoch lies
    before, a function of the validation losses so far.

    >>> config = TrainConfig(learning_rate=1.0, epochs=3, schedule="cosine")
    >>> [round(learning_rate(config, [0.0] * n), 3) for n in range(3)]
    [1.0, 0.505, 0.01]
    """
    epoch = len(val_loss)
    if config.schedule == "cosine":
        return config.learning_rate * (
            0.01 + 0.99 * 0.5 * (1.0 + float(np.cos(np.pi * epoch / max(config.epochs - 1, 1))))
        )
    if config.schedule == "cosine_steps":
        share = (epoch + done) / config.epochs
        fall = max(share - WARM_UP, 0.0) / (1.0 - WARM_UP)
        rise = min(share / WARM_UP, 1.0)
        return config.learning_rate * rise * 0.5 * (1.0 + float(np.cos(np.pi * fall)))
    if config.schedule == "plateau":
        lowest, waited, halvings = np.inf, 0, 0
        for loss in val_loss:
            lowest, waited = (loss, 0) if loss < lowest else (lowest, waited + 1)
            if waited == config.plateau_patience:
                waited, halvings = 0, halvings + 1
        return float(config.learning_rate * 0.5**halvings)
    return config.learning_rate


def fit_model(
    model: keras.Model,
    training: Data,
    validation: Data,
    config: TrainConfig | None = None,
    *,
    out_dir: str | Path,
    say: Say | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train a network; the model ends with the weights of its best epoch, which
    `out_dir/model.keras` holds too.

    Parameters
    ----------
    model : keras.Model
        With a head that fits the loss of the configuration. Build it after
        `keras.utils.set_random_seed` for the same start.
    training, validation : keras PyDataset or tuple of arrays
        Batches of (inputs, labels[, weights]), or whole arrays of the same: inputs a dict by name,
        labels one-hot (n_clusters, 2) or targets (n_clusters, n) float32. A PyDataset that shuffles
        should have `set_epoch(epoch)`; without it a restart begins with its first order.
    out_dir : path
        Folder of checkpoints. A training that was killed there goes on; one with other settings is
        refused.
    say : callable, optional
        Takes the one line of each epoch; by default it is printed.
    watch : callable, optional
        Called after each epoch, when its checkpoint is written; what it raises ends the training.

    Raises
    ------
    ConfigError
        If out_dir holds a training with other settings, another model or another number of
        clusters.
    """
    config = config or TrainConfig()
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    train_data, val_data = (
        data
        if isinstance(data, keras.utils.PyDataset)
        else ArrayBatches(data, batch_size=config.batch_size, seed=config.seed, shuffle=shuffle)
        for data, shuffle in ((training, True), (validation, False))
    )
    n_clusters = int(getattr(train_data, "n_clusters", len(train_data) * config.batch_size))
    facts = {"model": model.name, "n_parameters": model.count_params(), "n_clusters": n_clusters}
    losses = _resume(model, folder, config, facts)
    done = len(losses)
    if hasattr(train_data, "set_epoch"):
        train_data.set_epoch(done)
    say = say or Console(highlight=False, soft_wrap=True).print
    rows = _Epochs(config, folder, losses, n_clusters, len(train_data), say)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: learning_rate(config, losses)),
        keras.callbacks.ModelCheckpoint(
            folder / "epoch-{epoch:04d}.weights.h5", save_weights_only=True
        ),
        rows,
        keras.callbacks.LambdaCallback(on_epoch_end=watch),
    ]
    if done < config.epochs and (done == 0 or done - 1 - best_epoch(losses) < config.patience):
        try:
            model.fit(
                train_data,
                validation_data=val_data,
                initial_epoch=done,
                epochs=config.epochs,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        finally:  # also where `say` or `watch` ends the training
            rows.on_train_end()
    return _finish(model, folder)


def _resume(
    model: keras.Model, folder: Path, config: TrainConfig, facts: Mapping[str, Any]
) -> list[float]:
    """Compile the model; give it the state of the last epoch if the folder holds one of the same
    settings. Returns the validation losses so far.
    """
    accuracy = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    optimizer = keras.optimizers.AdamW(
        config.learning_rate,
        weight_decay=config.weight_decay,
        clipnorm=config.clip_norm,
        use_ema=config.ema > 0.0,
        ema_momentum=config.ema,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "log_sigma"])
    model.compile(
        optimizer=optimizer,
        loss=build_loss(
            config.loss,
            delta=config.huber_delta,
            energy_weight=config.energy_weight,
            repulsion=config.repulsion / facts["n_clusters"],
        ),
        weighted_metrics=accuracy if config.loss == "crossentropy" else [],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    text = json.dumps({**facts, **asdict(config)}, indent=2)
    record, history = folder / "config.json", read_history(folder / HISTORY)
    if not history:
        record.write_text(text + "\n", encoding="utf-8")
        return []
    if not record.exists() or record.read_text(encoding="utf-8").strip() != text:
        raise ConfigError(
            f"{folder} holds a training with other settings: remove the folder, or train into "
            "another one"
        )
    _load_weights(model, weights_path(folder, len(history["val_loss"]) - 1))
    return history["val_loss"].tolist()


def _finish(model: keras.Model, folder: Path) -> TrainResult:
    """Give the model its best weights, store it, sum up."""
    history = read_history(folder / HISTORY)
    best = best_epoch(history["val_loss"])
    _load_weights(model, weights_path(folder, best))
    with new_file(folder / "model.keras") as temporary:
        model.save(temporary)
    return TrainResult(
        history=MappingProxyType(dict(history)),
        best_epoch=best,
        seconds=float(history["seconds"].sum()),
        n_parameters=int(model.count_params()),
        clusters_per_second=float(np.median(history["clusters_per_second"])),
    )


def _load_weights(model: keras.Model, path: Path) -> None:
    """Weights and optimiser state from a checkpoint; a missing or broken one is named."""
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadFileError(
            f"{path}: not a checkpoint of this model: {str(error).strip().splitlines()[0]}"
        ) from error
