"""Tracks of charged particles: which are found, how well they are measured, where they cross the
layers of the calorimeter, and to which vertex they belong.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from particle import Particle
from scipy.spatial import cKDTree

from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid
from pfcalib.simulation.particles import Particles, propagate
from pfcalib.simulation.refine import point

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HARD_SCATTER, NO_VERTEX, FAKE = 0, -1, -1  # a vertex, and none; the particle of a fake track
# sigma_X(pT) = sigma_X(inf) (1 (+) p_X / pT) for 0.25 < |eta| < 0.50: sigma_X(inf), p_X in GeV;
# ATLAS inner detector, JINST 3 (2008) S08003, section 10.2 (arXiv:0901.0512)
RESOLUTION = {
    "q_over_pt": (0.34e-3, 44.0),  # 1/GeV
    "phi": (70e-6, 39.0),  # rad
    "cot_theta": (0.7e-3, 5.0),
    "d0": (10e-3, 14.0),  # mm
    "z0_sin_theta": (91e-3, 2.3),  # mm
}
# of a kind: exponent of the loss at eta = 0, which grows with the material as cosh(eta), and share
# that is lost besides at 0.5 GeV, which falls as 1 / pT. Estimates of ours that give the level and
# the shape of figure 3 of arXiv:1602.01633 for hadrons, whose losses are nuclear interactions.
LOSS = {"muon": (0.01, 0.0), "electron": (0.04, 0.1), "hadron": (0.09, 0.13)}
HEADROOM = 0.85  # a particle of less than this share of the threshold in pT never leaves a track
PION_MASS = 0.13957  # GeV, of all tracks
DEGREES = 40  # of freedom of the fit of a track
FAKE_D0, FAKE_Z0 = 2.0, 60.0  # mm, |d0| of fakes is flat below, z0 Gaussian


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Which tracks there are.

    Parameters
    ----------
    pt_min : float, GeV
        Smallest measured transverse momentum.
    eta_max : float
        Largest |eta| of the particles.
    fakes : float
        Mean number of fake tracks in a crossing of one interaction; it grows with the square of
        the number of interactions, so that the share of fakes grows in proportion to it.
    z0_max : float, mm
        A track belongs to the hard scattering where |z0 sin theta| is below (arXiv:1703.10485,
        section 6.2).
    """

    pt_min: float = 0.5
    eta_max: float = 1.2
    fakes: float = 0.002
    z0_max: float = 2.0

    def __post_init__(self) -> None:
        if not self.pt_min >= 0.4:
            raise ConfigError(f"pt_min of tracks must be at least 0.4 GeV, not {self.pt_min}")
        if not (self.eta_max > 0.0 and self.fakes >= 0.0 and self.z0_max > 0.0):
            raise ConfigError(
                "tracks need eta_max > 0, fakes >= 0 and z0_max > 0 mm, not "
                f"{self.eta_max}, {self.fakes}, {self.z0_max}"
            )


class Vertices(NamedTuple):
    """Vertices along the beam; those of event i at offsets[i]:offsets[i + 1], of which the first is
    the hard scattering, at z = 0.
    """

    offsets: IntArray  # (n_events + 1,)
    z: FloatArray  # (n_vertices,) mm


class FoundTracks(NamedTuple):
    """Tracks sorted by event, in an event by falling pT; arrays of shape (n,) unless said
    otherwise.
    """

    event: IntArray
    particle: IntArray  # row of the particle, FAKE for none
    vertex: IntArray  # HARD_SCATTER, number of another vertex of the event, or NO_VERTEX
    charge: FloatArray
    pt: FloatArray  # GeV
    p: FloatArray  # GeV
    eta: FloatArray  # at the origin
    phi: FloatArray  # rad
    d0: FloatArray  # mm
    z0: FloatArray  # mm, from the hard scattering
    chi2: FloatArray
    eta_at: FloatArray  # (n, n_layers), NaN where the track does not reach the layer
    phi_at: FloatArray


