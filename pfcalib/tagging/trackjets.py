"""Jets with tracks by Pythia 8, for flavour tagging: pairs of top quarks, and heavy Z bosons whose
jets are about flat in transverse momentum.

As in the samples that published taggers are trained with, jets are anti-kt ones with R = 0.4 of
more than 20 GeV within abs(eta) = 2.5, and have the flavour of the weakly decaying hadron of more
than 5 GeV within 0.3 of them (b before c before hadronic decays of tau leptons); their tracks lie
within a distance that shrinks with pT (arXiv:2211.16345, 2505.19689). Long-lived particles decay
where Pythia says, and what they leave is measured by `jettracks`. Leptons of W bosons, and of tau
leptons from them, are no part of jets. Z bosons have one mass in each chunk, spread evenly over a
range, and decay to b, c and lighter quarks in turn.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, one_maker
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.particleflow.jets import find_jets
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.collisions import MAX_SEED
from pfcalib.simulation.genrecord import Record, charges, hadron_flavour, start_generator
from pfcalib.simulation.pythia import pythia_version, require_pythia
from pfcalib.tagging.ftagfiles import (
    FIELDS,
    FLAVOURS,
    FROM_B,
    FROM_BC,
    FROM_C,
    FROM_TAU,
    JETS,
    LABEL,
    MAX_TRACKS,
    OTHER,
    PRIMARY,
    TAU_JET,
    TRACKS,
    TaggedJets,
    join_tagged,
    read_tagged,
    structure,
    write_tagged,
)
from pfcalib.tagging.jettracks import (
    BEAM_PIPE,
    MAX_D0,
    MAX_Z0,
    MU,
    N_PIXEL,
    VERTEX_ERROR,
    Charged,
    Measured,
    add_background,
    interact,
    measure_tracks,
    vertex_numbers,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

SQRT_S = 13_000.0  # GeV
_Z = ("NewGaugeBoson:ffbar2gmZZprime = on", "Zprime:gmZmode = 3", "32:onMode = off")
PROCESSES: dict[str, tuple[str, ...]] = {
    "ttbar": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
    "zprime": _Z,
}
DECAYS = ("5", "4", "1 2 3")  # of a Z boson, in turn
MASSES, POWER = (100.0, 6500.0), 0.7  # GeV, of the Z bosons; below 1 for more heavy ones
RADIUS, PT_MIN, MAX_ETA = 0.4, 20.0, 2.5  # GeV; of jets
MAX_PT = 2500.0  # GeV; harder ones are few
HADRON_PT, NEAR = 5.0, 0.3  # GeV; of what gives a flavour
MERGED = 0.1  # mm, closer vertices are one
RESOLUTION = (3.0, 0.65, 0.03)  # of the pT of a jet: GeV, GeV^0.5 and a constant
ANGLE = 0.003, 0.4  # rad and rad GeV, of the direction of a jet
BATCH = 50  # events that are in memory
CHANNEL = "mcChannelNumber"
NOT_NEEDED = (CHANNEL, "n_tracks", "phi", "mass", "energy")  # of own files
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, kw_only=True)
class TaggedConfig:
    """Which jets to make.

    Parameters
    ----------
    process : str
        "ttbar", with some four jets an event, or "zprime", with some two or three.
    n_events : int
    seed : int
    chunk : int
        Events of one generator; the sample depends on it.
    mu : float
        Mean number of collisions beside the hard one.
    material : bool
        Whether photons convert and hadrons interact in the tracker.
    """

    process: str = "ttbar"
    n_events: int = 10_000
    seed: int = 1
    chunk: int = 200
    mu: float = MU
    material: bool = True

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ConfigError(
                f"TaggedConfig: process = {self.process!r}: expected one of {', '.join(PROCESSES)}"
            )
        if min(self.n_events, self.chunk) < 1 or not self.mu >= 0.0:
            raise ConfigError(
                f"TaggedConfig: n_events = {self.n_events}, chunk = {self.chunk}, mu = {self.mu}: "
                "expected above 0"
            )


class Heavy(NamedTuple):
    """Hadrons with a b or c quark and tau leptons that decay weakly, of shape (n,) each."""

    event: IntArray
    kind: IntArray  # 5, 4 or 15
    pdg_id: IntArray
    momentum: FloatArray  # (n, 3) GeV
    energy: FloatArray  # GeV
    decay: FloatArray  # (n, 3) mm where it decays, from the collision


def cached_tagged(config: TaggedConfig, *, n_processes: int = 1) -> Path:
    """File of the jets of a process (h5, see `ftagfiles.read_tagged`), made where it is not there;
    chunks that an interrupted call has left are taken.
    """
    require_pythia()
    key = cache_key("tagging", config=config, pythia=pythia_version())
    path = cache_folder() / "tagging" / f"{config.process}-{key}.h5"
    with one_maker(path):
        if not path.exists():
            kept = keep_chunks(
                path.with_suffix(".npz"), functools.partial(simulate_tagged, config),
                -(-config.n_events // config.chunk), join=join_columns, n_processes=n_processes,
            )  # fmt: skip
            write_tagged(path, TaggedJets(**read_columns(kept)), unit="GeV")
            kept.unlink()
    return path


def gather_tagged(
    numbers: Mapping[str, int],
    own: Mapping[str, str | Path] | None = None,
    *,
    seed: int = 1,
    chunk: int = 200,
    n_processes: int = 1,
) -> tuple[TaggedJets, list[Path]]:
    """Jets of several processes, without taus, and the files that they are from.

    Parameters
    ----------
    numbers : mapping of str to int
        Events of each process.
    own : mapping of str to path, optional
        Files to be read for a process in place of a simulation; what they call ``mcChannelNumber``
        is replaced by the place of the process in PROCESSES, counted from 1.
    seed, chunk : int
        Of TaggedConfig.

    Raises
    ------
    ConfigError
        If a process is not known.
    BadFileError
        If a file is no such file or lacks a field (`read_tagged`), or a flavour has no jet.
    """
    own = own or {}
    paths: list[Path] = []
    parts: list[TaggedJets] = []
    if unknown := sorted(set(own) - set(numbers)):
        raise ConfigError(f"own file of {unknown[0]!r}: expected one of {', '.join(numbers)}")
    for process, n in numbers.items():
        config = TaggedConfig(process=process, n_events=n, seed=seed, chunk=chunk)
        if process in own:
            path = Path(own[process])
            told = read_tagged(path, {JETS: [f for f in FIELDS[JETS] if f not in NOT_NEEDED],
                                      TRACKS: list(FIELDS[TRACKS])})  # fmt: skip
            jets = np.zeros(len(told), structure(JETS))
            for name in told.jets.dtype.names or ():
                jets[name] = told.jets[name]
            jets["n_tracks"] = told.valid.sum(axis=1)
            jets[CHANNEL] = 1 + tuple(PROCESSES).index(process)
            part = TaggedJets(jets, told.tracks)
        else:
            path = cached_tagged(config, n_processes=n_processes)
            part = read_tagged(path)
        paths, parts = [*paths, path], [*parts, part[part.label != TAU_JET]]
    sample = join_tagged(parts)
    if lacking := set(FLAVOURS) - {TAU_JET} - set(sample.label.tolist()):
        raise BadFileError(
            f"{', '.join(map(str, paths))}: {JETS}: {LABEL}: expected some "
            f"{FLAVOURS[min(lacking)]}, found none"
        )
    return sample, paths


def simulate_tagged(config: TaggedConfig, number: int) -> dict[str, NDArray[Any]]:
    """Fields of TaggedJets of one chunk of events, whatever was made before.

    Parameters
    ----------
    config : TaggedConfig
    number : int
        Of the chunk, from 0; its events are numbered from number * chunk.

    Raises
    ------
    ConfigError
        If Pythia does not start.
    """
    place = tuple(PROCESSES).index(config.process)
    rng = np.random.default_rng((config.seed, place, number))
    first = number * config.chunk
    n_events = min(config.chunk, config.n_events - first)
    pythia = start_process(config.process, number, int(rng.integers(1, MAX_SEED, endpoint=True)))
    parts = []
    for done in range(0, n_events, BATCH):
        events = pythia.nextBatch(min(BATCH, n_events - done))
        jets, tracks = jets_of(events, rng, mu=config.mu, material=config.material)
        jets["eventNumber"] += first + done
        jets[CHANNEL] = place + 1
        parts.append({"jets": jets, "tracks": tracks})
    return join_columns(parts)


def start_process(process: str, number: int, seed: int) -> Any:
    """Pythia with a process; of Z bosons the number of the chunk gives the mass and the decay."""
    settings = PROCESSES[process]
    if process == "zprime":
        share = (0.5 + _GOLDEN * (number // len(DECAYS))) % 1.0
        mass = MASSES[0] + share**POWER * (MASSES[1] - MASSES[0])
        settings += (
            f"32:onIfAny = {DECAYS[number % len(DECAYS)]}",
            f"32:m0 = {mass}",
            f"PhaseSpace:mHatMin = {0.9 * mass}",
            f"PhaseSpace:mHatMax = {1.1 * mass}",
        )
    return start_generator((f"Beams:eCM = {SQRT_S}", *settings), seed)


def cone_size(pt: FloatArray) -> FloatArray:
    """Radius around a jet of a pT (GeV) within which its tracks lie."""
    return np.asarray(0.239 + np.exp(-1.220 - 1.64e-2 * pt))


def jets_of(
    events: ak.Array, rng: np.random.Generator, *, mu: float = MU, material: bool = True
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Jets and tracks, as of TaggedJets, of events of ``Pythia.nextBatch``."""
    record = Record.read(events)
    origin, prompt, heavy_kind = ancestry(record)
    heavy = heavy_particles(record, heavy_kind)
    final = record.status > 0
    neutrino = np.isin(np.abs(record.pdg_id), (12, 14, 16))
    calorimeter = final & ~prompt & ~neutrino & (np.abs(record.pdg_id) != 13)
    rows = np.flatnonzero(calorimeter & (np.abs(_eta(record.momentum)) < 4.9))
    px, py, pz = record.momentum[rows].T
    found = find_jets(
        px, py, pz, record.energy[rows],
        np.searchsorted(record.event[rows], np.arange(len(events) + 1)),
        radius=RADIUS, pt_min=0.5 * PT_MIN,
    )  # fmt: skip
    # what the calorimeter sees of them
    noise, sampling, constant = RESOLUTION
    width = np.hypot(np.hypot(noise / found.pt, sampling / np.sqrt(found.pt)), constant)
    pt = found.pt * np.maximum(1.0 + width * rng.standard_normal(len(width)), 0.1)
    turn = (ANGLE[0] + ANGLE[1] / found.pt)[:, None] * rng.standard_normal((len(pt), 2))
    eta, phi = found.eta + turn[:, 0], _wrapped(found.phi + turn[:, 1])
    kept = np.flatnonzero((pt > PT_MIN) & (pt < MAX_PT) & (np.abs(eta) < MAX_ETA))
    jets = np.zeros(len(kept), structure(JETS))
    jets["pt"], jets["eta"], jets["phi"] = pt[kept], eta[kept], phi[kept]
    jets["mass"] = (found.mass * pt / found.pt)[kept]
    jets["energy"] = np.hypot(pt[kept] * np.cosh(eta[kept]), jets["mass"])
    jets["eventNumber"] = event = found.event[kept]
    axis = np.column_stack([pt, eta, phi])[kept]
    offsets = np.searchsorted(event, np.arange(len(events) + 1))
    _add_label(jets, heavy, axis, offsets)
    # muons and neutrinos of hadrons count in the true pT
    lost = np.flatnonzero(final & ~prompt & (neutrino | (np.abs(record.pdg_id) == 13)))
    jet, distance = _nearest_jet(record.event[lost], record.momentum[lost], axis, offsets)
    near = distance < RADIUS
    total = _vector(found.pt, found.phi)[kept]
    np.add.at(total, jet[near], record.momentum[lost[near], :2])
    jets["ptFromTruthDressedWZJet"] = np.hypot(*total.T)
    tracks = _tracks(record, final & ~prompt, origin, heavy, axis, offsets, rng, mu, material)
    return jets, _table(jets, axis, tracks)


