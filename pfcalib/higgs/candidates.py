"""Candidates of H H -> b b gamma gamma: particles of a collision as a detector like ATLAS would see
them, the usual preselection, and the quantities that classifiers are given.

Photons and jets are smeared by the resolutions below, jets are tagged by efficiencies. An event
does not draw whether its jets are tagged: it counts with the probability that exactly two are, and
draws which two. Photons and jets beside b quarks come from the shower in the continuum, which
makes two b jets in less than one event of a thousand; there any two jets stand for b jets, as
events without tags do for those with two in the first ATLAS searches, and the number of events is
taken from data. So the kinematics of this class are those of jets of any flavour.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, locked, new_file
from pfcalib.errors import ConfigError
from pfcalib.higgs.processes import PHOTON_ETA, PROCESSES, generate
from pfcalib.particleflow.jets import find_jets
from pfcalib.simulation.collisions import MAX_SEED, NEUTRINOS
from pfcalib.simulation.pythia import pythia_version

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

# sigma / E of a photon: a / sqrt(E / GeV) and b in quadrature (about those of arXiv:1812.03848);
# sigma / pT of a jet: N / pT, S / sqrt(pT), C (about those of arXiv:2007.02645)
PHOTON_RESOLUTION = (0.10, 0.010)
JET_RESOLUTION = (3.0, 0.75, 0.035)
MET_NOISE = 8.0  # GeV, of each component of the missing momentum, beyond what jets and photons do
PHOTON_EFFICIENCY = 0.85  # of identification, each photon
# of a b tag with 77 % (arXiv:2211.16345), of jets with a b hadron, a c hadron and others
TAG_EFFICIENCY = {"b": 0.77, "c": 0.18, "light": 0.006}
CRACK = (1.37, 1.52)  # in abs(eta), where photons are lost
MASS_RANGE, PT_OVER_MASS = (105.0, 160.0), (0.35, 0.25)  # GeV; of the two photons
ISOLATION_RADIUS, ISOLATION = 0.2, 0.05  # share of the pT of a photon that may lie around it
JET_PT, JET_ETA, MAX_JETS = 25.0, 2.5, 5  # GeV; fewer than six central jets
LEPTON_PT = 10.0  # GeV of a lepton of a W or Z boson, which is refused
VISIBLE_ETA = 4.9
M_W, M_T = 80.4, 172.8  # GeV, of the single topness
FEATURES = (
    *("pt_y1", "pt_y2", "eta_y1", "eta_y2", "phi_y2", "dr_yy", "pt_yy"),
    *("pt_b1", "pt_b2", "eta_b1", "eta_b2", "phi_b1", "phi_b2", "dr_bb"),
    *("m_bb", "pt_bb", "eta_bb", "phi_bb", "dr_yybb", "m_reduced"),
    *("ht", "n_jets", "met", "phi_met", "topness"),
)
UNITS = {
    name: "of m_yy" if name in ("pt_y1", "pt_y2", "pt_yy") else "GeV"
    for name in FEATURES
    if name.startswith(("pt", "m_", "ht", "met"))
}
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
# of one event; weight: probability of its tags and photons, 1 before any of them
COLUMNS = ("weight", "m_yy", *FEATURES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateConfig:
    """Which collisions to make candidates of; n_events are generated, of which a part is kept."""

    process: str
    n_events: int = 10_000
    seed: int = 1
    chunk: int = 2_000  # events of one generator; the sample depends on it

    def __post_init__(self) -> None:
        if self.process not in PROCESSES or min(self.n_events, self.chunk) < 1:
            raise ConfigError(
                f"CandidateConfig: process = {self.process!r}, n_events = {self.n_events}, chunk = "
                f"{self.chunk}: expected one of {', '.join(PROCESSES)}, and above 0"
            )


def cached_candidates(config: CandidateConfig, *, n_processes: int = 1) -> Path:
    """File of the candidates of a process, made where it is not there: an array of each of COLUMNS,
    shape (n_candidates,), see `read_candidates`.
    """
    key = cache_key("higgs", "pythia", config=config, pythia=pythia_version())
    path = cache_folder() / "higgs" / f"{config.process}-{key}.npz"
    with locked(path):
        if not path.exists():
            columns = simulate_candidates(config, n_processes=n_processes)
            with new_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **columns)  # type: ignore[arg-type]
    return path


def read_candidates(path: Path) -> dict[str, FloatArray]:
    """Columns of a file of `cached_candidates`."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in COLUMNS}


