"""Jets of clusters, of particle-flow objects and of truth particles for all events of a file, in
several processes; kept in the cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, file_sha256, locked, new_file
from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.calibration.lcw import LcwTables
from pfcalib.calibration.rings import RingCells, ring_cells
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.particleflow.files import count_events, iterate_events, read_cells
from pfcalib.particleflow.flow import (
    Inputs,
    cluster_inputs,
    flow_inputs,
    run_flow,
    truth_inputs,
)
from pfcalib.particleflow.jets import (
    JetPairs,
    Jets,
    find_jets,
    match_jets,
    pile_up_density,
    subtract_pile_up,
)
from pfcalib.particleflow.jetscale import JetScale, fit_jet_scale
from pfcalib.particleflow.methods import build_method
from pfcalib.particleflow.one_network import open_one_network, particle_inputs
from pfcalib.particleflow.truth import require_truth
from pfcalib.samples.rootfile import content_id
from pfcalib.simulation.pileup import in_order

ETA_MAX = -BARREL.eta_min  # where the calorimeter ends
RECO_PT, TRUTH_PT = 2.0, 4.0  # GeV, softest jets before anything is subtracted
RANGE = 1000  # events a process takes at once; to open a large file takes seconds
TRUTH = "truth"
_COLUMNS = ("n", "pt", "eta", "phi", "charged", "density")  # of jets in the cache


class Kind(NamedTuple):
    """What jets are made of: clusters, or objects of a subtraction."""

    subtraction: str = ""  # of `particleflow.methods.build_method`; none for clusters
    calibrated: bool = False  # clusters, or neutral objects, at the scale of local cell weighting
    shares: str = ""  # ONNX file of a learned subtraction
    deposit: str = "table"  # of `build_method`: what tracks are expected to leave
    network: str = ""  # ONNX file of a deposit by a network


class JetSet(NamedTuple):
    """Jets of all events of a file, of one kind, without masses, areas and constituents."""

    jets: Jets
    density: NDArray[np.float64]  # (n_events,) GeV a unit of area, that was subtracted
    charged: NDArray[np.float64]  # (n_jets,) share of pT of charged constituents; NaN of clusters


class FileOfJets(NamedTuple):
    """Jets of all kinds of the events of a file."""

    number: NDArray[np.int64]  # (n_events,)
    weight: NDArray[np.float64]  # (n_events,)
    z_pt: NDArray[np.float64]  # (n_events,) GeV of the two hardest muons, as tracks; NaN without
    z_phi: NDArray[np.float64]  # rad
    sets: dict[str, JetSet]  # by kind, and TRUTH


def find_flow_jets(
    path: Path,
    kinds: Mapping[str, Kind],
    *,
    eoverp: Path,
    lcw: Path,
    n_processes: int = 1,
    radius: float = 0.4,
    progress: Callable[[int], None] | None = None,
) -> FileOfJets:
    """Jets of each kind with pile-up subtracted by area, and truth jets.

    Parameters
    ----------
    path : path
        Events with truth.
    kinds : mapping of str to Kind
    eoverp, lcw : path
        Tables of E/p and of local cell weighting.
    n_processes : int
    radius : float
    progress : callable, optional
        Is told how many more events are done.

    Raises
    ------
    ConfigError
        If a kind has the name of truth jets.
    """
    if TRUTH in kinds:
        raise ConfigError(f"no kind of jets can be called {TRUTH!r}: truth jets are")
    inputs = [content_id(path), file_sha256(eoverp), file_sha256(lcw)]
    networks = [
        file_sha256(path) for kind in kinds.values() for path in (kind.shares, kind.network) if path
    ]
    named = {name: kind._replace(shares="", network="") for name, kind in kinds.items()}
    key = cache_key("particleflow", inputs=inputs, networks=networks, kinds=named, radius=radius)
    target = cache_folder() / "jets" / f"{path.stem}-{key}.npz"
    with locked(target):
        if not target.exists():
            n_events, parts = count_events(path), []
            n_parts = n_processes * math.ceil(n_events / (RANGE * n_processes))
            edges = np.linspace(0, n_events, n_parts + 1).astype(int).tolist()
            work = functools.partial(
                _range, path, ring_cells(read_cells(path)), dict(kinds), eoverp, lcw, radius
            )
            for part in in_order(work, pairwise(edges), n_processes):
                parts.append(part)
                if progress is not None:
                    progress(len(part["number"]))
            joined: dict[str, Any] = {
                name: np.concatenate([part[name] for part in parts]) for name in parts[0]
            }
            with new_file(target) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **joined)
    return _unpacked(target)


def _range(
    path: Path, cells: RingCells, kinds: dict[str, Kind], eoverp: Path, lcw: Path, radius: float,
    events: tuple[int, int],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Columns of the jets of some events."""
    table = EoverPTable.load(eoverp)
    methods = {
        name: build_method(
            kind.subtraction, deposit=kind.deposit, table=table, shares=kind.shares or None,
            network=kind.network or None,
        )
        for name, kind in kinds.items()
        if kind.subtraction
    }  # fmt: skip
    inputs: dict[str, list[Inputs]] = {name: [] for name in (*kinds, TRUTH)}
    rows = []
    start, stop = events
    for event in iterate_events(path, tables=LcwTables.load(lcw), start=start, stop=stop):
        rows.append((event.number, event.weight, *_muons(event)))
        for name, kind in kinds.items():
            if kind.subtraction:
                objects = run_flow(event, cells, methods[name])
                found = flow_inputs(event, objects, calibrated=kind.calibrated)
            else:
                found = cluster_inputs(event, calibrated=kind.calibrated)
            inputs[name].append(found)
        inputs[TRUTH].append(truth_inputs(event))
    names = ("number", "weight", "z_pt", "z_phi")
    columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    for name, of in inputs.items():
        pt_min = TRUTH_PT if name == TRUTH else RECO_PT
        columns |= _jets(name, of, radius, pt_min, has_area=name != TRUTH)
    return columns


