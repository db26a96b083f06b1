"""Every fault that was planted in an exported network is found, or named as not verified; none
hangs or takes the caller down.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from studies.planting import (
    add_chance,
    change_reference,
    cut,
    eight_gigabytes,
    eight_gigabytes_hidden,
    endless,
    gigabytes_declared,
    inputs_rounded,
    kept_elsewhere,
    large_batches_wrong,
    lying_header,
    make_pipe,
    many_nodes,
    no_zip,
    not_a_number_beyond,
    not_finite,
    reseal,
    rewrite,
    softmax_twice,
    swap_classes,
    turn_sign,
    weights_rounded,
)

from pfcalib.deploy.against import examine_against, examine_training
from pfcalib.deploy.contract import (
    contract_path,
    read_contract,
    reference_path,
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


GRAPHS = {
    turn_sign: "differs by",
    weights_rounded: "digits of float16",
    inputs_rounded: "rounds to half the digits",
    not_a_number_beyond: "not finite at inputs times 10",
    large_batches_wrong: "batch 1000",
    softmax_twice: "differs by",
    add_chance: "drawn by chance",
    endless: "may never end",
    many_nodes: "more than 20000 nodes",
    eight_gigabytes: "makes 2000000000 numbers",
    kept_elsewhere: "kept in another file",
    gigabytes_declared: "declare",
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


@pytest.mark.parametrize("spoil", [lying_header, cut, no_zip])
def test_a_broken_reference_is_told_in_one_line(path, spoil):
    spoil(path)
    reseal(path)
    (problem,) = looked_at(path).problems
    assert reference_path(path).name in problem
    assert "declared" in problem or "zip" in problem


@pytest.mark.parametrize("which", [lambda p: p, contract_path, reference_path])
def test_a_named_pipe_is_no_file(path, which):
    make_pipe(which(path))
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

    swap_classes(path)
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
