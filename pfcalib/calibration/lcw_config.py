"""The configuration of local cell weighting: binning and cuts as published, and how the content of
the tables is derived.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib.calibration.likelihood import LikelihoodConfig
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.samples.select import SelectionConfig

SAMPLINGS = (0, 1, 2, 3, 12, 13, 14)  # of LAYER_NAMES
# log10 of MeV/mm3; arXiv:1603.02934 gives none for the presampler, whose cells of 2 sigma to 50 GeV
# are covered here
DENSITY_RANGES = (
    (-3.0, 0.0),
    (-4.6, 1.1),
    (-4.8, 0.5),
    (-4.9, 0.6),
    (-6.0, -1.0),
    (-6.7, -1.2),
    (-7.0, -1.9),
)
# of all studies of energies
REGRESSION_SELECTION = SelectionConfig(min_cluster_e=0.1, min_deposit=0.2)
CONTENTS = ("mean_of_ratios", "ratio_of_sums")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LcwConfig:
    """Binning and cuts, and the choices that the publication leaves open.

    Parameters
    ----------
    likelihood : LikelihoodConfig
        Of the first step.
    selection : SelectionConfig
        Clusters that the tables are derived from.
    n_cell_eta, cell_eta_range
        Bins of |eta| of a cell, 0.1 wide; the barrel ends at 0.8.
    n_energy, log_e_range
        Bins of log10(E / MeV) of the cluster, in all tables.
    n_density, density_ranges
        Bins of log10 of the energy density of a cell in MeV/mm3, a range for each layer of
        `LAYER_NAMES`.
    n_cluster_eta, cluster_eta_range, n_lambda, log_lambda_range
        Bins of |eta| and log10(lambda / mm) of the cluster for the last two steps.
    cell_cut : float
        Cells with |E| / sigma above it are weighted.
    min_entries : int
        A bin needs more entries than this to be used; cells of other bins keep weight 1.
    factor_range : (float, float)
        A factor of the last two steps outside counts as 1.
    content : str
        Of a bin of cell weights: the mean of true over measured energy ("mean_of_ratios", as
        published), or true over measured energy of all its cells together ("ratio_of_sums").
    em_weights : bool
        Derive weights for neutral pions too; if not, w_n = 1 as published.
    closure_iterations : int
        Rounds of the fit that scales the tables of each step towards a median of one in bins of
        true energy, see `lcw_closure`; 0 leaves the plain means.
    closure_range : (float, float), GeV
        True energies at which the medians should be one; others have little weight in the fit.
    """

    likelihood: LikelihoodConfig = dataclasses.field(default_factory=LikelihoodConfig)
    selection: SelectionConfig = REGRESSION_SELECTION
    n_cell_eta: int = 8
    cell_eta_range: tuple[float, float] = (0.0, 0.8)
    n_energy: int = 14
    log_e_range: tuple[float, float] = (float(np.log10(200.0)), 6.0)
    n_density: int = 14
    density_ranges: tuple[tuple[float, float], ...] = DENSITY_RANGES
    n_cluster_eta: int = 50
    cluster_eta_range: tuple[float, float] = (0.0, 5.0)
    n_lambda: int = 14
    log_lambda_range: tuple[float, float] = (0.0, 4.0)
    cell_cut: float = 2.0
    min_entries: int = 10
    factor_range: tuple[float, float] = (0.3, 3.0)
    content: str = "mean_of_ratios"
    em_weights: bool = True
    closure_iterations: int = 10
    closure_range: tuple[float, float] = (1.5, 1000.0)

    def __post_init__(self) -> None:
        if (
            min(self.n_cell_eta, self.n_energy, self.n_density, self.n_cluster_eta, self.n_lambda)
            < 1
        ):
            raise ConfigError("LcwConfig: every axis needs at least one bin")
        if len(self.density_ranges) != len(LAYER_NAMES):
            raise ConfigError(
                f"LcwConfig: {len(self.density_ranges)} density_ranges, expected one for each of "
                f"{', '.join(LAYER_NAMES)}"
            )
        names = (
            "cell_eta_range",
            "log_e_range",
            "cluster_eta_range",
            "log_lambda_range",
            "factor_range",
            "closure_range",
        )
        for name, (low, high) in [
            *((n, getattr(self, n)) for n in names),
            *(("density_ranges", limits) for limits in self.density_ranges),
        ]:
            if not low < high:
                raise ConfigError(f"LcwConfig: {name} = ({low}, {high}), expected low < high")
        if self.content not in CONTENTS:
            raise ConfigError(
                f"LcwConfig: content = {self.content!r}, expected one of {', '.join(CONTENTS)}"
            )
        if not (self.cell_cut >= 0.0 and self.min_entries >= 0 and self.closure_iterations >= 0):
            raise ConfigError(
                "LcwConfig: cell_cut, min_entries and closure_iterations must not be negative"
            )

    @property
    def cell_eta_edges(self) -> NDArray[np.float64]:
        """Edges of |eta| of a cell."""
        return np.linspace(*self.cell_eta_range, self.n_cell_eta + 1)

    @property
    def energy_edges(self) -> NDArray[np.float64]:
        """Edges of log10(E / MeV) of the cluster."""
        return np.linspace(*self.log_e_range, self.n_energy + 1)

    @property
    def density_edges(self) -> NDArray[np.float64]:
        """Edges of log10 of the density in MeV/mm3, shape (n_layers, n_density + 1)."""
        return np.stack(
            [np.linspace(*limits, self.n_density + 1) for limits in self.density_ranges]
        )

    @property
    def cluster_eta_edges(self) -> NDArray[np.float64]:
        """Edges of |eta| of the cluster."""
        return np.linspace(*self.cluster_eta_range, self.n_cluster_eta + 1)

    @property
    def lambda_edges(self) -> NDArray[np.float64]:
        """Edges of log10(lambda / mm)."""
        return np.linspace(*self.log_lambda_range, self.n_lambda + 1)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Kind, layer, |eta|, energy, density."""
        return (2, len(LAYER_NAMES), self.n_cell_eta, self.n_energy, self.n_density)

    @property
    def cluster_shape(self) -> tuple[int, ...]:
        """Kind, |eta|, energy, depth."""
        return (2, self.n_cluster_eta, self.n_energy, self.n_lambda)


def config_from_json(settings: Mapping[str, Any]) -> LcwConfig:
    """Configuration from what `dataclasses.asdict` gave, after a journey through JSON.

    Raises
    ------
    ConfigError, TypeError
        If a setting is unknown or out of range.
    """
    plain = {name: _tuples(value) for name, value in settings.items()}
    plain["likelihood"], plain["selection"] = (
        LikelihoodConfig(**plain["likelihood"]),
        SelectionConfig(**plain["selection"]),
    )
    return LcwConfig(**plain)


def _tuples(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    if isinstance(value, Mapping):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
