"""Inference requests and answers of the KServe protocol over HTTP, as JSON or with the tensors as
bytes behind the JSON.

The latter is the binary tensor data extension of Triton: the header Inference-Header-Content-Length
tells where the JSON ends, and the bytes of the tensors follow in the order of the JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticError

from pfcalib.deploy.service.refusal import Reason, Refusal

LENGTH = "Inference-Header-Content-Length"
FLOAT = np.dtype("<f4")
Shape = list[Annotated[int, Field(ge=0)]]


class _Output(BaseModel):
    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)  # {} would be copied deeply


class _Input(_Output):
    shape: Shape
    datatype: str
    data: list[Any] | None = None


class InferRequest(BaseModel):
    """JSON of a request."""

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[_Input] = Field(min_length=1)
    outputs: list[_Output] = Field(default_factory=list)


def parse_request(
    body: bytes, json_length: int | None
) -> tuple[InferRequest, dict[str, NDArray[np.float32]]]:
    """A request and its inputs by name, which share the memory of the body where they are bytes.

    Raises
    ------
    Refusal
        If the JSON, a type, a number or a length is not what it should be.
    """
    header = body if json_length is None else body[:json_length]
    try:
        request = InferRequest.model_validate_json(header)
    except PydanticError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refusal(Reason.INVALID, f"{where}: {first['msg']}") from error
    for told in (*request.inputs, *request.outputs):
        if unknown := told.parameters.keys() - {"binary_data_size", "binary_data"}:
            raise Refusal(Reason.INVALID, f"{told.name}: {', '.join(unknown)} is not supported")
    inputs: dict[str, NDArray[np.float32]] = {}
    start = len(header)
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise Refusal(Reason.INVALID, f"input {tensor.name} is given twice")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            inputs[tensor.name] = _from_json(tensor)
        elif json_length is None or not isinstance(size, int):
            raise Refusal(
                Reason.INVALID, f"input {tensor.name}: bytes need a whole size and {LENGTH}"
            )
        else:
            data = memoryview(body)[start : start + max(size, 0)]
            inputs[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, data)
            start += size
    if start != len(body):
        raise Refusal(Reason.INVALID, f"{len(body)} bytes where the tensors ask for {start}")
    return request, inputs


def from_bytes(
    name: str, datatype: str, shape: list[int], data: bytes | memoryview
) -> NDArray[np.float32]:
    """A tensor in little-endian bytes; Refusal unless it is FP32 and of the size of its shape."""
    _require_float(name, datatype)
    if len(data) != FLOAT.itemsize * math.prod(shape):
        raise Refusal(
            Reason.INVALID,
            f"input {name}: {len(data)} bytes for {shape}, expected "
            f"{FLOAT.itemsize * math.prod(shape)}",
        )
    return np.frombuffer(data, dtype=FLOAT).reshape(shape)


def _from_json(tensor: _Input) -> NDArray[np.float32]:
    _require_float(tensor.name, tensor.datatype)
    try:
        data = np.asarray(tensor.data if tensor.data is not None else [])
        if data.dtype.kind not in "iuf":
            raise ValueError("expected numbers")
        with np.errstate(over="raise"):
            return data.astype(np.float32).reshape(tensor.shape)
    except (ValueError, FloatingPointError) as error:
        raise Refusal(Reason.INVALID, f"data of input {tensor.name}: {error}") from error


def _require_float(name: str, datatype: str) -> None:
    if datatype != "FP32":
        raise Refusal(Reason.INVALID, f"input {name} has type {datatype}, expected FP32")


def require_outputs(asked: list[str], outputs: Mapping[str, Any]) -> None:
    """Refusal if an output is asked for that the model does not have."""
    for name in asked:
        if name not in outputs:
            raise Refusal(Reason.INVALID, f"no output {name!r}; there is {', '.join(outputs)}")


def compose_answer(
    request: InferRequest, told: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """Body of an answer, with what else is told in its JSON, and the length of the JSON where bytes
    follow.
    """
    binary = bool(request.parameters.get("binary_data_output", False))
    asked = request.outputs or [_Output(name=name) for name in outputs]
    entries, tail = [], []
    for output in asked:
        array = outputs[output.name]
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": "FP32",
            "shape": list(array.shape),
        }
        if output.parameters.get("binary_data", binary):
            tail.append(array.astype(FLOAT, copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        elif not np.isfinite(array).all():
            raise Refusal(
                Reason.INVALID,
                f"output {output.name} is not finite, which JSON cannot tell: ask for binary data",
            )
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    answer = {**told, "outputs": entries}
    if request.id:
        answer["id"] = request.id
    header = json.dumps(answer).encode()
    return b"".join([header, *tail]), len(header) if tail else None
