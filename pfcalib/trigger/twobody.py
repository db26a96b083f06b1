"""Pairs of tracks that may come from the decay of a b hadron, as a forward detector like LHCb sees
them in collisions of Pythia 8.

Tracks are straight lines that miss their origin by the measured resolution of LHCb, 11.6 + 23.4 /
pT um (arXiv:1405.7808), some by more than they know. The selection of pairs is that of the line of
two tracks in LHCb's first software trigger (Allen, TwoTrackMVALine), with a lower cut on the impact
parameters; what a network sees of a pair is what its successors see (arXiv:2112.00038,
arXiv:2312.14265).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.collisions import MAX_SEED
from pfcalib.simulation.genrecord import Record, hadron_flavour, start_generator
from pfcalib.simulation.pythia import pythia_version

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

SQRT_S = 13_000.0  # GeV
PROCESSES = {
    "minimum": ("SoftQCD:nonDiffractive = on",),
    "b": ("HardQCD:hardbbbar = on", "PhaseSpace:pTHatMin = 3.0"),
}
# b hadrons that decay weakly; speed of light times lifetime, mm (Particle Data Group)
WEAK = {
    511: 0.455, 521: 0.491, 531: 0.456, 541: 0.153, 5122: 0.441, 5132: 0.471, 5232: 0.444,
    5332: 0.492,
}  # fmt: skip
TRACKED = (11, 13, 211, 321, 2212)  # what leaves tracks
ETA = (2.0, 5.0)
TRACK_PT, PAIR_PT, CORRECTED_MASS, VERTEX_CHI2 = 0.7, 2.0, 1.0, 25.0  # GeV; published cuts
IP_CHI2 = 4.0  # of both tracks; published 12
PLANES = np.arange(-290.0, 750.0, 25.0)  # mm; of a toy of the vertex locator
RADIUS = (5.1, 33.0)  # mm, where planes measure (LHCB-TDR-013)
MIN_PLANES = 3
VERTEX_ERROR = (0.013, 0.013, 0.071)  # mm, of the collision (arXiv:1405.7808, 25 tracks)
BEAM_LENGTH = 63.0  # mm
MOMENTUM_ERROR = 0.005  # relative
TAIL, TAIL_FACTOR = 0.04, 2.5  # share of tracks whose error is that much larger than they know
M_PION = 0.13957  # GeV, of all tracks
BATCH = 500  # events of a call of Pythia
NO_HADRON = -1
KINDS = ("b", "c", "strange", "other")  # hadron of which both tracks come, the heaviest
FEATURES = ("sum_pt", "min_ip_chi2", "vertex_chi2", "fd_chi2")
LEAST = 1e-3  # of a feature, under its logarithm


@dataclass(frozen=True, kw_only=True)
class TwoBodyConfig:
    """Which collisions to make.

    Parameters
    ----------
    process : str
        Of PROCESSES.
    n_events : int
        Collisions.
    seed : int
    chunk : int
        Collisions of one generator; the sample depends on it.
    lifetime : float
        Of b hadrons, over the real one.
    scales : tuple of float
        Resolutions of impact parameters over what tracks believe; for each the same tracks are
        measured with the same random numbers.
    """

    process: str
    n_events: int = 10_000
    seed: int = 1
    chunk: int = 2_000
    lifetime: float = 1.0
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        sizes = (self.n_events, self.chunk, self.lifetime, len(self.scales), *self.scales)
        if self.process not in PROCESSES or not min(sizes) > 0:
            raise ConfigError(
                f"TwoBodyConfig: expected a process of {', '.join(PROCESSES)} and sizes above 0, "
                f"not {self}"
            )


class TwoBodies(NamedTuple):
    """Pairs that pass the selection, (n,) each; and what was made of which they are a part."""

    event: I64  # number of the collision
    scale: NDArray[np.int8]  # place in the scales of the configuration
    sum_pt: NDArray[np.float32]  # GeV
    min_ip_chi2: NDArray[np.float32]  # smaller one of both tracks
    vertex_chi2: NDArray[np.float32]
    fd_chi2: NDArray[np.float32]  # of the distance to the collision
    mass: NDArray[np.float32]  # GeV, of two pions
    corrected_mass: NDArray[np.float32]  # GeV
    kind: NDArray[np.int8]  # place in KINDS
    hadron: I64  # b hadron of both tracks by its place in the event, or NO_HADRON
    flight: NDArray[np.float32]  # mm, true one of that hadron
    n_events: I64  # (n_chunks,) collisions
    n_hadrons: I64  # (n_chunks,) b hadrons that decay weakly, with ETA
    sigma: F64  # (n_chunks,) cross section, mb
    decay: F64  # (n_chunks, 2) number of b hadrons, and sum of their proper times over the speed of
    # light, mm

    def take(self, rows: NDArray[Any]) -> Self:
        """Some of the pairs."""
        last = self._fields.index("n_events")
        return type(self)(*(x[rows] for x in self[:last]), *self[last:])

    @property
    def table(self) -> NDArray[np.float32]:
        """What networks see: logarithms of FEATURES, (n, len(FEATURES))."""
        columns = np.column_stack([getattr(self, name) for name in FEATURES])
        return np.log(np.maximum(columns, LEAST)).astype(np.float32)


def cached_two_bodies(config: TwoBodyConfig, *, n_processes: int = 1) -> Path:
    """File of the pairs (.npz of the arrays of TwoBodies), made where it is not there."""
    key = cache_key("twobody", config=config, pythia=pythia_version())
    return keep_chunks(
        cache_folder() / "twobody" / f"{config.process}-{key}.npz",
        functools.partial(simulate_two_bodies, config), -(-config.n_events // config.chunk),
        join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def read_two_bodies(path: Path) -> TwoBodies:
    """Pairs of a file of `cached_two_bodies`."""
    return TwoBodies(**read_columns(path))


def simulate_two_bodies(config: TwoBodyConfig, number: int) -> TwoBodies:
    """Pairs of one chunk, whatever was made before.

    Parameters
    ----------
    config : TwoBodyConfig
    number : int
        Of the chunk, from 0.
    """
    place = tuple(PROCESSES).index(config.process)
    rng = np.random.default_rng((config.seed, place, number))
    first = number * config.chunk
    n_events = min(config.chunk, config.n_events - first)
    slow = [f"{kind}:tau0 = {config.lifetime * tau}" for kind, tau in WEAK.items()]
    settings = (f"Beams:eCM = {SQRT_S}", *PROCESSES[config.process], *slow)
    pythia = start_generator(settings, int(rng.integers(1, MAX_SEED, endpoint=True)))
    parts, hadrons, decay = [], 0, np.zeros(2)
    for done in range(0, n_events, BATCH):
        record = Record.read(pythia.nextBatch(min(BATCH, n_events - done)))
        tracks, found, decays = charged_tracks(record, rng)
        hadrons, decay = hadrons + found, decay + decays
        drawn = draw_errors(len(tracks.event), rng)
        for k, scale in enumerate(config.scales):
            pairs = pair_tracks(tracks, drawn, scale=scale)
            pairs["event"] += first + done
            parts.append(pairs | {"scale": np.full(len(pairs["event"]), k, np.int8)})
    told = {
        "n_events": np.array([n_events]), "n_hadrons": np.array([hadrons]),
        "sigma": np.array([pythia.infoPython().sigmaGen()]), "decay": decay[None],
    }  # fmt: skip
    return TwoBodies(**join_columns(parts), **told)


class Tracks(NamedTuple):
    """Charged particles in the acceptance, sorted by event."""

    event: I64  # (n,)
    start: F64  # (n, 3) mm, from the collision
    momentum: F64  # (n, 3) GeV
    kind: I64  # (n,) place in KINDS
    hadron: I64  # (n,) what gave the kind, by its place in the event
    flight: F64  # (n,) mm, its way


class Errors(NamedTuple):
    """Random numbers of a unit Gaussian each, of tracks and of events."""

    across: F64  # (n, 2)
    wide: NDArray[np.bool_]  # (n,) in the tail
    momentum: F64  # (n,)
    vertex: F64  # (n, 3) of the event of each track


@njit(cache=True)
def _ancestry(offsets, pdg_id, mother, daughters):  # type: ignore[no-untyped-def]
    """Of each particle the kind and the place of the nearest b, else c, else strange hadron that it
    comes from; and whether it is a b hadron without one among its daughters.
    """
    n = len(pdg_id)
    kind, place, weak = np.full(n, 3), np.full(n, -1), np.zeros(n, np.bool_)
    for event in range(len(offsets) - 1):
        start = offsets[event]
        for i in range(start, offsets[event + 1]):
            if hadron_flavour(pdg_id[i]) == 5 and daughters[i, 0] > 0:
                weak[i] = True
                for k in range(daughters[i, 0], daughters[i, 1] + 1):
                    weak[i] &= hadron_flavour(pdg_id[start + k]) != 5
            up = mother[i]
            while up > 0:
                number = pdg_id[start + up]
                flavour = hadron_flavour(number)
                if flavour == 0 and not (11 <= abs(number) <= 16 or number == 22):
                    break
                strange = abs(number) in (310, 3122, 3112, 3222, 3312, 3322, 3334)
                mine = 0 if flavour == 5 else 1 if flavour == 4 else 2 if strange else 3
                if mine < kind[i]:
                    kind[i], place[i] = mine, up
                up = mother[start + up]
    return kind, place, weak


def charged_tracks(record: Record, rng: np.random.Generator) -> tuple[Tracks, int, F64]:
    """Tracks that cross enough planes; number of b hadrons that decay weakly with ETA; and number
    and sum of the proper times (mm) of all of these, with any pseudorapidity.

    Parameters
    ----------
    record : Record
    rng : numpy.random.Generator
        Of the place of the collision along the beam.
    """
    p = record.momentum
    pt = np.hypot(p[:, 0], p[:, 1])
    eta = np.arcsinh(p[:, 2] / np.maximum(pt, 1e-9))
    forward = (eta > ETA[0]) & (eta < ETA[1])
    z = BEAM_LENGTH * rng.standard_normal(len(record.offsets) - 1)
    charged = (record.status > 0) & np.isin(np.abs(record.pdg_id), TRACKED)
    rows = np.flatnonzero(charged & forward & (pt > TRACK_PT))
    start, way = record.position[rows], p[rows] / p[rows, 2:]
    step = PLANES - (start[:, 2] + z[record.event[rows]])[:, None]
    r = np.hypot(*(start[:, i, None] + way[:, i, None] * step for i in (0, 1)))
    hits = ((step > 0.0) & (r > RADIUS[0]) & (r < RADIUS[1])).sum(axis=1)
    rows = rows[hits >= MIN_PLANES]

    kind, ancestor, weak = _ancestry(record.offsets, record.pdg_id, record.mother, record.daughters)
    has = np.flatnonzero(record.daughters[:, 0] > 0)
    flight = np.zeros(len(p))
    ends = record.offsets[record.event[has]] + record.daughters[has, 0]
    flight[has] = np.linalg.norm(record.position[ends] - record.position[has], axis=1)
    mass = np.sqrt(np.maximum(record.energy**2 - np.sum(p**2, axis=1), 0.0))[weak]
    proper = flight[weak] * mass / np.linalg.norm(p[weak], axis=1)
    above, known = record.offsets[record.event[rows]] + ancestor[rows], ancestor[rows] >= 0
    tracks = Tracks(
        record.event[rows], record.position[rows], p[rows], kind[rows],
        np.where(known, ancestor[rows], NO_HADRON), np.where(known, flight[above], 0.0),
    )  # fmt: skip
    return tracks, int(forward[weak].sum()), np.array([len(mass), proper.sum()])


def draw_errors(n: int, rng: np.random.Generator) -> Errors:
    """Random numbers of n tracks."""
    return Errors(
        rng.standard_normal((n, 2)), rng.random(n) < TAIL, rng.standard_normal(n),
        rng.standard_normal((n, 3)),
    )  # fmt: skip


def believed_error(pt: F64) -> F64:
    """Error of an impact parameter in each of two directions, mm, of tracks with pt in GeV."""
    return 0.0116 + 0.0234 / pt


def pair_tracks(tracks: Tracks, errors: Errors, *, scale: float = 1.0) -> dict[str, NDArray[Any]]:
    """Pairs that pass the selection, as in TwoBodies.

    The two lines p_i + t u_i with errors s_i across them give the vertex

        v = C sum_i P_i p_i / s_i^2,   C^-1 = sum_i P_i / s_i^2,   P_i = 1 - u_i u_i^T

    of covariance C, and chi2 = sum_i |P_i (v - p_i)|^2 / s_i^2 with one degree of freedom.

    Parameters
    ----------
    tracks : Tracks
    errors : Errors
    scale : float
        Of the errors across, over what is believed.
    """
    n = len(tracks.event)
    unit = tracks.momentum / np.linalg.norm(tracks.momentum, axis=1)[:, None]
    pt = np.hypot(tracks.momentum[:, 0], tracks.momentum[:, 1])
    sigma = believed_error(pt)
    e1 = np.column_stack([-tracks.momentum[:, 1], tracks.momentum[:, 0], np.zeros(n)]) / pt[:, None]
    e2 = np.cross(unit, e1)
    size = (scale * sigma * np.where(errors.wide, TAIL_FACTOR, 1.0))[:, None]
    point = tracks.start + size * (errors.across[:, :1] * e1 + errors.across[:, 1:] * e2)
    momentum = tracks.momentum * (1.0 + MOMENTUM_ERROR * errors.momentum)[:, None]
    first = np.unique(tracks.event, return_index=True)[1]
    one = np.repeat(first, np.diff(np.append(first, n)))
    collision = np.array(VERTEX_ERROR) * errors.vertex[one]
    across = np.eye(3) - unit[:, :, None] * unit[:, None, :]
    square, of_vertex = (sigma**2)[:, None, None], np.diag(np.square(VERTEX_ERROR))
    miss = _across(point - collision, unit)
    ip_chi2 = _chi2(miss, square * np.eye(3) + across @ of_vertex @ across)
    keep = np.flatnonzero(ip_chi2 > IP_CHI2)
    i, j = (keep[x] for x in _pairs(tracks.event[keep]))

    weight = across / square
    cov = np.linalg.inv(weight[i] + weight[j])
    pulled = (weight @ point[:, :, None])[:, :, 0]
    vertex = (cov @ (pulled[i] + pulled[j])[:, :, None])[:, :, 0]
    chi2 = sum(np.sum(_across(vertex - point[k], unit[k]) ** 2, 1) / sigma[k] ** 2 for k in (i, j))
    way = vertex - collision[i]
    fd_chi2 = _chi2(way, cov + of_vertex)
    total = momentum[i] + momentum[j]
    energy = sum(np.sqrt(np.sum(momentum[k] ** 2, axis=1) + M_PION**2) for k in (i, j))
    mass = np.sqrt(np.maximum(energy**2 - np.sum(total**2, axis=1), 0.0))
    missing = np.linalg.norm(_across(total, way / np.linalg.norm(way, axis=1)[:, None]), axis=1)
    corrected = np.sqrt(mass**2 + missing**2) + missing
    eta = np.arcsinh(way[:, 2] / np.hypot(way[:, 0], way[:, 1]))
    passed = (
        (np.hypot(total[:, 0], total[:, 1]) > PAIR_PT) & (chi2 < VERTEX_CHI2)
        & (corrected > CORRECTED_MASS) & (eta > ETA[0]) & (eta < ETA[1])
        & (np.sum(total * way, axis=1) > 0.0)
    )  # fmt: skip
    same = (tracks.hadron[i] == tracks.hadron[j]) & (tracks.hadron[i] != NO_HADRON)
    kind = np.where(same, tracks.kind[i], len(KINDS) - 1)
    b = kind == 0
    columns = {
        "sum_pt": np.hypot(*momentum[i, :2].T) + np.hypot(*momentum[j, :2].T),
        "min_ip_chi2": np.minimum(ip_chi2[i], ip_chi2[j]), "vertex_chi2": chi2, "fd_chi2": fd_chi2,
        "mass": mass, "corrected_mass": corrected, "flight": np.where(b, tracks.flight[i], 0.0),
    }  # fmt: skip
    return {
        "event": tracks.event[i][passed], "kind": kind[passed].astype(np.int8),
        "hadron": np.where(b, tracks.hadron[i], NO_HADRON)[passed],
        **{name: values[passed].astype(np.float32) for name, values in columns.items()},
    }  # fmt: skip


def _chi2(vectors: F64, covariance: F64) -> F64:
    """x^T C^-1 x of each."""
    return np.sum(vectors * np.linalg.solve(covariance, vectors[:, :, None])[:, :, 0], axis=1)


def _across(vectors: F64, unit: F64) -> F64:
    return vectors - np.sum(vectors * unit, axis=1, keepdims=True) * unit


def _pairs(event: I64) -> tuple[I64, I64]:
    """Places of all pairs of one event each, the events sorted."""
    later = np.searchsorted(event, event, side="right") - np.arange(len(event)) - 1
    first = np.repeat(np.arange(len(event)), later)
    start = np.cumsum(later) - later
    return first, first + 1 + np.arange(len(first)) - np.repeat(start, later)
