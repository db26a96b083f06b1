"""The contract beside an ONNX file: what goes in, how it is normalised, what comes out, and the
checksums that tie the files together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from pfcalib.cache import file_sha256
from pfcalib.errors import ValidationError

OUTPUT_KEY = "output:"  # prefix of the outputs in the reference file; the inputs bear "input:"
INPUT_KEY = "input:"


class TensorSpec(BaseModel):
    """One input or output; shape without the batch axis, which is always the first and free."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    shape: tuple[int, ...]
    dtype: Literal["float32"] = "float32"
    meaning: str = ""


class ModelContract(BaseModel):
    """Sidecar of `<model>.onnx`, stored as `<model>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str = Field(min_length=1)
    kind: str = Field(min_length=1)  # of input, as in features.inputs
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    output: TensorSpec
    normalisation: str
    n_parameters: int = Field(gt=0)
    opset: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")  # of the ONNX file
    reference_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: datetime
    versions: dict[str, str]
    training: dict[str, Any]  # provenance: seed, files, settings, best epoch ...


class Reference(NamedTuple):
    """Clusters with the outputs of the model that was exported."""

    inputs: dict[str, NDArray[np.float32]]
    output: NDArray[np.float32]  # (n_clusters, n_outputs)


def contract_path(onnx_path: Path) -> Path:
    """`dnn.onnx` -> `dnn.json`."""
    return onnx_path.with_suffix(".json")


def reference_path(onnx_path: Path) -> Path:
    """`dnn.onnx` -> `dnn.reference.npz`."""
    return onnx_path.with_suffix(".reference.npz")


def read_contract(onnx_path: Path) -> ModelContract:
    """Contract beside a model; ValidationError names the file and the first field that is wrong."""
    path = contract_path(onnx_path)
    try:
        return ModelContract.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValidationError(
            f"{path}: no readable contract beside {onnx_path.name}: {error.strerror}"
        ) from error
    except PydanticError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValidationError(f"{path}: not a contract: {where}: {first['msg']}") from error


def write_reference(path: Path, reference: Reference) -> None:
    """Store reference clusters; the caller renames the file into place."""
    arrays: dict[str, Any] = {
        f"{INPUT_KEY}{name}": array for name, array in reference.inputs.items()
    }
    arrays[f"{OUTPUT_KEY}p"] = reference.output
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_reference(onnx_path: Path, contract: ModelContract) -> Reference:
    """Reference clusters beside a model; ValidationError if they are missing, broken or not those
    of the contract.
    """
    path = reference_path(onnx_path)
    if not path.is_file():
        raise ValidationError(f"{path}: no reference clusters beside {onnx_path.name}")
    if file_sha256(path) != contract.reference_sha256:
        raise ValidationError(
            f"{path}: not the reference clusters of the contract (sha256 differs)"
        )
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        inputs = {
            name.removeprefix(INPUT_KEY): arrays[name]
            for name in arrays.files
            if name.startswith(INPUT_KEY)
        }
        return Reference(inputs, arrays[f"{OUTPUT_KEY}p"])


def require_inputs(inputs: Mapping[str, NDArray[Any]], contract: ModelContract) -> int:
    """Number of clusters; ValidationError unless names, shapes and types are those of the contract
    and there is a cluster.
    """
    expected = {spec.name: spec for spec in contract.inputs}
    if inputs.keys() != expected.keys():
        raise ValidationError(
            f"inputs {', '.join(sorted(inputs))}: the contract of {contract.model} asks for "
            f"{', '.join(sorted(expected))}"
        )
    for name, array in inputs.items():
        spec = expected[name]
        if array.shape[1:] != spec.shape or array.dtype != spec.dtype:
            raise ValidationError(
                f"input {name}: {array.dtype} {array.shape}, expected {spec.dtype} (n, "
                f"{', '.join(map(str, spec.shape))})"
            )
        if not np.isfinite(array).all():
            raise ValidationError(
                f"input {name}, cluster {int(np.argwhere(~np.isfinite(array))[0, 0])}: not finite"
            )
    lengths = {len(array) for array in inputs.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValidationError(
            f"inputs have {sorted(lengths)} clusters: expected one number above 0"
        )
    return lengths.pop()
