"""Objects of particle flow in a file, and decisions that are made again from them without cells.

write_objects("objects.root", flow_of_events, {"subtraction": "rings"})
for event in read_stored("objects.root"):
    event = decide_again(event, FlowConfig(pt_max=10.0))
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.particleflow.event import Event, FloatArray, IntArray
from pfcalib.particleflow.flow import FlowObjects, Links, Neutrals
from pfcalib.particleflow.match import (
    DENSE,
    SUBTRACTED,
    UNMATCHED,
    UNSELECTED,
    FlowConfig,
    is_dense,
)
from pfcalib.samples.rootfile import (
    PathLike,
    get_tree,
    open_sample,
    read_branches,
    require_branches,
    require_numbers,
)
from pfcalib.samples.schema import METADATA

FLOW_TREE = "FlowTree"  # one entry an event
CHUNK = 500  # events written and read at once


class StoredTracks(NamedTuple):
    """All tracks of an event with what was decided on them; arrays of shape (n_tracks,)."""

    pt: FloatArray  # GeV
    p: FloatArray  # GeV
    eta: FloatArray
    phi: FloatArray  # rad
    vertex: IntArray
    status: IntArray  # see `match`
    cluster: IntArray  # nearest one, -1 without
    distance: FloatArray  # its dR'
    mean: FloatArray  # GeV expected; NaN without a cluster
    sigma: FloatArray
    density: FloatArray  # GeV within the radius of the dense-environment veto


class StoredClusters(NamedTuple):
    """Clusters as they were; arrays of shape (n_clusters,)."""

    energy: FloatArray  # GeV at the EM scale
    scale: FloatArray  # calibrated over EM-scale energy


class StoredEvent(NamedTuple):
    """What is kept of an event: enough to undo what a track took, without its cells."""

    number: int
    weight: float
    tracks: StoredTracks
    clusters: StoredClusters
    neutrals: Neutrals
    links: Links


_PARTS: dict[str, Any] = {
    "track": StoredTracks,
    "cluster": StoredClusters,
    "neutral": Neutrals,
    "link": Links,
}
_WHOLE = ("track_vertex", "track_status", "track_cluster", "link_track", "link_cluster")


def stored(event: Event, objects: FlowObjects) -> StoredEvent:
    """What is kept of an event and its objects."""
    tracks, matches = event.tracks, objects.matches
    return StoredEvent(
        event.number,
        event.weight,
        StoredTracks(
            tracks.pt, tracks.p, tracks.eta, tracks.phi, tracks.vertex, matches.status,
            matches.cluster, matches.distance, matches.mean, matches.sigma, matches.density,
        ),
        StoredClusters(event.clusters.energy, event.clusters.scale),
        objects.neutrals,
        objects.links,
    )  # fmt: skip


def decide_again(event: StoredEvent, config: FlowConfig) -> StoredEvent:
    """The event as stricter cuts on pT, eta, dR' and dense surroundings make it: a track that fails
    them gives back what it took. The other cuts of the configuration need cells.

    What other tracks of the same clusters took stays as it was, so the outcome is exact where no
    two tracks share a cluster. The same cuts change nothing.

    Raises
    ------
    ConfigError
        If a track would be subtracted that was not: cells are needed for that.
    """
    tracks, of = event.tracks, event.tracks.cluster
    used = (tracks.pt > config.pt_min) & (tracks.pt < config.pt_max)
    used &= np.abs(tracks.eta) < config.eta_max
    near = tracks.distance < config.max_distance
    near |= (of < 0) & (tracks.status == SUBTRACTED)  # the ideal case and cones match no clusters
    dense = is_dense(tracks.density, tracks.mean, tracks.sigma, tracks.pt, config.dense_slope)
    status = np.where(dense, DENSE, SUBTRACTED)
    status = np.where(used, np.where(near, status, UNMATCHED), UNSELECTED)
    more = (status == SUBTRACTED) & (tracks.status != SUBTRACTED)
    if more.any():
        raise ConfigError(
            f"event {event.number}: track {int(np.argmax(more))} would be subtracted now and was "
            "not: cuts can only be made stricter without the cells"
        )
    back = ((tracks.status == SUBTRACTED) & (status != SUBTRACTED))[event.links.track]
    links, kept = (Links(*(column[which] for column in event.links)) for which in (back, ~back))
    return event._replace(
        tracks=tracks._replace(status=status),
        neutrals=_given_back(event.neutrals, links) if back.any() else event.neutrals,
        links=kept,
    )


def _given_back(neutrals: Neutrals, links: Links) -> Neutrals:
    """Neutral objects with the energy of links, at the common barycentre."""
    n, of = len(neutrals.energy), links.cluster
    energy = neutrals.energy + np.bincount(of, links.energy, n)
    size = neutrals.size + np.bincount(of, links.size, n)
    some = np.where(size > 0.0, size, 1.0)
    d_phi = np.mod(links.phi - neutrals.phi[of] + np.pi, 2.0 * np.pi) - np.pi
    d_eta = links.eta - neutrals.eta[of]
    eta = neutrals.eta + np.bincount(of, links.size * d_eta, n) / some
    phi = neutrals.phi + np.bincount(of, links.size * d_phi, n) / some
    return Neutrals(energy, size, eta, np.mod(phi + np.pi, 2.0 * np.pi) - np.pi)


def write_objects(
    path: str | os.PathLike[str],
    events: Iterable[tuple[Event, FlowObjects]],
    metadata: Mapping[str, Any],
) -> int:
    """Write objects event by event as vectors of the tree FlowTree; returns the number of events.

    Branches are the fields of `StoredTracks`, `StoredClusters`, `flow.Neutrals` and `flow.Links`
    with the prefixes track_, cluster_, neutral_ and link_, in double precision, and eventNumber and
    weight.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    events : iterable of (Event, FlowObjects)
    metadata : mapping
        JSON values, kept as a string.
    """
    n_events, pending = 0, []
    with (
        new_file(path) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(3)) as file,
    ):
        types: dict[str, Any] = {"eventNumber": np.dtype("int64"), "weight": np.dtype("float64")}
        for prefix, part in _PARTS.items():
            empty = ak.Array([[dict.fromkeys(part._fields, 0.0)]])
            for name in part._fields:
                if f"{prefix}_{name}" in _WHOLE:
                    empty[name] = ak.values_astype(empty[name], np.int64)
            types[prefix] = ak.to_packed(empty).type.content
        tree = file.mktree(FLOW_TREE, types, title="one entry an event")
        for event, objects in events:
            pending.append(stored(event, objects))
            n_events += 1
            if len(pending) == CHUNK:
                tree.extend(_columns(pending))
                pending = []
        if pending:
            tree.extend(_columns(pending))
        file[METADATA] = json.dumps(dict(metadata), sort_keys=True)
    return n_events


def _columns(events: list[StoredEvent]) -> dict[str, Any]:
    """Branches of a chunk; the fields of a part share one counter."""
    columns: dict[str, Any] = {
        "eventNumber": np.array([event.number for event in events], dtype=np.int64),
        "weight": np.array([event.weight for event in events], dtype=np.float64),
    }
    for prefix, part in _PARTS.items():
        parts = [getattr(event, f"{prefix}s") for event in events]
        counts = [len(of[0]) for of in parts]
        fields = {}
        for name in part._fields:
            dtype = np.int64 if f"{prefix}_{name}" in _WHOLE else np.float64
            values = np.concatenate([getattr(of, name) for of in parts]).astype(dtype)
            fields[name] = ak.unflatten(values, counts)
        columns[prefix] = ak.zip(fields)
    return columns


def read_stored(path: PathLike) -> Iterator[StoredEvent]:
    """Events of a file of `write_objects`.

    Raises
    ------
    BadFileError
        If the file cannot be read, or lacks the tree or a branch.
    """
    names = [f"{prefix}_{name}" for prefix, part in _PARTS.items() for name in part._fields]
    with open_sample(path) as file:
        tree = get_tree(path, file, FLOW_TREE)
        require_branches(path, tree, ["eventNumber", "weight", *names])
        require_numbers(path, tree, names, depth=1, whole=_WHOLE)
        for start in range(0, int(tree.num_entries), CHUNK):
            stop = min(start + CHUNK, int(tree.num_entries))
            arrays = read_branches(path, tree, ["eventNumber", "weight", *names], start, stop)
            flat = {name: ak.to_numpy(ak.flatten(arrays[name])) for name in names}
            for prefix, part in _PARTS.items():
                counts = [ak.to_numpy(ak.num(arrays[f"{prefix}_{name}"])) for name in part._fields]
                if any(not np.array_equal(counts[0], count) for count in counts):
                    raise BadFileError(
                        f"{path}: {FLOW_TREE}: entries {start} to {stop}: vectors {prefix}_... "
                        "differ in length"
                    )
                flat[prefix] = np.concatenate([[0], np.cumsum(counts[0])])
            for i in range(stop - start):
                yield StoredEvent(
                    int(arrays["eventNumber"][i]),
                    float(arrays["weight"][i]),
                    *(part(*_rows(flat, prefix, part, i)) for prefix, part in _PARTS.items()),
                )


def _rows(
    flat: Mapping[str, NDArray[Any]], prefix: str, part: Any, event: int
) -> list[NDArray[Any]]:
    rows = slice(flat[prefix][event], flat[prefix][event + 1])
    return [flat[f"{prefix}_{name}"][rows] for name in part._fields]
