"""A folder of compiled kernels for each state of the sources.

Numba keeps what it compiled, but looks only at the file of a function to see whether it is still right: a change of a function that is called
from another file goes unnoticed, and old physics runs under new sources. So the folder is named after the sources of all folders that hold
kernels.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
_IMPORTS_NUMBA = re.compile(rb"^(from|import) numba\b", re.MULTILINE)


def source_digest(package: Path) -> str:
    """Sixteen hexadecimal digits that change with any Python file of a folder in which some file imports numba."""
    digest = hashlib.sha256()
    for folder in sorted({source.parent for source in package.rglob("*.py") if _IMPORTS_NUMBA.search(source.read_bytes())}):
        for source in sorted(folder.glob("*.py")):
            digest.update(f"{source.relative_to(package)}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def use_kernel_cache() -> None:
    """Point numba to the folder below $PFCALIB_CACHE or ~/.cache/pfcalib, unless the user has set NUMBA_CACHE_DIR."""
    package = Path(__file__).parent
    root = Path(os.environ.get("PFCALIB_CACHE") or Path.home() / ".cache" / "pfcalib")
    os.environ.setdefault(VARIABLE, str(root / "kernels" / source_digest(package)))
