"""An interaction network on doublets of hits: each hears from those that it makes triplets with,
and tells whether it, and which of its triplets, are of one particle.

Nodes and edges of an event go in together, with the places of neighbours; what is padded is no
neighbour of anything. The network that is trained gives its own loss, the binary cross-entropy over
all doublets and triplets of an event, to be nought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.models.blocks import Tensor
from pfcalib.models.pointnets import Messages, gather
from pfcalib.tracking.hitgraph import EDGE, NO_NEIGHBOUR, NODE, Graph
from pfcalib.training.fit import Arrays, Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUTS = ("nodes", "neighbours", "edges")
OUTPUT, LOGIT = "score", "logit"
ROUND = 64  # doublets that the length of an event is a multiple of
N_REFERENCE, N_FILE = 120, 96  # pieces of events that check an export, and their doublets
MEANING = (
    f"nodes: {', '.join(NODE)}; neighbours: places of doublets that end in its first hit, then of "
    f"those that begin in its second, {NO_NEIGHBOUR} for none; edges: {', '.join(EDGE)}, see "
    f"pfcalib.tracking.hitgraph; {OUTPUT}: that the doublet, and each triplet behind it, is of one "
    "particle"
)


@dataclass(frozen=True, kw_only=True)
class TripletNetConfig:
    """A network and its training.

    Parameters
    ----------
    k : int
        Triplets of a doublet on either side.
    width, n_hidden : int
        Of all dense layers, and how many of them make a message.
    n_steps : int
        Times that doublets hear from each other.
    train : TrainConfig
        Its loss must be "mae" and its batch one event.
    """

    k: int = 4
    width: int = 32
    n_hidden: int = 2
    n_steps: int = 4
    train: TrainConfig = field(default_factory=lambda: TrainConfig(loss="mae", batch_size=1))

    def __post_init__(self) -> None:
        if self.train.loss != "mae" or self.train.batch_size != 1:
            raise ConfigError("TripletNetConfig: expected the loss 'mae' and batches of one event")
        if not min(self.k, self.width, self.n_hidden, self.n_steps) > 0:
            raise ConfigError(f"TripletNetConfig: expected sizes above 0, not {self}")


@keras.saving.register_keras_serializable(package="pfcalib")
class Sides(layers.Layer):
    """Places and edges towards smaller z, and towards larger z."""

    def call(self, neighbours: Tensor, edges: Tensor) -> list[Tensor]:
        last = ops.cast(ops.shape(neighbours)[1] - 1, "int32")
        index = ops.minimum(ops.maximum(ops.cast(neighbours, "int32"), 0), last)
        k = neighbours.shape[-1] // 2
        there = ops.cast(neighbours > -0.5, "float32")[..., None]
        edges = ops.concatenate((there, edges[..., 1:]), axis=-1)
        return [index[..., :k], edges[:, :, :k], index[..., k:], edges[:, :, k:]]

    def compute_output_spec(self, neighbours: Tensor, edges: Tensor) -> Any:
        shape = (*neighbours.shape[:2], neighbours.shape[2] // 2)
        pair = [
            keras.KerasTensor(shape, "int32"), keras.KerasTensor((*shape, len(EDGE)), "float32")
        ]  # fmt: skip
        return pair + pair


@keras.saving.register_keras_serializable(package="pfcalib")
class PairSum(layers.Layer):
    """Of triplets, what their first and their second doublet and their edge add up to."""

    def call(self, own: Tensor, other: Tensor, edge: Tensor, index: Tensor) -> Tensor:
        return own[:, :, None, :] + gather(other, index) + edge

    def compute_output_spec(self, own: Tensor, other: Tensor, edge: Tensor, index: Tensor) -> Any:
        return keras.KerasTensor(edge.shape, "float32")


@keras.saving.register_keras_serializable(package="pfcalib")
class GraphLoss(layers.Layer):
    """Mean binary cross-entropy of what counts, (n, 1)."""

    def call(self, logit: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        loss = counts * (ops.softplus(logit) - target * logit)
        return (ops.sum(loss, axis=(1, 2)) / (ops.sum(counts, axis=(1, 2)) + 1e-6))[:, None]


def build_triplet_net(config: TripletNetConfig, *, n_doublets: int | None = None) -> keras.Model:
    """Untrained network.

    Returns
    -------
    keras.Model
        Inputs "nodes" (n, n_doublets or any number, len(NODE)), "neighbours" (n, ..., 2 k) and
        "edges" (n, ..., 2 k, len(EDGE)), float32, of a `Graph`; output "score" (n, ..., 1 + k):
        that the doublet, and each of its triplets towards larger z, is of one particle; of
        triplets that are not there it tells nothing.
    """
    k, width = config.k, config.width
    shapes = ((len(NODE),), (2 * k,), (2 * k, len(EDGE)))
    inputs = {
        name: keras.Input((n_doublets, *shape), name=name)
        for name, shape in zip(INPUTS, shapes, strict=True)
    }
    before, edges_before, behind, edges_behind = Sides(name="sides")(
        inputs["neighbours"], inputs["edges"]
    )

    def dense(x: Tensor, name: str) -> Tensor:
        return layers.Dense(width, activation="relu", name=name)(x)

    x = dense(dense(inputs["nodes"], "node0"), "node1")
    for step in range(config.n_steps):
        heard = [
            Messages(width, config.n_hidden, largest=True, name=f"{side}{step}")(x, index, edges)
            for side, index, edges in (
                ("before", before, edges_before), ("behind", behind, edges_behind)
            )
        ]  # fmt: skip
        update = layers.Concatenate(name=f"heard{step}")([x, *heard])
        x = layers.Add(name=f"step{step}")([x, dense(update, f"update{step}")])
        x = layers.LayerNormalization(name=f"norm{step}")(x)
    doublet = layers.Dense(1, name="doublet")(dense(x, "last"))
    triplet = PairSum(name="pairs")(
        layers.Dense(width, name="own")(x), layers.Dense(width, name="other")(x),
        layers.Dense(width, name="edge")(edges_behind), behind,
    )  # fmt: skip
    triplet = layers.Dense(1, name="triplet")(dense(layers.Activation("relu")(triplet), "pair"))
    triplet = layers.Reshape((-1, k), name="triplets")(triplet)
    logit = layers.Concatenate(name=LOGIT)([doublet, triplet])
    return keras.Model(inputs, layers.Activation("sigmoid", name=OUTPUT)(logit), name="triplets")


def build_trained(config: TripletNetConfig) -> keras.Model:
    """The network with its loss as output, and "target" and "counts" as further inputs."""
    network = build_triplet_net(config)
    more = {name: keras.Input((None, 1 + config.k), name=name) for name in ("target", "counts")}
    loss = GraphLoss(name="loss")(network.get_layer(LOGIT).output, more["target"], more["counts"])
    return keras.Model({**network.input, **more}, loss, name=network.name)


def inner(model: keras.Model, config: TripletNetConfig) -> keras.Model:
    """Of a model of `build_trained` the network itself, for any number of doublets."""
    network = build_triplet_net(config)
    network.set_weights(model.get_weights())
    return network


def feed(graph: Graph, n: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Inputs of a graph, (1, n, ...), padded to n doublets."""
    lacking = 0 if n is None else n - len(graph.nodes)
    found = {}
    arrays: tuple[NDArray[Any], ...] = graph[1:]
    for name, array in zip(INPUTS, arrays, strict=True):
        value = NO_NEIGHBOUR if name == "neighbours" else 0
        pad = ((0, lacking), *((0, 0),) * (array.ndim - 1))
        found[name] = np.pad(array, pad, constant_values=value)[None].astype(np.float32)
    return found


