"""Faults planted in a copy of an exported model, with a contract and a seal made anew, as somebody
does who does not want them to be seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    ModelContract,
    contract_path,
    read_arrays,
    read_contract,
    reference_path,
    seal,
)
from pfcalib.deploy.graphfile import graph_facts, read_graph
from pfcalib.errors import ValidationError

node = helper.make_node


def copy_model(path: Path, folder: Path) -> Path:
    """A copy of an ONNX file with what lies beside it, in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in (path, contract_path(path), reference_path(path)):
        shutil.copy(source, folder)
    return folder / path.name


def reseal(path: Path, **fields: Any) -> None:
    """Write a contract with some fields changed, checksums and number of weights of the files as
    they are, and a seal.
    """
    facts: dict[str, Any] = {
        "sha256": file_sha256(path),
        "reference_sha256": file_sha256(reference_path(path)),
    }
    with contextlib.suppress(ValidationError):  # of a graph that is not to be read
        facts["n_weights"] = graph_facts(read_graph(path)).n_weights
    contract = read_contract(path).model_dump(mode="json") | facts | fields
    sealed = seal(ModelContract.model_validate(contract))
    contract_path(path).write_text(sealed.model_dump_json())


def rewrite(path: Path, change: Callable[[Any], object]) -> None:
    """Change a graph."""
    proto = onnx.load(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())


def change_reference(path: Path, **arrays: Any) -> None:
    """Write reference clusters with some arrays changed, or left out if None, and a seal."""
    kept = read_arrays(reference_path(path)) | arrays
    np.savez(reference_path(path), **{k: array for k, array in kept.items() if array is not None})
    reseal(path)


def largest_weights(proto: Any) -> Any:
    """The tensor of most weights."""
    stored = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    return max(stored, key=lambda tensor: np.prod(tensor.dims))


def change_weights(proto: Any, change: Callable[[Any], Any]) -> None:
    """Change the tensor of most weights."""
    tensor = largest_weights(proto)
    array = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def before(proto: Any, nodes: Sequence[Any]) -> None:
    """Put nodes between the first input and the rest; the last one gives "changed"."""
    name = proto.graph.input[0].name
    for each in proto.graph.node:
        each.input[:] = ["changed" if one == name else one for one in each.input]
    for each in reversed(nodes):
        proto.graph.node.insert(0, each)


def after(proto: Any, nodes: Sequence[Any]) -> None:
    """Put nodes between the rest, which gives "raw", and the output."""
    name = proto.graph.output[0].name
    for each in proto.graph.node:
        each.output[:] = ["raw" if one == name else one for one in each.output]
    proto.graph.node.extend(nodes)


def constants(proto: Any, **values: Any) -> None:
    """Add tensors to a graph."""
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    proto.graph.initializer.extend(made)


def turn_sign(proto: Any) -> None:
    """The sign of the largest weight."""

    def turn(array: Any) -> Any:
        array.flat[np.abs(array).argmax()] *= -1.0
        return array

    change_weights(proto, turn)


