"""Events for particle flow from MLTree files, pfcalib's own or the user's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.lcw_tables import CELLS_READ, SCALARS_READ, LcwTables
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError
from pfcalib.particleflow.event import (
    HARD_SCATTER,
    NO_VERTEX,
    Event,
    FlowClusters,
    FlowTruth,
    Tracks,
)
from pfcalib.samples.layouts.mltree import EVENT_TREE
from pfcalib.samples.layouts.protocol import ENTRY, Reader
from pfcalib.samples.layouts.recognise import open_reader
from pfcalib.samples.objects import mltree_objects
from pfcalib.samples.rootfile import (
    PathLike,
    get_tree,
    open_sample,
    read_branches,
    require_numbers,
)
from pfcalib.samples.schema import CellGeo, Sample

STEP = 200  # events in memory at once
VERTEX_CUT = 2.0  # mm, |z0 sin(theta)| of tracks of the hard scattering (arXiv:1703.10485)
HITS = ("hitCell", "hitParticle", "hitSignal", "hitE")
_COLUMNS = (
    "clusterE",
    "clusterEta",
    "clusterPhi",
    "cluster_cell_ID",
    "cluster_cell_E",
    "eventNumber",
)
_NEEDED = ("pt", "eta", "phi", "z0", "eta_EMB2", "phi_EMB2")
_VERTICES = ("trackVertex", "truthPartVertex")  # of pfcalib's simulation


class _Flat(NamedTuple):
    """Columns of many events one after the other, and where each event begins."""

    columns: dict[str, NDArray[Any]]
    offsets: NDArray[np.int64]

    def of(self, event: int) -> dict[str, NDArray[Any]]:
        rows = slice(self.offsets[event], self.offsets[event + 1])
        return {name: values[rows] for name, values in self.columns.items()}


def read_cells(path: PathLike) -> CellGeo:
    """The cells of a file of events.

    Raises
    ------
    BadFileError
        If the file is no MLTree or has no cells.
    """
    with open_reader(path) as reader:
        return _require_layout(path, reader).geo


def count_events(path: PathLike) -> int:
    """Number of events of a file; errors as of `read_cells`."""
    with open_reader(path) as reader:
        return _require_layout(path, reader).n_entries


def iterate_events(
    path: PathLike,
    *,
    tables: LcwTables | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = STEP,
) -> Iterator[Event]:
    """Events of a file one by one.

    Parameters
    ----------
    path : path-like
        MLTree with clusters, their cells, and tracks with extrapolations. Without the branch
        trackVertex a track is of the hard scattering if abs(z0 sin(theta)) < VERTEX_CUT. Truth is
        there if the file has the branches HITS.
    tables : LcwTables, optional
        Local cell weighting that makes the calibrated scale; by default that of the file,
        cluster_E_LCCalib, or none.
    start, stop : int
        Range of events, half open.
    step : int
        Events in memory at once.

    Raises
    ------
    BadFileError
        If the file cannot be read, lacks a branch, or refers to a cell that it does not have.
    """
    with open_reader(path) as reader, open_sample(path) as file:
        _require_layout(path, reader)
        tree = get_tree(path, file, EVENT_TREE)
        end = reader.n_entries if stop is None else min(stop, reader.n_entries)
        wanted = [*_COLUMNS, "clusterECalib"]
        if tables is not None:
            wanted += [*SCALARS_READ, *CELLS_READ]
        for first in range(start, end, step):
            last = min(first + step, end)
            sample = reader.read(first, last, list(dict.fromkeys(wanted)))
            yield from _events(path, tree, sample, first, last, tables)


def _require_layout(path: PathLike, reader: Reader) -> Reader:
    if reader.tree != EVENT_TREE or not len(reader.geo):
        raise BadFileError(
            f"{path}: particle flow needs an MLTree ({EVENT_TREE}) with cells, found "
            f"{reader.layout} with {len(reader.geo)} cells"
        )
    return reader


def _events(
    path: PathLike, tree: Any, sample: Sample, first: int, last: int, tables: LcwTables | None
) -> Iterator[Event]:
    """Events of a chunk whose clusters were read."""
    n = last - first
    objects = mltree_objects(path, tree, first, last)
    names = set(objects.tracks.fields)
    if missing := [name for name in _NEEDED if name not in names]:
        reasons = "; ".join(objects.missing.get(f"tracks.{name}", name) for name in missing)
        raise BadFileError(f"{path}: particle flow needs tracks: {reasons}")
    extra = _read_extra(path, tree, first, last)
    tracks, truth = _flat(objects.tracks), _flat(objects.truth)
    if "trackVertex" in extra:
        tracks.columns["vertex"] = _matching(path, extra["trackVertex"], tracks, "trackVertex")
    if "truthPartVertex" in extra:
        truth.columns["vertex"] = _matching(
            path, extra["truthPartVertex"], truth, "truthPartVertex"
        )
    hits = None
    if all(name in extra for name in HITS):
        hits = _flat(ak.zip({name: extra[name] for name in HITS}))
        hits.columns["hitCell"] = _rows(path, sample.geo, hits, first)
    clusters = _clusters(path, sample, first, n, tables)
    of = objects.event
    for i in range(n):
        yield Event(
            int(of.event_number[i]) if "event_number" in of.fields else first + i,
            float(of.weight[i]) if "weight" in of.fields else 1.0,
            float(of.average_interactions[i]) if "average_interactions" in of.fields else 0.0,
            _tracks_of(tracks.of(i)),
            clusters[i],
            None if hits is None else _truth_of(truth.of(i), hits.of(i)),
        )


def _read_extra(path: PathLike, tree: Any, first: int, last: int) -> dict[str, ak.Array]:
    """Branches of pfcalib's simulation that other files do not have."""
    there = [name for name in (*_VERTICES, *HITS) if name in set(tree.keys())]
    require_numbers(path, tree, there, depth=1)
    arrays = read_branches(path, tree, there, first, last) if there else {}
    return {name: arrays[name] for name in there}


def _flat(records: ak.Array) -> _Flat:
    """Columns of lists of records."""
    counts = ak.to_numpy(ak.num(records))
    columns = {name: ak.to_numpy(ak.flatten(records[name])) for name in records.fields}
    return _Flat(columns, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _matching(path: PathLike, array: ak.Array, flat: _Flat, name: str) -> NDArray[Any]:
    """A vector with as many values as the others."""
    if not np.array_equal(ak.to_numpy(ak.num(array)), np.diff(flat.offsets)):
        raise BadFileError(f"{path}: {EVENT_TREE}: {name} and the other vectors differ in length")
    return ak.to_numpy(ak.flatten(array))


def _rows(path: PathLike, geo: CellGeo, hits: _Flat, first: int) -> NDArray[np.int64]:
    row = geo.rows(hits.columns["hitCell"])
    if not (known := row >= 0).all():
        bad = int(np.argmin(known))
        event = first + int(np.searchsorted(hits.offsets, bad, side="right")) - 1
        raise BadFileError(
            f"{path}: {EVENT_TREE}: entry {event}: hitCell {hits.columns['hitCell'][bad]} is not "
            "in CellGeo"
        )
    return row


def _clusters(
    path: PathLike, sample: Sample, first: int, n: int, tables: LcwTables | None
) -> list[FlowClusters]:
    """Clusters of each of n events."""
    energy = sample["clusterE"].astype(np.float64)
    cell, cell_energy = (
        sample.geo.rows(sample.cells["cluster_cell_ID"]),
        sample.cells["cluster_cell_E"].astype(np.float64),
    )
    entry = sample[ENTRY] - first
    owner = np.repeat(entry, np.diff(sample.offsets))
    if not (known := cell >= 0).all():
        bad = int(np.argmin(known))
        raise BadFileError(
            f"{path}: {EVENT_TREE}: entry {first + owner[bad]}: cluster_cell_ID "
            f"{sample.cells['cluster_cell_ID'][bad]} is not in CellGeo"
        )
    # the share of a cluster in a cell is its energy there over that of all clusters
    keys, place = np.unique(owner * len(sample.geo) + cell, return_inverse=True)
    total = np.bincount(place, cell_energy, len(keys))[place]
    alone = np.bincount(place, minlength=len(keys))[place] == 1
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(alone | (total == 0.0), 1.0, cell_energy / total)
    calibrated = None
    if tables is not None:
        calibrated = tables.apply(sample).full
    elif "clusterECalib" in sample.scalars:
        calibrated = sample["clusterECalib"].astype(np.float64)
    scale = np.ones(len(energy))
    if calibrated is not None:
        np.divide(calibrated, energy, out=scale, where=energy > 0.0)
    bounds = np.searchsorted(entry, np.arange(n + 1))
    found = []
    for i in range(n):
        rows = slice(bounds[i], bounds[i + 1])
        offsets = sample.offsets[bounds[i] : bounds[i + 1] + 1]
        cells = slice(offsets[0], offsets[-1])
        eta, phi = (sample[f"cluster{name}"][rows].astype(np.float64) for name in ("Eta", "Phi"))
        found.append(
            FlowClusters(
                energy[rows], eta, phi, scale[rows], offsets - offsets[0],
                cell[cells], cell_energy[cells], weight[cells],
            )
        )  # fmt: skip
    return found


def _tracks_of(columns: dict[str, NDArray[Any]]) -> Tracks:
    n = len(columns["pt"])

    def real(name: str, otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
        return columns[name].astype(np.float64) if name in columns else otherwise

    pt, eta, z0 = (columns[name].astype(np.float64) for name in ("pt", "eta", "z0"))
    nothing = np.full(n, np.nan)
    eta_at, phi_at = (
        np.stack([real(f"{axis}_{layer}", nothing) for layer in LAYER_NAMES], axis=1)
        for axis in ("eta", "phi")
    )
    # where the file has no vertices
    near = np.where(np.abs(z0) / np.cosh(eta) < VERTEX_CUT, HARD_SCATTER, NO_VERTEX)
    vertex, particle = columns.get("vertex", near), columns.get("truth_index", np.full(n, -1))
    return Tracks(
        pt, real("p", pt * np.cosh(eta)), eta, columns["phi"].astype(np.float64),
        real("d0", nothing), z0, vertex.astype(np.int64), eta_at, phi_at, particle.astype(np.int64),
    )  # fmt: skip


def _truth_of(particles: dict[str, NDArray[Any]], hits: dict[str, NDArray[Any]]) -> FlowTruth:
    n = len(particles["e"])
    energy, pt, eta, phi = (
        particles[name].astype(np.float64) for name in ("e", "pt", "eta", "phi")
    )
    vertex = particles.get("vertex", np.zeros(n, dtype=np.int64)).astype(np.int64)
    signal, deposit = (hits[name].astype(np.float64) for name in ("hitSignal", "hitE"))
    return FlowTruth(
        particles["pdg_id"].astype(np.int64), energy, pt, eta, phi, vertex,
        hits["hitCell"], hits["hitParticle"].astype(np.int64), signal, deposit,
    )  # fmt: skip
