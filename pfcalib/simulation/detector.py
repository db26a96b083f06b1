"""The material that a shower crosses: slabs of dead material, gaps and layers with what the shower kernels need to know of them.

The stack is that of the Geant4 reference slice (1.9 X0 of aluminium upstream, presampler, lead-argon, 100 mm of aluminium, iron-scintillator);
averages follow from the periods and from the Particle Data Group's tables of atomic and nuclear properties.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.geometry import Grid

LAR_SCALE = 5.44  # visible energy in liquid argon to the EM scale, set on 10 GeV pi0 in the reference slice
TILE_SCALE = 32.0  # visible energy in scintillator to the EM scale
COIL_RADIUS = 1200.0  # mm, up to which the solenoid bends
FRONT = 1230.0  # mm, where the upstream material begins
_FAR = 1.0e9


class Slabs(NamedTuple):
    """Consecutive slabs in depth x, each entry of shape (n_slabs,); numba takes it as it is."""

    x_in: NDArray[np.float64]  # mm
    x_out: NDArray[np.float64]  # mm
    layer: NDArray[np.int64]  # index of the layer, -1 for dead material and gaps
    x0: NDArray[np.float64]  # mm
    lambda_int: NDArray[np.float64]  # mm, for pions (about 1.18 of the nuclear interaction length)
    de_dx: NDArray[np.float64]  # GeV/mm of a minimum ionising particle
    e_crit: NDArray[np.float64]  # GeV
    moliere: NDArray[np.float64]  # mm
    z_eff: NDArray[np.float64]
    f_s: NDArray[np.float64]  # sampling frequency X0 / (d_passive + d_active)
    e_hat: NDArray[np.float64]  # e/mip of the parametrisation, 1 / (1 + 0.007 (Z_passive - Z_active))
    mip_visible: NDArray[np.float64]  # signal at the EM scale per energy lost by a minimum ionising particle


class GridArrays(NamedTuple):
    """The numbers of a grid that a kernel needs to find a cell."""

    eta_min: float
    phi_min: float
    wraps: bool
    offset: NDArray[np.int64]
    n_eta: NDArray[np.int64]
    n_phi: NDArray[np.int64]
    d_eta: NDArray[np.float64]
    d_phi: NDArray[np.float64]


#          x0      lambda  MeV/mm  Ec MeV  R_M    Z     Fs    ehat  mip visible
_GAP = (_FAR, _FAR, 0.0, 1.0, 1.0, 13.0, 1.0, 1.0, 0.0)
_ALUMINIUM = (88.97, 468.0, 0.436, 42.7, 44.0, 13.0, 1.0, 1.0, 0.0)
_ARGON = (140.0, 1010.0, 0.212, 32.8, 90.4, 18.0, 1.0, 1.0, LAR_SCALE)
_LEAD_ARGON = (20.06, 455.0, 0.515, 10.3, 41.3, 59.0, 3.01, 0.69, LAR_SCALE * 0.2596)
_IRON_SCINTILLATOR = (21.07, 229.0, 0.977, 20.6, 21.7, 25.0, 1.22, 0.87, TILE_SCALE * 0.0355)


def build_slabs(grid: Grid) -> Slabs:
    """The slabs of the reference slice with the layers of a grid in their places."""
    layers = grid.layers
    material = [_ARGON] + 3 * [_LEAD_ARGON] + 3 * [_IRON_SCINTILLATOR]
    rows: list[tuple[float, float, int, tuple[float, ...]]] = [(FRONT, 1399.04, -1, _ALUMINIUM)]
    for i, layer in enumerate(layers):
        rows.append((layer.r_in, layer.r_out, i, material[i]))
        if layer.name == "EMB3":
            rows.append((2000.0, 2100.0, -1, _ALUMINIUM))
    filled: list[tuple[float, float, int, tuple[float, ...]]] = []
    for row in rows:
        if filled and row[0] > filled[-1][1]:
            filled.append((filled[-1][1], row[0], -1, _GAP))
        filled.append(row)
    columns = np.array([row[3] for row in filled]).T
    columns[2:4] *= 1e-3  # MeV to GeV
    edges = np.array([row[:2] for row in filled]).T
    return Slabs(edges[0].copy(), edges[1].copy(), np.array([row[2] for row in filled]), *(column.copy() for column in columns))


def grid_arrays(grid: Grid) -> GridArrays:
    """The numbers of a grid as a tuple of arrays for numba."""
    values = [[getattr(layer, name) for layer in grid.layers] for name in ("n_eta", "n_phi", "d_eta", "d_phi")]
    integers = [np.array(v, dtype=np.int64) for v in values[:2]]
    floats = [np.array(v, dtype=np.float64) for v in values[2:]]
    return GridArrays(float(grid.eta_min), float(grid.phi_min), bool(grid.wraps), grid.offset, *integers, *floats)
