"""All that can be said of an ONNX file without Keras, in a process of its own with limits of time
and memory: a file may be made to hang, to fill the memory or to crash whoever opens it.

The file runs only if its graph is fit, then on its reference clusters, on fresh inputs drawn within
their ranges and beyond, and at batch sizes up to above their number. What cannot be known from the
files alone is named as not verified.
"""

from __future__ import annotations

import json
import math
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    INPUT_KEY,
    ModelContract,
    Reference,
    contract_path,
    read_arrays,
    read_contract,
    read_reference,
    require_inputs,
    seal_of,
)
from pfcalib.deploy.graphfile import graph_facts, graph_problems, read_graph
from pfcalib.deploy.validator import (
    TOLERANCE,
    BatchParity,
    batch_problems,
    compare,
    interface_problems,
    open_session,
    run_all_in_batches,
)
from pfcalib.errors import ValidationError

BATCHES = (1, 7, 256, 1000)
N_VARIED = 100  # different clusters that a reference must hold at least
N_FRESH = 1000
PIECE = 64  # clusters between two signs of life
START_SECONDS, STEP_SECONDS = 60.0, 8.0  # without a sign of life: of Python, of the file
MEMORY = 4 * 2**30  # bytes, and those of the file six times
PASSED, FAILED, OPEN = "passed", "failed", "not verified"
FACTORS = {"0": 0.0, "10": 10.0}  # inputs times these must give finite numbers
HOSTILE = {"1e-40": 1e-40, "1e30": 1e30, "not a number": np.nan, "infinity": np.inf}
Arrays = Mapping[str, NDArray[np.float32]]


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    verdict: str  # PASSED, FAILED or OPEN
    told: str


