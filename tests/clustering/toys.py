"""Grids and shower-like events for the tests of the clustering."""

from __future__ import annotations

import dataclasses

import numpy as np

from pfcalib.geometry import Grid, build_grid

# GeV
NOISE = {
    "PreSamplerB": 0.013,
    "EMB1": 0.013,
    "EMB2": 0.034,
    "EMB3": 0.041,
    "TileBar0": 0.075,
    "TileBar1": 0.05,
    "TileBar2": 0.025,
}
SHARE = (0.02, 0.15, 0.5, 0.08, 0.1, 0.12, 0.03)  # of the energy in each layer
SMALL = build_grid("small", eta_max=0.1, phi_max=0.2, n_towers_phi=4, wraps=False)
RING = build_grid("ring", eta_max=0.1, phi_max=np.pi, n_towers_phi=8, wraps=True)


@dataclasses.dataclass(frozen=True, eq=False)
class ShuffledGrid:
    """A grid with its cells numbered in another order: new cell i is old cell order[i]."""

    name: str
    layers: tuple
    n_cells: int
    layer: np.ndarray
    sampling: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    r: np.ndarray
    d_eta: np.ndarray
    d_phi: np.ndarray
    volume: np.ndarray
    neighbours: tuple


def shuffle(grid: Grid, order: np.ndarray) -> ShuffledGrid:
    new = np.argsort(order)
    indptr, indices = grid.neighbours
    rows = [new[indices[indptr[cell] : indptr[cell + 1]]] for cell in order]
    table = (
        np.concatenate([[0], np.cumsum([row.size for row in rows])]),
        np.concatenate(rows).astype(np.int32),
    )
    names = ("layer", "sampling", "eta", "phi", "r", "d_eta", "d_phi", "volume")
    return ShuffledGrid(
        grid.name,
        grid.layers,
        grid.n_cells,
        **{name: getattr(grid, name)[order] for name in names},
        neighbours=table,
    )


def noise(grid) -> np.ndarray:
    return np.array([NOISE[layer.name] for layer in grid.layers])[grid.layer]


def simulate_shower(
    grid: Grid,
    e_true: float,
    eta: float,
    phi: float,
    rng: np.random.Generator,
    *,
    width: float = 0.02,
) -> np.ndarray:
    """Cell energies of one toy shower: Gaussian around a line from the origin, with exponential
    spots.
    """
    cells = np.zeros(grid.n_cells)
    for layer, share in enumerate(SHARE):
        at = grid.locate(layer, rng.normal(eta, width, 100), rng.normal(phi, width, 100))
        np.add.at(
            cells,
            at[at >= 0],
            0.01 * e_true * share * rng.exponential(1.0, np.count_nonzero(at >= 0)),
        )
    return cells


def simulate_event(grid: Grid, n_showers: int, rng: np.random.Generator) -> np.ndarray:
    """Showers of 1-20 GeV all over the grid on top of noise."""
    eta_max, phi_max = -grid.eta_min, -grid.phi_min
    cells = rng.normal(0.0, noise(grid))
    for _ in range(n_showers):
        cells += simulate_shower(
            grid,
            20.0 ** rng.uniform(),
            rng.uniform(-eta_max, eta_max),
            rng.uniform(-phi_max, phi_max),
            rng,
        )
    return cells
