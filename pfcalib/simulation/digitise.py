"""What showers leave in the cells, and the cells as they are read out: with electronic and pile-up
noise.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.geometry import Grid

# MeV a cell; presampler, EMB1-3, TileBar0-2
ELECTRONIC = (40.0, 13.0, 34.0, 41.0, 75.0, 50.0, 25.0)
PILEUP = (9.0, 3.5, 10.0, 6.0, 8.0, 5.0, 2.0)  # MeV a cell at mu = 1, grows with sqrt(mu)


class Hits(NamedTuple):
    """Jagged cells of a batch of events; the hits of event i are ``offsets[i]:offsets[i + 1]``,
    sorted by cell.

    The truth adds up to the energy that was shot: the four components over the cells plus
    ``e_dead`` plus ``e_leak`` equal ``e_total``.
    """

    offsets: NDArray[np.int64]  # (n_events + 1,)
    cell: NDArray[np.int32]  # (n_hits,) flat index in the grid
    signal: NDArray[np.float64]  # (n_hits,) GeV at the EM scale, without noise
    em: NDArray[np.float64]  # (n_hits,) GeV deposited by electrons and photons
    non_em: NDArray[np.float64]  # (n_hits,) GeV deposited by the ionisation of hadrons
    invisible: NDArray[np.float64]  # (n_hits,) GeV lost to nuclear binding and slow neutrons
    escaped: NDArray[np.float64]  # (n_hits,) GeV carried away by neutrinos made in the cell
    e_dead: NDArray[np.float64]  # (n_events,) GeV in dead material
    e_leak: NDArray[np.float64]  # (n_events,) GeV beyond the grid or behind the calorimeter
    e_total: NDArray[np.float64]  # (n_events,) GeV that was shot into the detector
    e_pi0: NDArray[np.float64]  # (n_events,) GeV that hadronic interactions gave to neutral pions

    @property
    def n_events(self) -> int:
        return len(self.offsets) - 1

    @property
    def event(self) -> NDArray[np.int64]:
        """Event of each hit, shape (n_hits,)."""
        return np.repeat(np.arange(self.n_events), np.diff(self.offsets))


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Noise of the cells of each layer; electronic and pile-up noise add in quadrature.

    The electronic values of the EM and hadronic layers are a public stand-in for ATLAS; the pile-up
    values are pfcalib's own and have the size and the order of layers of figure 2 of
    arXiv:1603.02934 at mu = 30.

    Parameters
    ----------
    electronic : tuple of float, MeV
        One value a layer.
    pileup : tuple of float, MeV
        The same at one interaction a crossing.
    mu : float
        Mean number of interactions a crossing; 0 switches pile-up noise off.
    """

    electronic: tuple[float, ...] = ELECTRONIC
    pileup: tuple[float, ...] = PILEUP
    mu: float = 0.0

    def __post_init__(self) -> None:
        for name, values in (("electronic", self.electronic), ("pileup", self.pileup)):
            if len(values) != len(LAYER_NAMES) or min(values) < 0.0:
                raise ConfigError(
                    f"noise {name}: expected {len(LAYER_NAMES)} values >= 0 MeV, one for each of "
                    f"{LAYER_NAMES}, got {values}"
                )
        if self.mu < 0.0:
            raise ConfigError(f"noise mu: expected >= 0, got {self.mu}")


NOISE_SETTINGS = {"nominal": NoiseConfig(), "pileup": NoiseConfig(mu=40.0)}


def noise_sigma(grid: Grid, config: NoiseConfig = NOISE_SETTINGS["nominal"]) -> NDArray[np.float64]:
    """Standard deviation of the noise of each cell in GeV, shape (n_cells,).

    >>> from pfcalib.geometry import WINDOW
    >>> round(float(noise_sigma(WINDOW)[0]), 3)
    0.04
    """
    per_layer = (
        np.hypot(np.array(config.electronic), np.sqrt(config.mu) * np.array(config.pileup)) * 1e-3
    )
    return per_layer[grid.layer]


def digitise(
    hits: Hits, grid: Grid, sigma: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Energies of all cells of all events: signal plus Gaussian noise.

    Parameters
    ----------
    hits : Hits
    grid : Grid
    sigma : ndarray, shape (n_cells,), GeV
        See `noise_sigma`.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_events, n_cells), GeV at the EM scale
    """
    # single precision halves the time
    energy = rng.standard_normal((hits.n_events, grid.n_cells), dtype=np.float32) * sigma
    # a cell has one hit an event
    energy.reshape(-1)[hits.event * grid.n_cells + hits.cell] += hits.signal
    return energy
