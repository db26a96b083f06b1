"""Events, truth particles, tracks and jets of MLTree and ATLAS AOD, DAOD and PHYSLITE files, in GeV
and rad.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import awkward as ak
import numpy as np

from pfcalib.errors import BadFileError
from pfcalib.samples.faults import require_equal_lengths
from pfcalib.samples.layouts.mltree import EVENT_TREE
from pfcalib.samples.layouts.physlite import GEV, TREES, variables
from pfcalib.samples.locate import PathLike
from pfcalib.samples.rootfile import (
    get_tree,
    open_sample,
    read_branches,
    require_numbers,
    root_trees,
)

NOT_REACHED = -9e8  # the files hold -999999999 where a track does not reach a layer
LEPTONS = ("TruthElectrons", "TruthMuons", "TruthTaus", "TruthPhotons", "TruthNeutrinos")
_EVENT = {  # field: branch of MLTree, variable of EventInfo
    "run_number": ("runNumber", "runNumber"),
    "event_number": ("eventNumber", "eventNumber"),
    "lumi_block": ("lumiBlock", "lumiBlock"),
    "mc_event_number": ("mcEventNumber", "mcEventNumber"),
    "mc_channel_number": ("mcChannelNumber", "mcChannelNumber"),
    "weight": ("mcEventWeight", "mcEventWeights"),
    "actual_interactions": ("actualInteractionsPerCrossing", "actualInteractionsPerCrossing"),
    "average_interactions": ("averageInteractionsPerCrossing", "averageInteractionsPerCrossing"),
}
_TRUTH = {
    "pdg_id": "PdgId",
    "status": "Status",
    "barcode": "Barcode",
    "pt": "Pt",
    "e": "E",
    "mass": "Mass",
    "eta": "Eta",
    "phi": "Phi",
}
_TRACK = {
    "pt": "Pt",
    "p": "P",
    "mass": "Mass",
    "eta": "Eta",
    "phi": "Phi",
    "d0": "D0",
    "z0": "Z0",
    "chi2": "ChiSquared",
    "truth_index": "TruthParticleIndex",
}
_JET = {"pt": "Pt", "eta": "Eta", "phi": "Phi", "e": "E"}
_XAOD_TRUTH = {
    "pdg_id": "pdgId",
    "status": "status",
    "barcode": "barcode",
    "px": "px",
    "py": "py",
    "pz": "pz",
    "e": "e",
    "mass": "m",
}
_XAOD_TRACK = {
    "theta": "theta",
    "phi": "phi",
    "q_over_p": "qOverP",
    "d0": "d0",
    "z0": "z0",
    "chi2": "chiSquared",
}
_XAOD_JET = {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "m"}


class Objects(NamedTuple):
    """What belongs to the clusters of a range of events; every array has one entry an event.

    A field that the file does not have is left out and named in `missing`. Energies, momenta and
    masses are in GeV, d0 and z0 in mm.
    """

    # records: run_number, event_number, lumi_block, mc_event_number, mc_channel_number, weight,
    # ..._interactions, n_vertices
    event: ak.Array
    truth: ak.Array  # lists of records: pdg_id, status, barcode, pt, e, mass, eta, phi
    # lists of records: pt, p, mass or charge, eta, phi, d0, z0, chi2, truth_index, and eta_<layer>,
    # phi_<layer>: NaN if not reached
    tracks: ak.Array
    jets: dict[str, ak.Array]  # by container; lists of records: pt, eta, phi, e, and mass
    # what could not be read, as "tracks.d0" or "jets.AntiKt4TruthJets", and why
    missing: dict[str, str]


def read_objects(
    path: PathLike,
    *,
    entry_start: int = 0,
    entry_stop: int | None = None,
    truth: Sequence[str] | None = None,
    tracks: str = "InDetTrackParticles",
    jets: Sequence[str] | None = None,
) -> Objects:
    """Events, truth particles, tracks and jets of a file.

    Parameters
    ----------
    path : path-like
        File or URL: MLTree (``EventTree``), or AOD, DAOD, PHYSLITE (``CollectionTree``).
    entry_start, entry_stop : int
        Range of events, half open.
    truth : sequence of str, optional
        Containers of truth particles of an xAOD file, one after the other in each event. By default
        TruthParticles or, where there are none as in PHYSLITE, electrons, muons, taus, photons and
        neutrinos; not what they come from (TruthBoson, TruthTop, ...).
    tracks : str
        Container of tracks of an xAOD file. Such files hold no extrapolations to the calorimeter.
    jets : sequence of str, optional
        Containers of jets; by default all whose names end with Jets.

    Raises
    ------
    BadFileError
        If the file cannot be read, has neither tree, or vectors of one object differ in length.
    """
    trees = root_trees(path)
    with open_sample(path) as file:
        name = next((name for name in (EVENT_TREE, *TREES) if name in trees), None)
        if name is None:
            raise BadFileError(
                f"{path}: no tree {EVENT_TREE} (MLTree) or {TREES[0]} (xAOD); the file has "
                f"{', '.join(trees) or 'no tree at all'}"
            )
        tree = get_tree(path, file, name)
        n_entries = int(tree.num_entries)
        stop = n_entries if entry_stop is None else min(entry_stop, n_entries)
        source = _Source(path, tree, (min(entry_start, stop), stop))
        return _mltree(source, jets) if name == EVENT_TREE else _xaod(source, truth, tracks, jets)


def mltree_objects(path: PathLike, tree: Any, entry_start: int, entry_stop: int) -> Objects:
    """What `read_objects` gives of a range of events of an open EventTree, without jets: for those
    who read many ranges, as to open a large file takes seconds.
    """
    return _mltree(_Source(path, tree, (entry_start, entry_stop)), ())


class _Source:
    """A range of events of a tree, and what was not found in it."""

    def __init__(self, path: PathLike, tree: Any, entries: tuple[int, int]) -> None:
        self.path, self.tree, self.entries = path, tree, entries
        self.branches = frozenset(tree.keys())
        self.missing: dict[str, str] = {}

    def fields(
        self, of: str, wanted: Mapping[str, str | None], *, depth: int
    ) -> dict[str, ak.Array]:
        """Arrays of the branches that are there and hold numbers; the others are noted."""
        usable: dict[str, str] = {}
        for field, branch in wanted.items():
            if branch is None or branch not in self.branches:
                what = f"branch {branch}" if branch else "such variable"
                self.missing[f"{of}.{field}"] = f"the file has no {what}"
                continue
            try:
                require_numbers(self.path, self.tree, [branch], depth=depth)
                usable[field] = branch
            except BadFileError as error:
                self.missing[f"{of}.{field}"] = str(error).removeprefix(f"{self.path}: ")
        arrays = (
            read_branches(self.path, self.tree, list(usable.values()), *self.entries)
            if usable
            else {}
        )
        found = {field: arrays[branch] for field, branch in usable.items()}
        counts = [ak.to_numpy(ak.num(array)) for array in found.values()] if depth else []
        for branch, own in zip(usable.values(), counts, strict=False):
            names = (branch, next(iter(usable.values())))
            entry = np.arange(*self.entries)
            require_equal_lengths(self.path, self.tree.name, entry, (own, counts[0]), names)
        return found

    def records(self, fields: Mapping[str, ak.Array]) -> ak.Array:
        """Lists of records; no fields give empty lists."""
        if not fields:
            return ak.Array([[]] * (self.entries[1] - self.entries[0]))
        single = {  # real numbers are kept in single precision
            field: ak.values_astype(array, np.float32)
            if "float64" in str(ak.type(array))
            else array
            for field, array in fields.items()
        }
        return ak.zip(single, depth_limit=2)

    def events(self, fields: Mapping[str, ak.Array]) -> ak.Array:
        return (
            ak.zip(dict(fields), depth_limit=1)
            if fields
            else ak.Array([{}] * (self.entries[1] - self.entries[0]))
        )


def _mltree(source: _Source, jets: Sequence[str] | None) -> Objects:
    event = source.fields(
        "event",
        {field: names[0] for field, names in _EVENT.items()} | {"n_vertices": "NPV"},
        depth=0,
    )
    truth = source.fields(
        "truth", {field: f"truthPart{name}" for field, name in _TRUTH.items()}, depth=1
    )
    layers = sorted(
        {
            match[1]
            for branch in source.branches
            if (match := re.fullmatch(r"track(?:Eta|Phi)_(\w+)", branch))
        }
    )
    reach = {
        f"{axis.lower()}_{layer}": f"track{axis}_{layer}"
        for layer in layers
        for axis in ("Eta", "Phi")
    }
    tracks = source.fields(
        "tracks", {field: f"track{name}" for field, name in _TRACK.items()} | reach, depth=1
    )
    if not reach:
        source.missing["tracks.extrapolations"] = "the file has no branches trackEta_<layer>"
    tracks |= {
        field: ak.where(tracks[field] < NOT_REACHED, np.float32(np.nan), tracks[field])
        for field in reach
        if field in tracks
    }
    found = sorted(
        {
            match[1]
            for branch in source.branches
            if (match := re.fullmatch(r"(\w+Jets)(?:Pt|Eta|Phi|E)", branch))
        }
    )
    arrays = {
        name: source.fields(
            f"jets.{name}", {field: name + end for field, end in _JET.items()}, depth=1
        )
        for name in (found if jets is None else jets)
    }
    records = {name: source.records(fields) for name, fields in arrays.items() if fields}
    return Objects(
        source.events(event), source.records(truth), source.records(tracks), records, source.missing
    )


def _xaod(
    source: _Source, truth: Sequence[str] | None, tracks: str, jets: Sequence[str] | None
) -> Objects:
    known = variables(source.branches)

    def fields(
        of: str,
        container: str,
        wanted: Mapping[str, str],
        derive: Callable[[dict[str, ak.Array]], dict[str, ak.Array]],
    ) -> ak.Array | None:
        """A container, if it has what `derive` needs."""
        branches = {field: known.get(container, {}).get(name) for field, name in wanted.items()}
        if container not in known:
            source.missing[of] = f"the file has no container {container}"
            return None
        found = source.fields(of, branches, depth=1)
        try:
            return source.records(derive(found))
        except KeyError as error:
            for field in wanted:
                source.missing.pop(f"{of}.{field}", None)
            source.missing[of] = (
                f"{container} has no {wanted[error.args[0]]}; variables are left out where a "
                "container is empty in all events"
            )
            return None

    nothing = source.records({})
    names = truth or (("TruthParticles",) if "TruthParticles" in known else LEPTONS)
    particles = [
        array
        for name in names
        if (array := fields(f"truth.{name}", name, _XAOD_TRUTH, _particles)) is not None
    ]
    found = sorted(name for name in known if name.endswith("Jets"))
    records = {
        name: array
        for name in (found if jets is None else jets)
        if (array := fields(f"jets.{name}", name, _XAOD_JET, _jets)) is not None
    }
    track_records = fields("tracks", tracks, _XAOD_TRACK, _tracks)
    source.missing["tracks.extrapolations"] = "xAOD files do not hold them"
    source.missing["tracks.truth_index"] = (
        "xAOD files hold links to containers that only Athena can resolve"
    )
    event = _event(source, known.get("EventInfo", {}))
    joined = ak.concatenate(particles, axis=1) if particles else nothing
    return Objects(
        event, joined, nothing if track_records is None else track_records, records, source.missing
    )


def _event(source: _Source, known: Mapping[str, str]) -> ak.Array:
    """EventInfo; the weight is the first of the event's weights, NaN where it has none."""
    branches = {field: known.get(names[1]) for field, names in _EVENT.items()}
    weight = source.fields("event", {"weight": branches.pop("weight")}, depth=1)
    event = source.fields("event", branches, depth=0)
    event |= {
        field: ak.fill_none(ak.firsts(array), np.float32(np.nan)) for field, array in weight.items()
    }
    source.missing["event.n_vertices"] = "xAOD files hold the vertices instead"
    return source.events(event)


