"""Shapes of the layers agree with a plain count over the cells of each cluster, and stay put when a
cluster is mirrored.
"""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.points import N_POINTS, POINT_FEATURES, build_points
from pfcalib.geometry import BARREL
from pfcalib.models.blocks import QuantileBins
from pfcalib.models.shapes import SHAPE_FEATURES, shape_table

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(4)
    found = build_points(make_sample(rng, 30, BARREL))
    found[::2, 3:9, :2] *= -1.0  # some negative cells
    return found


def by_hand(cells, layer):
    """Some shapes of one layer of a cluster from its cells (n, 5), by loops."""
    size = np.array([BARREL.layers[layer].d_eta, BARREL.layers[layer].d_phi])
    whole = cells[cells[:, 0] > 0.0, 0].sum()
    mine = cells[cells[:, 4] == layer]
    positive = mine[mine[:, 0] > 0.0]
    shapes = {
        "cells_above_0_sigma": len(mine),
        "cells_above_4_sigma": sum(abs(mine[:, 1]) > 4.0),
        "largest_significance": max([0.0, *mine[:, 1]]),
        "negative_share": mine[mine[:, 0] < 0.0, 0].sum() / whole,
    }
    hot = sorted(positive[:, 0], reverse=True)
    shapes |= {f"share_of_cell_{i}": hot[i] / whole if i < len(hot) else 0.0 for i in range(3)}
    if len(hot):
        weight = positive[:, 0] / positive[:, 0].sum()
        centre = positive[np.argmax(positive[:, 0]), 2:4]
        away = np.abs(positive[:, 2:4] - centre) / size
        mean = weight @ positive[:, 2]
        shapes |= {
            "distance_eta": abs(mean),
            "width_eta": np.sqrt(weight @ (positive[:, 2] - mean) ** 2),
            "ring_0": weight[(away.max(axis=1) > 0.5) & (away.max(axis=1) < 1.5)].sum(),
            "ring_3": weight[away.max(axis=1) > 7.5].sum(),
            "band_1": weight[(away[:, 0] > 1.5) & (away[:, 0] < 3.5)].sum(),
            "second_maximum": max([0.0, *positive[away.max(axis=1) > 2.5, 0]]) / hot[0],
        }
    return shapes


def test_shapes_are_those_of_a_plain_count(points):
    table = dict(zip(SHAPE_FEATURES, shape_table(points, step=7).T, strict=True))
    for cluster, cells in enumerate(points):
        cells = cells[cells[:, 0] != 0.0].astype(np.float64)
        for i, layer in enumerate(BARREL.layers):
            for name, value in by_hand(cells, i).items():
                found = table[f"{name}_{layer.name}"][cluster]
                assert found == pytest.approx(value, rel=2e-4, abs=2e-5), (name, layer.name)


def test_mirrored_clusters_have_the_same_shapes(points):
    mirrored = points * np.array([1, 1, -1, -1, 1], dtype=np.float32)
    np.testing.assert_allclose(shape_table(mirrored), shape_table(points), rtol=1e-4, atol=1e-5)


def test_a_rounding_of_the_points_is_lost_in_the_bins(points):
    """Steps at 0 took the last digit of the width of a layer with one cell for a width."""
    rng, n = np.random.default_rng(1), 500
    points = np.zeros((n, N_POINTS, len(POINT_FEATURES)), dtype=np.float32)
    points[:, :3, :2] = rng.lognormal(0.0, 1.0, (n, 3, 2))
    points[:, :3, 2:4] = rng.normal(0.0, 0.1, (n, 3, 2))
    points[:, :3, 4] = 2, 6, 6  # one cell in EMB2, two in the last layer, of which
    points[: n * 2 // 3, 2] = 0.0  # most clusters have one alone
    table = shape_table(points)
    bins = QuantileBins(16)
    bins.build(table.shape)
    bins.adapt(table)
    rounded = np.where(points == 0.0, 0.0, np.nextafter(points, np.float32(np.inf)))
    rounded[:, :, 4] = points[:, :, 4]
    differences = np.abs(bins(shape_table(rounded.astype(np.float32))) - bins(table))
    assert differences.max() < 0.01
