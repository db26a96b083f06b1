"""Collisions of protons by Pythia 8 with all their stable particles: dijets and Z bosons with a jet
in slices of pT-hat, and minimum bias.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.simulation.particles import Particles, measurable_energy, propagate
from pfcalib.simulation.pythia import BIAS_POWER, MIN_ENERGY, require_pythia
from pfcalib.simulation.showers import SHOWERING

NEUTRINOS = (12, 14, 16)
MAX_SEED = 900_000_000  # of Pythia's generator
# of a process: the power of pT-hat that flattens each slice, and settings of Pythia
PROCESSES: dict[str, tuple[float, tuple[str, ...]]] = {
    "dijets": (BIAS_POWER, ("HardQCD:all = on",)),
    "z_jet": (
        2.0,
        (
            "WeakBosonAndParton:qqbar2gmZg = on",
            "WeakBosonAndParton:qg2gmZq = on",
            "WeakZ0:gmZmode = 2",  # without the photon
            "23:mMin = 60.0",
            "23:onMode = off",
            "23:onIfAny = 13",
        ),
    ),
    "minimum_bias": (0.0, ("SoftQCD:inelastic = on",)),
}
Z_BOSON = 23
_OUTGOING = (5, 6)  # places of what leaves the hard scattering in Pythia's record
_N_TRIED = 50_000  # hard scatterings that a cross section is made from
_MAX_TRIES = 100  # calls of the generator before a batch is given up


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollisionConfig:
    """Which collisions to make.

    Parameters
    ----------
    process : str
        ``dijets``, ``z_jet`` (a Z boson that decays to muons, and a jet) or ``minimum_bias``
        (inelastic, diffraction included).
    pt_hat : tuple of float, GeV
        Edges of the slices in the transverse momentum of the hard scattering, in whose logarithm
        each is about flat; of no meaning for minimum bias, which is one slice.
    eta_max : float
        Largest |eta| of the particles that are kept.
    eta_parton : float
        Largest |eta| of the partons that leave the hard scattering; of no meaning for minimum bias.
    sqrt_s : float, GeV
    """

    process: str = "dijets"
    pt_hat: tuple[float, ...] = (20.0, 45.0, 100.0, 250.0)
    eta_max: float = 1.2
    eta_parton: float = 0.6
    sqrt_s: float = 13_000.0

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ConfigError(
                f"process must be one of {', '.join(PROCESSES)}, not {self.process!r}"
            )
        edges = (5.0, *self.pt_hat, 0.5 * self.sqrt_s)
        if len(self.pt_hat) < 2 or not all(np.diff(edges[1:]) > 0.0) or edges[1] < edges[0]:
            raise ConfigError(
                "pt_hat must be at least two edges that rise from 5 GeV or more to less than "
                f"sqrt_s / 2, not {self.pt_hat}"
            )
        if not 0.0 < self.eta_parton <= self.eta_max:
            raise ConfigError(
                f"eta_parton must lie in (0, eta_max = {self.eta_max}], not {self.eta_parton}"
            )

    @property
    def n_slices(self) -> int:
        return 1 if self.process == "minimum_bias" else len(self.pt_hat) - 1


class Collisions(NamedTuple):
    """A batch of collisions."""

    # all stable ones but neutrinos, neutral pions not decayed, at the origin, sorted by event
    particles: Particles
    showers: NDArray[np.bool_]  # (n_particles,) of those, which reach the calorimeter and shower
    weight: NDArray[np.float64]  # (n_events,) Pythia's, which undoes the flattening of the slice

    @property
    def n_events(self) -> int:
        return len(self.weight)


class CrossSection(NamedTuple):
    """Of one slice, in mb."""

    value: float
    error: float  # statistical
    mean_weight: float  # of Pythia's events in it


def simulate_collisions(
    n_events: int,
    rng: np.random.Generator,
    config: CollisionConfig | None = None,
    *,
    number: int = 0,
    field: float = 0.0,
    keep_empty: bool = False,
) -> Collisions:
    """Collisions of one slice, by a generator of its own.

    All particles start at the origin, also those of weak decays, which Pythia makes up to c tau =
    1 m. Those that shower are of the kinds of `simulation.showers`, can leave at least
    `pythia.MIN_ENERGY` and do not curl up in front of the coil.

    Parameters
    ----------
    n_events : int
    rng : numpy.random.Generator
        Gives the seed of Pythia.
    config : CollisionConfig, optional
    number : int
        Of the slice.
    field : float, tesla
        Solenoid, see `simulation.particles.propagate`.
    keep_empty : bool
        True keeps collisions of which nothing showers; else others are made in their place.

    Raises
    ------
    ConfigError
        If Pythia is missing or gives no such events.
    """
    config = config or CollisionConfig()
    seed = int(rng.integers(1, MAX_SEED, endpoint=True))
    pythia, _hook = start_pythia(config, number, seed)  # the hook lives as long as Python knows it
    batches, missing = [], n_events
    for _ in range(_MAX_TRIES):
        batch = pythia.nextBatch(missing)
        if not keep_empty:
            particles = stable_particles(batch, config.eta_max)
            shower = particles.event[do_shower(particles, field=field)]
            batch = batch[np.unique(shower)]
        batches.append(batch)
        missing -= len(batch)
        if missing == 0:
            break
    else:
        raise ConfigError(f"Pythia made only {n_events - missing} of {n_events} with {config}")
    events = ak.concatenate(batches) if len(batches) > 1 else batches[0]
    particles = stable_particles(events, config.eta_max)
    weight = ak.to_numpy(events.info.weights[:, 0])
    return Collisions(particles, do_shower(particles, field=field), weight)


def stable_particles(events: ak.Array, eta_max: float) -> Particles:
    """Final particles of |eta| < eta_max but neutrinos.

    Parameters
    ----------
    events : awkward.Array, shape (n_events,)
        Of ``Pythia.nextBatch``.
    eta_max : float
    """
    final = events.prt[events.prt.status > 0]
    event = np.repeat(np.arange(len(final)), ak.to_numpy(ak.num(final.id)))
    pdg_id, px, py, pz, energy = (
        ak.to_numpy(ak.flatten(column))
        for column in (final.id, final.p.px, final.p.py, final.p.pz, final.p.e)
    )
    with np.errstate(divide="ignore"):
        eta = np.arcsinh(pz / np.hypot(px, py))
    kept = ~np.isin(np.abs(pdg_id), NEUTRINOS) & (np.abs(eta) < eta_max)
    columns = (event, pdg_id.astype(np.int32), energy, eta, np.arctan2(py, px))
    return Particles._make(column[kept] for column in columns)


def do_shower(particles: Particles, *, field: float = 0.0) -> NDArray[np.bool_]:
    """Which particles reach the calorimeter as kinds that shower, with at least MIN_ENERGY, shape
    (n,).
    """
    hard = measurable_energy(particles) >= MIN_ENERGY
    return (
        hard
        & np.isin(particles.pdg_id, list(SHOWERING))
        & propagate(particles, field=field).reaches
    )


@functools.lru_cache(maxsize=64)
def cross_section(config: CollisionConfig, number: int, *, seed: int = 1) -> CrossSection:
    """Cross section of a slice, from hard scatterings alone: Pythia's times the share of those
    with central partons, by their rapidities as massless particles.

    The sum of Pythia's weights of n events of the slice is n times `mean_weight` on average, so
    ``value / (n * mean_weight)`` brings the sum to the cross section.

    Parameters
    ----------
    config : CollisionConfig
    number : int
        Of the slice.
    seed : int
        1 to 900,000,000.
    """
    pythia, _ = start_pythia(config, number, seed, hard_only=True)
    info = pythia.nextBatch(_N_TRIED).info
    weight, total = ak.to_numpy(info.weights[:, 0]), pythia.infoPython().sigmaGen()
    central = np.ones(len(weight), dtype=np.bool_)
    if config.process != "minimum_bias":
        boost, angle = (
            0.5 * np.log(ak.to_numpy(a / b))
            for a, b in ((info.x1, info.x2), (info.tHat, info.uHat))
        )
        # of t = (p1 - p3)^2 and u = (p1 - p4)^2; the Z boson is particle 3
        central = np.abs(boost + angle) < config.eta_parton
        if config.process == "dijets":
            central &= np.abs(boost - angle) < config.eta_parton
    kept = weight[central]
    value = total * kept.sum() / weight.sum()
    error = value * np.sqrt((kept**2).sum()) / kept.sum()
    return CrossSection(float(value), float(error), float(kept.mean()))


def start_pythia(
    config: CollisionConfig, number: int, seed: int, *, hard_only: bool = False
) -> tuple[Any, Any]:
    """A generator of a slice at the beginning of its stream, and its hook, which must be kept.

    Parameters
    ----------
    config : CollisionConfig
    number : int
        Of the slice.
    seed : int
        1 to 900,000,000.
    hard_only : bool
        Hard scatterings of all directions, without showers, hadrons and hook.

    Raises
    ------
    ConfigError
        If Pythia is missing or does not start.
    """
    require_pythia()
    import pythia8mc

    class Central(pythia8mc.UserHooks):
        """Refuses hard scatterings with a parton outside before anything is showered."""

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:
            leaving = (process[place] for place in _OUTGOING)
            return any(
                abs(parton.eta()) > config.eta_parton
                for parton in leaving
                if parton.id() != Z_BOSON
            )

    power, settings = PROCESSES[config.process]
    settings += (
        f"Beams:eCM = {config.sqrt_s}",
        "111:mayDecay = off",  # pi0 decay in the simulation of the detector
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    )
    if config.process != "minimum_bias":
        settings += (
            f"PhaseSpace:pTHatMin = {config.pt_hat[number]}",
            f"PhaseSpace:pTHatMax = {config.pt_hat[number + 1]}",
            "PhaseSpace:bias2Selection = on",
            f"PhaseSpace:bias2SelectionPow = {power}",
        )
    if hard_only:
        settings += ("PartonLevel:all = off", "HadronLevel:all = off")
    pythia, hook = pythia8mc.Pythia("", False), Central()
    refused = [setting for setting in settings if not pythia.readString(setting)]
    if config.process != "minimum_bias" and not hard_only:
        pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(
            f"Pythia does not start with {config}"
            + (f": it refuses {', '.join(refused)}" if refused else "")
        )
    return pythia, hook
