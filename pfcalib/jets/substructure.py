"""Quantities of the inside of a jet: energy correlators, subjettiness, splitting scales.

The correlators e2, e3 of arXiv:1305.0007 with beta = 1 give C2 = e3 / e2^2 and D2 = e3 / e2^3
(arXiv:1409.6298); subjettiness tau_N is that of arXiv:1011.2268 with the axes of exclusive kt jets
by the winner that takes all. FastJet computes them.
"""

from __future__ import annotations

import warnings

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.jets.grooming import RADIUS, cluster, pt_eta_phi_mass, soft_drop, total

FloatArray = NDArray[np.float64]

QUANTITIES = (
    *("pt", "eta", "phi", "mass", "n_constituents", "c2", "d2", "e2", "tau21", "tau32"),
    *("d12", "d23", "q_w", "mass_soft_drop", "z_soft_drop", "r_soft_drop"),
)


def substructure(constituents: ak.Array, ungroomed: ak.Array) -> dict[str, FloatArray]:
    """QUANTITIES of jets, each of shape (n_jets,); 0 where a jet has too few constituents.

    Parameters
    ----------
    constituents : awkward.Array
        Records px, py, pz, E in GeV of the groomed jet, at least one.
    ungroomed : awkward.Array
        Of the jet before, of which soft drop is made.

    Returns
    -------
    dict
        ``mass`` and what begins so, ``pt``, ``q_w`` (the smallest mass of two of three subjets) and
        the splitting scales ``d12``, ``d23`` (square roots) in GeV.
    """
    pt, eta, phi, mass = pt_eta_phi_mass(total(constituents)).T
    sequence = cluster(constituents, "kt", RADIUS)
    n = ak.to_numpy(ak.num(constituents))
    found = {"pt": pt, "eta": eta, "phi": phi, "mass": mass, "n_constituents": n.astype(float)}

    def correlator(name: str) -> FloatArray:
        values = sequence.exclusive_jets_energy_correlator(njets=1, beta=1.0, func=name)
        return _finite(values, n > 2)

    found["c2"], found["d2"] = correlator("C2"), correlator("D2")
    # C2 / D2 is e2
    found["e2"] = np.divide(found["c2"], found["d2"], out=np.zeros(len(n)), where=found["d2"] > 0.0)
    tau = ak.to_numpy(
        sequence.njettiness(
            measure_definition="NormalizedMeasure",
            axes_definition="WTA_KT_Axes",
            njets=[1, 2, 3],
            beta=1.0,
            R0=RADIUS,
        )
    )
    for i, name in ((0, "tau21"), (1, "tau32")):
        full = (n > i + 1) & (tau[:, i] > 0.0)
        found[name] = np.divide(tau[:, i + 1], tau[:, i], out=np.zeros(len(n)), where=full)
    for i, name in ((1, "d12"), (2, "d23")):
        found[name] = np.sqrt(_finite(sequence.exclusive_dmerge(i), n > i)) * RADIUS
    with warnings.catch_warnings(action="ignore"):  # FastJet's wheel warns of kt as of any other
        found["q_w"] = _smallest_pair_mass(sequence.exclusive_jets_up_to(3))
    dropped = soft_drop(ungroomed)
    found |= {f"{name}_soft_drop": x for name, x in zip("mzr", dropped, strict=True)}
    found["mass_soft_drop"] = found.pop("m_soft_drop")
    return found


def _finite(values: ak.Array, where: NDArray[np.bool_]) -> FloatArray:
    numbers = np.asarray(ak.to_numpy(values), dtype=np.float64)
    return np.where(where & np.isfinite(numbers), np.maximum(numbers, 0.0), 0.0)


def _smallest_pair_mass(subjets: ak.Array) -> FloatArray:
    """Of lists of four-momenta in GeV, 0 where there are fewer than two."""
    a, b = ak.unzip(ak.combinations(subjets, 2))
    e, px, py, pz = (a[name] + b[name] for name in ("E", "px", "py", "pz"))
    squared = ak.fill_none(ak.min(e**2 - px**2 - py**2 - pz**2, axis=1), 0.0)
    return np.asarray(np.sqrt(np.maximum(ak.to_numpy(squared), 0.0)))