def simulate_candidates(config: CandidateConfig, *, n_processes: int = 1) -> dict[str, FloatArray]:
    """Candidates of a process, whatever the number of processes: arrays of COLUMNS."""
    sizes = [
        min(config.chunk, config.n_events - first)
        for first in range(0, config.n_events, config.chunk)
    ]
    make = functools.partial(_chunk, config)
    if min(n_processes, len(sizes)) < 2:
        parts = [make(*job) for job in enumerate(sizes)]
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(n_processes, context) as pool:
            parts = list(pool.map(make, *zip(*enumerate(sizes), strict=True)))
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def _chunk(config: CandidateConfig, number: int, n_events: int) -> dict[str, FloatArray]:
    place = tuple(PROCESSES).index(config.process)
    rng = np.random.default_rng((config.seed, place, number))
    events = generate(config.process, n_events, int(rng.integers(1, MAX_SEED, endpoint=True)))
    return select(events, rng, any_flavour=config.process == "yy")


def select(
    events: ak.Array, rng: np.random.Generator, *, any_flavour: bool = False
) -> dict[str, FloatArray]:
    """Candidates of events: arrays of COLUMNS, shape (n_candidates,).

    Parameters
    ----------
    events : awkward.Array
        Of `processes.generate`.
    rng : numpy.random.Generator
        Of the detector.
    any_flavour : bool
        True lets any two jets stand for b jets and the others for light ones.
    """
    found = _visible(events)
    photons, rows, kept = _two_photons(found, rng)
    refused = _events_with_lepton(found)
    good = ~np.isin(kept, refused)
    kept, photons, rows = kept[good], photons[good], rows[good]
    rest = found.take(np.isin(found.event, kept))
    mine = np.isin(np.flatnonzero(np.isin(found.event, kept)), rows)
    place = np.searchsorted(kept, rest.event)
    missing = -_sum(place, rest.momentum[:, :2], len(kept))
    missing -= (photons - found.momentum[rows])[..., :2].sum(axis=1)
    jets, shift = _central_jets(rest.momentum[~mine], place[~mine], photons, rng)
    missing += rng.normal(0.0, MET_NOISE, missing.shape) - shift
    n_jets = (jets[..., 3] > 0.0).sum(axis=1)
    pair, weight = _tags(jets[:, :MAX_JETS], _hadrons(events[kept]), rng, any_flavour)
    chosen = (n_jets <= MAX_JETS) & (weight > 0.0)
    columns = _features(*(each[chosen] for each in (photons, pair, jets[:, :MAX_JETS], missing)))
    return {"weight": PHOTON_EFFICIENCY**2 * weight[chosen], **columns}


class _Particles(NamedTuple):
    """Of a batch, sorted by event."""

    event: IntArray
    pdg_id: IntArray
    momentum: FloatArray  # (n, 4) px, py, pz, e in GeV

    def take(self, rows: Mask) -> _Particles:
        """Some of them."""
        return _Particles(self.event[rows], self.pdg_id[rows], self.momentum[rows])


def _flat(particles: ak.Array) -> _Particles:
    event = np.repeat(np.arange(len(particles)), ak.to_numpy(ak.num(particles.id)))
    columns = (particles.id, *(particles.p[name] for name in ("px", "py", "pz", "e")))
    pdg_id, *momentum = (ak.to_numpy(ak.flatten(column)) for column in columns)
    return _Particles(event, np.abs(pdg_id), np.stack(momentum, axis=-1))


def _visible(events: ak.Array) -> _Particles:
    """Stable particles but neutrinos, within the calorimeters."""
    every = _flat(events.prt[events.prt.status > 0])
    seen = ~np.isin(every.pdg_id, NEUTRINOS) & (np.abs(_eta(every.momentum)) < VISIBLE_ETA)
    return every.take(seen)


