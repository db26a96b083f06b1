"""What a silicon tracker makes of the charged particles of jets: which leave hits where, which hits
they share, which become tracks, and how well these are measured.

The tracker is made of cylinders like those of the inner detector of ATLAS since 2015: four layers
of pixels, and four of strips with two sides. Its numbers are estimates of ours about the published
performance: at the perigee an error A (+) B / (p sin^(3/2) theta) with A of 10 and 65 micrometres
across and along the beam and B of 60 micrometres GeV (arXiv:1001.0512 gives the form), material
of some hundredths of a radiation length a layer (arXiv:1707.02826), clusters that merge where
particles come within two pixels, and networks that split most of them (arXiv:1704.07983).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.simulation.tracks import RESOLUTION
from pfcalib.tagging.ftagfiles import FAKE, PILE_UP
from pfcalib.tagging.perigee import arc_at_radius, curvature, perigee, point_at

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

PIXEL_R = np.array([33.25, 50.5, 88.5, 122.5])  # mm
STRIP_R = np.array([299.0, 371.0, 443.0, 514.0])
N_PIXEL = len(PIXEL_R)
# of each surface: radius, stereo angle (rad), and within what distance across and along the beam
# (mm) two hits merge: two pixels or strips
SURFACES = np.array(
    [
        *([r, 0.0, 0.10, 0.5 if r < 40.0 else 0.8] for r in PIXEL_R),
        *([r, angle, 0.16, 63.0] for r in STRIP_R for angle in (0.0, 0.04)),
    ]
)
BEAM_PIPE = 23.5  # mm
# radius, and radiation and interaction lengths when crossed at right angles
MATERIAL = np.array(
    [
        [BEAM_PIPE, 0.006, 0.002],
        [PIXEL_R[0], 0.019, 0.006],
        *([r, 0.028, 0.010] for r in PIXEL_R[1:]),
        *([r, 0.028, 0.011] for r in STRIP_R),
    ]
)
PT_MIN, MAX_ETA = 0.5, 2.5  # GeV; of tracks
MAX_D0, MAX_Z0 = 3.5, 5.0  # mm, of tracks, from the primary vertex
MIN_HITS = 8
HIT_EFFICIENCY = 0.98
SPLIT = (0.88, 0.6)  # share of clusters of two and of more particles that are split
ROAD = 0.15, 0.6  # mm, across and along the beam, in which a track takes a hit of another one
TAKEN = 0.5  # how often it does
DROPPED = 0.5  # how often a track that shares more than one module is dropped
ALONE = 0.985, 0.05  # share of tracks that are found at high pT, and what is lost more at 0.5 GeV
FAR = 150.0  # mm; particles that are made r away from the beam are found exp(-r / FAR) as often
BREMSSTRAHLUNG = 0.3  # of electrons that are lost besides
SIGMA_D0, SIGMA_Z0 = 9e-3, 62e-3  # mm, of the innermost layer; they grow with its radius
SCATTERING = 1.8e-3  # rad GeV, before and in the innermost layer
SHARED_ERROR, WRONG_ERROR = (0.02, 0.10), (0.08, 0.30)  # mm, d0 and z0 with such an innermost hit
TAIL, TAIL_FACTOR = 0.04, 2.5  # share of tracks whose error is that much larger than they know
VERTEX_ERROR = 8e-3, 25e-3  # mm, of the primary vertex
MU = 35.0  # mean number of collisions beside the hard one
PILE_UP_RATE = 2.87  # charged particles above PT_MIN for a unit of eta (arXiv:1602.01633)
BEAM_LENGTH = 45.0  # mm
FAKE_RATE = 0.003, 0.0025  # fakes for each track of a jet, and for each pair of ten of them
MUON_EFFICIENCY, ELECTRON_EFFICIENCY = 0.95, 0.6
MUON_FAKES = 0.004  # hadrons that are taken for muons
MUON_PT, ELECTRON_PT = 3.0, 2.0  # GeV


class Charged(NamedTuple):
    """Charged particles near jets, sorted by jet; arrays of shape (n,) unless said otherwise."""

    jet: IntArray
    position: FloatArray  # (n, 3) mm where it is made, from the collision
    momentum: FloatArray  # (n, 3) GeV
    charge: FloatArray
    pdg_id: IntArray
    origin: IntArray  # of ftagfiles.ORIGINS
    end: FloatArray  # mm, how far from the beam it lives; inf for ever
    seen: Mask  # False for heavy hadrons, which leave hits and no tracks


class Measured(NamedTuple):
    """Tracks, of shape (n,) each unless said otherwise."""

    jet: IntArray
    d0: FloatArray  # mm, as all lengths; relative to the primary vertex as it is found
    z0: FloatArray
    phi: FloatArray
    theta: FloatArray
    q_over_p: FloatArray  # 1/GeV
    sigma: FloatArray  # (n, 5) of d0, z0 sin(theta), phi, theta, q/p
    hits: NDArray[np.uint8]  # (n, n_surfaces) 1 where there is one
    shared: Mask  # (n, n_surfaces)
    split: Mask  # (n, n_surfaces)
    lepton: IntArray  # 11, 13 or 0
    origin: IntArray
    position: FloatArray  # (n, 3) where the particle is made; NaN without one


def interact(
    position: FloatArray, momentum: FloatArray, pdg_id: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, IntArray, FloatArray, FloatArray, IntArray]:
    """Conversions of photons and nuclear interactions of hadrons in MATERIAL.

    A photon makes a pair with flat shares of its energy along its direction. A hadron gives some
    charged pions, of which each has a random share of its momentum and a random kick of a few
    hundred MeV across.

    Parameters
    ----------
    position, momentum : ndarray, shape (n, 3), mm and GeV
    pdg_id : ndarray of int, shape (n,)
        Photons and hadrons; others pass.
    rng : numpy.random.Generator

    Returns
    -------
    end : ndarray, shape (n,), mm
        How far from the beam each lives; inf where it passes.
    parent : ndarray of int, shape (m,)
        Row of what made each new particle.
    position, momentum : ndarray, shape (m, 3)
    pdg_id : ndarray of int, shape (m,)
        Of electrons and pions, whose charge it gives.
    """
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    born = np.hypot(position[:, 0], position[:, 1])
    inverse_sine = np.sqrt(1.0 + (momentum[:, 2] / pt) ** 2)
    photon, size = pdg_id == 22, np.abs(pdg_id)
    depth = np.where(photon[:, None], 7.0 / 9.0 * MATERIAL[:, 1], MATERIAL[:, 2])
    depth = depth * inverse_sine[:, None] * (MATERIAL[:, 0] > born[:, None])
    depth[~photon & ((size < 100) | (pt > 1e5))] = 0.0
    reach = np.cumsum(depth, axis=1)
    draw = rng.exponential(size=len(pt))
    layer = (reach < draw[:, None]).sum(axis=1)
    hit = np.flatnonzero(layer < len(MATERIAL))
    end = np.full(len(pt), np.inf)
    end[hit] = MATERIAL[layer[hit], 0]
    hit = hit[pt[hit] > 2.0 * PT_MIN]
    # straight on to the layer: what flies far enough to matter hardly bends
    direction = momentum[hit] / pt[hit, None]
    p, v = direction[:, :2], position[hit, :2]
    along = np.sum(p * v, axis=1)
    way = -along + np.sqrt(np.maximum(along**2 + end[hit] ** 2 - born[hit] ** 2, 0.0))
    place = position[hit] + way[:, None] * direction
    n = np.where(photon[hit], 2, 2 + rng.poisson(1.0, len(hit)))
    row = np.repeat(np.arange(len(hit)), n)
    share = rng.exponential(size=len(row)) + 1e-9
    total = np.bincount(row, share, minlength=len(hit))
    flat = rng.random(len(hit))
    first = np.r_[True, row[1:] != row[:-1]] if len(row) else np.empty(0, bool)
    is_pair = photon[hit][row]
    share = np.where(is_pair, np.where(first, flat[row], 1.0 - flat[row]), 0.8 * share / total[row])
    new = share[:, None] * momentum[hit][row]
    kick = rng.normal(0.0, 0.25, new.shape) * ~is_pair[:, None]
    sign = np.where(is_pair, np.where(first, 1, -1), rng.choice([-1, 1], len(row)))
    return end, hit[row], place[row], new + kick, np.where(is_pair, -11 * sign, 211 * sign)


@njit(cache=True)
def _crossings(d0, z0, phi, cot_theta, k, surfaces):  # type: ignore[no-untyped-def]
    """Coordinate across (mm) and along the beam of each track at each surface; NaN beyond reach."""
    n, m = len(d0), len(surfaces)
    across, along = np.full((n, m), np.nan), np.full((n, m), np.nan)
    for i in range(n):
        for j in range(m):
            r = surfaces[j, 0]
            s = arc_at_radius(d0[i], k[i], r)
            if s == s:
                x, y, z, _, _ = point_at(d0[i], z0[i], phi[i], cot_theta[i], k[i], s)
                across[i, j] = np.arctan2(y, x)
                along[i, j] = z
    return across, along


@njit(cache=True)
def _neighbours(offsets, azimuth, along, there, surfaces, road):  # type: ignore[no-untyped-def]
    """How many hits of others of the jet merge with that of a track, and whether one without a hit
    of its own finds that of another one on its road.
    """
    n, m = azimuth.shape
    near, taken = np.zeros((n, m), np.int64), np.zeros((n, m), np.bool_)
    for jet in range(len(offsets) - 1):
        for i in range(offsets[jet], offsets[jet + 1]):
            for j in range(m):
                r, stereo, du, dz = surfaces[j]
                for other in range(offsets[jet], offsets[jet + 1]):
                    if other == i or not there[other, j]:
                        continue
                    z = abs(along[other, j] - along[i, j])
                    if not z < dz:
                        continue
                    angle = azimuth[other, j] - azimuth[i, j]
                    if angle > np.pi:
                        angle -= 2.0 * np.pi
                    elif angle < -np.pi:
                        angle += 2.0 * np.pi
                    u = abs(r * angle + stereo * (along[other, j] - along[i, j]))
                    if there[i, j]:
                        near[i, j] += u < du
                    elif u < road[0] and z < road[1]:
                        taken[i, j] = True
    return near, taken


def measure_tracks(particles: Charged, n_jets: int, rng: np.random.Generator) -> Measured:
    """Tracks of particles, with all that dense jets do to them."""
    where = perigee(particles.position, particles.momentum, particles.charge)
    k = curvature(where.pt, where.charge)
    azimuth, along = _crossings(where.d0, where.z0, where.phi, where.cot_theta, k, SURFACES)
    born = np.hypot(particles.position[:, 0], particles.position[:, 1])
    radius = SURFACES[:, 0]
    there = np.isfinite(azimuth) & (radius > born[:, None]) & (radius < particles.end[:, None])
    there &= rng.random(there.shape) < HIT_EFFICIENCY
    offsets = np.searchsorted(particles.jet, np.arange(n_jets + 1))
    near, taken = _neighbours(offsets, azimuth, along, there, SURFACES, np.array(ROAD))
    is_pixel = np.arange(len(SURFACES)) < N_PIXEL
    probability = np.select([near == 1, near > 1], SPLIT, 0.0) * is_pixel
    split = there & (rng.random(there.shape) < probability)
    # beyond the reach of what it was trained with a network splits nothing
    shared = there & (near > 0) & ~split
    taken &= (radius < born[:, None]) & is_pixel & (rng.random(there.shape) < TAKEN)
    hits, shared = there | taken, shared | taken
    modules = shared[:, :N_PIXEL].sum(1) + shared[:, N_PIXEL:].sum(1) // 2
    chance = (ALONE[0] - ALONE[1] * (PT_MIN / where.pt) ** 1.5) * np.exp(-born / FAR)
    chance[np.abs(particles.pdg_id) == 11] *= 1.0 - BREMSSTRAHLUNG
    found = particles.seen & (hits.sum(axis=1) >= MIN_HITS) & hits[:, :N_PIXEL].any(axis=1)
    found &= rng.random(len(k)) < chance
    found &= (modules < 2) | (rng.random(len(k)) > DROPPED)
    found &= (where.pt > PT_MIN) & (np.abs(np.arcsinh(where.cot_theta)) < MAX_ETA)
    rows = np.flatnonzero(found)
    tracks = _smeared(
        np.column_stack([where.d0, where.z0, where.phi, where.cot_theta, k])[rows],
        where.pt[rows], where.charge[rows], hits[rows], shared[rows], taken[rows], rng,
    )  # fmt: skip
    return Measured(
        particles.jet[rows], *tracks, hits[rows].astype(np.uint8), shared[rows], split[rows],
        _leptons(particles.pdg_id[rows], where.pt[rows], rng), particles.origin[rows],
        particles.position[rows],
    )  # fmt: skip


def _smeared(
    true: FloatArray, pt: FloatArray, charge: FloatArray, hits: Mask, shared: Mask, taken: Mask,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """d0, z0, phi, theta, q/p as measured, and their errors as they are believed to be."""
    n = len(pt)
    first = np.argmax(hits, axis=1)
    r, innermost = SURFACES[first, 0], np.arange(n)
    theta = np.arctan2(1.0, true[:, 3])
    sine = np.sin(theta)
    growth = 1.0 + (r - PIXEL_R[0]) / 60.0
    scatter = r * SCATTERING / (pt * np.sqrt(sine))  # mm at the perigee
    is_taken, is_shared = taken[innermost, first], shared[innermost, first]
    blunder = np.where(
        is_taken[:, None], WRONG_ERROR, np.where(is_shared[:, None], SHARED_ERROR, 0.0)
    )
    sigma_hit = np.column_stack([SIGMA_D0 * growth, SIGMA_Z0 * growth])
    factor = np.where(rng.random(n) < TAIL, TAIL_FACTOR, 1.0)[:, None]
    hit = factor * sigma_hit * rng.standard_normal((n, 2)) + blunder * rng.standard_normal((n, 2))
    bend = factor * scatter[:, None] * rng.standard_normal((n, 2))
    floor = np.outer(np.ones(n), [RESOLUTION["phi"][0], RESOLUTION["cot_theta"][0]])
    floor[:, 1] *= sine**2
    angle = floor * rng.standard_normal((n, 2))
    # what is scattered at the innermost hit still passes it
    phi = true[:, 2] - bend[:, 0] / r + angle[:, 0]
    measured_theta = theta + bend[:, 1] * sine / r + angle[:, 1]
    d0 = true[:, 0] + hit[:, 0] + bend[:, 0]
    z0 = true[:, 1] + (hit[:, 1] + bend[:, 1]) / sine
    relative = np.hypot(pt, RESOLUTION["q_over_pt"][1]) * RESOLUTION["q_over_pt"][0]
    inverse = charge / pt * (1.0 + relative * rng.standard_normal(n))
    known = 0.3 * blunder * is_shared[:, None]  # part of it shows in the clusters
    impact = np.sqrt(sigma_hit**2 + scatter[:, None] ** 2 + known**2 + np.square(VERTEX_ERROR))
    believed = np.column_stack(
        [
            impact[:, 0],
            impact[:, 1],
            np.hypot(floor[:, 0], scatter / r),
            np.hypot(floor[:, 1], scatter * sine / r),
            relative * sine / pt,
        ]
    )
    return d0, z0, phi, measured_theta, inverse * np.sin(measured_theta), believed


def _leptons(pdg_id: IntArray, pt: FloatArray, rng: np.random.Generator) -> IntArray:
    size, draw = np.abs(pdg_id), rng.random(len(pt))
    chance = np.select([size == 13, size > 100], [MUON_EFFICIENCY, MUON_FAKES])
    muon = (pt > MUON_PT) & (draw < chance)
    electron = (pt > ELECTRON_PT) & (draw < ELECTRON_EFFICIENCY) & (size == 11)
    return np.select([muon, electron], [13, 11], 0)


def add_background(
    tracks: Measured, jet: FloatArray, cone: FloatArray, rng: np.random.Generator, *, mu: float = MU
) -> Measured:
    """With tracks of pile-up and fakes.

    Those of pile-up come from vertices along the beam around the primary one; fakes grow with the
    square of the number of tracks.

    Parameters
    ----------
    tracks : Measured
    jet : ndarray, shape (n_jets, 3)
        pT, eta, phi.
    cone : ndarray, shape (n_jets,)
        Radius around a jet that its tracks come from.
    rng : numpy.random.Generator
    mu : float
        Mean number of collisions beside the hard one.
    """
    n_jets = len(jet)
    window = MAX_Z0 * np.cosh(jet[:, 1])
    density = mu / (np.sqrt(4.0 * np.pi) * BEAM_LENGTH)  # of vertices, 1/mm, beside the primary one
    rate = 2.0 * window * density * PILE_UP_RATE * 0.5 * cone**2
    n_tracks = np.bincount(tracks.jet, minlength=n_jets)
    fakes = FAKE_RATE[0] * n_tracks + FAKE_RATE[1] * (n_tracks / 10.0) ** 2
    kinds = []
    for origin, number in ((PILE_UP, rng.poisson(rate)), (FAKE, rng.poisson(fakes))):
        row = np.repeat(np.arange(n_jets), number)
        kinds.append(_background(origin, row, jet[row], cone[row], window[row], rng))
    return Measured(*(np.concatenate(column) for column in zip(tracks, *kinds, strict=True)))


def _background(
    origin: int, row: IntArray, jet: FloatArray, cone: FloatArray, window: FloatArray,
    rng: np.random.Generator,
) -> Measured:  # fmt: skip
    n = len(row)
    pt = PT_MIN + 2.0 * rng.pareto(5.0, n)
    distance, turn = cone * np.sqrt(rng.random(n)), rng.uniform(0.0, 2.0 * np.pi, n)
    cot_theta = np.sinh(jet[:, 1] + distance * np.cos(turn))
    true = np.column_stack(
        [
            np.zeros(n) if origin == PILE_UP else rng.uniform(-MAX_D0, MAX_D0, n),
            rng.uniform(-window, window),
            jet[:, 2] + distance * np.sin(turn),
            cot_theta,
        ]
    )
    hits = rng.random((n, len(SURFACES))) < (HIT_EFFICIENCY if origin == PILE_UP else 0.75)
    hits[:, N_PIXEL] = True
    shared = hits & (rng.random(hits.shape) < (0.01 if origin == PILE_UP else 0.2))
    charge = rng.choice([-1.0, 1.0], n)
    tracks = _smeared(true, pt, charge, hits, shared, np.zeros_like(hits), rng)
    lepton = _leptons(np.full(n, 211), pt, rng)
    return Measured(
        row, *tracks, hits.astype(np.uint8), shared, np.zeros_like(hits), lepton,
        np.full(n, origin), np.full((n, 3), np.nan),
    )  # fmt: skip


@njit(cache=True)
def vertex_numbers(offsets, position, merged):  # type: ignore[no-untyped-def]
    """Number of the vertex of each track of each jet, 0 within `merged` (mm) of the primary one,
    and NO_VERTEX (-2) without one; those within that distance count as one.
    """
    number = np.full(len(position), -2, np.int64)
    for jet in range(len(offsets) - 1):
        start, stop = offsets[jet], offsets[jet + 1]
        n_found = 0
        for i in range(start, stop):
            if np.isnan(position[i, 0]):
                continue
            if np.sqrt(np.sum(position[i] ** 2)) < merged:
                number[i] = 0
                continue
            for other in range(start, i):
                apart = np.sqrt(np.sum((position[i] - position[other]) ** 2))
                if number[other] > 0 and apart < merged:
                    number[i] = number[other]
                    break
            if number[i] == -2:
                n_found += 1
                number[i] = n_found
    return number
