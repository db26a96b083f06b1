"""Every fault that was planted in an exported network is found, or named as not verified; none
hangs or takes the caller down.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pfcalib.cache import file_sha256
from pfcalib.deploy.against import examine_against, examine_training
from pfcalib.deploy.contract import (
    ModelContract,
    contract_path,
    read_arrays,
    read_contract,
    reference_path,
    seal,
)
from pfcalib.deploy.examination import (
    OPEN,
    PASSED,
    BatchParity,
    Examination,
    Finding,
    examine,
    examine_apart,
    fresh_inputs,
)
from pfcalib.deploy.export import export_onnx
from pfcalib.errors import ValidationError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2
N_CLUSTERS, N_PIXELS = 300, 20


def normal(n=N_CLUSTERS, seed=1):
    return {"pixels": np.random.default_rng(seed).normal(size=(n, N_PIXELS)).astype(np.float32)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a training: model.keras, and the exported file with what lies beside it."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((N_PIXELS,), name="pixels")
    hidden = keras.layers.Dense(24, activation="relu")(inputs)
    output = keras.layers.Dense(2, activation="softmax", name="p")(hidden)
    model = keras.Model({"pixels": inputs}, output, name="dnn")
    folder = tmp_path_factory.mktemp("trained")
    model.save(folder / "model.keras")
    export_onnx(model, folder / "dnn.onnx", inputs=normal(), kind="flat", training={"seed": 1})
    return folder, model


@pytest.fixture
def path(trained, tmp_path):
    """A copy of the exported file, to tamper with."""
    for file in trained[0].glob("dnn.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "dnn.onnx"


def looked_at(path):
    """The examination, in this process; what it cannot read is a finding too."""
    findings, parity = [], []
    try:
        for sign in examine(path):
            match sign:
                case Finding():
                    findings.append(sign)
                case BatchParity():
                    parity.append(sign)
    except ValidationError as error:
        findings.append(Finding("reading", "failed", str(error)))
    return Examination(path, tuple(findings), tuple(parity))


def reseal(path, **fields):
    """As somebody does who edits the contract with the files, and its seal too."""
    fields = {
        "sha256": file_sha256(path),
        "reference_sha256": file_sha256(reference_path(path)),
        **fields,
    }
    contract = read_contract(path).model_dump(mode="json") | fields
    sealed = seal(ModelContract.model_validate(contract))
    contract_path(path).write_text(sealed.model_dump_json())


def rewrite(path, change):
    proto = onnx.load(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())


def weights(proto, shape=(N_PIXELS, 24)):
    return next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == shape)


def to_float16(proto):
    tensor = weights(proto)
    rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def before(proto, nodes, name="pixels"):
    """Put nodes between the input and the rest; the last one gives "changed"."""
    for node in proto.graph.node:
        node.input[:] = ["changed" if each == name else each for each in node.input]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)


def after(proto, nodes):
    """Put nodes between the rest, which gives "raw", and the output."""
    name = proto.graph.output[0].name
    for node in proto.graph.node:
        node.output[:] = ["raw" if each == name else each for each in node.output]
    proto.graph.node.extend(nodes)


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def inputs_rounded(proto):
    casts = [("pixels", "half", TensorProto.FLOAT16), ("half", "changed", TensorProto.FLOAT)]
    before(proto, [helper.make_node("Cast", [a], [b], to=to) for a, b, to in casts])


def not_a_number_beyond(proto):
    """Only where an input is above what the reference holds."""
    name = proto.graph.output[0].name
    limits = [constant("limit", np.float32(8.0)), constant("nan", np.float32(np.inf))]
    limits += [constant("none", np.float32(0.0))]
    proto.graph.initializer.extend(limits)
    after(
        proto,
        [
            helper.make_node("ReduceMax", ["pixels"], ["top"], axes=[1], keepdims=1),
            helper.make_node("Greater", ["top", "limit"], ["beyond"]),
            helper.make_node("Where", ["beyond", "top", "none"], ["huge"]),
            helper.make_node("Sub", ["huge", "limit"], ["negative"]),
            helper.make_node("Relu", ["negative"], ["positive"]),
            helper.make_node("Div", ["positive", "none"], ["divided"]),
            helper.make_node("Where", ["beyond", "divided", "none"], ["added"]),
            helper.make_node("Add", ["raw", "added"], [name]),
        ],
    )
    del proto.graph.initializer[-2]  # the infinity would be found at once


def large_batches_wrong(proto):
    """Only where more clusters come at once than the reference holds."""
    name = proto.graph.output[0].name
    proto.graph.initializer.extend(
        [constant("many", np.int64(500)), constant("zero", np.int64([0]))]
    )
    after(
        proto,
        [
            helper.make_node("Shape", ["pixels"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["length"], axis=0),
            helper.make_node("Greater", ["length", "many"], ["is_large"]),
            helper.make_node("Cast", ["is_large"], ["added"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["raw", "added"], [name]),
        ],
    )


def softmax_twice(proto):
    after(proto, [helper.make_node("Softmax", ["raw"], [proto.graph.output[0].name], axis=1)])


def add_chance(proto):
    noise = helper.make_node("RandomNormalLike", ["pixels"], ["noise"], scale=1e-7)
    before(proto, [noise, helper.make_node("Add", ["pixels", "noise"], ["changed"])])


def endless(proto):
    """A loop that ends only if an input is not a number."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [None, N_PIXELS]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None, N_PIXELS]),
        ],
    )
    proto.graph.initializer.append(constant("yes", np.bool_(True)))
    before(proto, [helper.make_node("Loop", ["", "yes", "pixels"], ["changed"], body=body)])


