"""Networks and trees give the energies of the clusters that the truth is read for, and calibrate a
toy whose answer is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import ConfigError
from pfcalib.features.points import build_points
from pfcalib.features.scalars import MOMENT_FEATURES
from pfcalib.features.targets import TargetConfig
from pfcalib.models.heads import LEVELS
from pfcalib.models.shapes import shape_table
from pfcalib.samples.read import read_sample
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import (
    LOWEST_ENERGY,
    SELECTION,
    NetworkConfig,
    for_species,
    network_energy,
    open_stream,
    output_energy,
)
from pfcalib.training.regressors import (
    fit_energy_trees,
    fit_regressor,
    measure_inversion,
    read_clusters,
)
from pfcalib.training.trees import TreesConfig

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = TrainConfig(
    epochs=12, batch_size=32, learning_rate=0.015, loss="huber", schedule="cosine", seed=3
)
ENERGY = NetworkConfig(
    name="dnn",
    kind="layer:EMB2",
    options={"widths": [32, 16], "dropout": 0.02, "with_scalars": True, "head": "energy"},
    target=TargetConfig(),
    select=SELECTION,
    train=TRAIN,
)


def response_of(deposit):
    """The toy: clusterE is this function of the deposit and of nothing else."""
    return deposit * (0.6 + 0.1 * np.log10(deposit))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The cells are left as they are: only the scalars tell of the energy."""
    sample = make_sample(np.random.default_rng(7), 1500)
    deposit = 10.0 ** np.random.default_rng(8).uniform(-0.3, 2.5, len(sample))
    sample.scalars["cluster_ENG_CALIB_TOT"] = deposit.astype(np.float32)
    sample.scalars["clusterE"] = response_of(deposit).astype(np.float32)
    for name, share in (("OUT_T", 0.1), ("DEAD_TOT", 0.3)):
        sample.scalars[f"cluster_ENG_CALIB_{name}"] = (share * deposit).astype(np.float32)
    file = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(file, sample)
    return file


@pytest.fixture(scope="module")
def regressor(path):
    return fit_regressor(path, ENERGY)


@pytest.fixture(scope="module")
def splits(path):
    return {split: read_clusters(path, split=split) for split in ("train", "validation", "test")}


def test_clusters_are_those_of_the_file_that_pass_the_selection(path, splits):
    sample = read_sample(path)
    for clusters in splits.values():
        np.testing.assert_array_equal(
            clusters.columns["clusterE"], sample["clusterE"][clusters.rows]
        )
        np.testing.assert_array_equal(
            clusters.e_true, sample["cluster_ENG_CALIB_TOT"][clusters.rows].astype(np.float64)
        )
        np.testing.assert_array_equal(clusters.is_em, sample.is_em[clusters.rows])
        np.testing.assert_array_equal(clusters.species["pi0"], ~clusters.species["pic"])
        assert clusters.e_em.dtype == np.float64
    rows = np.concatenate([clusters.rows for clusters in splits.values()])
    shaped = read_clusters(path, split="test", with_shapes=True)
    points = build_points(read_sample(path)[shaped.rows])
    n = len(MOMENT_FEATURES)
    np.testing.assert_array_equal(shaped.table[:, :n], splits["test"].table)
    np.testing.assert_allclose(shaped.table[:, n:], shape_table(points), rtol=1e-5, atol=1e-6)
    assert len(shaped.feature_names) == shaped.table.shape[1]
    assert splits["test"].feature_names == MOMENT_FEATURES
    assert len(np.unique(rows)) == len(rows) == len(read_clusters(path, split="all").rows)


def test_truth_follows_the_target(path):
    clusters = read_clusters(path, split="test", target=TargetConfig(truth="full"))
    deposit = clusters.columns["cluster_ENG_CALIB_TOT"]
    np.testing.assert_allclose(clusters.e_true, 1.4 * deposit, rtol=1e-6)


def test_a_network_calibrates_what_is_a_function_of_the_measured_energy(path, splits, regressor):
    clusters = splits["test"]
    inside = (clusters.e_true > 1.0) & (clusters.e_true < 200.0)
    ratio = (regressor.energy(path, split="test") / clusters.e_true)[inside]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert np.quantile(np.abs(ratio - 1.0), 0.68) < 0.05
    assert abs(np.median(clusters.e_em[inside] / clusters.e_true[inside]) - 1.0) > 0.2


def test_energies_come_in_the_order_of_the_clusters(path, regressor):
    """Each energy is that of the network on the one row, decoded with its own clusterE and
    inverted.
    """
    clusters = read_clusters(path, split="test")
    plain = network_energy(regressor.network, path, split="test")
    np.testing.assert_array_equal(
        regressor.inversion.apply(plain), regressor.energy(path, split="test")
    )
    stream = open_stream(path, ENERGY, split="test")
    np.testing.assert_array_equal(stream.rows, clusters.rows)
    y = np.asarray(regressor.network.model(stream[0][0], training=False))[:, 0]
    np.testing.assert_allclose(plain, np.exp(y) * clusters.e_em, rtol=1e-6)


def test_without_inversion_a_regressor_gives_what_its_network_says(path, regressor):
    bare = fit_regressor(path, ENERGY, invert=False)
    assert bare.inversion is None
    np.testing.assert_array_equal(
        bare.energy(path, split="test"), network_energy(regressor.network, path, split="test")
    )