@njit(cache=True)
def _walk(offsets, pdg_id, status, mother, daughters):  # type: ignore[no-untyped-def]
    n = len(pdg_id)
    origin, prompt = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    heavy = np.zeros(n, np.int64)
    for event in range(len(offsets) - 1):
        start = offsets[event]
        for i in range(start, offsets[event + 1]):
            kind = abs(pdg_id[i])
            if status[i] > 0:
                b = c = tau = hadron = False
                place = mother[i]
                while place > 0:
                    number = pdg_id[start + place]
                    flavour = hadron_flavour(number)
                    if flavour == 0 and not (11 <= abs(number) <= 16 or number == 22):
                        break
                    hadron |= flavour > 0
                    b |= flavour == 5
                    c |= flavour == 4
                    tau |= abs(number) == 15
                    place = mother[start + place]
                if b:
                    origin[i] = FROM_BC if c else FROM_B
                elif c:
                    origin[i] = FROM_C
                elif tau:
                    origin[i] = FROM_TAU
                else:
                    origin[i] = PRIMARY
                prompt[i] = 11 <= kind <= 16 and not hadron
            elif kind == 15 or hadron_flavour(kind) >= 4:
                flavour = 15 if kind == 15 else hadron_flavour(kind)
                last = True
                for place in range(daughters[i, 0], daughters[i, 1] + 1):
                    other = abs(pdg_id[start + place])
                    if flavour == 15:
                        last &= other not in (11, 13, 15)  # to hadrons
                    else:
                        last &= hadron_flavour(other) != flavour
                heavy[i] = flavour if last and daughters[i, 0] > 0 else 0
    return origin, prompt, heavy