def _hadrons(events: ak.Array) -> dict[str, _Particles]:
    """Hadrons with a b or a c quark, of more than 5 GeV of pT, whatever becomes of them."""
    kinds = abs(events.prt.id)
    hard = (events.prt.p.px**2 + events.prt.p.py**2 > 25.0) & (kinds > 100) & (kinds < 10_000)
    return {
        name: _flat(events.prt[hard & ((kinds // 100 % 10 == quark) | (kinds // 1000 == quark))])
        for name, quark in (("b", 5), ("c", 4))
    }


def _two_photons(
    found: _Particles, rng: np.random.Generator
) -> tuple[FloatArray, IntArray, IntArray]:
    """Smeared momenta of the two hardest isolated photons, (n, 2, 4), their rows and their events,
    where they pass the preselection.
    """
    eta = np.abs(_eta(found.momentum))
    seen = (found.pdg_id == 22) & (_pt(found.momentum) > 15.0) & (eta < PHOTON_ETA)
    rows = np.flatnonzero(seen & ~((eta > CRACK[0]) & (eta < CRACK[1])))
    rows = rows[_around(found, rows) < ISOLATION * _pt(found.momentum[rows])]
    true = found.momentum[rows]
    sigma = np.hypot(PHOTON_RESOLUTION[0] / np.sqrt(true[:, 3]), PHOTON_RESOLUTION[1])
    momentum = true * rng.normal(1.0, sigma)[:, None]
    order = np.lexsort((-_pt(momentum), found.event[rows]))
    momentum, rows = momentum[order], rows[order]
    event, first, n = np.unique(found.event[rows], return_index=True, return_counts=True)
    event, first = event[n > 1], first[n > 1]
    pairs = np.stack([momentum[first], momentum[first + 1]], axis=1)
    mass = _mass(pairs.sum(axis=1))
    good = (mass > MASS_RANGE[0]) & (mass < MASS_RANGE[1])
    good &= np.all(_pt(pairs) > np.multiply.outer(mass, PT_OVER_MASS), axis=1)
    return pairs[good], np.stack([rows[first], rows[first + 1]], axis=1)[good], event[good]


def _events_with_lepton(found: _Particles) -> IntArray:
    """Events with an isolated electron or muon."""
    lepton = np.isin(found.pdg_id, (11, 13)) & (_pt(found.momentum) > LEPTON_PT)
    rows = np.flatnonzero(lepton & (np.abs(_eta(found.momentum)) < JET_ETA))
    return found.event[rows[_around(found, rows) < ISOLATION * _pt(found.momentum[rows])]]


def _around(found: _Particles, rows: IntArray) -> FloatArray:
    """Sum of the pT of all other particles within ISOLATION_RADIUS of some, GeV."""
    first, last = (np.searchsorted(found.event, found.event[rows], side) for side in _SIDES)
    n = last - first
    one = np.repeat(np.arange(len(rows)), n)
    other = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n - first, n)
    near = _distance(found.momentum[rows][one], found.momentum[other]) < ISOLATION_RADIUS
    near &= other != rows[one]
    around = np.zeros(len(rows))
    np.add.at(around, one[near], _pt(found.momentum[other[near]]))
    return around


def _central_jets(
    momentum: FloatArray, place: IntArray, photons: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Smeared central jets by falling pT, (n, MAX_JETS + 1, 4) with zeros behind the last, and what
    smearing added to px and py of all jets, (n, 2).
    """
    n = len(photons)
    offsets = np.searchsorted(place, np.arange(n + 1))
    px, py, pz, e = momentum.T
    found = find_jets(px, py, pz, e, offsets, radius=0.4, pt_min=15.0)
    true = np.stack(
        [
            found.pt * np.cos(found.phi),
            found.pt * np.sin(found.phi),
            found.pt * np.sinh(found.eta),
            np.hypot(found.pt * np.cosh(found.eta), found.mass),
        ],
        axis=-1,
    )
    a, b, c = JET_RESOLUTION
    sigma = np.sqrt((a / found.pt) ** 2 + b**2 / found.pt + c**2)
    smeared = true * np.maximum(rng.normal(1.0, sigma), 0.1)[:, None]
    shift = _sum(found.event, (smeared - true)[:, :2], n)
    central = (_pt(smeared) > JET_PT) & (np.abs(found.eta) < JET_ETA)
    for i in range(2):
        central &= _distance(smeared, photons[found.event, i]) > 0.4
    event, smeared = found.event[central], smeared[central]
    order = np.lexsort((-_pt(smeared), event))
    rank = np.arange(len(event)) - np.searchsorted(event, event)
    jets = np.zeros((n, MAX_JETS + 1, 4))
    some = rank <= MAX_JETS
    jets[event[some], rank[some]] = smeared[order][some]
    return jets, shift


def _tags(
    jets: FloatArray, hadrons: Mapping[str, _Particles], rng: np.random.Generator, any_flavour: bool
) -> tuple[FloatArray, FloatArray]:
    """The two jets that are tagged, the harder one first, (n, 2, 4), and the probability that
    exactly two are, (n,); by any_flavour, the two that are taken for b jets.
    """
    there = jets[..., 3] > 0.0
    is_b, is_c = (_holds(jets, hadrons[quark]) for quark in ("b", "c"))
    b, c, light = TAG_EFFICIENCY.values()
    efficiency = there * np.select([is_b, is_c], [b, c], light)
    pairs = list(itertools.combinations(range(MAX_JETS), 2))
    probability = np.empty((len(jets), len(pairs)))
    for k, pair in enumerate(pairs):
        chosen = np.isin(np.arange(MAX_JETS), pair)
        share = np.where(chosen, b, light) * there if any_flavour else efficiency
        probability[:, k] = np.prod(np.where(chosen, share, 1.0 - share), axis=1)
    weight = probability.sum(axis=1)
    draw = rng.uniform(size=len(jets)) * weight
    choice = np.minimum(
        (np.cumsum(probability, axis=1) < draw[:, None]).sum(axis=1), len(pairs) - 1
    )
    two = np.array(pairs)[choice]
    return np.take_along_axis(jets, two[..., None], axis=1), weight


def _holds(jets: FloatArray, hadrons: _Particles) -> Mask:
    """Jets (n, m, 4) with a hadron of their event within 0.3, (n, m)."""
    near = np.zeros(jets.shape[:2], dtype=bool)
    with np.errstate(invalid="ignore"):
        distance = _distance(jets[hadrons.event], hadrons.momentum[:, None])
    np.logical_or.at(near, hadrons.event, distance < 0.3)
    return near


def _features(
    photons: FloatArray, pair: FloatArray, jets: FloatArray, missing: FloatArray
) -> dict[str, FloatArray]:
    """m_yy and FEATURES; azimuths are those from the harder photon, -pi to pi."""
    (y1, y2), (b1, b2) = photons.swapaxes(0, 1), pair.swapaxes(0, 1)
    yy, bb = y1 + y2, b1 + b2
    mass = _mass(yy)

    def phi(momentum: FloatArray) -> FloatArray:
        return _wrap(np.arctan2(momentum[:, 1], momentum[:, 0]) - np.arctan2(y1[:, 1], y1[:, 0]))

    columns = {"m_yy": mass, "pt_yy": _pt(yy) / mass, "dr_yy": _distance(y1, y2)}
    for name, photon in (("y1", y1), ("y2", y2)):
        columns |= {f"pt_{name}": _pt(photon) / mass, f"eta_{name}": _eta(photon)}
    for name, jet in (("b1", b1), ("b2", b2), ("bb", bb)):
        columns |= {f"pt_{name}": _pt(jet), f"eta_{name}": _eta(jet), f"phi_{name}": phi(jet)}
    return {
        **columns,
        "phi_y2": phi(y2),
        "dr_bb": _distance(b1, b2),
        "m_bb": _mass(bb),
        "dr_yybb": _distance(yy, bb),
        # that of the pair of bosons, less what the resolution does (arXiv:2112.11876)
        "m_reduced": _mass(yy + bb) - _mass(bb) - mass + 250.0,
        "ht": _pt(jets).sum(axis=1),
        "n_jets": (jets[..., 3] > 0.0).sum(axis=1).astype(np.float64),
        "met": np.hypot(*missing.T),
        "phi_met": phi(missing),
        "topness": _topness(jets),
    }


def _topness(jets: FloatArray) -> FloatArray:
    """How far the best three jets are from a top quark and its W boson: the smallest sqrt[(m_ij /
    m_W - 1)^2 + (m_ijk / m_t - 1)^2] (arXiv:2112.11876), (n,); 3 at most and with two jets only.
    """
    best = np.full(len(jets), 3.0)
    for i, j, k in itertools.permutations(range(MAX_JETS), 3):
        if i < j:
            w = jets[:, i] + jets[:, j]
            top = w + jets[:, k]
            away = np.hypot(_mass(w) / M_W - 1.0, _mass(top) / M_T - 1.0)
            three = jets[:, max(i, j, k), 3] > 0.0
            best = np.where(three, np.minimum(best, away), best)
    return best


def _sum(place: IntArray, columns: FloatArray, n: int) -> FloatArray:
    """Sums of columns (m, k) over what has the same place, (n, k)."""
    total = np.zeros((n, columns.shape[1]))
    np.add.at(total, place, columns)
    return total


def _pt(momentum: FloatArray) -> FloatArray:
    return np.hypot(momentum[..., 0], momentum[..., 1])


def _eta(momentum: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.arcsinh(momentum[..., 2] / _pt(momentum))


def _mass(momentum: FloatArray) -> FloatArray:
    square = momentum[..., 3] ** 2 - np.sum(momentum[..., :3] ** 2, axis=-1)
    return np.sqrt(np.maximum(square, 0.0))


def _wrap(angle: FloatArray) -> FloatArray:
    return np.remainder(angle + np.pi, 2.0 * np.pi) - np.pi


def _distance(one: FloatArray, other: FloatArray) -> FloatArray:
    """In (eta, phi)."""
    d_phi = np.arctan2(one[..., 1], one[..., 0]) - np.arctan2(other[..., 1], other[..., 0])
    return np.hypot(_eta(one) - _eta(other), _wrap(d_phi))
