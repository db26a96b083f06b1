"""The expected deposit comes from the table, from a network of Athena's format, or from truth."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from particleflow.hand_made import CELLS, clusters_of, event_of, random_event, tracks_of

from pfcalib.calibration.eoverp import EoverPTable, expected_deposit
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.clouds import E_MEAN, E_WIDTH
from pfcalib.geometry import BARREL
from pfcalib.particleflow.deposit import (
    N_POINTS,
    deposit_points,
    network_deposit,
    table_deposit,
    truth_deposit,
)
from pfcalib.particleflow.methods import build_method

TABLE = EoverPTable.load()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An ONNX file in Athena's format whose answer is known: ln of half of the track's momentum.

    The points of the track are picked by is_track; ln(p / n_layers) is undone from the sum of
    standardised logarithms.
    """
    path = tmp_path_factory.mktemp("network") / "half.onnx"
    numbers = {
        "energy": np.array([0], dtype=np.int64), "flag": np.array([4], dtype=np.int64),
        "width": np.float32(E_WIDTH), "mean": np.float32(E_MEAN), "half": np.float32(np.log(0.5)),
        "axes": np.array([1, 2], dtype=np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["points", "energy"], ["x"], axis=2),
        helper.make_node("Gather", ["points", "flag"], ["f"], axis=2),
        helper.make_node("Mul", ["x", "width"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["log_e"]),
        helper.make_node("Exp", ["log_e"], ["e"]),
        helper.make_node("Mul", ["e", "f"], ["of_track"]),
        helper.make_node("ReduceSum", ["of_track", "axes"], ["p"], keepdims=0),
        helper.make_node("Log", ["p"], ["log_p"]),
        helper.make_node("Add", ["log_p", "half"], ["y"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.asarray(v), name=k) for k, v in numbers.items()]
    shape = [1, N_POINTS, 5]
    graph = helper.make_graph(
        nodes, "half",
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def some_event():
    tracks = tracks_of(
        {"pt": 5.0, "eta": 0.0125, "phi": np.pi - 0.01}, {"pt": 12.0, "eta": 0.4, "phi": 1.0}
    )
    cells = [(2, 0.0125, np.pi - 0.01, 3.0), (2, 0.0375, -np.pi + 0.01, 2.0), (4, 0.05, 3.1, 0.004)]
    return event_of(tracks, clusters_of(cells))


def test_the_table_gives_its_entry_times_the_momentum():
    event, rows, layers = some_event(), np.array([0, 1]), np.array([2, 1])
    mean, sigma = table_deposit(TABLE)(event, CELLS, rows, layers)
    for i in range(2):
        p, eta = event.tracks.p[i], abs(event.tracks.eta[i])
        expected = expected_deposit(TABLE.arrays, p, eta, layers[i])
        assert (mean[i], sigma[i]) == pytest.approx(expected)


def test_a_network_replaces_the_mean_and_the_width_stays(network):
    event, rows, layers = some_event(), np.array([0, 1]), np.array([2, 1])
    mean, sigma = network_deposit(network, TABLE)(event, CELLS, rows, layers)
    np.testing.assert_allclose(mean, 0.5 * event.tracks.p, rtol=1e-5)
    np.testing.assert_array_equal(sigma, table_deposit(TABLE)(event, CELLS, rows, layers)[1])


def test_a_network_gives_the_width_too_for_any_number_of_tracks(network, tmp_path):
    """The second number of its answer is the logarithm of the relative width."""
    path, wide = tmp_path / "wide.onnx", onnx.load(network)
    wide.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.log(0.1)), "tenth"))
    wide.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "last"))
    wide.graph.node.extend(
        [
            helper.make_node("Mul", ["y", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "tenth"], ["log_width"]),
            helper.make_node("Unsqueeze", ["y", "last"], ["column"]),
            helper.make_node("Unsqueeze", ["log_width", "last"], ["other"]),
            helper.make_node("Concat", ["column", "other"], ["both"], axis=1),
        ]
    )
    wide.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.0), "zero"))
    wide.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "tracks"
    del wide.graph.output[:]
    wide.graph.output.append(
        helper.make_tensor_value_info("both", TensorProto.FLOAT, ["tracks", 2])
    )
    onnx.save(wide, path)
    event, rows, layers = some_event(), np.array([1, 0]), np.array([2, 1])
    mean, sigma = network_deposit(path, TABLE, with_width=True)(event, CELLS, rows, layers)
    np.testing.assert_allclose(mean, 0.5 * event.tracks.p[rows], rtol=1e-5)
    np.testing.assert_allclose(sigma, 0.1 * mean, rtol=1e-5)
    with pytest.raises(ValidationError, match="two numbers a track"):
        network_deposit(network, TABLE, with_width=True)


def test_points_are_those_of_the_format_also_across_phi_of_pi():
    """Cells of at least 5 MeV by falling energy, then the track in each layer."""
    points = deposit_points(some_event(), CELLS, np.array([0]))[0]
    assert points.shape == (N_POINTS, 5)
    assert points.dtype == np.float32
    energy = np.exp(points[:, 0] * E_WIDTH + E_MEAN)
    p = 5.0 * np.cosh(0.0125)
    np.testing.assert_allclose(energy[:9], [3.0, 2.0, *7 * [p / 7]], rtol=1e-5)
    np.testing.assert_array_equal(points[:10, 4], [0, 0, *7 * [1], 0])
    assert np.abs(points[:9, 2] * 0.69169774).max() < 0.05
    radius = [layer.r / 3630.0 for layer in BARREL.layers]
    np.testing.assert_allclose(points[:9, 3], [radius[2], radius[2], *radius], rtol=1e-6)


def test_too_many_cells_never_cut_the_track(rng):
    event = some_event()
    n = 3000
    clusters = event.clusters._replace(
        offsets=np.array([0, n]), cell=rng.integers(0, len(CELLS.layer), n),
        cell_energy=rng.uniform(0.1, 1.0, n), weight=np.ones(n),
    )  # fmt: skip
    points = deposit_points(event._replace(clusters=clusters), CELLS, np.array([0]))[0]
    assert points[:, 4].sum() == 7
    assert np.all(points[-7:, 4] == 1)


def test_the_true_deposit_is_what_the_particle_left(rng):
    event = random_event(rng)
    rows = np.arange(len(event.tracks.pt))
    mean, _ = truth_deposit(TABLE)(event, CELLS, rows, np.full(len(rows), 2))
    truth = event.truth
    for i, particle in enumerate(event.tracks.particle):
        assert mean[i] == pytest.approx(truth.hit_signal[truth.hit_particle == particle].sum())


def test_a_network_of_another_format_is_refused(tmp_path, network):
    other = onnx.load(network)
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 12
    path = tmp_path / "other.onnx"
    onnx.save(other, path)
    with pytest.raises(ValidationError, match=r"other\.onnx"):
        network_deposit(path, TABLE)


@pytest.mark.parametrize(
    "wrong", [{"subtraction": "magic"}, {"deposit": "magic"}, {"deposit": "network"}]
)
def test_methods_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigError):
        build_method(**{"subtraction": "rings", **wrong}, table=TABLE)
