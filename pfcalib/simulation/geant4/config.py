"""What can be set in the Geant4 engine, and the message for those who have not installed it."""

from __future__ import annotations

import dataclasses
import importlib.util

from pfcalib.errors import ConfigError
from pfcalib.simulation.detector import LAR_SCALE, TILE_SCALE


@dataclasses.dataclass(frozen=True)
class Geant4Config:
    """Cuts, signal and truth of the Geant4 engine.

    Parameters
    ----------
    calibration_truth : bool
        Score the absorbers and the energy balance of hadrons as well; without it all truth columns
        are zero and showers are faster.
    cut : float, mm
        Range cut for the production of photons, electrons and positrons.
    gate : float, ns
        What is deposited later after the collision gives no signal.
    birks_lar, birks_scintillator : float, mm / MeV
        Birks' constant; in liquid argon the signal is normalised to a minimum ionising particle by
        `norm_lar`.
    norm_lar : float
    lar_scale, tile_scale : float
        Visible energy to the EM scale.
    """

    calibration_truth: bool = True
    cut: float = 0.7
    gate: float = 205.0
    birks_lar: float = 0.0348
    norm_lar: float = 1.00733
    birks_scintillator: float = 0.126
    lar_scale: float = LAR_SCALE
    tile_scale: float = TILE_SCALE

    def __post_init__(self) -> None:
        for name in ("cut", "gate", "norm_lar", "lar_scale", "tile_scale"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(
                    f"Geant4Config.{name} must be positive, not {getattr(self, name)}"
                )
        for name in ("birks_lar", "birks_scintillator"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(
                    f"Geant4Config.{name} must not be negative, not {getattr(self, name)}"
                )


def require_geant4() -> None:
    """Raise ConfigError where geant4-pybind is not installed; imports nothing."""
    if importlib.util.find_spec("geant4_pybind") is None:
        raise ConfigError(
            "the Geant4 engine needs the package geant4-pybind: pip install 'pfcalib[geant4]'"
        )
