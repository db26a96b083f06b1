"""The configuration of a sample: particles, engine, grid and noise, checked before anything is
shot.
"""

from __future__ import annotations

import dataclasses

from pfcalib.clustering.topo import TopoConfig
from pfcalib.errors import ConfigError
from pfcalib.geometry import GRIDS
from pfcalib.simulation.digitise import NOISE_SETTINGS, NoiseConfig
from pfcalib.simulation.particles import GUNS

ENGINES = ("fast", "geant4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProduceConfig:
    """What to shoot and how to read it out.

    Parameters
    ----------
    n_events : int
        One particle each.
    particles : tuple of str
        Species of `simulation.particles.GUNS`, drawn with equal shares.
    e_min, e_max : float, GeV
        Range of the total energy, flat in its logarithm.
    eta_max : float
        |eta| at the origin is flat below it; |phi| likewise on a grid that does not close, else phi is flat.
    engine : str
        ``fast``, the parametrised showers, or ``geant4``; the particles of a seed are the same.
    grid : str
        ``barrel`` (64,000 cells, 2 T) or ``window`` (the 1,000 cells of the Geant4 reference, no
        field).
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.
    mu : float, optional
        Mean number of interactions a crossing; by default that of the setting.
    thresholds : (float, float, float)
        Noise cuts of the clustering: seed, growth and boundary, in units of the noise of a cell.
    seed, n_processes, chunk : int
        The sample depends on the seed and on the events a chunk, not on the number of processes.
    """

    n_events: int
    particles: tuple[str, ...] = ("pi0", "pi+", "pi-")
    e_min: float = 0.2
    e_max: float = 2000.0
    eta_max: float = 0.7
    engine: str = "fast"
    grid: str = "barrel"
    noise: str = "nominal"
    mu: float | None = None
    thresholds: tuple[float, float, float] = (4.0, 2.0, 0.0)
    seed: int = 1
    n_processes: int = 1
    chunk: int = 64

    def __post_init__(self) -> None:
        choices = (
            ("engine", self.engine, ENGINES),
            ("grid", self.grid, GRIDS),
            ("noise", self.noise, NOISE_SETTINGS),
        )
        for name, value, allowed in choices:
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if unknown := set(self.particles) - set(GUNS):
            raise ConfigError(f"unknown particles {sorted(unknown)}; there are {', '.join(GUNS)}")
        if not self.particles or self.n_events < 1 or self.chunk < 1 or self.n_processes < 1:
            raise ConfigError(
                "particles must not be empty; n_events, chunk and n_processes must be at least 1"
            )
        if not 0.2 <= self.e_min <= self.e_max:
            raise ConfigError(
                f"energies must satisfy 0.2 GeV <= e_min <= e_max, not {self.e_min}, {self.e_max}"
            )
        if self.mu is not None and self.mu < 0.0:
            raise ConfigError(f"mu must be at least 0, not {self.mu}")
        if len(self.thresholds) != 3:
            raise ConfigError(
                f"thresholds must be three, seed, growth and boundary, not {self.thresholds}"
            )
        _ = self.topo_config  # refuses thresholds that do not fall
        limit = -GRIDS[self.grid].eta_min
        if not 0.0 <= self.eta_max < limit:
            raise ConfigError(
                f"eta_max must lie in [0, {limit}) on the grid {self.grid!r}, not {self.eta_max}"
            )

    @property
    def noise_config(self) -> NoiseConfig:
        setting = NOISE_SETTINGS[self.noise]
        return setting if self.mu is None else dataclasses.replace(setting, mu=self.mu)

    @property
    def topo_config(self) -> TopoConfig:
        seed, growth, boundary = self.thresholds
        return TopoConfig(seed=seed, growth=growth, boundary=boundary)
