"""An exported model computes what Keras does at every batch size, and the validator fails on each
way to tamper with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    contract_path,
    read_contract,
    read_reference,
    reference_path,
)
from pfcalib.deploy.export import export_onnx
from pfcalib.deploy.latency import measure_latency
from pfcalib.deploy.validator import check_model, check_stored_model, require_parity
from pfcalib.errors import ValidationError
from pfcalib.models.families import MODEL_KINDS, build_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

SMALL = {
    "dnn": {"widths": [16, 8], "with_scalars": True},
    "cnn": {"filters": 4, "branch_width": 8, "merged_width": 8},
    "densenet": {"growth": 4, "block_layers": [1, 1], "head_width": 8, "pixel_power": 0.5},
    "mlp": {"widths": [16, 8], "with_scalars": True},
    "points": {"widths": [16, 8]},
}
N_CLUSTERS = 300


def images(model, rng, n=N_CLUSTERS):
    """Sparse images with a few negative pixels, as clusters have them."""
    shapes = {tensor.name: (n, *tensor.shape[1:]) for tensor in model.inputs}
    return {
        name: (rng.normal(0.1, 0.3, shape) * (rng.random(shape) < 0.1)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module", params=MODEL_KINDS)
def exported(request, tmp_path_factory):
    keras.utils.set_random_seed(1)
    model = build_model(request.param, **SMALL[request.param])
    path = tmp_path_factory.mktemp("exported") / f"{request.param}.onnx"
    inputs = images(model, np.random.default_rng(1))
    report = export_onnx(
        model, path, inputs=inputs, kind=MODEL_KINDS[request.param], training={"seed": 1}
    )
    return path, report, model


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    keras.utils.set_random_seed(2)
    model = build_model("dnn", n_pixels=6, widths=[8, 4])
    path = tmp_path_factory.mktemp("flat") / "dnn.onnx"
    export_onnx(model, path, inputs=images(model, np.random.default_rng(1)), kind="flat")
    return path


@pytest.fixture
def copy(flat, tmp_path):
    """A copy of the flat model and its side files, to tamper with."""
    for path in flat.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / flat.name


def rewrite(path, change, *, renew_checksum):
    """Change the graph of a model; with renew_checksum as an attacker would who also edits the
    contract.
    """
    proto = onnx.load(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    if renew_checksum:
        edit_contract(path, sha256=file_sha256(path))


def edit_contract(path, **fields):
    sidecar = contract_path(path)
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **fields}))


def edit_weights(change, shape):
    def edit(proto):
        tensor = next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == shape)
        tensor.CopyFrom(
            numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name)
        )

    return edit


def flip_one(weights):
    weights[0, 0] = -weights[0, 0] - 0.5
    return weights


def one_nan(weights):
    weights[0, 0] = np.nan
    return weights


def rename_input(proto):
    old = proto.graph.input[0].name
    proto.graph.input[0].name = "cells"
    for node in proto.graph.node:
        node.input[:] = ["cells" if name == old else name for name in node.input]


def fix_batch(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def rename_output(proto):
    old = proto.graph.output[0].name
    proto.graph.output[0].name = "q"
    for node in proto.graph.node:
        node.output[:] = ["q" if name == old else name for name in node.output]


def test_an_exported_model_agrees_with_keras_at_every_batch_size(exported):
    _, report, _ = exported
    assert report.passed
    assert [batch.batch for batch in report.batches] == [1, 7, 256]
    assert report.max_abs < 1e-6
    assert all(batch.n_nan == batch.n_changed_argmax == 0 for batch in report.batches)


def test_the_contract_tells_what_goes_in_and_what_comes_out(exported):
    path, _, model = exported
    contract = read_contract(path)
    assert {spec.name: (None, *spec.shape) for spec in contract.inputs} == {
        tensor.name: tensor.shape for tensor in model.inputs
    }
    assert (contract.output.name, contract.output.shape) == ("p", (2,))
    assert contract.kind == MODEL_KINDS[contract.model]
    assert contract.opset == 17
    assert contract.n_parameters == model.count_params()
    assert contract.training == {"seed": 1}
    assert "tensorflow" in contract.versions


def test_only_the_three_files_are_left(exported):
    path, _, _ = exported
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        [path.name, contract_path(path).name, reference_path(path).name]
    )


def test_a_stored_model_passes_with_its_own_reference(copy):
    assert require_parity(check_stored_model(copy)).n_clusters == N_CLUSTERS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_weights(flip_one, (6, 8)), "differs by"),
        (edit_weights(lambda weights: weights[:, ::-1].copy(), (4, 2)), "change class"),
        (edit_weights(one_nan, (6, 8)), "not finite"),
        (rename_input, "inputs of the file are cells, of the contract pixels"),
        (rename_output, "outputs of the file are q"),
        (fix_batch, "batch axis is fixed to 1"),
    ],
    ids=[
        "one weight flipped",
        "classes swapped",
        "a weight not a number",
        "input renamed",
        "output renamed",
        "batch fixed",
    ],
)
@pytest.mark.parametrize("renew_checksum", [False, True], ids=["", "contract too"])
def test_a_tampered_graph_fails(copy, change, message, renew_checksum):
    rewrite(copy, change, renew_checksum=renew_checksum)
    report = check_stored_model(copy)
    assert not report.passed
    assert any(message in problem for problem in report.problems), report.problems
    assert any("sha256" in problem for problem in report.problems) == (not renew_checksum)
    with pytest.raises(ValidationError, match=r".+"):
        require_parity(report)


def test_a_tampered_weight_names_the_worst_cluster(copy):
    reference = read_reference(copy, read_contract(copy))
    output = reference.output.copy()
    output[123] += 0.01
    report = check_model(copy, reference.inputs, output)
    assert {batch.worst_cluster for batch in report.batches} == {123}
    assert report.max_abs == pytest.approx(0.01, rel=1e-3)


def test_a_truncated_file_fails(copy):
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    with pytest.raises(ValidationError, match="ONNX Runtime refuses"):
        require_parity(check_stored_model(copy))


def test_a_sidecar_of_another_model_fails(copy, exported):
    shutil.copy(contract_path(exported[0]), contract_path(copy))
    assert not check_stored_model(copy).passed
    reference = read_reference(exported[0], read_contract(exported[0]))
    report = check_model(copy, reference.inputs, reference.output)
    assert any("sha256" in problem for problem in report.problems)
    assert any("contract" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("name", "message"),
    [(contract_path, "no readable contract"), (reference_path, "no reference clusters")],
)
def test_a_missing_side_file_fails(copy, name, message):
    name(copy).unlink()
    with pytest.raises(ValidationError, match=message):
        require_parity(check_stored_model(copy))


def test_reference_clusters_that_were_changed_fail(copy):
    np.savez(
        reference_path(copy),
        **{
            "input:pixels": np.zeros((3, 6), np.float32),
            "output:p": np.full((3, 2), 0.5, np.float32),
        },
    )
    with pytest.raises(ValidationError, match="not the reference clusters"):
        require_parity(check_stored_model(copy))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sha256": "0"}, "sha256"),
        ({"inputs": []}, "inputs"),
        ({"schema_version": 3}, "schema_version"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_contract_that_is_none_is_refused_with_its_field(copy, fields, message):
    edit_contract(copy, **fields)
    with pytest.raises(ValidationError, match=f"not a contract: {message}"):
        read_contract(copy)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"cells": np.zeros((2, 6), np.float32)}, "asks for pixels"),
        ({"pixels": np.zeros((2, 5), np.float32)}, r"float32 \(2, 5\)"),
        ({"pixels": np.zeros((2, 6))}, "float64"),
        ({"pixels": np.full((2, 6), np.nan, np.float32)}, "cluster 0: not finite"),
        ({"pixels": np.zeros((0, 6), np.float32)}, "above 0"),
    ],
)
def test_inputs_that_break_the_contract_fail(copy, inputs, message):
    report = check_model(copy, inputs, np.full((2, 2), 0.5, np.float32))
    with pytest.raises(ValidationError, match=message):
        require_parity(report)


def test_a_model_that_cannot_be_exported_leaves_the_old_files(copy):
    before = {path.name: path.read_bytes() for path in copy.parent.iterdir()}
    not_built = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValidationError, match="functional"):
        export_onnx(not_built, copy, inputs={"pixels": np.zeros((2, 6), np.float32)}, kind="flat")
    assert {path.name: path.read_bytes() for path in copy.parent.iterdir()} == before


def test_latency_is_a_median_between_its_quartiles(flat):
    inputs = {"pixels": np.zeros((20, 6), np.float32)}
    latency = measure_latency(flat, inputs, batch=7, n_calls=30, n_warm_up=2)
    assert 0 < latency.quartiles_us[0] <= latency.median_us <= latency.quartiles_us[1]
    assert latency.clusters_per_second == pytest.approx(7e6 / latency.median_us)
    with pytest.raises(ValidationError, match="fewer than a batch"):
        measure_latency(flat, inputs, batch=21)


def test_validation_loads_no_keras():
    loaded = "{'keras', 'tensorflow', 'tf2onnx'} & sys.modules.keys()"
    code = f"import sys, pfcalib.deploy.validator, pfcalib.deploy.latency; print(sorted({loaded}))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )
