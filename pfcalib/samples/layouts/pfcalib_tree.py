"""pfcalib's own layout: ``ClusterTree`` with one entry a cluster and jagged cells, and
``CellGeo``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS, EXTRA, JAGGED, SCALARS
from pfcalib.samples.faults import BadEntriesError
from pfcalib.samples.layouts.protocol import Layout, in_root
from pfcalib.samples.rootfile import (
    PathLike,
    as_column,
    get_tree,
    jagged_parts,
    no_cells,
    read_branches,
    read_geo,
    read_metadata,
    reading,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import CLUSTER_TREE, GEO_TREE, Sample

_WHOLE = tuple(name for name, column in COLUMNS.items() if column.numpy_dtype.kind in "iu")


class PfcalibReader:
    """An open file; it needs CellGeo where the tree has cells."""

    layout, unit, tree = "pfcalib", "cluster", CLUSTER_TREE

    def __init__(self, path: PathLike, file: Any) -> None:
        self._path, self._tree = path, get_tree(path, file, CLUSTER_TREE)
        there = set(self._tree.keys())
        self.found = tuple(name for name in (*SCALARS, *EXTRA, *JAGGED) if name in there)
        self.missing = tuple(name for name in (*SCALARS, *JAGGED) if name not in there)
        self.n_entries = int(self._tree.num_entries)
        self.metadata = read_metadata(path, file)
        has_geo = GEO_TREE in root_trees(path) or any(name in there for name in JAGGED)
        self.geo = read_geo(path, file) if has_geo else no_cells()
        self._checked: set[str] = set()

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        names = self.found if columns is None else [name for name in self.found if name in columns]
        if not names:
            return Sample(
                {}, np.zeros(stop - start + 1, dtype=np.int64), {}, self.geo, self.metadata
            )
        new = [name for name in names if name not in self._checked]
        for depth in (0, 1):
            names_here = [name for name in new if COLUMNS[name].jagged == bool(depth)]
            require_numbers(self._path, self._tree, names_here, depth=depth, whole=_WHOLE)
        self._checked.update(new)
        arrays = read_branches(self._path, self._tree, names, start, stop)
        scalars = {
            name: as_column(name, ak.to_numpy(arrays[name]))
            for name in names
            if not COLUMNS[name].jagged
        }
        offsets = np.zeros(stop - start + 1, dtype=np.int64)
        cells: dict[str, NDArray[Any]] = {}
        for name in (name for name in names if COLUMNS[name].jagged):
            where = f"{CLUSTER_TREE}: entries {start} to {stop}: {name}"
            with reading(self._path, f"{where} cannot be unpacked"):
                own, values = jagged_parts(arrays[name])
            if cells and not np.array_equal(own, offsets):
                entry = start + int(np.flatnonzero(np.diff(own) != np.diff(offsets))[0])
                reason = f"{name} and {next(iter(cells))} do not have the same length"
                raise BadEntriesError(self._path, CLUSTER_TREE, "", entry, entry + 1, reason)
            offsets, cells[name] = own, as_column(name, values)
        return Sample(scalars, offsets, cells, self.geo, self.metadata)


LAYOUT = Layout(
    "pfcalib",
    "ClusterTree: one entry a cluster, jagged cells",
    lambda path: CLUSTER_TREE in root_trees(path),
    in_root(PfcalibReader),
)
