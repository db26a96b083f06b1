"""Networks on clouds learn, come back from their folder, and become files that Athena loads."""

import numpy as np
import pytest
from factories import make_sample
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.deploy.layerwise import layer_differences
from pfcalib.deploy.native import find_compiler, find_library, run_native
from pfcalib.deploy.validator import open_session
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.clouds import N_LAYERS, cluster_clouds, count_points, write_points
from pfcalib.particleflow.conformance import check_athena
from pfcalib.training.cloudfit import (
    ATHENA_POINTS,
    CloudConfig,
    CloudData,
    CloudStream,
    apply_cloud,
    athena_model,
    export_athena,
    fit_cloud,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HEAD = {"head": "mixture", "n_components": 1}
OPTIONS = {
    "layout": "athena", "widths": [16, 16], "pools": "sum+energy", "head_widths": [16], **HEAD
}  # fmt: skip
TRAIN = TrainConfig(
    learning_rate=1e-2, batch_size=32, epochs=40, schedule="cosine_steps", loss="mixture"
)


@pytest.fixture(scope="module")
def data():
    """Clusters with a track of 10 GeV; the target is ln of their energy over its momentum."""
    rng = np.random.default_rng(3)
    sample = make_sample(rng, 400)
    clouds = cluster_clouds(sample)
    n = clouds.n_clouds
    at = np.repeat(clouds.centre[:, :, None], N_LAYERS, axis=2)
    clouds = clouds._replace(track=np.column_stack([np.full(n, 10.0), at[:, 0], at[:, 1]]))
    energy = np.add.reduceat(clouds.energy.astype(np.float64), clouds.offsets[:-1])
    return CloudData(clouds, np.log(energy / 10.0).astype(np.float32)[:, None])


@pytest.fixture(scope="module")
def network(data, tmp_path_factory):
    config = CloudConfig(name="deepsets", options=OPTIONS, n_points=80, train=TRAIN)
    folder = tmp_path_factory.mktemp("models")
    parts = data.take(np.arange(400) < 320), data.take(np.arange(400) >= 320)
    said: list[str] = []
    found = fit_cloud(*parts, config, inputs="energies", folder=folder, say=said.append)
    again = fit_cloud(*parts, config, inputs="energies", folder=folder, say=said.append)
    assert len([line for line in said if line.startswith("epoch")]) == 40
    assert again.path == found.path
    np.testing.assert_array_equal(apply_cloud(again, parts[1]), apply_cloud(found, parts[1]))
    return found


@pytest.fixture(scope="module")
def athena(network, data, tmp_path_factory):
    return export_athena(network, data, tmp_path_factory.mktemp("athena") / "eoverp.onnx")


def test_an_epoch_has_each_cloud_once_and_pads_little(data):
    options = {"layout": "cells", "n_points": 50, "batch_size": 16, "seed": 4}
    stream = CloudStream(data, shuffle=True, **options)
    lengths = np.minimum(count_points(data.clouds), 50)
    orders = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        orders.append(np.concatenate(stream.order))
        assert sorted(orders[-1]) == list(range(400))
        batches = [stream[i] for i in range(len(stream))]
        for (inputs, answers), rows in zip(batches, stream.order, strict=True):
            longest = lengths[rows].max()
            assert longest <= inputs["points"].shape[1] <= min(longest + 15, 50)
            np.testing.assert_array_equal(answers, data.answers[rows])
            expected = write_points(data.clouds, rows, inputs["points"].shape[1])
            np.testing.assert_array_equal(inputs["points"], expected)
    assert (orders[0] != orders[1]).any()
    again = CloudStream(data, shuffle=True, **options)
    again.set_epoch(1)
    np.testing.assert_array_equal(np.concatenate(again.order), orders[1])


def test_a_part_holds_its_clouds(data):
    rows = np.array([7, 3, 399])
    part = data.take(rows)
    np.testing.assert_array_equal(part.answers, data.answers[rows])
    np.testing.assert_array_equal(
        write_points(part.clouds, np.arange(3), 90), write_points(data.clouds, rows, 90)
    )


def test_a_network_learns_a_sum(network, data):
    held_out = data.take(np.arange(400) >= 320)
    output = apply_cloud(network, held_out)
    off = output[:, 1] - held_out.answers[:, 0]
    assert off.std() < 0.5 * held_out.answers.std()
    assert network.result.history["val_loss"][-1] < network.result.history["val_loss"][0]


def test_athenas_file_gives_the_energy(network, athena, data):
    session = open_session(athena)
    assert session.get_inputs()[0].shape == [1, ATHENA_POINTS, 5]
    points = write_points(data.clouds, np.arange(30), ATHENA_POINTS, layout="athena")
    found = np.array([session.run(None, {"points": one[None]})[0][0] for one in points])
    model = athena_model(network)
    np.testing.assert_allclose(found, model({"points": points}), rtol=1e-4, atol=1e-5)
    output = apply_cloud(network, data.take(np.arange(30)))
    np.testing.assert_allclose(found[:, 0], output[:, 1] + np.log(10.0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], output[:, 2], rtol=1e-4, atol=1e-4)


def test_athenas_file_conforms_and_others_do_not(network, athena):
    report = check_athena(athena)
    assert report.passed, report.problems
    assert len(report.answers) == 8
    told = CliRunner().invoke(cli.app, ["validate", str(athena), "--contract", "athena-eoverp"])
    assert told.exit_code == 0
    assert "a track through no layer" in told.output
    refused = CliRunner().invoke(
        cli.app, ["validate", str(network.path), "--contract", "athena-eoverp"]
    )
    assert isinstance(refused.exception, ValidationError)
    other = check_athena(network.path)
    assert "expected (1, 1086, 5)" in other.problems[0]
    assert "cannot be read" in check_athena(athena.with_name("none.onnx")).problems[0]


@pytest.mark.skipif(
    find_compiler() is None or find_library() is None,
    reason="needs a C++ compiler, and ONNX Runtime with its C library",
)
def test_a_program_in_c_computes_the_same(network, athena, data, tmp_path, monkeypatch):
    """At 1, 50 and all points, from the C library of ONNX Runtime and from Keras."""
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    clouds = data.clouds
    points = write_points(clouds, np.arange(20), ATHENA_POINTS, layout="athena")
    points[0, 1:] = 0.0
    points[1, 50:] = 0.0
    points[2] = np.resize(points[2, :40], points[2].shape)
    expected = np.asarray(athena_model(network)({"points": points}))
    found = run_native(athena, points)
    assert np.abs(np.expm1(found[:, 0] - expected[:, 0])).max() < 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValidationError, match="missing"):
        run_native(tmp_path / "missing.onnx", points[:1])


def test_differences_are_followed_layer_by_layer(network, data):
    points = write_points(data.clouds, np.arange(20), 80, layout="athena")
    found = layer_differences(network.model, {"points": points})
    assert {"features", "phi0", "pooled", "dense0", "mixture"} <= found.keys()
    assert all(off < 1e-4 * max(size, 1.0) for off, size in found.values())


def test_what_is_wrong_is_told(data, network, tmp_path):
    nothing = data.take(np.zeros(400, dtype=bool))
    with pytest.raises(ConfigError, match="needs clouds to train on"):
        fit_cloud(nothing, data, network.config, inputs="none", folder=tmp_path)
    with pytest.raises(ConfigError, match="unknown network 'cnn'"):
        CloudConfig(name="cnn")
    with pytest.raises(ConfigError, match="expected above 0"):
        CloudConfig(name="sums", n_points=0)
    other = network._replace(config=CloudConfig(name="deepsets", options={"head": "energy"}))
    with pytest.raises(ConfigError, match="layout 'athena'"):
        athena_model(other)
