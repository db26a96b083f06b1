"""The study of regressions gives each cluster to the network of its species, and measures widths,
sizes and uncertainties whose truth is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from pfcalib.deploy.contract import read_contract
from pfcalib.errors import ConfigError
from pfcalib.features.targets import TargetConfig
from pfcalib.samples.write import write_sample
from pfcalib.training import regressions as study
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig
from pfcalib.training.regressors import SELECTION, for_species, read_clusters
from pfcalib.training.trees import TreesConfig

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH = 0.1  # of ln(clusterE / deposit)
OPTIONS = {"widths": [24, 12], "dropout": 0.0, "with_scalars": True}
TRAIN = TrainConfig(
    epochs=8, batch_size=32, learning_rate=0.01, loss="huber", schedule="cosine", seed=3
)
ENERGY = NetworkConfig(
    name="dnn",
    kind="layer:TileBar2",
    options={**OPTIONS, "head": "energy"},
    target=TargetConfig(),
    select=SELECTION,
    train=TRAIN,
)
TREES = TreesConfig(max_iter=30, min_samples_leaf=5)


def with_head(head: str, loss: str) -> NetworkConfig:
    return replace(
        ENERGY,
        options={**OPTIONS, "head": head, "n_components": 1},
        train=replace(TRAIN, loss=loss, epochs=12),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Neutral clusters measure 0.9 of their deposit and charged ones 0.6 of it, with a Gaussian
    spread of the logarithm.
    """
    rng, sample = np.random.default_rng(7), make_sample(np.random.default_rng(7), 2000)
    deposit = 10.0 ** rng.uniform(0.0, 2.0, len(sample))
    sample.scalars["cluster_ENG_CALIB_TOT"] = deposit.astype(np.float32)
    share = np.where(sample.is_em, 0.9, 0.6) * np.exp(WIDTH * rng.standard_normal(len(sample)))
    sample.scalars["clusterE"] = (share * deposit).astype(np.float32)
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, sample)
    return file