def mass_and_charge(pdg_id: NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
    """Masses in GeV and charges in units of the proton's, each of shape (n,)."""
    kinds, kind = np.unique(pdg_id, return_inverse=True)
    known = [Particle.from_pdgid(int(k)) for k in kinds]
    mass = np.array([1e-3 * (k.mass or 0.0) for k in known])
    return mass[kind], np.array([float(k.charge or 0.0) for k in known])[kind]


def transverse_momentum(particles: Particles) -> FloatArray:
    """pT of each particle in GeV, shape (n,)."""
    mass, _ = mass_and_charge(particles.pdg_id)
    p = np.sqrt(np.maximum(particles.energy**2 - mass**2, 0.0))
    return p / np.cosh(particles.eta)


def extrapolate(
    particles: Particles, grid: Grid, *, field: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Where each particle crosses the middle of each layer: a helix up to the coil, then a straight
    line.

    Parameters
    ----------
    particles : Particles
        At the origin.
    grid : Grid
    field : float, tesla
        Solenoid, see `simulation.particles.propagate`.

    Returns
    -------
    eta_at, phi_at : ndarray, shape (n, n_layers)
        phi in rad, -pi to pi; NaN where the particle curls up in the field or misses the grid.
    """
    eta, phi = point(particles, grid, field=field)
    reached = propagate(particles, field=field).reaches[:, None] & (np.abs(eta) < -grid.eta_min)
    phi = np.mod(phi + np.pi, 2.0 * np.pi) - np.pi
    return np.where(reached, eta, np.nan), np.where(reached, phi, np.nan)


def resolution(name: str, pt: FloatArray) -> FloatArray:
    """Standard deviation of a parameter of RESOLUTION at transverse momenta in GeV, shape (n,).

    >>> resolution("d0", np.array([14.0])) / 10e-3  # doubled in quadrature
    array([1.41421356])
    """
    asymptotic, p = RESOLUTION[name]
    return asymptotic * np.hypot(1.0, p / pt)


def efficiency(pdg_id: NDArray[np.integer], pt: FloatArray, eta: FloatArray) -> FloatArray:
    """Probability that a charged particle leaves a track, shape (n,): exp(-a cosh eta) (1 - b / (2
    pT / GeV)) with a, b of LOSS.
    """
    kind = np.abs(pdg_id)
    a, b = (
        np.select([kind == 13, kind == 11], [LOSS["muon"][i], LOSS["electron"][i]], rest)
        for i, rest in enumerate(LOSS["hadron"])
    )
    return np.exp(-a * np.cosh(eta)) * np.maximum(1.0 - 0.5 * b / pt, 0.0)


def may_leave_track(particles: Particles, config: TrackConfig) -> NDArray[np.bool_]:
    """Charged particles that a track can come from, shape (n,): all others never have one."""
    _, charge = mass_and_charge(particles.pdg_id)
    hard = transverse_momentum(particles) > HEADROOM * config.pt_min
    return hard & (charge != 0.0) & (np.abs(particles.eta) < config.eta_max)


def simulate_tracks(
    particles: Particles,
    vertex: IntArray,
    vertices: Vertices,
    grid: Grid,
    rng: np.random.Generator,
    config: TrackConfig | None = None,
    *,
    field: float = 0.0,
) -> FoundTracks:
    """Tracks of a batch of events: found with an efficiency, smeared, fakes added, and assigned to
    vertices.

    All particles fly from the origin through the calorimeter: a vertex moves z0 only. Tracks get
    the mass of the pion, electrons no losses by bremsstrahlung, and decays in flight no kinks.

    Parameters
    ----------
    particles : Particles
        Sorted by event; neutral ones leave no tracks.
    vertex : ndarray, shape (n,)
        Number of each particle's vertex in its event.
    vertices : Vertices
    grid : Grid
    rng : numpy.random.Generator
    config : TrackConfig, optional
    field : float, tesla
    """
    config = config or TrackConfig()
    row = np.flatnonzero(may_leave_track(particles, config))
    pt = transverse_momentum(particles)
    found = rng.random(len(row)) < efficiency(particles.pdg_id[row], pt[row], particles.eta[row])
    row = row[found]
    pt, eta, event = pt[row], particles.eta[row], particles.event[row]

    def smear(name: str, value: FloatArray) -> FloatArray:
        return value + resolution(name, pt) * rng.standard_normal(len(pt))

    q_over_pt = smear("q_over_pt", mass_and_charge(particles.pdg_id[row])[1] / pt)
    phi = smear("phi", particles.phi[row])
    cot_theta = smear("cot_theta", np.sinh(eta))
    d0 = smear("d0", np.zeros(len(row)))
    z_true = vertices.z[vertices.offsets[event] + vertex[row]]
    z0 = z_true + smear("z0_sin_theta", np.zeros(len(row))) * np.cosh(eta)
    chi2 = rng.chisquare(DEGREES, len(row))
    real = np.array([event, row, q_over_pt, phi, cot_theta, d0, z0, chi2])
    columns = np.concatenate([real, _fakes(vertices, rng, config)], axis=1)
    event, row = columns[:2].astype(np.int64)
    q_over_pt, phi, cot_theta, d0, z0, chi2 = columns[2:]
    order = np.lexsort((np.abs(q_over_pt), event))
    order = order[np.abs(q_over_pt[order]) < 1.0 / config.pt_min]
    event, row, q_over_pt, phi, cot_theta, d0, z0, chi2 = (
        column[order] for column in (event, row, q_over_pt, phi, cot_theta, d0, z0, chi2)
    )
    pt, eta, charge = 1.0 / np.abs(q_over_pt), np.arcsinh(cot_theta), np.sign(q_over_pt)
    p, phi = pt * np.cosh(eta), np.mod(phi + np.pi, 2.0 * np.pi) - np.pi
    pions = Particles(event, (211 * charge).astype(np.int32), np.hypot(p, PION_MASS), eta, phi)
    at = extrapolate(pions, grid, field=field)
    assigned = assign_vertices(event, z0, eta, vertices, config)
    return FoundTracks(event, row, assigned, charge, pt, p, eta, phi, d0, z0, chi2, *at)


def _fakes(vertices: Vertices, rng: np.random.Generator, config: TrackConfig) -> FloatArray:
    """Columns of fake tracks, which have no particle: pT as 1 / pT^4, flat in eta, phi and d0."""
    number = rng.poisson(config.fakes * np.diff(vertices.offsets).astype(np.float64) ** 2)
    n = int(number.sum())
    charge = rng.choice([-1.0, 1.0], n)
    return np.array(
        [
            np.repeat(np.arange(len(number)), number),
            np.full(n, FAKE),
            charge * rng.random(n) ** (1.0 / 3.0) / config.pt_min,
            rng.uniform(-np.pi, np.pi, n),
            np.sinh(rng.uniform(-config.eta_max, config.eta_max, n)),
            rng.uniform(-FAKE_D0, FAKE_D0, n),
            FAKE_Z0 * rng.standard_normal(n),
            2.0 * rng.chisquare(DEGREES, n),
        ]
    )


def assign_vertices(
    event: IntArray, z0: FloatArray, eta: FloatArray, vertices: Vertices, config: TrackConfig
) -> IntArray:
    """Vertex of each track, shape (n,): the hard scattering where |z0 sin theta| < z0_max, else the
    nearest other one in z, or NO_VERTEX where there is none.
    """
    is_first = np.zeros(len(vertices.z), dtype=np.bool_)
    is_first[vertices.offsets[:-1]] = True
    others = np.flatnonzero(~is_first)
    owner = np.repeat(np.arange(len(vertices.offsets) - 1), np.diff(vertices.offsets))
    nearest = np.full(len(event), NO_VERTEX, dtype=np.int64)
    if len(others) and len(event):
        apart = 1e3 * (1.0 + np.abs(vertices.z).max() + np.abs(z0).max())  # mm between events
        tree = cKDTree((apart * owner[others] + vertices.z[others])[:, None])
        found = others[tree.query((apart * event + z0)[:, None])[1]]
        same = owner[found] == event
        nearest[same] = (found - vertices.offsets[event])[same]
    return np.where(np.abs(z0) / np.cosh(eta) < config.z0_max, HARD_SCATTER, nearest)
