"""Does an ONNX file compute what the Keras model did? Checked with ONNX Runtime alone, at several
batch sizes; no Keras is loaded here.

A converter may write a file that is wrong and still succeed, and a file may be changed or mixed up
with another later. So the validator ties the file to its contract (checksum, names, shapes, types,
a free batch axis) and its numbers to reference outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    ModelContract,
    TensorSpec,
    fits,
    read_contract,
    read_reference,
    read_regular,
    require_inputs,
)
from pfcalib.deploy.graphfile import MAX_BYTES
from pfcalib.errors import ValidationError

BATCHES = (1, 7, 256)
# absolute, on probabilities and on logarithms of energies; typical differences are a few 1e-7
TOLERANCE = 1e-5
# by the name of the output: so many of its first columns are probabilities of classes
N_CLASSES = {"p": 2, "p_and_y": 2}
# outputs whose first third of columns are logarithms of weights, which are held relatively beyond
# one: single precision knows a logarithm of -9 no better; means and widths are held as all else
MIXTURES = ("mixture", "members")


@dataclass(frozen=True)
class BatchParity:
    """Agreement at one batch size."""

    batch: int
    max_abs: float  # largest difference of any output, NaN left out; see MIXTURES
    worst_cluster: int
    n_nan: int  # values that are not finite
    # clusters whose most probable class changes; 0 for outputs that are no classes
    n_changed_argmax: int


@dataclass(frozen=True)
class ParityReport:
    """Outcome of a check; problems holds one sentence for each thing that is wrong."""

    path: Path
    model: str
    n_clusters: int
    tolerance: float
    batches: tuple[BatchParity, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """True if nothing is wrong and something was compared."""
        return not self.problems and bool(self.batches)

    @property
    def max_abs(self) -> float:
        """Largest difference at any batch size; NaN if nothing was compared."""
        return max((batch.max_abs for batch in self.batches), default=float("nan"))


def open_session(path: Path, *, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """ONNX Runtime session on the CPU; ValidationError if the file cannot be loaded."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = n_threads
    options.log_severity_level = 3
    content = read_regular(path, MAX_BYTES)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for node in (*session.get_inputs(), *session.get_outputs()):
            node.shape  # noqa: B018  # raises where a name is no text
        return session
    except Exception as error:  # the errors of ONNX Runtime have no common base but this
        raise ValidationError(
            f"{path}: ONNX Runtime refuses the file: {str(error).splitlines()[0]}"
        ) from error


