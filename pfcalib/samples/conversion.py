"""Files of any known layout turned into one file of pfcalib's own, chunk by chunk, with a record of
where it comes from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pfcalib.cache import file_sha256
from pfcalib.columns import COLUMNS, JAGGED, SCALARS
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.check import ABSENT
from pfcalib.samples.faults import Fault, FaultLog
from pfcalib.samples.layouts.recognise import Unit, open_reader
from pfcalib.samples.read import SAMPLE, OnError, PathLike, as_paths, iterate_sample
from pfcalib.samples.rootfile import is_url
from pfcalib.samples.schema import GEO_TREE, CellGeo
from pfcalib.samples.write import SampleWriter


class ConvertReport(NamedTuple):
    """What was written, and what was not."""

    path: Path
    layouts: tuple[str, ...]  # of the sources, each once
    n_clusters: int
    absent: tuple[str, ...]  # columns of pfcalib that not all sources have
    skipped: tuple[Fault, ...]


class _Source(NamedTuple):
    path: Path | str
    layout: str
    generator: str
    columns: frozenset[str]
    geo: CellGeo
    metadata: dict[str, Any]
    sha256: str  # empty for an address


def convert_sample(
    paths: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    on_error: OnError = "raise",
    binning: PathLike | None = None,
    unit: Unit | None = None,
    progress: Callable[[int], None] = lambda n_clusters: None,
) -> ConvertReport:
    """Write the clusters of some files, of any known layout, into one file of pfcalib's own.

    The file has the columns that all sources have; nothing is made up for the others. From several
    sources it has sampleNumber too, as an event is (sampleNumber, eventNumber); a source whose
    bytes are those of another counts once, with a warning. It appears under its name when it is
    complete.

    Parameters
    ----------
    paths : path-like or sequence of them
        Sources with the same cells.
    output : path-like
        ROOT file; its metadata name the layout, the sources with their SHA-256, the columns that
        are absent and what was skipped.
    on_error : "raise" or "skip"
        Stop at the first fault, or leave out the clusters, entries or files concerned and report
        them.
    binning : path-like, optional
        Binning XML of CaloChallenge files; by default the one beside each file, or the published
        one.
    unit : "GeV" or "MeV", optional
        As in `read_sample`.
    progress : callable
        Called with the number of clusters of each chunk.

    Raises
    ------
    BadFileError
        If a source cannot be read, has a bad value, or other cells than the first; with "skip",
        only if no cluster is left.
    ConfigError
        If the output is one of the sources.
    """
    target, log = Path(output), FaultLog()
    files = as_paths(paths)
    if any(not isinstance(path, str) and path.resolve() == target.resolve() for path in files):
        raise ConfigError(f"{target}: the output is one of the sources")
    sources = _look_into(files, binning, unit, None if on_error == "raise" else log)
    shared = frozenset.intersection(*(source.columns for source in sources))
    if len(sources) > 1:
        shared |= {SAMPLE}
    columns = [name for name in COLUMNS if name in shared]
    absent = tuple(name for name in (*SCALARS, *JAGGED) if name not in shared)
    with SampleWriter(
        target, sources[0].geo, _describe(sources, absent), columns=columns
    ) as writer:
        for chunk in iterate_sample(
            [source.path for source in sources],
            columns=columns,
            on_error=on_error,
            faults=log,
            binning=binning,
            unit=unit,
        ):
            writer.extend(chunk.scalars, chunk.offsets, chunk.cells)
            progress(len(chunk))
        writer.metadata["skipped"] = [str(fault) for fault in log]
        if not writer.n_clusters:
            raise BadFileError(
                f"{sources[0].path}: no cluster to be "
                f"converted{f'; the first fault: {log[0]}' if len(log) else ''}"
            )
    return ConvertReport(
        target,
        tuple(dict.fromkeys(source.layout for source in sources)),
        writer.n_clusters,
        absent,
        tuple(log),
    )


def _look_into(
    files: Sequence[Path | str],
    binning: PathLike | None,
    unit: Unit | None,
    log: FaultLog | None,
) -> list[_Source]:
    """Layout, columns and cells of each file; with a log, files that cannot be used are left
    out.
    """
    sources: list[_Source] = []
    for path in files:
        try:
            with open_reader(path, binning=binning, unit=unit) as reader:
                none = reader.read(0, 0)
                columns = frozenset(
                    name for name in COLUMNS if name in none.scalars or name in none.cells
                )
                source = _Source(
                    path,
                    reader.layout,
                    str(reader.metadata.get("generator", "")),
                    columns,
                    reader.geo,
                    reader.metadata,
                    "" if is_url(path) else file_sha256(path),
                )
            twin = next((other for other in sources if other.sha256 == source.sha256 != ""), None)
            if twin is not None:
                warnings.warn(
                    f"{path} holds what {twin.path} holds: it is counted once", stacklevel=3
                )
                continue
            if sources and not source.geo.same_as(sources[0].geo):
                raise BadFileError(
                    f"{path}: does not have the cells ({GEO_TREE}) of {sources[0].path}"
                )
            sources.append(source)
        except BadFileError as error:
            if log is None:
                raise
            log.append(Fault(str(path), "", None, "", str(error).removeprefix(f"{path}: "), 0))
    if not sources:
        raise BadFileError(f"none of the files can be read: {', '.join(map(str, files))}")
    return sources


def _describe(sources: Sequence[_Source], absent: Sequence[str]) -> dict[str, Any]:
    layouts, generators = (
        [*dict.fromkeys(filter(None, values))]
        for values in zip(*(source[1:3] for source in sources), strict=True)
    )
    described = [
        {
            "name": str(source.path) if is_url(source.path) else Path(source.path).name,
            **({"sha256": source.sha256} if source.sha256 else {}),
            "metadata": source.metadata,
        }
        for source in sources
    ]
    made = {"generator": ", ".join(generators)} if generators else {}
    return {
        **made,
        "converted_from": ", ".join(layouts),
        "sources": described,
        ABSENT: list(absent),
    }
