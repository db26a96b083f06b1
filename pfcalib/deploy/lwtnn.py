"""Keras networks as the JSON files of lwtnn, the light C++ of ATLAS and CMS (doi
10.5281/zenodo.597221), each held against the network by a small C++ program before it is kept.

A user of lwtnn, which needs Eigen and Boost and nothing of Keras, loads such a file with

.. code-block:: c++

    #include "lwtnn/LightweightGraph.hh"
    #include "lwtnn/parse_json.hh"

    std::ifstream file("dnn.lwtnn.json");
    lwt::LightweightGraph graph(lwt::parse_json_graph(file));
    std::map<std::string, double> pixels = {{"pixels_0", 0.2}, {"pixels_1", 0.1}};  // ...
    double p_em = graph.compute({{"pixels", pixels}}).at("neutral");

and a sequence, of any length, as a second argument: ``{{"cells", {{"e", {0.7, 0.3}}, ...}}}``. A
file written with ``stack=True`` goes through ``lwt::parse_json`` into
``lwt::LightweightNeuralNetwork(config.inputs, config.layers, config.outputs)``.

The format is that of lwtnn 2 as its own converters write and its C++ reads it
(``converters/kerasfunc2json.py``, ``src/parse_json.cxx``, ``generic/Graph.tcc``,
``generic/Stack.tcc``). The program ``pfcalib/data/run_lwtnn.cpp`` was written from the C++ alone.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import new_file
from pfcalib.deploy.export import predict
from pfcalib.deploy.latency import Latency
from pfcalib.deploy.native import build_program
from pfcalib.errors import ValidationError
from pfcalib.models.heads import CLASSES

SUFFIX = ".lwtnn.json"
TOLERANCE = 1e-5  # single precision of Keras against the double of lwtnn; beyond 1 relative
MIN_ROWS = 100  # that a file is checked with
ACTIVATIONS: dict[Callable[..., Any], Any] = {
    keras.activations.linear: "linear",
    keras.activations.relu: "rectified",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.tanh: "tanh",
    keras.activations.softmax: "softmax",
    keras.activations.elu: {"function": "elu", "alpha": 1.0},
    keras.activations.leaky_relu: {"function": "leakyrelu", "alpha": 0.2},
    keras.activations.silu: {"function": "swish", "alpha": 1.0},
}  # Keras 3's hard_sigmoid has a slope of 1/6, that of lwtnn 1/5
# of lwtnn and their gates in the order of Keras
RECURRENT = {"LSTM": ("lstm", "ifco"), "GRU": ("gru", "zrh")}
MERGES = ("Concatenate", "Add")
# nothing when a network is applied; a masked step is left out of the sequence instead
SKIPPED = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "Masking")

Inputs: TypeAlias = Mapping[str, NDArray[np.float32]]
# sequences may have their own numbers of steps
Rows: TypeAlias = Mapping[str, Sequence[ArrayLike] | NDArray[Any]]
Convert: TypeAlias = Callable[[Any, int], dict[str, Any]]  # of a layer and the width of its input


def export_lwtnn(
    model: keras.Model,
    path: str | Path,
    *,
    inputs: Inputs,
    variables: Mapping[str, Sequence[str]] | None = None,
    stack: bool = False,
) -> float:
    """Write `<model>.lwtnn.json`, if what it says is what Keras computes.

    Parameters
    ----------
    model : keras.Model
        Functional model with one output, a vector; its inputs are vectors (n, n_variables) and
        sequences of them (n, n_steps, n_variables).
    path : path
        Of the file, ending in .lwtnn.json.
    inputs : mapping of str to float32 array, shape (n, ...)
        Rows to check the file with, a hundred at least, that differ as those of the application do.
        Steps that are masked are left out for lwtnn.
    variables : mapping of str to sequence of str, optional
        Names of the variables of an input, by which C++ fills it; ``<input>_<i>`` by default.
    stack : bool
        Write what LightweightNeuralNetwork reads, for a plain stack of layers, and not a graph.

    Returns
    -------
    float
        Largest difference from Keras, relative for outputs beyond 1.

    Raises
    ------
    ValidationError
        If lwtnn lacks a layer of the model, or the file gives other numbers than Keras; nothing is
        written then.
    ConfigError
        If there is no C++ compiler.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValidationError(f"{path}: the name of a file for lwtnn must end in {SUFFIX}")
    graph = build_graph(model, variables)
    wanted = {tensor.name for tensor in model.inputs}
    if inputs.keys() != wanted:
        raise ValidationError(
            f"inputs {', '.join(sorted(inputs))}: {model.name} asks for {', '.join(sorted(wanted))}"
        )
    text = json.dumps(_as_stack(graph, model) if stack else graph)
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        return require_lwtnn(temporary, model, inputs)