def ancestry(record: Record) -> tuple[IntArray, Mask, IntArray]:
    """Of each particle: its origin (of ftagfiles.ORIGINS, if it is final), whether it is a lepton
    without a hadron among its ancestors, and whether it is the last hadron with a b quark (5) or a
    c quark (4), or a tau lepton that decays to hadrons (15).
    """
    origin, prompt, heavy = _walk(
        record.offsets, record.pdg_id, record.status, record.mother, record.daughters
    )
    displaced = np.sqrt(np.sum(record.position**2, axis=1)) > MERGED
    origin[(origin == PRIMARY) & displaced] = OTHER
    return origin, prompt, heavy


def heavy_particles(record: Record, kind: IntArray) -> Heavy:
    """Those of which `ancestry` tells a kind."""
    rows = np.flatnonzero(kind)
    first = record.offsets[record.event[rows]] + record.daughters[rows, 0]
    return Heavy(
        record.event[rows], kind[rows], record.pdg_id[rows], record.momentum[rows],
        record.energy[rows], record.position[first],
    )  # fmt: skip


def _add_label(jets: NDArray[Any], heavy: Heavy, axis: FloatArray, offsets: IntArray) -> None:
    """Fill flavour, pT and flight of the hadron of each jet."""
    jet, distance = _nearest_jet(heavy.event, heavy.momentum, axis, offsets)
    pt = np.hypot(heavy.momentum[:, 0], heavy.momentum[:, 1])
    near = np.flatnonzero((distance < NEAR) & (pt > HADRON_PT))
    priority = np.select([heavy.kind == 5, heavy.kind == 4], [0, 1], 2)
    # the last one written stays: b quarks before others, and of those the hardest
    near = near[np.lexsort((pt[near], -priority[near]))]
    jets["HadronConeExclTruthLabelPt"] = jets["HadronConeExclTruthLabelLxy"] = np.nan
    jets[LABEL][jet[near]] = heavy.kind[near]
    jets["HadronConeExclTruthLabelPt"][jet[near]] = pt[near]
    jets["HadronConeExclTruthLabelLxy"][jet[near]] = np.hypot(*heavy.decay[near, :2].T)


