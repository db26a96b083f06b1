"""Clusters and tracks of hard jets by published resolutions, where showers made one by one would
take minutes an event.

The calorimeter has two layers in the whole of abs(eta) < ETA_MAX, of the granularity of the second
electromagnetic and of the hadronic ones of ATLAS. Energies are those of a calibrated calorimeter,
of mean response 1. Showers have the radial profile of hep-ex/0001020; their radii give the widths
that Geant4 finds in a slice of such a calorimeter. Clusters are split at local maxima, as those of
arXiv:1603.02934 are: a cell in front belongs to the nearest one, a cell behind is shared by energy
in front and distance; maxima behind count where there is none in front. There is no noise and no
pile-up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from pfcalib.simulation.particles import Particles
from pfcalib.simulation.tracks import (
    PION_MASS,
    efficiency,
    mass_and_charge,
    resolution,
    transverse_momentum,
)

FloatArray = NDArray[np.float64]

ETA_MAX = 2.5
EM, HAD = (200, 256), (50, 64)  # cells in eta and phi
HAD_SIDE = 0.1  # their widths are 0.025 and this, about
BEND = 0.45  # rad GeV: azimuth that 2 T add up to the front of the calorimeter, times pT
# sigma / E: a / sqrt(E / GeV) and b, of electrons and photons in quadrature, of hadrons added (as
# hep-ex/0004009 has it)
RESOLUTION = {"em": (0.10, 0.007), "hadron": (0.58, 0.025)}
FRONT_DEPTH = 1.4  # interaction lengths of the electromagnetic layer
# radius R of 2 r R^2 / (r^2 + R^2)^2 in (eta, phi)
SHOWER_RADIUS = {"em": 0.011, "hadron": 0.025}
# of a shower: its energy fluctuates like that of so many equal parts, E / GeV to a power; the power
# law of secondaries (Gabriel et al., NIM A338 (1994) 336), and about one part in 10 MeV
PARTS = {"em": (100.0, 1.0), "hadron": (1.0, 0.82)}
_RINGS = np.array([0.0, 0.5, 1.0, 1.7, 2.6, 3.6, 5.0])  # edges in units of R
_SPOTS = 8  # in each ring
SEED_ENERGY = 0.5  # GeV of a local maximum
REACH, SHARING = 0.2, 0.02  # in (eta, phi): of a cluster, and the 5 cm of its sharing
MIN_WIDTH = 0.0125  # of a cluster
N_SHARING = 8  # nearest clusters of which two at most share a cell
TRACK_PT, TRACK_ETA = 0.5, 2.5  # GeV
# in eta and phi: two particles nearer than two pixels at 33 mm share a cluster of pixels, and of
# those so many are lost (arXiv:1704.07983: 0.061 to 0.093)
PIXELS, LOST = (0.015, 0.003), 0.08


class Clusters(NamedTuple):
    """Of one event; arrays of shape (n_clusters,)."""

    energy: FloatArray  # GeV
    eta: FloatArray
    phi: FloatArray  # rad, any
    width: FloatArray  # root of the energy-weighted mean of r^2 of the cells in (eta, phi)

    @property
    def momentum(self) -> FloatArray:
        """px, py, pz, e of massless clusters, (n, 4) GeV."""
        return four_momentum(self.energy / np.cosh(self.eta), self.eta, self.phi)


class Tracks(NamedTuple):
    """Of one event; arrays of shape (n_tracks,)."""

    pt: FloatArray  # GeV
    eta: FloatArray
    phi: FloatArray  # rad, at the vertex
    phi_calo: FloatArray  # rad, at the calorimeter, where eta is the same
    row: NDArray[np.int64]  # of the particle

    @property
    def momentum(self) -> FloatArray:
        """px, py, pz, e of charged pions, (n, 4) GeV."""
        return four_momentum(self.pt, self.eta, self.phi, PION_MASS)


def four_momentum(
    pt: FloatArray, eta: FloatArray, phi: FloatArray, mass: FloatArray | float = 0.0
) -> FloatArray:
    """px, py, pz, e in GeV, shape (n, 4)."""
    pz = pt * np.sinh(eta)
    e = np.sqrt(pt**2 + pz**2 + mass**2)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, e], axis=-1)


def find_clusters(particles: Particles, rng: np.random.Generator) -> Clusters:
    """Clusters of the particles of one event, which may be in any order; muons leave nothing."""
    particles = Particles._make(x[np.abs(particles.pdg_id) != 13] for x in particles)
    n = len(particles.energy)
    is_em = np.isin(np.abs(particles.pdg_id), (11, 22))
    (a, b), (c, d) = RESOLUTION.values()
    root = np.sqrt(particles.energy)
    variance = np.where(is_em, (a / root) ** 2 + b**2, (c / root + d) ** 2)
    energy = particles.energy * rng.gamma(1.0 / variance, variance)  # of mean 1, never below 0
    passes = rng.random(n) < np.exp(-FRONT_DEPTH)
    front = np.where(is_em, 1.0, np.where(passes, 0.0, rng.random(n)))
    phi = _phi_at_calorimeter(particles)
    cells = np.zeros(np.prod(EM) + np.prod(HAD))
    for share, kind, of, first in (
        (front * is_em, "em", EM, 0),
        (front * ~is_em, "hadron", EM, 0),
        (1.0 - front, "hadron", HAD, int(np.prod(EM))),
    ):
        place, part = _spots(particles.eta, phi, energy * share, kind, of, rng)
        cells += np.bincount(first + place, part, cells.size)
    return _grow(cells)


def _phi_at_calorimeter(particles: Particles) -> FloatArray:
    _, charge = mass_and_charge(particles.pdg_id)
    pt = np.maximum(transverse_momentum(particles), BEND)  # what curls up is left at its edge
    return particles.phi - charge * np.arcsin(BEND / pt)


def _spots(
    eta: FloatArray, phi: FloatArray, energy: FloatArray, kind: str, shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], FloatArray]:  # fmt: skip
    """Cells and energies of the spots of showers within the calorimeter."""
    seen = energy > 0.0
    eta, phi, energy = eta[seen], phi[seen], energy[seen]
    inside = _RINGS**2 / (1.0 + _RINGS**2)
    share = np.diff(inside) / inside[-1] / _SPOTS
    r = SHOWER_RADIUS[kind] * rng.uniform(_RINGS[:-1], _RINGS[1:], (len(eta), _SPOTS, len(share)))
    turn = 2.0 * np.pi / _SPOTS
    angle = turn * (np.arange(_SPOTS)[:, None] + rng.random((len(eta), 1, len(share))))
    y, x = eta[:, None, None] + r * np.cos(angle), phi[:, None, None] + r * np.sin(angle)
    factor, power = PARTS[kind]
    part = rng.standard_gamma((factor * energy**power + 1.0)[:, None, None] * share, y.shape)
    part *= (energy / part.sum(axis=(1, 2)))[:, None, None]
    row = np.floor((y + ETA_MAX) / (2.0 * ETA_MAX) * shape[0]).astype(np.int64)
    column = np.floor(x / (2.0 * np.pi) * shape[1]).astype(np.int64) % shape[1]
    kept = (row >= 0) & (row < shape[0])
    return (row * shape[1] + column)[kept], part[kept]


def _grow(cells: FloatArray) -> Clusters:
    """Clusters of the cells of both layers."""
    split = int(np.prod(EM))
    place, energy = _filled(cells[:split].reshape(EM))
    back, behind = _filled(cells[split:].reshape(HAD))
    seed = _maxima(cells[:split].reshape(EM))
    more = _maxima(cells[split:].reshape(HAD))
    if len(seed) and len(more):  # a maximum behind another one is none of its own
        near, _ = _tree(place[seed]).query(back[more], distance_upper_bound=HAD_SIDE)
        more = more[~np.isfinite(near)]
    centre = np.concatenate([place[seed], back[more]])
    n = len(centre)
    if n == 0:
        return Clusters(*np.zeros((4, 0)))
    tree = _tree(centre)
    _, mine = tree.query(place, distance_upper_bound=REACH)
    front = np.bincount(mine, energy, n + 1)[:n]
    k = min(N_SHARING, n)
    distance, several = tree.query(back, k=k, distance_upper_bound=REACH)
    distance, several = distance.reshape(-1, k), several.reshape(-1, k)
    weight = np.append(np.where(front > 0.0, front, SEED_ENERGY), 0.0)[several]
    weight *= np.exp(-np.minimum(distance, 1.0) / SHARING)
    weight[weight < np.sort(weight, axis=1)[:, -2:][:, :1]] = 0.0
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    cluster = np.concatenate([mine, several.ravel()])
    part = np.concatenate([energy, (behind[:, None] * weight).ravel()])
    where = np.concatenate([place, np.repeat(back, several.shape[1], axis=0)])
    kept = (cluster < n) & (part > 0.0)
    cluster, part = cluster[kept], part[kept]
    offset = where[kept] - centre[cluster]
    offset[:, 1] = np.remainder(offset[:, 1] + np.pi, 2.0 * np.pi) - np.pi
    total = np.asarray(np.bincount(cluster, part, n), dtype=np.float64)

    def mean(x: FloatArray) -> FloatArray:
        return np.bincount(cluster, part * x, n) / total

    y, x = (mean(offset[:, i]) for i in (0, 1))
    width = np.sqrt(np.maximum(mean((offset**2).sum(axis=1)) - y**2 - x**2, MIN_WIDTH**2))
    return Clusters(total, centre[:, 0] + y, centre[:, 1] + x, width)


def _filled(grid: FloatArray) -> tuple[FloatArray, FloatArray]:
    """eta and phi of the centres of the cells with energy, (n, 2), and these energies."""
    row, column = np.nonzero(grid)
    eta = (row + 0.5) * 2.0 * ETA_MAX / grid.shape[0] - ETA_MAX
    return np.stack([eta, (column + 0.5) * 2.0 * np.pi / grid.shape[1]], -1), grid[row, column]


def _maxima(grid: FloatArray) -> NDArray[np.int64]:
    """Those of the cells with energy that no neighbour exceeds."""
    top = maximum_filter(grid, size=3, mode=("constant", "wrap"))
    energy = grid[grid > 0.0]
    return np.flatnonzero((energy == top[grid > 0.0]) & (energy > SEED_ENERGY))


def _tree(place: FloatArray) -> cKDTree:
    return cKDTree(place, boxsize=[0.0, 2.0 * np.pi])


def find_tracks(particles: Particles, rng: np.random.Generator) -> Tracks:
    """Tracks of the charged particles of one event, with the resolutions and efficiencies of
    `simulation.tracks`, and losses where pixels are shared.
    """
    _, charge = mass_and_charge(particles.pdg_id)
    pt = transverse_momentum(particles)
    row = np.flatnonzero((charge != 0.0) & (pt > TRACK_PT) & (np.abs(particles.eta) < TRACK_ETA))
    row = row[np.argsort(-pt[row], kind="stable")]
    place = np.stack([particles.eta[row], particles.phi[row]], axis=-1) / PIXELS
    pairs = cKDTree(place).query_pairs(1.0, output_type="ndarray").reshape(-1, 2)
    harder = np.bincount(pairs.max(axis=1, initial=0) if len(pairs) else [], minlength=len(row))
    kept = efficiency(particles.pdg_id[row], pt[row], particles.eta[row]) * (1.0 - LOST) ** harder
    row = row[rng.random(len(row)) < kept]
    pt, eta, phi = pt[row], particles.eta[row], particles.phi[row]

    def error(name: str) -> FloatArray:
        return resolution(name, pt) * rng.standard_normal(len(pt))

    measured = 1.0 / np.abs(1.0 / pt + error("q_over_pt"))
    moved = -charge[row] * np.arcsin(np.minimum(BEND / pt, 1.0))
    angle = phi + error("phi")
    return Tracks(
        measured, np.arcsinh(np.sinh(eta) + error("cot_theta")), angle, angle + moved, row
    )
