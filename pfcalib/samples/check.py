"""What is in a file of any layout, and is it sane: one pass over it at bounded memory, that reports
instead of raising.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.samples.faults import MIN_COUNT, ROUNDING, FaultLog, find_bad_values, find_mev
from pfcalib.samples.layouts.protocol import Reader
from pfcalib.samples.layouts.recognise import OWN_UNIT, Unit, open_reader
from pfcalib.samples.read import PathLike, entries_at_once, read_entries
from pfcalib.samples.rootfile import identity
from pfcalib.samples.schema import Sample

STEP = 20_000  # entries in memory at once
ABSENT = "absent"  # metadata: columns that the source of a converted file could not give
SUM_TOLERANCE = 0.01  # of the cluster's energy: makers may drop cells under a few MeV
APART = 50.0  # ratio of energies that belong together, far from any physical one
_ORDERED = (
    ("truthPt", "truthE"),
    ("clusterPt", "clusterE"),
    ("cluster_ENG_CALIB_EM", "cluster_ENG_CALIB_TOT"),
)
_ALIKE = (
    ("clusterE", "truthE"),
    ("cluster_ENG_CALIB_TOT", "clusterE"),
    ("clusterECalib", "clusterE"),
    ("cluster_ENG_POS", "clusterE"),
    ("cluster_sumCellE", "clusterE"),
)
_NATIVE = "pfcalib"  # layout of which all columns are expected
_SUM_DIFFERS = "clusterE unlike the sum of its cells"


class Range(NamedTuple):
    """Values of one column: the extremes and the mean of the finite ones, in the column's unit, and
    how many are not finite.
    """

    low: float
    mean: float
    high: float
    n: int
    n_nan: int
    n_inf: int
    n_bad_clusters: int  # with a value that is not finite or out of range

    def joined(self, other: Range) -> Range:
        """Range of two chunks together."""
        n = [each.n - each.n_nan - each.n_inf for each in (self, other)]
        total = float(np.nansum([self.mean * n[0], other.mean * n[1]]))
        low, high = float(np.fmin(self.low, other.low)), float(np.fmax(self.high, other.high))
        counts = (a + b for a, b in zip(self[3:], other[3:], strict=True))
        return Range(low, total / sum(n) if sum(n) else np.nan, high, *counts)


@dataclasses.dataclass(frozen=True)
class SampleReport:
    """What one file holds, and what is wrong with it; `problems` is empty for a sound file."""

    path: Path | str
    layout: str
    unit: str  # what an entry is
    n_entries: int
    n_clusters: int
    n_events: int
    n_cells: int  # of all clusters together
    n_em: int | None  # clusters of pi0, photons and electrons; None where the particle is not known
    found: tuple[str, ...]  # branches of the layout that the file has
    missing: tuple[str, ...]  # and those that it lacks
    ranges: dict[str, Range]  # by column, scalars and cells
    n_geo: int  # cells in CellGeo
    metadata: dict[str, Any]
    problems: tuple[str, ...]
    notes: tuple[str, ...]  # what is worth knowing but no fault

    @property
    def passed(self) -> bool:
        return not self.problems


def check_sample(
    path: PathLike,
    *,
    step: int = STEP,
    binning: PathLike | None = None,
    unit: Unit | None = None,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[Sample], None] | None = None,
) -> SampleReport:
    """Read a file of any known layout chunk by chunk and report branches, ranges, and values and
    entries that are bad.

    Parameters
    ----------
    path : path-like
        A file, or an address that fsspec or XRootD serve.
    step : int
        Entries, and about as many clusters, in memory at once.
    binning : path-like, optional
        Binning XML of a CaloChallenge file; by default the one beside it, or the published one.
    unit : "GeV" or "MeV", optional
        Of the energies of a file whose layout leaves it open.
    progress : callable, optional
        Called with the number of entries of each chunk.
    observe : callable, optional
        Called with each chunk, bad values included, such as `SampleHistograms.fill`.

    Raises
    ------
    BadFileError
        If the file cannot be read at all: missing, of no known layout, or damaged outside the
        entries.
    """
    log = FaultLog()
    with open_reader(path, binning=binning, unit=unit) as reader:
        believed = unit is not None or reader.layout in OWN_UNIT
        version, tally = identity(path), _Tally(reader, believed=believed)
        at_once = entries_at_once(reader, step)
        for first in range(0, reader.n_entries, at_once):
            entries = (first, min(first + at_once, reader.n_entries))
            for entry, sample in read_entries(path, reader, entries, version=version, log=log):
                tally.add(entry, sample)
                if observe is not None:
                    observe(sample)
            if progress is not None:
                progress(entries[1] - entries[0])
        return tally.report(path, log)


class _Tally:
    """Counts of all chunks: ranges, events and faults, each fault with the first entry that shows
    it.
    """

    def __init__(self, reader: Reader, *, believed: bool) -> None:
        self._reader, self._believed = reader, believed
        self._ranges: dict[str, Range] = {}
        self._events: list[NDArray[np.int64]] = []
        self._faults: dict[str, tuple[int, int]] = {}  # number of clusters, first entry
        self._n_clusters, self._n_cells, self._n_em = 0, 0, 0

    def add(self, entry: NDArray[np.int64], sample: Sample) -> None:
        """Look at the clusters of some entries."""
        n_bad: dict[str, int] = {}
        for bad in find_bad_values(sample):
            n_bad[bad.branch] = n_bad.get(bad.branch, 0) + len(bad.clusters)
            self._count(f"{bad.branch} {bad.wish}", entry[bad.clusters])
        for fault, clusters in _find_odd_clusters(sample).items():
            self._count(fault, entry[clusters])
        if not self._believed and find_mev(sample):
            self._count("energies should be in GeV, are these in MeV (unit MeV)?", entry)
        for name, array in (sample.scalars | sample.cells).items():
            here = _range(array, n_bad.get(name, 0))
            self._ranges[name] = self._ranges[name].joined(here) if name in self._ranges else here
        self._n_clusters += len(sample)
        self._n_cells += int(sample.offsets[-1])
        if "eventNumber" in sample.scalars:
            own = sample.scalars.get("sampleNumber", np.zeros(len(sample), dtype=np.int32))
            self._events.append(np.unique([own, sample["eventNumber"]], axis=1))
        self._n_em += int(sample.is_em.sum()) if "truthPdgId" in sample.scalars else 0

    def _count(self, fault: str, entries: NDArray[np.int64]) -> None:
        if len(entries):
            n, first = self._faults.get(fault, (0, int(entries[0])))
            self._faults[fault] = n + len(entries), first

    def report(self, path: PathLike, log: FaultLog) -> SampleReport:
        """The report of the whole file."""
        reader = self._reader
        native = reader.layout == _NATIVE
        absent = set(reader.metadata.get(ABSENT, ()))
        problems = (
            []
            if self._n_clusters
            else [f"the sample holds no cluster in {reader.n_entries} entries"]
        )
        notes: list[str] = []
        for name in reader.missing if native else ():
            (notes if name in absent else problems).append(f"branch {name} is missing")
        problems += [str(fault).removeprefix(f"{path}: ") for fault in log]
        noun = "showers" if reader.unit == "shower" else "clusters"
        for fault, (n, first) in sorted(self._faults.items(), key=lambda item: item[1][1]):
            wrong = " must " in fault or " should " in fault
            (problems if native or wrong else notes).append(
                f"{fault}: {'not so in ' if wrong else ''}{n} {noun}, the first at entry {first}"
            )
        return SampleReport(
            path=path if isinstance(path, str) and "://" in path else Path(path),
            layout=reader.layout,
            unit=reader.unit,
            n_entries=reader.n_entries,
            n_clusters=self._n_clusters,
            n_events=np.unique(np.hstack(self._events), axis=1).shape[1] if self._events else 0,
            n_cells=self._n_cells,
            n_em=self._n_em if "truthPdgId" in self._ranges else None,
            found=reader.found,
            missing=reader.missing,
            ranges=self._ranges,
            n_geo=len(reader.geo),
            metadata=reader.metadata,
            problems=tuple(problems),
            notes=tuple(notes),
        )


def _find_odd_clusters(sample: Sample) -> Mapping[str, NDArray[np.int64]]:
    """Clusters that can be read but are unlikely: rows by what is odd about them."""
    counts, n = np.diff(sample.offsets), len(sample)
    odd: dict[str, NDArray[np.int64]] = {}
    if "cluster_cell_ID" in sample.cells:
        odd["no cell at all"] = np.flatnonzero(counts == 0)
        odd["a cell twice in a cluster"] = _with_a_cell_twice(sample)
    if "cluster_nCells" in sample.scalars:
        odd["cluster_nCells that is not positive"] = np.flatnonzero(sample["cluster_nCells"] <= 0)
    for name, array in (sample.scalars | sample.cells).items():
        low, high = COLUMNS[name].limits if name in COLUMNS else (-np.inf, np.inf)
        if np.isfinite(high):
            edge = 1e-3 * (high - low)  # of rounding
            out = np.isfinite(array) & ((array < low - edge) | (array > high + edge))
            rows = np.flatnonzero(out)
            if name in sample.cells:
                rows = np.unique(np.searchsorted(sample.offsets, rows, side="right") - 1)
            odd[f"{name} should lie within {low:.5g} and {high:.5g} {COLUMNS[name].unit}"] = rows
    for small, large in _ORDERED:
        if {small, large} <= sample.scalars.keys():
            above = np.abs(sample[large]) * (1.0 + SUM_TOLERANCE) + ROUNDING
            known = np.isfinite(above) & (sample[large] > 0.0)
            odd[f"{small} should not exceed {large}"] = np.flatnonzero(
                known & (sample[small] > above)
            )
    for one, two in _ALIKE:
        if {one, two} <= sample.scalars.keys():
            odd[f"{one} and {two} should be in one unit, is one in MeV?"] = _rows_of_two_units(
                sample[one], sample[two]
            )
    if "cluster_cell_E" in sample.cells and "clusterE" in sample.scalars:
        owner = np.repeat(np.arange(n), counts)
        cell_e = sample.cells["cluster_cell_E"].astype(np.float64)
        total, scale = (
            np.bincount(owner, weights=weights, minlength=n) for weights in (cell_e, np.abs(cell_e))
        )
        odd["clusterE and its cells should be in one unit, is one in MeV?"] = _rows_of_two_units(
            total, sample["clusterE"]
        )
        with np.errstate(invalid="ignore"):  # infinite energies are reported as such
            odd[_SUM_DIFFERS] = np.flatnonzero(
                np.abs(total - sample["clusterE"]) > SUM_TOLERANCE * scale
            )
    return odd


def _rows_of_two_units(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.int64]:
    """All rows where one energy is mostly `APART` times the other, or never above its part."""
    good = np.isfinite(one) & np.isfinite(two) & (one > 0.0) & (two > 0.0)
    ratio = one[good].astype(np.float64) / two[good]
    apart = len(ratio) >= MIN_COUNT and (
        np.median(ratio) > APART or np.quantile(ratio, 0.99) < 1.0 / APART
    )
    return np.flatnonzero(good) if apart else np.zeros(0, dtype=np.int64)


def _with_a_cell_twice(sample: Sample) -> NDArray[np.int64]:
    owner = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    order = np.lexsort((sample.cells["cluster_cell_ID"], owner))
    owner, cell = owner[order], sample.cells["cluster_cell_ID"][order]
    return np.unique(owner[1:][(cell[1:] == cell[:-1]) & (owner[1:] == owner[:-1])])


def _range(values: NDArray[Any], n_bad_clusters: int) -> Range:
    """Range of one chunk; cell IDs and other whole numbers are finite by nature."""
    n, n_nan = len(values), int(np.isnan(values).sum())
    finite = values[np.isfinite(values)].astype(np.float64)
    known = finite if len(finite) else np.array([np.nan])
    low, mean, high = float(known.min()), float(known.mean()), float(known.max())
    return Range(low, mean, high, n, n_nan, n - len(finite) - n_nan, n_bad_clusters)
