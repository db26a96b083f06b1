"""The network on doublets: it learns, does not see what is padded, is exported and found again."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.tracking.forwardhits import PLANES, ForwardConfig, simulate_forward_events
from pfcalib.tracking.hitgraph import GraphConfig, build_graph, raw_vectors, true_parts
from pfcalib.tracking.tripletnet import (
    GraphBatches,
    GraphLoss,
    TripletNetConfig,
    apply_triplet_net,
    build_triplet_net,
    feed,
    fit_triplet_net,
    inner,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = TripletNetConfig(
    width=8, n_hidden=1, n_steps=2,
    train=TrainConfig(loss="mae", batch_size=1, learning_rate=0.01, epochs=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def sample():
    events = simulate_forward_events(ForwardConfig(n_events=5, mu=1.5, chunk=5, seed=8), 0)
    z = np.array(PLANES)
    graphs = [
        build_graph(hits, raw_vectors(hits), z, GraphConfig())
        for hits in (events.event(i) for i in range(5))
    ]
    truth = [true_parts(events.event(i), graph) for i, graph in enumerate(graphs)]
    return graphs, truth


def test_the_loss_is_the_cross_entropy_of_what_counts(rng):
    logit, target = rng.normal(size=(2, 3, 5)), rng.integers(0, 2, (2, 3, 5))
    counts = rng.integers(0, 2, (2, 3, 5))
    p = 1.0 / (1.0 + np.exp(-logit))
    entropy = -np.log(np.where(target == 1, p, 1.0 - p))
    found = np.asarray(GraphLoss()(*(x.astype(np.float32) for x in (logit, target, counts))))
    exact = (entropy * counts).sum(axis=(1, 2)) / counts.sum(axis=(1, 2))
    assert found[:, 0] == pytest.approx(exact, rel=1e-4)


def test_padding_changes_no_score_and_the_order_of_doublets_neither(sample, rng):
    graph = max(sample[0], key=lambda one: len(one.nodes))
    network = build_triplet_net(SMALL)
    n = len(graph.nodes)
    alone, padded = (np.asarray(network(feed(graph, m)))[0, :n] for m in (n, n + 50))
    assert padded == pytest.approx(alone, abs=1e-5)
    order = rng.permutation(n)
    number = np.append(np.argsort(order), -1)
    mixed = graph._replace(
        nodes=graph.nodes[order], neighbours=number[graph.neighbours[order]],
        edges=graph.edges[order],
    )  # fmt: skip
    there = np.column_stack([np.ones(n, np.bool_), graph.neighbours[:, SMALL.k :] >= 0])
    found = np.asarray(network(feed(mixed)))[0]
    assert found[there[order]] == pytest.approx(alone[order][there[order]], abs=1e-5)


def test_batches_come_in_a_new_order_each_epoch_and_tell_the_truth(sample):
    batches = GraphBatches(*sample, seed=3, shuffle=True)
    assert sorted(batches.order) == list(range(5))
    first = batches.order.tolist()
    sizes = [batches[i][0]["nodes"].shape[1] for i in range(2)]
    assert sizes[0] != sizes[1]
    orders = []
    for epoch in range(4):
        batches.set_epoch(epoch)
        orders.append(batches.order.tolist())
    assert orders[0] == first
    assert any(order != first for order in orders)
    inputs, _ = batches[0]
    doublets, triplets = sample[1][batches.order[0]]
    assert inputs["target"][..., 0].sum() == doublets.sum()
    assert inputs["target"][..., 1:].sum() == triplets.sum()
    assert np.all(inputs["target"] <= inputs["counts"])


def test_a_network_learns_is_exported_and_found_again(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    graphs, truth = sample
    data = (GraphBatches(graphs[:4], truth[:4], shuffle=True), GraphBatches(graphs[4:], truth[4:]))
    said = []
    kept = fit_triplet_net(SMALL, *data, events={"seed": 8}, say=said.append)
    assert kept.result.history["loss"][-1] < 0.8 * kept.result.history["loss"][0]
    assert check_stored_model(kept.path).passed
    network = inner(kept.model, SMALL)
    score = apply_triplet_net(network, graphs[4])
    assert score.shape == (len(graphs[4].nodes), 1 + SMALL.k)
    right = truth[4][0]
    assert score[right, 0].mean() > score[~right, 0].mean()
    again = fit_triplet_net(SMALL, *data, events={"seed": 8}, say=said.append)
    assert len(said) == 3
    assert apply_triplet_net(inner(again.model, SMALL), graphs[4]) == pytest.approx(score)


@pytest.mark.parametrize("wrong", [{"train": TrainConfig()}, {"k": 0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="TripletNetConfig"):
        TripletNetConfig(**wrong)