def many_nodes(proto):
    names = (f"x{i}" for i in range(200_000))
    proto.graph.node.extend(helper.make_node("Identity", [a], [b]) for a, b in pairwise(names))


def eight_gigabytes(proto):
    proto.graph.initializer.append(constant("much", np.int64([2_000_000_000])))
    made = helper.make_node("ConstantOfShape", ["much"], ["ones"])
    total = helper.make_node("ReduceSum", ["ones"], ["total"], keepdims=0)
    before(proto, [made, total, helper.make_node("Add", ["pixels", "total"], ["changed"])])


def eight_gigabytes_hidden(proto):
    """The same, of a number that only a run tells."""
    proto.graph.initializer.extend(
        [constant("much", np.int64([2_000_000_000])), constant("zero", np.int64([0]))]
    )
    proto.graph.initializer.append(constant("one", np.int64([1])))
    nodes = [
        helper.make_node("Shape", ["pixels"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["length"], axis=0),
        helper.make_node("Min", ["length", "one"], ["single"]),
        helper.make_node("Mul", ["single", "much"], ["number"]),
        helper.make_node("ConstantOfShape", ["number"], ["ones"]),
        helper.make_node("ReduceSum", ["ones"], ["total"], keepdims=0),
        helper.make_node("Add", ["pixels", "total"], ["changed"]),
    ]
    before(proto, nodes)


def kept_elsewhere(proto):
    tensor = weights(proto)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def two_gigabytes_declared(proto):
    weights(proto).dims[0] = 2**30


def not_finite(proto):
    tensor = weights(proto)
    array = numpy_helper.to_array(tensor).copy()
    array[3, 3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def flipped(proto):
    tensor = weights(proto)
    array = numpy_helper.to_array(tensor).copy()
    array[3, 3] = -array[3, 3]
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


GRAPHS = {
    flipped: "differs by",
    to_float16: "digits of float16",
    inputs_rounded: "rounds to half the digits",
    not_a_number_beyond: "not finite at inputs times 10",
    large_batches_wrong: "batch 1000",
    softmax_twice: "differs by",
    add_chance: "drawn by chance",
    endless: "may never end",
    many_nodes: "more than 20000 nodes",
    eight_gigabytes: "makes 2000000000 numbers",
    kept_elsewhere: "kept in another file",
    two_gigabytes_declared: "declare",
    not_finite: "not all finite",
}


def test_an_exported_network_passes_and_what_files_cannot_tell_is_named(path):
    found = looked_at(path)
    assert found.passed, found.problems
    assert [batch.batch for batch in found.parity] == [1, 7, 256, 1000]
    opened = {finding.subject for finding in found.findings if finding.verdict == OPEN}
    assert opened == {"training", "fresh inputs against Keras", "meaning", "physics"}


@pytest.mark.parametrize(
    ("change", "message"), GRAPHS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_a_graph_that_was_changed_with_contract_and_seal_is_found(path, change, message):
    rewrite(path, change)
    reseal(path)
    assert any(message in problem for problem in looked_at(path).problems), looked_at(path)


def test_any_change_without_a_new_seal_is_found(path):
    rewrite(path, lambda proto: setattr(proto, "producer_name", "somebody"))
    assert any("sha256 differs" in problem for problem in looked_at(path).problems)
    reseal(path)
    assert looked_at(path).passed
    contract = json.loads(contract_path(path).read_text())
    contract["output"]["meaning"] = "probability of [neutral, charged]"
    contract_path(path).write_text(json.dumps(contract))
    assert any("contract was changed" in problem for problem in looked_at(path).problems)


@pytest.mark.parametrize(
    "fields", [{"opset": 13}, {"n_weights": 7}, {"precision": "int8"}, {"control_flow": ["Loop"]}]
)
def test_fields_of_the_contract_are_recomputed(path, fields):
    reseal(path, **fields)
    assert any(str(next(iter(fields))) in problem for problem in looked_at(path).problems)


def change_reference(path, **arrays):
    kept = read_arrays(reference_path(path)) | arrays
    np.savez(reference_path(path), **{k: array for k, array in kept.items() if array is not None})
    reseal(path)


X, P = "input:pixels", "output:p"
REFERENCES = {
    "one cluster": ({X: normal(1)["pixels"], P: np.full((1, 2), 0.5, np.float32)}, "1 different"),
    "zeros": ({X: np.zeros((300, N_PIXELS), np.float32)}, "1 different clusters"),
    "complex": ({P: np.ones((300, 2), complex)}, "array output:p: type complex128"),
    "text": ({P: np.full((300, 2), "a")}, "array output:p: type <U1"),
    "objects": ({P: np.array([None, {}], object)}, "array output:p: type object"),
    "no output": ({P: None}, "expected input:pixels, output:p"),
    "more": ({"other": np.zeros(3, np.float32)}, "arrays input:pixels, other, output:p"),
    "not finite": ({P: np.full((300, 2), np.nan, np.float32)}, "not finite"),
    "other length": ({P: np.full((299, 2), 0.5, np.float32)}, "not one a cluster"),
}


@pytest.mark.parametrize(("arrays", "message"), REFERENCES.values(), ids=REFERENCES)
def test_a_reference_that_is_none_is_told_in_one_line(path, arrays, message):
    change_reference(path, **arrays)
    assert any(message in problem for problem in looked_at(path).problems), looked_at(path)


def lying_header(path):
    """An array that declares 128 TiB."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (35184372088832,), }".ljust(117)
    content = b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(reference_path(path), "w") as archive:
        archive.writestr("input:pixels.npy", content + b"\n")


def cut(path):
    content = reference_path(path).read_bytes()
    reference_path(path).write_bytes(content[: len(content) // 2])


def no_zip(path):
    reference_path(path).write_bytes(b"not a zip")


@pytest.mark.parametrize("spoil", [lying_header, cut, no_zip])
def test_a_broken_reference_is_told_in_one_line(path, spoil):
    spoil(path)
    reseal(path)
    (problem,) = looked_at(path).problems
    assert reference_path(path).name in problem
    assert "declared" in problem or "zip" in problem


@pytest.mark.parametrize("which", [lambda p: p, contract_path, reference_path])
def test_a_named_pipe_is_no_file(path, which):
    which(path).unlink()
    os.mkfifo(which(path))
    found = examine_apart(path)
    assert not found.passed
    assert "regular file" in "".join(found.problems)


@pytest.mark.parametrize("change", [endless, eight_gigabytes_hidden])
def test_what_hangs_or_fills_the_memory_is_ended(path, change):
    """Also where the contract allows loops."""
    rewrite(path, change)
    reseal(path, control_flow=["Loop"] if change is endless else [])
    found = examine_apart(path, seconds=3.0, memory=2 * 2**30)
    assert not found.passed
    told = "no answer within 3 s" if change is endless else "fails"
    assert any(told in problem for problem in found.problems), found


def test_a_good_file_passes_in_a_process_of_its_own(path):
    assert examine_apart(path).findings == looked_at(path).findings


def test_fresh_inputs_keep_points_whole_and_flags_flags():
    rng = np.random.default_rng(1)
    there = rng.random((20, 5, 1)) < 0.7
    points = np.concatenate([there, there * rng.random((20, 5, 3))], axis=-1).astype(np.float32)
    rows = rng.normal(size=(20, 4)).astype(np.float32)
    fresh = fresh_inputs({"points": points, "rows": rows}, rng, 400)
    assert set(np.unique(fresh["points"][..., 0])) == {0.0, 1.0}
    mixed, flat = np.split(fresh["points"], 2)
    known = {point.tobytes() for point in points.reshape(-1, 4)}
    assert all(point.tobytes() in known for point in mixed.reshape(-1, 4))
    assert not any(point.tobytes() in known for point in flat.reshape(-1, 4))
    for name, array in (("points", points), ("rows", rows)):
        assert (fresh[name] >= array.min(axis=0)).all()
        assert (fresh[name] <= array.max(axis=0)).all()
    assert not np.isin(fresh["rows"][200:], rows).any()


def test_the_training_tells_whether_weights_and_classes_are_its_own(path, trained):
    folder, model = trained
    good = examine_training(path, read_contract(path), model, folder)
    assert good.passed, good.problems
    assert {finding.verdict for finding in good.findings} == {PASSED}

    def swap_classes(proto):
        tensor = weights(proto, (24, 2))  # there is no bias yet
        array = numpy_helper.to_array(tensor)[:, ::-1].copy()
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    rewrite(path, swap_classes)
    change_reference(path, **{P: read_arrays(reference_path(path))[P][:, ::-1].copy()})
    assert looked_at(path).passed  # model, contract and reference changed together
    bad = examine_training(path, read_contract(path), model, folder)
    assert any("fresh inputs against Keras" in problem for problem in bad.problems)
    assert any("sha256 differs" in problem for problem in bad.problems)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalisation": "none"}, "normalisation differs"),
        ({"n_parameters": 7}, "number of parameters differ"),
        (
            {"output": {"name": "p", "shape": [2], "meaning": "probability of [neutral, charged]"}},
            "expected 'probability of [charged, neutral]'",
        ),
    ],
    ids=["normalisation", "parameters", "meaning"],
)
def test_the_training_tells_what_the_contract_made_up(path, trained, fields, message):
    reseal(path, **fields)
    assert looked_at(path).passed
    bad = examine_training(path, read_contract(path), trained[1], trained[0])
    assert any(message in problem for problem in bad.problems)


def test_a_file_of_ones_own_without_a_contract_is_held_against_keras(tmp_path):
    """Two outputs, and an axis of points that is free."""
    keras.utils.set_random_seed(3)
    points = keras.Input((None, 4), name="points")
    hidden = keras.layers.Dense(8, activation="relu")(points)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    outputs = [keras.layers.Dense(n, name=f"out{n}")(pooled) for n in (1, 3)]
    model = keras.Model(points, outputs)
    path = tmp_path / "own.onnx"
    export_onnx(model, path, inputs={"points": np.ones((3, 5, 4), np.float32)}, kind="own")
    contract = read_contract(path)
    assert [spec.name for spec in contract.outputs] == ["out1", "out3"]
    assert contract.inputs[0].shape == (None, 4)
    contract_path(path).unlink()
    assert examine_apart(path, own=True).passed
    assert examine_against(path, model).passed
    other = keras.models.clone_model(model)
    other.set_weights([2.0 * weight for weight in model.get_weights()])
    assert not examine_against(path, other).passed


def test_what_chance_makes_of_a_file_is_found_or_still_the_same(path):
    """Half a minute of it; an hour by hand."""
    script = Path(__file__).with_name("fuzz_examination.py")
    done = subprocess.run(
        [sys.executable, str(script), str(path), "600", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(done.stdout.splitlines()[-1])  # ONNX Runtime writes there too
    assert set(counts) <= {"found", "sound", "runtime"}, done.stderr
    assert counts["found"] > 100
