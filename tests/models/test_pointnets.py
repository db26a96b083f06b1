"""Networks on points do not see padding or order, see what they should, and export at any number
of points.
"""

import keras
import numpy as np
import onnxruntime
import pytest

from pfcalib.deploy.export import _convert
from pfcalib.errors import ConfigError
from pfcalib.features.clouds import CLOUD_FEATURES
from pfcalib.geometry import BARREL
from pfcalib.models.blocks import adapt_bins
from pfcalib.models.families import load_model
from pfcalib.models.pointnets import LAYOUTS, POINT_NETWORKS, Neighbours, RingSums, build_pointnet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = {
    "sums": {"head_widths": (16,), "n_sum_bins": 4},
    "deepsets": {"widths": (12, 12), "pools": "sum+mean+energy+max", "head_widths": (8,)},
    "graph": {"width": 12, "n_blocks": 2, "n_hidden": 2, "k": 3, "head_widths": (8,)},
    "transformer": {"width": 10, "n_blocks": 1, "head_widths": (8,)},
}
VARIANTS = [
    *((name, {}) for name in POINT_NETWORKS),
    ("graph", {"edges": "cells"}), ("graph", {"edges": "none"}), ("graph", {"update": False}),
    ("transformer", {"pair_bias": True}), ("deepsets", {"geometry": False}),
]  # fmt: skip
RADII = np.array([layer.r for layer in BARREL.layers], dtype=np.float32)
COLUMN = {name: i for i, name in enumerate(CLOUD_FEATURES)}


def make_points(rng, n, n_points, layout="cells"):
    """Clouds of 1 to n_points points, the last of each that of a track."""
    layer = rng.integers(0, len(RADII), (n, n_points))
    filled = np.arange(n_points) < rng.integers(1, n_points + 1, n)[:, None]
    filled[0] = True
    is_track = filled & (np.cumsum(filled, axis=1) == filled.sum(axis=1)[:, None])
    energy = rng.exponential(1.0, (n, n_points))
    d_eta, d_phi = rng.normal(0.0, 0.1, (2, n, n_points))
    if layout == "athena":
        columns = [np.log(energy), d_eta, d_phi, RADII[layer] / 3630.0, is_track]
    else:
        width = np.full((n, n_points), 0.05)
        columns = [energy, 20.0 * energy, d_eta, d_phi, layer, RADII[layer], width, width, is_track]
    return (np.stack(columns, axis=-1) * filled[..., None]).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "more"), VARIANTS)
def test_neither_order_nor_padding_counts(name, more, layout, rng):
    if more.get("edges") == "cells" and layout == "athena":
        pytest.skip("cells of Athena's layout have no widths")
    model = build_pointnet(name, seed=1, layout=layout, **{**SMALL[name], **more})
    points = make_points(rng, 5, 20, layout)
    adapt_bins(model, {"points": points})
    first = np.asarray(model({"points": points}))
    assert first.shape == (5, 2)
    padded = np.concatenate([points, np.zeros_like(points)], axis=1)
    np.testing.assert_allclose(model({"points": padded}), first, atol=2e-6)
    mixed = points[:, rng.permutation(20)]
    np.testing.assert_allclose(model({"points": mixed}), first, atol=2e-6)
    other = points.copy()
    other[:, 0, COLUMN["energy"] if layout == "cells" else 0] += 1.0
    assert np.abs(np.asarray(model({"points": other})) - first).max() > 1e-6


@pytest.mark.parametrize(("name", "more"), VARIANTS)
def test_an_export_computes_the_same_at_any_number_of_points(name, more, rng):
    model = build_pointnet(
        name, seed=2, head="mixture", n_components=1, **{**SMALL[name], **more}
    )  # fmt: skip
    file = _convert(model)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for n_points in (1, 50, 1086):
        points = make_points(rng, 3, n_points)
        expected = np.asarray(model({"points": points}))
        np.testing.assert_allclose(
            session.run(None, {"points": points})[0], expected, rtol=1e-4, atol=1e-5
        )


def test_a_network_without_mask_sees_padding(rng):
    points = make_points(rng, 5, 20)
    padded = np.concatenate([points, np.zeros_like(points)], axis=1)
    model = build_pointnet("deepsets", seed=1, masked=False, **SMALL["deepsets"])
    off = np.asarray(model({"points": padded})) - np.asarray(model({"points": points}))
    assert np.abs(off).max() > 1e-4


def test_a_model_comes_back_from_its_file(rng, tmp_path):
    points = make_points(rng, 4, 12)
    for name, more in VARIANTS:
        model = build_pointnet(name, seed=3, **{**SMALL[name], **more})
        model.save(tmp_path / "model.keras")
        again = load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(again({"points": points}), model({"points": points}), atol=1e-6)


def test_neighbours_are_the_nearest(rng):
    points = make_points(rng, 3, 15)
    index, edges = Neighbours("cells", k=4, edges="knn")(points)
    index, edges = np.asarray(index), np.asarray(edges)
    for cloud in range(3):
        filled = np.flatnonzero(points[cloud, :, COLUMN["r"]] > 0.0)
        place = points[cloud][:, [2, 3, 4]] / [0.1, 0.1, 2.0]
        for i in filled:
            others = [j for j in filled if j != i]
            away = [np.sum((place[j] - place[i]) ** 2) + 1e-4 * j for j in others]
            nearest = [others[j] for j in np.argsort(away)][:4]
            counts = edges[cloud, i, :, 0] > 0.0
            assert index[cloud, i, counts].tolist() == nearest
            np.testing.assert_allclose(
                edges[cloud, i, counts, 1:3] * 0.1,
                (points[cloud, nearest] - points[cloud, i])[:, 2:4], atol=1e-6,
            )  # fmt: skip


def test_cells_that_touch_are_neighbours():
    """On a grid of 3 x 3 cells the middle one touches all others, a corner three."""
    points = np.zeros((1, 9, len(CLOUD_FEATURES)), dtype=np.float32)
    points[0, :, 2], points[0, :, 3] = 0.1 * (np.arange(9) // 3), 0.1 * (np.arange(9) % 3)
    points[0, :, [0, 5, 6, 7]] = np.array([1.0, RADII[2], 0.1, 0.1])[:, None]
    points[0, :, 4] = 2.0
    _, edges = Neighbours("cells", k=8, edges="cells")(points)
    np.testing.assert_array_equal(np.asarray(edges)[0, :, :, 0].sum(axis=1)[[0, 4]], [3.0, 8.0])


def test_sums_are_those_of_a_plain_count(rng):
    points = make_points(rng, 3, 30)
    sums = np.asarray(RingSums("cells")(points))
    energy = np.expm1(sums[:, :28]) * 0.05
    for cloud in range(3):
        expected = np.zeros((7, 4))
        for point in points[cloud]:
            if point[COLUMN["r"]] > 0.0 and not point[COLUMN["is_track"]]:
                ring = np.digitize(np.hypot(point[2], point[3]), [0.05, 0.1, 0.2])
                expected[int(point[COLUMN["layer"]]), ring] += point[0]
        np.testing.assert_allclose(energy[cloud].reshape(7, 4), expected, rtol=1e-4, atol=1e-5)


def test_what_is_wrong_is_told():
    for name, options, message in (
        ("pointnet", {}, "unknown network 'pointnet'"),
        ("graph", {"edges": "all"}, "expected knn, cells, none"),
        ("graph", {"colour": 1}, "has no option colour"),
        ("deepsets", {"pools": "sum+median"}, "median"),
        ("deepsets", {"layout": "rows"}, "expected one of cells, athena"),
        ("transformer", {"width": 12}, "no multiple"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_pointnet(name, **options)
    assert keras.Model in type(build_pointnet("deepsets", **SMALL["deepsets"])).__mro__
