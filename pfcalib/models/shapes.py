"""A network on the hottest cells of a cluster and on its moments, with shapes of each layer inside.

A layer's numbers of cells above some significance, its hottest cells, its widths and the rings
around its hottest cell tell more than moments over the whole cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pfcalib.features.inputs import INPUT_SHAPES
from pfcalib.geometry import BARREL
from pfcalib.models.blocks import QuantileBins, Tensor, build_inputs, join
from pfcalib.models.heads import finish
from pfcalib.models.mlp import MlpConfig, hidden_layers

N_LAYERS = len(BARREL.layers)
SIGNIFICANCES = (0.0, 2.0, 4.0)  # above which the cells of a layer are counted
N_HOTTEST = 3  # cells of a layer
RINGS = ((0.5, 1.5), (1.5, 3.5), (3.5, 7.5), (7.5, np.inf))  # around its hottest cell, in cells
SMALL = 1e-9  # GeV, or clusters: keeps quotients finite
NO_WIDTH = 1e-3  # cells, of a layer with one cell, whose width rounding does not leave at 0
_SIZE = np.array([[layer.d_eta, layer.d_phi] for layer in BARREL.layers], dtype=np.float32)
_SHAPE_NAMES = (
    *(f"cells_above_{cut:g}_sigma" for cut in SIGNIFICANCES),
    *("largest_significance", "significance", "negative_share"),
    *(f"share_of_cell_{i}" for i in range(N_HOTTEST)),
    *("distance_eta", "distance_phi", "width_eta", "width_phi"),
    *(f"ring_{i}" for i in range(len(RINGS))),
    *(f"band_{i}" for i in range(len(RINGS))),
    "second_maximum",
)
SHAPE_FEATURES = tuple(f"{name}_{layer.name}" for name in _SHAPE_NAMES for layer in BARREL.layers)


@keras.saving.register_keras_serializable(package="pfcalib")
class LayerShapes(layers.Layer):
    """Shapes of a cluster layer by layer from its points: (n, n_points, n_features) as
    `features.points` makes them to (n, len(SHAPE_FEATURES)).

    Shares are of the positive energy of all points, rings of that of the layer: cells whose larger
    distance in eta and phi from the hottest cell lies between so many cell sizes; bands look at eta
    alone. The second maximum is the hottest cell outside of 2.5 cells over the hottest.
    """

    def call(self, inputs: Tensor) -> Tensor:
        energy, significance, eta, phi, number = (inputs[:, None, :, i] for i in range(5))
        numbers = np.arange(N_LAYERS, dtype=np.float32)[None, :, None]
        here = _flag(ops.equal(number, numbers)) * _flag(ops.abs(energy) > 0.0)
        positive = here * ops.maximum(energy, 0.0)
        total = ops.sum(positive, axis=-1) + SMALL
        whole = ops.sum(total, axis=-1, keepdims=True)
        hottest = ops.top_k(positive, N_HOTTEST)[0]

        def mean(values: Tensor) -> Tensor:
            return ops.sum(positive * values, axis=-1) / total

        hot = here * _flag(ops.logical_and(positive >= hottest[:, :, :1], positive > 0.0))
        n_hot, n_cells = ops.sum(hot, axis=-1) + SMALL, ops.sum(here, axis=-1)
        centres = [ops.sum(hot * x, axis=-1, keepdims=True) / n_hot[..., None] for x in (eta, phi)]
        means = [mean(eta), mean(phi)]
        widths = [mean((x - m[..., None]) ** 2) for x, m in zip((eta, phi), means, strict=True)]
        away_eta, away_phi = (
            ops.abs(x - centre) / size[:, None]
            for x, centre, size in zip((eta, phi), centres, _SIZE.T, strict=True)
        )
        away = ops.maximum(away_eta, away_phi)
        second = ops.max(positive * _flag(away > 2.5), axis=-1)
        shapes = [
            *(ops.sum(here * _flag(ops.abs(significance) > s), axis=-1) for s in SIGNIFICANCES),
            ops.max(here * significance, axis=-1),
            ops.sum(here * significance, axis=-1) / ops.sqrt(n_cells + SMALL),
            ops.sum(here * ops.minimum(energy, 0.0), axis=-1) / whole,
            *(hottest[:, :, i] / whole for i in range(N_HOTTEST)),
            *(ops.abs(m) for m in means),
            *(
                ops.sqrt(ops.maximum(w - (NO_WIDTH * size) ** 2, 0.0))
                for w, size in zip(widths, _SIZE.T, strict=True)
            ),
            *(mean(_between(away, *ring)) for ring in RINGS),
            *(mean(_between(away_eta, *ring)) for ring in RINGS),
            second / (hottest[:, :, 0] + SMALL),
        ]
        return ops.concatenate(shapes, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], len(SHAPE_FEATURES))


def _flag(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")


def _between(values: Tensor, low: float, high: float) -> Tensor:
    above = values > low
    return _flag(above if np.isinf(high) else ops.logical_and(above, values < high))


def shape_table(points: NDArray[np.float32], *, step: int = 2000) -> NDArray[np.float32]:
    """Shapes of clusters for trees, shape (n_clusters, len(SHAPE_FEATURES)), from the points of
    `features.points.build_points`.
    """
    shapes: Any = LayerShapes()
    parts = [shapes(points[i : i + step]) for i in range(0, len(points), step)]
    return np.concatenate([ops.convert_to_numpy(part) for part in parts])


@dataclass(frozen=True, kw_only=True)
class PointsConfig(MlpConfig):
    """Fully connected layers on the shapes of the layers and moments, both in quantile bins."""

    n_shape_bins: int = 16  # of each shape


def build_points_network(config: PointsConfig | None = None) -> keras.Model:
    """Untrained network on points and moments.

    Returns
    -------
    keras.Model
        Inputs "points" (n, N_POINTS, 5) and "moments" (n, n_moments) float32 in physical units;
        output "p" (n, 2), softmax over [charged, neutral], or that of another head.
    """
    config = config or PointsConfig()
    inputs = build_inputs(INPUT_SHAPES["points"], config)
    shapes = LayerShapes(name="layer_shapes")(inputs["points"])
    bins = QuantileBins(config.n_shape_bins, name="shape_bins")(shapes)
    features = hidden_layers(join([bins], inputs, config), config)
    return finish(
        inputs, features, head=config.head, n_components=config.n_components, name="points"
    )
