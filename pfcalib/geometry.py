"""The barrel calorimeter as layers and cells: one frozen ``BARREL``, and the ``WINDOW`` of the
Geant4 reference showers.

Granularity after the ATLAS calorimeters (JINST 3 (2008) S08003); radii and depths are those of the
Geant4 reference slice: 13 + 48 + 6 lead-argon periods of 6.665 mm behind 1.9 X0 of aluminium, then
18 + 50 + 22 iron-scintillator periods of 17.3 mm.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True)
class Layer:
    """One sampling of the barrel: its radii and its cells.

    Parameters
    ----------
    name, sampling : str, int
        Name and number as in the public ntuples (PreSamplerB 0, EMB1-3 1-3, TileBar0-2 12-14).
    r_in, r_out : float, mm
    n_eta, n_phi : int
        Cells of the grid in each direction.
    d_eta, d_phi : float
        Size of a cell; phi in rad.
    x0, lambda_int : float
        Thickness at eta = 0 in radiation lengths and in nuclear interaction lengths.
    """

    name: str
    sampling: int
    r_in: float
    r_out: float
    n_eta: int
    n_phi: int
    d_eta: float
    d_phi: float
    x0: float
    lambda_int: float

    @property
    def r(self) -> float:
        """Radius of the centre in mm."""
        return 0.5 * (self.r_in + self.r_out)

    @property
    def is_em(self) -> bool:
        """True for the presampler and the lead-argon layers."""
        return self.sampling < 12


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Cells of all layers in one flat order: cell = offset[layer] + i_eta * n_phi[layer] + i_phi;
    arrays are made once, on first use.

    >>> BARREL.n_cells, WINDOW.n_cells
    (64000, 1000)
    >>> int(BARREL.locate(2, 0.01, 3.1415)) == int(BARREL.locate(2, 0.01, 3.1415 - 2 * np.pi))
    True
    """

    name: str
    layers: tuple[Layer, ...]
    eta_min: float
    phi_min: float
    wraps: bool  # True where the grid closes in phi

    @cached_property
    def offset(self) -> NDArray[np.int64]:
        """First cell of each layer and, last, the number of cells; shape (n_layers + 1,)."""
        return np.concatenate(
            [[0], np.cumsum([layer.n_eta * layer.n_phi for layer in self.layers])]
        ).astype(np.int64)

    @property
    def n_cells(self) -> int:
        return int(self.offset[-1])

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @cached_property
    def layer(self) -> NDArray[np.int64]:
        """Index of the layer of each cell, shape (n_cells,)."""
        return np.repeat(np.arange(self.n_layers), np.diff(self.offset))

    @cached_property
    def sampling(self) -> NDArray[np.int32]:
        """Sampling number of each cell as in the public ntuples, shape (n_cells,)."""
        return np.array([layer.sampling for layer in self.layers], dtype=np.int32)[self.layer]

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        n_phi = np.array([layer.n_phi for layer in self.layers])[self.layer]
        local = np.arange(self.n_cells) - self.offset[self.layer]
        return local // n_phi, local % n_phi

    @cached_property
    def d_eta(self) -> NDArray[np.float64]:
        return np.array([layer.d_eta for layer in self.layers])[self.layer]

    @cached_property
    def d_phi(self) -> NDArray[np.float64]:
        return np.array([layer.d_phi for layer in self.layers])[self.layer]

    @cached_property
    def eta(self) -> NDArray[np.float64]:
        """Pseudorapidity of the centre of each cell, shape (n_cells,)."""
        return self.eta_min + (self._index[0] + 0.5) * self.d_eta

    @cached_property
    def phi(self) -> NDArray[np.float64]:
        """Azimuth of the centre of each cell in rad, shape (n_cells,)."""
        return self.phi_min + (self._index[1] + 0.5) * self.d_phi

    @cached_property
    def r(self) -> NDArray[np.float64]:
        """Radius of the centre of each cell in mm, shape (n_cells,)."""
        return np.array([layer.r for layer in self.layers])[self.layer]

    @cached_property
    def volume(self) -> NDArray[np.float64]:
        """Volume of each cell in mm3, shape (n_cells,): thickness x r d_phi x r (sinh eta_high -
        sinh eta_low).
        """
        thickness = np.array([layer.r_out - layer.r_in for layer in self.layers])[self.layer]
        d_z = self.r * (np.sinh(self.eta + 0.5 * self.d_eta) - np.sinh(self.eta - 0.5 * self.d_eta))
        return thickness * self.r * self.d_phi * d_z

    @cached_property
    def neighbours(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Neighbours in three dimensions as a sparse table (indptr, indices), sorted within each
        row.

        Neighbours touch, corners included, within a layer, and overlap in eta and phi in the
        adjacent layers (arXiv:1603.02934).
        """
        pairs = [
            _pairs(self, a, b)
            for a in range(self.n_layers)
            for b in (a - 1, a, a + 1)
            if 0 <= b < self.n_layers
        ]
        rows = np.concatenate([pair[0] for pair in pairs])
        columns = np.concatenate([pair[1] for pair in pairs])
        order = np.lexsort((columns, rows))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.n_cells))])
        return indptr.astype(np.int64), columns[order].astype(np.int32)

    def locate(self, layer: int, eta: ArrayLike, phi: ArrayLike) -> NDArray[np.int64]:
        """Cell of a layer that holds each point; -1 outside the grid.

        Parameters
        ----------
        layer : int
            Index of the layer in `layers`.
        eta, phi : array_like, broadcastable
            Position; phi in rad, any period where the grid wraps.
        """
        this = self.layers[layer]
        i_eta = np.floor((np.asarray(eta, dtype=np.float64) - self.eta_min) / this.d_eta).astype(
            np.int64
        )
        i_phi = np.floor((np.asarray(phi, dtype=np.float64) - self.phi_min) / this.d_phi).astype(
            np.int64
        )
        if self.wraps:
            i_phi = i_phi % this.n_phi
        inside = (i_eta >= 0) & (i_eta < this.n_eta) & (i_phi >= 0) & (i_phi < this.n_phi)
        return np.where(inside, self.offset[layer] + i_eta * this.n_phi + i_phi, -1)


def _overlaps(
    n_a: int, n_b: int, *, same: bool, period: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of bins of two equal ranges cut into n_a and n_b bins: touching for the same layer,
    overlapping for two.
    """
    a, b = np.arange(n_a)[:, None], np.arange(n_b)[None, :]
    if same:
        distance = np.abs(a - b)
        near = np.minimum(distance, n_a - distance) <= 1 if period else distance <= 1
    else:
        # integers: no rounding at common edges
        near = (a * n_b < (b + 1) * n_a) & (b * n_a < (a + 1) * n_b)
    pairs_a, pairs_b = np.nonzero(near)
    return pairs_a, pairs_b


def _pairs(grid: Grid, a: int, b: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of neighbouring cells with one cell in layer a, the other in layer b."""
    one, two = grid.layers[a], grid.layers[b]
    eta_a, eta_b = _overlaps(one.n_eta, two.n_eta, same=a == b, period=False)
    phi_a, phi_b = _overlaps(one.n_phi, two.n_phi, same=a == b, period=grid.wraps)
    row = (grid.offset[a] + eta_a[:, None] * one.n_phi + phi_a[None, :]).ravel()
    column = (grid.offset[b] + eta_b[:, None] * two.n_phi + phi_b[None, :]).ravel()
    keep = row != column
    return row[keep], column[keep]


_EM_PERIOD, _EM_X0, _EM_LAMBDA = 6.665, 0.3322, 0.01726  # mm, X0, lambda of one lead-argon period
_TILE_PERIOD, _TILE_X0, _TILE_LAMBDA = 17.3, 0.8210, 0.08910  # of one iron-scintillator period
_STACK = (  # name, sampling, r_in, periods, d_eta, cells in 0.1 of phi
    ("PreSamplerB", 0, 1425.0, 0, 0.025, 1),
    ("EMB1", 1, 1481.0, 13, 0.003125, 1),
    ("EMB2", 2, 1567.645, 48, 0.025, 4),
    ("EMB3", 3, 1887.565, 6, 0.05, 4),
    ("TileBar0", 12, 2280.0, 18, 0.1, 1),
    ("TileBar1", 13, 2591.4, 50, 0.1, 1),
    ("TileBar2", 14, 3456.4, 22, 0.2, 1),
)


def build_grid(
    name: str, *, eta_max: float, phi_max: float, n_towers_phi: int, wraps: bool
) -> Grid:
    """A grid of |eta| < eta_max and |phi| < phi_max, the latter cut into n_towers_phi towers of
    about 0.1 rad.
    """
    tower = 2.0 * phi_max / n_towers_phi
    layers = []
    for layer_name, sampling, r_in, periods, d_eta, per_tower in _STACK:
        period, x0, lambda_int = (
            (_EM_PERIOD, _EM_X0, _EM_LAMBDA)
            if sampling < 12
            else (_TILE_PERIOD, _TILE_X0, _TILE_LAMBDA)
        )
        thickness = periods * period if periods else 11.0
        # the presampler is 11 mm of liquid argon
        depth = (periods * x0, periods * lambda_int) if periods else (0.079, 0.0128)
        n_eta = round(2.0 * eta_max / d_eta)
        n_phi, d_phi = n_towers_phi * per_tower, tower / per_tower
        layers.append(
            Layer(layer_name, sampling, r_in, r_in + thickness, n_eta, n_phi, d_eta, d_phi, *depth)
        )
    return Grid(name, tuple(layers), -eta_max, -phi_max, wraps)


BARREL = build_grid("barrel", eta_max=0.8, phi_max=np.pi, n_towers_phi=64, wraps=True)
WINDOW = build_grid("window", eta_max=0.2, phi_max=0.2, n_towers_phi=4, wraps=False)
GRIDS = {grid.name: grid for grid in (BARREL, WINDOW)}
