"""Hyper-parameters of a family of networks: their space, a search that can be stopped, goes on and
uses all cores it is given, and what it found.

Each trial trains a regression of both species on the same clusters and is judged by its lowest
validation loss (Huber's, flat in ln E). Settings are proposed by a tree-structured Parzen estimator
(Bergstra et al., NeurIPS 24 (2011)), and trials that lie behind the median at an epoch end there.
All is kept in an SQLite file, by Optuna (arXiv:1907.10902). All parameters of a family are there in
every trial, none hangs on another, so that the importance of each can be told.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import importlib.metadata
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from optuna.trial import FrozenTrial, TrialState

from pfcalib.cache import cache_key, locked, write_text
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.curve import Estimate
from pfcalib.provenance import versions
from pfcalib.samples.read import PathLike
from pfcalib.training.fit import Arrays, Say, TrainConfig, fit_model
from pfcalib.training.networks import (
    SELECTION,
    NetworkConfig,
    build_network,
    network_folder,
    open_stream,
    take_clusters,
)
from pfcalib.training.settings import (
    HUBER_DELTA,
    Provenance,
    TunedFile,
    require_family,
)

OBJECTIVE = "lowest validation Huber loss of ln(E_dep / E_EM), both species, flat in ln E"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
N_RANDOM = 5  # trials before the estimator proposes
N_UNPRUNED = 4  # complete trials before one is judged by their median
N_RESAMPLED = 30  # studies drawn from the trials of one, for the errors of importances
MIN_COMPLETE = 4  # trials that importances need
MIN_WIDTH = 16  # of a hidden layer that is half of a half
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
_POLL = 0.5  # s

# options of a network without its head, options of its training
Settings = tuple[dict[str, Any], dict[str, Any]]


_TRAIN: dict[str, BaseDistribution] = {
    "learning_rate": Float(3e-4, 5e-3, log=True),
    "batch_size": Choice((128, 256, 512)),
}
_COMMON = {"dropout": Float(0.0, 0.2), "pixel_power": Choice((0.25, 0.5, 1.0)), **_TRAIN}
_WIDTHS: dict[str, BaseDistribution] = {
    "n_layers": Int(2, 4),
    "width": Choice((64, 128, 256, 512)),
    "taper": Choice(("none", "last", "each")),
}
SPACES: dict[str, dict[str, BaseDistribution]] = {
    "dnn": {**_WIDTHS, "scalars_first": Choice((False, True)), **_COMMON},
    "cnn": {
        "filters": Choice((8, 16, 32)),
        "branch_width": Choice((32, 64, 128)),
        "merged_width": Int(32, 128, log=True),
        **_COMMON,
    },
    "densenet": {
        "growth": Choice((4, 8, 12)),
        "block_layers": Int(1, 3),
        "compression": Choice((0.3, 0.5, 0.8)),
        "head_width": Int(32, 128, log=True),
        **_COMMON,
    },
    **{name: {**_WIDTHS, "dropout": Float(0.0, 0.5), **_TRAIN} for name in ("mlp", "points")},
}


# The first trial of each study: the published settings as near as the space holds them, at a rate
# that the few epochs of a trial allow.
# The published DNN is nearly twice as wide; of the DenseNet no widths are published.
_RATE = {"learning_rate": 1e-3, "batch_size": 256}
_PUBLISHED = {"dropout": 0.2, "pixel_power": 1.0, **_RATE}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dnn": {"n_layers": 3, "width": 512, "taper": "last", "scalars_first": True, **_PUBLISHED},
    **{
        name: {"n_layers": 3, "width": 256, "taper": "last", "dropout": 0.2, **_RATE}
        for name in ("mlp", "points")
    },
    "cnn": {"filters": 32, "branch_width": 128, "merged_width": 50, **_PUBLISHED},
    "densenet": {
        "growth": 8,
        "block_layers": 2,
        "compression": 0.5,
        "head_width": 64,
        **_PUBLISHED,
    },
}


def settings(family: str, parameters: Mapping[str, Any]) -> Settings:
    """Options of the network and of its training that parameters of the space stand for.

    >>> settings("dnn", DEFAULTS["dnn"])[0]["widths"]
    [512, 512, 256]
    """
    rest = dict(parameters)
    train = {name: rest.pop(name) for name in ("learning_rate", "batch_size")}
    if "taper" in rest:
        n, width = rest.pop("n_layers"), rest.pop("width")
        halvings = {"none": [0] * n, "last": [0] * (n - 1) + [1], "each": list(range(n))}
        found = [max(width // 2**halving, MIN_WIDTH) for halving in halvings[rest.pop("taper")]]
        rest["widths"] = found
    elif family == "densenet":
        rest["block_layers"] = [rest["block_layers"]] * 2
    return {**rest, "with_scalars": True}, train


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """A study of hyper-parameters.

    Parameters
    ----------
    family : str
        Of `training.settings.FAMILIES`.
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
        return NetworkConfig(
            name=self.family,
            options={**options, "head": "energy"},
            target=TargetConfig(),
            select=SELECTION,
            n_clusters=self.n_clusters,
            train=TrainConfig(
                loss="huber",
                huber_delta=HUBER_DELTA,
                epochs=self.epochs,
                patience=self.epochs,
                schedule="cosine",
                seed=self.seed,
                **train,
            ),
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
    space = [distribution_to_json(values) for values in SPACES[config.family].values()]
    key = cache_key(network=network, space=space, n_validation=config.n_validation)
    name = f"{config.family}-{key}"
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
    place, say = study_place(path, config, storage=storage), say or (lambda line: None)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place.storage.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + config.timeout if config.timeout else float("inf")
    with _locked(place, "lock"):
        study = open_study(place, create=True)
        if not study.trials:  # the default settings come first
            study.enqueue_trial(dict(DEFAULTS[config.family]))
        # what a killed process left running has failed and waits for another try: who holds the
        # lock knows that at once, Optuna's heartbeat would have to wait
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)
        if len(study.get_trials(deepcopy=False, states=FINISHED)) < config.n_trials:
            if config.n_workers > 1:
                _work_apart(Path(path), config, place, deadline, say)
            else:
                _work(Path(path), config, place, 0, deadline, say)
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
    seconds = trial.user_attrs.get("seconds", 0.0)
    where = f"trial {trial.number} ({done}/{n_trials})"
    return f"{where}: {end}, best {best}; {seconds:.0f} s; {parameters}"