def _tracks(
    record: Record, kept: Mask, origin: IntArray, heavy: Heavy, axis: FloatArray,
    offsets: IntArray, rng: np.random.Generator, mu: float, material: bool,
) -> Measured:  # fmt: skip
    """Tracks near jets, those of pile-up and fakes among them."""
    rows = np.flatnonzero(kept & (np.hypot(*record.momentum[:, :2].T) > 0.4))
    jet, distance = _nearest_jet(record.event[rows], record.momentum[rows], axis, offsets)
    near = distance < 1.2 * cone_size(axis[jet, 0]) if len(axis) else np.zeros(len(rows), bool)
    rows, jet = rows[near], jet[near]
    kinds = [(jet, rows, record.position[rows], record.momentum[rows], record.pdg_id[rows])]
    ends, origins = [np.full(len(rows), np.inf)], [origin[rows]]
    if material:
        end, parent, position, momentum, pdg_id = interact(*kinds[0][2:], rng)
        ends = [end, np.full(len(parent), np.inf)]
        kinds.append((jet[parent], rows[parent], position, momentum, pdg_id))
        origins.append(np.full(len(parent), OTHER))
    # heavy hadrons that live long enough leave hits
    flight = np.hypot(*heavy.decay[:, :2].T)
    long = np.flatnonzero((flight > BEAM_PIPE) & (heavy.kind != 15))
    jet, distance = _nearest_jet(heavy.event[long], heavy.momentum[long], axis, offsets)
    long, jet = long[distance < NEAR], jet[distance < NEAR]
    kinds.append((jet, long, np.zeros((len(long), 3)), heavy.momentum[long], heavy.pdg_id[long]))
    ends.append(flight[long])
    origins.append(np.full(len(long), PRIMARY))
    seen = np.concatenate([np.full(len(x), True) for x in ends[:-1]] + [np.full(len(long), False)])
    jet, _, position, momentum, pdg_id = (np.concatenate(x) for x in zip(*kinds, strict=True))
    charge = charges(pdg_id)
    event = np.searchsorted(offsets, np.arange(len(axis)), side="right") - 1
    shift = rng.standard_normal((len(offsets) - 1, 3)) * np.array(VERTEX_ERROR)[[0, 0, 1]]
    order = np.flatnonzero(np.abs(charge) == 1.0)
    order = order[np.argsort(jet[order], kind="stable")]
    particles = Charged(
        jet[order], (position + shift[event[jet]])[order], momentum[order], charge[order],
        pdg_id[order], np.concatenate(origins)[order], np.concatenate(ends)[order], seen[order],
    )  # fmt: skip
    tracks = measure_tracks(particles, len(axis), rng)
    return add_background(tracks, axis, cone_size(axis[:, 0]), rng, mu=mu)


