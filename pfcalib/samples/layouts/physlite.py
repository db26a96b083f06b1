"""Calorimeter clusters of ATLAS AOD, DAOD and PHYSLITE files, one entry an event; energies there
are in MeV.

A variable of a container is a branch ``<container>Aux.<variable>`` or
``<container>AuxDyn.<variable>`` of ``CollectionTree``; in RNTuples the tree is ``EventData``, and
the dot a colon. Public source: the headers of xAOD::CaloCluster_v1 and CaloSampling in
gitlab.cern.ch/atlas/athena.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS, SAMPLINGS
from pfcalib.errors import BadFileError
from pfcalib.samples.faults import require_equal_lengths
from pfcalib.samples.layouts.events import EventReader, rank
from pfcalib.samples.layouts.protocol import ENTRY, Layout, in_root
from pfcalib.samples.rootfile import (
    PathLike,
    found_and_missing,
    get_tree,
    no_cells,
    read_branches,
    reading,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import Sample

TREES = ("CollectionTree", "EventData")
GEV = 1e-3  # GeV in a MeV, the unit of xAOD
PREFERRED = ("CaloCalTopoClusters", "egammaClusters")
_MOMENTS = {  # variable: its unit in that of the column cluster_<variable>
    name: GEV if COLUMNS[f"cluster_{name}"].in_gev else 1.0
    for name in (
        *("ENG_CALIB_TOT", "ENG_CALIB_OUT_T", "ENG_CALIB_DEAD_TOT", "FIRST_ENG_DENS", "ENG_POS"),
        *("CENTER_MAG", "CENTER_LAMBDA", "ISOLATION", "LATERAL", "LONGITUDINAL", "SECOND_R"),
        *("SECOND_LAMBDA", "DELTA_ALPHA", "SIGNIFICANCE", "CELL_SIGNIFICANCE", "PTD"),
        *("ENG_FRAC_EM", "ENG_FRAC_MAX", "ENG_FRAC_CORE"),
        *("EM_PROBABILITY", "HAD_WEIGHT", "OOC_WEIGHT", "DM_WEIGHT"),
    )
}
_KINEMATICS = ("rawE", "rawEta", "rawPhi", "calE", "calEta", "calPhi")
_VARIABLE = re.compile(r"(?:.*/)?(\w+?)Aux(?:Dyn)?[.:]+(\w+)")
# a DataVector of clusters holds samplingPattern alone, member by member
_PATTERN = uproot.AsJagged(uproot.AsDtype(">u4"), header_bytes=16)
_LOOK = 1000  # events looked at for the mean number of clusters


def tree_of(path: PathLike) -> str | None:
    """Name of the tree of events of an xAOD file; None for other files."""
    return next((name for name in TREES if name in root_trees(path)), None)


def variables(branches: Iterable[str]) -> dict[str, dict[str, str]]:
    """Branch of each variable of each container.

    >>> variables(["JetsAux./JetsAux.pt", "JetsAuxDyn:Width", "JetsAuxDyn.link/JetsAuxDyn.link.a"])
    {'Jets': {'pt': 'JetsAux./JetsAux.pt', 'Width': 'JetsAuxDyn:Width'}}
    """
    found: dict[str, dict[str, str]] = {}
    for branch in branches:
        if match := _VARIABLE.fullmatch(branch):
            found.setdefault(match[1], {})[match[2]] = branch
    return found


class PhysliteReader(EventReader):
    """An open file; see `Reader`.

    There are no cells and no truth particles of clusters. Energy and direction are those of the EM
    scale (rawE, rawEta, rawPhi) and clusterECalib is calE; where rawE is missing they are calE,
    calEta, calPhi, which `missing` and metadata["energy_scale"] say. The layers of the barrel get
    their cluster_E_<layer> from e_sampl; energy in any other sampling is in no column, and
    metadata["samplings_without_column"] says how many clusters of the file have cells there.
    clusterIndex is the rank in the event. An RNTuple holds no samplingPattern, so no layers.

    Parameters
    ----------
    container : str, optional
        Name of the clusters. Otherwise CaloCalTopoClusters or else egammaClusters or else the first
        other one in the alphabet that has rawE or calE.
    """

    layout = "PHYSLITE"

    def __init__(self, path: PathLike, file: Any, container: str | None = None) -> None:
        self.tree = tree_of(path) or TREES[0]
        self._path, self._tree = path, get_tree(path, file, self.tree)
        with reading(path, f"{self.tree}: the branches cannot be listed"):
            known = variables(self._tree.keys())
        self.container = _choose(path, self.tree, known, container)
        info = known.get("EventInfo", {})
        there = known[self.container] | {k: info[k] for k in ("eventNumber",) if k in info}
        wanted = ("eventNumber", *_KINEMATICS, "e_sampl", *_MOMENTS)
        self._branches = {name: there[name] for name in wanted if name in there}
        for depth, names in enumerate((("eventNumber",), (*_KINEMATICS, *_MOMENTS), ("e_sampl",))):
            present = [self._branches[name] for name in names if name in there]
            require_numbers(path, self._tree, present, depth=depth)
        self._raw = "rawE" in there
        self._energy = self._branches["rawE" if self._raw else "calE"]
        pattern = self._look_at_patterns()
        self.found = (*self._branches, *(() if pattern is None else ("samplingPattern",)))
        self.missing = found_and_missing(self.found, (*wanted, "samplingPattern"))[1]
        self.n_entries, self.geo = int(self._tree.num_entries), no_cells()
        scale = "EM (rawE)" if self._raw else "calibrated (calE): the file has no rawE"
        self.metadata: dict[str, Any] = {
            "layout": self.layout,
            "container": self.container,
            "energy_scale": scale,
            "samplings_without_column": "unknown" if pattern is None else pattern,
        }

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        with_layers = "samplingPattern" in self.found and (
            columns is None or any(name.startswith("cluster_E_") for name in columns)
        )
        branches = {
            name: branch
            for name, branch in self._branches.items()
            if name != "e_sampl" or with_layers
        }
        arrays = read_branches(self._path, self._tree, list(branches.values()), start, stop)
        by_name = {name: arrays[branch] for name, branch in branches.items()}
        counts = ak.to_numpy(ak.num(arrays[self._energy])).astype(np.int64)
        event = np.repeat(np.arange(stop - start), counts)
        flat = {
            name: self._flat(array, counts, start, f"{self.container}: {name}").astype(np.float64)
            for name, array in by_name.items()
            if name not in ("eventNumber", "e_sampl")
        }
        scale = "raw" if self._raw else "cal"
        energy = flat[f"{scale}E"] * GEV
        number = by_name.get("eventNumber", np.arange(start, stop))
        scalars = {
            "clusterE": energy,
            "nCluster": counts[event],
            "eventNumber": np.asarray(number).astype(np.int64)[event],
            "clusterIndex": rank(energy, counts),
        }
        for name in (name for name in ("Eta", "Phi") if scale + name in flat):
            scalars[f"cluster{name}"] = flat[scale + name]
        if "clusterEta" in scalars:
            scalars["clusterPt"] = energy / np.cosh(scalars["clusterEta"])
        if self._raw and "calE" in flat:
            scalars["clusterECalib"] = flat["calE"] * GEV
        scalars |= {
            f"cluster_{name}": flat[name] * unit for name, unit in _MOMENTS.items() if name in flat
        }
        if with_layers:
            scalars |= self._layers(by_name["e_sampl"], counts, event, (start, stop))
        typed = {name: array.astype(COLUMNS[name].dtype) for name, array in scalars.items()}
        none = np.zeros(len(event) + 1, dtype=np.int64)
        return Sample({ENTRY: start + event} | typed, none, {}, self.geo, self.metadata)

    def _patterns(self, start: int, stop: int | None) -> ak.Array:
        return self._tree[self.container].array(_PATTERN, entry_start=start, entry_stop=stop)

    def _look_at_patterns(self) -> dict[str, int] | None:
        """Clusters in each sampling of the file that has no column; None where e_sampl or the
        patterns cannot be read or do not agree.
        """
        if "e_sampl" not in self._branches or self.container not in self._tree.keys(
            recursive=False
        ):
            return None
        with contextlib.suppress(Exception):
            first = ak.num(self._tree[self._branches["e_sampl"]].array(entry_stop=_LOOK), axis=2)
            bits = _bits(ak.to_numpy(ak.flatten(self._patterns(0, None))))
            n_first = int(ak.count(first))
            if np.array_equal(bits[:n_first].sum(axis=1), ak.to_numpy(ak.flatten(first))):
                return {
                    name: int(n)
                    for name, n in zip(SAMPLINGS, bits.sum(axis=0), strict=True)
                    if n and f"cluster_E_{name}" not in COLUMNS
                }
        return None

    def _layers(
        self,
        e_sampl: ak.Array,
        counts: NDArray[np.int64],
        event: NDArray[np.int64],
        entries: tuple[int, int],
    ) -> dict[str, Any]:
        """Energy in each layer of the barrel; e_sampl has one value for each bit of
        samplingPattern, in the order of the bits.
        """
        where = f"{self.tree}: entries {entries[0]} to {entries[1]}"
        with reading(self._path, f"{where}: the elements of {self.container} cannot be read"):
            patterns = self._patterns(*entries)
        name = f"{self.container}: samplingPattern"
        cluster, sampling = np.nonzero(_bits(self._flat(patterns, counts, entries[0], name)))
        clusters = ak.flatten(e_sampl)
        lengths = (ak.to_numpy(ak.num(e_sampl)), counts)
        n_values = (ak.to_numpy(ak.num(clusters)), np.bincount(cluster, minlength=len(event)))
        for entry, pair, other in (
            (np.arange(*entries), lengths, self._energy),
            (entries[0] + event, n_values, "the bits of samplingPattern"),
        ):
            names = (f"{self.container}: e_sampl", other)
            require_equal_lengths(self._path, self.tree, entry, pair, names)
        energy = ak.to_numpy(ak.flatten(clusters)).astype(np.float64) * GEV
        columns = {}
        for number, name in enumerate(SAMPLINGS):
            if f"cluster_E_{name}" in COLUMNS:
                here, values = sampling == number, np.zeros(len(event))
                values[cluster[here]] = energy[here]
                columns[f"cluster_E_{name}"] = values
        return columns


def _choose(path: PathLike, tree: str, known: dict[str, dict[str, str]], wanted: str | None) -> str:
    """The container of clusters: the one that is wanted, or the first in the order of `PREFERRED`
    and the alphabet.
    """
    names = sorted(
        (name for name in known if {"rawE", "calE"} & known[name].keys()),
        key=lambda name: ((*PREFERRED, name).index(name), name),
    )
    if wanted is not None and wanted not in names:
        raise BadFileError(
            f"{path}: {tree} has no clusters {wanted!r}; it has {', '.join(names) or 'none at all'}"
        )
    if not names:
        raise BadFileError(
            f"{path}: {tree} has no calorimeter clusters (a container with rawE or calE); its "
            f"containers: {', '.join(sorted(known))}"
        )
    return wanted or names[0]


def _bits(patterns: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Which samplings each cluster has, shape (n_clusters, 28)."""
    return (
        (patterns.astype(np.uint32)[:, None] >> np.arange(len(SAMPLINGS), dtype=np.uint32)) & 1
    ).astype(np.bool_)


LAYOUT = Layout(
    "PHYSLITE",
    "CollectionTree, EventData: calorimeter clusters of ATLAS AOD, DAOD and PHYSLITE",
    lambda path: tree_of(path) is not None,
    in_root(PhysliteReader),
)
