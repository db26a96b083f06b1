"""Rings around a track and the layer of highest energy density: how particle flow orders cells
(arXiv:1703.10485, sections 6.1 and 6.4; settings as in public ATLAS software).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.columns import LAYER_NAMES, SAMPLINGS
from pfcalib.geometry import BARREL
from pfcalib.samples.schema import CellGeo
from pfcalib.simulation.detector import build_slabs

# widths dR of the rings: presampler as EMB1, then EMB1-3 and the three layers of tiles
RING_WIDTHS = np.array([0.0491122, 0.0491122, 0.0175171, 0.0278496, 0.0700683, 0.0700683, 0.111398])
N_RINGS = 24  # of a layer; what lies further out counts to the last
N_LAYERS = len(LAYER_NAMES)
DENSITY_RADIUS = 0.032  # width of the Gaussian around the track that weights cells
_WINDOW = 3.0  # widths beyond which a cell does not count
X0_PER_MM = np.array([47.45e-3] * 4 + [44.44e-3] * 3)  # averages of public reconstruction code
_SQRT2 = math.sqrt(2.0)


class RingCells(NamedTuple):
    """Cells as the kernels of particle flow read them; one entry a row of the geometry."""

    layer: NDArray[np.int64]  # place in LAYER_NAMES; -1 for cells of other calorimeters
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]  # rad
    d_eta: NDArray[np.float64]
    d_phi: NDArray[np.float64]  # rad
    volume: NDArray[np.float64]  # in cubes of a radiation length
    # (n_layers,) interaction lengths from the beam to the back of each layer, with dead material
    depth: NDArray[np.float64]


def ring_cells(geo: CellGeo) -> RingCells:
    """The cells of a file for the kernels.

    Parameters
    ----------
    geo : CellGeo
    """
    place = np.full(len(SAMPLINGS), -1)
    place[[SAMPLINGS.index(name) for name in LAYER_NAMES]] = np.arange(N_LAYERS)
    known = (geo.sampling >= 0) & (geo.sampling < len(SAMPLINGS))
    layer = np.where(known, place[np.where(known, geo.sampling, 0)], -1).astype(np.int64)
    eta, phi, d_eta, d_phi = (
        getattr(geo, name).astype(np.float64) for name in ("eta", "phi", "deta", "dphi")
    )
    volume = geo.volume.astype(np.float64) * X0_PER_MM[np.maximum(layer, 0)] ** 3
    slabs = build_slabs(BARREL)
    behind = np.cumsum((slabs.x_out - slabs.x_in) / slabs.lambda_int)
    depth = np.array([behind[slabs.layer == i][0] for i in range(N_LAYERS)])
    return RingCells(layer, eta, phi, d_eta, d_phi, volume, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def phi_between(a: float, b: float) -> float:
    """a - b, brought into -pi to pi."""
    d = a - b
    return d - 2.0 * math.pi * math.floor((d + math.pi) / (2.0 * math.pi))


@njit(cache=True, nogil=True, error_model="numpy")
def distance_to(
    cells: RingCells, cell: int, eta_at: NDArray[np.float64], phi_at: NDArray[np.float64]
) -> float:
    """dR of a cell from a track where it crosses the layer of the cell; infinite for cells of no
    layer and where the track does not reach it.
    """
    layer = cells.layer[cell]
    if layer < 0 or not math.isfinite(eta_at[layer]) or not math.isfinite(phi_at[layer]):
        return np.inf
    return math.hypot(cells.eta[cell] - eta_at[layer], phi_between(cells.phi[cell], phi_at[layer]))


@njit(cache=True, nogil=True, error_model="numpy")
def ring_of(layer: int, distance: float) -> int:
    """Ring of a layer, counted from the track; N_RINGS - 1 for all further out."""
    ring = distance / RING_WIDTHS[layer]
    return int(ring) if ring < N_RINGS - 1 else N_RINGS - 1


@njit(cache=True, nogil=True, error_model="numpy")
def densest_layer(
    cells: RingCells,
    cell: NDArray[np.int64],
    energy: NDArray[np.float64],
    eta_at: NDArray[np.float64],
    phi_at: NDArray[np.float64],
) -> int:
    """Layer of highest energy density, LHED: where the density rises most with depth.

    The density of a layer is the sum over cells of E / V, V in cubes of a radiation length, each
    weighted by the integral over the cell of a Gaussian of width DENSITY_RADIUS around the track.
    Its rise is the difference to the layer before over that of their depths in interaction lengths,
    from 0 and 0 in front (arXiv:1703.10485, section 6.3). The presampler has no part.

    Parameters
    ----------
    cells : RingCells
    cell, energy : ndarray, shape (n,)
        Rows of the cells of the clusters near the track, and their energies in GeV.
    eta_at, phi_at : ndarray, shape (n_layers,)
        The track at each layer.

    Returns
    -------
    int
        Place in LAYER_NAMES; that of EMB2 where no cell lies near the track.
    """
    density = np.zeros(N_LAYERS)
    window = _WINDOW * DENSITY_RADIUS
    for i in range(len(cell)):
        c = cell[i]
        layer = cells.layer[c]
        if layer < 1 or not math.isfinite(eta_at[layer]) or not math.isfinite(phi_at[layer]):
            continue
        d_eta = cells.eta[c] - eta_at[layer]
        d_phi = phi_between(cells.phi[c], phi_at[layer])
        half_eta, half_phi = 0.5 * cells.d_eta[c], 0.5 * cells.d_phi[c]
        if abs(d_eta) > window + half_eta or abs(d_phi) > window + half_phi:
            continue
        scale = 1.0 / (_SQRT2 * DENSITY_RADIUS)
        share_eta = 0.5 * (
            math.erf((d_eta + half_eta) * scale) - math.erf((d_eta - half_eta) * scale)
        )
        share_phi = 0.5 * (
            math.erf((d_phi + half_phi) * scale) - math.erf((d_phi - half_phi) * scale)
        )
        density[layer] += share_eta * share_phi * energy[i] / cells.volume[c]
    best, found, before, at = 0.0, 2, 0.0, 0.0
    for layer in range(1, N_LAYERS):
        rise = (density[layer] - before) / (cells.depth[layer] - at)
        if rise > best:
            best, found = rise, layer
        before, at = density[layer], cells.depth[layer]
    return found