def require_lwtnn(path: str | Path, model: keras.Model, inputs: Inputs) -> float:
    """Largest difference between a file and a Keras model; parameters and errors are those of
    `export_lwtnn`.
    """
    n_rows = len(next(iter(inputs.values())))
    if n_rows < MIN_ROWS:
        raise ValidationError(
            f"{model.name}: {n_rows} rows are too few to check a file with, expected at least "
            f"{MIN_ROWS}"
        )
    by_name = keras.Model({tensor.name: tensor for tensor in model.inputs}, model.outputs[0])
    reference = predict(by_name, inputs).astype(np.float64)
    answers = run_lwtnn(path, _without_masked(model, inputs))
    if answers.shape != reference.shape:
        raise ValidationError(
            f"{model.name}: its file for lwtnn gives {answers.shape}, expected {reference.shape}"
        )
    difference = np.abs(answers - reference) / np.maximum(1.0, np.abs(reference))
    worst = int(difference.max(axis=1).argmax())  # one that is not a number is the largest
    largest = float(difference[worst].max())
    if not largest <= TOLERANCE:
        raise ValidationError(
            f"{model.name}: its file for lwtnn differs by {largest:.2e} in row {worst}, more than "
            f"{TOLERANCE:.0e}"
        )
    return largest


def build_graph(
    model: keras.Model, variables: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """What `lwt::parse_json_graph` reads, of a functional model with one output; parameters and
    errors are those of `export_lwtnn`.
    """
    if (
        not isinstance(model, keras.Model)
        or isinstance(model, keras.Sequential)
        or len(getattr(model, "outputs", None) or ()) != 1
        or len(model.outputs[0].shape) != 2
    ):
        raise ValidationError(
            f"{getattr(model, 'name', model)}: only functional models with one output, a vector, "
            "can be written for lwtnn"
        )
    if unknown := set(variables or {}) - {tensor.name for tensor in model.inputs}:
        raise ValidationError(f"{model.name} has no input {', '.join(sorted(unknown))}")
    graph = _Graph(model, variables or {})
    place, name = graph.place(model.outputs[0]), model.output_names[0]
    n_outputs = model.outputs[0].shape[-1]
    known = name == "p" and n_outputs == len(CLASSES)
    labels = CLASSES if known else [f"{name}_{i}" for i in range(n_outputs)]
    return {
        "inputs": graph.inputs["input"],
        "input_sequences": graph.inputs["input_sequence"],
        "nodes": graph.nodes,
        "layers": graph.layers,
        "outputs": {name: {"node_index": place, "labels": list(labels)}},
    }


def _as_stack(graph: Mapping[str, Any], model: keras.Model) -> dict[str, Any]:
    """What `lwt::parse_json` reads, of a graph that is a plain stack."""
    first, *rest = graph["nodes"]
    chain = [{"type": "feed_forward", "sources": [i], "layer_index": i} for i in range(len(rest))]
    if first["type"] != "input" or rest != chain:
        raise ValidationError(
            f"{model.name}: not a plain stack of layers behind one vector, write it as a graph"
        )
    return {
        "inputs": graph["inputs"][0]["variables"],
        "layers": graph["layers"],
        "outputs": graph["outputs"][model.output_names[0]]["labels"],
    }


class _Graph:
    """Nodes and layers of lwtnn, made on the way back from a tensor to the inputs."""

    def __init__(self, model: keras.Model, variables: Mapping[str, Sequence[str]]) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        self.inputs: dict[str, list[dict[str, Any]]] = {"input": [], "input_sequence": []}
        self._places: dict[tuple[int, int], int] = {}  # of the nodes of operations
        self._indices: dict[int, int] = {}  # of the layers of operations
        for tensor in model.inputs:
            self._add_input(tensor, variables.get(tensor.name))

    def place(self, tensor: Any) -> int:
        """Number of the node that makes a tensor."""
        operation, call, _ = tensor._keras_history
        key = (id(operation), call)
        if key not in self._places:
            tensors = _sources(operation, call)
            sources = [self.place(source) for source in tensors]
            if _kind(operation) in SKIPPED:
                self._places[key] = sources[0]
            else:
                node = self._node(operation, [source.shape for source in tensors])
                self._places[key] = self._add({**node, "sources": sources})
        return self._places[key]

    def _add(self, node: dict[str, Any]) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _add_input(self, tensor: Any, names: Sequence[str] | None) -> None:
        operation, call, _ = tensor._keras_history
        size = tensor.shape[-1]
        if len(tensor.shape) not in (2, 3) or size is None:
            _refuse(operation, f"shape {tensor.shape} is neither a vector nor a sequence of them")
        kind = ("input", "input_sequence")[len(tensor.shape) - 2]
        names = [f"{tensor.name}_{i}" for i in range(size)] if names is None else list(names)
        if not len(names) == len(set(names)) == size:
            _refuse(operation, f"{len(names)} names, expected {size} different ones")
        sources = [len(self.inputs[kind])]
        self.inputs[kind].append(
            {
                "name": tensor.name,
                "variables": [{"name": name, "offset": 0.0, "scale": 1.0} for name in names],
            }
        )
        self._places[id(operation), call] = self._add(
            {"type": kind, "sources": sources, "size": size}
        )

    def _node(self, operation: Any, shapes: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        """Node of an operation on tensors of some shapes, without its sources."""
        kind, rank, width = _kind(operation), len(shapes[0]), shapes[0][-1]
        if kind in MERGES:
            if any(len(shape) != 2 for shape in shapes):
                _refuse(operation, "lwtnn merges vectors, not sequences")
            return {"type": kind.lower()}
        if kind == "Sum":
            if rank != 3 or operation.axis not in (1, -2, [1], [-2]) or operation.keepdims:
                _refuse(operation, "lwtnn sums a sequence, over its steps")
            return {"type": "sum"}
        if kind in RECURRENT:
            return {"type": "sequence", "layer_index": self._layer(operation, _recurrent, width)}
        layer = operation.layer if kind == "TimeDistributed" else operation
        convert = FORWARD.get(_kind(layer))
        if convert is None:
            _refuse(layer, "lwtnn has no such layer")
        return {
            "type": "feed_forward" if rank == 2 else "time_distributed",
            "layer_index": self._layer(layer, convert, width),
        }

    def _layer(self, layer: Any, convert: Convert, width: int) -> int:
        """Number of a layer, which may be called several times."""
        if id(layer) not in self._indices:
            self._indices[id(layer)] = len(self.layers)
            self.layers.append(convert(layer, width))
        return self._indices[id(layer)]


def _kind(operation: Any) -> str:
    """Class of a layer or operation of Keras itself; nothing of anybody else's."""
    cls = type(operation)
    return cls.__name__ if cls.__module__.startswith("keras.") else ""


def _sources(operation: Any, call: int) -> list[Any]:
    """Tensors that a call of an operation takes; a mask is none of them."""
    tensors = [
        tensor
        for tensor in operation._inbound_nodes[call].input_tensors
        if keras.backend.standardize_dtype(tensor.dtype) != "bool"
    ]
    if not tensors:
        _refuse(operation, "lwtnn has no logic")
    if len(tensors) > 1 and _kind(operation) not in MERGES:
        _refuse(operation, "lwtnn gives it one tensor, not several, nor a first state")
    return tensors


def _refuse(layer: Any, why: str) -> NoReturn:
    raise ValidationError(f"layer {layer.name!r} ({type(layer).__name__}): {why}")


def _numbers(layer: Any, array: ArrayLike) -> list[float]:
    """Numbers row by row, which JSON cannot hold unless they are finite."""
    values = np.asarray(array, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        _refuse(layer, "a weight is not finite")
    return values.tolist()


def _array(weight: Any) -> NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(weight), dtype=np.float64)


def _activation(layer: Any, function: Callable[..., Any]) -> Any:
    if function not in ACTIVATIONS:
        name = getattr(function, "__name__", function)
        _refuse(layer, f"lwtnn has no activation {name} like that of Keras")
    return ACTIVATIONS[function]


def _activated(activation: Any) -> dict[str, Any]:
    """A dense layer without weights."""
    return {"architecture": "dense", "weights": [], "bias": [], "activation": activation}


def _dense(layer: Any, width: int) -> dict[str, Any]:
    """A matrix with a row for each output; Keras has a column."""
    return {
        "architecture": "dense",
        "weights": _numbers(layer, _array(layer.kernel).T),
        "bias": _numbers(layer, _array(layer.bias)) if layer.use_bias else [],
        "activation": _activation(layer, layer.activation),
    }


def _affine(layer: Any, width: int, scale: ArrayLike, shift: ArrayLike) -> dict[str, Any]:
    """scale x + shift for each column, which lwtnn writes weight (x + bias)."""
    scale, shift = (
        np.broadcast_to(np.asarray(values, dtype=np.float64).ravel(), width)
        for values in (scale, shift)
    )
    if not scale.all():
        _refuse(layer, "a scale is 0, which lwtnn cannot express")
    return {
        "architecture": "normalization",
        "weights": _numbers(layer, scale),
        "bias": _numbers(layer, shift / scale),
    }


def _batch_normalisation(layer: Any, width: int) -> dict[str, Any]:
    _require_last_axis(layer)
    scale = 1.0 / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    scale = scale * _array(layer.gamma) if layer.scale else scale
    shift = _array(layer.beta) if layer.center else 0.0
    return _affine(layer, width, scale, shift - scale * _array(layer.moving_mean))


def _softmax(layer: Any, width: int) -> dict[str, Any]:
    _require_last_axis(layer)
    return _activated("softmax")


def _relu(layer: Any, width: int) -> dict[str, Any]:
    if layer.max_value is not None or layer.threshold or layer.negative_slope:
        _refuse(layer, "lwtnn has neither a largest value nor a threshold nor a slope of it")
    return _activated("rectified")


def _require_last_axis(layer: Any) -> None:
    if layer.axis != -1:
        _refuse(layer, f"axis {layer.axis}, expected -1, that of the variables")


def _recurrent(layer: Any, width: int) -> dict[str, Any]:
    """Gates side by side in Keras, one after the other in lwtnn."""
    if layer.go_backwards or layer.return_state or layer.stateful:
        _refuse(layer, "lwtnn goes forwards, from zeros, and gives no state")
    architecture, gates = RECURRENT[_kind(layer)]
    if architecture == "gru" and layer.reset_after:
        _refuse(layer, "the GRU of lwtnn resets before the product: train with reset_after=False")
    cell, n_gates = layer.cell, len(gates)
    bias = _array(cell.bias) if layer.use_bias else np.zeros(n_gates * layer.units)
    parts = {
        "weights": np.split(_array(cell.kernel), n_gates, axis=1),
        "U": np.split(_array(cell.recurrent_kernel), n_gates, axis=1),
        "bias": np.split(bias, n_gates),
    }
    return {
        "architecture": architecture,
        "components": {
            gate: {name: _numbers(layer, part[i].T) for name, part in parts.items()}
            for i, gate in enumerate(gates)
        },
        "activation": _activation(layer, layer.activation),
        "inner_activation": _activation(layer, layer.recurrent_activation),
    }


FORWARD: dict[str, Convert] = {
    "Dense": _dense,
    "Activation": lambda layer, width: _activated(_activation(layer, layer.activation)),
    "Softmax": _softmax,
    "ReLU": _relu,
    "LeakyReLU": lambda layer, width: _activated(
        {"function": "leakyrelu", "alpha": float(layer.negative_slope)}
    ),
    "ELU": lambda layer, width: _activated({"function": "elu", "alpha": float(layer.alpha)}),
    "BatchNormalization": _batch_normalisation,
    "Rescaling": lambda layer, width: _affine(layer, width, layer.scale, layer.offset),
}


def _without_masked(model: keras.Model, inputs: Inputs) -> Rows:
    """Inputs of which masked steps are left out, as recurrent layers of Keras do."""
    taken: dict[str, Any] = dict(inputs)
    for layer in model.layers:
        if _kind(layer) == "Masking":
            name = layer.input.name
            if name not in taken:
                _refuse(layer, "lwtnn has no mask behind a layer, only steps that are not there")
            taken[name] = [row[(row != layer.mask_value).any(axis=1)] for row in inputs[name]]
    return taken


def run_lwtnn(path: str | Path, inputs: Rows, *, timed: bool = False) -> NDArray[np.float64]:
    """Answers of a file for lwtnn through the C++ program, in double precision.

    Parameters
    ----------
    path : path
        Graph or stack.
    inputs : mapping of str to array, shape (n, n_variables) or (n, n_steps, n_variables)
        By name, one of any name for a stack; a sequence may be a list of arrays with their own
        numbers of steps.
    timed : bool
        Give the time of each row in nanoseconds instead, shape (n, 1).

    Returns
    -------
    array of float64, shape (n, n_outputs)

    Raises
    ------
    ConfigError
        If there is no compiler.
    ValidationError
        If the file is none of lwtnn, or does not fit the inputs.
    """
    try:
        config = json.loads(Path(path).read_bytes())
        graph = "nodes" in config
        vectors = (
            config["inputs"]
            if graph
            else [{"name": n, "variables": config["inputs"]} for n in inputs]
        )
        sequences = config["input_sequences"] if graph else []
        parts = [_packed(inputs[of["name"]], (len(of["variables"]),)) for of in vectors]
        parts += [_packed(inputs[of["name"]], (-1, len(of["variables"]))) for of in sequences]
        data = b"".join(itertools.chain.from_iterable(zip(*parts, strict=True)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValidationError(
            f"{path}: not a file for lwtnn that takes these inputs: {error}"
        ) from error
    command = [build_program("run_lwtnn"), path, *(["time"] if timed else [])]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise ValidationError(f"{path}: {done.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(done.stdout, dtype=np.float64).reshape(len(parts[0]), -1)


def _packed(rows: Sequence[ArrayLike] | NDArray[Any], shape: tuple[int, ...]) -> list[bytes]:
    """Each row as the program reads it; ValueError if it does not have the shape, in which -1 is a
    number of steps, which goes first.
    """
    packed = []
    for row in rows:
        array = np.asarray(row, dtype=np.float64)
        if array.ndim != len(shape) or array.shape[-1] != shape[-1]:
            raise ValueError(f"a row has shape {array.shape}, expected {shape}")
        steps = np.float64(len(array)).tobytes() if shape[0] == -1 else b""
        packed.append(steps + array.tobytes())
    return packed


def lwtnn_latency(path: str | Path, inputs: Rows) -> Latency:
    """Time of one row after the other in the C++ program, whose loops are plain where lwtnn has
    Eigen; parameters are those of `run_lwtnn`.
    """
    times = run_lwtnn(path, inputs, timed=True) / 1e3
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Latency(1, 1, len(times), float(median), (float(low), float(high)))