@pytest.fixture(scope="module")
def splits(path):
    return {split: read_clusters(path, split=split) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def pair(path):
    return study.fit_apart(path, ENERGY)


def medians(energy, clusters):
    return [np.median(energy[mask] / clusters.e_true[mask]) for mask in clusters.species.values()]


def test_each_cluster_is_calibrated_by_the_network_of_its_own_species(path, splits, pair):
    energy = study.energy_apart(pair, path, splits["test"], split="test")
    assert medians(energy, splits["test"]) == pytest.approx([1.0, 1.0], abs=0.03)
    swapped = study.energy_apart(
        {"pi0": pair["pic"], "pic": pair["pi0"]}, path, splits["test"], split="test"
    )
    assert medians(swapped, splits["test"]) == pytest.approx([1.5, 1.0 / 1.5], rel=0.06)


def test_trees_of_each_species_calibrate_it(splits):
    trees = study.fit_trees_apart(splits["train"], splits["validation"], config=TREES)
    assert medians(
        study.trees_energy_apart(trees, splits["test"]), splits["test"]
    ) == pytest.approx([1.0, 1.0], abs=0.04)


def test_width_and_median_near_an_energy_are_those_of_the_toy(rng):
    e_true = 10.0 ** rng.uniform(0.5, 1.5, 40_000)
    e_pred = 1.1 * e_true * (1.0 + WIDTH * rng.standard_normal(len(e_true)))
    (width,) = study.resolution_at([e_pred], e_true, 10.0, rng=rng)
    assert width.value == pytest.approx(WIDTH, abs=4.0 * width.error)
    assert study.median_at(e_pred, e_true, np.ones(len(e_true), dtype=bool), 10.0) == pytest.approx(
        1.1, abs=0.01
    )


def test_predicted_widths_are_true_where_the_truth_is_gaussian(path):
    for head, loss in (("mixture", "mixture"), ("quantiles", "pinball")):
        network = study.fit_variants(
            path, {head: for_species(with_head(head, loss), "charged")}, split="test"
        )[head].network
        found = study.check_uncertainty(network, path, split="test")
        assert found.width.value == pytest.approx(WIDTH, rel=0.25)
        assert found.covered[0.68].value == pytest.approx(
            0.68, abs=4.0 * found.covered[0.68].error + 0.05
        )
        assert np.std(np.clip(found.pulls, -4.0, 4.0)) == pytest.approx(1.0, abs=0.25)


def test_a_network_without_a_width_has_no_coverage(path, pair):
    with pytest.raises(ConfigError, match="predicts no width"):
        study.check_uncertainty(pair["pic"].network, path, split="test")


def test_variants_are_tabulated_with_median_and_resolution_at_each_energy(path, splits, rng):
    variants = study.fit_variants(path, {"huber": for_species(ENERGY, "charged")}, split="test")
    e_true = splits["test"].e_true[~splits["test"].is_em]
    columns, rows = study.tabulate_variants(variants, e_true, (10.0,), rng=rng)
    assert columns == ["setting", "median at 10 GeV", "resolution at 10 GeV"]
    assert rows[0][:1] == ["huber"]
    assert rows[0][1] == pytest.approx(1.0, abs=0.15)


def test_the_study_of_sizes_calibrates_the_test_split_at_each_size(path, splits):
    alone = {split: part.take(~part.is_em) for split, part in splits.items()}
    sizes = study.SizeStudyConfig(sizes=(100, 300), epochs=(4, 3))
    found = study.study_regression_sizes(path, sizes, for_species(ENERGY, "charged"), TREES, alone)
    assert {name: [len(energy) for energy in energies] for name, energies in found.items()} == {
        name: [len(alone["test"].rows)] * 2 for name in ("dnn", "gbdt")
    }
    with pytest.raises(ConfigError, match="the training split has"):
        study.study_regression_sizes(
            path, study.SizeStudyConfig(sizes=(10**6,), epochs=(1,)), ENERGY, TREES, alone
        )


def test_trees_of_the_study_of_sizes_learn_from_as_many_clusters_as_the_size_says(path, splits):
    """Fewer than two leaves hold leave all to the inversion, which knows but the energy."""
    alone = {split: part.take(~part.is_em) for split, part in splits.items()}
    sizes, config = (
        study.SizeStudyConfig(sizes=(30, 300), epochs=(1, 1)),
        for_species(ENERGY, "charged"),
    )
    trees = replace(TREES, min_samples_leaf=20)
    found = study.study_regression_sizes(path, sizes, config, trees, alone)["gbdt"]
    in_order = [np.diff(energy[np.argsort(alone["test"].e_em)]) > 0.0 for energy in found]
    assert [bool(rising.all()) for rising in in_order] == [True, False]


def test_the_study_of_sizes_inverts_trees_to_the_truth_of_the_validation_split(path, splits):
    alone = {split: part.take(~part.is_em) for split, part in splits.items()}
    doubled = 2.0 * alone["validation"].e_true
    columns = {**alone["validation"].columns, "cluster_ENG_CALIB_TOT": doubled}
    alone["validation"] = alone["validation"]._replace(columns=columns, e_true=doubled)
    sizes, config = study.SizeStudyConfig(sizes=(300,), epochs=(1,)), for_species(ENERGY, "charged")
    (energy,) = study.study_regression_sizes(path, sizes, config, TREES, alone)["gbdt"]
    assert np.median(energy / alone["test"].e_true) == pytest.approx(2.0, rel=0.05)


def test_closure_in_a_variable_takes_the_kept_clusters_of_each_species(splits, rng):
    clusters = splits["test"]
    keep = clusters.e_true > 5.0
    variable = np.where(clusters.is_em, 0.25, 0.75)
    closures = study.closures_by_species(
        {"em": clusters.e_em}, clusters, variable, np.array([0.0, 0.5, 1.0]), keep=keep, rng=rng
    )
    assert closures["em"]["pi0"].value[0] == pytest.approx(0.9, abs=0.04)
    assert closures["em"]["pic"].value[1] == pytest.approx(0.6, abs=0.04)
    assert closures["em"]["pi0"].n_clusters.tolist() == [int((clusters.is_em & keep).sum()), 0]


def test_an_exported_network_tells_its_target(path, pair):
    network = pair["pi0"].network
    report = study.export_network(network, path, n_clusters=50)
    assert report.passed
    assert (
        "log_ratio of the deposited energy"
        in read_contract(network.folder / "dnn.onnx").normalisation
    )
