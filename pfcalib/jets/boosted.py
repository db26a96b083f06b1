"""Large jets of boosted bosons, top quarks, quarks and gluons by Pythia 8, as clusters alone and
with tracks would show them.

Bosons come from W H and Z H, of which all decay to quarks: W and Z are longitudinal there, as in
the decays of heavy resonances that published taggers are trained with. Events are about flat in the
pT of the hard scattering.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, locked, new_file
from pfcalib.errors import ConfigError
from pfcalib.jets.fastcalo import ETA_MAX, find_clusters, find_tracks, four_momentum
from pfcalib.jets.grooming import RADIUS, constituents_of, pt_eta_phi_mass, trim
from pfcalib.jets.substructure import QUANTITIES, substructure
from pfcalib.jets.trackcalo import flow_objects, share_energy, subtract_tracks, unified_objects
from pfcalib.particleflow.jets import NO_JET, Jets, find_jets, nearest
from pfcalib.simulation.collisions import MAX_SEED, stable_particles
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pythia import pythia_version, require_pythia
from pfcalib.simulation.tracks import mass_and_charge

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SQRT_S = 13_000.0  # GeV
ETA_PARTON = 1.2  # largest abs(eta) of what leaves the hard scattering
_HADRONIC = (
    "24:onMode = off",
    "24:onIfAny = 1 2 3 4 5",
    "23:onMode = off",
    "23:onIfAny = 1 2 3 4 5",
)
_HIGGS = (*_HADRONIC, "25:m0 = 125.0", "25:onMode = off", "25:onIfMatch = 5 -5")


class Process(NamedTuple):
    """One kind of collisions."""

    settings: tuple[str, ...]  # of Pythia
    powers: tuple[float, ...]  # of pT-hat, which make each slice about flat in it
    truth: tuple[int, ...]  # PDG numbers of what its jets may be, 0 for anything


PROCESSES = {
    "wh": Process(("HiggsSM:ffbar2HW = on", *_HIGGS), (4.0, 5.5, 8.5), (24, 25)),
    "zh": Process(("HiggsSM:ffbar2HZ = on", *_HIGGS), (4.0, 5.5, 8.5), (23, 25)),
    "tt": Process(
        ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_HADRONIC), (6.5, 8.0, 10.0), (6,)
    ),
    "qcd": Process(("HardQCD:all = on",), (5.0, 6.0, 10.0), (0,)),
}
SLICES = (300.0, 700.0, 1400.0, 2700.0)  # GeV, of pT-hat
JET_PT, JET_ETA, MATCH = 250.0, 2.0 - 0.5 * RADIUS, 0.75  # GeV; of truth jets
# what jets are made of, in the order of the columns
INPUTS = {
    "truth": "particles",
    "calo": "calorimeter clusters",
    "tcc": "track-calo-clusters",
    "flow": "particle flow",
    "ufo": "unified flow",
}
# of a b tag with 77 % (arXiv:2211.16345), of subjets with a b hadron, a c hadron and others
TAG_EFFICIENCY = {"b": 0.77, "c": 0.18, "light": 0.006}
TAG_PT, N_TAGGED = 20.0, 3  # GeV of subjets, and how many of the hardest are looked at
COLUMNS = (
    *("truth", "event", "n_tags"),
    *(f"{name}_{quantity}" for name in INPUTS for quantity in QUANTITIES),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoostedConfig:
    """Which collisions to make large jets of; an event has up to two of them."""

    process: str
    n_events: int = 3_000
    seed: int = 1
    chunk: int = 200  # events of one generator at most; the sample depends on it

    def __post_init__(self) -> None:
        if self.process not in PROCESSES or min(self.n_events, self.chunk) < 1:
            raise ConfigError(
                f"BoostedConfig: process = {self.process!r}, n_events = {self.n_events}, chunk = "
                f"{self.chunk}: expected one of {', '.join(PROCESSES)}, and above 0"
            )

    @property
    def jobs(self) -> list[tuple[int, int]]:
        """Slice and number of events of each generator; as many events for each GeV of pT-hat."""
        edges = np.interp(SLICES, (SLICES[0], SLICES[-1]), (0, self.n_events)).astype(int)
        return [
            (i, min(self.chunk, int(n) - first))
            for i, n in enumerate(np.diff(edges))
            for first in range(0, int(n), self.chunk)
        ]


def cached_boosted(config: BoostedConfig, *, n_processes: int = 1) -> Path:
    """File of the large jets of a process, made where it is not there; see `read_boosted`. What was
    made before an interruption is taken.
    """
    key = cache_key("boosted", config=config, pythia=pythia_version())
    path = cache_folder() / "boosted" / f"{config.process}-{key}.npz"
    with locked(path):
        if not path.exists():
            make = functools.partial(_kept_part, config, path.with_suffix(".parts"))
            files = _mapped(make, len(config.jobs), n_processes)
            parts = [read_boosted(file) for file in files]
            _write(path, {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})
            for file in files:
                file.unlink()
            files[0].parent.rmdir()
    return path


def read_boosted(path: Path) -> dict[str, FloatArray]:
    """COLUMNS of large jets, each of shape (n_jets,).

    ``truth`` is the PDG number of what made the jet, 0 for a quark or gluon, ``event`` a number of
    its event in the process, ``n_tags`` that of b-tagged subjets; the others are those of
    `substructure` after the name of the inputs, NaN where these have no jet there.
    """
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in COLUMNS}


def simulate_boosted(config: BoostedConfig, *, n_processes: int = 1) -> dict[str, FloatArray]:
    """Large jets of a process as of `read_boosted`, whatever the number of processes."""
    parts = _mapped(functools.partial(_part, config), len(config.jobs), n_processes)
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def _mapped(make: Any, n: int, n_processes: int) -> list[Any]:
    if min(n_processes, n) < 2:
        return [make(number) for number in range(n)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n_processes, context) as pool:
        return list(pool.map(make, range(n)))


def _write(path: Path, columns: dict[str, FloatArray]) -> None:
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


def _kept_part(config: BoostedConfig, folder: Path, number: int) -> Path:
    path = folder / f"{number:05d}.npz"
    if not path.exists():
        _write(path, _part(config, number))
    return path


def _part(config: BoostedConfig, number: int) -> dict[str, FloatArray]:
    place = tuple(PROCESSES).index(config.process)
    rng = np.random.default_rng((config.seed, place, number))
    which, n_events = config.jobs[number]
    events = generate(
        config.process, which, n_events, int(rng.integers(1, MAX_SEED, endpoint=True))
    )
    first = sum(n for _, n in config.jobs[:number])
    columns = large_jets(events, PROCESSES[config.process].truth, rng)
    return columns | {"event": columns["event"] + first}


def generate(process: str, which: int, n_events: int, seed: int) -> ak.Array:
    """Events as ``Pythia.nextBatch`` gives them.

    Parameters
    ----------
    process : str
        Of PROCESSES.
    which : int
        Number of the slice of pT-hat.
    n_events : int
    seed : int
        1 to 900,000,000.

    Raises
    ------
    ConfigError
        If Pythia is missing or does not start.
    """
    require_pythia()
    import pythia8mc

    class Central(pythia8mc.UserHooks):
        """Refuses hard scatterings outside before anything is showered."""

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:
            return max(abs(process[5].eta()), abs(process[6].eta())) > ETA_PARTON

    pythia, hook = pythia8mc.Pythia("", False), Central()
    settings = (
        *PROCESSES[process].settings,
        f"Beams:eCM = {SQRT_S}",
        f"PhaseSpace:pTHatMin = {SLICES[which]}",
        f"PhaseSpace:pTHatMax = {SLICES[which + 1]}",
        "PhaseSpace:bias2Selection = on",
        f"PhaseSpace:bias2SelectionPow = {PROCESSES[process].powers[which]}",
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    )
    refused = [setting for setting in settings if not pythia.readString(setting)]
    pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start with {process}; refused: {refused}")
    return pythia.nextBatch(n_events)


def large_jets(
    events: ak.Array, truth: tuple[int, ...], rng: np.random.Generator
) -> dict[str, FloatArray]:
    """COLUMNS of the large jets of events.

    Parameters
    ----------
    events : awkward.Array
        Of `generate`.
    truth : tuple of int
        PDG numbers of what the jets must come from, within MATCH of the last of its copies; 0 takes
        all jets.
    rng : numpy.random.Generator
        Of the detector and the tags.
    """
    with np.errstate(invalid="ignore"):  # a remnant may have no momentum
        particles = stable_particles(events, 4.9)
    particles = Particles._make(x[np.abs(particles.pdg_id) != 13] for x in particles)
    momenta, offsets = _inputs(particles, len(events), rng)
    found = {}
    for name, (px, py, pz, e) in ((name, momentum.T) for name, momentum in momenta.items()):
        found[name] = find_jets(px, py, pz, e, offsets[name], radius=RADIUS, pt_min=0.5 * JET_PT)
    jets = found["truth"]
    rank = np.arange(len(jets.pt)) - jets.offsets[jets.event]
    good = (rank < 2) & (jets.pt > JET_PT) & (np.abs(jets.eta) < JET_ETA)
    kind = _origin(jets, events, truth)
    rows = np.flatnonzero(good & (kind >= 0))
    columns = {"truth": kind[rows].astype(float), "event": jets.event[rows].astype(float)}
    for name, mine in found.items():
        same = np.arange(len(jets.pt)) if name == "truth" else nearest(jets, mine, distance=MATCH)
        there = same[rows] != NO_JET
        taken = same[rows][there]
        whole = constituents_of(momenta[name], mine._replace(constituents=mine.constituents[taken]))
        groomed, subjets = trim(whole)
        full = ak.to_numpy(ak.num(groomed)) > 0
        there[there] = full
        values = substructure(groomed[full], whole[full])
        for quantity in QUANTITIES:
            column = np.full(len(rows), np.nan)
            column[there] = values[quantity]
            columns[f"{name}_{quantity}"] = column
        if name == "tcc":
            columns["n_tags"] = np.zeros(len(rows))
            columns["n_tags"][there] = _tags(subjets[full], mine.event[taken[full]], events, rng)
    return {name: columns[name] for name in COLUMNS}


def _inputs(
    particles: Particles, n_events: int, rng: np.random.Generator
) -> tuple[dict[str, FloatArray], dict[str, IntArray]]:
    """Four-momenta (n, 4) and offsets of the events of each of INPUTS."""
    ends = np.searchsorted(particles.event, np.arange(n_events + 1))
    mass, _ = mass_and_charge(particles.pdg_id)
    p = np.sqrt(np.maximum(particles.energy**2 - mass**2, 0.0))
    every = four_momentum(p / np.cosh(particles.eta), particles.eta, particles.phi, mass)
    parts: dict[str, list[FloatArray]] = {name: [] for name in INPUTS}
    for i in range(n_events):
        one = slice(ends[i], ends[i + 1])
        mine = Particles._make(x[one] for x in particles)
        clusters, tracks = find_clusters(mine, rng), find_tracks(mine, rng)
        flow = subtract_tracks(tracks, clusters)
        parts["truth"].append(every[one][np.abs(mine.eta) < ETA_MAX])
        parts["calo"].append(clusters.momentum)
        parts["tcc"].append(np.concatenate(share_energy(tracks, clusters)))
        parts["flow"].append(flow_objects(tracks, clusters, flow))
        parts["ufo"].append(unified_objects(tracks, clusters, flow))
    offsets = {
        name: np.append(0, np.cumsum([len(x) for x in momenta])) for name, momenta in parts.items()
    }
    return {name: np.concatenate(momenta) for name, momenta in parts.items()}, offsets


def _origin(jets: Jets, events: ak.Array, truth: tuple[int, ...]) -> IntArray:
    """PDG number of the heavy particle within MATCH of each jet, the nearest one; -1 without."""
    kind = np.full(len(jets.pt), 0 if truth == (0,) else -1)
    best = np.full(len(jets.pt), MATCH)
    number = abs(events.prt.id)
    for pdg_id in truth:
        for heavy in _flat_hard(events.prt[number == pdg_id], len(events)) if pdg_id else ():
            apart = _distance(jets.eta, jets.phi, heavy[jets.event])
            near = apart < best
            kind[near], best[near] = pdg_id, apart[near]
    return kind


def _flat_hard(particles: ak.Array, n_events: int) -> list[FloatArray]:
    """eta and phi, (n_events, 2), of the last copy of each charge of some particles; far away where
    there is none.
    """
    found = []
    for sign in (1, -1):
        last = particles[particles.id * sign > 0][:, -1:]
        place = np.full((n_events, 2), 99.0)
        some = ak.to_numpy(ak.num(last.id)) > 0
        p = last.p[some]
        columns = np.stack([ak.to_numpy(p[name][:, 0]) for name in ("px", "py", "pz", "e")], -1)
        place[some] = pt_eta_phi_mass(columns)[:, 1:3]
        found.append(place)
    return found


def _tags(
    subjets: ak.Array, event: IntArray, events: ak.Array, rng: np.random.Generator
) -> FloatArray:
    """Number of b-tagged subjets among the hardest of each jet, (n_jets,); a tag is drawn by what
    hadron lies within the radius of it.
    """
    number = abs(events.prt.id)
    hard = (events.prt.p.px**2 + events.prt.p.py**2 > 25.0) & (number > 100) & (number < 10_000)
    chosen = subjets[:, :N_TAGGED]
    place = pt_eta_phi_mass(
        np.stack([ak.to_numpy(ak.flatten(chosen[name])) for name in ("px", "py", "pz", "E")], -1)
    )
    jet = np.repeat(np.arange(len(chosen)), ak.to_numpy(ak.num(chosen)))
    holds = {}
    for name, quark in (("b", 5), ("c", 4)):
        is_quark = (number // 100 % 10 == quark) | (number // 1000 == quark)
        hadrons = events.prt.p[hard & is_quark][event[jet]]
        columns = [ak.to_numpy(ak.flatten(hadrons[x])) for x in ("px", "py", "pz", "e")]
        n = ak.to_numpy(ak.num(hadrons.px))
        row = np.repeat(np.arange(len(jet)), n)
        there = pt_eta_phi_mass(np.stack(columns, -1))[:, 1:3]
        near = _distance(place[row, 1], place[row, 2], there) < 0.2
        holds[name] = np.bincount(row[near], minlength=len(jet)) > 0
    b, c, light = TAG_EFFICIENCY.values()
    probability = np.select([holds["b"], holds["c"]], [b, c], light)
    tagged = (rng.random(len(jet)) < probability) & (place[:, 0] > TAG_PT)
    return np.bincount(jet[tagged], minlength=len(chosen)).astype(float)


def _distance(eta: FloatArray, phi: FloatArray, other: FloatArray) -> FloatArray:
    d_phi = np.remainder(phi - other[:, 1] + np.pi, 2.0 * np.pi) - np.pi
    return np.hypot(eta - other[:, 0], d_phi)
