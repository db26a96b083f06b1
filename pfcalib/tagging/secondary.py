"""A secondary vertex in a jet, and muons: what SV1 and soft-muon taggers know (the method of
ATL-PHYS-PUB-2017-011).

Pairs of tracks that miss the primary vertex and meet in front of it make two-track vertices. Pairs
with the mass of a K0S or a Lambda, electron pairs and those in the material of a layer are left
out with their tracks. All tracks of the others are fitted to one vertex, from which the worst one
is taken until all fit.

Tracks bend; near a vertex they count as straight. The errors of a track at a vertex follow from
those at the perigee: what is scattered in its innermost hit still passes there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.tagging.ftagfiles import TaggedJets
from pfcalib.tagging.jettracks import BEAM_PIPE, PIXEL_R
from pfcalib.tagging.perigee import curvature, point_at

FloatArray = NDArray[np.float64]

PT_MIN, MAX_TRACKS = 0.7, 25  # GeV; how many tracks at most, the hardest
MIN_IMPACT = 4.0  # chi-square of a track with the primary vertex, of d0 and z0
MIN_PAIR = 18.0  # that of both tracks of a pair
MAX_CHI2 = 5.0  # of a two-track vertex, of one degree of freedom
MIN_SIGNIFICANCE = 3.0  # of the distance of a two-track vertex
MAX_FIT = 8.0  # chi-square of a track with the final vertex
MAX_LENGTH = 180.0  # mm from the beam
PION, PROTON, KAON, LAMBDA, ELECTRON = 0.13957, 0.93827, 0.49761, 1.11568, 0.000511  # GeV
WINDOWS = np.array([0.02, 0.008, 0.05])  # GeV: of K0S, Lambda and pairs of electrons
MATERIAL_R = np.array([BEAM_PIPE, *PIXEL_R])
NEAR_MATERIAL, MATERIAL_MASS = 0.8, 1.0  # mm; GeV of two-track vertices that are left out there
COLUMNS = (
    "SV1_masssvx",  # GeV, of pions
    "SV1_efracsvx",  # of the energy of the tracks of the jet
    "SV1_N2Tpair",
    "SV1_NGTinSvx",
    "SV1_Lxy",  # mm
    "SV1_L3d",
    "SV1_significance3d",
    "SV1_deltaR",  # of flight and jet
)
MUON_COLUMNS = ("softMuon_pt", "softMuon_dR", "softMuon_pTrel", "softMuon_ip3dD0Significance")


class Vertices(NamedTuple):
    """One vertex a jet."""

    columns: FloatArray  # (n, len(COLUMNS)); all 0, the numbers too, without a vertex
    position: FloatArray  # (n, 3) mm, x along the jet's azimuth; NaN without a vertex
    in_vertex: NDArray[np.bool_]  # (n, n_tracks)


def find_vertices(sample: TaggedJets) -> Vertices:
    """Secondary vertex of each jet."""
    jets, tracks = sample.jets, sample.tracks
    eta = jets["eta"][:, None] + tracks["deta"]
    innermost = np.select(
        [
            tracks["numberOfInnermostPixelLayerHits"] > 0,
            tracks["numberOfNextToInnermostPixelLayerHits"] > 0,
        ],
        PIXEL_R[:2],
        PIXEL_R[2],
    )
    with np.errstate(divide="ignore"):
        q_over_p = np.where(tracks["qOverP"] == 0.0, 1.0, tracks["qOverP"]).astype(float)
    pt = 1.0 / (np.abs(q_over_p) * np.cosh(eta))
    quantities = np.stack(
        [
            tracks["d0"],
            tracks["z0SinTheta"] * np.cosh(eta),
            tracks["dphi"],
            np.sinh(eta),
            curvature(pt, np.sign(q_over_p)),
            pt,
            tracks["d0Uncertainty"],
            tracks["z0SinThetaUncertainty"],
            tracks["phiUncertainty"],
            tracks["thetaUncertainty"],
            innermost,
        ],
        axis=-1,
    ).astype(np.float64)
    axis = np.sinh(jets["eta"].astype(np.float64))
    columns, position, in_vertex = _find(quantities, sample.valid, axis, MATERIAL_R, WINDOWS)
    return Vertices(columns, position, in_vertex)


def vertex_columns(vertices: Vertices) -> dict[str, FloatArray]:
    """Those of COLUMNS by name, as DL1 takes them, each (n,)."""
    return dict(zip(COLUMNS, vertices.columns.T, strict=True))


def muon_columns(sample: TaggedJets) -> dict[str, FloatArray]:
    """MUON_COLUMNS of the hardest muon of each jet, by name, each (n,); 0 without one.

    pTrel is the part of its momentum across the axis of the jet.
    """
    jets, tracks = sample.jets, sample.tracks
    is_muon = sample.valid & (tracks["leptonID"] == 13)
    row = np.arange(len(sample))
    hardest = np.argmax(np.where(is_muon, tracks["pt"], 0.0), axis=1)
    there = is_muon[row, hardest]
    muon = tracks[row, hardest]
    pt, dphi = muon["pt"].astype(float), muon["dphi"]
    eta, axis = jets["eta"] + muon["deta"], jets["eta"].astype(float)
    p = pt[:, None] * np.column_stack([np.cos(dphi), np.sin(dphi), np.sinh(eta)])
    unit = np.column_stack([np.ones_like(axis), np.zeros_like(axis), np.sinh(axis)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    values = (
        pt,
        np.hypot(muon["deta"], dphi),
        np.linalg.norm(np.cross(p, unit), axis=1),
        muon["lifetimeSignedD0Significance"],
    )
    return {
        name: np.where(there, value, 0.0) for name, value in zip(MUON_COLUMNS, values, strict=True)
    }


@njit(cache=True)
def _solve(a, b):  # type: ignore[no-untyped-def]
    """Solution and inverse of a symmetric system of three equations."""
    inverse = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            i1, i2, j1, j2 = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
            inverse[j, i] = a[i1, j1] * a[i2, j2] - a[i1, j2] * a[i2, j1]
    determinant = a[0, 0] * inverse[0, 0] + a[0, 1] * inverse[1, 0] + a[0, 2] * inverse[2, 0]
    if determinant <= 0.0:
        return np.zeros(3), inverse, False
    inverse /= determinant
    return inverse @ b, inverse, True


@njit(cache=True)
def _planes(track, vertex):  # type: ignore[no-untyped-def]
    """Nearest point of a track to a vertex, direction, two normals and errors across them."""
    d0, z0, phi, cot, k = track[0], track[1], track[2], track[3], track[4]
    s = vertex[0] * np.cos(phi) + vertex[1] * np.sin(phi)
    for _ in range(2):
        x, y, z, ux, uy = point_at(d0, z0, phi, cot, k, s)
        step = (vertex[0] - x) * ux + (vertex[1] - y) * uy + (vertex[2] - z) * cot
        s += step / (1.0 + cot * cot)
    x, y, z, ux, uy = point_at(d0, z0, phi, cot, k, s)
    sine = 1.0 / np.sqrt(1.0 + cot * cot)
    cosine = cot * sine
    point, direction = np.array([x, y, z]), np.array([ux * sine, uy * sine, cosine])
    normals = np.array([[-uy, ux, 0.0], [-cosine * ux, -cosine * uy, sine]])
    errors = np.empty(2)
    for i in range(2):
        length = s if i == 0 else s / sine
        arm = track[10] if i == 0 else track[10] / sine
        total = track[6 + i] ** 2
        scatter = min((arm * track[8 + i]) ** 2, 0.95 * total)
        errors[i] = total - scatter + scatter * (1.0 - length / arm) ** 2
    return point, direction, normals, errors


@njit(cache=True)
def fit_vertex(tracks, start):  # type: ignore[no-untyped-def]
    """Vertex of tracks by least squares.

    Parameters
    ----------
    tracks : ndarray, shape (n, 11)
        d0, z0 (mm), phi, cot(theta), curvature (1/mm), pT (GeV), errors of d0 and z0 sin(theta)
        (mm), of phi and theta, and radius of the innermost hit (mm).
    start : ndarray, shape (3,), mm

    Returns
    -------
    position : ndarray, shape (3,), mm
    covariance : ndarray, shape (3, 3)
    chi2 : ndarray, shape (n,)
        Of each track.
    good : bool
        False where it does not come to a point.
    """
    n = len(tracks)
    vertex, chi2 = start.copy(), np.zeros(n)
    covariance = np.zeros((3, 3))
    for _ in range(4):
        a, b = np.zeros((3, 3)), np.zeros(3)
        for i in range(n):
            point, _, normals, errors = _planes(tracks[i], vertex)
            for j in range(2):
                normal = normals[j]
                constant = normal[0] * point[0] + normal[1] * point[1] + normal[2] * point[2]
                for p in range(3):
                    b[p] += normal[p] * constant / errors[j]
                    for q in range(3):
                        a[p, q] += normal[p] * normal[q] / errors[j]
        new, covariance, good = _solve(a, b)
        if not good or not np.sum(new * new) < 1e6:
            return vertex, covariance, chi2, False
        moved = np.sum((new - vertex) ** 2)
        vertex = new
        if moved < 1e-8:
            break
    for i in range(n):
        point, _, normals, errors = _planes(tracks[i], vertex)
        chi2[i] = 0.0
        for j in range(2):
            chi2[i] += np.sum(normals[j] * (vertex - point)) ** 2 / errors[j]
    return vertex, covariance, chi2, True


@njit(cache=True)
def _crossing(one, two):  # type: ignore[no-untyped-def]
    """About where two tracks cross in the plane across the beam, as lines; the beam if nowhere."""
    start = np.zeros(3)
    c1, s1, c2, s2 = np.cos(one[2]), np.sin(one[2]), np.cos(two[2]), np.sin(two[2])
    sine = c1 * s2 - s1 * c2
    if abs(sine) < 1e-5:
        return start
    dx, dy = one[0] * s1 - two[0] * s2, -one[0] * c1 + two[0] * c2
    along = (dx * s2 - dy * c2) / sine
    if abs(along) < 200.0:
        start[0], start[1] = -one[0] * s1 + along * c1, one[0] * c1 + along * s1
        start[2] = one[1] + along * one[3]
    return start


@njit(cache=True)
def _mass(tracks, rows, vertex, first, others):  # type: ignore[no-untyped-def]
    """Mass and energy of tracks at a vertex, the first with one mass, the others with another."""
    total = np.zeros(4)
    for number, i in enumerate(rows):
        _, direction, _, _ = _planes(tracks[i], vertex)
        p = tracks[i, 5] * np.sqrt(1.0 + tracks[i, 3] ** 2)
        mass = first if number == 0 else others
        total[3] += np.sqrt(p * p + mass * mass)
        for j in range(3):
            total[j] += p * direction[j]
    square = total[3] ** 2 - total[0] ** 2 - total[1] ** 2 - total[2] ** 2
    return np.sqrt(max(square, 0.0)), total[3]


@njit(cache=True)
def _is_other(tracks, pair, vertex, material, windows):  # type: ignore[no-untyped-def]
    """Whether a two-track vertex is that of a K0S, a Lambda, a photon or of material."""
    radius = np.hypot(vertex[0], vertex[1])
    mass, _ = _mass(tracks, pair, vertex, PION, PION)
    if tracks[pair[0], 4] * tracks[pair[1], 4] < 0.0:
        if abs(mass - KAON) < windows[0]:
            return True
        # the proton of a Lambda is the harder one
        swap = tracks[pair[0], 5] < tracks[pair[1], 5]
        order = np.array([pair[1], pair[0]]) if swap else pair
        if abs(_mass(tracks, order, vertex, PROTON, PION)[0] - LAMBDA) < windows[1]:
            return True
        electrons, _ = _mass(tracks, pair, vertex, ELECTRON, ELECTRON)
        if electrons < windows[2] and radius > 0.8 * material[0]:
            return True
    if mass < MATERIAL_MASS:
        for r in material:
            if abs(radius - r) < NEAR_MATERIAL:
                return True
    return False


@njit(cache=True)
def _significance(vertex, covariance):  # type: ignore[no-untyped-def]
    length = np.sqrt(np.sum(vertex * vertex))
    unit = vertex / max(length, 1e-9)
    variance = 0.0
    for i in range(3):
        for j in range(3):
            variance += unit[i] * covariance[i, j] * unit[j]
    return length / np.sqrt(max(variance, 1e-12))


@njit(cache=True)
def _find(quantities, valid, axis, material, windows):  # type: ignore[no-untyped-def]
    n_jets, n_tracks = valid.shape
    columns, place = np.zeros((n_jets, 8)), np.full((n_jets, 3), np.nan)
    inside = np.zeros((n_jets, n_tracks), np.bool_)
    for jet in range(n_jets):
        tracks = quantities[jet]
        energy = 0.0
        impact, chosen = np.zeros(n_tracks), np.full(n_tracks, -1.0)
        for i in range(n_tracks):
            if valid[jet, i]:
                energy += tracks[i, 5] * np.sqrt(1.0 + tracks[i, 3] ** 2)
                sine = 1.0 / np.sqrt(1.0 + tracks[i, 3] ** 2)
                impact[i] = (tracks[i, 0] / tracks[i, 6]) ** 2
                impact[i] += (tracks[i, 1] * sine / tracks[i, 7]) ** 2
                if impact[i] > MIN_IMPACT and tracks[i, 5] > PT_MIN:
                    chosen[i] = tracks[i, 5]
        rows = np.argsort(-chosen)[:MAX_TRACKS]
        rows = rows[chosen[rows] > 0.0]
        n = len(rows)
        used, banned = np.zeros(n_tracks, np.int64), np.zeros(n_tracks, np.bool_)
        pairs = np.empty((n * (n - 1) // 2, 2), np.int64)
        starts = np.empty((n * (n - 1) // 2, 3))
        n_pairs = 0
        for a in range(n):
            for b in range(a):
                one, two = rows[a], rows[b]
                if impact[one] + impact[two] < MIN_PAIR:
                    continue
                pair = np.array([one, two])
                vertex, covariance, chi2, good = fit_vertex(
                    tracks[pair], _crossing(tracks[one], tracks[two])
                )
                if not good or chi2.sum() > MAX_CHI2:
                    continue
                radius = np.hypot(vertex[0], vertex[1])
                forward = vertex[0] + vertex[2] * axis[jet]
                if forward < 0.0 or radius > MAX_LENGTH:
                    continue
                if _significance(vertex, covariance) < MIN_SIGNIFICANCE:
                    continue
                # a track has no hit before it is made
                if radius > min(tracks[one, 10], tracks[two, 10]) + 5.0:
                    continue
                if _is_other(tracks, pair, vertex, material, windows):
                    banned[one] = banned[two] = True
                    continue
                pairs[n_pairs], starts[n_pairs] = pair, vertex
                n_pairs += 1
        n_good, start = 0, np.zeros(3)
        for i in range(n_pairs):
            if not (banned[pairs[i, 0]] or banned[pairs[i, 1]]):
                used[pairs[i, 0]] += 1
                used[pairs[i, 1]] += 1
                start += starts[i]
                n_good += 1
        if n_good == 0:
            continue
        start /= n_good
        members = np.flatnonzero(used > 0)
        good = False
        while len(members) >= 2:
            vertex, covariance, chi2, good = fit_vertex(tracks[members], start)
            if not good:
                break
            worst = np.argmax(chi2)
            if len(members) == 2 or chi2[worst] < MAX_FIT:
                good = chi2.sum() < MAX_CHI2 if len(members) == 2 else True
                break
            members = np.delete(members, worst)
            start = vertex
        if not good:
            continue
        length = np.sqrt(np.sum(vertex * vertex))
        forward = vertex[0] + vertex[2] * axis[jet]
        if forward < 0.0:
            continue
        mass, inner = _mass(tracks, members, vertex, PION, PION)
        radius = np.hypot(vertex[0], vertex[1])
        eta = np.arcsinh(vertex[2] / max(radius, 1e-9))
        columns[jet, 0], columns[jet, 1] = mass, inner / energy
        columns[jet, 2], columns[jet, 3] = n_good, len(members)
        columns[jet, 4], columns[jet, 5] = radius, length
        columns[jet, 6] = _significance(vertex, covariance)
        columns[jet, 7] = np.hypot(eta - np.arcsinh(axis[jet]), np.arctan2(vertex[1], vertex[0]))
        place[jet] = vertex
        for i in members:
            inside[jet, i] = True
    return columns, place, inside
