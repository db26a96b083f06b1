"""Helices in a solenoid: where they come closest to the beam, and where they cross cylinders.

A track is a circle of radius R = pT / (0.3 q B) across the beam. Its perigee is the point nearest
to the beam, (x, y) = d0 (-sin phi, cos phi), with phi and z0 taken there. All formulas are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

FIELD = 2.0  # tesla, along the beam
_RADIUS = 1e3 / 0.299792458  # mm of radius for a GeV and a tesla


class Perigee(NamedTuple):
    """Of tracks, each of shape (n,)."""

    d0: FloatArray  # mm
    z0: FloatArray  # mm
    phi: FloatArray  # rad
    cot_theta: FloatArray
    pt: FloatArray  # GeV
    charge: FloatArray


def perigee(
    position: FloatArray, momentum: FloatArray, charge: ArrayLike, *, field: float = FIELD
) -> Perigee:
    """Perigee of charged particles.

    Parameters
    ----------
    position : ndarray, shape (n, 3), mm
        Of a point on each track.
    momentum : ndarray, shape (n, 3), GeV
        There.
    charge : array_like, shape (n,)
        Plus or minus one.
    field : float, tesla
    """
    px, py, pz = momentum.T
    q = np.asarray(charge, dtype=np.float64)
    pt = np.hypot(px, py)
    radius = _RADIUS * pt / field
    # the centre lies to the right of a positive particle
    cx, cy = position[:, 0] + q * radius * py / pt, position[:, 1] - q * radius * px / pt
    distance = np.hypot(cx, cy)
    phi = np.arctan2(q * cx, -q * cy)
    turned = np.remainder(phi - np.arctan2(py, px) + np.pi, 2.0 * np.pi) - np.pi
    return Perigee(
        d0=q * (radius - distance),
        z0=position[:, 2] - q * radius * turned * pz / pt,
        phi=phi,
        cot_theta=pz / pt,
        pt=pt,
        charge=q,
    )


@njit(cache=True)
def point_at(
    d0: float, z0: float, phi: float, cot_theta: float, curvature: float, s: float
) -> tuple[float, float, float, float, float]:
    """Position (mm) and transverse direction of a track after an arc s (mm) from its perigee; the
    curvature is q / R (1/mm).
    """
    x, y = -d0 * np.sin(phi), d0 * np.cos(phi)
    turn = curvature * s
    ux, uy = np.cos(phi - turn), np.sin(phi - turn)
    half = 0.5 * turn
    chord = s if abs(half) < 1e-12 else s * np.sin(half) / half
    x += chord * np.cos(phi - half)
    y += chord * np.sin(phi - half)
    return x, y, z0 + s * cot_theta, ux, uy


@njit(cache=True)
def arc_at_radius(d0: float, curvature: float, r: float) -> float:
    """Arc (mm) from the perigee to the first crossing of a cylinder; NaN where there is none."""
    if r < abs(d0):
        return np.nan
    # chord^2 = (r^2 - d0^2) / (1 - k d0), chord = 2 sin(k s / 2) / k
    below = 1.0 - curvature * d0
    if below <= 0.0:
        return np.nan
    chord = np.sqrt((r * r - d0 * d0) / below)
    half = 0.5 * abs(curvature) * chord
    if half > 1.0:
        return np.nan
    return chord if half < 1e-9 else 2.0 * np.arcsin(half) / abs(curvature)


def curvature(pt: ArrayLike, charge: ArrayLike, *, field: float = FIELD) -> FloatArray:
    """q / R, 1/mm, from transverse momenta (GeV)."""
    return np.asarray(charge) * field / (_RADIUS * np.asarray(pt, dtype=np.float64))
