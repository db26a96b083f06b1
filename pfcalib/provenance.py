"""Where a number comes from: commit, versions, machine, and the hashes of the files that went
in.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    *("pfcalib", "numpy", "scipy", "numba", "awkward", "uproot", "scikit-learn"),
    *("keras", "tensorflow", "onnx", "onnxruntime", "tf2onnx", "matplotlib", "papermill"),
)


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


def sha256(path: Path | str) -> str:
    """SHA-256 of a file, read in chunks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
