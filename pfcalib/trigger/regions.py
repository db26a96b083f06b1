"""Transverse energies of the regions of a calorimeter trigger in crossings with many collisions, as
whole numbers, by Pythia 8.

Regions are those of the trigger of CMS: 4 x 4 towers each, 18 in azimuth by 14 in pseudorapidity up
to 3, in ten bits (CERN-LHCC-2013-011). Charged particles turn in 3.8 T, and those that do not reach
the barrel end in an endcap. Resolutions are those of CMS (arXiv:1706.04965), the mean response to
hadrons that of a calorimeter that does not compensate; a tower counts whole half GeV of the
electromagnetic and of the hadronic part, so that less than one is lost.

At a rate of one crossing in ten thousand the hardest of some million collisions decide. So
collisions are kept in two pools, of which the harder is made flat in the logarithm of pT-hat, and a
crossing draws from both with the probabilities of their cross sections, each collision turned and
mirrored by chance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import h5py
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import kn

from pfcalib.cache import cache_folder, cache_key, new_file
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.collisions import MAX_SEED, stable_particles
from pfcalib.simulation.genrecord import start_generator
from pfcalib.simulation.particles import Particles, measurable_energy
from pfcalib.simulation.pythia import pythia_version
from pfcalib.simulation.tracks import mass_and_charge, transverse_momentum

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

N_PHI, N_ETA, TOWERS = 18, 14, 4  # regions, and towers along a side of one
_EDGES = np.append(
    0.087 * np.arange(20), [1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 3.0]
)  # of towers
TOWER_EDGES = np.concatenate([-_EDGES[:0:-1], _EDGES])
REGION_EDGES = TOWER_EDGES[::TOWERS]
_N_TOWERS = (N_ETA * TOWERS, N_PHI * TOWERS)  # in pseudorapidity, azimuth
COUNT = 0.5  # GeV of transverse energy
MOST_TOWER, MOST_REGION = 255, 1023  # counts
RADIUS, LENGTH = 1290.0, 3150.0  # mm, front of barrel and endcaps
FIELD = 3.8  # tesla
EM_RESOLUTION, HADRON_RESOLUTION = (0.028, 0.003), (1.10, 0.09)  # of E^(-1/2), and constant
E_OVER_H, HADRON_POWER = 1.4, 0.82  # response to hadrons
ETA_MAX = float(TOWER_EDGES[-1])
HARD, HARDEST = 20.0, 600.0  # GeV of pT-hat, edges of the harder pool
MUON = 13
SCALAR = 25  # a heavy one by the numbers of a Higgs boson
SCALAR_MASS = 400.0  # GeV
MESON_MASS, TEMPERATURE = 2.0, 2.0  # GeV, of its decay
CHARGED_PION, NEUTRAL_PION = 0.13957, 0.13498  # GeV
_SCALAR = ("HiggsSM:gg2H = on", f"25:m0 = {SCALAR_MASS}", "25:mWidth = 0.01",
           "25:doForceWidth = on", "25:mayDecay = off")  # fmt: skip
PROCESSES: dict[str, tuple[str, ...]] = {
    "soft": ("SoftQCD:inelastic = on",),  # of pT-hat below HARD
    "hard": (
        *("HardQCD:all = on", f"PhaseSpace:pTHatMin = {HARD}", f"PhaseSpace:pTHatMax = {HARDEST}"),
        *("PhaseSpace:bias2Selection = on", "PhaseSpace:bias2SelectionPow = 4.0"),
    ),
    "ttbar": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
    "zh": ("HiggsSM:ffbar2HZ = on",),
    "suep": _SCALAR,
}
SIGNALS = ("ttbar", "zh", "suep")
H5_NAME = "CaloRegions"  # of the files of Princeton-AD/cicada


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Which collisions to make.

    Parameters
    ----------
    process : str
        Of PROCESSES: "soft" and "hard" are minimum bias, "ttbar" pairs of top quarks, "zh" a Higgs
        and a Z boson, "suep" a heavy scalar that decays to many soft particles all around
        (arXiv:1612.00850).
    n_events, seed : int
    sqrt_s : float, GeV
    chunk : int
        Events of one generator; the sample depends on it.
    """

    process: str
    n_events: int = 2_000
    seed: int = 1
    sqrt_s: float = 13_000.0
    chunk: int = 1_000

    def __post_init__(self) -> None:
        if self.process not in PROCESSES or min(self.n_events, self.chunk) < 1:
            raise ConfigError(
                f"SourceConfig: expected one of {', '.join(PROCESSES)} and numbers above 0, not "
                f"{self}"
            )


