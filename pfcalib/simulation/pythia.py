"""Dijets by Pythia 8: what jets bring to the calorimeter, as particles that the shower engines
know.

Hard QCD scattering of protons with parton showers, multiple interactions and hadronisation
(arXiv:2203.11601) in the default tune, Monash 2013 (arXiv:1404.5630). Pythia is an extra: ``pip
install 'pfcalib[pythia]'``.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.simulation.detector import FRONT
from pfcalib.simulation.particles import Particles, measurable_energy, propagate
from pfcalib.simulation.showers import SHOWERING

MIN_ENERGY = 0.2  # GeV that a particle can leave; softer ones are left out, as in the guns
# of pT-hat; central dijets are then flat in log pT-hat within a factor of two from 10 to 500 GeV
BIAS_POWER = 3.6
TRUTH_RADIUS = 0.05  # width in (eta, phi) within which a particle explains a cluster
# mm, centre of EMB2, where the azimuth of particles and clusters is compared
TRUTH_DEPTH = BARREL.layers[2].r
_MAX_SEED = 900_000_000  # of Pythia's generator
_MAX_TRIES = 100  # calls of the generator before a batch is given up


@dataclasses.dataclass(frozen=True, kw_only=True)
class DijetConfig:
    """Which dijets to make.

    Parameters
    ----------
    pt_hat_min, pt_hat_max : float, GeV
        Range of the transverse momentum of the hard scattering; events are about flat in its
        logarithm.
    eta_max : float
        Largest |eta| of the particles that are kept.
    eta_parton : float
        Largest |eta| of both partons that leave the hard scattering, so that both jets lie in the
        barrel.
    sqrt_s : float, GeV
        Energy of the two protons in their centre of mass.
    """

    pt_hat_min: float = 20.0
    pt_hat_max: float = 200.0
    eta_max: float = 0.8
    eta_parton: float = 0.6
    sqrt_s: float = 13_000.0

    def __post_init__(self) -> None:
        limit = -BARREL.eta_min
        if not 5.0 <= self.pt_hat_min < self.pt_hat_max < 0.5 * self.sqrt_s:
            raise ConfigError(
                "pt_hat must satisfy 5 GeV <= pt_hat_min < pt_hat_max < sqrt_s / 2, not "
                f"{self.pt_hat_min}, {self.pt_hat_max}, {self.sqrt_s}"
            )
        if not 0.0 < self.eta_max <= limit:
            raise ConfigError(f"eta_max must lie in (0, {limit}], the barrel, not {self.eta_max}")
        if not 0.0 < self.eta_parton <= self.eta_max:
            raise ConfigError(
                f"eta_parton must lie in (0, eta_max = {self.eta_max}], not {self.eta_parton}"
            )


def require_pythia() -> None:
    """Raise ConfigError where pythia8mc is not installed; imports nothing."""
    if importlib.util.find_spec("pythia8mc") is None:
        raise ConfigError("dijets need the package pythia8mc: pip install 'pfcalib[pythia]'")


def pythia_version() -> str:
    """Version of the installed Pythia."""
    return importlib.metadata.version("pythia8mc")


def simulate_dijets(
    n_events: int,
    rng: np.random.Generator,
    config: DijetConfig | None = None,
    *,
    field: float = 0.0,
) -> Particles:
    """Particles of dijet events that reach the front of the calorimeter.

    The spectrum of pT-hat is flattened by a bias of Pythia's selection, pT-hat to the power
    `BIAS_POWER`; the weights that would undo it are left out by design, as for the guns, which are
    flat in log E. See `visible_particles` for what is kept.

    Parameters
    ----------
    n_events : int
    rng : numpy.random.Generator
        Gives the seed of Pythia.
    config : DijetConfig, optional
    field : float, tesla
        Solenoid, see `simulation.particles.propagate`.

    Returns
    -------
    Particles
        At the origin, sorted by event; every event has at least one.

    Raises
    ------
    ConfigError
        If Pythia is missing or gives no such events.
    """
    config = config or DijetConfig()
    seed = int(rng.integers(1, _MAX_SEED, endpoint=True))
    return visible_particles(
        generate_dijets(n_events, seed, config, field=field), eta_max=config.eta_max, field=field
    )


def generate_dijets(
    n_events: int, seed: int, config: DijetConfig, *, field: float = 0.0
) -> ak.Array:
    """Events as Pythia gives them, by a generator of its own: the same seed gives the same events,
    whatever was made before.

    Parameters
    ----------
    n_events : int
    seed : int
        1 to 900,000,000.
    config : DijetConfig
    field : float, tesla
        Events of which nothing reaches the calorimeter are made again.

    Returns
    -------
    awkward.Array, shape (n_events,)
        Records ``prt`` (all particles: ``id``, ``status``, ``p``) and ``info`` (``pT2Hat``, ...) as
        of ``Pythia.nextBatch``.

    Raises
    ------
    ConfigError
        If Pythia is missing or gives no such events.
    """
    pythia, _hook = _start(seed, config)  # the hook lives as long as Python knows it
    batches, missing = [], n_events
    for _ in range(_MAX_TRIES):
        batch = pythia.nextBatch(missing)
        seen = np.unique(visible_particles(batch, eta_max=config.eta_max, field=field).event)
        batches.append(batch[seen])
        missing -= len(seen)
        if missing == 0:
            return ak.concatenate(batches) if len(batches) > 1 else batches[0]
    raise ConfigError(
        f"Pythia made only {n_events - missing} of {n_events} dijet events with {config}"
    )


def visible_particles(events: ak.Array, *, eta_max: float, field: float = 0.0) -> Particles:
    """Stable particles that reach the calorimeter, as the kinds that shower.

    Kept are particles of |eta| < `eta_max` of the kinds that shower, see `simulation.showers`, that
    can leave at least `MIN_ENERGY` and do not curl up in front of the coil. Neutrinos are dropped.
    All particles start at the origin, also those of weak decays, which Pythia makes up to c tau =
    1 m.

    Parameters
    ----------
    events : awkward.Array, shape (n_events,)
        See `generate_dijets`.
    eta_max : float
    field : float, tesla
    """
    final = events.prt[events.prt.status > 0]
    event = np.repeat(np.arange(len(final)), ak.to_numpy(ak.num(final.id)))
    pdg_id, px, py, pz, energy = (
        _flat(column) for column in (final.id, final.p.px, final.p.py, final.p.pz, final.p.e)
    )
    with np.errstate(divide="ignore"):
        eta = np.arcsinh(pz / np.hypot(px, py))
    particles = Particles(event, pdg_id.astype(np.int32), energy, eta, np.arctan2(py, px))
    kept = np.isin(pdg_id, list(SHOWERING)) & (np.abs(eta) < eta_max)
    kept &= measurable_energy(particles) >= MIN_ENERGY
    particles = Particles._make(values[kept] for values in particles)
    reaches = propagate(particles, field=field).reaches
    return Particles._make(values[reaches] for values in particles)


def nearest_particles(
    particles: Particles, event: ArrayLike, eta: ArrayLike, phi: ArrayLike, *, field: float = 0.0
) -> NDArray[np.int64]:
    """The particle that explains each cluster: of those of its event the one of largest E exp(-dR^2
    / (2 TRUTH_RADIUS^2)).

    dR is the distance in (eta, phi) between the cluster and where the particle would cross the
    centre of EMB2, after its way through the field. This is truth by position: a cluster in a jet
    may hold energy of several particles. What its cells received, the columns ENG_CALIB, is exact
    and does not depend on it.

    Parameters
    ----------
    particles : Particles
        At the origin, sorted by event, at least one in each event.
    event, eta, phi : array_like, shape (n_clusters,)
        Event and position of the clusters.
    field : float, tesla

    Returns
    -------
    ndarray, shape (n_clusters,)
        Indices into the particles.
    """
    event, eta, phi = np.asarray(event, dtype=np.int64), np.asarray(eta), np.asarray(phi)
    first, last = (
        np.searchsorted(particles.event, event),
        np.searchsorted(particles.event, event, side="right"),
    )
    n_pairs = last - first
    start = np.cumsum(n_pairs) - n_pairs
    cluster = np.repeat(np.arange(len(event)), n_pairs)
    particle = np.arange(n_pairs.sum()) - np.repeat(start - first, n_pairs)
    particle_eta, particle_phi = _impact(particles, field)
    d_phi = np.angle(np.exp(1j * (phi[cluster] - particle_phi[particle])))
    distance2 = (eta[cluster] - particle_eta[particle]) ** 2 + d_phi**2
    score = np.log(particles.energy)[particle] - distance2 / (2.0 * TRUTH_RADIUS**2)
    order = np.lexsort((-score, cluster))  # the best one of each cluster comes first
    return particle[order[start]]


def _impact(particles: Particles, field: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pseudorapidity and azimuth where each particle crosses the cylinder of radius TRUTH_DEPTH,
    straight on from its entry.
    """
    entry = propagate(particles, field=field)
    ux, uy, uz = entry.direction.T
    transverse = np.hypot(ux, uy)
    # of the entry's position along the flight; across it stays the distance of the line from the
    # beam
    forward = FRONT * ux / transverse
    path = np.sqrt(TRUTH_DEPTH**2 - FRONT**2 + forward**2) - forward
    x, y = FRONT + path * ux / transverse, path * uy / transverse
    return np.arcsinh(
        (entry.z + path * uz / transverse) / TRUTH_DEPTH
    ), entry.phi_axis + np.arctan2(y, x)


