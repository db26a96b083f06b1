"""Large jets and their grooming with FastJet: trimming (arXiv:0912.1342) and soft drop
(arXiv:1402.2657).

Constituents are awkward arrays of records px, py, pz, E in GeV, one list a jet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.particleflow.jets import Jets, _fastjet

FloatArray = NDArray[np.float64]

RADIUS = 1.0  # of the jets
SUBJET_RADIUS, MIN_SHARE = 0.2, 0.05  # of trimming
Z_CUT, BETA = 0.1, 0.0  # of soft drop
_NAMES = ("px", "py", "pz", "E")


class SoftDrop(NamedTuple):
    """What is left; arrays of shape (n_jets,)."""

    mass: FloatArray  # GeV
    z: FloatArray  # pT share of the softer one of the two that passed
    distance: FloatArray  # between them


def cluster(constituents: ak.Array, algorithm: str, radius: float) -> Any:
    """FastJet's sequence of each list of constituents, by "kt" or "cambridge"."""
    fastjet = _fastjet()
    definition = fastjet.JetDefinition(getattr(fastjet, f"{algorithm}_algorithm"), radius)
    return fastjet.ClusterSequence(constituents, definition)


def constituents_of(momentum: FloatArray, jets: Jets) -> ak.Array:
    """Constituents of jets.

    Parameters
    ----------
    momentum : ndarray, shape (n, 4), GeV
        px, py, pz, e of the inputs of `find_jets`.
    jets : Jets
    """
    rows = ak.to_numpy(ak.flatten(jets.constituents))
    columns = {name: momentum[rows, i] for i, name in enumerate(_NAMES)}
    return ak.unflatten(ak.zip(columns), ak.num(jets.constituents))


def total(momenta: ak.Array) -> FloatArray:
    """Sum of each list of four-momenta: px, py, pz, e, shape (n, 4)."""
    return np.stack([ak.to_numpy(ak.sum(momenta[name], axis=1)) for name in _NAMES], axis=-1)


def pt_eta_phi_mass(momentum: FloatArray) -> FloatArray:
    """Of px, py, pz, e, shape (n, 4); the mass is never below 0.

    >>> pt_eta_phi_mass(np.array([[3.0, 4.0, 0.0, 13.0]])).round(3)
    array([[ 5.   ,  0.   ,  0.927, 12.   ]])
    """
    px, py, pz, e = momentum.T
    pt = np.hypot(px, py)
    mass = np.sqrt(np.maximum(e**2 - pt**2 - pz**2, 0.0))
    return np.stack([pt, np.arcsinh(pz / pt), np.arctan2(py, px), mass], axis=-1)


def trim(
    constituents: ak.Array, *, radius: float = SUBJET_RADIUS, min_share: float = MIN_SHARE
) -> tuple[ak.Array, ak.Array]:
    """Jets without the kt subjets of less than a share of their pT.

    Parameters
    ----------
    constituents : awkward.Array
    radius : float
        Of the subjets.
    min_share : float

    Returns
    -------
    constituents, subjets : awkward.Array
        What is kept, the subjets as px, py, pz, E by falling pT.
    """
    sequence = cluster(constituents, "kt", radius)
    subjets, members = sequence.inclusive_jets(0.0), sequence.constituent_index(0.0)
    whole = np.hypot(*total(constituents)[:, :2].T)
    pt = np.hypot(subjets.px, subjets.py)
    kept = pt > min_share * whole
    rows = ak.flatten(members[kept], axis=2)
    order = ak.argsort(pt[kept], ascending=False)
    return constituents[rows], subjets[kept][order]


def soft_drop(constituents: ak.Array, *, z_cut: float = Z_CUT, beta: float = BETA) -> SoftDrop:
    """Jets declustered by angle until the softer branch has a share above z_cut (distance /
    RADIUS)^beta.
    """
    # one jet holds all, whatever its radius
    found = cluster(constituents, "cambridge", 10.0).exclusive_jets_softdrop_grooming(
        njets=1, beta=beta, symmetry_cut=z_cut, R0=RADIUS
    )
    columns: Sequence[Any] = (found.msoftdrop, found.symmetrysoftdrop, found.deltaRsoftdrop)
    return SoftDrop(*(np.maximum(np.asarray(ak.to_numpy(x), dtype=float), 0.0) for x in columns))