class Deposits(NamedTuple):
    """Transverse energy that collisions leave in towers, sorted by event."""

    offsets: I64  # (n_events + 1,)
    tower: NDArray[np.int16]  # (n,) electromagnetic ones first, by pseudorapidity, azimuth
    energy: NDArray[np.float32]  # (n,) GeV, transverse
    weight: F64  # (n_events,) of the generator
    cross_section: F64  # (n_chunks,) mb
    share: F64  # (n_chunks,) of the generator's events that are of the process

    @property
    def total(self) -> F64:
        """Transverse energy of each event in GeV, (n_events,)."""
        sums = np.append(0.0, np.cumsum(self.energy, dtype=np.float64))
        return np.diff(sums[self.offsets])


@dataclass(frozen=True, kw_only=True)
class CrossingConfig:
    """Which crossings to make.

    Parameters
    ----------
    n_crossings : int
    mu : float
        Mean number of collisions, besides that of the signal.
    signal : str
        Of SIGNALS; empty for minimum bias.
    n_soft, n_hard : int
        Collisions of both pools.
    pool_seed : int
        Of the pools: crossings to train on and others to test with must not share them.
    seed, chunk : int
        Crossings depend on both.
    """

    n_crossings: int = 10_000
    mu: float = 50.0
    signal: str = ""
    n_soft: int = 2_000
    n_hard: int = 1_000
    pool_seed: int = 1
    seed: int = 1
    chunk: int = 5_000

    def __post_init__(self) -> None:
        wrong = self.signal and self.signal not in SIGNALS
        if wrong or self.mu < 0.0 or min(self.n_crossings, self.chunk) < 1:
            raise ConfigError(
                f"CrossingConfig: expected no signal or one of {', '.join(SIGNALS)}, mu not below "
                f"0, numbers above 0, not {self}"
            )

    @property
    def sources(self) -> dict[str, SourceConfig]:
        """Collisions of which crossings are made, by process."""
        sizes = {"soft": self.n_soft, "hard": self.n_hard}
        sizes |= {self.signal: self.n_crossings} if self.signal else {}
        return {
            process: SourceConfig(process=process, n_events=n, seed=self.pool_seed)
            for process, n in sizes.items()
        }


class Crossings(NamedTuple):
    """Regions of crossings."""

    regions: NDArray[np.uint16]  # (n, N_PHI, N_ETA) counts
    energy: NDArray[np.float32]  # (n,) GeV, transverse, of all towers before it is counted
    n_collisions: NDArray[np.int16]  # (n,) besides that of the signal