def _flat(column: ak.Array) -> NDArray[Any]:
    return ak.to_numpy(ak.flatten(column))


def _start(seed: int, config: DijetConfig) -> tuple[Any, Any]:
    """A generator at the beginning of its stream, and its hook. It is not seeded again later: some
    of its state would survive.
    """
    require_pythia()
    import pythia8mc

    class Central(pythia8mc.UserHooks):
        """Refuses hard scatterings with a parton outside before anything is showered."""

        def canVetoProcessLevel(self) -> bool:
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:
            return max(abs(process[5].eta()), abs(process[6].eta())) > config.eta_parton

    pythia = pythia8mc.Pythia("", False)
    settings = (
        f"Beams:eCM = {config.sqrt_s}",
        "HardQCD:all = on",
        f"PhaseSpace:pTHatMin = {config.pt_hat_min}",
        f"PhaseSpace:pTHatMax = {config.pt_hat_max}",
        "PhaseSpace:bias2Selection = on",
        f"PhaseSpace:bias2SelectionPow = {BIAS_POWER}",
        "111:mayDecay = off",  # pi0 decay in the simulation of the detector
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
    )
    refused = [setting for setting in settings if not pythia.readString(setting)]
    hook = Central()
    pythia.setUserHooksPtr(hook)
    if refused or not pythia.init():
        raise ConfigError(
            f"Pythia does not start with {config}"
            + (f": it refuses {', '.join(refused)}" if refused else "")
        )
    return pythia, hook
