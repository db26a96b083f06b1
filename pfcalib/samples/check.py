"""What is in a sample file, and is it sane: one pass over it at bounded memory, that reports instead of raising."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import JAGGED, SCALARS
from pfcalib.samples.read import STEP, PathLike, get_tree, open_sample, read_columns, read_geo, read_metadata
from pfcalib.samples.schema import CLUSTER_TREE, CellGeo, is_em

SUM_TOLERANCE = 0.01  # of the cluster's energy: makers may drop cells under a few MeV
_POSITIVE = ("truthE", "cluster_nCells")  # what must be above zero in every entry


class Range(NamedTuple):
    """Values of one branch: the extremes and the mean of the finite ones, in the branch's unit, and how many are of other kinds."""

    low: float
    mean: float
    high: float
    n: int
    n_nan: int
    n_inf: int
    n_not_positive: int

    def joined(self, other: Range) -> Range:
        """Range of two chunks together."""
        mine, theirs = self.n - self.n_nan - self.n_inf, other.n - other.n_nan - other.n_inf
        mean = float(np.nansum([self.mean * mine, other.mean * theirs])) / (mine + theirs) if mine + theirs else np.nan
        counts = (a + b for a, b in zip(self[3:], other[3:], strict=True))
        return Range(float(np.fmin(self.low, other.low)), mean, float(np.fmax(self.high, other.high)), *counts)


@dataclasses.dataclass(frozen=True)
class SampleReport:
    """What one file holds, and what is wrong with it; `problems` is empty for a sound sample."""

    path: Path
    n_clusters: int
    n_events: int
    n_cells: int  # of all clusters together
    n_em: int  # clusters of pi0, photons and electrons
    missing: tuple[str, ...]  # branches of pfcalib's layout that the file does not have
    ranges: dict[str, Range]  # by branch, scalars and cells
    n_geo: int  # cells in CellGeo
    metadata: dict[str, Any]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems


def check_sample(path: PathLike, *, step: int = STEP, progress: Callable[[int], None] = lambda n_clusters: None) -> SampleReport:
    """Read a file chunk by chunk and report branches, ranges, values that are not finite, and cells that are not in CellGeo.

    Parameters
    ----------
    path : path-like
        A ROOT file with the trees ClusterTree and CellGeo.
    step : int
        Clusters in memory at once.
    progress : callable
        Called with the number of clusters of each chunk.

    Raises
    ------
    BadFileError
        If the file cannot be read at all: missing, not ROOT, without these trees, damaged, or jagged branches that disagree.
    """
    path = Path(path)
    ranges: dict[str, Range] = {}
    events: list[NDArray[np.int64]] = []
    n_em, faults = 0, _Faults()
    with open_sample(path) as file:
        tree = get_tree(path, file, CLUSTER_TREE)
        geo, metadata, n_clusters = read_geo(path, file), read_metadata(path, file), int(tree.num_entries)
        there = set(tree.keys())
        columns = [name for name in (*SCALARS, *JAGGED) if name in there]
        for first in range(0, n_clusters, step) if columns else ():
            scalars, offsets, cells = read_columns(path, file, columns, (first, min(first + step, n_clusters)))
            for name, array in (scalars | cells).items():
                here = _range(array)
                ranges[name] = ranges[name].joined(here) if name in ranges else here
            events.append(np.unique(scalars.get("eventNumber", np.zeros(0, dtype=np.int64))))
            n_em += int(is_em(scalars["truthPdgId"]).sum()) if "truthPdgId" in scalars else 0
            faults.look(first, scalars, offsets, cells, geo)
            progress(len(offsets) - 1)
    missing = tuple(name for name in (*SCALARS, *JAGGED) if name not in there)
    n_events = len(np.unique(np.concatenate(events))) if events else 0
    n_cells = ranges["cluster_cell_ID"].n if "cluster_cell_ID" in ranges else 0
    found = faults.summary(missing, ranges, n_clusters)
    return SampleReport(path, n_clusters, n_events, n_cells, n_em, missing, ranges, len(geo), metadata, found)


class _Faults:
    """Faults of the entries, counted chunk by chunk, with the first entry that shows each."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}  # fault: number of clusters, first entry

    def look(
        self, first: int, scalars: Mapping[str, NDArray[Any]], offsets: NDArray[np.int64], cells: Mapping[str, NDArray[Any]], geo: CellGeo
    ) -> None:
        """Look at one chunk whose first entry is `first`."""
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if "cluster_cell_ID" in cells:
            self._add("cells that are not in CellGeo", first + np.unique(owner[geo.rows(cells["cluster_cell_ID"]) < 0]))
            self._add("no cell at all", first + np.flatnonzero(np.diff(offsets) == 0))
        if "cluster_cell_E" in cells and "clusterE" in scalars:
            total = np.bincount(owner, weights=cells["cluster_cell_E"], minlength=len(offsets) - 1)
            scale = np.bincount(owner, weights=np.abs(cells["cluster_cell_E"]), minlength=len(offsets) - 1)
            self._add("clusterE unlike the sum of its cells", first + np.flatnonzero(np.abs(total - scalars["clusterE"]) > SUM_TOLERANCE * scale))
        for name in _POSITIVE:
            if name in scalars:
                self._add(f"{name} that is not positive", first + np.flatnonzero(scalars[name] <= 0))

    def _add(self, fault: str, entries: NDArray[np.int64]) -> None:
        if len(entries):
            self._counts.setdefault(fault, [0, int(entries[0])])[0] += len(entries)

    def summary(self, missing: Iterable[str], ranges: Mapping[str, Range], n_clusters: int) -> tuple[str, ...]:
        """One line a fault."""
        lines = [] if n_clusters else ["the sample holds no cluster"]
        lines += [f"branch {name} is missing" for name in missing]
        lines += [f"{name}: {x.n_nan} NaN and {x.n_inf} infinite of {x.n} values" for name, x in ranges.items() if x.n_nan + x.n_inf]
        by_entry = sorted(self._counts.items(), key=lambda item: item[1][1])
        return (*lines, *(f"clusters with {fault}: {count}, the first is entry {entry}" for fault, (count, entry) in by_entry))


def _range(values: NDArray[Any]) -> Range:
    """Range of one chunk; cell IDs and other whole numbers are finite by nature."""
    n_nan = int(np.isnan(values).sum())
    finite = values[np.isfinite(values)].astype(np.float64)
    low, mean, high = (finite.min(), finite.mean(), finite.max()) if len(finite) else (np.nan, np.nan, np.nan)
    return Range(float(low), float(mean), float(high), len(values), n_nan, len(values) - len(finite) - n_nan, int((values <= 0).sum()))