def _work_apart(path: Path, config: TuneConfig, place: Place, deadline: float, say: Say) -> None:
    """Let several processes work on the study; tell of each trial when it is done."""
    study = open_study(place)
    told = {trial.number for trial in study.get_trials(deepcopy=False, states=FINISHED)}
    context = multiprocessing.get_context("spawn")
    with _one_thread(), concurrent.futures.ProcessPoolExecutor(config.n_workers, context) as pool:
        waiting = {
            pool.submit(_work, path, config, place, n, deadline) for n in range(config.n_workers)
        }
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, timeout=_POLL)
            for trial in study.get_trials(deepcopy=False, states=FINISHED):
                if trial.number not in told:
                    told.add(trial.number)
                    say(trial_line(study, trial, config.n_trials))
            try:
                [future.result() for future in done]
            except concurrent.futures.process.BrokenProcessPool as error:
                raise ValidationError(
                    f"a worker of study {place.name} died; what it said stands above"
                ) from error


def _work(
    path: Path,
    config: TuneConfig,
    place: Place,
    number: int,
    deadline: float,
    say: Say | None = None,
) -> None:
    """Run trials until there are enough; the clusters, arrays (inputs, targets, weights), are read
    once.

    Trials are asked for under a lock: on SQLite `Study.optimize` gives two workers the same waiting
    trial, and lets them start one too many.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    n_before = len(open_study(place).get_trials(deepcopy=False))
    # a later call must not propose the same again
    seed = int(np.random.SeedSequence((config.seed, number, n_before)).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_RANDOM)
    study, network = open_study(place, sampler=sampler), config.network(DEFAULTS[config.family])
    data = [
        take_clusters(open_stream(path, network, split=split, shuffle=True), n)
        for split, n in (("train", config.n_clusters), ("validation", config.n_validation))
    ]
    while time.time() < deadline:
        with _locked(place, "ask.lock"):
            trials = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
            if len(trials) >= config.n_trials:
                return
            trial = study.ask(SPACES[config.family])
        try:
            finished = study.tell(trial, _try(trial, config, data))
        except optuna.TrialPruned:
            finished = study.tell(trial, state=TrialState.PRUNED)
        if say is not None:
            say(trial_line(study, finished, config.n_trials))


def _locked(place: Place, suffix: str) -> filelock.BaseFileLock:
    return locked(place.storage.with_name(f"{place.storage.name}.{place.name}.{suffix}"))


def _try(trial: optuna.Trial, config: TuneConfig, data: Sequence[Arrays]) -> float:
    """Train one network; its checkpoints are thrown away."""
    network, started = config.network(trial.params), time.perf_counter()

    def watch(epoch: int, row: Mapping[str, float]) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit("the process that started this worker is gone")
        if not np.isfinite(row["val_loss"]):
            raise optuna.TrialPruned
        trial.report(row["val_loss"], epoch)
        if epoch + 1 < config.epochs and trial.should_prune():
            raise optuna.TrialPruned

    model = build_network(network, data[0])
    trial.set_user_attr("n_parameters", int(model.count_params()))
    try:
        with tempfile.TemporaryDirectory(prefix="pfcalib-tune-") as folder:
            result = fit_model(
                model,
                data[0],
                data[1],
                network.train,
                out_dir=folder,
                say=lambda line: None,
                watch=watch,
            )
    finally:
        trial.set_user_attr("seconds", time.perf_counter() - started)
    return float(result.history["val_loss"][result.best_epoch])


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


class Trial(NamedTuple):
    """A finished trial."""

    number: int
    pruned: bool
    loss: float  # lowest of its epochs, also of those of a pruned trial; nan if there is none
    epochs: NDArray[np.float64]  # validation loss after each epoch
    parameters: dict[str, Any]
    seconds: float
    n_parameters: int  # weights of the network


def read_trials(study: optuna.Study) -> list[Trial]:
    """Complete and pruned trials in the order of their numbers."""
    trials = []
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        values = sorted(trial.intermediate_values.items())
        epochs = np.array([loss for _, loss in values], dtype=np.float64)
        trials.append(
            Trial(
                number=trial.number,
                pruned=trial.state == TrialState.PRUNED,
                loss=float(epochs.min()) if len(epochs) else float("nan"),
                epochs=epochs,
                parameters=dict(trial.params),
                seconds=float(trial.user_attrs.get("seconds", np.nan)),
                n_parameters=int(trial.user_attrs.get("n_parameters", 0)),
            )
        )
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The complete trial with the lowest loss.

    Raises
    ------
    ValidationError
        If no trial is complete.
    """
    complete = [trial for trial in trials if not trial.pruned]
    if not complete:
        raise ValidationError("the study has no complete trial: let it run on")
    return min(complete, key=lambda trial: trial.loss)


