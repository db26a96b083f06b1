"""A study of hyper-parameters goes on where it stopped, shares its trials among workers, and keeps
the best settings.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from factories import make_sample
from optuna.trial import TrialState
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.models.families import build_model
from pfcalib.samples.write import write_sample
from pfcalib.training import tuning as tune
from pfcalib.training.settings import FAMILIES, read_tuned
from pfcalib.training.tuning import (
    DEFAULTS,
    SPACES,
    TuneConfig,
    open_study,
    settings,
    study_place,
    tune_network,
)

pytestmark = [
    # of Keras with numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:The object being serialized includes a `lambda`:UserWarning"
    ),
]
TINY = TuneConfig(family="dnn", n_trials=3, n_clusters=100, n_validation=40, epochs=2, seed=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, make_sample(np.random.default_rng(7), 400))
    return file


@pytest.fixture
def losses(monkeypatch):
    """Trainings that take no time: the loss of a learning rate is what is in the list of functions,
    3 - epoch by default.
    """
    said = SimpleNamespace(
        rates=[], loss=lambda rate, epoch: abs(np.log10(rate) + 3.0) + 0.1 * (3 - epoch)
    )

    def train(model, training, validation, config, *, out_dir, say, watch):
        said.rates.append(config.learning_rate)
        values = np.array(
            [said.loss(config.learning_rate, epoch) for epoch in range(config.epochs)]
        )
        for epoch, value in enumerate(values):
            watch(epoch, {"val_loss": value})
        return SimpleNamespace(history={"val_loss": values}, best_epoch=int(np.argmin(values)))

    monkeypatch.setattr(tune, "fit_model", train)
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_every_corner_of_a_space_is_a_network(family):
    corners = [
        {
            name: (p.choices[i] if hasattr(p, "choices") else (p.low, p.high)[i])
            for name, p in SPACES[family].items()
        }
        for i in (0, -1)
    ]
    for parameters in (*corners, DEFAULTS[family]):
        network = TuneConfig(family=family).network(parameters)
        build_model(network.name, **network.model_options)
    assert DEFAULTS[family].keys() == SPACES[family].keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_settings_lie_in_the_space(family):
    for name, values in SPACES[family].items():
        assert values._contains(values.to_internal_repr(DEFAULTS[family][name]))


def test_a_real_study_trains_networks_and_throws_their_checkpoints_away(
    path, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    lines = []
    study = tune_network(
        path, replace(TINY, n_trials=2), storage=tmp_path / "tune.db", say=lines.append
    )
    trials = tune.read_trials(study)
    assert len(trials) == len(lines) == 2
    assert trials[0].parameters == DEFAULTS["dnn"]
    assert all(
        trial.n_parameters > 0 and trial.seconds > 0.0 and np.isfinite(trial.loss)
        for trial in trials
    )
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_study_goes_on_and_tries_again_what_was_cut_off(path, tmp_path, losses):
    place = study_place(path, TINY, storage=tmp_path / "tune.db")
    tune_network(path, replace(TINY, n_trials=2), storage=place.storage)
    parameters = open_study(place).ask(SPACES["dnn"]).params  # as a killed process leaves it
    study = tune_network(path, TINY, storage=place.storage)
    states = [trial.state for trial in study.trials]
    assert states[2] == TrialState.FAIL
    assert study.trials[3].params == parameters
    assert len(tune.read_trials(study)) == 3
    lines: list[str] = []
    tune_network(path, TINY, storage=place.storage, say=lines.append)
    assert lines == []


def test_a_later_call_does_not_propose_the_same_settings_again(path, tmp_path, losses):
    for n_trials in (2, 4, 6):
        tune_network(path, replace(TINY, n_trials=n_trials), storage=tmp_path / "tune.db")
    assert len(set(losses.rates)) == 6


def test_a_trial_behind_the_median_is_pruned_and_so_is_one_that_diverges(path, tmp_path, losses):
    config = replace(TINY, n_trials=tune.N_UNPRUNED, epochs=4)
    tune_network(path, config, storage=tmp_path / "tune.db")
    losses.loss = lambda rate, epoch: 99.0
    tune_network(path, replace(config, n_trials=config.n_trials + 1), storage=tmp_path / "tune.db")
    losses.loss = lambda rate, epoch: float("nan")
    study = tune_network(
        path, replace(config, n_trials=config.n_trials + 2), storage=tmp_path / "tune.db"
    )
    trials = tune.read_trials(study)
    assert [trial.pruned for trial in trials] == [False] * config.n_trials + [True, True]
    assert [len(trial.epochs) for trial in trials[-2:]] == [2, 0]
    assert (
        tune.best_trial(trials).loss
        == min(trial.loss for trial in trials[: config.n_trials])
        == study.best_value
    )


def test_workers_share_a_study_and_stop_when_there_are_enough(path, tmp_path):
    lines = []
    study = tune_network(
        path, replace(TINY, n_workers=2, epochs=1), storage=tmp_path / "tune.db", say=lines.append
    )
    assert len(study.trials) == len(lines) == TINY.n_trials
    assert len({str(trial.params) for trial in study.trials}) == TINY.n_trials


def test_no_trial_starts_after_the_timeout(path, tmp_path, losses):
    losses.loss = lambda rate, epoch: tune.time.sleep(0.3) or 1.0
    study = tune_network(path, replace(TINY, timeout=0.5), storage=tmp_path / "tune.db")
    assert len(tune.read_trials(study)) < 3


@pytest.mark.parametrize(
    "change",
    [{"family": "cnn"}, {"epochs": 3}, {"seed": 4}, {"n_clusters": 99}, {"n_validation": 39}],
)
def test_other_settings_are_another_study(path, change):
    assert study_place(path, replace(TINY, **change)) != study_place(path, TINY)


def test_more_trials_or_workers_are_the_same_study(path):
    assert study_place(path, replace(TINY, n_trials=99, n_workers=4, timeout=5.0)) == study_place(
        path, TINY
    )


@pytest.mark.parametrize(
    "wrong",
    [{"family": "resnet"}, {"n_trials": 0}, {"epochs": 0}, {"n_workers": 0}, {"timeout": 0.0}],
)
def test_a_study_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)


def test_what_is_no_storage_or_sample_is_named(path, tmp_path, losses):
    (tmp_path / "broken.db").write_text("no database")
    with pytest.raises(BadFileError, match=r"broken\.db"):
        tune_network(path, TINY, storage=tmp_path / "broken.db")
    with pytest.raises(BadFileError, match=r"nowhere\.root"):
        tune_network(tmp_path / "nowhere.root", TINY)
    tune_network(path, replace(TINY, n_trials=1), storage=tmp_path / "good.db")
    with pytest.raises(BadFileError, match="holds no study"):
        open_study(study_place(path, replace(TINY, seed=9), storage=tmp_path / "good.db"))


def test_the_best_settings_are_written_and_found_to_be_the_best(path, tmp_path, losses):
    study = tune_network(path, TINY, storage=tmp_path / "tune.db")
    tuned = read_tuned(
        "dnn", path=tune.write_tuned(study, tmp_path / "dnn.json", config=TINY, sample=path)
    )
    best = min((abs(np.log10(rate) + 3.0), rate) for rate in losses.rates)[1]
    assert tuned.train["learning_rate"] == pytest.approx(best, rel=0.01)
    assert tuned.provenance.value == study.best_value
    assert tuned.provenance.default_value == study.trials[0].value
    assert (tuned.provenance.n_trials, tuned.provenance.sample) == (3, "toy.root")
    assert tune.holds_best(tuned, study, "dnn")
    other = tuned.model_copy(update={"train": {"learning_rate": 1.0}})
    assert not tune.holds_best(other, study, "dnn")


def test_nothing_is_said_about_a_study_without_complete_trials(path, tmp_path):
    study = open_study(study_place(path, TINY, storage=tmp_path / "tune.db"), create=True)
    with pytest.raises(ValidationError, match="no complete trial"):
        tune.write_tuned(study, tmp_path / "dnn.json", config=TINY, sample=path)
    with pytest.raises(ValidationError, match="importances need"):
        tune.importances(study, seed=1)


def test_the_parameter_that_alone_decides_has_all_importance():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(
        lambda trial: trial.suggest_float("a", 0.0, 1.0) + 0.0 * trial.suggest_float("b", 0.0, 1.0),
        n_trials=30,
    )
    found = tune.importances(study, seed=1, n_resampled=4)
    assert list(found) == ["a", "b"]
    assert found["a"].value > 0.9
    assert found["b"].value < 0.1
    assert 0.0 <= found["a"].error < 0.1


def test_the_command_does_everything_and_goes_on(path, tmp_path, losses):
    out = tmp_path / "dnn.json"
    options = [
        str(path),
        "--model",
        "dnn",
        "--clusters",
        "100",
        "--epochs",
        "2",
        "--storage",
        str(tmp_path / "tune.db"),
        "--out",
        str(out),
    ]
    first = CliRunner().invoke(cli.app, ["tune", *options, "--trials", "2"])
    assert first.exit_code == 0, first.output
    assert first.output.count("trial ") >= 2
    again = CliRunner().invoke(cli.app, ["tune", *options, "--trials", "5", "--force"])
    assert again.exit_code == 0, again.output
    assert "5 trials" in again.output
    assert "trial 1 (" not in again.output
    assert read_tuned("dnn", path=out).provenance.n_trials == 5


def test_the_command_refuses_a_name_that_is_not_json(path):
    result = CliRunner().invoke(cli.app, ["tune", str(path), "--out", "best.yaml"])
    assert isinstance(result.exception, ConfigError)


def test_settings_of_a_trial_are_options_of_network_and_training():
    options, train = settings(
        "dnn", {**DEFAULTS["dnn"], "n_layers": 4, "width": 64, "taper": "each"}
    )
    assert options["widths"] == [64, 32, 16, 16]
    assert train == {"learning_rate": 1e-3, "batch_size": 256}
    assert settings("densenet", DEFAULTS["densenet"])[0]["block_layers"] == [2, 2]
