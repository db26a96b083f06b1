"""A network that cannot be is refused, its folder tells all it depends on, and what it learns on
toy data is what lies in them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from pfcalib.deploy.contract import read_contract
from pfcalib.errors import ConfigError
from pfcalib.features.augment import AugmentConfig
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.roc import auc
from pfcalib.models.heads import HEADS, split_mixture
from pfcalib.samples.read import read_sample
from pfcalib.samples.select import BALANCE_EDGES, SelectionConfig
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import (
    SELECTION,
    Extra,
    NetworkConfig,
    _data,
    apply_network,
    export_network,
    fit_network,
    fit_seeds,
    network_energy,
    network_folder,
    open_stream,
    score_network,
    take_clusters,
)
from pfcalib.training.settings import regression_config
from pfcalib.training.stream import MixedStream

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUICK = TrainConfig(epochs=1, batch_size=64, learning_rate=0.003, loss="huber", seed=3)
ENERGY = NetworkConfig(
    name="dnn",
    options={"widths": [8], "with_scalars": True, "head": "energy"},
    target=TargetConfig(),
    select=SELECTION,
    train=QUICK,
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("samples"), np.random.default_rng(7)
    for name, n in (("toy", 500), ("other", 200)):
        write_sample(folder / f"{name}.root", make_sample(rng, n))
    return folder / "toy.root", folder / "other.root"


@pytest.fixture(scope="module")
def network(paths):
    return fit_network(paths[0], ENERGY)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", sorted({loss for _, losses in HEADS.values() for loss in losses}))
def test_only_losses_that_fit_a_head_are_taken(head, loss):
    target = None if head == "classes" else TargetConfig(with_class=head == "class_and_energy")
    options = {
        "name": "dnn",
        "options": {"head": head},
        "target": target,
        "train": TrainConfig(loss=loss),
    }
    if loss in HEADS[head][1]:
        assert NetworkConfig(**options).head == head
    else:
        with pytest.raises(ConfigError, match=f"head '{head}' goes with a loss among"):
            NetworkConfig(**options)


@pytest.mark.parametrize(
    ("head", "loss", "target"),
    [
        ("classes", "crossentropy", TargetConfig()),
        ("energy", "huber", None),
        ("energy", "huber", TargetConfig(with_class=True)),
        ("class_and_energy", "class_and_energy", TargetConfig()),
        ("mixture", "mixture", None),
    ],
)
def test_a_target_that_a_head_does_not_learn_is_refused(head, loss, target):
    with pytest.raises(ConfigError, match=f"head '{head}' does not learn the target"):
        NetworkConfig(
            name="dnn", options={"head": head}, target=target, train=TrainConfig(loss=loss)
        )


def test_a_head_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="head 'spin' goes with a loss among none"):
        NetworkConfig(name="dnn", options={"head": "spin"})


def test_a_classifier_balances_its_classes_and_a_regression_does_not(paths):
    assert NetworkConfig(name="dnn").balance == "subsample"
    assert ENERGY.balance is None
    stream = open_stream(paths[0], ENERGY, split="train")
    assert stream.n_clusters == np.count_nonzero(
        stream.column("cluster_ENG_CALIB_TOT") >= SELECTION.min_deposit
    )
    assert (
        stream.n_clusters
        > open_stream(paths[0], ENERGY, split="train", balance="subsample").n_clusters
    )


def test_only_a_shuffled_stream_is_augmented(paths):
    config = replace(ENERGY, augment=AugmentConfig())
    plain, wanted = (open_stream(paths[0], each, split="train") for each in (config, ENERGY))
    assert plain.augment is None
    np.testing.assert_array_equal(plain[0][0]["pixels"], wanted[0][0]["pixels"])
    assert open_stream(paths[0], config, split="train", shuffle=True).augment == AugmentConfig()
    training, validation = _data(paths[0], config, ())
    assert (training.augment, validation.augment) == (AugmentConfig(), None)


@pytest.mark.parametrize(
    "change",
    [
        {"target": TargetConfig(scale="ratio")},
        {"target": TargetConfig(flat=False)},
        {"select": SelectionConfig(min_deposit=0.2, min_cluster_e=0.1, species="neutral")},
        {"augment": AugmentConfig()},
        {"train": replace(QUICK, huber_delta=0.2)},
        {
            "options": {"widths": [8], "with_scalars": True, "head": "quantiles"},
            "train": replace(QUICK, loss="pinball"),
        },
    ],
)
def test_what_a_regression_learns_is_part_of_its_folder(paths, change):
    assert network_folder(paths[0], replace(ENERGY, **change)) != network_folder(paths[0], ENERGY)


def test_extra_samples_and_the_start_are_part_of_the_folder(paths, network):
    folders = [
        network_folder(paths[0], ENERGY),
        network_folder(paths[0], ENERGY, extras=[Extra(paths[1], 0.5)]),
        network_folder(paths[0], ENERGY, extras=[Extra(paths[1], 0.25)]),
        network_folder(paths[0], ENERGY, start=network),
        network_folder(paths[1], ENERGY),
    ]
    assert len(set(folders)) == len(folders)
    assert network.folder == folders[0]


def test_extra_samples_take_their_share_of_the_batches(paths):
    training, validation = _data(paths[0], ENERGY, [Extra(paths[1], 0.25)])
    assert isinstance(training, MixedStream)
    assert [stream.batch_size for stream in training.streams] == [48, 16]
    assert [stream.paths[0] for stream in training.streams] == list(paths)
    assert validation.paths == [paths[0]] or tuple(validation.paths) == (paths[0],)


@pytest.mark.parametrize("shares", [(0.0,), (1.0,), (0.6, 0.5), (-0.1,)])
def test_shares_that_leave_nothing_are_refused(paths, shares):
    with pytest.raises(ConfigError, match="shares above 0 that sum to less than 1"):
        fit_network(paths[0], ENERGY, extras=[Extra(paths[1], share) for share in shares])


def test_extra_samples_do_not_go_with_a_number_of_clusters(paths):
    with pytest.raises(ConfigError, match="extra samples go with all clusters"):
        fit_network(paths[0], replace(ENERGY, n_clusters=100), extras=[Extra(paths[1], 0.5)])


def test_a_network_is_trained_on_a_mixture_and_found_again(paths):
    options = {"extras": [Extra(paths[1], 0.25)]}
    lines = []
    first = fit_network(paths[0], ENERGY, say=lines.append, **options)
    again = fit_network(paths[0], ENERGY, say=lines.append, **options)
    assert len(lines) == 1
    assert again.best_loss == first.best_loss


def test_fine_tuning_starts_from_the_given_weights(paths, network, tmp_path):
    slow = replace(ENERGY, train=replace(QUICK, learning_rate=1e-9))
    tuned = fit_network(paths[1], slow, start=network, folder=tmp_path / "tuned")
    for first, second in zip(network.model.get_weights(), tuned.model.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
    fresh = fit_network(
        paths[1], replace(slow, train=replace(slow.train, seed=4)), folder=tmp_path / "fresh"
    )
    assert not np.allclose(fresh.model.get_weights()[0], tuned.model.get_weights()[0], atol=1e-3)


def test_fine_tuning_from_other_layers_is_refused(paths, network, tmp_path):
    other = replace(ENERGY, options={**ENERGY.options, "widths": [4]})
    with pytest.raises(ConfigError, match="do not have the same weights"):
        fit_network(paths[1], other, start=network, folder=tmp_path / "other")


def test_a_watcher_is_told_of_every_epoch(paths, tmp_path):
    seen = []
    fit_network(
        paths[1],
        replace(ENERGY, train=replace(QUICK, epochs=2)),
        watch=lambda epoch, row: seen.append(epoch),
        folder=tmp_path / "watched",
    )
    assert seen == [0, 1]


def test_a_known_function_of_the_clusters_is_recovered(paths, tmp_path):
    """The deposit of the toy is clusterE for pi0, narrow and early, and 1.3 clusterE for charged
    pions, wide and deep.
    """
    train = replace(QUICK, epochs=12, learning_rate=0.007, batch_size=32)
    config = replace(
        ENERGY,
        options={**ENERGY.options, "widths": [32, 16], "dropout": 0.05, "pixel_power": 0.5},
        train=train,
    )
    network = fit_network(paths[0], config, folder=tmp_path / "known")
    stream = open_stream(paths[0], config, split="test")
    target = np.where(stream.labels[:, 1] > 0.5, 0.0, np.log(1.3))
    error = apply_network(network, stream)[:, 0] - target
    assert np.median(np.abs(error)) < 0.04
    assert np.corrcoef(apply_network(network, stream)[:, 0], target)[0, 1] > 0.9


def test_a_network_belongs_to_the_content_of_its_sample_not_to_its_name(paths, tmp_path):
    """Another sample of the same name gets a network of its own; the same sample, made again
    elsewhere, finds its network.
    """
    sample = read_sample(paths[0])
    names = []
    for folder, shift in (("first", 0.0), ("again", 0.0), ("other", 0.25)):
        scalars = {**sample.scalars, "clusterE": sample["clusterE"] + np.float32(shift)}
        write_sample(tmp_path / folder / "pions.root", replace(sample, scalars=scalars))
        names.append(network_folder(tmp_path / folder / "pions.root", ENERGY).name)
    assert names[0] == names[1] != names[2]


CLASSIFIER = NetworkConfig(
    name="dnn",
    options={"widths": [8, 4]},
    train=TrainConfig(epochs=2, batch_size=64, learning_rate=0.003, seed=3),
)


@pytest.fixture(scope="module")
def classifier(paths):
    return fit_network(paths[0], CLASSIFIER)


def test_the_second_time_a_network_is_taken_from_its_folder(paths, classifier):
    lines = []
    again = fit_network(paths[0], CLASSIFIER, say=lines.append)
    assert lines == []
    np.testing.assert_array_equal(
        again.result.history["val_loss"], classifier.result.history["val_loss"]
    )
    np.testing.assert_array_equal(
        score_network(again, paths[0], split="test"),
        score_network(classifier, paths[0], split="test"),
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
def test_other_settings_have_another_folder(paths, change):
    assert network_folder(paths[0], replace(CLASSIFIER, **change)) != network_folder(
        paths[0], CLASSIFIER
    )


def test_clusters_are_taken_in_the_order_of_the_stream(paths):
    stream = open_stream(paths[0], CLASSIFIER, split="train", batch_size=50)
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
        replace(CLASSIFIER, **wrong)


def test_a_classifier_sees_as_many_neutral_as_charged_clusters_of_each_energy(tmp_path):
    sample = make_sample(np.random.default_rng(5), 1600)
    kept = ~sample.is_em | (np.arange(1600) % 16 < 2)  # a quarter of the neutral ones
    write_sample(tmp_path / "charged.root", sample[kept])
    stream = open_stream(tmp_path / "charged.root", CLASSIFIER, split="train")
    deposit, is_em = stream.column("cluster_ENG_CALIB_TOT"), stream.labels[:, 1] > 0.5
    deposits = [deposit[is_em == side] for side in (True, False)]
    neutral, charged = (np.histogram(energy, BALANCE_EDGES)[0] for energy in deposits)
    assert neutral.sum() > 30
    np.testing.assert_array_equal(neutral, charged)
    scores = score_network(
        fit_network(tmp_path / "charged.root", CLASSIFIER),
        tmp_path / "charged.root",
        split="all",
        balance=None,
    )
    assert len(scores) == np.count_nonzero(sample[kept]["clusterE"] > 0.5)


def test_several_samples_are_one_training(paths, tmp_path):
    """Their clusters are counted together, and another order of files is another network."""
    network = fit_network(paths, CLASSIFIER, folder=tmp_path / "both")
    n_first = open_stream(paths[0], CLASSIFIER, split="train").n_clusters
    assert open_stream(paths, CLASSIFIER, split="train").n_clusters > n_first
    assert len(score_network(network, paths, split="test", balance=None)) > 0
    assert network_folder(paths, CLASSIFIER).name != network_folder(paths[::-1], CLASSIFIER).name


def test_an_exported_network_tells_its_target(paths, network):
    report = export_network(network, paths[0], n_clusters=50, inversion=None)
    contract = read_contract(report.path)
    assert "log_ratio of the deposited energy" in contract.normalisation
    assert TargetConfig(**contract.training["target"]) == ENERGY.target


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("mlp", {"widths": [8], "n_bins": 8}, None),
        ("points", {"widths": [8], "n_bins": 8, "n_shape_bins": 4, "with_scalars": True}, None),
        ("cnn", {"filters": 2, "branch_width": 4, "merged_width": 4}, "layers+significance"),
    ],
)
def test_networks_on_moments_points_and_significances_learn_from_a_file(
    name, options, kind, paths, tmp_path
):
    train = TrainConfig(
        epochs=6, batch_size=64, learning_rate=0.01, schedule="cosine_steps", ema=0.9, seed=3
    )
    config = NetworkConfig(name=name, options=options, kind=kind, train=train)
    network = fit_network(paths[0], config, folder=tmp_path / name, say=lambda line: None)
    is_em = open_stream(paths[0], config, split="test").labels[:, 1] > 0.5
    area = auc(score_network(network, paths[0], split="test"), is_em)
    assert area.value - 2.0 * area.error > 0.5
    report = export_network(network, paths[0], n_clusters=60)
    assert report.passed
    contract = read_contract(report.path)
    assert contract.kind == config.inputs
    columns = {spec.name: spec.meaning for spec in contract.inputs}.get("moments", "")
    assert ("cluster_CENTER_LAMBDA [mm]" in columns) == config.with_moments


def test_quantile_bins_come_from_training_clusters_and_go_along_with_fine_tuning(paths, tmp_path):
    config = NetworkConfig(
        name="mlp", options={"widths": [4]}, train=replace(QUICK, loss="crossentropy")
    )
    first = fit_network(paths[0], config, folder=tmp_path / "first", say=lambda line: None)
    later = fit_network(
        paths[1], config, start=first, folder=tmp_path / "later", say=lambda line: None
    )
    low = [network.model.get_layer("moment_bins").get_weights()[0] for network in (first, later)]
    energy = open_stream(paths[0], config, split="train").column("clusterE")
    assert low[0][0, 0] == pytest.approx(energy.min(), rel=1e-5)
    assert low[0][0, 16] == pytest.approx(np.median(energy), rel=0.05)
    np.testing.assert_array_equal(*low)


def test_seeds_differ_and_are_found_again(paths):
    config = NetworkConfig(
        name="mlp", options={"widths": [4]}, train=replace(QUICK, loss="crossentropy")
    )
    lines = []
    networks = fit_seeds(paths[0], config, (1, 2), say=lines.append)
    assert len(lines) == 2
    scores = [score_network(n, paths[0], split="test", balance=None) for n in networks]
    assert np.any(scores[0] != scores[1])
    again = fit_seeds(paths[0], config, (2,), say=lines.append)
    assert len(lines) == 2
    np.testing.assert_array_equal(
        score_network(again[0], paths[0], split="test", balance=None), scores[1]
    )


@pytest.mark.parametrize(("name", "kind"), [("cnn", "stacks"), ("dnn", "points"), ("mlp", "flat")])
def test_inputs_of_another_family_are_refused(name, kind):
    with pytest.raises(ConfigError, match=f"does not take inputs of kind '{kind}'"):
        NetworkConfig(name=name, kind=kind)


def test_moments_are_not_augmented(paths):
    config = NetworkConfig(name="mlp", augment=AugmentConfig())
    with pytest.raises(ConfigError, match="moments cannot be augmented"):
        open_stream(paths[0], config, split="train", shuffle=True)


def test_drawn_weights_and_members_are_mixtures_of_many(paths):
    """A Bayesian network differs from draw to draw and is itself at inference; its training gave
    the divergence of the weights a part in the loss.
    """
    options = {"widths": [8], "n_bins": 4, "n_components": 2}
    config = regression_config(
        "mlp", epochs=2, seed=3, head="mixture", options={**options, "bayesian": True}
    )
    network = fit_network(paths[0], config)
    n_clusters = open_stream(paths[0], config, split="train").n_clusters
    assert float(network.model.get_layer("dense0").kl_weight) == pytest.approx(1.0 / n_clusters)
    stream = open_stream(paths[0], config, split="test")
    mean, drawn = apply_network(network, stream), apply_network(network, stream, n_draws=5)
    np.testing.assert_array_equal(apply_network(network, stream), mean)
    assert drawn.shape == (len(mean), 5, 6)
    assert (drawn.std(axis=1) > 0.0).all()
    assert np.abs(drawn.mean(axis=1) - mean).max() < 1.0
    weights, _, _ = split_mixture(drawn)
    np.testing.assert_allclose(weights.reshape(-1, 5, 2).sum(axis=2), 0.2, rtol=1e-6)

    ensemble = regression_config("mlp", epochs=2, seed=3, head="members", options=options)
    energy = network_energy(fit_network(paths[0], ensemble), paths[0], split="test")
    assert energy.shape == (len(mean),)
    assert (energy > 0.0).all()
    assert export_network(fit_network(paths[0], ensemble), paths[0]).passed
    assert export_network(network, paths[0]).passed


def test_energies_need_no_truth(paths, network, tmp_path):
    sample = read_sample(paths[0])
    nothing = np.zeros_like(sample["cluster_ENG_CALIB_TOT"])
    write_sample(
        tmp_path / "data.root",
        replace(sample, scalars={**sample.scalars, "cluster_ENG_CALIB_TOT": nothing}),
    )
    whole = replace(SELECTION, min_deposit=0.0)
    wanted, found = (
        network_energy(network, path, split="all", select=whole)
        for path in (paths[0], tmp_path / "data.root")
    )
    np.testing.assert_array_equal(found, wanted)