def _particles(found: dict[str, ak.Array]) -> dict[str, ak.Array]:
    px, py, pz = (
        ak.values_astype(found.pop(name), np.float64) * GEV for name in ("px", "py", "pz")
    )
    pt = np.hypot(px, py)
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(pz / pt)
    scaled = {name: found[name] * np.float32(GEV) for name in ("e", "mass") if name in found}
    return found | scaled | {"pt": pt, "eta": eta, "phi": np.arctan2(py, px)}


def _tracks(found: dict[str, ak.Array]) -> dict[str, ak.Array]:
    theta, q_over_p = (
        ak.values_astype(found.pop(name), np.float64) for name in ("theta", "q_over_p")
    )
    with np.errstate(divide="ignore"):
        p = GEV / np.abs(q_over_p)
    charge = ak.values_astype(np.sign(q_over_p), np.int32)
    return {
        "pt": p * np.sin(theta),
        "p": p,
        "eta": -np.log(np.tan(0.5 * theta)),
        "charge": charge,
    } | found


def _jets(found: dict[str, ak.Array]) -> dict[str, ak.Array]:
    pt, mass = (ak.values_astype(found.pop(name), np.float64) * GEV for name in ("pt", "mass"))
    p = pt * np.cosh(ak.values_astype(found["eta"], np.float64))
    return {
        "pt": pt,
        "eta": found["eta"],
        "phi": found["phi"],
        "e": np.sqrt(p**2 + np.sign(mass) * mass**2),
        "mass": mass,
    }
