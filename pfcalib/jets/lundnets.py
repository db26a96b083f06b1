"""LundNet: a graph network on the Lund tree of a jet (arXiv:2012.08526), its batches and training.

Each node hears from its mother and its two branches through edge convolutions (arXiv:1801.07829).
Jets of a batch are padded to the longest; what is padding enters no mean, neither of neighbours nor
of nodes nor of the normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.jets.declustering import FEATURES, LN_Z, N_NEIGHBOURS, Trees, write_graphs
from pfcalib.models.blocks import Tensor
from pfcalib.models.families import copy_weights
from pfcalib.models.pointnets import gather
from pfcalib.training.fit import Arrays, Say, TrainConfig, TrainResult
from pfcalib.training.kept import fit_kept

OUTPUT = "p_w"
N_REFERENCE = 300  # jets that check an export
ROUND = 16  # nodes that the length of a batch is a multiple of, so that few graphs are compiled
N_SORTED = 20  # batches whose jets are sorted by length together
PUBLISHED_BLOCKS = ((32, 32), (32, 32), (64, 64), (64, 64), (128, 128), (128, 128))
_NORM: Mapping[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}


class LundData(NamedTuple):
    """Jets and what they are."""

    trees: Trees
    is_w: NDArray[np.bool_]  # (n_jets,)

    def take(self, rows: NDArray[Any]) -> LundData:
        """Some of them, by place or mask."""
        rows = np.arange(len(self.is_w))[rows]
        return LundData(self.trees.take(rows), self.is_w[rows])


@dataclass(frozen=True, kw_only=True)
class LundNetConfig:
    """A network and its training; the defaults are those of the published LundNet-5.

    Parameters
    ----------
    n_features : int
        The first of `declustering.FEATURES`: 3 is LundNet-3, 5 LundNet-5.
    blocks : tuple of tuple of int
        Widths of the dense layers of each edge convolution.
    fusion, width : int
        Of the dense layers on what all blocks say of a node, and on the mean of the nodes.
    dropout : float
        After it.
    n_nodes : int
        Of a jet at most; more are cut off.
    train : TrainConfig
        Its seed is that of the first weights too.
    """

    n_features: int = len(FEATURES)
    blocks: tuple[tuple[int, ...], ...] = PUBLISHED_BLOCKS
    fusion: int = 384
    width: int = 256
    dropout: float = 0.1
    n_nodes: int = 128
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-3, batch_size=256, epochs=30, schedule="cosine_steps"
        )
    )

    def __post_init__(self) -> None:
        numbers = (
            self.fusion,
            self.width,
            self.n_nodes,
            *(width for block in self.blocks for width in block),
        )
        if not (1 <= self.n_features <= len(FEATURES) and self.blocks and min(numbers) > 0):
            raise ConfigError(f"LundNetConfig: 1 to 5 features and sizes above 0, not {self}")


class LundNetwork(NamedTuple):
    """A trained network."""

    config: LundNetConfig
    model: Any  # keras.Model for any number of nodes, with the weights of its best epoch
    result: TrainResult
    path: Path  # its ONNX file, for config.n_nodes; shorter jets are padded


@keras.saving.register_keras_serializable(package="pfcalib")
class TreeEdges(layers.Layer):
    """Of `write_graphs`: places of the neighbours, whether there is one, and where nodes are."""

    def call(self, nodes: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        last = ops.cast(ops.shape(nodes)[1] - 1, "int32")
        index = ops.minimum(ops.maximum(ops.cast(neighbours, "int32"), 0), last)
        return index, neighbours > -0.5, nodes[..., LN_Z] < -0.1  # the softer branch has z < 1/2

    def compute_output_spec(self, nodes: Tensor, neighbours: Tensor) -> Any:
        return (
            keras.KerasTensor(neighbours.shape, "int32"),
            keras.KerasTensor(neighbours.shape, "bool"),
            keras.KerasTensor(nodes.shape[:2], "bool"),
        )


@keras.saving.register_keras_serializable(package="pfcalib")
class EdgeConv(layers.Layer):
    """Mean over the neighbours of dense layers of node and neighbour, each normalised, and a
    shortcut past them.
    """

    def __init__(self, widths: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        # a dense layer of [own, neighbour - own], the two apart before neighbours are looked up
        self.own, self.other, *self.more = (
            layers.Dense(width, use_bias=False, name=f"dense{i}")
            for i, width in enumerate((self.widths[0], *self.widths))
        )
        self.norms = [
            layers.BatchNormalization(**_NORM, name=f"norm{i}") for i in range(len(self.widths))
        ]
        self.short = layers.Dense(self.widths[-1], use_bias=False, name="short")
        self.short_norm = layers.BatchNormalization(**_NORM, name="short_norm")

    def build(self, nodes_shape: Any, *_: Any) -> None:
        self.own.build(nodes_shape)
        self.other.build(nodes_shape)
        edges = (*nodes_shape[:2], N_NEIGHBOURS)
        for norm, width in zip(self.norms, self.widths, strict=True):
            norm.build((*edges, width))
        for dense, width in zip(self.more, self.widths, strict=False):
            dense.build((*edges, width))
        self.is_wider = nodes_shape[-1] != self.widths[-1]
        if self.is_wider:
            self.short.build(nodes_shape)
            self.short_norm.build((*nodes_shape[:2], self.widths[-1]))
        self.built = True

    def call(
        self, nodes: Tensor, index: Tensor, is_edge: Tensor, is_node: Tensor,
        training: bool | None = None,
    ) -> Tensor:  # fmt: skip
        x = self.own(nodes)[:, :, None, :] + gather(self.other(nodes), index)
        x = ops.relu(self.norms[0](x, training=training, mask=is_edge))
        for dense, norm in zip(self.more, self.norms[1:], strict=True):
            x = ops.relu(norm(dense(x), training=training, mask=is_edge))
        weight = ops.cast(is_edge, "float32")[..., None]
        heard = ops.sum(weight * x, axis=2) / ops.maximum(ops.sum(weight, axis=2), 1.0)
        if self.is_wider:
            nodes = self.short_norm(self.short(nodes), training=training, mask=is_node)
        return ops.relu(heard + nodes)

    def compute_output_shape(self, nodes_shape: Any, *_: Any) -> Any:
        return (*nodes_shape[:2], self.widths[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable(package="pfcalib")
class NodeNorm(layers.Layer):
    """Batch normalisation over the nodes that are there; zeros where there is none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization(**_NORM, name="norm")

    def build(self, nodes_shape: Any, *_: Any) -> None:
        self.norm.build(nodes_shape)
        self.built = True

    def call(self, nodes: Tensor, is_node: Tensor, training: bool | None = None) -> Tensor:
        weight = ops.cast(is_node, "float32")[..., None]
        return weight * self.norm(nodes, training=training, mask=is_node)

    def compute_output_shape(self, nodes_shape: Any, *_: Any) -> Any:
        return nodes_shape


