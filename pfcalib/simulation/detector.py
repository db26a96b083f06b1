"""The material that a shower crosses: slabs of dead material, gaps and layers with what the shower
kernels need to know of them.

The stack is that of the Geant4 reference slice (1.9 X0 of aluminium upstream, presampler,
lead-argon, 100 mm of aluminium, iron-scintillator); averages follow from the periods and from the
Particle Data Group's tables of atomic and nuclear properties.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.geometry import Grid

# visible energy in liquid argon to the EM scale, set on 10 GeV pi0 in the reference slice
LAR_SCALE = 5.44
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
    # e/mip of the parametrisation, 1 / (1 + 0.007 (Z_passive - Z_active))
    e_hat: NDArray[np.float64]
    # signal at the EM scale per energy lost by a minimum ionising particle
    mip_visible: NDArray[np.float64]


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


# Columns: x0, lambda, MeV/mm, critical energy in MeV, Moliere radius, Z, Fs, e_hat, visible signal
# of a mip.
_GAP = (_FAR, _FAR, 0.0, 1.0, 1.0, 13.0, 1.0, 1.0, 0.0)
_ALUMINIUM = (88.97, 468.0, 0.436, 42.7, 44.0, 13.0, 1.0, 1.0, 0.0)
_ARGON = (140.0, 1010.0, 0.212, 32.8, 90.4, 18.0, 1.0, 1.0, LAR_SCALE)
_LEAD_ARGON = (20.06, 455.0, 0.515, 10.3, 41.3, 59.0, 3.01, 0.69, LAR_SCALE * 0.2596)
_IRON_SCINTILLATOR = (21.07, 229.0, 0.977, 20.6, 21.7, 25.0, 1.22, 0.87, TILE_SCALE * 0.0355)


# mm, aluminium in front of the presampler and between EMB3 and TileBar0
_UPSTREAM, _BETWEEN = (FRONT, 1399.04), (2000.0, 2100.0)


def build_slabs(grid: Grid) -> Slabs:
    """The slabs of the reference slice with the layers of a grid in their places, gaps included.

    >>> from pfcalib.geometry import WINDOW
    >>> slabs = build_slabs(WINDOW)
    >>> bool(np.all(slabs.x_in[1:] == slabs.x_out[:-1])), round(float(1e3 * slabs.e_crit[4]), 1)
    (True, 10.3)
    """
    materials = [_ARGON, *3 * [_LEAD_ARGON], *3 * [_IRON_SCINTILLATOR]]
    full = [
        (layer.r_in, layer.r_out, i, material)
        for i, (layer, material) in enumerate(zip(grid.layers, materials, strict=True))
    ]
    full += [(*edges, -1, _ALUMINIUM) for edges in (_UPSTREAM, _BETWEEN)]
    full.sort(key=lambda slab: slab[0])
    gaps = [
        (before[1], after[0], -1, _GAP) for before, after in pairwise(full) if before[1] < after[0]
    ]
    slabs = sorted(full + gaps, key=lambda slab: slab[0])
    x_in, x_out, layer, material = zip(*slabs, strict=True)
    columns = np.array(material).T
    columns[2:4] *= 1e-3  # MeV to GeV
    return Slabs(
        np.array(x_in), np.array(x_out), np.array(layer), *(column.copy() for column in columns)
    )


def grid_arrays(grid: Grid) -> GridArrays:
    """The numbers of a grid as a tuple of arrays for numba."""
    n_eta, n_phi = (
        np.array([getattr(layer, name) for layer in grid.layers], dtype=np.int64)
        for name in ("n_eta", "n_phi")
    )
    d_eta, d_phi = (
        np.array([getattr(layer, name) for layer in grid.layers], dtype=np.float64)
        for name in ("d_eta", "d_phi")
    )
    return GridArrays(
        float(grid.eta_min),
        float(grid.phi_min),
        bool(grid.wraps),
        grid.offset,
        n_eta,
        n_phi,
        d_eta,
        d_phi,
    )
