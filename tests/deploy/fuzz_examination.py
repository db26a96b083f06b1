"""Changes an exported network by chance, again and again, seals it anew as somebody does who knows
how, and looks at what the examination says: `python tests/deploy/fuzz_examination.py MODEL.onnx
CASES SEED`, some ten a second.

Each case runs in a process of its own. One line of JSON counts what came of them: ``found``, a
problem in one line; ``sound``, still the same function; ``runtime``, ONNX Runtime crashed, which
`examine_apart` tells in one line; and what must not be: ``believed``, another function that passes,
``traceback``, ``crash``, ``hang``.
"""

from __future__ import annotations

import collections
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import onnx

from pfcalib.cache import file_sha256
from pfcalib.deploy.contract import (
    ModelContract,
    contract_path,
    read_contract,
    read_reference,
    reference_path,
    seal,
)
from pfcalib.deploy.examination import FAILED, Finding, difference, examine, fresh_inputs
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import ValidationError

FAR = 1e-3  # two functions that differ by more are not the same
SECONDS, MEMORY = 20, 3 * 2**30  # of a case
CODES = ("found", "sound", "believed", "traceback")
OPERATORS = ("Add", "Sub", "Mul", "Relu", "Softmax", "MatMul", "Tanh", "Exp", "Loop", "Cast")
Files = dict[str, bytes]


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, cut off, doubled or put in."""
    array = bytearray(content)
    place = int(rng.integers(len(array)))
    match rng.integers(4):
        case 0:
            for i in rng.integers(len(array), size=rng.integers(1, 9)):
                array[i] ^= 1 << int(rng.integers(8))
        case 1:
            del array[place:]
        case 2:
            array[place:place] = array[place : place + 64]
        case _:
            array[place:place] = rng.bytes(int(rng.integers(1, 64)))
    return bytes(array)


def change_json(content: bytes, rng: np.random.Generator) -> bytes:
    """One field of the contract is something else."""
    fields = json.loads(content)
    values = [None, -1, 2**70, 1e308, "", "a" * 10**5, [], {}, [[]], True, "0" * 64]
    fields[str(rng.choice(list(fields)))] = values[rng.integers(len(values))]
    return json.dumps(fields).encode()


def change_graph(content: bytes, rng: np.random.Generator) -> bytes:
    """A node, an attribute or a weight is another one."""
    proto = onnx.load_model_from_string(content)
    nodes, tensors = proto.graph.node, proto.graph.initializer
    node = nodes[rng.integers(len(nodes))]
    tensor = tensors[rng.integers(len(tensors))]
    match rng.integers(7):
        case 0:
            node.op_type = str(rng.choice(OPERATORS))
        case 1:
            nodes.remove(node)
        case 2:
            node.input[:] = node.input[::-1]
        case 3:
            tensor.dims[:] = [int(n) for n in rng.integers(-2, 2**40, size=rng.integers(4))]
        case 4:
            tensor.data_type = int(rng.integers(24))
        case 5:
            tensor.raw_data = change_bytes(tensor.raw_data, rng)
        case _:
            for attribute in node.attribute:
                attribute.i = int(rng.integers(-(2**40), 2**40))
    return proto.SerializeToString()


def changed(files: Files, rng: np.random.Generator) -> Files:
    """One of the files is another one."""
    name = str(rng.choice([n for n in files for _ in range(3 if n.endswith(".onnx") else 1)]))
    ways = [change_bytes]
    if name.endswith(".json"):
        ways.append(change_json)
    if name.endswith(".onnx"):
        ways += [change_graph] * 3
    return files | {name: ways[rng.integers(len(ways))](files[name], rng)}


def renew(path: Path) -> None:
    """Checksums and seal, where the contract can still be read."""
    try:
        contract = read_contract(path).model_dump(mode="json")
        contract["sha256"] = file_sha256(path)
        contract["reference_sha256"] = file_sha256(reference_path(path))
        sealed = seal(ModelContract.model_validate(contract))
        contract_path(path).write_text(sealed.model_dump_json())
    except (ValidationError, ValueError):
        pass


def judge(path: Path, first: Path) -> str:
    """What the examination makes of a case."""
    try:
        for sign in examine(path):
            if isinstance(sign, Finding) and sign.verdict == FAILED:
                return "found"
    except ValidationError:
        return "found"
    reference = read_reference(first, read_contract(first))
    inputs = fresh_inputs(reference.inputs, np.random.default_rng(3))
    answers = [run_in_batches(open_session(p), inputs, 100) for p in (path, first)]
    return "believed" if difference(*answers) > FAR else "sound"


def outcome(path: Path, first: Path) -> str:
    """`judge` in a process of its own."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        code = "traceback"
        try:
            code = judge(path, first)
        except MemoryError:
            code = "found"
        except BaseException:
            traceback.print_exc()
        os._exit(CODES.index(code))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "hang" if os.WTERMSIG(status) == signal.SIGALRM else "runtime"
    code = os.WEXITSTATUS(status)
    return CODES[code] if code < len(CODES) else "crash"


def main(first: Path, n_cases: int, seed: int) -> None:
    files = {p.name: p.read_bytes() for p in (first, contract_path(first), reference_path(first))}
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / first.name
        for case in range(n_cases):
            rng = np.random.default_rng([seed, case])
            for name, content in changed(files, rng).items():
                (Path(folder) / name).write_bytes(content)
            renew(path)
            what = outcome(path, first)
            if what not in ("found", "sound"):
                print(f"case {seed}, {case}: {what}", file=sys.stderr)
            counts[what] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