def cached_crossings(config: CrossingConfig, *, n_processes: int = 1) -> Path:
    """File of crossings (.npz of the arrays of Crossings), made where it is not there; its pools
    are made, or found, before.
    """
    paths = {
        process: cached_deposits(source, n_processes=n_processes)
        for process, source in config.sources.items()
    }
    key = cache_key("regions", config=config, pythia=pythia_version())
    name = config.signal or "minimum_bias"
    return keep_chunks(
        cache_folder() / "trigger" / f"{name}-{key}.npz",
        functools.partial(_make_crossings, config, paths), -(-config.n_crossings // config.chunk),
        join=join_columns, n_processes=n_processes,
    )  # fmt: skip


def _make_crossings(config: CrossingConfig, paths: dict[str, Path], number: int) -> Crossings:
    sources = {process: read_deposits(path) for process, path in paths.items()}
    return simulate_regions(config, sources, number)


def cached_deposits(config: SourceConfig, *, n_processes: int = 1) -> Path:
    """File of collisions (.npz of the arrays of Deposits), made where it is not there."""
    key = cache_key("regions", config=config, pythia=pythia_version())
    return keep_chunks(
        cache_folder() / "trigger" / f"{config.process}-{key}.npz",
        functools.partial(simulate_deposits, config), -(-config.n_events // config.chunk),
        join=_join_deposits, n_processes=n_processes,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def read_deposits(path: Path) -> Deposits:
    """Collisions of a file of `cached_deposits`, read once a process."""
    return Deposits(**read_columns(path))


def read_crossings(path: str | Path) -> Crossings:
    """Crossings of a file of `cached_crossings`; or of one's own h5 file with a data set
    "CaloRegions" of the shape (n, 18, 14), of which energy and number of collisions are unknown.

    Raises
    ------
    BadFileError
        If an h5 file has no such data set, or its values are no counts of ten bits.
    """
    if Path(path).suffix == ".npz":
        return Crossings(**read_columns(Path(path)))
    with h5py.File(path) as file:
        values = file[H5_NAME][:] if H5_NAME in file else np.zeros(0)
    if values.ndim != 3 or values.shape[1:] != (N_PHI, N_ETA):
        raise BadFileError(
            f"{path}: expected a data set {H5_NAME!r} of the shape (n, {N_PHI}, {N_ETA})"
        )
    if not ((values >= 0) & (values <= MOST_REGION) & (values == np.round(values))).all():
        raise BadFileError(f"{path}: expected whole numbers from 0 to {MOST_REGION} as counts")
    n = len(values)
    unknown = np.full(n, np.nan, np.float32), np.full(n, -1, np.int16)
    return Crossings(values.astype(np.uint16), *unknown)


def write_crossings(path: str | Path, crossings: Crossings) -> None:
    """Write regions to an h5 file as `read_crossings` reads them."""
    with new_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset(H5_NAME, data=crossings.regions, compression="gzip")


def simulate_deposits(config: SourceConfig, number: int) -> Deposits:
    """Collisions of one generator, whatever was made before.

    Parameters
    ----------
    config : SourceConfig
    number : int
        Of the chunk, from 0.
    """
    n = min(config.chunk, config.n_events - number * config.chunk)
    rng = np.random.default_rng((config.seed, tuple(PROCESSES).index(config.process), number))
    settings = (*PROCESSES[config.process], f"Beams:eCM = {config.sqrt_s}")
    generator = start_generator(settings, int(rng.integers(1, MAX_SEED, endpoint=True)))
    batches, n_tried, missing = [], 0, n
    while missing:
        batch = generator.nextBatch(missing)
        n_tried += len(batch)
        if config.process == "soft":
            batch = batch[ak.to_numpy(batch.info.pT2Hat) < HARD**2]
        batches.append(batch)
        missing -= len(batch)
    events = ak.concatenate(batches)
    particles = stable_particles(events, ETA_MAX)
    if config.process == "suep":
        particles = _join(particles, decay_scalars(events, rng))
    event, tower, energy = deposit(particles, rng)
    n_towers = 2 * _N_TOWERS[0] * _N_TOWERS[1]
    places, inverse = np.unique(event * n_towers + tower, return_inverse=True)
    return Deposits(
        np.searchsorted(places, np.arange(n + 1) * n_towers),
        (places % n_towers).astype(np.int16),
        np.bincount(inverse, energy, len(places)).astype(np.float32),
        ak.to_numpy(events.info.weights[:, 0]),
        np.array([generator.infoPython().sigmaGen()]),
        np.array([n / n_tried]),
    )


def _join(*parts: Particles) -> Particles:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Particles._make(column[order] for column in columns)


def _join_deposits(parts: list[dict[str, NDArray[Any]]]) -> Deposits:
    first = np.cumsum([0, *(part["offsets"][-1] for part in parts)])
    offsets = [part["offsets"][1:] + n for part, n in zip(parts, first, strict=False)]
    joined = join_columns(parts)
    return Deposits(**{**joined, "offsets": np.concatenate([[0], *offsets])})


def deposit(particles: Particles, rng: np.random.Generator) -> tuple[I64, I64, F64]:
    """What particles leave in towers: events, towers, and transverse energies in GeV.

    Muons leave nothing, electrons and photons all in the electromagnetic part, hadrons all in the
    hadronic one. Energies fluctuate as Gamma variates, which stay positive and have the mean that
    they should have.
    """
    kind = np.abs(particles.pdg_id)
    is_em = np.isin(kind, (11, 22))
    true = np.maximum(measurable_energy(particles), 1e-3)
    share_em = 1.0 - np.maximum(true, 1.0) ** (HADRON_POWER - 1.0)
    response = np.where(is_em, 1.0, share_em + (1.0 - share_em) / E_OVER_H)
    a, b = np.where(is_em, np.array(EM_RESOLUTION)[:, None], np.array(HADRON_RESOLUTION)[:, None])
    spread = a**2 / true + b**2
    energy = true * response * rng.gamma(1.0 / spread, spread)
    eta, phi = arrive(particles)
    kept = (np.abs(eta) < ETA_MAX) & ~np.isin(kind, (MUON, SCALAR))
    i_eta = np.searchsorted(TOWER_EDGES, eta[kept], side="right") - 1
    i_phi = np.floor(phi[kept] / (2.0 * np.pi) * _N_TOWERS[1]).astype(np.int64) % _N_TOWERS[1]
    part = np.where(is_em[kept], 0, _N_TOWERS[0])
    tower = (part + i_eta) * _N_TOWERS[1] + i_phi
    return particles.event[kept], tower, energy[kept] / np.cosh(eta[kept])


def arrive(particles: Particles) -> tuple[F64, F64]:
    """Pseudorapidity and azimuth where particles from the origin meet barrel or endcap.

    On a circle of radius R = pT / (0.3 B) the chord after a turn by an angle is 2 R sin(angle / 2)
    long and stands at half of it from the first heading.
    """
    _, charge = mass_and_charge(particles.pdg_id)
    bend = charge != 0.0
    radius = np.where(bend, transverse_momentum(particles) / (0.3e-3 * FIELD), 1e9)  # mm
    slope = np.sinh(particles.eta)
    with np.errstate(invalid="ignore", divide="ignore"):
        to_barrel = 2.0 * np.arcsin(RADIUS / (2.0 * radius))
        turn = np.fmin(to_barrel, LENGTH / (np.abs(slope) * radius))  # fmin takes what is a number
        chord = 2.0 * radius * np.sin(0.5 * turn)
        eta = np.arcsinh(radius * turn * slope / np.abs(chord))
    phi = particles.phi - 0.5 * np.sign(charge) * turn + np.pi * (chord < 0.0)
    return np.where(bend, eta, particles.eta), np.where(bend, phi, particles.phi)


def decay_scalars(events: ak.Array, rng: np.random.Generator) -> Particles:
    """Pions, their neutral ones as photons, from the decay of the heavy scalar of each event to
    mesons with a Boltzmann spectrum, the same in all directions of its frame.

    Momenta are drawn until their energies make up the mass, balanced, and scaled until they do so
    exactly; two mesons of three decay to charged pions, the third to neutral ones.
    """
    of = events.prt[(events.prt.id == SCALAR) & (events.prt.status > 0)][:, 0].p
    frames = np.column_stack([ak.to_numpy(of[x]) for x in ("px", "py", "pz", "e")])
    n_most = int(2.0 * SCALAR_MASS / mean_energy(MESON_MASS, TEMPERATURE))
    momenta, event = [], []
    for i in range(len(frames)):
        p = _turned(_boltzmann(n_most, rng), rng)
        total = np.cumsum(np.sqrt((p**2).sum(axis=1) + MESON_MASS**2))
        p = p[: max(int(np.argmin(np.abs(total - SCALAR_MASS))) + 1, 2)]
        p -= p.mean(axis=0)
        for _ in range(20):  # Newton's steps towards the scale that makes up the mass
            square = (p**2).sum(axis=1)
            energy = np.sqrt(square + MESON_MASS**2)
            p *= 1.0 + (SCALAR_MASS - energy.sum()) / (square / energy).sum()
        momenta.append(p)
        event.append(np.full(len(p), i))
    of_event = np.concatenate(event)
    mesons = boost(_four(np.concatenate(momenta), MESON_MASS), frames[of_event])
    neutral = rng.random(len(mesons)) < 1.0 / 3.0
    parts = []
    for chosen, mass in ((~neutral, CHARGED_PION), (neutral, NEUTRAL_PION)):
        found, where = _halves(mesons[chosen], mass, rng), np.tile(of_event[chosen], 2)
        if mass == NEUTRAL_PION:
            found, where = _halves(found, 0.0, rng), np.tile(where, 2)
        pdg_id = (
            np.repeat([211, -211], len(where) // 2)
            if mass == CHARGED_PION
            else np.full(len(where), 22)
        )
        px, py, pz, e = found.T
        eta, phi = np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)
        parts.append(Particles(where, pdg_id.astype(np.int32), e, eta, phi))
    return _join(*parts)


def mean_energy(mass: float, temperature: float) -> float:
    """Of particles whose momenta have the density exp(-E / T), in GeV: m K1 / K2 + 3 T with the
    Bessel functions of m / T.

    >>> round(mean_energy(1e-3, 1.0), 3)  # of massless ones: 3 T
    3.0
    """
    x = mass / temperature
    return float(mass * kn(1, x) / kn(2, x) + 3.0 * temperature)


def _boltzmann(n: int, rng: np.random.Generator) -> F64:
    """Momenta of mesons in GeV, (n,)."""
    p = np.linspace(0.0, 25.0 * TEMPERATURE, 4000)
    density = p**2 * np.exp(-np.sqrt(p**2 + MESON_MASS**2) / TEMPERATURE)
    below = np.cumsum(density) - 0.5 * density
    return np.interp(rng.random(n) * below[-1], below, p)


def _turned(p: F64, rng: np.random.Generator) -> F64:
    """Vectors of lengths (n,) in all directions, (n, 3)."""
    z, phi = rng.uniform(-1.0, 1.0, len(p)), rng.uniform(0.0, 2.0 * np.pi, len(p))
    across = np.sqrt(1.0 - z**2)
    return p[:, None] * np.column_stack([across * np.cos(phi), across * np.sin(phi), z])


def _four(p: F64, mass: float) -> F64:
    """Momenta (n, 3) with their energies, (n, 4)."""
    return np.column_stack([p, np.sqrt((p**2).sum(axis=1) + mass**2)])


def boost(p: F64, frame: F64) -> F64:
    """Four-momenta (px, py, pz, E) from rest frames to where these have four-momenta `frame`, all
    (n, 4).
    """
    mass = np.sqrt(frame[:, 3] ** 2 - (frame[:, :3] ** 2).sum(axis=1))[:, None]
    u, gamma, e = frame[:, :3] / mass, frame[:, 3:] / mass, p[:, 3:]
    along = (u * p[:, :3]).sum(axis=1, keepdims=True)
    return np.hstack([p[:, :3] + u * (along / (gamma + 1.0) + e), gamma * e + along])


def _halves(parents: F64, mass: float, rng: np.random.Generator) -> F64:
    """Both daughters of one mass of each parent, the first ones first: (2 n, 4)."""
    square = parents[:, 3] ** 2 - (parents[:, :3] ** 2).sum(axis=1)
    p = _turned(np.sqrt(np.maximum(0.25 * square - mass**2, 0.0)), rng)
    return boost(_four(np.concatenate([p, -p]), mass), np.concatenate([parents, parents]))


def hard_share(sources: dict[str, Deposits]) -> float:
    """Probability that a collision is of the harder pool: the ratio of the cross sections."""
    return float(sources["hard"].cross_section.mean() / sources["soft"].cross_section.mean())


def simulate_regions(
    config: CrossingConfig, sources: dict[str, Deposits], number: int
) -> Crossings:
    """Crossings of one chunk: numbers of collisions are Poisson.

    Parameters
    ----------
    config : CrossingConfig
    sources : dict of str to Deposits
        Of the processes of ``config.sources``.
    number : int
        Of the chunk, from 0.
    """
    rng = np.random.default_rng((config.seed, *config.signal.encode(), number))
    start = number * config.chunk
    n = min(config.chunk, config.n_crossings - start)
    share = hard_share(sources)
    means = {"soft": config.mu * (1.0 - share), "hard": config.mu * share}
    crossing, event, before = [], [], 0
    for process, source in sources.items():
        of = np.arange(n)
        drawn = start + of  # each event of a signal once
        if process in means:
            of = np.repeat(of, rng.poisson(means[process], n))
            summed = np.cumsum(source.weight)
            drawn = np.searchsorted(summed, rng.random(len(of)) * summed[-1], side="right")
        crossing.append(of)
        event.append(before + np.minimum(drawn, len(source.weight) - 1))
        before += len(source.weight)
    order = np.argsort(np.concatenate(crossing), kind="stable")
    first = np.searchsorted(np.concatenate(crossing)[order], np.arange(n + 1))
    turn = rng.integers(_N_TOWERS[1], size=len(order))
    mirror = rng.integers(2, size=len(order))
    pool = _join_deposits([source._asdict() for source in sources.values()])
    regions, energy = overlay(
        pool.offsets, pool.tower, pool.energy, first, np.concatenate(event)[order], turn, mirror
    )
    n_collisions = np.diff(first) - bool(config.signal)
    return Crossings(regions, energy, n_collisions.astype(np.int16))


@njit(cache=True, nogil=True)
def overlay(offsets, tower, energy, first, event, turn, mirror):  # type: ignore[no-untyped-def]
    """Counts of regions and transverse energy of crossings.

    Parameters
    ----------
    offsets, tower, energy : ndarray
        As of `Deposits`.
    first : ndarray of int, shape (n_crossings + 1,)
        First collision of each crossing.
    event, turn, mirror : ndarray of int, shape (n,)
        Of each collision its place in the pool, by how many towers it is turned in azimuth, and
        whether it is mirrored in pseudorapidity.

    Returns
    -------
    tuple of ndarray
        Counts (n_crossings, N_PHI, N_ETA) and energies in GeV (n_crossings,).
    """
    n_eta, n_phi = _N_TOWERS
    counts = np.zeros((len(first) - 1, N_PHI, N_ETA), np.uint16)
    total = np.zeros(len(first) - 1, np.float32)
    lit = np.zeros((2, n_eta, n_phi))
    for c in range(len(first) - 1):
        lit[:] = 0.0
        for k in range(first[c], first[c + 1]):
            for i in range(offsets[event[k]], offsets[event[k] + 1]):
                row, i_phi = tower[i] // n_phi, (tower[i] + turn[k]) % n_phi
                part, i_eta = row // n_eta, row % n_eta
                if mirror[k]:
                    i_eta = n_eta - 1 - i_eta
                lit[part, i_eta, i_phi] += energy[i]
        for part in range(2):
            for i_eta in range(n_eta):
                for i_phi in range(n_phi):
                    e = lit[part, i_eta, i_phi]
                    total[c] += e
                    count = min(int(e / COUNT), MOST_TOWER)
                    j, k = i_phi // TOWERS, i_eta // TOWERS
                    counts[c, j, k] = min(counts[c, j, k] + count, MOST_REGION)
    return counts, total