def _table(jets: NDArray[Any], axis: FloatArray, tracks: Measured) -> NDArray[Any]:
    """Tracks of the jets, selected, sorted and padded; fills n_tracks."""
    eta = -np.log(np.tan(0.5 * tracks.theta))
    deta = eta - axis[tracks.jet, 1]
    dphi = _wrapped(tracks.phi - axis[tracks.jet, 2])
    sine = np.sin(tracks.theta)
    z0 = tracks.z0 * sine
    pt = sine / np.abs(tracks.q_over_p)
    good = (pt > 0.5) & (np.abs(eta) < 2.5) & (np.abs(tracks.d0) < MAX_D0) & (np.abs(z0) < MAX_Z0)
    good &= np.hypot(deta, dphi) < cone_size(axis[tracks.jet, 0])
    significance = np.copysign(tracks.d0 / tracks.sigma[:, 0], -np.sin(dphi) * tracks.d0)
    rows = np.flatnonzero(good)
    rows = rows[np.lexsort((-np.abs(significance[rows]), tracks.jet[rows]))]
    jet = tracks.jet[rows]
    offsets = np.searchsorted(jet, np.arange(len(jets) + 1))
    jets["n_tracks"] = np.diff(offsets)
    rank = np.arange(len(rows)) - offsets[jet]
    sigma, hits, shared = tracks.sigma, tracks.hits, tracks.shared
    pixel, strip = slice(None, N_PIXEL), slice(N_PIXEL, None)
    values = {
        "qOverP": tracks.q_over_p,
        "deta": deta,
        "dphi": dphi,
        "d0": tracks.d0,
        "z0SinTheta": z0,
        "qOverPUncertainty": sigma[:, 4],
        "thetaUncertainty": sigma[:, 3],
        "phiUncertainty": sigma[:, 2],
        "lifetimeSignedD0Significance": significance,
        "lifetimeSignedZ0SinThetaSignificance": np.copysign(z0 / sigma[:, 1], -deta * z0),
        "numberOfPixelHits": hits[:, pixel].sum(axis=1),
        "numberOfSCTHits": hits[:, strip].sum(axis=1),
        "numberOfInnermostPixelLayerHits": hits[:, 0],
        "numberOfNextToInnermostPixelLayerHits": hits[:, 1],
        "numberOfInnermostPixelLayerSharedHits": shared[:, 0],
        "numberOfInnermostPixelLayerSplitHits": tracks.split[:, 0],
        "numberOfPixelSharedHits": shared[:, pixel].sum(axis=1),
        "numberOfPixelSplitHits": tracks.split[:, pixel].sum(axis=1),
        "numberOfSCTSharedHits": shared[:, strip].sum(axis=1),
        "pt": pt,
        "d0Uncertainty": sigma[:, 0],
        "z0SinThetaUncertainty": sigma[:, 1],
        "leptonID": tracks.lepton,
        "ftagTruthOriginLabel": tracks.origin,
        "valid": np.ones(len(pt), bool),
    }
    table = np.zeros((len(jets), MAX_TRACKS), structure(TRACKS))
    kept = rank < MAX_TRACKS
    place = jet[kept], rank[kept]
    for name, column in values.items():
        table[name][place] = column[rows[kept]]
    vertex = vertex_numbers(offsets, tracks.position[rows], MERGED)
    table["ftagTruthVertexIndex"][place] = np.minimum(vertex, 127)[kept]
    return table


