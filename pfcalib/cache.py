"""What is kept between runs: one folder, keys of content and settings, one lock, and files that are
complete or not there.

A key holds the settings, the content of the inputs (`samples.rootfile.content_id`) and an integer
version of each stage that decides on the result, never a file's name, size or source code: moving a
module or mending a comment throws nothing away. Whoever changes what a stage computes raises its
number here; ``tests/test_stages.py`` computes each stage on a small input, compares it with what
the number stands for, and says so when it is forgotten.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import platformdirs

VERSIONS = {
    "simulation": 4,  # particles, showers, noise
    "geant4": 1,  # detector, physics and scoring
    "geant4_tables": 1,  # cross sections written from formulas
    "pythia": 2,  # events
    "events": 1,  # collisions, pile-up, tracks
    "clustering": 1,  # clusters, their moments and truth
    "maps": 2,  # arrays of a memory-mapped sample
    "features": 1,  # selection, split, images, moments, targets
    "training": 3,  # networks and how they are trained
    "lcw": 2,  # tables of local cell weighting
    "eoverp": 1,  # tables of E/p
    "particleflow": 1,  # matching, subtraction, objects, jets
    "higgs": 1,  # collisions with two photons, their candidates
}
VARIABLE = "PFCALIB_CACHE"
_IMPORTS_NUMBA = re.compile(rb"^(from|import) numba\b", re.MULTILINE)


def cache_folder() -> Path:
    """Where samples, trained networks and tables are kept: $PFCALIB_CACHE, or the user's folder for
    caches.
    """
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("pfcalib")).absolute()


def cache_key(*stages: str, **settings: Any) -> str:
    """Sixteen hexadecimal digits that change with the version of a stage and with any setting.

    Parameters
    ----------
    stages : str
        Of VERSIONS: all that decide on the result and are not behind a content among the settings.
    settings : JSON values or dataclasses
        All else that it depends on.

    Examples
    --------
    >>> key = cache_key("simulation", seed=1)
    >>> key == cache_key("simulation", seed=1) != cache_key("simulation", seed=2)
    True
    """
    text = json.dumps(
        [{stage: VERSIONS[stage] for stage in stages}, settings], sort_keys=True, default=_plain
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, read in chunks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, with its ending, that takes its place when the block ends;
    removed if the block raises.

    Its folder is made. Two processes may write the same file at once: the later one stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, an older one's too, when the block
    ends; removed if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        old = temporary.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def locked(path: str | os.PathLike[str]) -> filelock.BaseFileLock:
    """A context that one process at a time enters, others wait; it is given back also if the
    process dies.

    The lock is the file ``.<name>.lock`` beside `path`, whose folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_name(f".{path.name}.lock"))


def use_kernel_cache() -> None:
    """Point numba to a folder of the cache named after the sources of all kernels, unless the user
    has set NUMBA_CACHE_DIR.

    Numba itself looks only at the file of a function to see whether what it compiled is still
    right, so that a change of a function that is called from another file goes unnoticed.
    """
    os.environ.setdefault(
        "NUMBA_CACHE_DIR", str(cache_folder() / "kernels" / source_digest(Path(__file__).parent))
    )


def source_digest(package: Path) -> str:
    """Sixteen hexadecimal digits that change with any Python file of a folder in which some file
    imports numba.
    """
    digest = hashlib.sha256()
    sources = sorted(package.rglob("*.py"))
    for folder in sorted(
        {source.parent for source in sources if _IMPORTS_NUMBA.search(source.read_bytes())}
    ):
        for source in sorted(folder.glob("*.py")):
            digest.update(f"{source.relative_to(package)}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a key is made of JSON values and dataclasses, not of {value!r}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
