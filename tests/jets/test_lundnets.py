"""LundNet on made-up trees: what padding and order must not change, its size, training, export."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.jets.declustering import Trees, decluster, write_graphs
from pfcalib.jets.lundnets import (
    LundData,
    LundNetConfig,
    apply_lundnet,
    build_lundnet,
    fit_lundnet,
)
from pfcalib.metrics.roc import auc
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = LundNetConfig(
    n_features=3, blocks=((8, 8), (12,)), fusion=16, width=16, n_nodes=16,
    train=TrainConfig(learning_rate=0.02, batch_size=50, epochs=3, schedule="cosine_steps"),
)  # fmt: skip


def toy(n_jets: int, seed: int) -> LundData:
    """Pairs of subjets, wider apart for the signal, with soft particles around."""
    rng = np.random.default_rng(seed)
    is_w = rng.random(n_jets) < 0.5
    sizes = rng.integers(1, 14, n_jets) + 2
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    first = np.isin(np.arange(offsets[-1]), offsets[:-1])
    second = np.isin(np.arange(offsets[-1]), offsets[:-1] + 1)
    pt = np.where(first, 300.0, np.where(second, 150.0, rng.exponential(3.0, len(first)) + 0.1))
    y, phi = rng.normal(0.0, 0.3, (2, len(first)))
    y[first] = phi[first] = phi[second] = 0.0
    y[second] = np.where(is_w, 0.5, 0.2) * rng.uniform(0.8, 1.2, n_jets)
    momenta = [pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(y), pt * np.cosh(y)]
    return LundData(decluster(np.stack(momenta, axis=-1), offsets)[0], is_w)


def random_weights(model, seed=1):
    rng = np.random.default_rng(seed)
    model.set_weights([np.abs(w) + 0.1 * rng.random(w.shape) for w in model.get_weights()])


@pytest.mark.parametrize("training", [False, True])
def test_padding_and_the_order_of_nodes_change_nothing(training):
    model = build_lundnet(dataclasses.replace(SMALL, dropout=0.0))
    random_weights(model)
    graph = write_graphs(toy(6, 2).trees, np.arange(6), 14)
    longer = {
        "nodes": np.pad(graph["nodes"], ((0, 0), (0, 7), (0, 0))),
        "neighbours": np.pad(graph["neighbours"], ((0, 0), (0, 7), (0, 0)), constant_values=-1),
    }
    order = np.random.default_rng(3).permutation(21)
    place = np.append(np.argsort(order), -1)
    mixed = {
        "nodes": longer["nodes"][:, order],
        "neighbours": place[longer["neighbours"][:, order].astype(int)].astype(np.float32),
    }
    weights = model.get_weights()
    outputs = []
    for inputs in (graph, longer, mixed):
        model.set_weights(weights)
        outputs.append(np.asarray(model(inputs, training=training)))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-5)
    assert np.ptp(outputs[0][:, 1]) > 1e-4


def test_a_node_hears_from_its_neighbours_and_from_no_others():
    model = build_lundnet(dataclasses.replace(SMALL, blocks=((6, 6),), n_features=5))
    random_weights(model)
    layer = model.get_layer("edge_conv0")
    graph = write_graphs(toy(1, 5).trees, np.arange(1), 14)
    index, is_edge, is_node = model.get_layer("edges")(graph["nodes"], graph["neighbours"])
    before = np.asarray(layer(graph["nodes"], index, is_edge, is_node))
    changed = graph["nodes"].copy()
    changed[0, 1, 0] += 1.0
    after = np.asarray(layer(changed, index, is_edge, is_node))
    hears = [1, *(int(k) for k in graph["neighbours"][0, 1] if k >= 0)]
    different = np.flatnonzero(np.abs(after - before).max(axis=(0, 2)) > 1e-6)
    assert sorted(hears) == different.tolist()


def test_the_published_networks_have_their_published_size():
    for n_features in (3, 5):
        config = LundNetConfig(n_features=n_features)
        model = build_lundnet(config)
        n = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
        # of an edge convolution a -> b: own and other, a second layer, their norms, the shortcut
        expected, wide = 2 * n_features, n_features
        for first, second in config.blocks:
            expected += 2 * wide * first + first * second + 2 * (first + second)
            expected += (wide + 2) * second if wide != second else 0
            wide = second
        together = sum(block[-1] for block in config.blocks)
        expected += (together + 3) * 384 + 385 * 256 + 257 * 2
        assert n == expected
        assert n == pytest.approx(395_000, rel=0.01)


def test_a_training_finds_the_signal_and_its_file_takes_jets_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    training, held_out = toy(600, 1), toy(200, 2)
    said = []
    network = fit_lundnet(training, held_out, SMALL, inputs="toy", say=said.append)
    p = apply_lundnet(network, held_out.trees, batch_size=64)
    assert auc(p, held_out.is_w).value > 0.9
    again = fit_lundnet(training, held_out, SMALL, inputs="toy", say=said.append)
    assert len(said) == SMALL.train.epochs  # nothing was trained again
    np.testing.assert_allclose(apply_lundnet(again, held_out.trees), p, atol=1e-6)
    report = check_stored_model(network.path)
    assert report.passed
    with np.load(network.path.with_suffix(".reference.npz")) as file:
        there = next(file[name] for name in file.files if "nodes" in name)[..., 2] < -0.1
    assert {1, 2, SMALL.n_nodes - 2} <= set(there.sum(axis=1).tolist())


def test_a_configuration_without_sense_is_refused():
    with pytest.raises(ConfigError, match="features"):
        LundNetConfig(n_features=6)
    with pytest.raises(ConfigError, match="sizes"):
        LundNetConfig(blocks=((0,),))
    assert isinstance(toy(2, 1).trees, Trees)