def find_network_jets(
    path: Path,
    network: Path,
    *,
    lcw: Path,
    n_processes: int = 1,
    radius: float = 0.4,
    every: int = 1,
    progress: Callable[[int], None] | None = None,
) -> JetSet:
    """Jets of the particles that one network makes of tracks and clusters, with pile-up subtracted
    by area, see `one_network`.

    Parameters
    ----------
    path : path
        Events.
    network : path
        ONNX file of `pfcalib.training.elementfit`.
    lcw : path
        Tables of local cell weighting.
    n_processes : int
    radius : float
    every : int
        Only each so manieth event, as the events of a file lie in it by slice.
    progress : callable, optional
        Is told how many more events are done.
    """
    inputs = [content_id(path), file_sha256(network), file_sha256(lcw)]
    key = cache_key("particleflow", inputs=inputs, radius=radius, every=every)
    target = cache_folder() / "jets" / f"{path.stem}-{network.stem}-{key}.npz"
    with locked(target):
        if not target.exists():
            stop = count_events(path)
            n_parts = n_processes * math.ceil(stop / (RANGE * n_processes))
            edges = np.linspace(0, stop, n_parts + 1).astype(int).tolist()
            cells, found = ring_cells(read_cells(path)), []
            work = functools.partial(_network_range, path, cells, network, lcw, every)
            for part in in_order(work, pairwise(edges), n_processes):
                found += part
                if progress is not None:
                    progress(len(part))
            columns = _jets(network.stem, found, radius, RECO_PT, has_area=True)
            with new_file(target) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **columns)  # type: ignore[arg-type]
    with np.load(target) as stored:
        return _jet_set({name: stored[f"{network.stem}/{name}"] for name in _COLUMNS})


def _network_range(
    path: Path, cells: RingCells, network: Path, lcw: Path, every: int, events: tuple[int, int]
) -> list[Inputs]:
    """What jets are made of in each so manieth of some events."""
    flow, (start, stop) = open_one_network(network), events
    read = iterate_events(path, tables=LcwTables.load(lcw), start=start, stop=stop)
    chosen = islice(read, -start % every, None, every)
    return [particle_inputs(flow(event, cells)) for event in chosen]


def each_nth(found: FileOfJets, every: int) -> FileOfJets:
    """Jets of each so manieth event of a file."""
    sets, step = {}, slice(None, None, every)
    for name, (jets, density, charged) in found.sets.items():
        sizes = np.diff(jets.offsets)
        rows = np.repeat(np.arange(len(sizes)) % every == 0, sizes)
        part = jets._replace(
            offsets=np.concatenate([[0], np.cumsum(sizes[step])]).astype(np.int64),
            pt=jets.pt[rows], eta=jets.eta[rows], phi=jets.phi[rows], mass=jets.mass[rows],
        )  # fmt: skip
        sets[name] = JetSet(part, density[step], charged[rows])
    number, weight, z_pt, z_phi, _ = found
    return FileOfJets(number[step], weight[step], z_pt[step], z_phi[step], sets)


def _jet_set(of: Mapping[str, NDArray[Any]]) -> JetSet:
    """Jets from their columns."""
    offsets = np.concatenate([[0], np.cumsum(of["n"])]).astype(np.int64)
    nothing = np.zeros(len(of["pt"]))
    jets = Jets(offsets, of["pt"], of["eta"], of["phi"], nothing, np.zeros((0, 4)), ak.Array([]))
    return JetSet(jets, of["density"], of["charged"])


def _muons(event: Any) -> tuple[float, float]:
    """pT and phi of the two hardest tracks that are muons of the hard scattering."""
    truth, tracks = require_truth(event), event.tracks
    known = tracks.particle >= 0
    is_muon = np.zeros(len(known), dtype=np.bool_)
    is_muon[known] = np.abs(truth.pdg_id[tracks.particle[known]]) == 13
    rows = np.flatnonzero(is_muon & (tracks.vertex == 0))
    rows = rows[np.argsort(-tracks.pt[rows])[:2]]
    if len(rows) < 2:
        return np.nan, np.nan
    momentum = np.sum(tracks.pt[rows] * np.exp(1j * tracks.phi[rows]))
    return float(np.abs(momentum)), float(np.angle(momentum))


