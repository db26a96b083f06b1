"""The matrix element of g g -> H H at leading order, through loops of top quarks of finite mass.

Triangle and box as in hep-ph/9603205 (Plehn, Spira and Zerwas), appendix A; Pythia has no such
process. In the limit of a heavy top quark the form factors are 2/3, -2/3 and 0, which cancel at
threshold, but the mass of the pair that follows is much too hard: so the loops are kept.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RectBivariateSpline

M_HIGGS, M_TOP = 125.0, 173.0  # GeV
G_FERMI = 1.1663787e-5  # GeV^-2
N_NODES, N_CROSSED = 64, 12  # of a Feynman parameter
# steps into the first sheet at which an integral is taken, and from which it is extrapolated
STEPS = np.linspace(0.15, 0.9, 8)
# where the table begins and ends: its first s over that at threshold, its last s over m_top^2, and
# the square of the cosine; at threshold and along the beam two large terms of G cancel
FIRST_S, LAST_S, LAST_COS2 = 1.03, 120.0, 0.97
N_MASSES, N_ANGLES = 32, 5  # of the table
_COS2 = np.linspace(0.0, LAST_COS2, N_ANGLES)

ComplexArray = NDArray[np.complex128]


def form_factors(
    s: ArrayLike, t: ArrayLike, *, m_higgs: float = M_HIGGS, m_top: float = M_TOP
) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
    """Form factors of the triangle and, for gluons of equal and of opposite helicity, of the boxes.

    Parameters
    ----------
    s, t : array_like, shape (n,), GeV^2
        Mandelstam variables; s above 4 m_higgs^2.
    m_higgs, m_top : float, GeV

    Returns
    -------
    tuple of ndarray, shape (n,)
        F of the triangle, F and G of the boxes.
    """
    big_s, big_t = np.asarray(s) / m_top**2, np.asarray(t) / m_top**2
    rho = (m_higgs / m_top) ** 2
    big_u = 2.0 * rho - big_s - big_t
    t1, u1, tu = big_t - rho, big_u - rho, big_t * big_u - rho**2
    c_ab = _triangle(big_s) / big_s
    c_ac, c_bc = ((_triangle(x) - _triangle(rho)) / (x - rho) for x in (big_t, big_u))
    c_cd = _extrapolate(lambda z: _triangle_integral(z, rho), big_s)
    d_abc, d_bac = (
        _extrapolate(lambda z, x=x: _box_integral(z, rho, x[..., None]), big_s)
        for x in (big_u, big_t)
    )
    d_acb = _crossed_integral(big_t[..., None], rho, big_u[..., None])
    boxes = d_abc + d_bac + d_acb
    sides = 2.0 * (t1 * c_ac + u1 * c_bc)  # legs of equal mass
    triangle = 2.0 / big_s * (2.0 + (4.0 - big_s) * c_ab)
    equal = (
        4.0 * big_s
        + 8.0 * big_s * c_ab
        - 2.0 * big_s * (big_s + 2.0 * rho - 8.0) * boxes
        + (2.0 * rho - 8.0) * (sides - tu * d_acb)
    ) / big_s**2
    opposite = (
        (big_t**2 + rho**2 - 8.0 * big_t) * (big_s * c_ab + 2.0 * t1 * c_ac - big_s * big_t * d_bac)
        + (big_u**2 + rho**2 - 8.0 * big_u)
        * (big_s * c_ab + 2.0 * u1 * c_bc - big_s * big_u * d_abc)
        - (big_t**2 + big_u**2 - 2.0 * rho**2) * (big_t + big_u - 8.0) * c_cd
        - 2.0 * (big_t + big_u - 8.0) * tu * boxes
    ) / (big_s * tu)
    return triangle, equal, opposite


def squared(s: ArrayLike, t: ArrayLike, *, self_coupling: float = 1.0, **masses: float) -> Any:
    """Square of the amplitude, shape (n,): |k C F_triangle + F_box|^2 + |G_box|^2 with
    C = 3 m_H^2 / (s - m_H^2) and k the self-coupling in units of that of the standard model.
    """
    m2 = masses.get("m_higgs", M_HIGGS) ** 2
    pole = 3.0 * m2 / (np.asarray(s) - m2)
    return _square(form_factors(s, t, **masses), self_coupling * pole)


def _square(factors: tuple[ComplexArray, ComplexArray, ComplexArray], pole: Any) -> Any:
    triangle, equal, opposite = factors
    return np.abs(pole * triangle + equal) ** 2 + np.abs(opposite) ** 2


@functools.cache
def squared_table(self_coupling: float = 1.0) -> RectBivariateSpline:
    """`squared` as a function of ln(s / 4 m_H^2) and of the square of the cosine of the angle of a
    Higgs boson in the centre of mass; beyond its ends it stays what it is there.
    """
    s, factors = _tabulated()
    pole = 3.0 * M_HIGGS**2 / (s - M_HIGGS**2)
    values = _square(factors, self_coupling * pole[:, None])
    return RectBivariateSpline(np.log(s / (4.0 * M_HIGGS**2)), _COS2, values)


@functools.cache
def _tabulated() -> tuple[Any, tuple[ComplexArray, ComplexArray, ComplexArray]]:
    """s of the table, (N_MASSES,), and the form factors, each (N_MASSES, N_ANGLES)."""
    low = 4.0 * M_HIGGS**2
    s = np.geomspace(FIRST_S * low, LAST_S * M_TOP**2, N_MASSES)
    rows = []
    for each in s:
        t = M_HIGGS**2 - 0.5 * each * (1.0 - np.sqrt(_COS2 * (1.0 - low / each)))
        rows.append(form_factors(np.full_like(t, each), t))
    triangle, equal, opposite = (np.array(factor) for factor in zip(*rows, strict=True))
    return s, (triangle, equal, opposite)


def pair_angle2(s: ArrayLike, t: ArrayLike) -> Any:
    """Square of the cosine of the angle of a Higgs boson in the centre of mass, shape (n,)."""
    s = np.asarray(s)
    beta2 = np.maximum(1.0 - 4.0 * M_HIGGS**2 / s, 1e-9)
    return (1.0 - 2.0 * (M_HIGGS**2 - np.asarray(t)) / s) ** 2 / beta2


def sigma_hat(s: float, t: float, alpha_s: float) -> float:
    """Cross section of gluons dsigma/dt in GeV^-4 by hep-ph/9603205, halved as the two bosons are
    the same: G_F^2 alpha_s^2 / (512 (2 pi)^3) times `squared`, from its table.
    """
    value = squared_table().ev(np.log(s / (4.0 * M_HIGGS**2)), pair_angle2(s, t))
    return float(G_FERMI**2 * alpha_s**2 / (512.0 * (2.0 * np.pi) ** 3) * value)


def _triangle(x: ArrayLike) -> ComplexArray:
    """C_0 of two massless legs and one of mass^2 x, times x, in units of the loop's mass: half of
    the square of ln((beta + 1) / (beta - 1)).
    """
    beta = np.sqrt(1.0 - 4.0 / (np.asarray(x) + 1e-9j * np.abs(x)))
    return np.asarray(0.5 * np.log((beta + 1.0) / (beta - 1.0)) ** 2)


def _extrapolate(integral: Any, big_s: NDArray[np.float64]) -> ComplexArray:
    """An integral at s + i0 from its values within the first sheet.

    In w = sqrt(4 - s) it is regular at threshold, and the first sheet is Re w > 0: it is taken at
    w + STEPS, where what is integrated is smooth, and the polynomial through these is followed
    back.
    """
    w = np.sqrt(4.0 - big_s - 1e-12j)
    ratio = STEPS[:, None] - STEPS[None, :]
    np.fill_diagonal(ratio, 1.0)
    lagrange = np.prod(np.where(np.eye(len(STEPS)), 1.0, -STEPS / ratio), axis=1)
    size = np.sqrt(1.0 + np.abs(w) ** 2)
    values = [integral((4.0 - (w + step * size) ** 2)[..., None]) for step in STEPS]
    return np.asarray(lagrange @ np.asarray(values))


@functools.cache
def _nodes(n_dimensions: int, n_nodes: int) -> tuple[NDArray[np.float64], ...]:
    """Points of Gauss and Legendre in the unit cube, one array an axis, and their weights."""
    node, weight = np.polynomial.legendre.leggauss(n_nodes)
    axes = np.meshgrid(*[0.5 * (node + 1.0)] * n_dimensions, indexing="ij")
    weights = functools.reduce(np.multiply.outer, [0.5 * weight] * n_dimensions)
    return (*(axis.ravel() for axis in axes), weights.ravel())


def _inner(a: Any, c: Any) -> tuple[Any, Any]:
    """Integrals over x from 0 to 1 of 1 / D and 1 / D^2, D = a - c x (1 - x)."""
    r = np.sqrt(1.0 - 4.0 * a / c)
    log = np.log((r + 1.0) / (r - 1.0)) / r
    return -2.0 / c * log, 4.0 / (c * r) ** 2 * (2.0 / (r**2 - 1.0) + log)


def _triangle_integral(a: Any, rho: float) -> ComplexArray:
    """C_0 of two Higgs bosons, with mass^2 a of both, in units of the loop's mass.

    The Feynman parameters are f x, f (1 - x) and 1 - f.
    """
    f, weight = _nodes(1, N_NODES)
    first, _ = _inner(1.0 - rho * f * (1.0 - f), a * f**2)
    return np.asarray(-(weight * f * first).sum(axis=-1))


def _box_integral(a: Any, rho: float, b: Any) -> ComplexArray:
    """D_0 of invariants a and b whose Higgs bosons are next to each other, seen by a.

    The Feynman parameters are f x, f (1 - x), (1 - f) y and (1 - f) (1 - y).
    """
    f, y, weight = _nodes(2, N_NODES)
    k = 1.0 - f
    _, second = _inner(1.0 - b * k**2 * y * (1.0 - y) - rho * f * k * y, a * f**2)
    return np.asarray((weight * f * k * second).sum(axis=-1))


def _crossed_integral(a: Any, rho: float, b: Any) -> NDArray[np.float64]:
    """D_0 of negative invariants a and b whose Higgs bosons are opposite."""
    f, x, y, weight = _nodes(3, N_CROSSED)
    k = 1.0 - f
    masses = rho * f * k * (x * y + (1.0 - x) * (1.0 - y))
    d = 1.0 - a * f**2 * x * (1.0 - x) - b * k**2 * y * (1.0 - y) - masses
    return np.asarray((weight * f * k / d**2).sum(axis=-1))