def not_finite(proto: Any) -> None:
    """A weight that is not a number."""

    def spoil(array: Any) -> Any:
        array.flat[array.size // 2] = np.nan
        return array

    change_weights(proto, spoil)


def weights_rounded(proto: Any) -> None:
    """The largest tensor in half precision."""
    change_weights(proto, lambda array: array.astype(np.float16).astype(np.float32))


def inputs_rounded(proto: Any) -> None:
    """An input in half precision."""
    name = proto.graph.input[0].name
    casts = [(name, "half", TensorProto.FLOAT16), ("half", "changed", TensorProto.FLOAT)]
    before(proto, [node("Cast", [a], [b], to=to) for a, b, to in casts])


def not_a_number_beyond(proto: Any, limit: float = 8.0) -> None:
    """Only where an input is above what the reference holds; the graph holds no infinity, which
    would be found at once.
    """
    source, name = proto.graph.input[0].name, proto.graph.output[0].name
    constants(proto, limit=np.float32(limit), none=np.float32(0.0))
    after(
        proto,
        [
            node("ReduceMax", [source], ["top"], keepdims=0),
            node("Greater", ["top", "limit"], ["beyond"]),
            node("Where", ["beyond", "top", "none"], ["huge"]),
            node("Sub", ["huge", "limit"], ["negative"]),
            node("Relu", ["negative"], ["positive"]),
            node("Div", ["positive", "none"], ["divided"]),
            node("Where", ["beyond", "divided", "none"], ["added"]),
            node("Add", ["raw", "added"], [name]),
        ],
    )


def large_batches_wrong(proto: Any) -> None:
    """Only where more clusters come at once than the reference holds."""
    source, name = proto.graph.input[0].name, proto.graph.output[0].name
    constants(proto, many=np.int64(500), zero=np.int64([0]))
    after(
        proto,
        [
            node("Shape", [source], ["shape"]),
            node("Gather", ["shape", "zero"], ["length"], axis=0),
            node("Greater", ["length", "many"], ["is_large"]),
            node("Cast", ["is_large"], ["added"], to=TensorProto.FLOAT),
            node("Add", ["raw", "added"], [name]),
        ],
    )


def softmax_twice(proto: Any) -> None:
    """Probabilities taken for logits."""
    after(proto, [node("Softmax", ["raw"], [proto.graph.output[0].name], axis=1)])


def add_chance(proto: Any) -> None:
    """Random numbers too small to be seen."""
    name = proto.graph.input[0].name
    noise = node("RandomNormalLike", [name], ["noise"], scale=1e-7)
    before(proto, [noise, node("Add", [name, "noise"], ["changed"])])


def endless(proto: Any) -> None:
    """A loop that never ends."""
    source = proto.graph.input[0]
    shape = [None, *(axis.dim_value for axis in source.type.tensor_type.shape.dim[1:])]
    state = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("state", "next")
    ]
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "go_on")]
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Identity", ["state"], ["next"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), go[0], state[0]],
        [go[1], state[1]],
    )
    constants(proto, yes=np.bool_(True))
    before(proto, [node("Loop", ["", "yes", source.name], ["changed"], body=body)])


def many_nodes(proto: Any) -> None:
    """200,000 of them that do nothing."""
    names = (f"x{i}" for i in range(200_000))
    proto.graph.node.extend(node("Identity", [a], [b]) for a, b in pairwise(names))


def eight_gigabytes(proto: Any, nodes: Sequence[Any] = (), number: str = "much") -> None:
    """A tensor that fills the memory, made where the graph runs."""
    if not nodes:
        constants(proto, much=np.int64([2_000_000_000]))
    made = [
        node("ConstantOfShape", [number], ["ones"]),
        node("ReduceSum", ["ones"], ["total"], keepdims=0),
        node("Add", [proto.graph.input[0].name, "total"], ["changed"]),
    ]
    before(proto, [*nodes, *made])


def eight_gigabytes_hidden(proto: Any) -> None:
    """The same, of a number that only a run tells."""
    much = {"much": np.int64([2_000_000_000])}
    constants(proto, zero=np.int64([0]), one=np.int64([1]), **much)
    nodes = [
        node("Shape", [proto.graph.input[0].name], ["shape"]),
        node("Gather", ["shape", "zero"], ["length"], axis=0),
        node("Min", ["length", "one"], ["single"]),
        node("Mul", ["single", "much"], ["number"]),
    ]
    eight_gigabytes(proto, nodes, "number")


def kept_elsewhere(proto: Any) -> None:
    """Weights in another file."""
    tensor = largest_weights(proto)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def gigabytes_declared(proto: Any) -> None:
    """A tensor that says to be larger than it is."""
    largest_weights(proto).dims[0] = 2**30


def swap_classes(path: Path) -> None:
    """Another order of the classes, in the reference outputs too."""

    def swap(proto: Any) -> None:
        name = proto.graph.output[0].name
        size = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        constants(proto, order=np.int64([1, 0, *range(2, size)]))
        after(proto, [node("Gather", ["raw", "order"], [name], axis=1)])

    rewrite(path, swap)
    (output,) = (key for key in read_arrays(reference_path(path)) if key.startswith("output:"))
    array = read_arrays(reference_path(path))[output].copy()
    array[:, :2] = array[:, 1::-1]
    change_reference(path, **{output: array})


def lying_header(path: Path) -> None:
    """A reference array that declares 128 TiB."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (35184372088832,), }".ljust(117)
    content = b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + header.encode()
    name = next(iter(read_arrays(reference_path(path))))
    with zipfile.ZipFile(reference_path(path), "w") as archive:
        archive.writestr(f"{name}.npy", content + b"\n")


def cut(path: Path) -> None:
    """Half of a reference."""
    content = reference_path(path).read_bytes()
    reference_path(path).write_bytes(content[: len(content) // 2])


def no_zip(path: Path) -> None:
    """A reference that is something else."""
    reference_path(path).write_bytes(b"not a zip")


def make_pipe(path: Path) -> None:
    """A named pipe, which nobody writes to, in place of a file."""
    path.unlink()
    os.mkfifo(path)