def check_model(
    path: str | Path,
    inputs: Mapping[str, NDArray[np.float32]],
    reference: NDArray[np.float32],
    *,
    batches: Sequence[int] = BATCHES,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Compare an ONNX file with its contract and with reference outputs.

    Parameters
    ----------
    path : path
        `<model>.onnx`; its contract `<model>.json` lies beside it.
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        Clusters to run, by input name.
    reference : array of float32, shape (n_clusters, n_outputs)
        What the Keras model gave for them.
    batches : sequence of int
        Batch sizes; each runs over all clusters, the last batch of a pass may be smaller.
    tolerance : float
        Largest absolute difference allowed; see `MIXTURES`.

    Returns
    -------
    ParityReport
        A file that cannot be run at all is a problem in the report, not an error.
    """
    path = Path(path)
    try:
        contract = read_contract(path)
        session = open_session(path)
        n_clusters = require_inputs(inputs, contract)
        if not fits(reference.shape, (n_clusters, *contract.output.shape)):
            raise ValidationError(
                f"reference has shape {reference.shape}, expected "
                f"{(n_clusters, *contract.output.shape)}"
            )
        if not np.isfinite(reference).all():
            worst = int(np.argwhere(~np.isfinite(reference))[0, 0])
            raise ValidationError(f"reference of cluster {worst} is not finite")
    except ValidationError as error:
        return ParityReport(path, path.stem, 0, tolerance, (), (str(error),))
    problems = (
        []
        if file_sha256(path) == contract.sha256
        else [f"{path}: sha256 differs from the contract: another file or a changed one"]
    )
    interface = interface_problems(session, contract)
    if interface:
        return ParityReport(
            path, contract.model, n_clusters, tolerance, (), (*problems, *interface)
        )
    results = []
    for batch in batches:
        try:
            output = run_in_batches(session, inputs, batch)
            results.append(compare(output, reference, batch, contract.output.name))
        except ValidationError as error:
            problems.append(str(error))
    for result in results:
        problems += batch_problems(result, tolerance)
    return ParityReport(
        path, contract.model, n_clusters, tolerance, tuple(results), tuple(problems)
    )


def check_stored_model(
    path: str | Path, *, batches: Sequence[int] = BATCHES, tolerance: float = TOLERANCE
) -> ParityReport:
    """`check_model` on the reference clusters that the export left beside the model."""
    path = Path(path)
    try:
        reference = read_reference(path, read_contract(path))
    except ValidationError as error:
        return ParityReport(path, path.stem, 0, tolerance, (), (str(error),))
    return check_model(
        path, reference.inputs, reference.output, batches=batches, tolerance=tolerance
    )


def require_parity(report: ParityReport) -> ParityReport:
    """The report itself; ValidationError with all its problems if it did not pass."""
    if not report.passed:
        raise ValidationError("; ".join(report.problems) or f"{report.path}: nothing was compared")
    return report


def interface_problems(session: onnxruntime.InferenceSession, contract: ModelContract) -> list[str]:
    """What differs between the tensors of the file and those of the contract."""
    found = {node.name: node for node in session.get_inputs()}
    wanted = {spec.name: spec for spec in contract.inputs}
    problems = []
    if found.keys() != wanted.keys():
        problems.append(
            f"inputs of the file are {', '.join(sorted(found))}, of the contract "
            f"{', '.join(sorted(wanted))}"
        )
    problems += [
        problem
        for name in sorted(found.keys() & wanted.keys())
        for problem in _node_problems(found[name], wanted[name])
    ]
    outputs, names = session.get_outputs(), [spec.name for spec in contract.outputs]
    if [node.name for node in outputs] != names:
        problems.append(
            f"outputs of the file are {', '.join(node.name for node in outputs)}, of the contract "
            f"{', '.join(names)}"
        )
    return problems or [
        problem
        for node, spec in zip(outputs, contract.outputs, strict=True)
        for problem in _node_problems(node, spec)
    ]


def _node_problems(node: Any, spec: TensorSpec) -> list[str]:
    """Differences of one tensor; a batch axis with a fixed length is one."""
    first = node.shape[0] if node.shape else None
    shape = tuple(n if isinstance(n, int) else None for n in node.shape[1:])
    told, wanted = ", ".join(map(str, shape)), ", ".join(map(str, spec.shape))
    wrong = {
        f"type {node.type}, expected tensor(float)": node.type != "tensor(float)",
        f"shape (n, {told}), expected (n, {wanted})": shape != spec.shape,
        f"the batch axis is fixed to {first}, expected a free one": isinstance(first, int),
    }
    return [f"{spec.name}: {what}" for what, found in wrong.items() if found]


def batch_problems(result: BatchParity, tolerance: float) -> list[str]:
    """What is wrong at one batch size."""
    where = f"batch {result.batch}, worst cluster {result.worst_cluster}"
    wrong = {
        f"differs by {result.max_abs:.2e}, more than {tolerance:.0e}": result.max_abs > tolerance,
        f"{result.n_nan} values are not finite": result.n_nan,
        f"{result.n_changed_argmax} clusters change class": result.n_changed_argmax,
    }
    return [f"{where}: {what}" for what, found in wrong.items() if found]


def run_in_batches(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[np.float32]], batch: int
) -> NDArray[np.float32]:
    """First output of all clusters, batch by batch."""
    return run_all_in_batches(session, inputs, batch)[0]


def run_all_in_batches(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[np.float32]], batch: int
) -> list[NDArray[np.float32]]:
    """All outputs of all clusters, batch by batch; ValidationError if the runtime fails."""
    n_clusters = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, n_clusters, batch):
        try:
            feed = {name: array[start : start + batch] for name, array in inputs.items()}
            parts.append(session.run(None, feed))
        except Exception as error:  # see open_session
            raise ValidationError(
                f"batch {batch}, from cluster {start}: ONNX Runtime fails: "
                f"{str(error).splitlines()[0]}"
            ) from error
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def compare(
    output: NDArray[np.float32], reference: NDArray[np.float32], batch: int, name: str
) -> BatchParity:
    """Differences of one pass of an output of some name."""
    if output.shape != reference.shape:
        raise ValidationError(
            f"batch {batch}: output has shape {output.shape}, expected {reference.shape}"
        )
    n_classes = N_CLASSES.get(name, 0)
    n_weights = output.shape[-1] // 3 if name in MIXTURES else 0
    scale = np.ones(output.shape)
    scale[..., :n_weights] = np.maximum(1.0, np.abs(reference[..., :n_weights]))
    output, reference = (x.reshape(len(x), -1) for x in (output, reference))
    finite = np.isfinite(output)
    difference = np.abs(np.where(finite, output, reference).astype(np.float64) - reference)
    difference = (difference / scale.reshape(len(scale), -1)).max(axis=1)
    bad = ~finite.all(axis=1)
    worst = int(np.argmax(bad)) if bad.any() else int(np.argmax(difference))
    changed = (
        np.count_nonzero(
            output[:, :n_classes].argmax(axis=1) != reference[:, :n_classes].argmax(axis=1)
        )
        if n_classes
        else 0
    )
    return BatchParity(
        batch, float(difference.max()), worst, int(np.count_nonzero(~finite)), int(changed)
    )
