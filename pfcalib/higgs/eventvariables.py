"""Thirty-eight quantities of an event with one lepton and many jets, of the kinds that the search
for ttH with H -> bb is made with (arXiv:1712.08895): sums, shapes, pairs, tags, and the best
assignment of jets to two top quarks and a Higgs boson.

Pairs of b jets are those of tagged jets. `fox_wolfram` and `momentum_tensor` are those of all jets
and the lepton.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.higgs.candidates import M_T, M_W, _distance, _eta, _mass, _pt
from pfcalib.higgs.loops import M_HIGGS
from pfcalib.higgs.topevents import TAGGED, TopEvents

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

# name: meaning and unit, in the order of the table
VARIABLES = {
    "n_jets": ("number of jets", ""),
    "n_tags": ("number of tagged jets", ""),
    "ht": ("scalar sum of the pT of the jets", "GeV"),
    "st": ("the same with lepton and missing momentum", "GeV"),
    "met": ("missing transverse momentum", "GeV"),
    "mt_w": ("transverse mass of lepton and missing momentum", "GeV"),
    "pt_lepton": ("pT of the lepton", "GeV"),
    "pt_jet1": ("pT of the first jet", "GeV"),
    "pt_jet3": ("pT of the third jet", "GeV"),
    "pt_jet5": ("pT of the fifth jet", "GeV"),
    "m_jets": ("mass of all jets", "GeV"),
    "centrality": ("sum of pT over sum of energy, jets and lepton", ""),
    "sphericity": ("3/2 of the sum of the two smaller eigenvalues of the momentum tensor", ""),
    "aplanarity": ("3/2 of its smallest eigenvalue", ""),
    **{f"h{k}": (f"Fox-Wolfram moment {k} over moment 0", "") for k in (1, 2, 3, 4)},
    "tag3": ("third highest level of a tag", ""),
    "tag4": ("fourth highest level of a tag", ""),
    "tag5": ("fifth highest level of a tag", ""),
    "dr_bb_mean": ("mean distance of two b jets", ""),
    "dr_bb_min": ("smallest distance of two b jets", ""),
    "dr_bb_hard": ("distance of the two b jets of the largest summed pT", ""),
    "m_bb_near": ("mass of the two b jets nearest to each other", "GeV"),
    "m_bb_hard": ("mass of the two b jets of the largest summed pT", "GeV"),
    "m_bb_max": ("largest mass of two b jets", "GeV"),
    "n_bb_higgs": ("pairs of b jets within 30 GeV of the Higgs boson's mass", ""),
    "m_jj_near": ("mass of the two jets nearest to each other", "GeV"),
    "deta_jj_max": ("largest difference of pseudorapidity of two jets", ""),
    "dr_lepton_bb": ("distance of the lepton and the nearest pair of b jets", ""),
    "chi2": ("logarithm of 1 + χ² of the best assignment", ""),
    "m_higgs": ("mass of the assigned Higgs boson", "GeV"),
    "pt_higgs": ("pT of the assigned Higgs boson", "GeV"),
    "dr_higgs": ("distance of the two jets of the assigned Higgs boson", ""),
    "tags_higgs": ("sum of the levels of the tags of these two jets", ""),
    "m_higgs_top": ("mass of the assigned Higgs boson and leptonic top quark", "GeV"),
    "dr_higgs_tt": ("distance of the assigned Higgs boson and the top quarks", ""),
}
HIGGS_WINDOW = 30.0  # GeV
N_CANDIDATES = 4  # jets of the highest tags, that stand for b quarks
# GeV, of m_W, of the hadronic and of the leptonic top quark: about half of what holds 68 % of them
SIGMA_W, SIGMA_HADRONIC, SIGMA_LEPTONIC = 14.0, 24.0, 30.0
_CHUNK = 20_000  # events whose assignments are looked at together


class Assignment(NamedTuple):
    """The best assignment of jets: one of the hadronic W boson's pairs and of the orders of the
    four jets that stand for b quarks.
    """

    chi2: FloatArray  # (n,)
    higgs: FloatArray  # (n, 2, 4) momenta of the two jets
    tags: FloatArray  # (n,) sum of their levels
    hadronic: FloatArray  # (n, 4) momentum of the top quark
    leptonic: FloatArray  # (n, 4)


def event_variables(events: TopEvents) -> NDArray[np.float32]:
    """VARIABLES of events, (n, 38)."""
    parts = [
        _variables(_some(events, slice(i, i + _CHUNK))) for i in range(0, events.n_events, _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(VARIABLES)), np.float32)


def _some(events: TopEvents, rows: slice) -> TopEvents:
    columns = events._asdict()
    return TopEvents(**{k: of if k == "tried" else of[rows] for k, of in columns.items()})


def four_momenta(events: TopEvents) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Jets (n, n_jets, 4), lepton (n, 4) and missing momentum (n, 2) as px, py, pz, e in GeV."""
    n = events.n_events
    lepton = np.concatenate([events.lepton, np.zeros((n, 1))], axis=1)
    jets, lepton = _cartesian(events.jets), _cartesian(lepton)
    pt, phi = events.missing.astype(np.float64).T
    return jets, lepton, np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=-1)


