"""A folder of compiled kernels for each state of the sources.

Numba keeps what it compiled, but looks only at the file of a function to see whether it is still right: a change of a function that is called
from another file goes unnoticed, and old physics runs under new sources. So the folder is named after all sources of the package.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def source_digest(package: Path) -> str:
    """Sixteen hexadecimal digits that change with the size or the time of any Python file below a folder."""
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        state = source.stat()
        digest.update(f"{source.relative_to(package)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def use_kernel_cache() -> None:
    """Point numba to the folder below $PFCALIB_CACHE or ~/.cache/pfcalib, unless the user has set NUMBA_CACHE_DIR."""
    package = Path(__file__).parent
    root = Path(os.environ.get("PFCALIB_CACHE") or Path.home() / ".cache" / "pfcalib")
    os.environ.setdefault(VARIABLE, str(root / "kernels" / source_digest(package)))
