"""Where a number comes from: commit, code, versions, machine, and the hashes of the files that
went in.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    *("pfcalib", "numpy", "scipy", "numba", "awkward", "uproot", "scikit-learn"),
    *("keras", "tensorflow", "onnx", "onnxruntime", "tf2onnx", "matplotlib", "papermill"),
)
# what shows or keeps results without making them
SHOWS = ("pfcalib.cli", "pfcalib.provenance", "pfcalib.reporting", "pfcalib.cache")
# what proves that the file of a network computes what the network does, or nothing is written: what
# it uses counts, not itself
PROVES = tuple(
    f"pfcalib.deploy.{name}"
    for name in ("contract", "examination", "export", "graphfile", "native", "validator")
)
_OURS = re.compile(r"(pfcalib|studies)(\.\w+)+")
_ALL = "*"  # every name of a module
Wanted = tuple[str, str]  # a module and a name in it


class Commit(NamedTuple):
    """State of the code that runs."""

    commit: str  # full hash, or "unknown" outside a git clone
    dirty: bool  # True if any tracked or new file outside reports/ differs from the commit


def commit(folder: Path | None = None) -> Commit:
    """Commit of the clone that holds ``folder`` (default: this package)."""
    folder = folder or Path(__file__).resolve().parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        top = Path(_git(folder, "rev-parse", "--show-toplevel"))
        changes = _git(top, "status", "--porcelain", "--", ".", ":(exclude)reports")
    except (OSError, subprocess.CalledProcessError):
        return Commit("unknown", False)
    return Commit(head, bool(changes))


def code_digests(notebook: Path) -> dict[str, str]:
    """What a notebook's results follow from: a digest of the statements of its own cells and, of
    each module of ``pfcalib`` and ``studies``, of the definitions that they use, directly or
    through others.

    Comments, docstrings and layout change no digest, nor does what is not used, nor
    `cache.one_maker` around a block. Modules that only show, keep or prove results are left out.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    text = re.sub(r"^[%!].*", "", "\n".join(sources), flags=re.MULTILINE)
    modules, used = {"notebook": _parse(text)}, {"notebook": set(range(len(_parse(text).parts)))}
    waiting = [want for part in modules["notebook"].parts for want in part.wants]
    waiting += modules["notebook"].imports.values()
    seen, files = set(waiting), _files(notebook.parent)
    while waiting:
        module, name = waiting.pop()
        inner = f"{module}.{name}"
        if name != _ALL and (path := files.get(inner)):
            module, name = inner, _ALL
        elif not (path := files.get(module)):
            continue
        if module not in modules:
            modules[module], used[module] = _parse(path.read_text(encoding="utf-8")), set()
        parsed = modules[module]
        for number in parsed.needed(name) - used[module]:
            used[module].add(number)
            part = parsed.parts[number]
            found = {*part.wants, *((module, each) for each in part.names & parsed.known)}
            waiting += found - seen
            seen |= found
        if name in parsed.imports and (want := parsed.imports[name]) not in seen:
            waiting.append(want)
            seen.add(want)
    return {
        module: hashlib.sha256(
            "".join(modules[module].parts[k].text for k in sorted(numbers)).encode()
        ).hexdigest()[:12]
        for module, numbers in sorted(used.items())
        if module not in PROVES
    }


class _Unguarded(ast.NodeTransformer):
    """Leaves of ``with one_maker(...)`` the block, as what keeps two processes apart changes no
    result.
    """

    def visit_With(self, node: ast.With) -> ast.With | list[ast.stmt]:
        self.generic_visit(node)
        match node.items:
            case [ast.withitem(context_expr=ast.Call(func=ast.Name(id="one_maker")))]:
                return node.body
        return node


class _Part(NamedTuple):
    """A statement of a module that is no import."""

    defines: frozenset[str]  # empty where it does something else
    text: str  # without docstrings, comments and layout
    names: frozenset[str]  # that it uses
    # what it imports itself, or names in a text of its own, as processes to be started are
    wants: frozenset[Wanted]


class _Module(NamedTuple):
    parts: tuple[_Part, ...]
    imports: dict[str, Wanted]  # by the name that they have in the module
    known: frozenset[str]  # names that are defined or imported

    def needed(self, name: str) -> set[int]:
        """Statements that define a name, or all where none does, and those that define nothing."""
        return {
            number
            for number, part in enumerate(self.parts)
            if not part.defines or name in part.defines or name not in self.known
        }


def _files(studies: Path) -> dict[str, Path]:
    """Files of the package and of studies by module; what only shows is left out."""
    found = {}
    for folder in (studies, Path(__file__).parents[1]):
        for room in ("pfcalib", "studies"):
            for path in (folder / room).rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {
        name: path
        for name, path in found.items()
        if _OURS.fullmatch(name) and not name.startswith(SHOWS)
    }


@functools.cache
def _parse(source: str) -> _Module:
    parts: list[_Part] = []
    imports: dict[str, Wanted] = {}
    for statement in _Unguarded().visit(ast.parse(source)).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports |= _imports(statement)
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            parts.append(_part(statement))
    known = frozenset().union(imports, *(part.defines for part in parts))
    return _Module(tuple(parts), imports, known)


def _part(statement: ast.stmt) -> _Part:
    defines: set[str] = set()
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            defines = {name}
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            within = [node for target in targets for node in ast.walk(target)]
            if all(isinstance(node, ast.Name | ast.Tuple | ast.expr_context) for node in within):
                defines = {node.id for node in within if isinstance(node, ast.Name)}
    names: set[str] = set()
    wants: set[Wanted] = set()
    for node in ast.walk(statement):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
            case ast.Import() | ast.ImportFrom():
                wants |= set(_imports(node).values())
            case ast.Name(id=name):
                names.add(name)
            case ast.Constant(value=str(text)) if _OURS.fullmatch(text):
                wants.add((text, _ALL))
    return _Part(frozenset(defines), ast.dump(statement), frozenset(names), frozenset(wants))


def _imports(statement: ast.Import | ast.ImportFrom) -> dict[str, Wanted]:
    """What is imported, by the name that it gets."""
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name: (alias.name, _ALL) for alias in statement.names}
    module = statement.module or ""
    return {alias.asname or alias.name: (module, alias.name) for alias in statement.names}


def versions() -> dict[str, str]:
    """Python and the versions of the installed packages that shape results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GB, and operating system; nothing that
    names a person or host.
    """
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float | None:
    """Physical memory, 1 GB = 1e9 bytes; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
