"""The MLTree layout: ``EventTree`` with one entry an event, clusters as vectors, their cells as
vectors of vectors, and ``CellGeo``.

Branches are those of the public ATLAS ntuple maker MLTree and of the notebooks that read it
(caloml-atlas, LCStudies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS, EXTRA, JAGGED, LAYER_NAMES, SCALARS
from pfcalib.samples.faults import require_equal_lengths
from pfcalib.samples.layouts.events import EventReader, makes_clusters, nearest_particle, rank
from pfcalib.samples.layouts.protocol import ENTRY, Layout, in_root
from pfcalib.samples.rootfile import (
    PathLike,
    as_column,
    found_and_missing,
    get_tree,
    read_branches,
    read_geo,
    reading,
    require_branches,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import CellGeo, Sample

EVENT_TREE = "EventTree"
_EVENT = ("eventNumber", "nCluster")
_SAME = (
    "cluster_nCells",
    "cluster_ENG_CALIB_TOT",
    "cluster_ENG_CALIB_OUT_T",
    "cluster_ENG_CALIB_DEAD_TOT",
    "cluster_CENTER_MAG",
    "cluster_FIRST_ENG_DENS",
    "cluster_CENTER_LAMBDA",
    "cluster_ISOLATION",
    *(name for name in EXTRA if name.endswith(("_PROBABILITY", "_WEIGHT"))),
)
CLUSTER = {  # column: vector with one value a cluster
    "clusterE": "cluster_E",
    "clusterPt": "cluster_Pt",
    "clusterEta": "cluster_Eta",
    "clusterPhi": "cluster_Phi",
    "clusterECalib": "cluster_E_LCCalib",
    **{name: name for name in _SAME},
}
# column: vector with one value a particle
TRUTH = {f"truth{name}": f"truthPart{name}" for name in ("PdgId", "E", "Pt", "Eta", "Phi")}
_TRUTH_FLAGS = ("truthPartStatus", "truthPartBarcode")
_SUMS = {"cluster_sumCellE": "cluster_cell_E", "cluster_ENG_CALIB_EM": "cluster_cell_hitsE_EM"}
_LAYER_COLUMNS = {
    f"cluster_E_{name}": sampling
    for name, sampling in zip(LAYER_NAMES, (0, 1, 2, 3, 12, 13, 14), strict=True)
}
_WHOLE = (*_EVENT, "truthPartPdgId", *_TRUTH_FLAGS, "cluster_nCells", "cluster_cell_ID")


class MLTreeReader(EventReader):
    """An open file; see `Reader`.

    Clusters come in the order of the file; clusterIndex is their rank in the event by falling
    energy. A cluster belongs to the stable truth particle (status 1, barcode below 200000, no
    neutrino; any particle where an event has none of these) of its event that is nearest in dR: in
    files of single particles this is the one particle. An event without any particle gives
    truthPdgId 0 and truthE NaN, which `samples.read` reports. The sums cluster_sumCellE,
    cluster_ENG_CALIB_EM and cluster_E_<layer> are made from the cells.
    """

    layout, tree = "MLTree", EVENT_TREE
    _energy = CLUSTER["clusterE"]

    def __init__(self, path: PathLike, file: Any) -> None:
        self._path, self._tree = path, get_tree(path, file, EVENT_TREE)
        require_branches(path, self._tree, [self._energy])
        there = set(self._tree.keys())
        vectors = (*TRUTH.values(), *_TRUTH_FLAGS, *CLUSTER.values())
        for depth, names in enumerate((_EVENT, vectors, JAGGED)):
            present = [name for name in names if name in there]
            require_numbers(path, self._tree, present, depth=depth, whole=_WHOLE)
        self.found, self.missing = found_and_missing(there, (*_EVENT, *vectors, *JAGGED))
        self.n_entries = int(self._tree.num_entries)
        self.metadata = {"layout": self.layout}
        self.geo = read_geo(path, file, needed=any(name in there for name in JAGGED))
        self._columns = _columns_of(there)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        wanted = [name for name in self._columns if columns is None or name in columns]
        arrays = read_branches(self._path, self._tree, self._branches(wanted), start, stop)
        with reading(self._path, f"{EVENT_TREE}: entries {start} to {stop} cannot be unpacked"):
            counts = ak.to_numpy(ak.num(arrays[self._energy])).astype(np.int64)
        event = np.repeat(np.arange(stop - start), counts)
        scalars: dict[str, NDArray[Any]] = {ENTRY: start + event}
        for name, branch in CLUSTER.items():
            if branch in arrays.fields:
                scalars[name] = self._flat(arrays[branch], counts, start, branch)
        offsets, cells = self._cells(arrays, counts, start)
        scalars |= {
            "nCluster": np.repeat(counts, counts),
            "clusterIndex": rank(scalars["clusterE"], counts),
        }
        for name in (name for name in _EVENT if name in arrays.fields):
            scalars[name] = np.repeat(ak.to_numpy(arrays[name]), counts)
        scalars |= self._truth(arrays, wanted, event, scalars)
        scalars |= _sums(wanted, offsets, cells, self.geo)
        kept = {name: as_column(name, scalars[name]) for name in wanted if name in scalars}
        cells = {name: as_column(name, cells[name]) for name in wanted if name in cells}
        return Sample({ENTRY: scalars[ENTRY]} | kept, offsets, cells, self.geo, self.metadata)

    def _branches(self, wanted: Sequence[str]) -> list[str]:
        """Branches that some columns are made from."""
        names = {self._energy, *(CLUSTER.get(name, name) for name in wanted)}
        if any(name in TRUTH for name in wanted):
            names |= {*TRUTH.values(), *_TRUTH_FLAGS, "cluster_Eta", "cluster_Phi"}
        if any(name in _LAYER_COLUMNS for name in wanted):
            names |= {"cluster_cell_ID", "cluster_cell_E"}
        names |= {cell for name, cell in _SUMS.items() if name in wanted}
        return [name for name in self.found if name in names]

    def _cells(
        self, arrays: ak.Array, counts: NDArray[np.int64], start: int
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        offsets = np.zeros(counts.sum() + 1, dtype=np.int64)
        cells: dict[str, NDArray[Any]] = {}
        events = np.arange(start, start + len(counts))
        for name in (name for name in JAGGED if name in arrays.fields):
            where = f"{EVENT_TREE}: entries {start} to {start + len(counts)}: {name}"
            with reading(self._path, f"{where} cannot be unpacked"):
                n_clusters, clusters = ak.to_numpy(ak.num(arrays[name])), ak.flatten(arrays[name])
                n_cells = ak.to_numpy(ak.num(clusters)).astype(np.int64)
                values = ak.to_numpy(ak.flatten(clusters))
            pair = (name, self._energy)
            require_equal_lengths(self._path, EVENT_TREE, events, (n_clusters, counts), pair)
            if cells:
                entry, both = np.repeat(events, counts), (n_cells, np.diff(offsets))
                pair = (name, next(iter(cells)))
                require_equal_lengths(self._path, EVENT_TREE, entry, both, pair)
            offsets, cells[name] = np.concatenate([[0], np.cumsum(n_cells)]), values
        return offsets, cells

    def _truth(
        self,
        arrays: ak.Array,
        wanted: Sequence[str],
        event: NDArray[np.int64],
        scalars: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """Columns of the particle that each cluster belongs to."""
        names = [name for name in wanted if name in TRUTH]
        if not names:
            return {}
        counts = ak.to_numpy(ak.num(arrays[TRUTH["truthE"]])).astype(np.int64)
        owner = np.repeat(np.arange(len(counts)), counts)
        first = int(scalars[ENTRY][0] - event[0]) if len(event) else 0
        flat = {
            branch: self._flat(arrays[branch], counts, first, branch, TRUTH["truthE"])
            for branch in (*TRUTH.values(), *_TRUTH_FLAGS)
            if branch in arrays.fields
        }
        may = makes_clusters(
            owner,
            pdg_id=flat.get(TRUTH["truthPdgId"]),
            status=flat.get("truthPartStatus"),
            barcode=flat.get("truthPartBarcode"),
        )
        rows = np.flatnonzero(may)
        place = (owner[rows], flat[TRUTH["truthEta"]][rows], flat[TRUTH["truthPhi"]][rows])
        nearest = nearest_particle(event, scalars["clusterEta"], scalars["clusterPhi"], *place)
        found = nearest >= 0
        columns: dict[str, NDArray[Any]] = {}
        for name in names:
            columns[name] = np.full(
                len(event), 0 if name == "truthPdgId" else np.nan, dtype=COLUMNS[name].dtype
            )
            columns[name][found] = as_column(name, flat[TRUTH[name]][rows[nearest[found]]])
        return columns


def _columns_of(branches: set[str]) -> tuple[str, ...]:
    """Columns that can be made from some branches, in the order of `pfcalib.columns`."""
    made_of = {"eventNumber": "eventNumber", **CLUSTER, **_SUMS, **{name: name for name in JAGGED}}
    columns = {name for name, branch in made_of.items() if branch in branches}
    columns |= {"nCluster", "clusterIndex"}
    direction = {TRUTH["truthE"], TRUTH["truthEta"], TRUTH["truthPhi"]}
    if direction | {"cluster_Eta", "cluster_Phi"} <= branches:
        columns |= {name for name, branch in TRUTH.items() if branch in branches}
    if {"cluster_cell_ID", "cluster_cell_E"} <= branches:
        columns |= set(_LAYER_COLUMNS)
    return tuple(name for name in (*SCALARS, *EXTRA, *JAGGED) if name in columns)


def _sums(
    wanted: Sequence[str],
    offsets: NDArray[np.int64],
    cells: Mapping[str, NDArray[Any]],
    geo: CellGeo,
) -> dict[str, NDArray[Any]]:
    """Sums over the cells of each cluster: all, electromagnetic truth, and by sampling."""
    n_clusters = len(offsets) - 1
    owner = np.repeat(np.arange(n_clusters), np.diff(offsets))
    columns = {
        name: np.bincount(owner, weights=cells[cell], minlength=n_clusters)
        for name, cell in _SUMS.items()
        if name in wanted
    }
    layers = [name for name in wanted if name in _LAYER_COLUMNS]
    if layers:
        row = geo.rows(cells["cluster_cell_ID"])
        sampling = np.where(row >= 0, np.append(geo.sampling, -1)[row], -1)
        for name in layers:
            here = sampling == _LAYER_COLUMNS[name]
            columns[name] = np.bincount(
                owner[here], weights=cells["cluster_cell_E"][here], minlength=n_clusters
            )
    return columns


LAYOUT = Layout(
    "MLTree",
    "EventTree: one entry an event, clusters and cells as nested vectors",
    lambda path: EVENT_TREE in root_trees(path),
    in_root(MLTreeReader),
)