@dataclass(frozen=True)
class Examination:
    """Outcome of an examination."""

    path: Path
    findings: tuple[Finding, ...]
    parity: tuple[BatchParity, ...] = ()  # on the reference clusters

    @property
    def passed(self) -> bool:
        """True if nothing failed and something passed."""
        verdicts = {finding.verdict for finding in self.findings}
        return FAILED not in verdicts and PASSED in verdicts

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing that failed."""
        return tuple(f"{f.subject}: {f.told}" for f in self.findings if f.verdict == FAILED)


Sign = str | Finding | BatchParity  # a text is what is being done
Run = Generator[Sign, None, list[NDArray[np.float32]]]


def examine_apart(
    path: str | Path,
    *,
    expected: Sequence[Path] = (),
    own: bool = False,
    seconds: float = STEP_SECONDS,
    memory: int = MEMORY,
) -> Examination:
    """Examine a file in a process of its own; it never takes the caller down.

    Parameters
    ----------
    path : path
        ONNX file; its contract and reference clusters lie beside it.
    expected : sequence of path
        .npz files with inputs and what a network gives for them: the file is run on these alone.
    own : bool
        The file has no contract.
    seconds : float
        Without a sign of life, after which the process is ended.
    memory : int
        Bytes that it may use beside six times the size of the file.

    Returns
    -------
    Examination
        Whatever is wrong, time and memory too, is a finding.
    """
    path = Path(path)
    options = json.dumps({"own": own, "memory": memory})
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(path), *map(str, expected), options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_pump, args=(process.stdout, lines.put), daemon=True)
    reader.start()
    findings: list[Finding] = []
    parity: list[BatchParity] = []
    doing, ended, patience = "start", False, START_SECONDS
    try:
        while not ended:
            sign = json.loads(lines.get(timeout=patience))
            patience = seconds
            match sign:
                case {"doing": doing}:
                    pass
                case {"finding": found}:
                    findings.append(Finding(*found))
                case {"batch": of}:
                    parity.append(BatchParity(**of))
                case _:
                    ended = True
                    if sign.get("problem"):
                        findings.append(Finding(doing, FAILED, sign["problem"]))
    except queue.Empty:
        findings.append(Finding(doing, FAILED, f"no answer within {patience:g} s"))
    except json.JSONDecodeError:  # the output has ended before the process said so
        code = process.wait()
        findings.append(Finding(doing, FAILED, f"the process crashed, exit code {code}"))
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    return Examination(path, tuple(findings), tuple(parity))


def _pump(stream: TextIO, put: Callable[[str], object]) -> None:
    """Each line of a stream, and an empty one at its end."""
    for line in stream:
        put(line)
    put("")


def merge(*examinations: Examination) -> Examination:
    """Findings of several; what one could not verify and another did is left out."""
    findings = [finding for one in examinations for finding in one.findings]
    known = {finding.subject for one in examinations[1:] for finding in one.findings}
    first = {id(finding) for finding in examinations[0].findings}
    kept = [f for f in findings if not (id(f) in first and f.subject in known)]
    parity = tuple(batch for one in examinations for batch in one.parity)
    return Examination(examinations[0].path, tuple(kept), parity)


def examine(path: Path, *, own: bool = False) -> Iterator[Sign]:
    """What can be said of a file and what lies beside it; see the module."""
    yield "graph"
    proto = read_graph(path)
    contract = None if own else read_contract(path)
    problems = (
        graph_problems(proto, control_flow=contract.control_flow, precision=contract.precision)
        if contract
        else graph_problems(proto)
    )
    if problems:
        yield from (Finding("graph", FAILED, problem) for problem in problems)
        return
    facts = graph_facts(proto)
    told = f"{sum(facts.operators.values())} nodes, {facts.n_weights} weights, opset {facts.opset}"
    yield Finding("graph", PASSED, told)
    yield "open"
    session = open_session(path)
    if contract is None:
        yield Finding("contract", OPEN, "there is none: names, meaning, training and reference")
        return
    yield from _contract_findings(path, contract, facts)
    interface = interface_problems(session, contract)
    yield from (Finding("tensors", FAILED, problem) for problem in interface)
    if interface:
        return
    yield "reference"
    reference = read_reference(path, contract)
    yield from _reference_findings(reference, contract)
    yield from _parity(session, reference, contract)
    yield from _fresh(session, reference)
    yield from (
        Finding(subject, OPEN, told)
        for subject, told in (
            ("training", "that the files are of the training they name (--trained-by)"),
            ("fresh inputs against Keras", "(--trained-by, --against)"),
            ("meaning", "of classes, inputs and normalisation (--trained-by)"),
            ("physics", "on labelled clusters (--sample)"),
        )
    )


def _contract_findings(path: Path, contract: ModelContract, facts: Any) -> Iterator[Finding]:
    """Contract fields are recomputed where the file tells them."""
    yield _judged(
        "checksum of the model",
        {"the model is not that of its contract (sha256 differs)": (
            file_sha256(path) != contract.sha256
        )},
        contract.sha256[:12],
    )  # fmt: skip
    found = {
        "opset": facts.opset,
        "n_weights": facts.n_weights,
        "control_flow": facts.control_flow,
        "precision": facts.precision,
    }
    told = contract.model_dump(include=set(found))
    wrong = {
        f"{name} is {told[name]!r}, of the file {value!r}": told[name] not in (value, None)
        for name, value in found.items()
    }
    yield _judged("fields of the contract", wrong, ", ".join(found))
    if contract.schema_version == 1:
        yield Finding("seal", OPEN, f"{contract_path(path).name} is of a time without seals")
    else:
        changed = {"the contract was changed since the export": contract.seal != seal_of(contract)}
        yield _judged("seal", changed, "contract, model and reference are of one export")


def _reference_findings(reference: Reference, contract: ModelContract) -> Iterator[Finding]:
    n, n_varied = require_inputs(reference.inputs, contract), count_varied(reference.inputs)
    outputs = {contract.output.name: reference.output, **reference.more}
    wrong = {f"{n_varied} different clusters, expected {N_VARIED} or more": n_varied < N_VARIED}
    for name, output in outputs.items():
        finite = len(output) == n and bool(np.isfinite(output).all())
        wrong[f"output {name} is not finite or not one a cluster"] = not finite
        wrong[f"output {name} is the same for all"] = finite and not np.ptp(output, axis=0).any()
    yield _judged("reference", wrong, f"{n_varied} different clusters")


def _parity(session: Any, reference: Reference, contract: ModelContract) -> Iterator[Sign]:
    """The file on its reference clusters."""
    n = len(reference.output)
    outputs = [(contract.output.name, reference.output), *reference.more.items()]
    problems, worst = [], 0.0
    said = yield from _at_batches(session, reference.inputs, "reference clusters")
    for batch, of_batch in said.items():
        for number, ((name, wanted), got) in enumerate(zip(outputs, of_batch, strict=True)):
            result = compare(got, wanted[np.arange(len(got)) % n], batch, name)
            problems += [f"{name}: {text}" for text in batch_problems(result, TOLERANCE)]
            worst = max(worst, result.max_abs)
            if number == 0:
                yield result
    yield _judged(
        "reference outputs",
        dict.fromkeys(problems, True),
        f"agree within {worst:.1e} at batch sizes {', '.join(map(str, said))}",
    )
    if len(said) < len(BATCHES):
        left = ", ".join(str(batch) for batch in BATCHES if batch not in said)
        yield Finding("large batches", OPEN, f"{left} clusters at once would take too long")


def _fresh(session: Any, reference: Reference) -> Iterator[Sign]:
    """The file where nobody told what it gives."""
    inputs = fresh_inputs(reference.inputs, np.random.default_rng(1))
    said = yield from _at_batches(session, inputs, "fresh inputs")
    first = said.pop(BATCHES[0])
    wrong = {"some answers are not finite": not all(np.isfinite(x).all() for x in first)}
    for batch, of_batch in said.items():
        apart = max(
            difference(one[: len(other)], other) for one, other in zip(of_batch, first, strict=True)
        )
        wrong[f"batch {batch} differs by {apart:.1e} from single clusters"] = apart > TOLERANCE
    yield _judged("fresh inputs", wrong, f"{N_FRESH} drawn within the ranges of the reference")
    some = {name: array[:PIECE] for name, array in reference.inputs.items()}
    wrong = {}
    for factor, value in FACTORS.items():
        with np.errstate(over="ignore"):
            scaled = {name: array * np.float32(value) for name, array in some.items()}
        got = yield from _run(session, scaled, PIECE, f"inputs times {factor}")
        wrong[f"not finite at inputs times {factor}"] = not all(np.isfinite(x).all() for x in got)
    yield _judged("beyond the reference", wrong, f"finite at inputs times {', '.join(FACTORS)}")
    told = []
    for text, value in HOSTILE.items():
        filled = {name: np.full_like(array, value) for name, array in some.items()}
        try:
            got = yield from _run(session, filled, PIECE, f"inputs of {text}")
            finite = all(np.isfinite(x).all() for x in got)
            told.append(f"{text}: {'finite' if finite else 'not finite'}")
        except ValidationError:
            told.append(f"{text}: refused")
    yield Finding("hostile inputs", PASSED, f"answered; {', '.join(told)}")


def _at_batches(
    session: Any, inputs: Arrays, doing: str
) -> Generator[Sign, None, dict[int, list[NDArray[np.float32]]]]:
    """All outputs by batch size, of inputs that are repeated where a batch is larger than they
    are; sizes at which one call would take long are left out.
    """
    n, said = len(next(iter(inputs.values()))), {}
    start = time.perf_counter()
    said[1] = yield from _run(session, inputs, 1, doing)
    cluster_seconds = (time.perf_counter() - start) / n
    for batch in BATCHES[1:]:
        if batch * cluster_seconds < STEP_SECONDS / 2:
            places = np.arange(n * math.ceil(batch / n)) % n
            repeated = {name: array[places] for name, array in inputs.items()}
            said[batch] = yield from _run(session, repeated, batch, doing)
    return said


def _run(session: Any, inputs: Arrays, batch: int, doing: str) -> Run:
    """All outputs, with signs of life."""
    parts = []
    step = max(batch, PIECE // batch * batch)
    for start in range(0, len(next(iter(inputs.values()))), step):
        yield f"{doing}, batch {batch}, from cluster {start}"
        piece = {name: array[start : start + step] for name, array in inputs.items()}
        parts.append(run_all_in_batches(session, piece, batch))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def count_varied(inputs: Arrays) -> int:
    """Number of different clusters."""
    rows = zip(*inputs.values(), strict=True)
    return len({b"".join(part.tobytes() for part in row) for row in rows})


def fresh_inputs(
    inputs: Arrays, rng: np.random.Generator, n: int = N_FRESH
) -> dict[str, NDArray[np.float32]]:
    """New inputs within the ranges of others. Half of them take each number, or each line of
    numbers such as a point, from one of two of these, so that what is mostly zero stays so. Half
    are drawn flat between the smallest and the largest value of each number, but for what is whole
    in all of them: flags are no flags in between.
    """
    chosen = rng.integers(len(next(iter(inputs.values()))), size=(2, n))
    flat = np.arange(n) >= n - n // 2
    made = {}
    for name, array in inputs.items():
        one, two = array[chosen]
        lines = (*one.shape[:-1], 1) if one.ndim > 2 else one.shape
        values = np.where(rng.random(lines) < 0.5, one, two).astype(np.float32)
        low, high = array.min(axis=0), array.max(axis=0)
        between = low + rng.random(values[flat].shape, dtype=np.float32) * (high - low)
        whole = (array == np.round(array)).all(axis=0)
        values[flat] = np.where(whole, values[flat], between)
        made[name] = values
    return made


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest difference, relative beyond one; infinite where only one is finite."""
    if one.shape != other.shape:
        return float("inf")
    both = np.isfinite(one) & np.isfinite(other)
    if (both != (np.isfinite(one) | np.isfinite(other))).any():
        return float("inf")
    a, b = (np.where(both, x, 0.0).astype(np.float64) for x in (one, other))
    return float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max(initial=0.0))


