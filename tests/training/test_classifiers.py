"""A network is trained once for its settings, found again, and scores the clusters that the other
classifiers score.
"""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.likelihood import fit_likelihood
from pfcalib.errors import ConfigError
from pfcalib.features.scalars import MOMENT_FEATURES, moment_table
from pfcalib.samples.select import BALANCE_EDGES
from pfcalib.samples.split import SPLITS
from pfcalib.samples.write import write_sample
from pfcalib.training.classifiers import read_columns, score_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.learning_curve import study_sizes
from pfcalib.training.networks import (
    NetworkConfig,
    fit_network,
    network_folder,
    open_stream,
    score_network,
    take_clusters,
)
from pfcalib.training.regressions import SizeStudyConfig
from pfcalib.training.trees import TreesConfig, fit_trees

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = NetworkConfig(
    name="dnn",
    options={"widths": [8, 4]},
    train=TrainConfig(epochs=2, batch_size=64, learning_rate=0.003, seed=3),
)
TREES = TreesConfig(max_iter=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, make_sample(np.random.default_rng(7), 800))
    return file


@pytest.fixture(scope="module")
def network(path):
    return fit_network(path, TINY)


def test_the_second_time_a_network_is_taken_from_its_folder(path, network):
    lines = []
    again = fit_network(path, TINY, say=lines.append)
    assert lines == []
    np.testing.assert_array_equal(
        again.result.history["val_loss"], network.result.history["val_loss"]
    )
    np.testing.assert_array_equal(
        score_network(again, path, split="test"), score_network(network, path, split="test")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"n_clusters": 100},
        {"kind": "layer:EMB2"},
        {"options": {"widths": [8]}},
        {"train": TrainConfig(epochs=3)},
    ],
)
def test_other_settings_have_another_folder(path, change):
    assert network_folder(path, replace(TINY, **change)) != network_folder(path, TINY)


def test_all_classifiers_score_the_same_clusters(path, network):
    columns = read_columns(path, split="train", seed=3)
    likelihood = fit_likelihood(columns, columns["is_em"])
    trees = fit_trees(
        moment_table(columns), columns["is_em"], feature_names=MOMENT_FEATURES, config=TREES
    )
    scored = score_sample(
        path, likelihood, trees, {"dnn": network}, split="test", balance=None, seed=3
    )
    assert scored.p_em.keys() == {"likelihood", "gbdt", "dnn"}
    assert {len(score) for score in scored.p_em.values()} == {len(scored.is_em)}
    np.testing.assert_array_equal(scored.is_em, np.abs(scored.columns["truthPdgId"]) == 111)
    with pytest.raises(ConfigError, match="seed"):
        score_sample(path, likelihood, trees, {"dnn": network}, split="test", balance=None, seed=4)


def test_balancing_after_scoring_keeps_the_clusters_that_the_stream_chooses(path, network):
    columns = read_columns(path, split="train", seed=3)
    likelihood = fit_likelihood(columns, columns["is_em"])
    trees = fit_trees(
        moment_table(columns), columns["is_em"], feature_names=MOMENT_FEATURES, config=TREES
    )
    scored = score_sample(
        path, likelihood, trees, {"dnn": network}, split="test", balance=None, seed=3
    )
    balanced = scored.balanced("cluster_ENG_CALIB_TOT", rng=np.random.default_rng(3))
    np.testing.assert_allclose(
        balanced.p_em["dnn"], score_network(network, path, split="test"), atol=1e-6
    )
    assert balanced.is_em.sum() * 2 == len(balanced.is_em)


def test_clusters_are_taken_in_the_order_of_the_stream(path):
    stream = open_stream(path, TINY, split="train", batch_size=50)
    inputs, labels = take_clusters(stream, 70)
    assert inputs["pixels"].shape == (70, 936)
    np.testing.assert_array_equal(inputs["pixels"][:50], stream[0][0]["pixels"])
    np.testing.assert_array_equal(labels, stream.labels[:70])
    assert len(take_clusters(stream, 10**6)[1]) == stream.n_clusters


@pytest.mark.parametrize(
    "wrong",
    [{"name": "resnet"}, {"kind": "layer:HEC"}, {"name": "cnn", "kind": "flat"}, {"n_clusters": 0}],
)
def test_a_network_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)


def test_the_study_of_sizes_gives_one_point_a_size(path):
    columns = {
        split: read_columns(path, split=split, seed=3) for split in ("train", "validation", "test")
    }
    points = study_sizes(
        path, SizeStudyConfig(sizes=(50, 150), epochs=(2, 1)), TINY, TREES, columns
    )
    assert [point.n_clusters for point in points] == [50, 150]
    for point in points:
        assert point.lead.value == pytest.approx(point.network.value - point.trees.value)


def test_trees_learn_from_as_many_clusters_as_the_size_says(path):
    """Fewer than two leaves hold teach nothing, and that is so for no other number."""
    columns = {split: read_columns(path, split=split, seed=3) for split in SPLITS}
    sizes = SizeStudyConfig(sizes=(30, 150), epochs=(1, 1))
    trees = replace(TREES, min_samples_leaf=20)
    few, more = study_sizes(path, sizes, TINY, trees, columns)
    assert few.trees.value == 0.5
    assert more.trees.value > 0.7


def test_the_validation_split_stops_the_trees_of_the_study_of_sizes(path):
    """Labels that are all wrong let them stop at once; the test split does not."""
    columns = {split: read_columns(path, split=split, seed=3) for split in SPLITS}
    sizes, trees = SizeStudyConfig(sizes=(150,), epochs=(1,)), TreesConfig(max_iter=30, patience=1)
    wrong = {**columns["validation"], "is_em": ~columns["validation"]["is_em"]}
    areas = [
        study_sizes(path, sizes, TINY, trees, {**columns, "validation": validation})[0].trees.value
        for validation in (columns["validation"], wrong)
    ]
    assert areas[0] != areas[1]


def test_trees_learn_from_as_many_neutral_as_charged_clusters_of_each_energy(tmp_path):
    sample = make_sample(np.random.default_rng(5), 1600)
    kept = ~sample.is_em | (np.arange(1600) % 16 < 2)  # a quarter of the neutral ones
    write_sample(tmp_path / "charged.root", sample[kept])
    options = {"split": "train", "seed": 3}
    everything = read_columns(tmp_path / "charged.root", balance=None, **options)
    assert everything["is_em"].mean() < 0.3
    columns = read_columns(tmp_path / "charged.root", **options)
    deposit, is_em = columns["cluster_ENG_CALIB_TOT"], columns["is_em"]
    deposits = [deposit[is_em == side] for side in (True, False)]
    neutral, charged = (np.histogram(energy, BALANCE_EDGES)[0] for energy in deposits)
    assert neutral.sum() > 30
    np.testing.assert_array_equal(neutral, charged)


@pytest.mark.parametrize(
    ("sizes", "epochs"), [((50, 40), (1, 1)), ((50,), (1, 1)), ((), ()), ((0,), (1,))]
)
def test_sizes_that_make_no_study_are_refused(sizes, epochs):
    with pytest.raises(ConfigError):
        SizeStudyConfig(sizes=sizes, epochs=epochs)


def test_a_size_beyond_the_training_split_is_refused(path):
    columns = {"train": read_columns(path, split="train", seed=3)}
    with pytest.raises(ConfigError, match="the training split has"):
        study_sizes(path, SizeStudyConfig(sizes=(10**6,), epochs=(1,)), TINY, TREES, columns)