@njit(cache=True)
def _near(event, eta, phi, axis, offsets):  # type: ignore[no-untyped-def]
    row, best = np.zeros(len(event), np.int64), np.full(len(event), np.inf)
    for i in range(len(event)):
        for jet in range(offsets[event[i]], offsets[event[i] + 1]):
            angle = abs(phi[i] - axis[jet, 2]) % (2.0 * np.pi)
            distance = np.hypot(eta[i] - axis[jet, 1], min(angle, 2.0 * np.pi - angle))
            if distance < best[i]:
                row[i], best[i] = jet, distance
    return row, best


def _nearest_jet(
    event: IntArray, momentum: FloatArray, axis: FloatArray, offsets: IntArray
) -> tuple[IntArray, FloatArray]:
    """Row of the jet of its event that is nearest to each particle, and its distance; inf where
    there is none.
    """
    phi = np.arctan2(momentum[:, 1], momentum[:, 0])
    row, distance = _near(event, _eta(momentum), phi, axis, offsets)
    return row, distance


def _eta(momentum: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.arcsinh(momentum[:, 2] / np.hypot(momentum[:, 0], momentum[:, 1])))


def _vector(pt: FloatArray, phi: FloatArray) -> FloatArray:
    return np.column_stack([pt * np.cos(phi), pt * np.sin(phi)])


def _wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray(np.remainder(angle + np.pi, 2.0 * np.pi) - np.pi)