def _cartesian(columns: NDArray) -> FloatArray:
    """px, py, pz, e of pT, eta, phi, mass."""
    pt, eta, phi, mass = np.moveaxis(columns.astype(np.float64), -1, 0)
    along = pt * np.sinh(eta)
    energy = np.sqrt(pt**2 + along**2 + mass**2)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), along, energy], axis=-1)


def momentum_tensor(momentum: FloatArray) -> FloatArray:
    """Eigenvalues of sum p_a p_b / sum p^2 by rising size, (n, 3), of objects (n, n_objects, 4).

    >>> line = np.array([[[1.0, 0, 0, 1], [-1.0, 0, 0, 1]]])
    >>> momentum_tensor(line).round(3).tolist()
    [[0.0, 0.0, 1.0]]
    """
    p = momentum[..., :3]
    tensor = np.einsum("nia,nib->nab", p, p) / np.sum(p**2, axis=(1, 2))[:, None, None]
    return np.asarray(np.linalg.eigvalsh(tensor))


def fox_wolfram(momentum: FloatArray, orders: tuple[int, ...] = (1, 2, 3, 4)) -> FloatArray:
    """H_l / H_0 with H_l = sum_ij abs(p_i) abs(p_j) P_l(cos of their angle), (n, n_orders), of
    objects (n, n_objects, 4); zeros count as no object (Phys. Rev. Lett. 41 (1978) 1581).
    """
    p = momentum[..., :3]
    size = np.linalg.norm(p, axis=-1)
    unit = p / np.maximum(size, 1e-12)[..., None]
    cosine = np.einsum("nia,nja->nij", unit, unit)
    weight = size[:, :, None] * size[:, None, :]
    legendre = np.polynomial.legendre.legval
    total = weight.sum(axis=(1, 2))
    found = [(weight * legendre(cosine, [0.0] * k + [1.0])).sum(axis=(1, 2)) for k in orders]
    return np.stack(found, axis=-1) / total[:, None]


def neutrino(lepton: FloatArray, missing: FloatArray) -> FloatArray:
    """Momentum of a neutrino that makes a W boson of mass M_W with the lepton, (n, 4): of the two
    solutions that of the smaller momentum along the beam, or their real part.
    """
    pt2 = np.sum(missing**2, axis=1)
    e, pz = lepton[:, 3], lepton[:, 2]
    a = 0.5 * M_W**2 + np.sum(lepton[:, :2] * missing, axis=1)
    lepton_pt2 = np.sum(lepton[:, :2] ** 2, axis=1)
    root = np.sqrt(np.maximum(a**2 - pt2 * lepton_pt2, 0.0))
    ways = np.stack([a * pz + e * root, a * pz - e * root]) / lepton_pt2
    along = np.where(np.abs(ways[0]) < np.abs(ways[1]), ways[0], ways[1])
    return np.stack([*missing.T, along, np.sqrt(pt2 + along**2)], axis=-1)


def assign(
    jets: FloatArray, tag: NDArray[np.integer], lepton: FloatArray, missing: FloatArray
) -> Assignment:
    """The assignment of the smallest chi^2 of the masses of W boson, hadronic and leptonic top
    quark; the mass of the Higgs boson does not count, so that it may tell signal from background.

    Parameters
    ----------
    jets : ndarray, shape (n, n_jets, 4)
        Momenta, zeros behind the last.
    tag : ndarray of int, shape (n, n_jets)
    lepton, missing : ndarray, shape (n, 4) and (n, 2)
    """
    there = jets[..., 3] > 0.0
    # the harder of equally tagged jets first
    order = np.argsort(np.where(there, -tag.astype(np.float64), 9.0), axis=1, kind="stable")
    jets = np.take_along_axis(jets, order[..., None], axis=1)
    tag = np.take_along_axis(tag, order, axis=1)
    wlep = lepton + neutrino(lepton, missing)
    best = np.full(len(jets), np.inf)
    choice = np.zeros((len(jets), 6), dtype=np.int64)
    others = itertools.combinations(range(N_CANDIDATES, jets.shape[1]), 2)
    for i, j in others:
        w = jets[:, i] + jets[:, j]
        both = (jets[:, i, 3] > 0.0) & (jets[:, j, 3] > 0.0)
        of_w = np.where(both, ((_mass(w) - M_W) / SIGMA_W) ** 2, np.inf)
        if not both.any():
            continue
        hadronic = [
            ((_mass(w + jets[:, k]) - M_T) / SIGMA_HADRONIC) ** 2 for k in range(N_CANDIDATES)
        ]
        leptonic = [
            ((_mass(wlep + jets[:, k]) - M_T) / SIGMA_LEPTONIC) ** 2 for k in range(N_CANDIDATES)
        ]
        for k, m in itertools.permutations(range(N_CANDIDATES), 2):
            chi2 = of_w + hadronic[k] + leptonic[m]
            better = chi2 < best
            best = np.where(better, chi2, best)
            rest = [x for x in range(N_CANDIDATES) if x not in (k, m)]
            choice = np.where(better[:, None], [i, j, k, m, *rest], choice)
    chosen = np.take_along_axis(jets, choice[..., None], axis=1)
    return Assignment(
        best,
        chosen[:, 4:],
        np.take_along_axis(tag, choice[:, 4:], axis=1).sum(axis=1).astype(np.float64),
        chosen[:, :3].sum(axis=1),
        wlep + chosen[:, 3],
    )


