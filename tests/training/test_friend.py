"""A friend tree holds, entry by entry, what a model gives for the cluster."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import uproot
from factories import make_sample
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.calibration.lcw import apply_lcw, derive_lcw
from pfcalib.calibration.lcw_tables import LcwTables
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.features.targets import TargetConfig
from pfcalib.samples.table import read_table
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.friend import STEP, open_model, packaged_models, write_friend
from pfcalib.training.networks import SELECTION, NetworkConfig, export_network, fit_network
from pfcalib.training.networks import score_network as p_em_of
from pfcalib.training.regressors import fit_regressor
from pfcalib.training.settings import classifier_config

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = TrainConfig(epochs=1, batch_size=64, learning_rate=0.003, seed=3)
CLASSIFIER = NetworkConfig(name="dnn", options={"widths": [8]}, train=TRAIN)
BOTH = NetworkConfig(
    name="dnn",
    options={"widths": [8], "with_scalars": True, "head": "class_and_energy"},
    target=TargetConfig(with_class=True),
    select=SELECTION,
    train=replace(TRAIN, loss="class_and_energy"),
)
ENERGY = replace(
    BOTH,
    options={**BOTH.options, "head": "energy"},
    target=TargetConfig(),
    train=replace(TRAIN, loss="huber"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, make_sample(np.random.default_rng(7), 600))
    return file


def friend(paths, model, out, **options):
    assert write_friend(paths, open_model(model), out, **options) > 0
    with uproot.open(out) as file:
        return file["calibration"].arrays(library="np"), json.loads(str(file["metadata"]))


def test_a_classifier_gives_each_entry_its_probability(path, tmp_path):
    network = fit_network(path, CLASSIFIER, folder=tmp_path / "classifier")
    export_network(network, path, n_clusters=50)
    columns, facts = friend(path, tmp_path / "classifier", tmp_path / "out.root")
    table = read_table(path, columns=["clusterE"])
    for key in ("sample", "event", "cluster"):
        np.testing.assert_array_equal(columns[key], table[key])
    assert columns.keys() == {"sample", "event", "cluster", "p_em"}
    passed = np.asarray(table["clusterE"]) > 0.5
    np.testing.assert_allclose(
        columns["p_em"][passed], p_em_of(network, path, split="all", balance=None), atol=1e-5
    )
    assert facts["columns"]["p_em"] == "probability of a neutral pion"
    by_keras, _ = friend(path, tmp_path / "classifier" / "model.keras", tmp_path / "keras.root")
    np.testing.assert_allclose(by_keras["p_em"], columns["p_em"], atol=1e-5)


def test_a_regression_gives_inverted_energies_in_gev(path, tmp_path):
    regressor = fit_regressor(path, ENERGY)
    inversion = {name: part.tolist() for name, part in vars(regressor.inversion).items()}
    onnx = export_network(regressor.network, path, n_clusters=50, inversion=inversion).path
    columns, _ = friend(path, onnx, tmp_path / "out.root")
    wanted = regressor.energy(path, split="all")
    kept = np.asarray(read_table(path, columns=[], select=SELECTION)["cluster"])
    np.testing.assert_allclose(columns["e_pred"][kept], wanted, rtol=1e-4)


def test_one_network_may_give_both(path, tmp_path):
    network = fit_network(path, BOTH, folder=tmp_path / "both")
    export_network(network, path, n_clusters=50)
    columns, _ = friend(path, tmp_path / "both", tmp_path / "out.root")
    assert columns.keys() == {"sample", "event", "cluster", "p_em", "e_pred"}


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("points", {"widths": [8], "with_scalars": True}, None),
        ("cnn", {"filters": 2, "branch_width": 4, "with_moments": True}, "layers+significance"),
    ],
)
def test_a_network_on_cells_and_moments_is_applied_as_it_was_trained(
    name, options, kind, path, tmp_path
):
    config = NetworkConfig(name=name, options=options, kind=kind, train=TRAIN)
    network = fit_network(path, config, folder=tmp_path / name)
    export_network(network, path, n_clusters=50)
    columns, _ = friend(path, tmp_path / name, tmp_path / "out.root")
    passed = np.asarray(read_table(path, columns=["clusterE"])["clusterE"]) > 0.5
    wanted = p_em_of(network, path, split="all", balance=None)
    np.testing.assert_allclose(columns["p_em"][passed], wanted, atol=1e-5)


def test_tables_of_local_cell_weighting_give_their_energy(path, tmp_path):
    derive_lcw(path).save(tmp_path / "lcw.json")
    columns, _ = friend(path, tmp_path / "lcw.json", tmp_path / "out.root")
    wanted = apply_lcw(path, LcwTables.load(tmp_path / "lcw.json"))
    np.testing.assert_allclose(columns["e_lcw"], wanted.full, rtol=1e-6)
    np.testing.assert_allclose(columns["p_em"], wanted.p_em, atol=1e-6)


@pytest.mark.parametrize("name", packaged_models())
def test_a_packaged_network_works_on_any_sample_of_the_barrel(name, path, tmp_path):
    write_sample(tmp_path / "other.root", make_sample(np.random.default_rng(8), 200))
    columns, facts = friend([path, tmp_path / "other.root"], name, tmp_path / "out.root")
    assert np.bincount(columns["sample"]).tolist() == [600, 200]
    assert columns["cluster"].tolist() == [*range(600), *range(200)]
    assert np.isfinite(columns[open_model(name).gives[0]]).all()
    assert "pfcalib train" in open_model(name).made_by
    assert facts["model"] == f"{name}.onnx"


def test_there_is_a_packaged_network_for_each_task():
    assert packaged_models() == ("small-classifier", "small-regression")


def test_a_cluster_without_energy_gets_no_number(tmp_path):
    sample = make_sample(np.random.default_rng(7), 40)
    sample.scalars["clusterE"][[3, 5]] = (0.0, -1.0)
    write_sample(tmp_path / "odd.root", sample)
    columns, _ = friend(tmp_path / "odd.root", "small-classifier", tmp_path / "out.root")
    assert np.flatnonzero(np.isnan(columns["p_em"])).tolist() == [3, 5]


def test_an_output_is_not_overwritten_unless_forced(path, tmp_path):
    model, out = open_model("small-classifier"), tmp_path / "out.root"
    write_friend(path, model, out)
    first = out.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        write_friend(path, model, out)
    assert out.read_bytes() == first
    write_friend(path, model, out, force=True)
    with pytest.raises(ConfigError, match="is there already"):
        write_friend(path, model, path, force=True)


def test_no_more_than_a_step_of_clusters_is_in_memory(path, tmp_path):
    seen = []
    write_friend(path, open_model("small-classifier"), tmp_path / "out.root", progress=seen.append)
    assert sum(seen) == 600
    assert max(seen) <= STEP


def test_what_is_no_model_is_named(path, tmp_path):
    with pytest.raises(BadFileError, match="small-classifier"):
        open_model(tmp_path / "nothing")
    network = fit_network(path, CLASSIFIER, folder=tmp_path / "classifier")
    onnx = export_network(network, path, n_clusters=50).path
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    with pytest.raises(ValidationError, match="sha256 differs"):
        open_model(onnx)


def test_from_the_shell_a_regression_is_trained_and_applied(path, tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(cli.app, list(map(str, arguments)))
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    small = ("--model", "dnn", "--option", "widths=[8]", "--epochs", 2, "--seed", 3)
    options = ("--task", "regression", "--species", "charged", "--out", tmp_path / "model", *small)
    assert "epoch   2/2" in call("train", path, *options)
    assert "epoch" not in call("train", path, *options).split("best epoch")[0]  # done already
    assert "e_pred of 600 clusters" in call(
        "apply", tmp_path / "model", path, tmp_path / "out.root"
    )
    with uproot.open(tmp_path / "out.root") as file:
        assert (file["calibration/e_pred"].array(library="np") > 0.0).all()
    again = CliRunner().invoke(
        cli.app, ["apply", str(tmp_path / "model"), str(path), str(tmp_path / "out.root")]
    )
    assert "--force" in str(again.exception)


@pytest.mark.parametrize("model", ["dnn", "mlp"])
def test_the_shell_and_a_study_find_the_same_network(model, path):
    """Without --out a training lies where `fit_network` looks for the same settings."""
    options = ["--model", model, "--option", "widths=[8]", "--epochs", "1", "--seed", "3"]
    rates = ["--batch-size", "64", "--learning-rate", "0.003"]
    result = CliRunner().invoke(cli.app, ["train", str(path), *options, *rates])
    assert result.exit_code == 0, result.output
    lines = []
    train = {"batch_size": 64, "learning_rate": 0.003, "patience": 20}
    config = {
        "dnn": replace(CLASSIFIER, train=replace(TRAIN, patience=20)),
        "mlp": classifier_config(
            "mlp", epochs=1, seed=3, options={"widths": [8]}, train=train, select=None
        ),
    }[model]
    fit_network(path, config, say=lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "sorting"), "--task 'sorting' is unknown"),
        (("--species", "charged"), "go with --task regression"),
        (("--option", "filters"), "expected name=value"),
    ],
)
def test_options_that_do_not_fit_are_refused(path, arguments, message):
    result = CliRunner().invoke(cli.app, ["train", str(path), *arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
