"""Photons and what fakes them, from Pythia 8: a candidate, and what flies beside it.

A photon comes from a scattering of quark and gluon, a fake is the hardest neutral pion or eta of a
jet, in dijets or beside a photon, that carries most of what flies within a cone. Such pions are
rare, one in some hundred jets. So a charged pion stands for a neutral one of its momentum, of which
jets have as many by isospin; and each collision may be used several times: turned about the beam,
mirrored, with another decay of the pion and another shower. Whoever splits, splits by collision.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.simulation.collisions import MAX_SEED, NEUTRINOS
from pfcalib.simulation.detector import COIL_RADIUS, FRONT
from pfcalib.simulation.particles import (
    Entry,
    Particles,
    decay_at_origin,
    measurable_energy,
    propagate,
)
from pfcalib.simulation.pythia import MIN_ENERGY, require_pythia
from pfcalib.simulation.showers import KIND, SHOWERING

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PHOTON_JET = ("PromptPhoton:qg2qgamma = on", "PromptPhoton:qqbar2ggamma = on")
# by source: settings of Pythia, which particles are candidates, and the power of pT-hat by which
# its spectrum is biased, so that candidates of 20 to 100 GeV are many
SOURCES: dict[str, tuple[tuple[str, ...], tuple[int, ...], float]] = {
    "photon": (PHOTON_JET, (22,), 3.0),
    "jet": (PHOTON_JET, (111, 211, -211, 221), 4.5),
    "dijet": (("HardQCD:all = on",), (111, 211, -211, 221), 4.5),
}
CONE = 0.2  # in (eta, phi): what flies in it beside a candidate
NEAR = 0.4  # in (eta, phi): what is carried to the calorimeter with a candidate
TRACKER = (40.0, 1100.0)  # mm, radii between which a photon may convert
TRACKER_X0 = 0.3  # radiation lengths of that, across; more lies behind the coil
_TRIED = 500  # collisions of one call of Pythia
_MAX_TRIES = 400
_PHOTON, _ELECTRON = 22, 11
_BEND = 0.299792458e-3  # GeV / (T mm)


class Candidates(NamedTuple):
    """Candidates of collisions and what flies within NEAR of each, itself or its decay included."""

    pdg_id: IntArray  # (n,) 22, 111 or 221
    pt: FloatArray  # (n,) GeV
    eta: FloatArray  # (n,)
    phi: FloatArray  # (n,) rad
    beside: FloatArray  # (n,) GeV, sum of pT of all else within CONE, neutrinos left out
    particles: Particles  # at the origin, their event the place of the candidate

    @property
    def n(self) -> int:
        return len(self.pt)

    def take(self, rows: IntArray) -> Candidates:
        """Some of them in any order, also several times."""
        first = np.searchsorted(self.particles.event, np.arange(self.n + 1))
        size = np.diff(first)[rows]
        start = np.repeat(first[rows] - np.cumsum(size) + size, size)
        chosen = Particles._make(v[start + np.arange(size.sum())] for v in self.particles)
        event = np.repeat(np.arange(len(rows)), size)
        return Candidates._make([*(v[rows] for v in self[:5]), chosen._replace(event=event)])


def simulate_candidates(
    source: str,
    n: int,
    rng: np.random.Generator,
    *,
    pt_min: float,
    pt_hat_max: float,
    eta_max: float,
    share_beside: float,
) -> Candidates:
    """Candidates, at most one of each collision, the hardest that passes.

    Multiple interactions are left out, since pile-up is laid over, and for the time that they take.

    Parameters
    ----------
    source : str
        Of `SOURCES`: ``photon``, ``jet`` (beside a photon) or ``dijet``.
    n : int
    rng : numpy.random.Generator
        Gives the seed of Pythia.
    pt_min : float, GeV
        Of a candidate.
    pt_hat_max : float, GeV
        Largest transverse momentum of the hard scattering.
    eta_max : float
        Largest abs(eta) of a candidate.
    share_beside : float
        What flies beside it within CONE has at most this share of its pT.

    Raises
    ------
    ConfigError
        If Pythia is missing or gives no such collisions.
    """
    pythia, _hook = _start(source, int(rng.integers(1, MAX_SEED)), pt_min, pt_hat_max, eta_max)
    found: list[Candidates] = []
    for _ in range(_MAX_TRIES * (1 + n // 100)):
        batch = pythia.nextBatch(_TRIED).prt
        cuts = {"pt_min": pt_min, "eta_max": eta_max, "share_beside": share_beside}
        found.append(_pick(batch, SOURCES[source][1], **cuts))
        if sum(part.n for part in found) >= n:
            return _join(found).take(np.arange(n))
    raise ConfigError(f"Pythia made too few candidates {source!r} of pT > {pt_min} GeV")


def _start(
    source: str, seed: int, pt_min: float, pt_hat_max: float, eta_max: float
) -> tuple[Any, Any]:
    """A generator and its hook, which must be kept."""
    require_pythia()
    import pythia8mc

    class Central(pythia8mc.UserHooks):
        """Refuses hard scatterings whose outgoing partons, or photon, all lie outside."""

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:
            leaving = (process[5], process[6])
            wanted = [p for p in leaving if (p.id() == _PHOTON) == (source == "photon")]
            return min(abs(p.eta()) for p in wanted) > eta_max + 0.2

    settings = (
        *SOURCES[source][0],
        "Beams:eCM = 13000.",
        "PartonLevel:MPI = off",
        f"PhaseSpace:pTHatMin = {pt_min}",
        f"PhaseSpace:pTHatMax = {pt_hat_max}",
        "PhaseSpace:bias2Selection = on",
        f"PhaseSpace:bias2SelectionPow = {SOURCES[source][2]}",
        "111:mayDecay = off",  # pi0 decay here
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    )
    pythia, hook = pythia8mc.Pythia("", False), Central()
    refused = [setting for setting in settings if not pythia.readString(setting)]
    pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(f"Pythia does not start for {source!r}; it refuses {refused}")
    return pythia, hook


def _pick(
    events: ak.Array, wanted: tuple[int, ...], *, pt_min: float, eta_max: float, share_beside: float
) -> Candidates:
    """Candidates of a batch of Pythia's events."""
    # etas decay in the record; of a prompt photon the last copy is final
    events = events[(events.status > 0) | (events.id == 221)]
    event = np.repeat(np.arange(len(events)), ak.to_numpy(ak.num(events.id)))
    pdg_id, status, px, py, pz, energy = (
        ak.to_numpy(ak.flatten(column))
        for column in (
            events.id, events.status, events.p.px, events.p.py, events.p.pz, events.p.e
        )
    )  # fmt: skip
    pt, phi = np.maximum(np.hypot(px, py), 1e-9), np.arctan2(py, px)
    eta = np.arcsinh(pz / pt)
    final = (status > 0) & ~np.isin(np.abs(pdg_id), NEUTRINOS)
    tried = np.flatnonzero(np.isin(pdg_id, wanted) & (pt > pt_min) & (np.abs(eta) < eta_max))
    first = np.searchsorted(event, np.arange(len(events) + 1))
    chosen: dict[int, tuple[int, float, IntArray]] = {}
    for row in tried[np.argsort(-pt[tried], kind="stable")]:
        near = np.arange(first[event[row]], first[event[row] + 1])
        near = near[final[near]]
        distance = np.hypot(eta[near] - eta[row], np.angle(np.exp(1j * (phi[near] - phi[row]))))
        beside = float(pt[near[distance < CONE]].sum() - pt[row])
        if beside < share_beside * pt[row]:
            chosen.setdefault(int(event[row]), (row, max(beside, 0.0), near[distance < NEAR]))
    rows = np.array([row for row, _, _ in chosen.values()], np.int64)
    pdg_id[rows[np.abs(pdg_id[rows]) == 211]] = 111  # after all are chosen
    near = np.concatenate([np.zeros(0, np.int64), *(near for _, _, near in chosen.values())])
    owner = np.repeat(np.arange(len(rows)), [len(near) for _, _, near in chosen.values()])
    particles = Particles(owner, pdg_id[near].astype(np.int32), energy[near], eta[near], phi[near])
    kept = np.isin(particles.pdg_id, list(SHOWERING)) & (measurable_energy(particles) > MIN_ENERGY)
    return Candidates(
        pdg_id[rows].astype(np.int64), pt[rows], eta[rows], phi[rows],
        np.array([beside for _, beside, _ in chosen.values()]),
        Particles._make(v[kept] for v in particles),
    )  # fmt: skip


