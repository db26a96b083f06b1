"""Training of a network with checkpoints, early stopping, restart and one line an epoch: the only
caller of keras fit but for measurements of speed.

After every epoch the weights (with the optimiser's state) go to a file named by the epoch, then the
history to `history.csv` under a temporary name that is renamed: the history is the record of what
is done, and all decisions (best epoch, patience, learning rate) are functions of it. A killed
training that is started again in the same folder so goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.models.losses import build_loss
from pfcalib.training.history import History

Arrays = tuple[Any, ...]  # (inputs, labels or targets) or (inputs, labels or targets, weights)
# takes the epoch, from 0, and its row of the history
Watch: TypeAlias = Callable[[int, Mapping[str, float]], None]
Data: TypeAlias = keras.utils.PyDataset | Arrays
SCHEDULES = ("constant", "cosine", "plateau")
LOSS, ACCURACY = "loss", "accuracy"


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training; learning rate, batch and epochs are the published ones of the flat
    network.
    """

    learning_rate: float = 5e-5  # of Adam
    batch_size: int = 200  # for arrays; a stream brings its own
    epochs: int = 100
    patience: int = 20  # epochs without a lower validation loss before the training stops
    # "cosine": falls to 1 % over the epochs; "plateau": halves after plateau_patience epochs
    # without gain
    schedule: str = "constant"
    plateau_patience: int = 3
    loss: str = "crossentropy"  # of models.losses, to fit the head of the network
    huber_delta: float = 0.1  # where the loss "huber" becomes linear, in units of the target
    energy_weight: float = 5.0  # of the energy in the loss "class_and_energy"
    clip_norm: float | None = None  # largest norm of a gradient
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "learning_rate",
            "batch_size",
            "epochs",
            "patience",
            "plateau_patience",
            "huber_delta",
            "energy_weight",
            "clip_norm",
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(
                    f"TrainConfig: {name} = {getattr(self, name)!r}, expected above 0"
                )
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
        """The next epoch."""
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return -(-self.n_clusters // self.batch_size)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return {name: array[rows] for name, array in self.inputs.items()}, *(
            target[rows] for target in self.targets
        )


class _Epochs(keras.callbacks.Callback):
    """At each epoch: set the learning rate, keep weights and history, say one line, stop when
    patience is over.
    """

    def __init__(
        self,
        config: TrainConfig,
        history: History,
        folder: Path,
        n_clusters: int,
        say: Callable[[str], None],
        watch: Watch | None,
    ) -> None:
        super().__init__()
        self.settings, self.past, self.folder, self.n_clusters, self.say, self.watch = (
            config,
            history,
            folder,
            n_clusters,
            say,
            watch,
        )
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.optimizer.learning_rate = learning_rate(
            self.settings, self.past.column("val_loss")
        )
        seed_dropout(self.model, seed=self.settings.seed, epoch=epoch)
        self.started = time.perf_counter()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # the validation of an epoch begins where its training ends
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        speed = self.n_clusters / (self.trained - self.started)
        row = {
            **(logs or {}),
            "learning_rate": rate,
            "seconds": time.perf_counter() - self.started,
            "clusters_per_second": speed,
        }
        self.model.save_weights(weights_path(self.folder, epoch))
        self.past = self.past.with_row(row)
        self.past.write(self.folder / "history.csv")
        best = self.past.best_epoch
        for path in self.folder.glob("epoch-*.weights.h5"):
            if path not in (weights_path(self.folder, epoch), weights_path(self.folder, best)):
                path.unlink()
        self.say(_line(epoch, self.settings.epochs, row, best=epoch == best))
        self.model.stop_training = epoch - best >= self.settings.patience
        if self.watch is not None:
            self.watch(epoch, row)


def seed_dropout(model: keras.Model, *, seed: int, epoch: int) -> None:
    """Start the random numbers of dropout layers anew from seed, epoch and place in the model:
    checkpoints do not hold them.
    """
    for place, layer in enumerate(model.layers):
        # one of rate 0 has no random numbers
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0.0:
            layer.seed_generator.state.assign(
                np.random.SeedSequence((seed, epoch, place)).generate_state(2)
            )


