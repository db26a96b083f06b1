"""A copy of an exported model with one flipped weight, to show that the validator notices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    contract_path,
    read_contract,
    read_reference,
    reference_path,
)
from pfcalib.deploy.validator import TOLERANCE, open_session, run_in_batches
from pfcalib.errors import ValidationError


def tamper_model(path: str | Path, folder: str | Path, *, renew_contract: bool) -> Path:
    """Copy a model with its side files and turn the sign of one weight of its last matrix: the
    largest that acts on the reference clusters.

    Weights behind a unit that is off for all clusters do not act; no validator that looks at
    outputs could notice these.

    Parameters
    ----------
    path : path
        `<model>.onnx` with contract and reference clusters beside it.
    folder : path
        Where the copy goes; made if it does not exist.
    renew_contract : bool
        Write the checksum of the changed file into the contract, as someone would who wants to hide
        the change.

    Returns
    -------
    Path
        Of the changed ONNX file.

    Raises
    ------
    ValidationError
        If the graph holds no matrix of weights, or none of its weights acts.
    """
    path, folder = Path(path), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (path, contract_path(path), reference_path(path)):
        shutil.copy(source, folder / source.name)
    copy = folder / path.name
    proto = onnx.load(copy)
    matrix = _last_matrix(proto, path)
    weights = numpy_helper.to_array(matrix)
    reference = read_reference(path, read_contract(path))
    for place in np.argsort(-np.abs(weights), axis=None):
        changed = weights.copy()
        changed.flat[place] *= -1.0
        matrix.CopyFrom(numpy_helper.from_array(changed, matrix.name))
        copy.write_bytes(proto.SerializeToString())
        output = run_in_batches(open_session(copy), reference.inputs, len(reference.output))
        if np.abs(output - reference.output).max() > TOLERANCE:
            break
    else:
        raise ValidationError(
            f"{path}: no weight of the last matrix acts on the reference clusters"
        )
    if renew_contract:
        contract = json.loads(contract_path(copy).read_text(encoding="utf-8"))
        contract_path(copy).write_text(
            json.dumps({**contract, "sha256": file_sha256(copy)}), encoding="utf-8"
        )
    return copy


def _last_matrix(proto: onnx.ModelProto, path: Path) -> onnx.TensorProto:
    """Weights of the last dense layer."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    used = [
        name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input
        if name in stored
    ]
    matrices = [stored[name] for name in used if len(stored[name].dims) == 2]
    if not matrices:
        raise ValidationError(f"{path}: the graph has no matrix of weights to change")
    return matrices[-1]
