"""Calorimeter clusters of EDM4hep files (Key4hep: ILD, CLD, FCC-ee), one entry an event; energies
there are in GeV, lengths in mm.

A member of a collection is a branch ``<collection>.<member>`` of the tree ``events``; relations to
many are in ``_<collection>_<relation>``, links in ``_<link>_from`` and ``_<link>_to``. Public
source: edm4hep.yaml in github.com/key4hep/EDM4hep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import SUBDETECTORS
from pfcalib.errors import BadFileError
from pfcalib.samples.layouts.events import EventReader, rank
from pfcalib.samples.layouts.protocol import ENTRY, Layout, in_root
from pfcalib.samples.rootfile import (
    PathLike,
    as_column,
    found_and_missing,
    get_tree,
    no_cells,
    read_branches,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import Sample

TREE = "events"
PREFERRED = ("PandoraClusters", "ClusterCollection")
PARTICLES = ("MCParticles", "MCParticle", "MCParticleCollection", "Particle")
# of releases up to 0.99 and after, cluster and particle are from and to, or rec and sim
LINKS = (
    "ClusterMCTruthLink",
    "ClusterMCParticleLinkCollection",
    "MCRecoClusterParticleAssociation",
)
_MEMBERS = ("energy", "position.x", "position.y", "position.z", "hits_begin", "hits_end")
_SUBDETECTORS = ("subdetectorEnergies_begin", "subdetectorEnergies_end")
_MOMENTUM = ("momentum.x", "momentum.y", "momentum.z", "mass", "PDG")
_TABLES = (  # names and numbers of collections, in files of podio 1 and of older ones
    ("events___CollectionTypeInfo.name", "events___CollectionTypeInfo.collectionID"),
    ("m_names", "m_collectionIDs"),
)
_ENDS = (("from", "to"), ("rec", "sim"))


class Edm4hepReader(EventReader):
    """An open file; see `Reader`.

    Clusters come without cells: hits lie in collections of their own, if at all; cluster_nCells is
    the number of hits. The energies of the subdetectors are cluster_E_<subdetector>, in the order
    in which Pandora fills them, where a cluster has six. A cluster belongs to the particle with the
    largest weight among its links; one without a link has truthPdgId 0, and truthE NaN, which
    `samples.read` reports.

    Parameters
    ----------
    container : str, optional
        Collection of clusters; otherwise PandoraClusters or else the first in the alphabet.
    """

    layout, tree = "EDM4hep", TREE

    def __init__(self, path: PathLike, file: Any, container: str | None = None) -> None:
        self._path, self._tree = path, get_tree(path, file, TREE)
        self._names = {key.rpartition("/")[2]: key for key in self._tree.keys()}  # noqa: SIM118
        self.container = self._choose(container)
        name, link = self.container, self._first(LINKS, "weight")
        particles = self._first(PARTICLES, "PDG")
        ends = next((end for end in _ENDS if f"_{link}_{end[0]}.index" in self._names), None)
        self._clusters = {member: f"{name}.{member}" for member in (*_MEMBERS, *_SUBDETECTORS)}
        self._truth = {member: f"{particles}.{member}" for member in _MOMENTUM}
        self._link = {"weight": f"{link}.weight"} | {
            f"{part} {which}": f"_{link}_{end}.{part}"
            for which, end in zip(("cluster", "particle"), ends or _ENDS[0], strict=True)
            for part in ("index", "collectionID")
        }
        optional = {"eventNumber": "EventHeader.eventNumber", **self._truth, **self._link}
        optional["subdetectors"] = f"_{name}_subdetectorEnergies"
        wanted = (*self._clusters.values(), *optional.values())
        self.found, self.missing = found_and_missing(self._names, wanted)
        self._optional = {key: branch for key, branch in optional.items() if branch in self.found}
        require_numbers(path, self._tree, [self._names[branch] for branch in self.found], depth=1)
        self._energy = self._names[self._clusters["energy"]]
        self._id = _collection_id(file, name)
        self.n_entries, self.geo = int(self._tree.num_entries), no_cells()
        self.metadata: dict[str, Any] = {"layout": self.layout, "container": name}

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        branches = {branch: self._names[branch] for branch in self.found}
        read = read_branches(self._path, self._tree, list(branches.values()), start, stop)
        arrays = {branch: read[key] for branch, key in branches.items()}
        counts = ak.to_numpy(ak.num(read[self._energy])).astype(np.int64)
        event = np.repeat(np.arange(stop - start), counts)
        flat = {
            member: self._flat(arrays[branch], counts, start, branch).astype(np.float64)
            for member, branch in self._clusters.items()
        }
        energy, x, y, z = (flat[member] for member in _MEMBERS[:4])
        scalars: dict[str, NDArray[Any]] = {
            "nCluster": counts[event],
            "clusterIndex": rank(energy, counts),
            "cluster_nCells": flat["hits_end"] - flat["hits_begin"],
            **_kinematics("cluster", energy, x, y, z),
            "cluster_CENTER_MAG": np.sqrt(x**2 + y**2 + z**2),
        }
        scalars["clusterPt"] = energy / np.cosh(scalars["clusterEta"])
        number, header = np.arange(start, stop), self._optional.get("eventNumber")
        if header is not None:
            number = self._flat(arrays[header], np.ones_like(number), start, header, "one event")
        scalars["eventNumber"] = number.astype(np.int64)[event]
        scalars |= self._subdetectors(arrays, flat, counts)
        if {*_MOMENTUM, *self._link} <= self._optional.keys():
            scalars |= self._particles(arrays, counts, start)
        kept = {
            name: as_column(name, array)
            for name, array in scalars.items()
            if columns is None or name in columns
        }
        none = np.zeros(len(event) + 1, dtype=np.int64)
        return Sample({ENTRY: start + event} | kept, none, {}, self.geo, self.metadata)

    def _choose(self, wanted: str | None) -> str:
        found = sorted(
            branch.removesuffix(".hits_begin")
            for branch in self._names
            if branch.endswith(".hits_begin") and f"{branch[:-11]}.position.x" in self._names
        )
        if (wanted or (found or [""])[0]) not in found:
            raise BadFileError(
                f"{self._path}: {TREE} has no clusters {wanted or ''}; it has "
                f"{', '.join(found) or 'none at all'}"
            )
        return wanted or next((name for name in PREFERRED if name in found), found[0])

    def _first(self, names: Sequence[str], member: str) -> str:
        """The first collection that is there; the first name where none is."""
        return next((name for name in names if f"{name}.{member}" in self._names), names[0])

    def _subdetectors(
        self, arrays: dict[str, ak.Array], flat: dict[str, NDArray[Any]], counts: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Energy of each cluster in each subdetector, if each cluster has one for each."""
        first, last = (flat[member].astype(np.int64) for member in _SUBDETECTORS)
        if "subdetectors" not in self._optional or np.any(last - first != len(SUBDETECTORS)):
            return {}
        values = arrays[self._optional["subdetectors"]]
        n_values = ak.to_numpy(ak.num(values)).astype(np.int64)
        place = np.repeat(np.cumsum(n_values) - n_values, counts) + first
        energies = ak.to_numpy(ak.flatten(values))
        return {f"cluster_E_{name}": energies[place + i] for i, name in enumerate(SUBDETECTORS)}

    def _particles(
        self, arrays: dict[str, ak.Array], counts: NDArray[np.int64], start: int
    ) -> dict[str, NDArray[Any]]:
        """Columns of the particle that each cluster is linked to with the largest weight."""
        named = {key: arrays[branch] for key, branch in self._optional.items()}
        n_links = ak.to_numpy(ak.num(named["weight"])).astype(np.int64)
        n_particles = ak.to_numpy(ak.num(named["PDG"])).astype(np.int64)
        link = {
            key: self._flat(named[key], n_links, start, branch, self._link["weight"])
            for key, branch in self._link.items()
        }
        particle = {
            key: self._flat(named[key], n_particles, start, branch, self._truth["PDG"]).astype(
                np.float64
            )
            for key, branch in self._truth.items()
        }
        event = np.repeat(np.arange(len(counts)), n_links)
        cluster, source = link["index cluster"], link["index particle"]
        inside = (cluster >= 0) & (cluster < counts[event])
        inside &= (source >= 0) & (source < n_particles[event])
        if self._id is not None:  # a link may be of another collection of clusters
            inside &= link["collectionID cluster"] == self._id
        order = np.flatnonzero(inside)[np.argsort(link["weight"][inside], kind="stable")]
        chosen = np.full(counts.sum(), -1)
        first = np.cumsum(counts) - counts
        first_particle = np.cumsum(n_particles) - n_particles
        chosen[first[event[order]] + cluster[order]] = first_particle[event[order]] + source[order]
        px, py, pz, mass, pdg_id = (
            np.append(particle[key], np.nan if key != "PDG" else 0.0)[chosen] for key in _MOMENTUM
        )
        truth = _kinematics("truth", np.sqrt(px**2 + py**2 + pz**2 + mass**2), px, py, pz)
        return truth | {"truthPt": np.hypot(px, py), "truthPdgId": pdg_id}


def _kinematics(
    of: str, energy: NDArray[Any], x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(z / np.hypot(x, y))
    return {f"{of}E": energy, f"{of}Eta": eta, f"{of}Phi": np.arctan2(y, x)}


def _collection_id(file: Any, name: str) -> int | None:
    """Number by which links name a collection; None where podio's table cannot be read."""
    with contextlib.suppress(Exception):
        table = file["podio_metadata"]
        for names, numbers in _TABLES:
            if names in table:
                known = dict(zip(*(table[key].array()[0] for key in (names, numbers)), strict=True))
                return int(known[name])
    return None


def _matches(path: PathLike) -> bool:
    names = {key.rpartition("/")[2] for key in root_trees(path).get(TREE, ())}
    return any(name.endswith(".hits_begin") for name in names)


LAYOUT = Layout(
    "EDM4hep",
    "events: calorimeter clusters of Key4hep, with subdetectors and truth links",
    _matches,
    in_root(Edm4hepReader),
)
