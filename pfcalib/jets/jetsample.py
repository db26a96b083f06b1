"""Particle-flow jets of dijets with pile-up and the truth jets that they are matched to, with all
that a calibration may know of them; made part by part and kept.

Each part has a pile-up and a split of its own, and the test split its own pool of minimum bias, so
that neither a collision nor its pile-up is seen in two splits. The events themselves are not kept.
Jets lie at the EM scale, as the published ones: tracks by the rings of `particleflow`, the rest as
clusters are measured.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, scratch_folder
from pfcalib.calibration.rings import RingCells, ring_cells
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.jets.jetvariables import (
    POINT,
    VARIABLES,
    FloatArray,
    IntArray,
    Seen,
    jet_points,
    jet_variables,
    see,
    wrapped,
)
from pfcalib.particleflow.event import HARD_SCATTER, Event
from pfcalib.particleflow.files import iterate_events, read_cells
from pfcalib.particleflow.flow import Inputs, flow_inputs, run_flow, truth_inputs
from pfcalib.particleflow.jetfiles import ETA_MAX
from pfcalib.particleflow.jets import (
    MATCH_DISTANCE,
    NO_JET,
    JetPairs,
    Jets,
    find_jets,
    match_jets,
    nearest,
    pile_up_density,
    require_fastjet,
    subtract_pile_up,
)
from pfcalib.particleflow.methods import build_method
from pfcalib.particleflow.truth import require_truth
from pfcalib.samples.split import SPLITS
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.collisions import (
    MAX_SEED,
    CollisionConfig,
    do_shower,
    stable_particles,
    start_pythia,
)
from pfcalib.simulation.crossings import Chunk, EventsConfig, produce_events
from pfcalib.simulation.pileup import STAGES, cached_pool
from pfcalib.simulation.produce import FIELD
from pfcalib.simulation.pythia import pythia_version, require_pythia

GLUON, NO_PARTON = 21, 0
_TEST_POOL = 1000  # added to the seed of the pool of the test split
_OUTGOING = -23  # status in Pythia's record
_SOFTEST = 2.0  # GeV of jets, before and after the subtraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class JetSampleConfig:
    """Which jets to make.

    Parameters
    ----------
    n_parts : int
        Parts of the sample; parts of the three splits take turns, as do the values of mu.
    chunk : int
        Events of a part and slice.
    mus : tuple of float
        Mean number of interactions a crossing.
    pt_hat : tuple of float, GeV
        Edges of the slices of dijets.
    shares : tuple of int
        How many of a turn of parts belong to each of `samples.split.SPLITS`.
    radius, eta_max, pt_min : float
        Of jets, largest abs(eta) of the truth jets, and their softest pT in GeV.
    large_radius, large_eta_max, large_pt_min : float
        Likewise of large jets.
    n_points : int
        Constituents of a jet that are kept at most.
    n_pool : int
        Minimum-bias collisions that pile-up is drawn from.
    seed, n_processes : int
        The jets do not depend on the latter.
    """

    n_parts: int
    chunk: int = 10
    mus: tuple[float, ...] = (20.0, 40.0, 60.0)
    pt_hat: tuple[float, ...] = (12.0, 20.0, 32.0, 50.0, 80.0, 130.0, 250.0, 500.0)
    shares: tuple[int, int, int] = (6, 2, 2)
    radius: float = 0.4
    eta_max: float = 0.6
    pt_min: float = 10.0
    large_radius: float = 1.0
    large_eta_max: float = 0.3
    large_pt_min: float = 100.0
    n_points: int = 64
    n_pool: int = 2000
    seed: int = 1
    n_processes: int = 1

    def __post_init__(self) -> None:
        if self.n_parts < self.turn or min(self.shares) < 1 or self.chunk < 1:
            raise ConfigError(
                f"n_parts must be at least {self.turn}, one turn of splits and of pile-up, "
                f"shares and chunk at least 1, not {self.n_parts}, {self.shares}, {self.chunk}"
            )

    @property
    def turn(self) -> int:
        """Parts after which splits and pile-up come again."""
        return len(self.mus) * sum(self.shares)

    def split(self, number: int) -> int:
        """Of a part, place in SPLITS."""
        return int(np.repeat([0, 1, 2], self.shares)[number // len(self.mus) % sum(self.shares)])

    def events(self, number: int) -> EventsConfig:
        """Events of a part, each slice one chunk."""
        collisions = CollisionConfig(pt_hat=self.pt_hat)
        return EventsConfig(
            n_events=self.chunk * collisions.n_slices,
            collisions=collisions,
            mu=float(self.mus[number % len(self.mus)]),
            n_pool=self.n_pool,
            pool_seed=self.seed + _TEST_POOL * (SPLITS[self.split(number)] == "test"),
            seed=100_000 * self.seed + number,
            chunk=self.chunk,
        )


class JetSample(NamedTuple):
    """Matched jets by column, see `jetvariables.jet_variables`, and beside those: split, event, mu,
    npv, rho (GeV), pt_raw, mass_raw, area; pt, eta, mass after the subtraction; pt_true, mass_true,
    and parton, the kind of the outgoing parton in the jet: GLUON, 1 to 5 of quarks, or NO_PARTON.
    """

    jets: dict[str, FloatArray]  # each (n_jets,)
    offsets: IntArray  # (n_jets + 1,) of the points
    points: NDArray[np.float32]  # (n_points, len(POINT))
    large: dict[str, FloatArray]  # each (n_large,)


def cached_jets(config: JetSampleConfig) -> Path:
    """File of the jets of a configuration, made on first use; parts that an interrupted call has
    left are taken. See `read_jets`.

    Raises
    ------
    ConfigError
        If Pythia or FastJet is missing.
    """
    require_pythia()
    require_fastjet()
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "n_processes"}
    stages = (*STAGES, "clustering", "particleflow", "jet_calibration")
    key = cache_key(*stages, config=settings, pythia=pythia_version())
    path = cache_folder() / "jets" / f"calibration-{config.n_parts}-{key}.npz"
    if not path.exists():
        for number in (0, config.turn - 1) if any(config.mus) else ():  # two pools
            cached_pool(config.events(number).pool_config, n_processes=config.n_processes)
    return keep_chunks(
        path, functools.partial(simulate_part, config), config.n_parts, join=join_columns,
        n_processes=config.n_processes,
    )  # fmt: skip


def read_jets(path: Path) -> JetSample:
    """Jets of a file of `cached_jets`."""
    columns = read_columns(path)
    tables: dict[str, dict[str, FloatArray]] = {"jets": {}, "large": {}}
    for name, values in columns.items():
        table, _, column = name.partition("/")
        if column:
            tables[table][column] = values
    offsets = np.concatenate([[0], np.cumsum(columns["n_points"])]).astype(np.int64)
    return JetSample(tables["jets"], offsets, columns["points"], tables["large"])


def simulate_part(config: JetSampleConfig, number: int) -> dict[str, NDArray[Any]]:
    """Columns of the jets of one part."""
    of = config.events(number)
    with scratch_folder(cache_folder() / "jets" / "events") as folder:
        path = produce_events(folder / "events.root", of)
        cells, method = ring_cells(read_cells(path)), build_method()
        events = list(iterate_events(path))
        npv = _count_vertices(events)
    partons = _outgoing_partons(of, events)
    flows = [run_flow(event, cells, method) for event in events]
    seen = [see(event, flow, cells) for event, flow in zip(events, flows, strict=True)]
    inputs = [flow_inputs(event, flow) for event, flow in zip(events, flows, strict=True)]
    truth = [truth_inputs(event) for event in events]
    rho = pile_up_density(*_joined(inputs), eta_max=ETA_MAX)
    head = {
        "split": np.full(len(events), float(config.split(number))),
        "event": np.arange(len(events)) + float(number * len(events)),
        "mu": np.full(len(events), of.mu),
        "npv": npv,
        "rho": rho,
    }
    columns: dict[str, NDArray[Any]] = {}
    for name, radius in (("jets", config.radius), ("large", config.large_radius)):
        raw = find_jets(*_joined(inputs), radius=radius, pt_min=_SOFTEST, area_eta=ETA_MAX)
        jets = subtract_pile_up(raw, rho)
        if name == "jets":
            true = find_jets(*_joined(truth), radius=radius)
            pairs = match_jets(jets, true, eta_max=config.eta_max, radius=radius)
            pt_min = config.pt_min
        else:
            true = find_jets(*_joined([_inside(of) for of in truth]), radius=radius)
            pairs = _mutual(jets, true, config.large_eta_max, radius)
            pt_min = config.large_pt_min
        kept = (true.pt[pairs.truth] >= pt_min) & (jets.pt[pairs.reco] >= _SOFTEST)
        pairs = JetPairs(*(rows[kept] for rows in pairs))
        table = _table(seen, cells, raw, pairs.reco, inputs, radius)
        at, of_event = pairs.truth, jets.event[pairs.reco]
        table |= {key: values[of_event] for key, values in head.items()}
        table |= {"pt_raw": raw.pt[pairs.reco], "mass_raw": raw.mass[pairs.reco]}
        table |= {"area": np.hypot(*raw.area[pairs.reco, :2].T)}
        table |= {key: getattr(jets, key)[pairs.reco] for key in ("pt", "eta", "phi", "mass")}
        table |= {"pt_true": true.pt[at], "mass_true": true.mass[at]}
        table["parton"] = _nearest_parton(partons[of_event], true.eta[at], true.phi[at], radius)
        table["f_charged"] = table["pt_tracks"] / table["pt"]
        columns |= {f"{name}/{key}": values for key, values in table.items()}
        if name == "jets":
            points = _points(seen, raw, pairs.reco, inputs, config)
            columns["n_points"] = np.array([len(of_jet) for of_jet in points], dtype=np.int64)
            empty = np.zeros((0, len(POINT)), dtype=np.float32)
            columns["points"] = np.concatenate([empty, *points])
    return columns


def _joined(inputs: list[Inputs]) -> tuple[Any, ...]:
    """px, py, pz, e and offsets of the inputs of all events."""
    offsets = np.concatenate([[0], np.cumsum([len(of.e) for of in inputs])])
    return *(np.concatenate(column) for column in list(zip(*inputs, strict=True))[:4]), offsets


def _inside(of: Inputs) -> Inputs:
    """What flies into the calorimeter: a large jet that reaches over its edge has none of it there,
    nor has its truth.
    """
    inside = np.abs(np.arcsinh(of.pz / np.hypot(of.px, of.py))) < ETA_MAX
    return Inputs._make(column[inside] for column in of)


def _mutual(jets: Jets, truth: Jets, eta_max: float, radius: float) -> JetPairs:
    """Jets and truth jets that are the nearest to each other, isolated or not."""
    found = nearest(truth, jets, distance=MATCH_DISTANCE * radius)
    back = nearest(jets, truth, distance=MATCH_DISTANCE * radius)
    rows = np.flatnonzero((found != NO_JET) & (np.abs(truth.eta) < eta_max))
    rows = rows[back[found[rows]] == rows]
    return JetPairs(found[rows], rows)


def _momenta(of: Inputs) -> FloatArray:
    """pT, eta and phi of inputs, (n, 3)."""
    pt = np.hypot(of.px, of.py)
    return np.column_stack([pt, np.arcsinh(of.pz / pt), np.arctan2(of.py, of.px)])


def _members(raw: Jets, rows: IntArray, inputs: list[Inputs]) -> list[tuple[int, int, IntArray]]:
    """Each jet, its event, and its constituents among the inputs of the event."""
    first = np.concatenate([[0], np.cumsum([len(of.e) for of in inputs])])
    event = raw.event
    return [
        (int(row), int(event[row]), ak.to_numpy(raw.constituents[row]) - first[event[row]])
        for row in rows
    ]


def _table(
    seen: list[Seen], cells: RingCells, raw: Jets, rows: IntArray, inputs: list[Inputs],
    radius: float,
) -> dict[str, FloatArray]:  # fmt: skip
    """Columns of `jet_variables` of some jets."""
    found = []
    for row, event, members in _members(raw, rows, inputs):
        of = inputs[event]
        pt = np.hypot(of.px[members], of.py[members])
        found.append(jet_variables(seen[event], cells, raw.eta[row], raw.phi[row], pt, radius))
    return {name: np.array([of_jet[name] for of_jet in found]) for name in VARIABLES}


def _points(
    seen: list[Seen], raw: Jets, rows: IntArray, inputs: list[Inputs], config: JetSampleConfig
) -> list[NDArray[np.float32]]:
    momenta = [_momenta(of) for of in inputs]
    return [
        jet_points(
            seen[event], raw.eta[row], raw.phi[row], members, momenta[event], config.radius,
            config.n_points,
        )
        for row, event, members in _members(raw, rows, inputs)
    ]  # fmt: skip


def _count_vertices(events: list[Event]) -> FloatArray:
    """Vertices with two tracks or more in each event, and that of the hard scattering."""
    found = []
    for event in events:
        _, counts = np.unique(event.tracks.vertex[event.tracks.vertex > 0], return_counts=True)
        found.append(1.0 + float((counts >= 2).sum()))
    return np.array(found)


def _outgoing_partons(config: EventsConfig, events: list[Event]) -> FloatArray:
    """Kind, eta and phi of both partons that leave the hard scattering of each event, shape
    (n_events, 2, 3): Pythia is run again with the same seeds, as events hold stable particles only.

    Raises
    ------
    ValidationError
        If the collisions are not those of the events.
    """
    found = []
    for chunk in config.chunks:
        record = _collide(config, chunk)
        particles = stable_particles(record, config.collisions.eta_max)
        for i, event in enumerate(events[chunk.first_event : chunk.first_event + chunk.n_events]):
            truth = require_truth(event)
            energy = particles.energy[particles.event == i]
            if not np.array_equal(
                energy.astype(np.float32), truth.energy[truth.vertex == HARD_SCATTER]
            ):
                raise ValidationError(f"event {event.number}: not the collision of its seed")
            partons = record.prt[i][record.prt[i].status == _OUTGOING]
            px, py, pz = (ak.to_numpy(partons.p[axis]) for axis in ("px", "py", "pz"))
            eta = np.arcsinh(pz / np.hypot(px, py))
            kind = np.abs(ak.to_numpy(partons.id))
            found.append(np.column_stack([kind, eta, np.arctan2(py, px)])[:2])
    return np.array(found)


def _collide(config: EventsConfig, chunk: Chunk) -> ak.Array:
    """Pythia's record of the events of a chunk, as `crossings.simulate_crossings` makes them."""
    source, *_ = np.random.SeedSequence(config.seed, spawn_key=(chunk.number,)).spawn(4)
    seed = int(np.random.default_rng(source).integers(1, MAX_SEED, endpoint=True))
    pythia, _hook = start_pythia(config.collisions, chunk.part, seed)
    batches, missing = [], chunk.n_events
    while missing:
        batch = pythia.nextBatch(missing)
        particles = stable_particles(batch, config.collisions.eta_max)
        batch = batch[np.unique(particles.event[do_shower(particles, field=FIELD)])]
        batches.append(batch)
        missing -= len(batch)
    return ak.concatenate(batches)


def _nearest_parton(
    partons: FloatArray, eta: FloatArray, phi: FloatArray, radius: float
) -> FloatArray:
    """Kind of the nearest parton within the radius, NO_PARTON where there is none."""
    if not len(eta):
        return np.zeros(0)
    apart = np.hypot(partons[:, :, 1] - eta[:, None], wrapped(partons[:, :, 2] - phi[:, None]))
    best = np.argmin(apart, axis=1)
    rows = np.arange(len(eta))
    return np.where(apart[rows, best] < radius, partons[rows, best, 0], float(NO_PARTON))
