"""Files of single showers before noise and clustering: ``ShowerTree`` with one entry an event and
jagged cells; the layout of the packaged Geant4 showers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.columns import COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.geometry import Grid
from pfcalib.samples.faults import require_sound
from pfcalib.samples.layouts.protocol import Layout, in_root
from pfcalib.samples.rootfile import (
    PathLike,
    as_column,
    get_tree,
    open_sample,
    read_branches,
    read_geo,
    read_jagged,
    read_metadata,
    reading,
    require_branches,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import GEO_TREE, METADATA, CellGeo, Sample, gather

SHOWER_TREE = "ShowerTree"
_BRANCHES = {
    "truthPdgId": "int32",
    "truthE": "float32",
    "truthEta": "float32",
    "truthPhi": "float32",
}


class Showers(NamedTuple):
    """Noise-free showers of single particles: jagged cells and what was shot."""

    pdg_id: NDArray[np.int32]  # (n,)
    e_true: NDArray[np.float64]  # (n,) GeV
    eta: NDArray[np.float64]  # (n,)
    phi: NDArray[np.float64]  # (n,) rad
    offsets: NDArray[np.int64]  # (n + 1,)
    cell: NDArray[np.int32]  # (n_hits,) flat index in the grid
    signal: NDArray[np.float64]  # (n_hits,) GeV at the EM scale

    def select(self, mask: NDArray[np.bool_]) -> Showers:
        """The showers where mask is true."""
        hits, offsets = gather(self.offsets, np.flatnonzero(mask))
        return Showers(
            self.pdg_id[mask],
            self.e_true[mask],
            self.eta[mask],
            self.phi[mask],
            offsets,
            self.cell[hits],
            self.signal[hits],
        )


def write_showers(
    path: str | os.PathLike[str], showers: Showers, grid: Grid, metadata: Mapping[str, Any]
) -> None:
    """Write showers as a ROOT file, zstd, under a temporary name first."""
    scalars = {
        "truthPdgId": showers.pdg_id,
        "truthE": showers.e_true.astype(np.float32),
        "truthEta": showers.eta.astype(np.float32),
        "truthPhi": showers.phi.astype(np.float32),
    }
    hits = ak.unflatten(
        ak.zip({"ID": showers.cell.astype(np.uint16), "E": showers.signal.astype(np.float32)}),
        np.diff(showers.offsets),
    )
    arrays = CellGeo.from_grid(grid).arrays()
    geo = {name: ak.Array(array[None]) for name, array in arrays.items()}
    types = {name: array.type.content for name, array in geo.items()}
    compression = uproot.ZSTD(9)
    with new_file(path) as temporary, uproot.recreate(temporary, compression=compression) as file:
        tree = file.mktree(SHOWER_TREE, {**_BRANCHES, "hit": hits.type.content})
        tree.extend({**scalars, "hit": hits})
        file.mktree(GEO_TREE, types).extend(geo)
        file[METADATA] = json.dumps(dict(metadata), sort_keys=True)


def read_showers(path: str | os.PathLike[str], grid: Grid) -> tuple[Showers, dict[str, Any]]:
    """Showers and metadata of a file.

    Raises
    ------
    BadFileError
        If it is not such a file, its cells are not those of the grid, or a value is not sound.
    """
    with open_sample(path) as file:
        reader, metadata = ShowerReader(path, file), read_metadata(path, file)
        sample = reader.read(0, reader.n_entries)
    if not sample.geo.same_as(CellGeo.from_grid(grid)):
        raise BadFileError(
            f"{path}: {GEO_TREE} does not describe the cells of the grid {grid.name!r}"
        )
    require_sound(sample, np.arange(len(sample)), path, SHOWER_TREE)
    showers = Showers(
        sample["truthPdgId"],
        sample["truthE"].astype(np.float64),
        sample["truthEta"].astype(np.float64),
        sample["truthPhi"].astype(np.float64),
        sample.offsets,
        sample.cells["cluster_cell_ID"].astype(np.int32),
        sample.cells["cluster_cell_E"].astype(np.float64),
    )
    return showers, metadata


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
        self.found = (*_BRANCHES, *_CELLS.values())
        self.missing: tuple[str, ...] = ()
        require_branches(path, self._tree, self.found)
        require_numbers(path, self._tree, list(_BRANCHES), depth=0, whole=("truthPdgId",))
        require_numbers(path, self._tree, tuple(_CELLS.values()), depth=1, whole=("hit_ID",))
        self.n_entries = int(self._tree.num_entries)
        self.geo = read_geo(path, file)
        self.metadata = read_metadata(path, file) | {
            "layout": self.layout,
            "unit": "shower: all cells without noise, not a cluster; clusterE is their sum",
        }

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        arrays = read_branches(self._path, self._tree, self.found, start, stop)
        hits = tuple(_CELLS.values())
        offsets, values = read_jagged(self._path, SHOWER_TREE, arrays, hits, start)
        cells = {name: values[branch] for name, branch in _CELLS.items()}
        with reading(self._path, f"{SHOWER_TREE}: entries {start} to {stop} cannot be unpacked"):
            scalars = {name: ak.to_numpy(arrays[name]) for name in _BRANCHES}
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


LAYOUT = Layout(
    "showers",
    "ShowerTree: one entry a shower without noise",
    lambda path: SHOWER_TREE in root_trees(path),
    in_root(ShowerReader),
)
