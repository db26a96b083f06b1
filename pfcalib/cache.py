"""What is kept between runs: one folder, keys of content and settings, one lock, and files that are
complete or not there.

A key holds the settings, the content of the inputs (`samples.rootfile.content_id`) and an integer
version of each stage that decides on the result, never a file's name, size or source code: moving a
module or mending a comment throws nothing away. Whoever changes what a stage computes raises its
number here; ``tests/test_stages.py`` computes each stage on a small input, compares it with what
the number stands for, and says so when it is forgotten.

What is being written has a hidden name, ``.<name>.<machine>-<process>-<random>.new``, until it is
complete. What a process that is gone has left so is removed by the next one that writes into the
same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import filelock
import platformdirs

from pfcalib.errors import StorageError

log = logging.getLogger(__name__)

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
    "topevents": 1,  # pairs of top quarks, alone and with a Higgs boson
    "jet_calibration": 1,  # jets with what their calibration may know of them
    "boosted": 1,  # large jets of heavy particles, groomed
    "particlejets": 1,  # jets of particles, their Lund trees and shapes
    "tagging": 1,  # jets with tracks
    "barrelhits": 1,  # hits of helices in a barrel
    "forwardhits": 1,  # hits of straight lines in planes
    "beamline": 1,  # collisions on a beam line and their tracks
    "digits": 1,  # charge on the pads of a time projection chamber
    "regions": 1,  # collisions in the towers of a trigger, crossings of them
    "segments": 1,  # hits of long-lived particles too, candidates of five hits
    "fastsim": 1,  # showers as voxels
    "detectors": 1,  # differences of Cherenkov light, fibres, images of photons
    "twobody": 1,  # pairs of tracks of forward collisions
}
VARIABLE = "PFCALIB_CACHE"
LEFT_SECONDS = 7 * 86400.0  # after which what another machine began to write counts as left
SAY_SECONDS = 5.0  # of waiting for another process before it is told
# what a full or forbidden disk answers, and what to do
_MENDS = {
    errno.ENOSPC: "free some",
    errno.EDQUOT: "free some",
    errno.EFBIG: "the limit on the size of files is too low",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that can be written",
    errno.EPERM: "choose a folder that can be written",
}
_BEGUN = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-\w+\.(?:new|old)(?:\.\w+)?", re.DOTALL)
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

    Raises
    ------
    StorageError
        If the disk is full or must not be written.
    """
    path = Path(path)
    with _told(path):
        handle, name = tempfile.mkstemp(
            prefix=_begun(path.stem), suffix=f".new{path.suffix}", dir=_cleaned(path.parent)
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
    ends; removed if the block raises. Raises as `new_file` does.
    """
    path = Path(path)
    with scratch_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        old = temporary.with_suffix(".old")
        try:
            while temporary.exists():
                with contextlib.suppress(FileNotFoundError):
                    path.rename(old)
                try:
                    temporary.rename(path)
                except OSError as error:  # another process has put its own there meanwhile
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path`, on the same disk, that is removed when the block ends.
    Raises as `new_file` does.
    """
    path = Path(path)
    with _told(path):
        name = tempfile.mkdtemp(prefix=_begun(path.name), suffix=".new", dir=_cleaned(path.parent))
        try:
            yield Path(name)
        finally:
            shutil.rmtree(name, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def locked(path: str | os.PathLike[str]) -> filelock.BaseFileLock:
    """A context that one process at a time enters, others wait, and say so; it is given back also
    if the process dies.

    The lock is the file ``.<name>.lock`` beside `path`, whose folder is made. Nobody waits where
    `path` is there and its folder cannot be written. Entering raises as `new_file` does.
    """
    return _TellingLock(Path(path))


@contextlib.contextmanager
def one_maker(path: str | os.PathLike[str]) -> Iterator[None]:
    """As `locked`, for a block that makes `path` only if it is not there: nobody waits, nor needs
    to write, where it is.

    It changes no result, so `provenance.code_digests` sees only the block.
    """
    with contextlib.nullcontext() if Path(path).exists() else locked(path):
        yield


def describe_storage_error(error: OSError, path: object = None) -> str:
    """What a full or forbidden disk said, the file, and what to do, in one line; empty for any
    other error.
    """
    # h5py tells the number in words only
    told = re.search(r"errno = (\d+)", str(error))
    number = error.errno if error.errno is not None else int(told[1]) if told else 0
    if number not in _MENDS:
        return ""
    named = error.filename and not _BEGUN.fullmatch(Path(error.filename).name)
    place = error.filename if named else path
    advice = f"{_MENDS[number]}, or set {VARIABLE} to another folder if it is the cache"
    return f"{f'{place}: ' if place else ''}{os.strerror(number)}; {advice}"


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


class _TellingLock(filelock.FileLock):
    """A lock that says for what it waits, and that a folder need not be writable if what it guards
    is there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.with_name(f".{path.name}.lock"))
        self.path = path

    def __enter__(self) -> Self:
        try:
            with _told(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._wait()
        except StorageError:
            if not self.path.exists():
                raise
        return self

    def _wait(self) -> None:
        try:
            self.acquire(timeout=SAY_SECONDS)
        except filelock.Timeout:
            log.warning("%s: waiting for another process that works on it", self.path)
            self.acquire()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Make one line of what a full or forbidden disk says."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if text := describe_storage_error(error, path):
            raise StorageError(error.errno or errno.EIO, text) from error
        raise


def _begun(name: str) -> str:
    """Start of the name of what this process writes."""
    return f".{name}.{_machine()}-{os.getpid()}-"


@functools.cache
def _machine() -> str:
    """Eight hexadecimal digits of what gives processes their numbers."""
    with contextlib.suppress(OSError):
        space = Path("/proc/self/ns/pid").stat().st_ino
        return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _cleaned(folder: Path) -> Path:
    """A folder, made if need be, without what processes that are gone have begun to write there."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(folder):
        found = _BEGUN.fullmatch(entry.name)
        if found is None or _is_alive(found[1], int(found[2]), entry):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
    return folder


def _is_alive(machine: str, number: int, entry: os.DirEntry[str]) -> bool:
    """Whether the process that began to write an entry may still be at it."""
    try:
        if machine != _machine():
            return time.time() - entry.stat(follow_symlinks=False).st_mtime < LEFT_SECONDS
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of somebody else, or the entry is gone
        return True
    return True
