"""A study of the hyper-parameters of a family of networks: one call that can be stopped, goes on,
and uses all cores it is given.

Each trial trains a regression of both species on the same clusters and is judged by its lowest
validation loss (Huber's, flat in ln E). Settings are proposed by a tree-structured Parzen estimator
(Bergstra et al., NeurIPS 24 (2011)), and trials that lie behind the median at an epoch end there.
All is kept in an SQLite file, by Optuna (arXiv:1907.10902).
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pfcalib.cache import cache_key, locked
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import build_model
from pfcalib.samples.read import PathLike
from pfcalib.training.fit import Arrays, TrainConfig, fit_model
from pfcalib.training.networks import (
    SELECTION,
    NetworkConfig,
    network_folder,
    open_stream,
    take_clusters,
)
from pfcalib.training.settings import HUBER_DELTA, require_family
from pfcalib.training.space import DEFAULTS, SPACES, settings, suggest

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
N_RANDOM = 5  # trials before the estimator proposes
N_UNPRUNED = 4  # complete trials before one is judged by their median
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
_POLL = 0.5  # s

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """A study of hyper-parameters.

    Parameters
    ----------
    family : str
        ``dnn``, ``cnn`` or ``densenet``.
    n_trials : int
        Trials in all, pruned ones and those of earlier calls included.
    n_clusters, n_validation : int
        Clusters that each trial is trained on and judged by, drawn once.
    epochs : int
        Of each trial.
    seed : int
        Of clusters, first weights and proposals. With several workers the proposals depend on their
        timing as well.
    n_workers : int
        Processes of one thread each; one works in the calling process.
    timeout : float, optional
        Seconds after which a call starts no further trial.
    """

    family: str
    n_trials: int = 20
    n_clusters: int = 40_000
    n_validation: int = 10_000
    epochs: int = 4
    seed: int = 1
    n_workers: int = 1
    timeout: float | None = None

    def __post_init__(self) -> None:
        require_family(self.family)
        for name in ("n_trials", "n_clusters", "n_validation", "epochs", "n_workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TuneConfig: {name} = {getattr(self, name)}, expected above 0")
        if self.timeout is not None and not self.timeout > 0.0:
            raise ConfigError(f"TuneConfig: timeout = {self.timeout} s, expected above 0")

    def network(self, parameters: Mapping[str, Any]) -> NetworkConfig:
        """The network of a trial."""
        options, train = settings(self.family, parameters)
        schedule: dict[str, Any] = {
            "epochs": self.epochs,
            "patience": self.epochs,
            "schedule": "cosine",
            "seed": self.seed,
        }
        training = TrainConfig(loss="huber", huber_delta=HUBER_DELTA, **schedule, **train)
        more: dict[str, Any] = {
            "target": TargetConfig(),
            "select": SELECTION,
            "n_clusters": self.n_clusters,
        }
        return NetworkConfig(
            name=self.family, options={**options, "head": "energy"}, train=training, **more
        )


class Place(NamedTuple):
    """Where a study is kept."""

    storage: Path  # SQLite file
    name: str  # of the study in it: family and a hash of all that its losses depend on


def study_place(path: PathLike, config: TuneConfig, *, storage: PathLike | None = None) -> Place:
    """Where the study of a sample is kept: in a file of its own beside the sample, or in one that
    may hold several.

    The name covers sample, settings, search space and code, but neither the number of trials nor
    workers and timeout: a call may add trials.
    """
    network = network_folder(path, config.network(DEFAULTS[config.family])).name
    name = f"{config.family}-{cache_key(network=network, space=SPACES[config.family], n_validation=config.n_validation)}"
    return Place(
        Path(storage) if storage is not None else Path(path).parent / "tune" / f"{name}.db", name
    )


def tune_network(
    path: PathLike, config: TuneConfig, *, storage: PathLike | None = None, say: Say | None = None
) -> optuna.Study:
    """Run the study of a sample, or what is left of it; a second process that wants the same study
    waits for the first one.

    Trials that a killed process left behind are marked as failed and tried again.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    config : TuneConfig
    storage : path-like, optional
        SQLite file in place of that of `study_place`.
    say : callable, optional
        Takes one line for each trial; silent by default.

    Raises
    ------
    BadFileError
        If the storage is not an Optuna database.
    ValidationError
        If a worker died.
    """
    if not Path(path).is_file():
        raise BadFileError(f"{path}: no such file")
    place, say = study_place(path, config, storage=storage), say or _say_nothing
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = time.time() + config.timeout if config.timeout else float("inf")
    place.storage.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place, "lock"):
        study = open_study(place, create=True)
        _tidy(study, DEFAULTS[config.family])
        if len(study.get_trials(deepcopy=False, states=FINISHED)) < config.n_trials:
            if config.n_workers == 1:
                _work(
                    Path(path),
                    config,
                    place,
                    0,
                    deadline,
                    lambda trial: say(trial_line(study, trial, config.n_trials)),
                )
            else:
                _work_apart(Path(path), config, place, deadline, say)
    return study


def open_study(
    place: Place, *, create: bool = False, sampler: optuna.samplers.BaseSampler | None = None
) -> optuna.Study:
    """A study from its file.

    Raises
    ------
    BadFileError
        If the file is not an Optuna database, or does not hold the study.
    """
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{place.storage}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=N_UNPRUNED, n_warmup_steps=1)
        make = optuna.create_study if create else optuna.load_study
        return make(
            storage=storage,
            study_name=place.name,
            pruner=pruner,
            sampler=sampler,
            **({"load_if_exists": True} if create else {}),
        )
    except KeyError as error:
        raise BadFileError(f"{place.storage}: holds no study {place.name}") from error
    except Exception as error:  # of SQLAlchemy or Alembic, which are no dependencies of ours
        raise BadFileError(
            f"{place.storage}: not a database of Optuna: {str(error).splitlines()[0]}"
        ) from error


def trial_line(study: optuna.Study, trial: FrozenTrial, n_trials: int) -> str:
    """One finished trial in one line."""
    done = len(study.get_trials(deepcopy=False, states=FINISHED))
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = f"{study.best_value:.4f}" if complete else "none"
    end = (
        f"pruned in epoch {len(trial.intermediate_values)}"
        if trial.state == TrialState.PRUNED
        else f"loss {trial.value:.4f}"
    )
    parameters = " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial.params.items()
    )
    return f"trial {trial.number} ({done}/{n_trials}): {end}, best {best}; {trial.user_attrs.get('seconds', 0.0):.0f} s; {parameters}"


def _tidy(study: optuna.Study, default: Mapping[str, Any]) -> None:
    """The default settings come first; what a killed process left running is failed and waits for
    another try.
    """
    if not study.trials:
        study.enqueue_trial(dict(default))
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _work_apart(path: Path, config: TuneConfig, place: Place, deadline: float, say: Say) -> None:
    """Let several processes work on the study; tell of each trial when it is done."""
    context = multiprocessing.get_context("spawn")
    study = open_study(place)
    told = {trial.number for trial in study.get_trials(deepcopy=False, states=FINISHED)}
    workers = [
        context.Process(target=_work, args=(path, config, place, number, deadline), daemon=True)
        for number in range(config.n_workers)
    ]
    try:
        with _one_thread():
            for worker in workers:
                worker.start()
        while any(worker.is_alive() for worker in workers) and not _failed(workers):
            time.sleep(_POLL)
            _tell_new(study, told, config.n_trials, say)
    finally:
        for worker in workers:
            if worker.is_alive() and _failed(workers):
                worker.terminate()
            worker.join()
    _tell_new(study, told, config.n_trials, say)
    if _failed(workers):
        raise ValidationError(
            f"{len(_failed(workers))} of {config.n_workers} workers of study {place.name} died; "
            "what they said stands above"
        )


def _failed(workers: Sequence[BaseProcess]) -> list[BaseProcess]:
    return [worker for worker in workers if worker.exitcode not in (None, 0)]


def _tell_new(study: optuna.Study, told: set[int], n_trials: int, say: Say) -> None:
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        if trial.number not in told:
            told.add(trial.number)
            say(trial_line(study, trial, n_trials))


def _work(
    path: Path,
    config: TuneConfig,
    place: Place,
    number: int,
    deadline: float,
    done: Callable[[FrozenTrial], None] | None = None,
) -> None:
    """Take trials until there are enough; the clusters are read once."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    n_before = len(open_study(place).get_trials(deepcopy=False))
    # a later call must not propose the same again
    seed = int(np.random.SeedSequence((config.seed, number, n_before)).generate_state(1)[0])
    study = open_study(
        place, sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_RANDOM)
    )
    data = None
    while time.time() < deadline:
        with _locked(place, "ask.lock"):  # so that no two workers start the last trial
            if (
                len(study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING)))
                >= config.n_trials
            ):
                return
            trial = study.ask()
            parameters = suggest(trial, config.family)
        data = data or read_data(path, config)
        finished = _try(study, trial, config, parameters, data)
        if done is not None:
            done(finished)


