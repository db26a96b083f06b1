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
# what shows results without making them
SHOWS = ("pfcalib.cli", "pfcalib.provenance", "pfcalib.reporting")


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
    """What a notebook's results follow from: a digest of the statements of its own cells and of
    each module of ``pfcalib`` and ``studies`` that it imports, directly or through others.

    Comments, docstrings and layout change no digest. Modules that only show results are left out.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    waiting = {"notebook": re.sub(r"^[%!].*", "", "\n".join(sources), flags=re.MULTILINE)}
    digests: dict[str, str] = {}
    while waiting:
        name, source = waiting.popitem()
        digests[name], modules = _look_at(source)
        for module in modules - digests.keys():
            path = Path(*module.split(".")).with_suffix(".py")
            for folder in (Path(__file__).parents[1], notebook.parent):
                if not module.startswith(SHOWS) and (folder / path).is_file():
                    waiting[module] = (folder / path).read_text(encoding="utf-8")
    return dict(sorted(digests.items()))


@functools.cache
def _look_at(source: str) -> tuple[str, frozenset[str]]:
    """Start of the SHA-256 of the statements without docstrings, and the modules of the package and
    of studies that are imported, or named in a text of their own, as processes to be started are.
    """
    tree, names = ast.parse(source), set()
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
            case ast.Constant(value=str(text)):
                names.add(text)
    ours = frozenset(name for name in names if re.fullmatch(r"(pfcalib|studies)(\.\w+)+", name))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12], ours


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
