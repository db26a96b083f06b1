"""What an ONNX file holds, and what makes it unfit to be run: read before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from pfcalib.deploy.contract import read_regular
from pfcalib.errors import ValidationError

MAX_BYTES = 2**31  # no protobuf message is larger
MAX_NODES = 20_000
MAX_NUMBERS = 10**8  # that one node may make from a constant
# a tensor of so many different numbers, all with the few digits of float16, was rounded
N_ROUNDED = 256
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
RANDOM = frozenset(
    {"Bernoulli", "Multinomial"}
    | {f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")}
)
QUANTISED = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# where a tensor keeps its numbers, if not as bytes
FIELDS = ("double_data", "float_data", "int32_data", "int64_data", "string_data", "uint64_data")
PACKED = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1})  # two in a byte
COARSE = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8",
    TensorProto.FLOAT8E5M2: "float8",
}


class GraphFacts(NamedTuple):
    """What a file holds."""

    opset: int
    operators: dict[str, int]  # how often each occurs, also in graphs within graphs
    n_weights: int  # numbers in initialisers
    precision: str  # of the coarsest step: float32, float16 or int8

    @property
    def control_flow(self) -> tuple[str, ...]:
        """Operators that hold a graph of their own."""
        return tuple(sorted(CONTROL_FLOW & self.operators.keys()))


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph of a file, without what it keeps elsewhere.

    Raises
    ------
    ValidationError
        If it is no regular file, or no ONNX.
    """
    content = read_regular(path, MAX_BYTES)
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose errors have no common base
        raise ValidationError(f"{path}: no ONNX file: {error}") from error
    if not proto.graph.node:
        raise ValidationError(f"{path}: no ONNX file: it has no node")
    return proto


def graph_facts(proto: onnx.ModelProto) -> GraphFacts:
    """Count what a graph holds, whose `graph_problems` are none."""
    operators: dict[str, int] = {}
    for node in _nodes(proto):
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    precision = "float32"
    if any(_is_coarse_cast(node) for node in _nodes(proto)):
        precision = "float16"
    if QUANTISED & operators.keys():
        precision = "int8"
    return GraphFacts(
        next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0),
        operators,
        sum(math.prod(tensor.dims) for tensor in proto.graph.initializer),
        precision,
    )


def graph_problems(
    proto: onnx.ModelProto, *, control_flow: tuple[str, ...] = (), precision: str = "float32"
) -> list[str]:
    """What makes a file unfit to be run or trusted: sizes that are not there, weights kept
    elsewhere, not finite or rounded, loops, chance, operators of unknown kind.

    Parameters
    ----------
    control_flow : tuple of str
        Of CONTROL_FLOW, what the contract allows.
    precision : str
        That of the contract: steps that round more are a problem.
    """
    nodes = list(islice(_nodes(proto), MAX_NODES + 1))
    if len(nodes) > MAX_NODES:
        return [f"more than {MAX_NODES} nodes"]
    problems: dict[str, None] = {  # an ordered set
        problem: None for node in nodes for problem in _node_problems(node, control_flow, precision)
    }
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in nodes:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and values and node.output:
            known[node.output[0]] = values[0]
    unfit = {}
    for name, tensor in _tensors(proto):
        problem = _tensor_problem(tensor)
        if problem:
            unfit[name] = problem
        elif precision == "float32" and _is_rounded(numpy_helper.to_array(tensor)):
            problems[f"weights {name} have the digits of float16 only"] = None
    for node in nodes:
        shape = known.get(node.input[0]) if node.input else None
        if node.op_type == "ConstantOfShape" and shape is not None and not _tensor_problem(shape):
            n = math.prod(int(length) for length in numpy_helper.to_array(shape).ravel())
            if n > MAX_NUMBERS:
                problems[f"{node.name or node.op_type} makes {n} numbers"] = None
    return [*problems, *(f"weights {name} {problem}" for name, problem in unfit.items())]


def _nodes(proto: onnx.ModelProto) -> Iterator[Any]:
    """All nodes, also those of graphs within nodes and of functions."""
    waiting: list[Any] = [proto.graph, *proto.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else attribute.graphs


def _tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, Any]]:
    """All constant tensors with a name to tell of."""
    graphs = [
        graph
        for node in _nodes(proto)
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]
    for graph in (proto.graph, *graphs):
        for tensor in graph.initializer:
            yield tensor.name, tensor
        for sparse in graph.sparse_initializer:
            yield from ((sparse.values.name, part) for part in (sparse.values, sparse.indices))
    for node in _nodes(proto):
        for attribute in node.attribute:
            for tensor in chain([attribute.t] * attribute.HasField("t"), attribute.tensors):
                yield f"of {node.op_type} {node.name}".rstrip(), tensor


def _node_problems(node: Any, control_flow: tuple[str, ...], precision: str) -> list[str]:
    """What is wrong with one node."""
    told = f"{node.op_type} {node.name}".rstrip()
    wrong = {
        f"{told} holds a graph that may never end, which the contract does not name": (
            node.op_type in CONTROL_FLOW and node.op_type not in control_flow
        ),
        f"{told} is drawn by chance": node.op_type in RANDOM,
        f"{told} is of an unknown domain {node.domain!r}": node.domain not in DOMAINS,
        f"{told} rounds to 8 bits, the contract says {precision}": (
            node.op_type in QUANTISED and precision != "int8"
        ),
        f"{told} rounds to half the digits, the contract says {precision}": (
            precision == "float32" and _is_coarse_cast(node)
        ),
    }
    return [problem for problem, found in wrong.items() if found]


def _is_coarse_cast(node: Any) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i in COARSE for attribute in node.attribute
    )


def _tensor_problem(tensor: Any) -> str:
    """Why a tensor cannot be what it declares; empty if it can."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        return "are kept in another file"
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return f"are of an unknown type {tensor.data_type}"
    n = math.prod(tensor.dims)
    if tensor.dims and min(tensor.dims) < 0:
        return f"declare a shape of {tuple(tensor.dims)}"
    if tensor.HasField("raw_data"):
        there, wanted, unit = len(tensor.raw_data), n * dtype.itemsize, "bytes"
    else:
        there, wanted = sum(len(getattr(tensor, field)) for field in FIELDS), n
        unit = "entries"
    if tensor.data_type not in PACKED and there != wanted:
        return f"declare {n} numbers and hold {there} of {wanted} {unit}"
    if np.issubdtype(dtype, np.floating) and not np.isfinite(numpy_helper.to_array(tensor)).all():
        return "are not all finite"
    return ""


def _is_rounded(weights: NDArray[Any]) -> bool:
    """Whether float32 numbers, enough of them, all are numbers of float16."""
    if weights.dtype != np.float32 or weights.size < N_ROUNDED:
        return False
    with np.errstate(over="ignore"):
        same = np.array_equal(weights, weights.astype(np.float16).astype(np.float32))
    return same and len(np.unique(weights)) >= N_ROUNDED
