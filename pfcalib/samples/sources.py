"""Where the clusters of a stream come from: memory-mapped caches, or ROOT files read once an epoch
through a pool.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.samples.faults import require_gev, require_sound
from pfcalib.samples.layouts.protocol import Reader
from pfcalib.samples.layouts.recognise import open_reader
from pfcalib.samples.maps import CachedCells, CachedSample, open_cache
from pfcalib.samples.read import STEP, PathLike, read_entries
from pfcalib.samples.rootfile import entry_offsets, get_tree, identity, open_sample
from pfcalib.samples.schema import CLUSTER_TREE, CellGeo
from pfcalib.samples.select import row_type

CELLS = ("cluster_cell_ID", "cluster_cell_E")
_SCAN = 65_536  # clusters of a cache whose scalars are looked at together
_MIN_RANGE = 5000  # entries; shorter baskets are read together


class Cells(NamedTuple):
    """Cells of some of the clusters that were asked for."""

    place: NDArray[np.int64]  # which of them
    row: NDArray[np.int64]  # their rows in `offsets`
    offsets: NDArray[np.int64]
    cell: NDArray[np.integer]  # row of CellGeo
    energy: NDArray[np.float32]  # GeV


class Source(Protocol):
    """Clusters of several files, numbered through all of them; may be sent to another process,
    which opens the files again.
    """

    geo: CellGeo

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Scalars of all clusters, chunk by chunk; raises a ConfigError for a column that there is
        not.
        """

    def shuffled(self, rows: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
        """An order of the given clusters (rising) in which this source can serve them: places in
        `rows`.
        """

    def cells(self, rows: NDArray[np.integer]) -> Iterator[Cells]:
        """Cells of some clusters, in as many parts as suits the source; safe to call from several
        threads.
        """


class CacheSource:
    """Any cluster at any time from the memory maps of `pfcalib.samples.maps`.

    Parameters
    ----------
    paths : sequence of path-like
    cache_dir : path-like, optional
        See `open_cache`.

    Raises
    ------
    BadFileError, ValidationError
        If a file is not a sound sample, or the files do not have the same cells.
    """

    def __init__(self, paths: Sequence[PathLike], *, cache_dir: PathLike | None = None) -> None:
        self._open(paths, [open_cache(path, cache_dir=cache_dir) for path in paths])

    def _open(self, paths: Sequence[PathLike], caches: list[CachedSample]) -> None:
        self.geo = _share_cells(paths, caches)
        self._caches, self._cells = caches, CachedCells(caches)

    def __getstate__(self) -> dict[str, list[Path]]:
        return {"folders": [cache.folder for cache in self._caches]}

    def __setstate__(self, state: dict[str, list[Path]]) -> None:
        self._open(state["folders"], [CachedSample(folder) for folder in state["folders"]])

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """See `Source.scan`; pages are released at once."""
        for cache in self._caches:
            _require_columns(columns, cache.scalars)
            for start in range(0, cache.n_clusters, _SCAN):
                yield {name: cache.scalars[name][start : start + _SCAN] for name in columns}
                cache.release()

    def shuffled(self, rows: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
        """A permutation of all, each as likely as any other."""
        order = np.arange(len(rows), dtype=row_type(len(rows)))
        rng.shuffle(order)
        return order

    def cells(self, rows: NDArray[np.integer]) -> Iterator[Cells]:
        """See `Source.cells`: one part."""
        place = np.arange(len(rows))
        yield Cells(place, place, *self._cells.read(rows))


class _Range(NamedTuple):
    """Entries of a file that are read together: whole baskets."""

    file: int
    start: int
    stop: int


class RootSource:
    """ROOT files read once an epoch, range by range in random order, through a pool that the
    clusters leave at random.

    A range is one basket, or several short ones. The pool holds `n_pool` ranges. Each of its
    clusters leaves at one of the next `n_pool` steps, all equally likely, and at each step one more
    range comes in. Clusters that are asked for in the order of `shuffled` find their range in the
    pool; others are served too, but have a range read again.

    Parameters
    ----------
    paths : sequence of path-like
        Files of any layout with cells, or addresses; each stays open.
    pool_size : int
        Clusters in the pool, those that are not chosen included; at least one range; one more is
        kept for what is asked for out of turn.

    Raises
    ------
    BadFileError, ValidationError
        If a file is not a sound sample, or the files do not have the same cells.
    """

    def __init__(self, paths: Sequence[PathLike], *, pool_size: int) -> None:
        self._paths, self._pool_size = list(paths), pool_size
        self._versions = [identity(path) for path in paths]
        self._open()
        self._ranges = [
            _Range(i, *part)
            for i, reader in enumerate(self._readers)
            for part in _ranges_of(paths[i], reader)
        ]
        # first cluster of each range; known after a scan
        self._edges: NDArray[np.int64] | None = None

    def _open(self) -> None:
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        self._readers: list[Reader] = [
            stack.enter_context(open_reader(path)) for path in self._paths
        ]
        self._lock = threading.Lock()
        self._pool: OrderedDict[
            int, tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.float32]]
        ] = OrderedDict()
        self.geo = _share_cells(self._paths, self._readers)
        self._cell_type = np.min_scalar_type(max(len(self.geo) - 1, 0))

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_readers", "_lock", "_pool", "geo")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def n_pool(self) -> int:
        """Ranges in the pool."""
        n_clusters = int(self._first_clusters()[-1])
        return min(
            max(round(self._pool_size * len(self._ranges) / max(n_clusters, 1)), 1),
            max(len(self._ranges), 1),
        )

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """See `Source.scan`: one chunk a range."""
        counts = []
        for path, reader in zip(self._paths, self._readers, strict=True):
            empty = reader.read(0, 0)
            _require_columns((*columns, *CELLS), empty.scalars | empty.cells, where=path)
        for part in self._ranges:
            scalars = self._read(part, columns)[0]
            counts.append(len(scalars[columns[0]]))
            yield scalars
        self._edges = np.cumsum([0, *counts])

    def shuffled(self, rows: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
        """The order in which clusters leave the pool."""
        edges, n_pool, n_ranges = self._first_clusters(), self.n_pool, len(self._ranges)
        turn = rng.permutation(n_ranges)  # at which step each range comes in
        first, last = np.maximum(turn - n_pool + 1, 0), np.minimum(turn, n_ranges - n_pool)
        ends = np.searchsorted(rows, edges)
        step = np.empty(len(rows), dtype=np.int32)
        for i in range(n_ranges):
            step[ends[i] : ends[i + 1]] = rng.integers(
                first[i], last[i], size=ends[i + 1] - ends[i], endpoint=True, dtype=np.int32
            )
        order = np.arange(len(rows), dtype=row_type(len(rows)))
        rng.shuffle(order)
        return order[np.argsort(step[order], kind="stable")]

    def cells(self, rows: NDArray[np.integer]) -> Iterator[Cells]:
        """See `Source.cells`: one part a range."""
        edges = self._first_clusters()
        number = np.searchsorted(edges, rows, side="right") - 1
        for i in np.unique(number):
            place = np.flatnonzero(number == i)
            yield Cells(place, rows[place] - edges[i], *self._take(int(i)))

    def _first_clusters(self) -> NDArray[np.int64]:
        if self._edges is None:
            for _ in self.scan(("clusterE",)):
                pass
        assert self._edges is not None
        return self._edges

    def _take(
        self, number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.float32]]:
        """A range of the pool, read now if it is not there; the one that was not asked for the
        longest goes.
        """
        with self._lock:
            if number not in self._pool:
                while len(self._pool) >= self.n_pool + 1:
                    self._pool.popitem(last=False)
                part = self._ranges[number]
                _, offsets, cells = self._read(part, CELLS)
                expected = int(np.diff(self._first_clusters()[number : number + 2])[0])
                if (found := len(offsets) - 1) != expected:
                    where = f"{self._paths[part.file]}: entries {part.start} to {part.stop}"
                    raise BadFileError(f"{where} hold {found} clusters, not {expected} as before")
                cell = self._readers[part.file].geo.rows(cells[CELLS[0]]).astype(self._cell_type)
                self._pool[number] = offsets, cell, cells[CELLS[1]]
            self._pool.move_to_end(number)
            return self._pool[number]

    def _read(
        self, part: _Range, columns: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Columns of a range whose values are in order."""
        path, reader = self._paths[part.file], self._readers[part.file]
        ((entry, sample),) = read_entries(
            path, reader, (part.start, part.stop), columns, version=self._versions[part.file]
        )
        require_sound(sample, entry, path, reader.tree)
        require_gev(sample, path)
        return sample.scalars, sample.offsets, sample.cells


def _ranges_of(path: PathLike, reader: Reader) -> Iterator[tuple[int, int]]:
    """Entries to be read together: baskets of cells in pfcalib's own files, equal steps in others,
    whose baskets may differ by branch.
    """
    edges = np.arange(STEP, reader.n_entries, STEP)
    if reader.layout == "pfcalib" and CELLS[0] in reader.found:
        with open_sample(path) as file:
            edges = np.asarray(entry_offsets(get_tree(path, file, CLUSTER_TREE), CELLS[1]))
    start = 0
    for edge in (*edges[edges < reader.n_entries].tolist(), reader.n_entries):
        if edge - start >= _MIN_RANGE or (edge == reader.n_entries and edge > start):
            yield start, edge
            start = edge


def _require_columns(
    columns: Sequence[str], there: dict[str, Any], *, where: PathLike = "the cache"
) -> None:
    for name in columns:
        if name not in there:
            raise ConfigError(f"{where}: no column {name!r}; there are {', '.join(there)}")


def _share_cells(paths: Sequence[PathLike], files: Sequence[Reader | CachedSample]) -> CellGeo:
    """The cells of all files, which must be the same and are kept once."""
    geo = files[0].geo
    for path, file in zip(paths[1:], files[1:], strict=True):
        if not file.geo.same_as(geo):
            raise ValidationError(f"{path} and {paths[0]} do not have the same cells (CellGeo)")
        file.geo = geo
    return geo
