"""Networks on clouds of points of any number: sums over the points, deep sets (arXiv:1703.06114,
arXiv:1810.05165), graphs (arXiv:1801.07829, arXiv:1902.08570) and transformers (arXiv:1706.03762,
with arXiv:2202.03772 for what pairs of points add).

Points are scaled inside of the network; those of the padding, r = 0, are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from pfcalib.errors import ConfigError
from pfcalib.features.clouds import (
    E_MEAN,
    E_WIDTH,
    LAYOUTS,
    N_LAYERS,
    SCALE_ETA,
    SCALE_PHI,
    SCALE_R,
)
from pfcalib.geometry import BARREL
from pfcalib.models.blocks import BodyConfig, QuantileBins, Tensor, build_inputs, join
from pfcalib.models.heads import finish

ENERGY, LENGTH, SMALL = 0.05, 0.1, 1e-6  # GeV and dR, scales of logarithms and distances
REFERENCE = 64.0  # points, by which sums are divided
FAR = 1e6  # squared distance of what is no neighbour
RINGS = (0.05, 0.1, 0.2, 0.4)  # dR of the sums of each layer; the last has all beyond
_R = np.array([layer.r for layer in BARREL.layers], dtype=np.float32)
_BETWEEN = np.concatenate([[1.0], 0.5 * (_R[1:] + _R[:-1]), [1e9]]).astype(np.float32)  # mm


@dataclass(frozen=True, kw_only=True)
class CloudBody(BodyConfig):
    """What every network on points may be told.

    Parameters
    ----------
    layout : str
        Of `features.clouds.LAYOUTS`.
    n_points : int, optional
        Length of the axis of points; any by default.
    geometry : bool
        Whether it sees layer, radius and widths of a cell.
    masked : bool
        Whether it knows padding from points.
    head_widths : tuple of int
        Of the dense layers behind the points.
    """

    dropout: float = 0.0
    layout: str = "cells"
    n_points: int | None = None
    geometry: bool = True
    masked: bool = True
    head_widths: tuple[int, ...] = (100, 100, 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in LAYOUTS:
            raise ConfigError(
                f"{type(self).__name__}: layout = {self.layout!r}, expected one of "
                f"{', '.join(LAYOUTS)}"
            )


@dataclass(frozen=True, kw_only=True)
class SumsConfig(CloudBody):
    """Dense layers on the energies in rings of each layer and the momentum of the track."""

    head_widths: tuple[int, ...] = (256, 256, 128)
    n_sum_bins: int = 32  # quantile bins of each sum


@dataclass(frozen=True, kw_only=True)
class DeepSetsConfig(CloudBody):
    """Sum over points of what a dense network makes of each: widths of ATL-PHYS-PUB-2022-040."""

    widths: tuple[int, ...] = (100, 100, 128)
    pools: str = "sum"  # of POOLS, several with + between them

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.pools.split("+")) - set(POOLS):
            raise ConfigError(
                f"DeepSetsConfig: pools {sorted(unknown)}, expected {', '.join(POOLS)}"
            )


@dataclass(frozen=True, kw_only=True)
class GraphConfig(CloudBody):
    """Messages between neighbouring points: sizes of ATL-PHYS-PUB-2022-040.

    Parameters
    ----------
    width : int
    n_blocks : int
        Rounds of messages.
    n_hidden : int
        Dense layers that make a message.
    k : int
        Neighbours of a point, the nearest in eta, phi and layer.
    edges : str
        ``knn``, all of them; ``cells``, those among them that touch; ``none``.
    update : bool
        Whether what a point receives, the mean of its messages, is added to what it knew; else the
        largest of them take its place, as in edge convolutions.
    """

    width: int = 64
    n_blocks: int = 4
    n_hidden: int = 4
    k: int = 5
    edges: str = "knn"
    update: bool = True
    head_widths: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edges not in EDGES:
            raise ConfigError(f"GraphConfig: edges = {self.edges!r}, expected {', '.join(EDGES)}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(CloudBody):
    """Points, those of the track among them, that attend to each other; five heads as in
    ATL-PHYS-PUB-2022-040.

    Parameters
    ----------
    width, n_heads, n_blocks : int
    pair_bias : bool
        Whether distances of two points add to their attention.
    """

    width: int = 40
    n_heads: int = 5
    n_blocks: int = 2
    pair_bias: bool = False
    head_widths: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.n_heads:
            raise ConfigError(
                f"TransformerConfig: width = {self.width} is no multiple of n_heads = "
                f"{self.n_heads}"
            )


class _Columns:
    """Points in physical units, each (n, n_points, 1)."""

    def __init__(self, points: Tensor, layout: str) -> None:
        column = {name: points[:, :, i : i + 1] for i, name in enumerate(LAYOUTS[layout])}
        self.r, self.d_eta, self.d_phi = column["r"], column["d_eta"], column["d_phi"]
        self.is_track, self.energy = column["is_track"], column["energy"]
        self.more: tuple[Tensor, ...] = ()
        if layout == "athena":
            self.r = self.r * SCALE_R
            self.d_eta, self.d_phi = self.d_eta * SCALE_ETA, self.d_phi * SCALE_PHI
            self.energy = ops.exp(self.energy * E_WIDTH + E_MEAN) * _flag(self.r > 0.0)
        else:
            self.more = tuple(column[name] for name in ("significance", "width_eta", "width_phi"))
        self.filled = _flag(self.r > 0.0)

    @property
    def layers(self) -> Tensor:
        """One flag a layer, (n, n_points, n_layers), by the radius."""
        return _flag(self.r >= _BETWEEN[:-1]) * _flag(self.r < _BETWEEN[1:])


@keras.saving.register_keras_serializable(package="pfcalib")
class OfPoints(layers.Layer):
    """A layer that looks at points as they come in."""

    def __init__(self, layout: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layout = layout

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layout": self.layout}


@keras.saving.register_keras_serializable(package="pfcalib")
class PointFeatures(OfPoints):
    """Points as numbers of order one, (n, n_points, n_features)."""

    def __init__(self, layout: str, *, geometry: bool = True, **kwargs: Any) -> None:
        super().__init__(layout, **kwargs)
        self.geometry = geometry

    def call(self, inputs: Tensor) -> Tensor:
        points = _Columns(inputs, self.layout)
        distance = ops.sqrt(points.d_eta**2 + points.d_phi**2 + SMALL**2)
        found = [
            _log(points.energy, ENERGY) / 3.0,
            *(x / LENGTH for x in (points.d_eta, points.d_phi)),
            _log(distance, 0.1 * LENGTH) / 2.0,
            points.is_track,
        ]
        if points.more:
            found.append(_log(points.more[0], 1.0) / 2.0)
        if self.geometry:
            found += [points.layers, points.r / 1000.0 - 2.0]
            found += [width / LENGTH for width in points.more[1:]]
        return ops.concatenate(found, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n_more = (1 + 2 * self.geometry) * (self.layout == "cells")
        return (*input_shape[:2], 5 + n_more + self.geometry * (N_LAYERS + 1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "geometry": self.geometry}


@keras.saving.register_keras_serializable(package="pfcalib")
class PointWeights(OfPoints):
    """Two weights a point, (n, n_points, 2): 1 where there is one, and its energy in GeV."""

    def __init__(self, layout: str, *, masked: bool = True, **kwargs: Any) -> None:
        super().__init__(layout, **kwargs)
        self.masked = masked

    def call(self, inputs: Tensor) -> Tensor:
        points = _Columns(inputs, self.layout)
        mask = points.filled if self.masked else ops.ones_like(points.filled)
        return ops.concatenate([mask, ops.abs(points.energy)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "masked": self.masked}


@keras.saving.register_keras_serializable(package="pfcalib")
class RingSums(OfPoints):
    """Logarithms of the energy of cells in rings of each layer, of the momentum of the track, and
    of the number of cells; shape (n, N_LAYERS * len(RINGS) + 2).
    """

    def call(self, inputs: Tensor) -> Tensor:
        points = _Columns(inputs, self.layout)
        distance = ops.sqrt(points.d_eta**2 + points.d_phi**2 + SMALL**2)
        edges = np.array([0.0, *RINGS[:-1], 1e9], dtype=np.float32)
        rings = _flag(distance >= edges[:-1]) * _flag(distance < edges[1:])
        of_cell = points.energy * points.filled * (1.0 - points.is_track)
        sums = ops.matmul(ops.transpose(points.layers * of_cell, (0, 2, 1)), rings)
        n_cells = ops.sum(points.filled * (1.0 - points.is_track), axis=1)
        momentum = ops.sum(points.energy * points.is_track, axis=1)
        flat = ops.reshape(sums, (-1, N_LAYERS * len(RINGS)))
        return ops.concatenate([_log(flat, ENERGY), _log(momentum, ENERGY), _log(n_cells, 1.0)], -1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], N_LAYERS * len(RINGS) + 2)


@keras.saving.register_keras_serializable(package="pfcalib")
class PooledCloud(layers.Layer):
    """Features of all points of a cloud as one row: takes features and `PointWeights`.

    ``sum`` over REFERENCE points; ``mean``; ``energy``, mean weighted by abs(E); ``max``.
    """

    def __init__(self, pools: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pools = tuple(pools)

    def call(self, features: Tensor, weights: Tensor) -> Tensor:
        mask, size = weights[:, :, :1], weights[:, :, :1] * weights[:, :, 1:]
        return ops.concatenate([POOLS[name](features, mask, size) for name in self.pools], axis=-1)

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], weights_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (features_shape[0], len(self.pools) * (features_shape[2] or 0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pools": list(self.pools)}


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    return ops.sum(weight * x, axis=1) / (ops.sum(weight, axis=1) + SMALL)


POOLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sum": lambda x, mask, size: ops.sum(mask * x, axis=1) / REFERENCE,
    "mean": lambda x, mask, size: _weighted(x, mask),
    "energy": lambda x, mask, size: _weighted(x, size),
    "max": lambda x, mask, size: ops.max(x - (1.0 - mask) * FAR, axis=1),
}
EDGES = ("knn", "cells", "none")


@keras.saving.register_keras_serializable(package="pfcalib")
class MorePoints(layers.Layer):
    """Zeros behind the last point, so that each has as many neighbours as are looked for."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n

    def call(self, inputs: Tensor) -> Tensor:
        return ops.pad(inputs, [[0, 0], [0, self.n], [0, 0]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n = input_shape[1]
        return (input_shape[0], None if n is None else n + self.n, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n": self.n}


@keras.saving.register_keras_serializable(package="pfcalib")
class Neighbours(OfPoints):
    """The k nearest other points of each: their places as float32 (n, n_points, k), and for each
    whether it counts, distances in eta, phi and layers, and dR, (n, n_points, k, 5).
    """

    def __init__(
        self, layout: str, *, k: int, edges: str, masked: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(layout, **kwargs)
        self.k, self.edges, self.masked = k, edges, masked

    def call(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        points = _Columns(inputs, self.layout)
        layer = ops.sum(points.layers * np.arange(N_LAYERS, dtype=np.float32), -1, keepdims=True)
        place = ops.concatenate(
            [points.d_eta / LENGTH, points.d_phi / LENGTH, 0.5 * layer], axis=-1
        )
        away = place[:, None, :, :] - place[:, :, None, :]
        square = ops.sum(away**2, axis=-1)
        there = points.filled if self.masked else ops.ones_like(points.filled)
        square = square + FAR * (1.0 - ops.transpose(there, (0, 2, 1)))
        # cells of a grid are often equally near: the earlier, hotter one then, whoever computes it
        number = ops.cast(ops.arange(ops.shape(inputs)[1]), "float32")
        square = square + 1e-4 * number[None, None, :]
        # not itself: by its place, as two points may lie at the same one
        square = square + FAR * _flag(ops.equal(number[:, None], number[None, :]))
        nearest, index = ops.top_k(-square, self.k)
        near = gather(place, index) - place[:, :, None, :]
        counts = _flag(nearest > -0.5 * FAR)[..., None]
        if self.edges == "cells":
            counts = counts * self._touch(points, near, index)
        distance = ops.sqrt(ops.sum(near[..., :2] ** 2, axis=-1, keepdims=True) + SMALL)
        return index, ops.concatenate([counts, near, distance], axis=-1)

    def _touch(self, points: _Columns, near: Tensor, index: Tensor) -> Tensor:
        """Whether two cells touch; a track touches all."""
        widths = points.more[1:]
        apart = [
            _flag(
                ops.abs(near[..., i : i + 1]) * LENGTH < 0.55 * (gather(w, index) + w[:, :, None])
            )
            for i, w in enumerate(widths)
        ]
        layers_apart = _flag(ops.abs(near[..., 2:3]) < 0.75)
        track = ops.maximum(gather(points.is_track, index), points.is_track[:, :, None])
        return ops.maximum(apart[0] * apart[1] * layers_apart, track)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        return (*input_shape[:2], self.k), (*input_shape[:2], self.k, 5)

    def compute_output_spec(self, inputs: Tensor) -> Any:
        index, edges = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(index, "int32"), keras.KerasTensor(edges, "float32")

    def get_config(self) -> dict[str, Any]:
        more = {"k": self.k, "edges": self.edges, "masked": self.masked}
        return {**super().get_config(), **more}


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows (n, n_points, width) of points at places (n, n_points, k): (n, n_points, k, width)."""
    return tf.gather(x, index, axis=1, batch_dims=1)


@keras.saving.register_keras_serializable(package="pfcalib")
class Messages(layers.Layer):
    """What each point hears from its neighbours, (n, n_points, width): dense layers of both and of
    the edge, their mean or maximum.
    """

    def __init__(self, width: int, n_hidden: int, *, largest: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.n_hidden, self.largest = width, n_hidden, largest
        # a dense layer of [own, neighbour, edge], the first two before neighbours are looked up
        self.own = layers.Dense(width, name="own")
        self.other = layers.Dense(width, use_bias=False, name="other")
        self.edge = layers.Dense(width, use_bias=False, name="edge")
        self.hidden = [layers.Dense(width, name=f"hidden{i}") for i in range(n_hidden - 1)]

    def build(self, features_shape: Any, index_shape: Any, edges_shape: Any) -> None:
        for dense in (self.own, self.other):
            dense.build(features_shape)
        self.edge.build((*edges_shape[:-1], 4))
        for dense in self.hidden:
            dense.build((*edges_shape[:-1], self.width))
        self.built = True

    def call(self, features: Tensor, index: Tensor, edges: Tensor) -> Tensor:
        counts = edges[..., :1]
        x = self.own(features)[:, :, None, :] + gather(self.other(features), index)
        x = ops.relu(x + self.edge(edges[..., 1:]))
        for dense in self.hidden:
            x = ops.relu(dense(x))
        if self.largest:
            return ops.max(x * counts, axis=2)
        return ops.sum(x * counts, axis=2) / (ops.sum(counts, axis=2) + SMALL)

    def compute_output_shape(self, features_shape: Any, *_: Any) -> Any:
        return (*features_shape[:2], self.width)

    def get_config(self) -> dict[str, Any]:
        more = {"width": self.width, "n_hidden": self.n_hidden, "largest": self.largest}
        return {**super().get_config(), **more}


@keras.saving.register_keras_serializable(package="pfcalib")
class PairBias(OfPoints):
    """What the distances of two points add to their attention, (n, n_heads, n_points, n_points)."""

    def __init__(self, layout: str, *, n_heads: int, **kwargs: Any) -> None:
        super().__init__(layout, **kwargs)
        self.n_heads = n_heads
        self.hidden = layers.Dense(8, activation="relu", name="hidden")
        self.out = layers.Dense(n_heads, name="out")

    def build(self, input_shape: Any) -> None:
        pairs = (input_shape[0], input_shape[1], input_shape[1])
        self.hidden.build((*pairs, 4))
        self.out.build((*pairs, 8))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        points = _Columns(inputs, self.layout)
        depth = points.r / 500.0
        place = ops.concatenate([points.d_eta / LENGTH, points.d_phi / LENGTH, depth], axis=-1)
        away = ops.abs(place[:, None, :, :] - place[:, :, None, :])
        square = ops.sum(away[..., :2] ** 2, axis=-1, keepdims=True)
        pairs = ops.concatenate([ops.minimum(away, 10.0), ops.log(square + 1e-3)], axis=-1)
        return ops.transpose(self.out(self.hidden(pairs)), (0, 3, 1, 2))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.n_heads, input_shape[1], input_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_heads": self.n_heads}


@keras.saving.register_keras_serializable(package="pfcalib")
class CloudAttention(layers.Layer):
    """Each point takes from all others (arXiv:1706.03762, section 3.2): features (n, n_points,
    width), `PointWeights` and, if there is one, a bias of each pair.
    """

    def __init__(self, width: int, n_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.n_heads = width, n_heads
        self.parts = [layers.Dense(width, name=name) for name in ("query", "key", "value", "out")]

    def build(self, features_shape: Any, *_: Any) -> None:
        for dense in self.parts:
            dense.build((*features_shape[:2], self.width))
        self.built = True

    def call(self, features: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        n = ops.shape(features)[1]
        size = self.width // self.n_heads
        query, key, value = (
            ops.transpose(ops.reshape(dense(features), (-1, n, self.n_heads, size)), (0, 2, 1, 3))
            for dense in self.parts[:3]
        )
        logits = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * size**-0.5
        logits = logits - FAR * (1.0 - ops.transpose(weights[:, :, :1], (0, 2, 1))[:, None])
        if bias is not None:
            logits = logits + bias
        # by hand, as Keras warns of a softmax over a single point
        share = ops.exp(logits - ops.max(logits, axis=-1, keepdims=True))
        taken = ops.matmul(share / ops.sum(share, axis=-1, keepdims=True), value)
        return self.parts[3](ops.reshape(ops.transpose(taken, (0, 2, 1, 3)), (-1, n, self.width)))

    def compute_output_shape(self, features_shape: Any, *_: Any) -> Any:
        return features_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "n_heads": self.n_heads}


def _sums(points: Tensor, config: SumsConfig) -> Tensor:
    sums = RingSums(config.layout, name="ring_sums")(points)
    return QuantileBins(config.n_sum_bins, name="sum_bins")(sums)


def _deepsets(points: Tensor, config: DeepSetsConfig) -> Tensor:
    x, weights = _features(points, config)
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="relu", name=f"phi{i}")(x)
    return PooledCloud(config.pools.split("+"), name="pooled")(x, weights)


def _graph(points: Tensor, config: GraphConfig) -> Tensor:
    if config.edges != "none":
        points = MorePoints(config.k + 1, name="more_points")(points)
    x, weights = _features(points, config)
    x = layers.Dense(config.width, activation="relu", name="embedded")(x)
    if config.edges == "none":
        index = edges = None
    else:
        index, edges = Neighbours(
            config.layout, k=config.k, edges=config.edges, masked=config.masked, name="neighbours"
        )(points)
    for i in range(config.n_blocks):
        if edges is None:
            heard = layers.Dense(config.width, activation="relu", name=f"alone{i}")(x)
        else:
            heard = Messages(
                config.width, config.n_hidden, largest=not config.update, name=f"messages{i}"
            )(x, index, edges)
        if config.update:
            both = layers.Concatenate(name=f"both{i}")([x, heard])
            heard = layers.Dense(config.width, activation="relu", name=f"update{i}")(both)
            x = layers.Add(name=f"added{i}")([x, heard])
            x = layers.LayerNormalization(name=f"norm{i}")(x)
        else:
            x = heard
    return PooledCloud(("mean", "energy"), name="pooled")(x, weights)


def _transformer(points: Tensor, config: TransformerConfig) -> Tensor:
    x, weights = _features(points, config)
    x = layers.Dense(config.width, name="embedded")(x)
    bias: tuple[Tensor, ...] = ()
    if config.pair_bias:
        bias = (PairBias(config.layout, n_heads=config.n_heads, name="pair_bias")(points),)
    for i in range(config.n_blocks):
        y = layers.LayerNormalization(name=f"norm{i}a")(x)
        y = CloudAttention(config.width, config.n_heads, name=f"attention{i}")(y, weights, *bias)
        x = layers.Add(name=f"added{i}a")([x, y])
        y = layers.LayerNormalization(name=f"norm{i}b")(x)
        y = layers.Dense(2 * config.width, activation="relu", name=f"wide{i}")(y)
        y = layers.Dense(config.width, name=f"narrow{i}")(y)
        x = layers.Add(name=f"added{i}b")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    return PooledCloud(("mean", "energy"), name="pooled")(x, weights)


def _features(points: Tensor, config: CloudBody) -> tuple[Tensor, Tensor]:
    """Scaled points and their weights."""
    features = PointFeatures(config.layout, geometry=config.geometry, name="features")(points)
    return features, PointWeights(config.layout, masked=config.masked, name="weights")(points)


# name: configuration, and from points to the features of a cloud
POINT_NETWORKS: dict[str, tuple[type[CloudBody], Callable[[Tensor, Any], Tensor]]] = {
    "sums": (SumsConfig, _sums),
    "deepsets": (DeepSetsConfig, _deepsets),
    "graph": (GraphConfig, _graph),
    "transformer": (TransformerConfig, _transformer),
}


def build_pointnet(name: str, *, seed: int | None = None, **options: Any) -> keras.Model:
    """Untrained network on points.

    Parameters
    ----------
    name : str
        Of POINT_NETWORKS.
    seed : int, optional
        Sets the random state of Keras and so the first weights.
    **options
        Fields of its configuration; a list stands for a tuple.

    Returns
    -------
    keras.Model
        Input "points" (n, n_points or any number, n_features) as `features.clouds.write_points`
        makes them, with "scalars" and "moments" if asked for; the output is that of the head.

    Raises
    ------
    ConfigError
        If the network or an option is unknown, or a value is out of range.
    """
    if name not in POINT_NETWORKS:
        raise ConfigError(f"unknown network {name!r}: expected one of {', '.join(POINT_NETWORKS)}")
    kind, build = POINT_NETWORKS[name]
    if unknown := sorted(set(options) - {field.name for field in fields(kind)}):
        raise ConfigError(f"network {name!r} has no option {', '.join(unknown)}")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    config = kind(**given)
    inputs = build_inputs({"points": (config.n_points, len(LAYOUTS[config.layout]))}, config)  # type: ignore[dict-item]
    x = join([build(inputs["points"], config)], inputs, config)
    for i, width in enumerate(config.head_widths):
        x = layers.Dense(width, activation="relu", name=f"dense{i}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout{i}")(x)
    return finish(inputs, x, head=config.head, n_components=config.n_components, name=name)


def _flag(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")


def _log(x: Tensor, scale: float) -> Tensor:
    """sign(x) ln(1 + abs(x) / scale)."""
    return ops.sign(x) * ops.log(1.0 + ops.abs(x) / scale)
