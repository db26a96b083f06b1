"""Files of single showers before noise and clustering (`pfcalib.samples.showerfile`):
``ShowerTree`` with one entry a shower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.samples.faults import BadEntriesError
from pfcalib.samples.layouts.protocol import Layout, Reader
from pfcalib.samples.rootfile import (
    PathLike,
    as_column,
    get_tree,
    jagged_parts,
    open_sample,
    read_branches,
    read_geo,
    read_metadata,
    reading,
    require_branches,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import Sample
from pfcalib.samples.showerfile import SHOWER_TREE

_SCALARS = ("truthPdgId", "truthE", "truthEta", "truthPhi")
_CELLS = {"cluster_cell_ID": "hit_ID", "cluster_cell_E": "hit_E"}
_MADE = ("eventNumber", "truthPt", "clusterE", "cluster_nCells")


class ShowerReader:
    """An open file; see `Reader`.

    What it gives are no clusters: the cells are all cells of a shower without noise, clusterE is
    their sum and cluster_nCells their number; eventNumber is the entry. The metadata say so under
    "unit".
    """

    layout, unit, tree = "showers", "shower", SHOWER_TREE

    def __init__(self, path: PathLike, file: Any) -> None:
        self._path, self._tree = path, get_tree(path, file, SHOWER_TREE)
        self.found = (*_SCALARS, *_CELLS.values())
        self.missing: tuple[str, ...] = ()
        require_branches(path, self._tree, self.found)
        require_numbers(path, self._tree, _SCALARS, depth=0, whole=("truthPdgId",))
        require_numbers(path, self._tree, tuple(_CELLS.values()), depth=1, whole=("hit_ID",))
        self.n_entries = int(self._tree.num_entries)
        self.geo = read_geo(path, file)
        mark = {
            "layout": self.layout,
            "unit": "shower: all cells without noise, not a cluster; clusterE is their sum",
        }
        self.metadata = read_metadata(path, file) | mark

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        arrays = read_branches(self._path, self._tree, self.found, start, stop)
        cells: dict[str, NDArray[Any]] = {}
        with reading(self._path, f"{SHOWER_TREE}: entries {start} to {stop} cannot be unpacked"):
            offsets, cells["cluster_cell_ID"] = jagged_parts(arrays["hit_ID"])
            own, cells["cluster_cell_E"] = jagged_parts(arrays["hit_E"])
            scalars = {name: ak.to_numpy(arrays[name]) for name in _SCALARS}
        bad = np.flatnonzero(np.diff(own) != np.diff(offsets))
        if len(bad):
            entry = start + int(bad[0])
            raise BadEntriesError(
                self._path,
                SHOWER_TREE,
                "hit_E",
                entry,
                entry + 1,
                "does not have the same length as hit_ID",
            )
        owner = np.repeat(np.arange(stop - start), np.diff(offsets))
        # what is not finite is reported by those who judge values
        with np.errstate(invalid="ignore", over="ignore"):
            pt = scalars["truthE"] / np.cosh(scalars["truthEta"], dtype=np.float64)
        total = np.bincount(owner, weights=cells["cluster_cell_E"], minlength=stop - start)
        made = (np.arange(start, stop), pt, total, np.diff(offsets))
        every: dict[str, NDArray[Any]] = {**scalars, **dict(zip(_MADE, made, strict=True))}
        names = [name for name in COLUMNS if columns is None or name in columns]
        kept = {name: as_column(name, every[name]) for name in names if name in every}
        cells = {name: as_column(name, cells[name]) for name in names if name in cells}
        return Sample(kept, offsets, cells, self.geo, self.metadata)


@contextlib.contextmanager
def _open(path: PathLike) -> Iterator[Reader]:
    with open_sample(path) as file:
        yield ShowerReader(path, file)


LAYOUT = Layout(
    "showers",
    "ShowerTree: one entry a shower without noise",
    lambda path: SHOWER_TREE in root_trees(path),
    _open,
)