def test_a_selection_of_one_species_gives_its_energies(path, splits, regressor):
    for species in ("neutral", "charged"):
        select = replace(SELECTION, species=species)
        keep = splits["test"].is_em == (species == "neutral")
        np.testing.assert_allclose(
            regressor.energy(path, split="test", select=select),
            regressor.energy(path, split="test")[keep],
            rtol=1e-5,
        )


def test_a_network_of_one_species_is_told_all_clusters_when_it_is_applied(path, splits):
    config = for_species(replace(ENERGY, train=replace(TRAIN, epochs=1)), "neutral")
    assert config.select == replace(SELECTION, species="neutral")
    assert for_species(replace(ENERGY, select=None), "charged").select == replace(
        SELECTION, species="charged"
    )
    assert len(fit_regressor(path, config).energy(path, split="test")) == len(splits["test"].rows)


@pytest.mark.parametrize(
    "target", [TargetConfig(), TargetConfig(scale="ratio"), TargetConfig(scale="log", flat=False)]
)
def test_trees_calibrate_what_is_a_function_of_the_measured_energy(splits, target):
    trees = fit_energy_trees(
        splits["train"],
        splits["validation"],
        target=target,
        config=TreesConfig(max_iter=60, learning_rate=0.2),
    )
    clusters = splits["test"]
    inside = (clusters.e_true > 1.0) & (clusters.e_true < 200.0)
    ratio = (trees.energy(clusters) / clusters.e_true)[inside]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert np.quantile(np.abs(ratio - 1.0), 0.68) < 0.05


def test_trees_of_a_species_know_only_its_clusters(splits):
    """Charged clusters get twice the deposit: trees of the neutral ones must not see that."""
    doubled = {}
    for name, clusters in splits.items():
        deposit = np.where(clusters.is_em, 1.0, 2.0) * clusters.e_true
        doubled[name] = clusters._replace(
            columns={**clusters.columns, "cluster_ENG_CALIB_TOT": deposit}, e_true=deposit
        )
    config = TreesConfig(max_iter=20)
    energies = [
        fit_energy_trees(
            part["train"], part["validation"], species="neutral", config=config
        ).energy(splits["test"])
        for part in (splits, doubled)
    ]
    np.testing.assert_array_equal(energies[0], energies[1])


@pytest.mark.parametrize("head", ["energy", "quantiles", "mixture", "class_and_energy"])
def test_every_head_is_read_as_the_energy_that_it_speaks_of(head, rng):
    y, cluster_e = rng.normal(0.0, 0.3, 20), rng.uniform(1.0, 10.0, 20)
    losses = {"energy": "mae", "quantiles": "pinball"}
    config = NetworkConfig(
        name="dnn",
        options={"head": head},
        target=TargetConfig(with_class=head == "class_and_energy"),
        train=TrainConfig(loss=losses.get(head, head)),
    )
    wide = np.full(20, np.log(0.2))
    output = {
        "energy": y[:, None],
        "quantiles": y[:, None] + np.linspace(-0.2, 0.2, len(LEVELS)),
        "mixture": np.column_stack([np.full((20, 2), np.log(0.5)), y - 0.1, y + 0.1, wide, wide]),
        "class_and_energy": np.column_stack([np.full((20, 2), 0.5), y]),
    }[head]
    np.testing.assert_allclose(
        output_energy(head, config.target, output.astype(np.float32), cluster_e),
        np.exp(y) * cluster_e,
        rtol=1e-5,
    )


def test_an_energy_that_a_linear_scale_puts_below_zero_is_raised():
    config = replace(ENERGY, target=TargetConfig(scale="ratio"))
    assert output_energy(
        "energy", config.target, np.array([[-0.5], [0.5]], dtype=np.float32), np.array([2.0, 2.0])
    ).tolist() == [LOWEST_ENERGY, 1.0]


def test_a_classifier_gives_no_energy():
    with pytest.raises(ConfigError, match="head 'classes' gives no energy"):
        output_energy("classes", None, np.zeros((1, 2), dtype=np.float32), np.ones(1))


def points(inversion):
    return np.stack([inversion.log_predicted, inversion.log_corrected])


def test_the_inversion_of_a_regressor_is_that_of_the_validation_split(path, regressor):
    of_validation, of_test = (
        points(measure_inversion(regressor.network, path, split=split))
        for split in ("validation", "test")
    )
    np.testing.assert_array_equal(points(regressor.inversion), of_validation)
    np.testing.assert_array_equal(points(measure_inversion(regressor.network, path)), of_validation)
    assert of_validation.shape != of_test.shape or not np.allclose(of_validation, of_test)


def test_trees_are_inverted_to_the_truth_of_the_validation_split(splits):
    """Its deposits are twice as large, so all energies double."""
    deposit = 2.0 * splits["validation"].e_true
    columns = {**splits["validation"].columns, "cluster_ENG_CALIB_TOT": deposit}
    held_out = splits["validation"]._replace(columns=columns, e_true=deposit)
    trees = fit_energy_trees(splits["train"], held_out, config=TreesConfig(max_iter=20))
    ratio = trees.energy(splits["test"]) / splits["test"].e_true
    assert np.median(ratio) == pytest.approx(2.0, rel=0.05)
