"""Tuned settings fit their networks, a broken file is named, and configurations made of them are
the same for all who ask.
"""

import json

import pytest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import build_model
from pfcalib.training import settings as tuned
from pfcalib.training.networks import SELECTION
from pfcalib.training.settings import (
    FAMILIES,
    LOSSES,
    classifier_config,
    read_tuned,
    regression_config,
)


@pytest.fixture
def content():
    return json.loads((tuned.FOLDER / "cnn.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_packaged_settings_build_a_network_for_each_purpose(family):
    assert read_tuned(family).options["with_scalars"] is True
    for head in LOSSES:
        config = regression_config(family, epochs=2, seed=1, head=head)
        assert build_model(config.name, **config.model_options).output_shape[0] is None
    assert classifier_config(family, epochs=2, seed=1).head == "classes"


@pytest.mark.parametrize(("head", "loss"), LOSSES.items())
def test_a_regression_has_the_loss_and_target_of_its_head_and_runs_all_epochs(head, loss):
    config = regression_config("cnn", species="neutral", epochs=7, seed=3, head=head)
    assert config.train.loss == loss
    assert config.target == TargetConfig(with_class=head == "class_and_energy")
    assert (
        config.train.epochs,
        config.train.patience,
        config.train.schedule,
        config.train.seed,
    ) == (7, 7, "cosine", 3)
    assert config.select is not None
    assert (config.select.species, config.select.min_deposit) == ("neutral", SELECTION.min_deposit)


def test_given_options_go_over_the_tuned_ones_and_further_fields_are_passed_on():
    config = regression_config(
        "dnn",
        epochs=2,
        seed=1,
        options={"widths": [4]},
        train={"batch_size": 32},
        n_clusters=9,
        target=TargetConfig(scale="ratio"),
    )
    assert config.options == {**read_tuned("dnn").options, "widths": [4], "head": "energy"}
    assert (config.train.batch_size, config.n_clusters, config.target) == (
        32,
        9,
        TargetConfig(scale="ratio"),
    )
    assert classifier_config("dnn", epochs=2, seed=1, options={"widths": [4]}).options[
        "widths"
    ] == [4]


def test_a_network_that_is_not_published_learns_energies_without_dropout():
    config = regression_config("points", epochs=2, seed=1, head="mixture")
    assert config.options["dropout"] == 0.0
    assert config.train.batch_size == tuned.OWN_TRAIN["batch_size"]
    assert config.train.weight_decay == read_tuned("points").train["weight_decay"]
    asked = {"options": {"dropout": 0.1}, "train": {"batch_size": 32}}
    config = regression_config("points", epochs=2, seed=1, **asked)
    assert (config.options["dropout"], config.train.batch_size) == (0.1, 32)
    published = regression_config("cnn", epochs=2, seed=1)
    assert published.options["dropout"] == read_tuned("cnn").options["dropout"]
    assert classifier_config("points", epochs=2, seed=1).options["dropout"] > 0.0


def test_the_same_question_has_the_same_answer():
    assert regression_config("cnn", epochs=2, seed=1) == regression_config(
        "cnn", epochs=2, seed=1, species="all", options={}, head="energy"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"name": "resnet"}, {"head": "classes"}, {"species": "muon"}, {"train": {"epochs": 0}}],
)
def test_a_configuration_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        regression_config(**{"name": "cnn", "epochs": 2, "seed": 1, **wrong})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"family": "resnet"}, "family"),
        ({"options": {"filter": 3}}, "filter"),
        ({"options": {"filters": -3}}, "filters = -3"),
        ({"options": {"head": "energy"}}, "head"),
        ({"train": {"rate": 1.0}}, "rate"),
        ({"provenance": {}}, "provenance"),
        ({"note": "by hand"}, "note"),
        ({"family": "dnn", "options": {}}, "holds settings of dnn, expected cnn"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_what_is_wrong(tmp_path, content, change, message):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(BadFileError, match=r"broken\.json") as caught:
        read_tuned("cnn", path=path)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_what_is_no_json_of_settings_is_named(tmp_path, text):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(BadFileError, match=r"broken\.json"):
        read_tuned("cnn", path=tmp_path / "broken.json")


def test_a_missing_file_and_an_unknown_family_are_told(tmp_path):
    with pytest.raises(BadFileError, match="cannot be read"):
        read_tuned("cnn", path=tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="unknown family 'resnet'"):
        read_tuned("resnet")


def test_settings_are_written_as_they_are_read(tmp_path, content):
    stored = tuned.TunedFile.model_validate(content)
    path = tmp_path / "cnn.json"
    path.write_text(stored.model_dump_json())
    assert read_tuned("cnn", path=path) == read_tuned("cnn")