def read_data(path: PathLike, config: TuneConfig) -> tuple[Arrays, Arrays]:
    """Training and validation clusters of all trials, as arrays (inputs, targets, weights)."""
    network = config.network(DEFAULTS[config.family])
    sizes = {"train": config.n_clusters, "validation": config.n_validation}
    training, validation = (
        take_clusters(open_stream(path, network, split=split, shuffle=True), n)
        for split, n in sizes.items()
    )
    return training, validation


def _try(
    study: optuna.Study,
    trial: optuna.Trial,
    config: TuneConfig,
    parameters: Mapping[str, Any],
    data: tuple[Arrays, Arrays],
) -> FrozenTrial:
    """Train one network; its checkpoints are thrown away."""
    network, started = config.network(parameters), time.perf_counter()

    def watch(epoch: int, row: Mapping[str, float]) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit("the process that started this worker is gone")
        if not np.isfinite(row["val_loss"]):
            raise optuna.TrialPruned
        trial.report(row["val_loss"], epoch)
        if epoch + 1 < config.epochs and trial.should_prune():
            raise optuna.TrialPruned

    model = build_model(network.name, seed=config.seed, **network.model_options)
    trial.set_user_attr("n_parameters", int(model.count_params()))
    value, state = None, TrialState.PRUNED
    with tempfile.TemporaryDirectory(prefix="pfcalib-tune-") as folder:
        try:
            result = fit_model(
                model, *data, network.train, out_dir=folder, say=_say_nothing, watch=watch
            )
            value, state = float(result.history["val_loss"][result.best_epoch]), TrialState.COMPLETE
        except optuna.TrialPruned:
            pass
    trial.set_user_attr("seconds", time.perf_counter() - started)
    return study.tell(trial, value, state=state)


@contextmanager
def _locked(place: Place, suffix: str) -> Iterator[None]:
    """Hold a lock beside the storage; it is given back when the file is closed, also if the process
    dies.
    """
    with locked(place.storage.with_name(f"{place.storage.name}.{place.name}.{suffix}")):
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Environment of processes to be started, in which TensorFlow takes one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _say_nothing(line: str) -> None:
    """Print no progress."""