def _join(parts: list[Candidates]) -> Candidates:
    """One after the other."""
    before = np.cumsum([0, *(part.n for part in parts)])
    event = np.concatenate([p.particles.event + n for p, n in zip(parts, before, strict=False)])
    columns = [np.concatenate(v) for v in zip(*(part.particles for part in parts), strict=True)]
    alone = (np.concatenate(v) for v in zip(*(part[:5] for part in parts), strict=True))
    return Candidates._make([*alone, Particles(event, *columns[1:])])


def turn(candidates: Candidates, rng: np.random.Generator) -> Candidates:
    """Each turned about the beam by a random angle and mirrored along it by chance."""
    angle = rng.uniform(-np.pi, np.pi, candidates.n)
    sign = rng.choice([-1.0, 1.0], candidates.n)
    of = candidates.particles.event
    moved = candidates.particles._replace(
        eta=candidates.particles.eta * sign[of],
        phi=np.angle(np.exp(1j * (candidates.particles.phi + angle[of]))),
    )
    phi = np.angle(np.exp(1j * (candidates.phi + angle)))
    return candidates._replace(eta=candidates.eta * sign, phi=phi, particles=moved)


def match_pt(pt: FloatArray, wanted: FloatArray, rng: np.random.Generator) -> IntArray:
    """For each wanted pT, in random order, the nearest in ln pT that is not taken yet.

    >>> match_pt(np.array([20.0, 50.0]), np.array([49.0, 48.0]), np.random.default_rng(1)).tolist()
    [1, 0]
    """
    free, rows = np.log(pt), np.empty(len(wanted), np.int64)
    for place in rng.permutation(len(wanted)):
        rows[place] = np.argmin(np.abs(free - np.log(wanted[place])))
        free[rows[place]] = np.inf
    return rows