def importances(
    study: optuna.Study, *, seed: int, n_resampled: int = N_RESAMPLED
) -> dict[str, Estimate]:
    """Share of the variance of the loss over the search space that comes from each parameter alone,
    largest first: functional analysis of variance (Hutter et al., ICML 2014) of complete trials.

    Parameters
    ----------
    study : optuna.Study
    seed : int
        Of the forests of the analysis and of the resampling.
    n_resampled : int
        Studies of as many trials, drawn with replacement, whose spread is the error.

    Raises
    ------
    ValidationError
        If fewer than MIN_COMPLETE trials are complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_COMPLETE:
        raise ValidationError(
            f"the study has {len(complete)} complete trials: importances need {MIN_COMPLETE}"
        )
    rng = np.random.default_rng(seed)
    central = _importances(complete, seed)
    drawn = [
        _importances(
            [complete[i] for i in rng.integers(0, len(complete), len(complete))], seed + 1 + n
        )
        for n in range(n_resampled)
    ]
    errors = {
        name: float(np.std([found.get(name, 0.0) for found in drawn])) if drawn else float("nan")
        for name in central
    }
    return {
        name: Estimate(value, errors[name])
        for name, value in sorted(central.items(), key=lambda item: -item[1])
    }


def _importances(trials: Sequence[optuna.trial.FrozenTrial], seed: int) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(trials)
    if len({trial.value for trial in trials}) < 2:  # nothing varies
        return dict.fromkeys(trials[0].params, 0.0)
    return dict(
        optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed)
        )
    )


def write_tuned(
    study: optuna.Study, path: PathLike, *, config: TuneConfig, sample: PathLike
) -> Path:
    """Write the best settings of a study as the file that `training.settings.read_tuned` takes; it
    appears when it is complete.

    Raises
    ------
    ValidationError
        If no trial is complete.
    """
    trials = read_trials(study)
    best = best_trial(trials)
    options, train = settings(config.family, _rounded(best.parameters))
    default = [trial.loss for trial in trials if trial.parameters == DEFAULTS[config.family]]
    known = {**versions(), "optuna": importlib.metadata.version("optuna")}
    provenance = Provenance(
        study=study.study_name,
        objective=OBJECTIVE,
        value=best.loss,
        default_value=default[0] if default else None,
        n_trials=len(trials),
        sample=Path(sample).name,
        n_clusters=config.n_clusters,
        epochs=config.epochs,
        versions={name: known[name] for name in ("pfcalib", "keras", "tensorflow", "optuna")},
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    stored = TunedFile(
        schema_version=1,
        family=config.family,  # type: ignore[arg-type]
        options=options,
        train=train,
        provenance=provenance,
    )
    write_text(path, stored.model_dump_json(indent=2) + "\n")
    return Path(path)


def holds_best(tuned: TunedFile, study: optuna.Study, family: str) -> bool:
    """Whether settings from a file are those of the best trial of a study."""
    options, train = settings(family, _rounded(best_trial(read_trials(study)).parameters))
    return (tuned.options, tuned.train) == (options, train)


def _rounded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits are more than a study can tell."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in parameters.items()
    }
