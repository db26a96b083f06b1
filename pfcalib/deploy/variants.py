"""Smaller variants of an ONNX file, with a contract of their own and with what they change in its
outputs: weights and products in half precision, or in integers of eight bits.

Only products with weights (Conv, Gemm, MatMul) are changed. All else, and inputs and outputs, stay
in single precision: moments in physical units go beyond what half precision holds, and the
converter that comes with ONNX Runtime rounds all inputs. That one also writes two nodes of one name
if two that stay behind take the same input.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from pfcalib.cache import file_sha256, new_file, write_text
from pfcalib.deploy.contract import (
    ModelContract,
    Reference,
    contract_path,
    read_contract,
    read_reference,
    reference_path,
    seal,
    write_reference,
)
from pfcalib.deploy.graphfile import graph_facts, read_graph
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ConfigError, ValidationError

PRODUCTS = ("Conv", "Gemm", "MatMul")
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
BATCH = 256  # clusters

Inputs: TypeAlias = Mapping[str, NDArray[np.float32]]


class Variant(NamedTuple):
    """A file and what it changes."""

    path: Path
    difference: NDArray[np.float64]  # outputs less those of the original, (n_clusters, ...)


def write_float16(path: str | Path, *, inputs: Inputs) -> Variant:
    """Write `<model>.float16.onnx` beside `<model>.onnx`: products with weights in half precision,
    between casts.

    ONNX Runtime has no such products on a CPU and casts the weights back when it loads them; there
    the file is half as large, no more.

    Parameters
    ----------
    path : path
        ONNX file.
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        Clusters to compare the outputs on.

    Raises
    ------
    ValidationError
        If the file cannot be loaded or does not take the inputs.
    """
    path = Path(path)
    expected, contract = _outputs(path, inputs), read_contract(path)
    proto = onnx.load(path)
    _halve_products(proto.graph)
    target = path.with_suffix(".float16.onnx")
    with new_file(target) as temporary:
        onnx.save(proto, temporary)
    _write_contract(target, contract, read_reference(path, contract).inputs, "float16")
    return Variant(target, _outputs(target, inputs) - expected)


def write_int8(
    path: str | Path, *, calibration: Inputs, inputs: Inputs, method: str = "minmax"
) -> Variant:
    """Write `<model>.int8.onnx` beside `<model>.onnx`: products with weights in integers, weights
    with a scale for each output, what they are multiplied with a scale for each tensor
    (arXiv:1712.05877), as pairs of QuantizeLinear and DequantizeLinear.

    Parameters
    ----------
    path : path
        ONNX file.
    calibration : mapping of str to float32 array, shape (n_clusters, ...)
        Clusters whose values set the scales, a thousand or so, not those that judge; of more than
        256 only full batches of 256 are taken.
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        Clusters to compare the outputs on.
    method : "minmax", "entropy" or "percentile"
        How. Clusters are sparse, with a tail of large energies that counts: the whole range keeps
        energies best, and entropy finds the same one; percentile (99.999) cuts the tail.

    Raises
    ------
    ConfigError
        If the method is unknown.
    ValidationError
        If the file cannot be loaded or does not take the clusters.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    path = Path(path)
    expected, contract = _outputs(path, inputs), read_contract(path)
    target = path.with_suffix(".int8.onnx")
    with tempfile.TemporaryDirectory() as folder, new_file(target) as temporary:
        plain = Path(folder) / path.name
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the quantiser talks
                quant_pre_process(path, plain, skip_symbolic_shape=True)
                quantize_static(
                    plain,
                    temporary,
                    _Clusters(calibration),
                    op_types_to_quantize=list(PRODUCTS),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=METHODS[method],
                    extra_options={"MatMulConstBOnly": True},
                )
        except Exception as error:  # the quantiser raises whatever it meets
            raise ValidationError(
                f"{path}: cannot be quantised: {type(error).__name__}: {str(error).strip()}"
            ) from error
    _write_contract(target, contract, read_reference(path, contract).inputs, "int8")
    return Variant(target, _outputs(target, inputs) - expected)


class _Clusters(CalibrationDataReader):
    """Clusters in batches of the same size, once: histograms want no other."""

    def __init__(self, inputs: Inputs) -> None:
        last = max(len(next(iter(inputs.values()))) - BATCH, 0)
        self._batches = iter(
            {name: array[i : i + BATCH] for name, array in inputs.items()}
            for i in range(0, last + 1, BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _write_contract(path: Path, first: ModelContract, inputs: Inputs, precision: str) -> None:
    """Contract and reference outputs of a variant, those of the file itself: no others tell whether
    it was changed.
    """
    reference = Reference(dict(inputs), run_in_batches(open_session(path), inputs, BATCH))
    write_reference(reference_path(path), reference)
    facts = graph_facts(read_graph(path))
    of_variant = {
        "schema_version": 2,
        "precision": precision,
        "opset": facts.opset,
        "n_weights": facts.n_weights,
        "sha256": file_sha256(path),
        "reference_sha256": file_sha256(reference_path(path)),
        "weights_sha256": None,
        "physics": {},
        "training": {**first.training, "variant_of": first.sha256},
    }
    sealed = seal(first.model_copy(update=of_variant))
    write_text(contract_path(path), sealed.model_dump_json(indent=2) + "\n")


def _outputs(path: Path, inputs: Inputs) -> NDArray[np.float64]:
    return run_in_batches(open_session(path), inputs, BATCH).astype(np.float64)


def _halve_products(graph: Any) -> None:
    """Give products weights in half precision, and put casts before and behind them."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    halves: dict[str, Any] = {}
    nodes = []
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type not in PRODUCTS or not weights.keys() & set(node.input):
            nodes.append(node)
            continue
        whole, node.output[0] = node.output[0], f"{node.output[0]}_half"
        for i, name in enumerate(node.input):
            half = f"{name}_half" if name in weights else f"{whole}_input{i}_half"
            if name in weights:
                array = numpy_helper.to_array(weights[name]).astype(np.float16)
                halves[name] = numpy_helper.from_array(array, half)
            elif name:  # else an optional one
                nodes.append(helper.make_node("Cast", [name], [half], to=onnx.TensorProto.FLOAT16))
            node.input[i] = half if name else name
        cast = helper.make_node("Cast", [node.output[0]], [whole], to=onnx.TensorProto.FLOAT)
        nodes += [node, cast]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend([*kept, *halves.values()])