def _line(epoch: int, epochs: int, row: Mapping[str, float], *, best: bool) -> str:
    """One epoch in one line."""
    numbers = "  ".join(
        f"{name} {row[name]:.4f}" for name in ("loss", "val_loss", "val_accuracy") if name in row
    )
    return f"epoch {epoch + 1:>3}/{epochs}  {numbers}  {row['clusters_per_second']:.0f} clusters/s  {row['seconds']:.1f} s{'  best' if best else ''}"


def weights_path(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch (from 0) are kept."""
    return folder / f"epoch-{epoch:04d}.weights.h5"


def learning_rate(config: TrainConfig, val_loss: NDArray[np.float64]) -> float:
    """Learning rate of the next epoch, a function of the validation losses so far.

    >>> config = TrainConfig(learning_rate=1.0, epochs=3, schedule="cosine")
    >>> [round(learning_rate(config, np.zeros(n)), 3) for n in range(3)]
    [1.0, 0.505, 0.01]
    """
    epoch = len(val_loss)
    if config.schedule == "cosine":
        return config.learning_rate * (
            0.01 + 0.99 * 0.5 * (1.0 + float(np.cos(np.pi * epoch / max(config.epochs - 1, 1))))
        )
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
    say: Callable[[str], None] | None = None,
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
    train_data = _batches(training, config, shuffle=True)
    val_data = _batches(validation, config, shuffle=False)
    n_clusters = int(getattr(train_data, "n_clusters", len(train_data) * config.batch_size))
    history = _resume(
        model,
        folder,
        config,
        {"model": model.name, "n_parameters": model.count_params(), "n_clusters": n_clusters},
    )
    done = len(history)
    if hasattr(train_data, "set_epoch"):
        train_data.set_epoch(done)
    epochs = _Epochs(
        config,
        history,
        folder,
        n_clusters,
        say or Console(highlight=False, soft_wrap=True).print,
        watch,
    )
    if done < config.epochs and (done == 0 or done - 1 - history.best_epoch < config.patience):
        fit = {
            "validation_data": val_data,
            "initial_epoch": done,
            "epochs": config.epochs,
            "shuffle": False,
            "verbose": 0,
        }
        model.fit(train_data, callbacks=[epochs], **fit)
    return _finish(model, epochs.past, folder)


def _batches(data: Data, config: TrainConfig, *, shuffle: bool) -> keras.utils.PyDataset:
    """Data as batches."""
    return (
        data
        if isinstance(data, keras.utils.PyDataset)
        else ArrayBatches(data, batch_size=config.batch_size, seed=config.seed, shuffle=shuffle)
    )


def _resume(
    model: keras.Model, folder: Path, config: TrainConfig, facts: Mapping[str, Any]
) -> History:
    """Compile the model; give it the state of the last epoch if the folder holds one of the same
    settings. Returns the history so far.
    """
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate, clipnorm=config.clip_norm),
        loss=build_loss(config.loss, delta=config.huber_delta, energy_weight=config.energy_weight),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name=ACCURACY)]
        if config.loss == "crossentropy"
        else [],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    text = json.dumps({**facts, **asdict(config)}, indent=2)
    record = folder / "config.json"
    if not (folder / "history.csv").exists():
        record.write_text(text + "\n", encoding="utf-8")
        return History({})
    if not record.exists() or record.read_text(encoding="utf-8").strip() != text:
        raise ConfigError(
            f"{folder} holds a training with other settings: remove the folder, or train into "
            "another one"
        )
    history = History.read(folder / "history.csv")
    _load_weights(model, weights_path(folder, len(history) - 1))
    return history


def _finish(model: keras.Model, history: History, folder: Path) -> TrainResult:
    """Give the model its best weights, store it, sum up."""
    _load_weights(model, weights_path(folder, history.best_epoch))
    temporary = folder / ".model.tmp.keras"
    model.save(temporary)
    temporary.replace(folder / "model.keras")
    return TrainResult(
        history=MappingProxyType(history.columns),
        best_epoch=history.best_epoch,
        seconds=float(history.column("seconds").sum()),
        n_parameters=int(model.count_params()),
        clusters_per_second=float(np.median(history.column("clusters_per_second"))),
    )


def _load_weights(model: keras.Model, path: Path) -> None:
    """Weights and optimiser state from a checkpoint; a missing or broken one is named."""
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadFileError(
            f"{path}: not a checkpoint of this model: {str(error).strip().splitlines()[0]}"
        ) from error
