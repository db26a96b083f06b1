"""Cross sections from public formulas, in the units of Geant4's data files: the stand-ins for
evaluated data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 1.0 / 137.036
ELECTRON_MASS = 0.51099895  # MeV
ELECTRON_RADIUS = 2.8179403e-13  # cm
_BARN = 1e-24  # cm2
THERMAL = 2.53e-8  # MeV, 0.0253 eV
# Inelastic and elastic cross sections of neutrons at 20 MeV in barn, Glauber-Gribov: V. M.
# Grichine, Eur. Phys. J. C 62 (2009) 399.
# Geant4 itself takes that formula above 20 MeV, so that tables and formula join there.
GLAUBER_GRIBOV = {
    1: (0.0, 0.422),
    6: (0.676, 0.432),
    7: (0.752, 0.481),
    8: (0.825, 0.561),
    13: (0.930, 0.727),
    18: (1.141, 0.899),
    26: (1.398, 1.155),
    29: (1.517, 1.266),
    82: (3.180, 2.792),
}
# Capture of thermal neutrons in barn: V. F. Sears, Neutron News 3 (1992) 26 (natural composition;
# of nitrogen the radiative part).
THERMAL_CAPTURE = {
    1: 0.3326,
    6: 0.0035,
    7: 0.075,
    8: 0.00019,
    13: 0.231,
    18: 0.675,
    26: 2.56,
    29: 3.78,
    82: 0.171,
}


def bremsstrahlung(z: int, kinetic: float, fractions: ArrayLike) -> NDArray[np.float64]:
    """Scaled cross section (beta^2 / Z^2) k dsigma/dk of an electron in mb, as Seltzer and Berger
    tabulate it.

    Bethe-Heitler with the screening functions of Thomas and Fermi and the Coulomb correction: Y.-S.
    Tsai, Rev. Mod. Phys. 46 (1974) 815, eqs. 3.38 to 3.41; hydrogen in complete screening with the
    logarithms 5.3104 and 5.9173 of Geant4's Physics Reference Manual. Layout: S. M. Seltzer and M.
    J. Berger, Nucl. Instrum. Meth. B 12 (1985) 95.

    Parameters
    ----------
    z : int
    kinetic : float, MeV
        Kinetic energy of the electron.
    fractions : array_like, shape (n,)
        Energy of the photon over `kinetic`, 0 to 1.

    Returns
    -------
    ndarray, shape (n,), float64
    """
    energy = kinetic + ELECTRON_MASS
    photon = np.minimum(np.asarray(fractions, dtype=np.float64), 0.9999) * kinetic
    y = photon / energy
    shape = 1.0 - y + 0.75 * y * y
    coulomb, log_z = coulomb_correction(z), np.log(z)
    if z == 1:
        value = shape * (5.3104 - coulomb + 5.9173) + (1.0 - y) / 6.0
    else:
        phi, phi_difference, psi, psi_difference = _screening(
            z, 100.0 * ELECTRON_MASS * y / (energy - photon)
        )
        atom = 0.25 * phi - log_z / 3.0 - coulomb + (0.25 * psi - 2.0 * log_z / 3.0) / z
        value = shape * atom + 0.125 * (1.0 - y) * (phi_difference + psi_difference / z)
    beta2 = kinetic * (kinetic + 2.0 * ELECTRON_MASS) / energy**2
    return 16.0 / 3.0 * ALPHA * ELECTRON_RADIUS**2 / _BARN * 1e3 * beta2 * np.maximum(value, 0.05)


def coulomb_correction(z: int) -> float:
    """f_c of H. Davies, H. A. Bethe and L. C. Maximon, Phys. Rev. 93 (1954) 788, in Tsai's
    approximation (eq. 3.3).

    >>> round(coulomb_correction(82), 2)
    0.33
    """
    a2 = (ALPHA * z) ** 2
    return a2 * (1.0 / (1.0 + a2) + 0.20206 - 0.0369 * a2 + 0.0083 * a2**2 - 0.002 * a2**3)


def _screening(z: int, delta: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """phi_1, phi_1 - phi_2, psi_1, psi_1 - psi_2 of Tsai's eqs. 3.38 to 3.41; gamma = delta /
    Z^(1/3), epsilon = delta / Z^(2/3).
    """
    gamma, epsilon = delta / z ** (1.0 / 3.0), delta / z ** (2.0 / 3.0)
    phi = (
        16.863
        - 2.0 * np.log1p(0.311877 * gamma**2)
        + 2.4 * np.exp(-0.9 * gamma)
        + 1.6 * np.exp(-1.5 * gamma)
    )
    psi = (
        24.34
        - 2.0 * np.log1p(13.111641 * epsilon**2)
        + 2.8 * np.exp(-8.0 * epsilon)
        + 1.2 * np.exp(-29.2 * epsilon)
    )
    return (
        phi,
        2.0 / (3.0 + 19.5 * gamma + 18.0 * gamma**2),
        psi,
        2.0 / (3.0 + 120.0 * epsilon + 1200.0 * epsilon**2),
    )


def photoelectric(
    energy: ArrayLike, edges: ArrayLike, coefficients: ArrayLike
) -> NDArray[np.float64]:
    """Cross section sum_j a_j / E^j of an atom, j = 1 to 4: F. Biggs and R. Lighthill, Sandia
    report SAND87-0070 (1990).

    Parameters
    ----------
    energy : array_like, shape (n,), MeV
    edges : array_like, shape (n_intervals,), MeV
        Lower ends of the intervals, rising; below the first its coefficients are taken.
    coefficients : array_like, shape (n_intervals, 4)
        Of each interval, in units of the result times MeV^j.

    Returns
    -------
    ndarray, shape (n,)

    >>> photoelectric([0.5, 2.0], [0.1, 1.0], [[1.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])
    array([2., 1.])
    """
    energy = np.asarray(energy, dtype=np.float64)
    interval = np.maximum(np.searchsorted(np.asarray(edges), energy, side="right") - 1, 0)
    powers = energy[:, None] ** -np.arange(1.0, 5.0)
    return (np.asarray(coefficients, dtype=np.float64)[interval] * powers).sum(axis=1)


def neutron_inelastic(z: int, mass: float, energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barn: the Glauber-Gribov value at 20 MeV, brought down smoothly at the first excited levels,
    about 1.5 MeV, to zero at 0.3 MeV.

    Elements without a value take 0.183 A^0.51, a fit to those that have one; `mass` is A, `energy`
    in MeV.
    """
    plateau = GLAUBER_GRIBOV[z][0] if z in GLAUBER_GRIBOV else 0.1833 * mass**0.5139
    return np.where(energy > 0.3, plateau / (1.0 + np.exp(-(energy - 1.5) / 0.4)), 0.0)


def neutron_elastic(z: int, mass: float, energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barn: the Glauber-Gribov value at 20 MeV at all energies; hydrogen 20.4 / (1 + E / 0.6
    MeV)^1.1.

    The latter joins the 20.4 b of slow neutrons (S. F. Mughabghab, Atlas of Neutron Resonances,
    2006) to 0.42 b at 20 MeV.
    """
    if z == 1:
        return 20.4 / (1.0 + energy / 0.6) ** 1.1
    plateau = GLAUBER_GRIBOV[z][1] if z in GLAUBER_GRIBOV else 0.0885 * mass**0.6418
    return np.full_like(energy, plateau)


def neutron_capture(z: int, energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barn: the thermal value falling as 1 / v; 0.5 barn where none is listed. `energy` in MeV.

    >>> round(float(neutron_capture(26, np.array([4.0 * THERMAL]))[0]), 6)
    1.28
    """
    return THERMAL_CAPTURE.get(z, 0.5) * np.sqrt(THERMAL / energy)