def _variables(events: TopEvents) -> NDArray[np.float32]:
    jets, lepton, missing = four_momenta(events)
    there = jets[..., 3] > 0.0
    is_b = there & (events.tag >= TAGGED)
    every = np.concatenate([jets, lepton[:, None]], axis=1)
    pt, met = _pt(jets), np.hypot(*missing.T)
    eigen, moments = momentum_tensor(every), fox_wolfram(every)
    highest = -np.sort(-events.tag, axis=1)
    mt2 = 2.0 * (_pt(lepton) * met - np.sum(lepton[:, :2] * missing, axis=1))
    b, any_two = _pairs(jets, is_b), _pairs(jets, there)
    near, hard = np.argmin(b.distance, axis=1), np.argmax(b.pt, axis=1)
    nearest, row = np.argmin(any_two.distance, axis=1), np.arange(len(jets))
    found = assign(jets, events.tag, lepton, missing)
    higgs = found.higgs.sum(axis=1)
    columns = {
        "n_jets": there.sum(axis=1),
        "n_tags": is_b.sum(axis=1),
        "ht": pt.sum(axis=1),
        "st": pt.sum(axis=1) + _pt(lepton) + met,
        "met": met,
        "mt_w": np.sqrt(np.maximum(mt2, 0.0)),
        "pt_lepton": _pt(lepton),
        **{f"pt_jet{k}": pt[:, k - 1] for k in (1, 3, 5)},
        "m_jets": _mass(jets.sum(axis=1)),
        "centrality": _pt(every).sum(axis=1) / every[..., 3].sum(axis=1),
        "sphericity": 1.5 * (eigen[:, 0] + eigen[:, 1]),
        "aplanarity": 1.5 * eigen[:, 0],
        **{f"h{k}": moments[:, k - 1] for k in (1, 2, 3, 4)},
        **{f"tag{k}": highest[:, k - 1] for k in (3, 4, 5)},
        "dr_bb_mean": np.where(b.there, b.distance, 0.0).sum(axis=1) / b.there.sum(axis=1),
        "dr_bb_min": b.distance[row, near],
        "dr_bb_hard": b.distance[row, hard],
        "m_bb_near": b.mass[row, near],
        "m_bb_hard": b.mass[row, hard],
        "m_bb_max": np.where(b.there, b.mass, 0.0).max(axis=1),
        "n_bb_higgs": (b.there & (np.abs(b.mass - M_HIGGS) < HIGGS_WINDOW)).sum(axis=1),
        "m_jj_near": any_two.mass[row, nearest],
        "deta_jj_max": np.where(any_two.there, any_two.deta, 0.0).max(axis=1),
        "dr_lepton_bb": _distance(lepton, b.momentum[row, near]),
        "chi2": np.log1p(found.chi2),
        "m_higgs": _mass(higgs),
        "pt_higgs": _pt(higgs),
        "dr_higgs": _distance(found.higgs[:, 0], found.higgs[:, 1]),
        "tags_higgs": found.tags,
        "m_higgs_top": _mass(higgs + found.leptonic),
        "dr_higgs_tt": _distance(higgs, found.hadronic + found.leptonic),
    }
    return np.stack([columns[name] for name in VARIABLES], axis=-1).astype(np.float32)


class _Pairs(NamedTuple):
    """All pairs of jets, (n, n_pairs)."""

    there: Mask
    momentum: FloatArray  # (n, n_pairs, 4)
    mass: FloatArray  # GeV
    pt: FloatArray  # GeV; -1 where there is none
    distance: FloatArray  # infinite where there is none
    deta: FloatArray


def _pairs(jets: FloatArray, wanted: Mask) -> _Pairs:
    one, other = np.triu_indices(jets.shape[1], k=1)
    there = wanted[:, one] & wanted[:, other]
    total = jets[:, one] + jets[:, other]
    with np.errstate(invalid="ignore"):  # zeros lie nowhere
        distance = _distance(jets[:, one], jets[:, other])
        deta = np.abs(_eta(jets[:, one]) - _eta(jets[:, other]))
    return _Pairs(
        there,
        total,
        _mass(total),
        np.where(there, _pt(total), -1.0),
        np.where(there, distance, np.inf),
        deta,
    )
