"""Where samples lie: files, patterns, lists of files, and what fsspec or XRootD serve."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec

from pfcalib.errors import BadFileError

PathLike = str | os.PathLike[str]
LOCAL = ("file", "local")  # protocols of files of this machine
XROOTD = ("root", "roots", "xroot")  # those of the extra


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[Path | str]:
    """Files and URLs that one or several names stand for, in the order given; those of one pattern
    are sorted. A file that is named twice counts once, with a warning.

    Parameters
    ----------
    paths : path-like or sequence of them
        Each may be a file; a pattern such as ``data/run*/*.root`` (``**`` for any depth; folders
        among the matches are left out); a URL that fsspec or XRootD serve, where ``*`` makes a
        pattern too; or ``@list.txt``, a text file with one of these a line, in which ``#`` opens a
        comment and names are relative to the folder of the list. A file is not opened here and may
        turn out not to exist.

    Raises
    ------
    BadFileError
        If nothing was given, a pattern or list yields nothing, a list names a list, a name is a
        directory, or a URL cannot be searched.

    >>> as_paths(["b.root", "https://example.org/a.root"])
    [PosixPath('b.root'), 'https://example.org/a.root']
    """
    names = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not names:
        raise BadFileError("no sample file was given")
    once: dict[object, Path | str] = {}
    for name in names:
        in_list = isinstance(name, str) and name.startswith("@")
        for place in _listed(str(name)[1:]) if in_list else _places(name):
            first = once.setdefault(_file_of(place), place)
            if first is not place:
                same = "" if str(first) == str(place) else f", also as {first}"
                warnings.warn(f"{place} was given twice{same}: it is counted once", stacklevel=2)
    return list(once.values())


def _file_of(place: Path | str) -> object:
    """What is equal for two names of one file, links included."""
    if isinstance(place, str):
        return place
    try:
        status = place.stat()
    except OSError:
        return place.absolute()
    return status.st_dev, status.st_ino


def is_url(path: PathLike) -> bool:
    """True for what fsspec or XRootD serve.

    >>> is_url("https://example.org/file.root"), is_url("file.root")
    (True, False)
    """
    return isinstance(path, str) and "://" in path


def require_served(url: str) -> None:
    """Raise a BadFileError that says why, where a URL cannot be read: no such file, no answer, no
    permission, a missing package, a directory.
    """
    with _asking(url):
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()  # what a server had when it was asked last does not count
        info = filesystem.info(path)
    if info.get("type") == "directory":
        raise BadFileError(f"{url}: is a directory, not a file")
    if info.get("size") == 0:
        raise BadFileError(f"{url}: the file is empty (0 bytes)")


@contextlib.contextmanager
def seekable(path: PathLike) -> Iterator[Path | str]:
    """A path or URL of which any part can be read: what was given or, from a server that sends
    files only whole, a temporary copy.

    Raises
    ------
    BadFileError
        If a URL cannot be read.
    """
    if not is_url(path) or not str(path).startswith(("http://", "https://")):
        yield path if isinstance(path, str) and is_url(path) else Path(path)
        return
    url, in_parts = str(path), False
    with _asking(url):
        filesystem, place = fsspec.core.url_to_fs(url)
        with filesystem.open(place, "rb", block_size=64) as file, contextlib.suppress(ValueError):
            file.seek(1)
            file.read(1)  # fsspec refuses this where the server does not heed Range
            in_parts = True
    if in_parts:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="pfcalib-") as folder:
        copy = Path(folder) / "copy"
        with (
            _asking(url),
            filesystem.open(place, "rb", block_size=0) as source,
            copy.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        yield copy


@contextlib.contextmanager
def open_binary(path: PathLike) -> Iterator[Any]:
    """A file or URL as a binary file in which one can seek; errors as in `seekable`, and OSError
    for a local file.
    """
    with seekable(path) as place, contextlib.ExitStack() as stack:
        if is_url(str(place)):
            with _asking(str(path)):
                file = stack.enter_context(fsspec.open(str(place), "rb"))
        else:
            file = stack.enter_context(Path(place).open("rb"))
        yield file


def _listed(name: str) -> list[Path | str]:
    """What the lines of a list stand for."""
    file = Path(name).expanduser()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{file}: the list of files cannot be read ({error})") from error
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise BadFileError(f"{file}: the list names no file")
    if any(line.startswith("@") for line in names):
        raise BadFileError(f"{file}: a list of files cannot name another list")
    return [
        place
        for line in names
        for place in _places(line if is_url(line) else file.parent / Path(line).expanduser())
    ]


def _places(name: PathLike) -> list[Path | str]:
    if isinstance(name, str) and is_url(name):
        if name.partition("://")[0] not in LOCAL:
            return _served(name) if "*" in name else [name]
        name = fsspec.core.url_to_fs(name)[1]
    path = Path(name).expanduser()
    if path.is_dir():
        raise BadFileError(
            f"{path}: is a directory, not a file; all ROOT files in it are {path / '*.root'}"
        )
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (the pattern may be absolute)
    found: list[Path | str] = [Path(match) for match in matches if not Path(match).is_dir()]
    if not found:
        raise BadFileError(f"{path}: no file matches this pattern")
    return found


def _served(pattern: str) -> list[Path | str]:
    with _asking(pattern):
        filesystem, path = fsspec.core.url_to_fs(pattern)
        filesystem.invalidate_cache()
        found = sorted(
            filesystem.unstrip_protocol(match)
            for match, info in filesystem.glob(path, detail=True).items()
            if info["type"] != "directory"
        )
    if not found:
        raise BadFileError(f"{pattern}: no file matches this pattern")
    return list(found)


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    """Say in a BadFileError why a URL cannot be read."""
    try:
        yield
    except BadFileError:
        raise
    except Exception as error:
        raise BadFileError(f"{url}: {_reason(url, error)}") from error


def _reason(url: str, error: Exception) -> str:
    protocol = url.partition("://")[0]
    # fsspec says so whatever the server answers
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return _reason(url, error.__cause__)
    if isinstance(error, ImportError):
        return (
            "needs pfcalib's extra [xrootd] (fsspec-xrootd and XRootD)"
            if protocol in XROOTD
            else f"needs a package that is not there ({error})"
        )
    text = " ".join(str(error).split()) or type(error).__name__
    status = getattr(error, "status", None)
    absent = isinstance(error, FileNotFoundError) or status == 404
    answer = f"the server answers {status} {getattr(error, 'message', '')}".rstrip()
    for holds, reason in (
        (absent or (protocol in XROOTD and "no such file" in text), "no such file on the server"),
        (isinstance(error, PermissionError), "the server does not give permission"),
        (isinstance(error, TimeoutError), "the server does not answer in time"),
        (isinstance(status, int), answer),
    ):
        if holds:
            return reason
    return f"cannot be opened ({text})"
