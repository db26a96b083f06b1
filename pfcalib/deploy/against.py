"""An ONNX file held against the Keras model that it was made from: once more, on inputs that nobody
has seen.
"""

from __future__ import annotations

import importlib.util
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pfcalib.deploy.contract import (
    INPUT_KEY,
    OUTPUT_KEY,
    ModelContract,
    contract_path,
    read_contract,
    read_reference,
)
from pfcalib.deploy.examination import (
    FACTORS,
    FAILED,
    N_VARIED,
    PASSED,
    Examination,
    Finding,
    examine_apart,
    fresh_inputs,
    merge,
)
from pfcalib.deploy.export import (
    MEANINGS_OF_INPUTS,
    functional,
    predict_all,
    weights_sha256,
)
from pfcalib.deploy.graphfile import read_graph
from pfcalib.errors import ValidationError
from pfcalib.models.heads import MEANINGS

LENGTHS = (1, 16, 33)  # of axes that are free


def load_layers(path: Path) -> None:
    """Let models that are loaded know the layers of a Python file of the user's, which is run.

    Raises
    ------
    ValidationError
        If there is none, or it fails.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValidationError(f"{path}: no Python file with layers")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ValidationError(f"{path}: {type(error).__name__}: {error}") from error
    known = keras.saving.get_custom_objects()
    for name, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, keras.layers.Layer) and found.__module__ == path.stem:
            known.setdefault(name, found)


def examine_against(path: Path, model: Any) -> Examination:
    """The file on fresh inputs, within the ranges of its reference clusters where it has a contract
    and standard normal else, against what a Keras model gives.

    Parameters
    ----------
    path : path
        ONNX file, which has been examined.
    model : keras.Model
        Functional or sequential; inputs of the same names or in the same order.
    """
    model = functional(model)
    names = [value.name for value in read_graph(path).graph.input]
    keras_names = [tensor.name for tensor in model.inputs]
    if len(names) != len(keras_names):
        told = f"the file has inputs {', '.join(names)}, Keras {', '.join(keras_names)}"
        return Examination(path, (Finding("tensors", FAILED, told),))
    as_keras = {name: name for name in names}
    if set(names) != set(keras_names):
        as_keras = dict(zip(names, keras_names, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        for inputs in _drawn(path, model):
            files.append(Path(folder) / f"{len(files)}.npz")
            said = predict_all(model, inputs)
            arrays: dict[str, Any] = {f"{INPUT_KEY}{n}": inputs[k] for n, k in as_keras.items()}
            # NaN or infinity: what a network does there is its own affair
            sound = np.all([np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in said], axis=0)
            arrays |= {f"{OUTPUT_KEY}{i}": x for i, x in enumerate(said)}
            np.savez(files[-1], **{name: array[sound] for name, array in arrays.items()})
        return examine_apart(path, expected=files)


def examine_training(path: Path, contract: ModelContract, model: Any, folder: Path) -> Examination:
    """The contract against the Keras model of a training, and against the contract there."""
    told = {
        "weights": ("weights_sha256", weights_sha256(model)),
        "number of parameters": ("n_parameters", int(model.count_params())),
    }
    wrong = [
        f"{what} differ from the trained network's"
        for what, (field, value) in told.items()
        if getattr(contract, field) not in (value, None)
    ]
    wrong += [
        f"meaning of {spec.name} is {spec.meaning!r}, expected {known[spec.name]!r}"
        for known, specs in ((MEANINGS_OF_INPUTS, contract.inputs), (MEANINGS, contract.outputs))
        for spec in specs
        if spec.name in known and spec.meaning != known[spec.name]
    ]
    first = folder / path.name
    if contract_path(first).exists() and not first.samefile(path):
        theirs = read_contract(first)
        wrong += [
            f"{field} differs from the contract in {folder}"
            for field in ModelContract.model_fields
            if getattr(theirs, field) != getattr(contract, field)
        ]
    finding = Finding(
        "training", FAILED if wrong else PASSED, "; ".join(wrong) or f"as in {folder}"
    )
    return merge(Examination(path, (finding,)), examine_against(path, model))


def _drawn(path: Path, model: Any) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Fresh inputs by the names of the Keras model."""
    rng = np.random.default_rng(2)
    if contract_path(path).exists():
        reference = read_reference(path, read_contract(path)).inputs
        yield fresh_inputs(reference, rng)
        for factor in FACTORS.values():
            with np.errstate(over="ignore"):
                yield {
                    name: array[:N_VARIED] * np.float32(factor) for name, array in reference.items()
                }
        return
    yield from normal_inputs(model, rng)


def normal_inputs(
    model: Any, rng: np.random.Generator, n: int = 1000
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Standard normal inputs, once for each of LENGTHS where axes are free."""
    shapes = {tensor.name: tensor.shape[1:] for tensor in model.inputs}
    free = any(None in shape for shape in shapes.values())
    for length in LENGTHS if free else LENGTHS[:1]:
        sizes = {
            name: (n, *(length if m is None else m for m in shape))
            for name, shape in shapes.items()
        }
        yield {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