def _jets(
    name: str, inputs: list[Inputs], radius: float, pt_min: float, *, has_area: bool
) -> dict[str, NDArray[Any]]:
    """Columns of the jets of one kind."""
    offsets = np.concatenate([[0], np.cumsum([len(of.e) for of in inputs])])
    px, py, pz, e, is_charged = (np.concatenate(column) for column in zip(*inputs, strict=True))
    area_eta = ETA_MAX if has_area else None
    jets = find_jets(px, py, pz, e, offsets, radius=radius, pt_min=pt_min, area_eta=area_eta)
    owner = np.repeat(np.arange(len(jets.pt)), ak.to_numpy(ak.num(jets.constituents)))
    rows, pt = ak.to_numpy(ak.flatten(jets.constituents)), np.hypot(px, py)
    sums = [np.bincount(owner, w[rows], len(jets.pt)) for w in (pt * is_charged, pt)]
    found = {"charged": sums[0] / np.maximum(sums[1], 1e-9), "density": np.zeros(len(inputs))}
    if has_area:
        found["density"] = pile_up_density(px, py, pz, e, offsets, eta_max=ETA_MAX)
        jets = subtract_pile_up(jets, found["density"])
    found |= {"n": np.diff(jets.offsets), "pt": jets.pt, "eta": jets.eta, "phi": jets.phi}
    return {f"{name}/{column}": values for column, values in found.items()}


def _unpacked(path: Path) -> FileOfJets:
    """Jets of a file of the cache."""
    with np.load(path) as stored:
        columns = {name: stored[name] for name in stored.files}
    sets = {}
    for name in dict.fromkeys(full.partition("/")[0] for full in columns if "/" in full):
        of = {
            column: columns[f"{name}/{column}"]
            for column in ("n", "pt", "eta", "phi", "charged", "density")
        }
        offsets = np.concatenate([[0], np.cumsum(of["n"])]).astype(np.int64)
        nothing = np.zeros(len(of["pt"]))
        jets = Jets(
            offsets, of["pt"], of["eta"], of["phi"], nothing, np.zeros((0, 4)), ak.Array([])
        )
        sets[name] = JetSet(jets, of["density"], of["charged"])
    return FileOfJets(columns["number"], columns["weight"], columns["z_pt"], columns["z_phi"], sets)


class Calibrated(NamedTuple):
    """Jets of one kind with a scale of their own, and the truth jets that they are matched to."""

    jets: Jets
    pairs: JetPairs


def fit_pair_scale(
    jets: Jets, truth: Jets, pairs: JetPairs, used: NDArray[np.bool_] | slice, *,
    pt_range: tuple[float, float], min_count: int,
) -> JetScale:  # fmt: skip
    """Scale of one kind of jets from some of the matched pairs, see `jetscale.fit_jet_scale`."""
    return fit_jet_scale(
        jets.pt[pairs.reco[used]], truth.pt[pairs.truth[used]],
        pt_min=pt_range[0], pt_max=pt_range[1], min_count=min_count,
    )  # fmt: skip


def calibrate_jets(
    found: FileOfJets, *, pt_range: tuple[float, float], min_count: int, radius: float = 0.4
) -> dict[str, Calibrated]:
    """Jets of each kind with a scale that is fitted to every other event and applied to the rest,
    and the other way round, so that no jet is calibrated by itself.

    Parameters
    ----------
    found : FileOfJets
    pt_range : (float, float), GeV
        True pT in which the scale is fitted.
    min_count : int
        Jets that a bin of it needs.
    radius : float
        Of the jets; matched are those so far inside of the calorimeter.
    """
    truth = found.sets[TRUTH].jets
    made = {}
    for name, of in found.sets.items():
        if name == TRUTH:
            continue
        pairs = match_jets(of.jets, truth, eta_max=ETA_MAX - radius, radius=radius)
        pt = np.zeros_like(of.jets.pt)
        for half in (0, 1):
            used = truth.event[pairs.truth] % 2 != half
            scale = fit_pair_scale(
                of.jets, truth, pairs, used, pt_range=pt_range, min_count=min_count
            )
            here = of.jets.event % 2 == half
            pt[here] = scale.apply(of.jets.pt[here])
        made[name] = Calibrated(of.jets._replace(pt=pt), pairs)
    return made


def common_jets(
    calibrated: Mapping[str, Calibrated],
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Truth jets that are matched in all kinds, and the jet of each kind that they are matched to;
    rows.
    """
    rows = functools.reduce(np.intersect1d, (pairs.truth for _, pairs in calibrated.values()))
    return rows, {
        name: pairs.reco[np.searchsorted(pairs.truth, rows)]
        for name, (_, pairs) in calibrated.items()
    }
