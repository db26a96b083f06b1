"""Keras to ONNX: convert, write the contract and reference clusters beside the file, and let
nothing through that was not validated.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tf2onnx
from numpy.typing import NDArray

from pfcalib.cache import file_sha256, scratch_folder
from pfcalib.columns import COLUMNS, LAYER_NAMES
from pfcalib.deploy.contract import (
    ModelContract,
    Reference,
    TensorSpec,
    contract_path,
    reference_path,
    seal,
    write_reference,
)
from pfcalib.deploy.examination import N_VARIED, count_varied, fresh_inputs
from pfcalib.deploy.graphfile import graph_facts, graph_problems, read_graph
from pfcalib.deploy.validator import ParityReport, check_stored_model, require_parity
from pfcalib.errors import ValidationError
from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.models.heads import MEANINGS

OPSET = 17  # 19 and up are refused by the converter
VERSIONS_OF = ("keras", "numpy", "onnx", "onnxruntime", "pfcalib", "tensorflow", "tf2onnx")
NORMALISATION = (
    "pixels: cell energy over clusterE, a second channel E / sigma; "
    "scalars: log10(clusterE / GeV), clusterEta; points and moments: none, in physical units"
)
MEANINGS_OF_INPUTS = {
    "points": "cells by falling |E|, each energy [GeV], E / sigma, d_eta and d_phi from the "
    f"barycentre, place in {', '.join(LAYER_NAMES)}; zeros behind the last",
    "scalars": "log10(clusterE / GeV), clusterEta",
    "moments": ", ".join(
        f"{name} [{COLUMNS[name].unit}]" if COLUMNS[name].unit else name for name in MOMENT_COLUMNS
    ),
}


def export_onnx(
    model: keras.Model,
    path: str | Path,
    *,
    inputs: Mapping[str, NDArray[np.float32]],
    kind: str,
    training: Mapping[str, Any] | None = None,
    normalisation: str = NORMALISATION,
) -> ParityReport:
    """Write `<model>.onnx`, its contract `<model>.json` and its reference clusters
    `<model>.reference.npz`.

    All three are made in a temporary folder, validated there, and moved into place only if they
    pass, the contract last.

    Parameters
    ----------
    model : keras.Model
        Functional or sequential.
    path : path
        Of the ONNX file, ending in .onnx.
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        Reference clusters, a thousand or so, as the network sees them; mixtures of them are added
        to a few.
    kind : str
        Kind of input, as in `pfcalib.features.inputs`.
    training : mapping, optional
        Provenance for the contract: seed, samples, settings. JSON values only.

    Returns
    -------
    ParityReport
        The validation, which has passed.

    Raises
    ------
    ValidationError
        If the model cannot be converted, or the file does not compute what the model does; nothing
        is written then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValidationError(f"{path}: the name of an ONNX file must end in .onnx")
    model = functional(model)
    with scratch_folder(path) as folder:
        draft = folder / path.name
        draft.write_bytes(_convert(model))
        if 0 < count_varied(inputs) < N_VARIED:
            added = fresh_inputs(inputs, np.random.default_rng(1), 2 * N_VARIED)
            inputs = {name: np.concatenate([array, added[name]]) for name, array in inputs.items()}
        first, *more = predict_all(model, inputs)
        reference = Reference(
            dict(inputs), first, dict(zip(model.output_names[1:], more, strict=True))
        )
        write_reference(reference_path(draft), reference)
        contract = _contract(
            model, draft, kind=kind, normalisation=normalisation, training=dict(training or {})
        )
        contract_path(draft).write_text(contract.model_dump_json(indent=2) + "\n", encoding="utf-8")
        report = require_parity(check_stored_model(draft))
        for name in (reference_path, Path, contract_path):
            name(draft).replace(name(path))
    return replace(report, path=path)


def predict(
    model: keras.Model,
    inputs: Mapping[str, NDArray[np.float32]],
    *,
    batch: int = 1000,
    training: bool = False,
) -> NDArray[np.float32]:
    """First output of a Keras model at inference, or with the random numbers of training, shape
    (n_clusters, n_outputs) float32.
    """
    return predict_all(model, inputs, batch=batch, training=training)[0]


def predict_all(
    model: keras.Model,
    inputs: Mapping[str, NDArray[np.float32]],
    *,
    batch: int = 1000,
    training: bool = False,
) -> list[NDArray[np.float32]]:
    """All outputs of a Keras model, as `predict` gives the first."""
    n_clusters = len(next(iter(inputs.values())))
    parts = []
    for i in range(0, n_clusters, batch):
        feed = {name: array[i : i + batch] for name, array in inputs.items()}
        parts.append(keras.tree.flatten(model(feed, training=training)))
    return [
        np.concatenate([keras.ops.convert_to_numpy(part) for part in of_output])
        for of_output in zip(*parts, strict=True)
    ]


def weights_sha256(model: keras.Model) -> str:
    """Digest of the weights of a model in their order, with their shapes; the same after it was
    saved and loaded.
    """
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, model.get_weights()):
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def functional(model: keras.Model) -> keras.Model:
    """The model, functional and with inputs by name; ValidationError if it cannot be so."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValidationError(
            f"{getattr(model, 'name', model)}: only functional models, and sequential ones that "
            "are built, can be exported"
        )
    if not isinstance(model, keras.Sequential) and isinstance(model.input, dict):
        return model
    by_name = {tensor.name: tensor for tensor in model.inputs}
    return keras.Model(by_name, model.outputs, name=model.name)


def _convert(model: keras.Model) -> bytes:
    """ONNX file of a functional model, whose inputs keep their names."""
    # the converter gives its inputs as a list
    flat = keras.Model(model.inputs, model.outputs, name=model.name)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        proto, _ = tf2onnx.convert.from_keras(flat, opset=OPSET)
    except Exception as error:  # the converter raises whatever it meets
        raise ValidationError(
            f"{model.name}: tf2onnx cannot convert the model: {type(error).__name__}: {error}"
        ) from error
    return bytes(proto.SerializeToString())


def _contract(model: keras.Model, draft: Path, *, kind: str, **told: Any) -> ModelContract:
    """The sealed contract of a model and its file."""
    proto = read_graph(draft)
    facts = graph_facts(proto)
    problems = graph_problems(proto, control_flow=facts.control_flow)
    if problems:
        raise ValidationError(f"{model.name}: {'; '.join(problems)}")
    outputs = tuple(
        TensorSpec(name=name, shape=tuple(tensor.shape[1:]), meaning=MEANINGS.get(name, ""))
        for name, tensor in zip(model.output_names, model.outputs, strict=True)
    )
    return seal(
        ModelContract(
            model=model.name,
            kind=kind,
            inputs=tuple(
                TensorSpec(
                    name=tensor.name,
                    shape=tuple(tensor.shape[1:]),
                    meaning=MEANINGS_OF_INPUTS.get(tensor.name, ""),
                )
                for tensor in model.inputs
            ),
            output=outputs[0],
            more_outputs=outputs[1:],
            n_parameters=int(model.count_params()),
            opset=facts.opset,
            n_weights=facts.n_weights,
            control_flow=facts.control_flow,
            sha256=file_sha256(draft),
            reference_sha256=file_sha256(reference_path(draft)),
            weights_sha256=weights_sha256(model),
            created=datetime.now(UTC),
            versions={name: version(name) for name in VERSIONS_OF},
            **told,
        )
    )