def to_calorimeter(
    particles: Particles, rng: np.random.Generator, *, field: float, tracker: bool = True
) -> tuple[IntArray, FloatArray, NDArray[np.bool_]]:
    """Rows of `simulation.showers.run_events` at the front of the material, after decays and the
    conversion of photons in the tracker.

    Parameters
    ----------
    particles : Particles
        At the origin, sorted by event.
    rng : numpy.random.Generator
    field : float, tesla
        Solenoid.
    tracker : bool
        Whether there is one.

    Returns
    -------
    event, rows : ndarray, shape (n,), (n, 7)
        Sorted by event; what does not reach the calorimeter is left out.
    converted : ndarray of bool, shape (n_events,)
        Whether the hardest particle of the event is a photon that converted.
    """
    particles = decay_at_origin(particles, rng)
    radius = conversion_radius(particles, rng) if tracker else np.full(len(particles.eta), np.nan)
    pair = np.isfinite(radius)
    n_events = int(particles.event.max()) + 1
    order = np.lexsort((-particles.energy, particles.event))
    hardest = order[np.searchsorted(particles.event[order], np.arange(n_events))]
    straight = Particles._make(v[~pair] for v in particles)
    parts = [(straight, propagate(straight, field=field))]
    share = rng.random(int(pair.sum()))
    for charge, part in ((1, share), (-1, 1.0 - share)):
        leg = Particles._make(v[pair] for v in particles)
        leg = leg._replace(
            energy=leg.energy * part, pdg_id=np.full(len(part), -charge * _ELECTRON, np.int32)
        )
        parts.append((leg, bend(leg, radius[pair], charge, field=field)))
    event, rows = [], []
    for some, entry in parts:
        kind = np.array([KIND[int(pdg_id)] for pdg_id in some.pdg_id], np.float64)
        energy = measurable_energy(some)
        kept = entry.reaches & (energy > 1e-3)
        columns = (kind, energy, entry.phi_axis, entry.z, entry.direction)
        rows.append(np.column_stack(columns)[kept])
        event.append(some.event[kept])
    place = np.argsort(np.concatenate(event), kind="stable")
    return np.concatenate(event)[place], np.concatenate(rows)[place], pair[hardest]


def conversion_radius(particles: Particles, rng: np.random.Generator) -> FloatArray:
    """Where photons make a pair in the tracker, whose material is spread evenly; shape (n,), mm,
    NaN where they do not.
    """
    depth = 7.0 / 9.0 * TRACKER_X0 * np.cosh(particles.eta)
    share = rng.standard_exponential(len(depth)) / depth
    makes = (particles.pdg_id == _PHOTON) & (share < 1.0)
    return np.where(makes, TRACKER[0] + share * (TRACKER[1] - TRACKER[0]), np.nan)


def bend(particles: Particles, radius: FloatArray, charge: int, *, field: float) -> Entry:
    """Particles without mass that start at a radius, away from the beam, at the front of the
    material; see `simulation.particles.propagate`.

    On a circle of radius R = pT / (0.3 B) that starts at (r, 0) towards x, the point after an angle
    a is (r + R sin a, R (1 - cos a)). It lies on the coil, of radius c, where r R sin a - R^2 cos a
    = (c^2 - r^2) / 2 - R^2.
    """
    pt = particles.energy / np.cosh(particles.eta)
    bow = np.maximum(pt, 1e-9) / (_BEND * field) if field else np.full(len(pt), 1e9)
    size, start = np.hypot(radius, bow) * bow, np.arctan2(bow, radius)
    sine = (0.5 * (COIL_RADIUS**2 - radius**2) - bow**2) / size
    reaches = np.abs(sine) < 1.0
    angle = np.where(reaches, start + np.arcsin(np.clip(sine, -1.0, 1.0)), 0.0)
    # 1 - cos a = 2 sin^2(a / 2), which keeps its digits for a stiff track
    x, y = radius + bow * np.sin(angle), 2.0 * bow * np.sin(0.5 * angle) ** 2
    along = x * np.cos(angle) + y * np.sin(angle)
    line = np.sqrt(along**2 + FRONT**2 - x**2 - y**2) - along
    x, y = x + line * np.cos(angle), y + line * np.sin(angle)
    position = np.arctan2(y, x)
    slope = np.sinh(particles.eta)
    heading = np.column_stack(
        [np.cos(angle - position), -charge * np.sin(angle - position), slope]
    ) / np.cosh(particles.eta)[:, None]  # fmt: skip
    return Entry(
        particles.phi - charge * position,
        (radius + bow * angle + line) * slope,
        heading,
        reaches,
    )
