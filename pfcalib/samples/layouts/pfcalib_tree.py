"""pfcalib's own layout: ``ClusterTree`` with one entry a cluster and jagged cells, and
``CellGeo``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np

from pfcalib.columns import COLUMNS, EXTRA, JAGGED, SCALARS
from pfcalib.samples.layouts.protocol import Layout, in_root
from pfcalib.samples.rootfile import (
    WHOLE,
    PathLike,
    as_column,
    found_and_missing,
    get_tree,
    read_branches,
    read_geo,
    read_jagged,
    read_metadata,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import CLUSTER_TREE, Sample


class PfcalibReader:
    """An open file; it needs CellGeo where the tree has cells."""

    layout, unit, tree = "pfcalib", "cluster", CLUSTER_TREE

    def __init__(self, path: PathLike, file: Any) -> None:
        self._path, self._tree = path, get_tree(path, file, CLUSTER_TREE)
        there = set(self._tree.keys())
        self.found = found_and_missing(there, (*SCALARS, *EXTRA, *JAGGED))[0]
        self.missing = found_and_missing(there, (*SCALARS, *JAGGED))[1]
        self.n_entries = int(self._tree.num_entries)
        self.metadata = read_metadata(path, file)
        self.geo = read_geo(path, file, needed=any(name in there for name in JAGGED))
        self._checked: set[str] = set()

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        names = self.found if columns is None else [name for name in self.found if name in columns]
        if not names:
            return Sample(
                {}, np.zeros(stop - start + 1, dtype=np.int64), {}, self.geo, self.metadata
            )
        new = [name for name in names if name not in self._checked]
        for jagged in (False, True):
            here = [name for name in new if COLUMNS[name].jagged == jagged]
            require_numbers(self._path, self._tree, here, depth=int(jagged), whole=WHOLE)
        self._checked.update(new)
        arrays = read_branches(self._path, self._tree, names, start, stop)
        scalars = {
            name: as_column(name, ak.to_numpy(arrays[name]))
            for name in names
            if not COLUMNS[name].jagged
        }
        of_cells = [name for name in names if COLUMNS[name].jagged]
        offsets, cells = read_jagged(self._path, CLUSTER_TREE, arrays, of_cells, start)
        typed = {name: as_column(name, values) for name, values in cells.items()}
        return Sample(scalars, offsets, typed, self.geo, self.metadata)


LAYOUT = Layout(
    "pfcalib",
    "ClusterTree: one entry a cluster, jagged cells",
    lambda path: CLUSTER_TREE in root_trees(path),
    in_root(PfcalibReader),
)