@keras.saving.register_keras_serializable(package="pfcalib")
class NodeMean(layers.Layer):
    """Mean over the nodes that are there, (n, width)."""

    def call(self, nodes: Tensor, is_node: Tensor) -> Tensor:
        weight = ops.cast(is_node, "float32")[..., None]
        return ops.sum(weight * nodes, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1.0)

    def compute_output_shape(self, nodes_shape: Any, *_: Any) -> Any:
        return (nodes_shape[0], nodes_shape[-1])


def build_lundnet(config: LundNetConfig, *, n_nodes: int | None = None) -> keras.Model:
    """Untrained network, as published.

    Returns
    -------
    keras.Model
        Inputs "nodes" (n, n_nodes or any number, 5) and "neighbours" (n, ..., 3) float32 as
        `write_graphs` makes them; output "p_w" (n, 2), probabilities of QCD and of a W boson.
    """
    keras.utils.set_random_seed(config.train.seed)
    inputs = {
        "nodes": keras.Input((n_nodes, len(FEATURES)), name="nodes", dtype="float32"),
        "neighbours": keras.Input((n_nodes, N_NEIGHBOURS), name="neighbours", dtype="float32"),
    }
    index, is_edge, is_node = TreeEdges(name="edges")(inputs["nodes"], inputs["neighbours"])
    x = NodeNorm(name="features")(inputs["nodes"][..., : config.n_features], is_node)
    heard = []
    for i, widths in enumerate(config.blocks):
        x = EdgeConv(widths, name=f"edge_conv{i}")(x, index, is_edge, is_node)
        heard.append(x)
    x = layers.Concatenate(name="together")(heard)
    x = layers.Dense(config.fusion, activation="relu", name="fusion")(x)
    x = NodeNorm(name="fusion_norm")(x, is_node)
    x = NodeMean(name="mean")(x, is_node)
    x = layers.Dense(config.width, activation="relu", name="dense")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    output = layers.Dense(2, activation="softmax", name=OUTPUT)(x)
    return keras.Model(inputs, output, name=f"lundnet{config.n_features}")


