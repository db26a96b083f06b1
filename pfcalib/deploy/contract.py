"""The contract beside an ONNX file: what goes in, how it is normalised, what comes out, and the
checksums that tie the files together.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from pfcalib.cache import file_sha256
from pfcalib.errors import ValidationError

OUTPUT_KEY = "output:"  # prefix of the outputs in the reference file; the inputs bear "input:"
INPUT_KEY = "input:"
FIRST = f"{OUTPUT_KEY}p"  # the first output, whatever its name
MAX_CONTRACT, MAX_REFERENCE = 2**24, 2**32  # bytes
HASH = "^[0-9a-f]{64}$"


class TensorSpec(BaseModel):
    """One input or output; shape without the batch axis, which is always the first and free, None
    where an axis is free too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    shape: tuple[int | None, ...]
    dtype: Literal["float32"] = "float32"
    meaning: str = ""


class ModelContract(BaseModel):
    """Sidecar of `<model>.onnx`, stored as `<model>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1, 2] = 2  # the first had no seal
    model: str = Field(min_length=1)
    kind: str = Field(min_length=1)  # of input, as in features.inputs
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    output: TensorSpec
    more_outputs: tuple[TensorSpec, ...] = ()
    normalisation: str
    n_parameters: int = Field(gt=0)
    opset: int
    n_weights: int | None = None  # numbers in the initialisers of the file
    control_flow: tuple[str, ...] = ()  # operators such as Loop that the file may hold
    precision: Literal["float32", "float16", "int8"] = "float32"
    sha256: str = Field(pattern=HASH)  # of the ONNX file
    reference_sha256: str = Field(pattern=HASH)
    weights_sha256: str | None = Field(None, pattern=HASH)  # of the Keras weights, in their order
    created: datetime
    versions: dict[str, str]
    training: dict[str, Any]  # provenance: seed, files, settings, best epoch ...
    # value and error of what was measured on labelled clusters, see `training.judge`
    physics: dict[str, tuple[float, float]] = {}
    seal: str | None = Field(None, pattern=HASH)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All outputs, the first one first."""
        return (self.output, *self.more_outputs)


class Reference(NamedTuple):
    """Clusters with the outputs of the model that was exported."""

    inputs: dict[str, NDArray[np.float32]]
    output: NDArray[np.float32]  # (n_clusters, n_outputs)
    more: Mapping[str, NDArray[np.float32]] = MappingProxyType({})  # further outputs


def contract_path(onnx_path: Path) -> Path:
    """`dnn.onnx` -> `dnn.json`."""
    return onnx_path.with_suffix(".json")


def reference_path(onnx_path: Path) -> Path:
    """`dnn.onnx` -> `dnn.reference.npz`."""
    return onnx_path.with_suffix(".reference.npz")


def seal(contract: ModelContract) -> ModelContract:
    """The contract with a digest over all its fields, and so over the model, the reference clusters
    and the record of the training, whose hashes it holds.
    """
    # as it will be read: JSON knows no NaN
    contract = ModelContract.model_validate_json(contract.model_dump_json())
    return contract.model_copy(update={"seal": seal_of(contract)})


def seal_of(contract: ModelContract) -> str:
    """The digest that a contract should bear."""
    fields = contract.model_dump(mode="json", exclude={"seal"})
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_regular(path: Path, limit: int) -> bytes:
    """Bytes of a file; ValidationError if it cannot be read, is larger than a limit or no regular
    file: a named pipe never ends.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValidationError(f"{path}: no regular file")
        if found.st_size > limit:
            raise ValidationError(f"{path}: {found.st_size} bytes, expected at most {limit}")
        return path.read_bytes()
    except OSError as error:
        raise ValidationError(f"{path}: cannot be read: {error.strerror}") from error


def read_contract(onnx_path: Path) -> ModelContract:
    """Contract beside a model; ValidationError names the file and the first field that is wrong."""
    path = contract_path(onnx_path)
    if not path.exists():
        raise ValidationError(f"{path}: no readable contract beside {onnx_path.name}")
    try:
        return ModelContract.model_validate_json(read_regular(path, MAX_CONTRACT))
    except PydanticError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValidationError(f"{path}: not a contract: {where}: {first['msg']}") from error


def write_reference(path: Path, reference: Reference) -> None:
    """Store reference clusters; the caller renames the file into place."""
    arrays: dict[str, Any] = {
        **{f"{INPUT_KEY}{name}": array for name, array in reference.inputs.items()},
        FIRST: reference.output,
        **{f"{OUTPUT_KEY}{name}": array for name, array in reference.more.items()},
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_reference(onnx_path: Path, contract: ModelContract) -> Reference:
    """Reference clusters beside a model; ValidationError if they are missing, broken or not those
    of the contract.
    """
    path = reference_path(onnx_path)
    if not path.exists():
        raise ValidationError(f"{path}: no reference clusters beside {onnx_path.name}")
    arrays = read_arrays(path)
    if file_sha256(path) != contract.reference_sha256:
        raise ValidationError(
            f"{path}: not the reference clusters of the contract (sha256 differs)"
        )
    outputs = [FIRST, *(f"{OUTPUT_KEY}{spec.name}" for spec in contract.more_outputs)]
    wanted = [*(f"{INPUT_KEY}{spec.name}" for spec in contract.inputs), *outputs]
    if sorted(arrays) != sorted(wanted):
        raise ValidationError(
            f"{path}: arrays {', '.join(sorted(arrays))}, expected {', '.join(sorted(wanted))}"
        )
    return Reference(
        {spec.name: arrays[f"{INPUT_KEY}{spec.name}"] for spec in contract.inputs},
        arrays[FIRST],
        {key.removeprefix(OUTPUT_KEY): arrays[key] for key in outputs[1:]},
    )


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """Arrays of an .npz file; ValidationError names the file and the array that is not float32 or
    not what it declares. None is read before its size is known.
    """
    if not path.is_file() or path.stat().st_size > MAX_REFERENCE:
        raise ValidationError(f"{path}: expected a regular file of at most {MAX_REFERENCE} bytes")
    name = "the file"
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for info in archive.infolist():
                name = f"array {info.filename.removesuffix('.npy')}"
                with archive.open(info) as member:
                    _require_sound(member, info.file_size)
                with archive.open(info) as member:
                    read: Any = np.lib.format.read_array(member, allow_pickle=False)
                arrays[info.filename.removesuffix(".npy")] = read
            return arrays
    except Exception as error:  # zipfile, zlib and numpy raise whatever they meet
        told = " ".join(f"{error}".split()) or type(error).__name__
        raise ValidationError(f"{path}: {name}: {told}") from error


def _require_sound(member: IO[bytes], n_bytes: int) -> None:
    """ValueError unless the header of an array tells of float32 numbers that the member holds."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format, expected 1.0 or 2.0")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(member)
    if dtype != np.float32:
        raise ValueError(f"type {dtype}, expected float32")
    if not shape or min(shape) < 0 or 4 * math.prod(shape) != n_bytes - member.tell():
        raise ValueError(f"shape {shape} declared, {n_bytes - member.tell()} bytes there")


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
        if not fits(array.shape[1:], spec.shape) or array.dtype != spec.dtype:
            raise ValidationError(
                f"input {name}: {array.dtype} {array.shape}, expected {spec.dtype} (n, "
                f"{', '.join('any' if n is None else str(n) for n in spec.shape)})"
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


def fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the wanted one, where None is any length.

    >>> fits((3, 4), (None, 4)), fits((3, 4), (4,))
    (True, False)
    """
    return len(shape) == len(wanted) and all(
        b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )
