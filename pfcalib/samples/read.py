"""Read samples of any known layout: whole, in part or chunk by chunk; what is wrong with a file is
raised, or skipped and reported.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.samples.faults import (
    BadEntriesError,
    Fault,
    FaultLog,
    drop_unsound,
    require_aligned,
    require_gev,
    require_sound,
)
from pfcalib.samples.layouts.protocol import ENTRY, Reader
from pfcalib.samples.layouts.recognise import OWN_UNIT, Unit, open_reader
from pfcalib.samples.locate import as_paths
from pfcalib.samples.rootfile import (
    Identity,
    PathLike,
    get_tree,
    identity,
    open_sample,
    read_geo,
    read_metadata,
)
from pfcalib.samples.schema import Sample, concatenate

__all__ = [
    "STEP",
    "OnError",
    "PathLike",
    "as_paths",
    "get_tree",
    "iterate_sample",
    "open_sample",
    "read_geo",
    "read_metadata",
    "read_sample",
]
SAMPLE = "sampleNumber"
STEP = 20_000  # entries in memory at once
OnError = Literal["raise", "skip"]


def read_sample(
    paths: PathLike | Sequence[PathLike],
    *,
    columns: Sequence[str] | None = None,
    entry_start: int = 0,
    entry_stop: int | None = None,
    on_error: OnError = "raise",
    faults: FaultLog | None = None,
    binning: PathLike | None = None,
    unit: Unit | None = None,
) -> Sample:
    """Read one or several files of any known layout into memory; several get the column
    sampleNumber, the place of the file, as an event is (sampleNumber, eventNumber).

    Parameters
    ----------
    paths : path-like or sequence of them
        Files of the same cells; entries are counted through all of them in the order given.
    columns : sequence of str, optional
        Scalars and jagged columns to read, names as in `pfcalib.columns`; by default all that the
        file has.
    entry_start, entry_stop : int
        Range of entries of the files, half open: clusters, events or showers, as the layout has it.
    on_error : "raise" or "skip"
        Stop at the first fault, or leave out the clusters, entries or files concerned and report
        them.
    faults : FaultLog, optional
        Where "skip" reports; without it there is one warning at the end.
    binning : path-like, optional
        Binning XML of CaloChallenge files; by default the one beside each file, or the published
        one.
    unit : "GeV" or "MeV", optional
        Of the energies of files whose layout leaves it open. Without it energies that look like MeV
        are refused; with it they are believed, and MeV become GeV.

    Raises
    ------
    BadFileError
        If a file cannot be read, is of no known layout, lacks a column that was asked for, has
        jagged branches of different lengths, values that are not finite, truth energies that are
        not positive, negative deposits, cells that are not in CellGeo, energies that look like MeV,
        or was replaced while it was read; with "skip", only if a column is unknown or no file can
        be read at all.
    """
    files, errors = as_paths(paths), []
    parts = list(
        iterate_sample(
            files,
            columns=columns,
            entry_start=entry_start,
            entry_stop=entry_stop,
            on_error=on_error,
            faults=faults,
            binning=binning,
            unit=unit,
        )
    )
    if parts:
        return concatenate(parts)
    for path in files:
        try:
            with open_reader(path, binning=binning, unit=unit) as reader:
                empty = _pick(path, reader, reader.read(0, 0), columns)
                empty.scalars.pop(ENTRY, None)
                return _numbered(empty, columns, files, 0)
        except BadFileError as error:
            if on_error == "raise":
                raise
            errors.append(error)
    raise BadFileError(f"none of the files can be read; the first: {errors[0]}")


def iterate_sample(
    paths: PathLike | Sequence[PathLike],
    *,
    step: int = STEP,
    columns: Sequence[str] | None = None,
    entry_start: int = 0,
    entry_stop: int | None = None,
    on_error: OnError = "raise",
    faults: FaultLog | None = None,
    binning: PathLike | None = None,
    unit: Unit | None = None,
) -> Iterator[Sample]:
    """Read chunk by chunk, at most `step` entries and about as many clusters at once; parameters
    and errors as in `read_sample`.
    """
    unknown = [name for name in columns or () if name not in COLUMNS]
    if unknown:
        raise BadFileError(f"no such columns in pfcalib: {', '.join(unknown)}")
    log, seen, first_sample = FaultLog() if faults is None else faults, 0, 0
    files = as_paths(paths)
    for path in files:
        tree, left, n_samples = "", 0, 1
        try:
            with open_reader(path, binning=binning, unit=unit) as reader:
                version, tree = identity(path), reader.tree
                start = max(entry_start - seen, 0)
                stop = (
                    reader.n_entries
                    if entry_stop is None
                    else min(entry_stop - seen, reader.n_entries)
                )
                seen += reader.n_entries
                at_once = entries_at_once(reader, step)
                for first in range(start, stop, at_once):
                    left = stop - first
                    entries = (first, min(first + at_once, stop))
                    for sample in _read_range(
                        path,
                        reader,
                        entries,
                        columns,
                        version,
                        None if on_error == "raise" else log,
                        believed=unit is not None or reader.layout in OWN_UNIT,
                    ):
                        part = _numbered(sample, columns, files, first_sample)
                        own = part.scalars.get(SAMPLE, np.zeros(0, dtype=np.int32))
                        n_samples = max(n_samples, int(own.max(initial=-1)) + 1 - first_sample)
                        yield part
        except BadFileError as error:
            if on_error == "raise":
                raise
            log.append(
                Fault(
                    str(path),
                    tree,
                    stop - left if left else None,
                    "",
                    str(error).removeprefix(f"{path}: "),
                    left,
                )
            )
        first_sample += n_samples
    if faults is None and len(log):
        warnings.warn(
            f"{len(log)} faults were skipped, with {log.n_lost} clusters or entries; the first: "
            f"{log[0]}",
            stacklevel=2,
        )


def entries_at_once(reader: Reader, step: int) -> int:
    """Entries that hold about `step` clusters; a reader of events may say how many there are in
    one.
    """
    per_entry = getattr(reader, "clusters_per_entry", lambda: 1.0)()
    return max(1, int(step / max(per_entry, 1.0)))


def _read_range(
    path: PathLike,
    reader: Reader,
    entries: tuple[int, int],
    columns: Sequence[str] | None,
    version: Identity | None,
    log: FaultLog | None,
    *,
    believed: bool,
) -> Iterator[Sample]:
    """The sound clusters of some entries."""
    for entry, sample in read_entries(path, reader, entries, columns, version=version, log=log):
        if log is None:
            require_sound(sample, entry, path, reader.tree)
        else:
            sample = drop_unsound(sample, entry, path, reader.tree, log)
        if not believed:
            require_gev(sample, path)
        yield sample


def read_entries(
    path: PathLike,
    reader: Reader,
    entries: tuple[int, int],
    columns: Sequence[str] | None = None,
    *,
    version: Identity | None,
    log: FaultLog | None = None,
) -> Iterator[tuple[NDArray[np.int64], Sample]]:
    """Entry of each cluster and clusters of some entries, whose values are not judged.

    With a log, entries that cannot be read are cut out, by halves where the reader cannot say
    which; without one they raise a BadFileError, as does a file whose identity is no longer
    `version`.
    """
    waiting = [entries]
    while waiting:
        start, stop = waiting.pop()
        try:
            sample = reader.read(start, stop, columns)
            require_aligned(sample, path, reader.tree)
        except BadFileError as error:
            _require_same_file(path, version)
            if log is None:
                raise
            waiting.extend(_salvage(path, reader, (start, stop), columns, error, log))
            continue
        _require_same_file(path, version)
        sample = _pick(path, reader, sample, columns)
        entry = sample.scalars.pop(ENTRY, None)
        yield start + np.arange(len(sample)) if entry is None else entry, sample


def _salvage(
    path: PathLike,
    reader: Reader,
    entries: tuple[int, int],
    columns: Sequence[str] | None,
    error: BadFileError,
    log: FaultLog,
) -> list[tuple[int, int]]:
    """Ranges to try again, the last one first, after some entries could not be read; raises where
    all entries have the same trouble.
    """
    start, stop = entries
    if isinstance(error, BadEntriesError) and start <= error.start < error.stop <= stop:
        log.append(error.fault)
        rest = [(error.stop, stop), (start, error.start)]
        return [(first, last) for first, last in rest if first < last]
    reader.read(start, start, columns)  # raises where it is not the entries that are to blame
    if stop - start > 1:
        middle = (start + stop) // 2
        return [(middle, stop), (start, middle)]
    log.append(Fault(str(path), reader.tree, start, "", str(error).removeprefix(f"{path}: "), 1))
    return []


def _numbered(
    sample: Sample, columns: Sequence[str] | None, files: Sequence[PathLike], first: int
) -> Sample:
    """The sample with its number among several, or the numbers that its file has, from `first`
    on.
    """
    if SAMPLE in columns if columns is not None else len(files) > 1:
        own = sample.scalars.get(SAMPLE, np.zeros(len(sample), dtype=np.int32))
        sample.scalars[SAMPLE] = own + np.int32(first)
    return sample


def _pick(path: PathLike, reader: Reader, sample: Sample, columns: Sequence[str] | None) -> Sample:
    """The columns asked for, and the entry of each cluster."""
    if columns is None:
        return sample
    there = {*sample.scalars, *sample.cells, SAMPLE}  # the last is made
    missing = [name for name in columns if name not in there]
    if missing:
        raise BadFileError(
            f"{path}: {reader.tree} has no branch {', '.join(missing)} (layout {reader.layout})"
        )
    scalars: dict[str, NDArray[Any]] = {
        name: sample.scalars[name] for name in (*columns, ENTRY) if name in sample.scalars
    }
    cells = {name: sample.cells[name] for name in columns if name in sample.cells}
    return Sample(
        scalars,
        sample.offsets if cells else np.zeros(len(sample) + 1, dtype=np.int64),
        cells,
        sample.geo,
        sample.metadata,
    )


def _require_same_file(path: PathLike, version: Identity | None) -> None:
    if identity(path) != version:
        raise BadFileError(f"{path}: the file was replaced or changed while it was read")