def examine_expected(path: Path, files: Sequence[Path]) -> Iterator[Sign]:
    """The file against what a network gives for the same inputs, outputs in its order."""
    yield "open"
    session = open_session(path)
    names, worst = [node.name for node in session.get_inputs()], 0.0
    problems = {}
    for file in files:
        arrays = read_arrays(file)
        inputs = {name: arrays.pop(f"{INPUT_KEY}{name}") for name in names}
        said = yield from _at_batches(session, inputs, "inputs with Keras outputs")
        for batch, of_batch in said.items():
            for (key, wanted), got in zip(arrays.items(), of_batch, strict=True):
                apart = difference(got[: len(wanted)], wanted)
                worst = max(worst, apart)
                problems[f"{key}, batch {batch}: differs by {apart:.1e}"] = apart > TOLERANCE
    yield _judged(
        "fresh inputs against Keras",
        problems,
        f"agree within {worst:.1e} at batch sizes {', '.join(map(str, said))}",
    )


def _judged(subject: str, wrong: Mapping[str, bool], told: str) -> Finding:
    found = [text for text, is_wrong in wrong.items() if is_wrong]
    return Finding(subject, FAILED if found else PASSED, "; ".join(found) or told)


def main(arguments: Sequence[str]) -> None:
    """The process: one line of JSON a sign, the last one empty or with what is wrong."""
    # ONNX Runtime writes to the standard output too
    with os.fdopen(os.dup(1), "w") as lines, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        _examine_within(arguments, lines)


def _examine_within(arguments: Sequence[str], lines: TextIO) -> None:
    """Examine within limits of memory."""
    path, *files = map(Path, arguments[:-1])
    options = json.loads(arguments[-1])
    size = path.stat().st_size if path.is_file() else 0
    memory = options["memory"] + 6 * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signs = examine_expected(path, files) if files else examine(path, own=options["own"])
    end: dict[str, Any] = {"end": True}
    try:
        for sign in signs:
            match sign:
                case str():
                    line: dict[str, Any] = {"doing": sign}
                case Finding():
                    line = {"finding": sign}
                case BatchParity():
                    line = {"batch": vars(sign)}
            print(json.dumps(line), file=lines, flush=True)
    except ValidationError as error:
        end["problem"] = " ".join(str(error).split())
    except MemoryError:
        end["problem"] = f"more than {memory / 2**30:.1f} GiB of memory"
    except Exception as error:  # a broken file provokes whatever it can
        end["problem"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(json.dumps(end), file=lines, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
