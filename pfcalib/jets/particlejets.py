"""Jets of particles by Pythia 8, W bosons against QCD, as in the published task of LundNet
(arXiv:2012.08526).

The settings are those told with the published samples (arXiv:1903.09644, its data): protons at
14 TeV, WW with hadronic decays or dijets of more than 400 GeV of transverse momentum in the
scattering, tune 4C, multiple interactions, neutral pions and hadrons with a b quark stable, no
detector; the two hardest anti-kt jets with R = 1, of at least 500 GeV within rapidity 2.5.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.jets.declustering import Trees, decluster, join_trees
from pfcalib.particleflow.jets import find_jets
from pfcalib.simulation.chunks import keep_chunks, read_columns
from pfcalib.simulation.collisions import MAX_SEED, NEUTRINOS
from pfcalib.simulation.pythia import pythia_version, require_pythia

SQRT_S, PT_HAT_MIN = 14_000.0, 400.0  # GeV
RADIUS, PT_MIN, MAX_RAPIDITY = 1.0, 500.0, 2.5
N_JETS = 2  # of an event, the hardest
PROCESSES = {
    "qcd": ("HardQCD:all = on",),
    "w": ("WeakDoubleBoson:ffbar2WW = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5"),
}
HARD = {"qcd": -23, "w": -22}  # status of what leaves the scattering
STABLE = (111, 511, 521, 531, 541, 5122, 5132, 5232, 5332)
SETTINGS = (
    f"Beams:eCM = {SQRT_S}",
    f"PhaseSpace:pTHatMin = {PT_HAT_MIN}",
    "Tune:pp = 5",
    *(f"{number}:mayDecay = off" for number in STABLE),
)
BATCH = 250  # events that are in memory


@dataclass(frozen=True, kw_only=True)
class ParticleJetConfig:
    """Which events to make jets of."""

    process: str  # of PROCESSES
    n_events: int = 10_000  # of which about one jet each is kept
    seed: int = 1
    chunk: int = 1_000  # events of one generator; the sample depends on it

    def __post_init__(self) -> None:
        if self.process not in PROCESSES or min(self.n_events, self.chunk) < 1:
            raise ConfigError(
                f"ParticleJetConfig: process = {self.process!r}, n_events = {self.n_events}, "
                f"chunk = {self.chunk}: expected one of {', '.join(PROCESSES)}, and above 0"
            )


class ParticleJets(NamedTuple):
    """Jets of a process."""

    event: NDArray[np.int64]  # (n_jets,) that it is of
    pt: NDArray[np.float32]  # (n_jets,) GeV
    origin: NDArray[np.int16]  # (n_jets,) abs(PDG) of the nearest that leaves the scattering
    apart: NDArray[np.float32]  # (n_jets,) its distance in rapidity and azimuth
    shapes: NDArray[np.float32]  # (n_jets, n_shapes) of declustering.SHAPES
    offsets: NDArray[np.int64]  # and what follows: of declustering.Trees
    nodes: NDArray[np.float32]
    mother: NDArray[np.int16]
    softer: NDArray[np.bool_]
    n_particles: NDArray[np.int32]  # (n_events,) stable particles of each event
    sigma: NDArray[np.float64]  # (n_parts,) cross section by Pythia, nb

    @property
    def trees(self) -> Trees:
        return Trees(self.offsets, self.nodes, self.mother, self.softer)


def cached_jets(config: ParticleJetConfig, *, n_processes: int = 1) -> Path:
    """File of the jets of a process (.npz, see `read_jets`), made where it is not there, in parts
    that a call which is interrupted leaves to the next one.
    """
    require_pythia()
    key = cache_key("particlejets", config=config, pythia=pythia_version())
    path = cache_folder() / "jets" / f"{config.process}-{key}.npz"
    return keep_chunks(
        path, functools.partial(simulate_jets, config), -(-config.n_events // config.chunk),
        join=lambda parts: join_jets([ParticleJets(**part) for part in parts]),
        n_processes=n_processes,
    )  # fmt: skip


def read_jets(path: Path) -> ParticleJets:
    """Jets of a file of `cached_jets`."""
    return ParticleJets(**read_columns(path))


def join_jets(parts: list[ParticleJets]) -> ParticleJets:
    """All of several, with the numbers of their events as they are."""
    trees = join_trees([part.trees for part in parts])
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ParticleJets._fields
        if name not in Trees._fields
    }
    return ParticleJets(**joined, **trees._asdict())


def simulate_jets(config: ParticleJetConfig, number: int) -> ParticleJets:
    """Jets of one chunk of events.

    Parameters
    ----------
    config : ParticleJetConfig
    number : int
        Of the chunk, from 0; its events are numbered from number * chunk.

    Raises
    ------
    ConfigError
        If Pythia does not start.
    """
    import pythia8mc

    rng = np.random.default_rng((config.seed, tuple(PROCESSES).index(config.process), number))
    first = number * config.chunk
    n_events = min(config.chunk, config.n_events - first)
    pythia = pythia8mc.Pythia("", False)
    settings = (
        *PROCESSES[config.process],
        *SETTINGS,
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {int(rng.integers(1, MAX_SEED, endpoint=True))}",
    )
    refused = [setting for setting in settings if not pythia.readString(setting)]
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start with {config.process}; refused: {refused}")
    parts = [
        _jets_of(pythia.nextBatch(min(BATCH, n_events - done)), config.process, first + done)
        for done in range(0, n_events, BATCH)
    ]
    sigma = 1e6 * float(pythia.infoPython().sigmaGen())
    return join_jets(parts)._replace(sigma=np.array([sigma]))


def _jets_of(events: ak.Array, process: str, first: int) -> ParticleJets:
    """Jets of a batch of events, which are numbered from `first`."""
    stable = events.prt[events.prt.status > 0]
    multiplicity = ak.to_numpy(ak.num(stable.id)).astype(np.int32)
    seen = stable
    for neutrino in NEUTRINOS:
        seen = seen[abs(seen.id) != neutrino]
    momenta = np.stack(
        [ak.to_numpy(ak.flatten(seen.p[name])) for name in ("px", "py", "pz", "e")], axis=-1
    )
    ends = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(seen.id)))]).astype(np.int64)
    px, py, pz, e = momenta.T
    found = find_jets(px, py, pz, e, ends, radius=RADIUS, pt_min=PT_MIN)
    along = found.pt * np.sinh(found.eta)
    rapidity = np.arcsinh(along / np.hypot(found.pt, found.mass))
    central = np.flatnonzero(np.abs(rapidity) < MAX_RAPIDITY)
    order = central[np.lexsort((-found.pt[central], found.event[central]))]
    event = found.event[order]
    chosen = order[np.arange(len(event)) - np.searchsorted(event, event) < N_JETS]
    rows = found.constituents[chosen]
    offsets = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(rows)))]).astype(np.int64)
    origin, apart = _origin(
        events.prt[events.prt.status == HARD[process]][:, :2],
        found.event[chosen], rapidity[chosen], found.phi[chosen],
    )  # fmt: skip
    trees, shapes = decluster(momenta[ak.to_numpy(ak.flatten(rows))], offsets)
    return ParticleJets(
        event=first + found.event[chosen],
        pt=found.pt[chosen].astype(np.float32),
        origin=origin,
        apart=apart,
        shapes=shapes,
        **trees._asdict(),
        n_particles=multiplicity,
        sigma=np.empty(0),
    )


def _origin(
    hard: ak.Array, event: NDArray[np.int64], rapidity: NDArray[np.float64],
    phi: NDArray[np.float64],
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:  # fmt: skip
    """Kind and distance of the nearer of the two that leave the scattering of each event."""
    px, py, pz, e = (ak.to_numpy(hard.p[name])[event] for name in ("px", "py", "pz", "e"))
    d_phi = np.remainder(np.arctan2(py, px) - phi[:, None] + np.pi, 2.0 * np.pi) - np.pi
    apart = np.hypot(np.arctanh(pz / e) - rapidity[:, None], d_phi)
    nearer = np.argmin(apart, axis=1)
    rows = np.arange(len(event))
    kinds = np.abs(ak.to_numpy(hard.id)[event])
    return kinds[rows, nearer].astype(np.int16), apart[rows, nearer].astype(np.float32)