def padded_length(graph: Graph) -> int:
    """Doublets with which a graph goes into the network."""
    return -(-max(len(graph.nodes), 1) // ROUND) * ROUND


class GraphBatches(keras.utils.PyDataset):
    """Events one by one; shuffled, in a new order each epoch, half of them in a mirror.

    Parameters
    ----------
    graphs : sequence of Graph
    truth : sequence of (doublets, triplets)
        Of `hitgraph.true_parts`.
    seed : int
    shuffle : bool
    """

    def __init__(
        self, graphs: Sequence[Graph], truth: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
        *, seed: int = 1, shuffle: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(workers=1, use_multiprocessing=False)
        self.graphs, self.truth, self.seed, self.shuffle = graphs, truth, seed, shuffle
        self.n_clusters = len(graphs)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order of the events in that epoch, counted from 0."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch))
        n = self.n_clusters
        self.order = rng.permutation(n) if self.shuffle else np.arange(n)
        self.mirrored = rng.random(n) < 0.5 * self.shuffle
        # Keras takes an axis for fixed that is equal in the first two batches
        sizes = [len(self.graphs[i].nodes) for i in self.order]
        for place, extreme in ((0, np.argmax), (-1, np.argmin)):
            at = int(extreme(sizes))
            self.order[[place, at]] = self.order[[at, place]]
            sizes[place], sizes[at] = sizes[at], sizes[place]
        self.order = np.roll(self.order, 1)

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return self.n_clusters

    def __getitem__(self, index: int) -> Arrays:
        graph = self.graphs[self.order[index]]
        doublets, triplets = self.truth[self.order[index]]
        n = padded_length(graph)
        k = triplets.shape[1]
        target, counts = np.zeros((2, 1, n, 1 + k), np.float32)
        target[0, : len(doublets)] = np.column_stack([doublets, triplets])
        counts[0, : len(doublets), 0] = 1.0
        counts[0, : len(doublets), 1:] = graph.neighbours[:, k:] >= 0
        seen = graph.mirrored() if self.mirrored[index] else graph
        inputs = {**feed(seen, n), "target": target, "counts": counts}
        return inputs, np.zeros((1, 1), np.float32)


def fit_triplet_net(
    config: TripletNetConfig, training: GraphBatches, held_out: GraphBatches, *,
    events: Mapping[str, Any], say: Say = print,
) -> Kept:  # fmt: skip
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    config : TripletNetConfig
    training, held_out : GraphBatches
    events : mapping
        JSON values: which graphs these are, part of the key of the cache.
    say : callable
        Takes one line an epoch.

    Returns
    -------
    Kept
        Its model gives the loss; see `inner`.
    """

    def file(model: keras.Model) -> dict[str, Any]:
        return {
            "model": inner(model, config), "inputs": pieces(held_out.graphs), "kind": "doublets",
            "normalisation": MEANING,
        }  # fmt: skip

    return fit_kept(
        "triplets", lambda: build_trained(config), (training, held_out), config.train,
        settings={"config": asdict(config), "events": dict(events)}, export=file, say=say,
    )  # fmt: skip


def pieces(graphs: Sequence[Graph]) -> dict[str, NDArray[np.float32]]:
    """N_REFERENCE pieces of N_FILE doublets, whose other neighbours are left out."""
    parts = []
    for i in range(N_REFERENCE):
        graph = graphs[i % len(graphs)]
        begin = (i // len(graphs)) * N_FILE % max(len(graph.nodes) - N_FILE, 1)
        rows = np.arange(len(graph.nodes)) - begin
        parts.append(feed(graph.take((rows >= 0) & (rows < N_FILE)), N_FILE))
    return {name: np.concatenate([part[name] for part in parts]) for name in INPUTS}


def apply_triplet_net(network: keras.Model, graph: Graph) -> NDArray[np.float32]:
    """Scores of a graph, (n_doublets, 1 + k), by a network of `inner`."""
    found = network(feed(graph, padded_length(graph)), training=False)
    return np.asarray(ops.convert_to_numpy(found), np.float32)[0, : len(graph.nodes)]