class GraphStream(keras.utils.PyDataset):
    """Batches of jets of about the same number of nodes, padded to the longest of them.

    Parameters
    ----------
    data : LundData
    n_nodes : int
        At most.
    batch_size, seed : int
    shuffle : bool
        In a new order each epoch; else by length.
    """

    def __init__(
        self, data: LundData, *, n_nodes: int, batch_size: int, seed: int = 1, shuffle: bool = False
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.data, self.n_nodes, self.batch_size = data, n_nodes, batch_size
        self.seed, self.shuffle, self.n_clusters = seed, shuffle, len(data.is_w)
        longest = np.maximum(np.diff(data.trees.offsets), 1)
        self.lengths = np.minimum(-(-longest // ROUND) * ROUND, n_nodes)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Order of the jets in that epoch, counted from 0."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch))
        n, size = self.n_clusters, self.batch_size
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        block = size * N_SORTED if self.shuffle else n
        parts = [order[i : i + block] for i in range(0, n, block)]
        order = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in parts])
        self.order = [order[i : i + size] for i in range(0, n, size)]
        if self.shuffle:
            self.order = [self.order[i] for i in rng.permutation(len(self.order))]
        # Keras takes an axis for fixed that is equal in the first two batches
        for place, end in enumerate((np.argmax, np.argmin)[: len(self.order)]):
            longest = [int(self.lengths[rows].max()) for rows in self.order[place:]]
            self.order.insert(place, self.order.pop(place + int(end(longest))))

    def on_epoch_end(self) -> None:
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Arrays:
        rows = self.order[index]
        graphs = write_graphs(self.data.trees, rows, int(self.lengths[rows].max(initial=1)))
        return graphs, np.eye(2, dtype=np.float32)[self.data.is_w[rows].astype(int)]


def fit_lundnet(
    training: LundData,
    held_out: LundData,
    config: LundNetConfig,
    *,
    inputs: str,
    export: bool = True,
    say: Say = print,
) -> LundNetwork:
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : LundData
    config : LundNetConfig
    inputs : str
        What the jets are, such as a hash of their content: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """
    feed, check = (
        GraphStream(
            data, n_nodes=config.n_nodes, batch_size=config.train.batch_size,
            seed=config.train.seed, shuffle=shuffle,
        )
        for data, shuffle in ((training, True), (held_out, False))
    )  # fmt: skip

    def file(model: keras.Model) -> dict[str, Any]:
        same = build_lundnet(config, n_nodes=config.n_nodes)
        copy_weights(model, same)
        return {
            "model": same,
            "inputs": reference_graphs(held_out.trees, config.n_nodes),
            "kind": "lund_tree",
            "normalisation": f"nodes: {', '.join(FEATURES)}; neighbours: mother, harder and "
            f"softer branch, see pfcalib.jets.declustering; {OUTPUT}: QCD, W boson",
        }

    found = fit_kept(
        f"lundnet{config.n_features}", lambda: build_lundnet(config), (feed, check), config.train,
        settings={"config": asdict(config), "inputs": inputs}, export=file if export else None,
        say=say,
    )  # fmt: skip
    return LundNetwork(config, *found)


def reference_graphs(trees: Trees, n_nodes: int) -> dict[str, NDArray[np.float32]]:
    """Jets as they are, and cut to each number of nodes from 1."""
    rows = np.arange(min(N_REFERENCE, trees.n_jets))
    parts = [write_graphs(trees, rows, n_nodes)]
    for n in range(1, n_nodes):
        few = write_graphs(trees, rows[n % len(rows)][None], n)
        lacking = ((0, 0), (0, n_nodes - n), (0, 0))
        parts.append(
            {k: np.pad(v, lacking, constant_values=-(k == "neighbours")) for k, v in few.items()}
        )
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def apply_lundnet(
    network: LundNetwork, trees: Trees, *, batch_size: int = 500
) -> NDArray[np.float64]:
    """Probability of a W boson, (n_jets,)."""
    data = LundData(trees, np.zeros(trees.n_jets, np.bool_))
    stream = GraphStream(data, n_nodes=network.config.n_nodes, batch_size=batch_size)
    p = np.empty(trees.n_jets)
    for i, rows in enumerate(stream.order):
        p[rows] = ops.convert_to_numpy(network.model(stream[i][0], training=False))[:, 1]
    return p
