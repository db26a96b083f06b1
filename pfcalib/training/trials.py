"""What a study of hyper-parameters found: its trials, which parameters mattered, the file of the
best settings, and what they gain.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.provenance import versions
from pfcalib.samples.read import PathLike
from pfcalib.training.networks import Network, apply_network, fit_network, open_stream
from pfcalib.training.settings import SCHEMA_VERSION, Provenance, Tuned, TunedFile, write_settings
from pfcalib.training.space import DEFAULTS, settings
from pfcalib.training.tuning import FINISHED, TuneConfig

OBJECTIVE = "lowest validation Huber loss of ln(E_dep / E_EM), both species, flat in ln E"
N_RESAMPLED = 30  # studies drawn from the trials of one, for the errors of importances
MIN_COMPLETE = 4  # trials that importances need


class Trial(NamedTuple):
    """A finished trial."""

    number: int
    pruned: bool
    loss: float  # lowest of its epochs, also of those of a pruned trial; nan if there is none
    epochs: NDArray[np.float64]  # validation loss after each epoch
    parameters: dict[str, Any]
    seconds: float
    n_parameters: int  # weights of the network


class Importance(NamedTuple):
    """Share of the variance of the loss over the search space that comes from one parameter
    alone.
    """

    value: float
    error: float


class Gain(NamedTuple):
    """Mean losses of two settings on the same clusters, and how much lower the second is."""

    first: float
    second: float
    gain: float
    error: float  # of the gain, by bootstrap over clusters
    # of the gain, from one training to the next: that of the mean of those that were done; nan for
    # a single one
    spread: float


def read_trials(study: optuna.Study) -> list[Trial]:
    """Complete and pruned trials in the order of their numbers."""
    trials = []
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        epochs = np.array(
            [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
            dtype=np.float64,
        )
        loss = float(np.min(epochs)) if len(epochs) else float("nan")
        facts = (
            float(trial.user_attrs.get("seconds", np.nan)),
            int(trial.user_attrs.get("n_parameters", 0)),
        )
        trials.append(
            Trial(
                trial.number,
                trial.state == TrialState.PRUNED,
                loss,
                epochs,
                dict(trial.params),
                *facts,
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
) -> dict[str, Importance]:
    """Importance of each parameter, largest first: functional analysis of variance (Hutter et al.,
    ICML 2014) of the complete trials.

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
        name: Importance(value, errors[name])
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
        schema_version=SCHEMA_VERSION,
        family=config.family,
        options=options,
        train=train,
        provenance=provenance,
    )  # type: ignore[arg-type]
    return write_settings(stored, path)


def holds_best(tuned: Tuned, study: optuna.Study, family: str) -> bool:
    """Whether settings from a file are those of the best trial of a study."""
    options, train = settings(family, _rounded(best_trial(read_trials(study)).parameters))
    return (tuned.options, tuned.train) == (options, train)


def _rounded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits are more than a study can tell."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in parameters.items()
    }


def fit_again(
    path: PathLike, config: TuneConfig, parameters: Mapping[str, Any], *, seed: int
) -> Network:
    """A network with the settings and the budget of a trial, kept in the cache; another seed draws
    other clusters and first weights.
    """
    network = config.network(parameters)
    return fit_network(path, replace(network, train=replace(network.train, seed=seed)))


def compare_losses(
    path: PathLike,
    first: Sequence[Network],
    second: Sequence[Network],
    *,
    split: str,
    rng: np.random.Generator,
    n_resampled: int = 200,
) -> Gain:
    """Weighted mean losses of two settings on all clusters of a split.

    Parameters
    ----------
    path : path-like
        ROOT sample.
    first, second : sequence of Network
        Regressions with the head ``energy`` and the same target; one or more trainings of each,
        pair by pair from the same seed.
    split : str
    rng : numpy.random.Generator
    n_resampled : int
        Draws of the Poisson bootstrap: each cluster counts 0, 1, 2, ... times.

    Raises
    ------
    ConfigError
        If there are not as many trainings of both.
    """
    if len(first) != len(second) or not first:
        raise ConfigError(f"{len(first)} and {len(second)} trainings: expected as many of both")
    target, weights = _truth(path, first[0], split)
    losses = [
        np.stack([_losses(path, network, split, target) for network in networks])
        for networks in (first, second)
    ]
    difference = losses[0] - losses[1]  # (n_trainings, n_clusters)
    mean = difference.mean(axis=0)
    drawn = np.empty(n_resampled)
    for i in range(n_resampled):
        taken = weights * rng.poisson(1.0, len(weights))
        drawn[i] = taken @ mean / taken.sum()
    gains = difference @ weights / weights.sum()
    spread = float(np.std(gains, ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")
    values = [float(np.average(loss.mean(axis=0), weights=weights)) for loss in losses]
    return Gain(values[0], values[1], float(gains.mean()), float(np.std(drawn)), spread)


def huber(difference: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """Loss of each cluster, as `models.losses.huber` has it.

    >>> huber(np.array([0.0, 0.1, 1.1]), 0.1).tolist()
    [0.0, 0.05, 1.05]
    """
    size = np.abs(difference)
    return np.where(size < delta, 0.5 * size * size / delta, size - 0.5 * delta)


def _truth(
    path: PathLike, network: Network, split: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets and weights of the clusters of a split, in the order of the file."""
    stream, target = open_stream(path, network.config, split=split), network.config.target
    if target is None:
        raise ConfigError("losses of a regression are compared, not of a classifier")
    e_true = target.energy_true({name: stream.column(name) for name in target.columns})
    return target.encode(e_true, stream.column("clusterE")), stream.weights.astype(np.float64)


def _losses(
    path: PathLike, network: Network, split: str, target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Loss of each cluster of a split."""
    output = apply_network(network, open_stream(path, network.config, split=split))
    return huber(output[:, 0].astype(np.float64) - target, network.config.train.huber_delta)
