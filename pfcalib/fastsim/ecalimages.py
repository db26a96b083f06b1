"""Photons of the parametrised engine as images of 30 x 30 cells about the point of impact, for a
generator that knows energy, position and angle (as in arXiv:1812.01319).

Particles come from the centre, so pseudorapidity is the angle: it tells how slanted the shower
crosses the layers. Cells are cut finer than those of the barrel; an image is the sum of the three
lead-argon layers at the EM scale, without noise.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW, Grid
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
N_CELLS = 30  # a side
CELL = 0.005  # of eta and phi, 8 mm at the middle
PHOTON = 22
CHUNK = 1000  # photons shot at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class EcalConfig:
    """Which images to make.

    Parameters
    ----------
    n_images : int
    e_range : (float, float), GeV
        Flat in the logarithm.
    eta_max : float
        At most 0.7.
    threshold : float, GeV
        Below it a cell is empty.
    seed : int
    """

    n_images: int = 10_000
    e_range: tuple[float, float] = (2.0, 50.0)
    eta_max: float = 0.7
    threshold: float = 1e-3
    seed: int = 1

    def __post_init__(self) -> None:
        if (
            self.n_images < 1
            or not 0.0 < self.e_range[0] < self.e_range[1]
            or not 0.0 < self.eta_max <= 0.7
        ):
            raise ConfigError(
                f"EcalConfig: expected images, rising energies and abs(eta) up to 0.7, not {self}"
            )


class EcalImages(NamedTuple):
    """Images of photons."""

    energy: F64  # (n,) GeV
    eta: F64  # (n,)
    at_eta: F64  # (n,) place in the cell that was hit, from -0.5 to 0.5
    at_phi: F64  # (n,)
    images: F32  # (n, N_CELLS, N_CELLS) GeV, first axis eta; the cell hit has index N_CELLS / 2

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Some of the images."""
        return type(self)._make(column[rows] for column in self)

    @property
    def condition(self) -> F64:
        """What a generator knows: ln(energy / GeV), eta, and the place in the cell in both
        directions; (n, 4).
        """
        return np.column_stack([np.log(self.energy), self.eta, self.at_eta, self.at_phi])


def kept_images(config: EcalConfig, *, n_processes: int = 1) -> EcalImages:
    """Images of a configuration, made where they are not in the cache; what an interrupted call
    has made is taken, and the number of processes changes nothing.
    """
    key = cache_key("detectors", "simulation", config=config)
    path = keep_chunks(
        cache_folder() / "fastsim" / f"ecal-{key}.npz", functools.partial(simulate_images, config),
        -(-config.n_images // CHUNK), join=join_columns, n_processes=n_processes,
    )  # fmt: skip
    return EcalImages(**read_columns(path))


def simulate_images(config: EcalConfig, number: int) -> EcalImages:
    """Images of the chunk of a number."""
    rng = np.random.default_rng((config.seed, number))
    n = min(CHUNK, config.n_images - number * CHUNK)
    energy = np.exp(rng.uniform(np.log(config.e_range[0]), np.log(config.e_range[1]), n))
    eta, phi = rng.uniform(-config.eta_max, config.eta_max, n), rng.uniform(0.0, CELL, n)
    grid = _grid(config.eta_max)
    pdg_id = np.full(n, PHOTON, np.int32)
    hits = simulate_showers(
        Particles(np.arange(n), pdg_id, energy, eta, phi), grid, rng, refine=False
    )
    layer = np.searchsorted(grid.offset, hits.cell, side="right") - 1
    i_eta, i_phi = np.divmod(hits.cell - grid.offset[layer], N_CELLS)
    place, at_eta = np.divmod((eta - grid.eta_min) / CELL, 1.0)
    i_eta = i_eta - place.astype(np.int64)[hits.event] + N_CELLS // 2
    of_image = [k for k, one in enumerate(grid.layers) if one.is_em and one.sampling]
    inside = np.isin(layer, of_image) & (i_eta >= 0) & (i_eta < N_CELLS)
    index = (hits.event * N_CELLS + i_eta) * N_CELLS + i_phi
    cells = np.bincount(index[inside], hits.signal[inside], n * N_CELLS**2)
    images = np.where(cells < config.threshold, 0.0, cells).astype(np.float32)
    return EcalImages(
        energy, eta, at_eta - 0.5, phi / CELL - 0.5, images.reshape(n, N_CELLS, N_CELLS)
    )


def _grid(eta_max: float) -> Grid:
    """The layers of the window with cells of CELL, as far as images reach."""
    half = int(np.ceil(eta_max / CELL)) + N_CELLS // 2
    layers = tuple(
        dataclasses.replace(layer, n_eta=2 * half, n_phi=N_CELLS, d_eta=CELL, d_phi=CELL)
        for layer in WINDOW.layers
    )
    return Grid("images", layers, -half * CELL, -N_CELLS // 2 * CELL, wraps=False)


def image_moments(images: NDArray[np.floating]) -> dict[str, F64]:
    """Quantities of each image (n, m, m), in units of cells: ``sum``; ``mean_0``, ``mean_1`` of
    the two axes from the middle of cell m / 2, ``width_0``, ``width_1`` about it, ``across``
    their correlation times both widths; ``peak``, the share of the largest cell; ``lit``, cells
    above 0. Those of empty images are 0.
    """
    values = np.asarray(images, dtype=np.float64)
    total = values.sum(axis=(1, 2))
    safe = np.where(total > 0.0, total, 1.0)
    at = np.arange(values.shape[1]) - values.shape[1] // 2
    found = {"sum": total}
    rows, columns = values.sum(axis=2) / safe[:, None], values.sum(axis=1) / safe[:, None]
    for name, profile in (("0", rows), ("1", columns)):
        found[f"mean_{name}"] = profile @ at
        square = profile @ at**2 - found[f"mean_{name}"] ** 2
        found[f"width_{name}"] = np.sqrt(np.maximum(square, 0.0))
    mixed = np.einsum("nij,i,j->n", values, at, at) / safe
    found["across"] = mixed - found["mean_0"] * found["mean_1"]
    found["peak"] = values.max(axis=(1, 2)) / safe
    found["lit"] = (values > 0.0).sum(axis=(1, 2)).astype(np.float64)
    return found
