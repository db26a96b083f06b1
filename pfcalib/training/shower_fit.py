"""The free numbers of the parametrised showers, fitted to showers of Geant4.

Showers of the same particles are shot with trial numbers and compared with the reference in bins of
energy, by what `metrics.fidelity` compares: mean response, its rms, cells, and share and widths of
each layer. The mean over all comparisons of

    deviation^2 / (statistical error^2 + (TOLERANCE x limit)^2)

is made as small as possible by the simplex of Nelder and Mead (Computer Journal 7 (1965) 308), a
few numbers at a time: those of electromagnetic showers on neutral pions first, then those of the
hadronic cascade on charged ones. Every trial has the same random numbers at its start.

The numbers in `simulation.parameters` came from such fits to Geant4 pions of 0.5 to 60 GeV that are
not in the package, by a script and a weighting of the quantities that were not kept; a fit from
here finds numbers of its own, close to them as far as the comparisons tell numbers apart.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pfcalib.cache import file_sha256, write_text
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.metrics import fidelity
from pfcalib.provenance import commit, versions
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.parameters import ShowerConfig

TOLERANCE = 0.2  # of a limit of `fidelity.LIMITS`: what no fit can be asked to do better
STEP = 0.1  # first step in a number, relative, or absolute in one that starts from 0
STAGES: dict[str, tuple[int, tuple[str, ...]]] = {  # PDG id of the pions, numbers
    "em-scale": (111, ("em_presampler", "em_strips", "em_lar", "em_tile")),
    "em-depth": (111, ("t_shift", "a_scale", "s_scale")),
    "em-width": (111, ("core_scale", "tail_scale", "gap_spread")),
    "em-spread": (111, ("sampling_lar", "sampling_tile", "albedo")),
    "interactions": (211, ("lambda_scale", "p_elastic", "p_elastic_low", "mip_scale")),
    "secondaries": (211, ("leading", "stick", "p_pi0", "p_exchange", "pi0_rise")),
    "nuclei": (211, ("nuclear_scale", "nuclear_slope", "nuclear_power", "binding")),
    "nucleons": (211, ("proton_lar", "proton_tile", "neutron_lar", "neutron_tile")),
    "hadron-width": (211, ("pt_mean", "pt_elastic", "neutron_path")),
    "hadron-spread": (211, ("nuclear_shape", "proton_shape", "neutron_shape")),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerFitConfig:
    """How the numbers are fitted.

    Parameters
    ----------
    stages : tuple of str
        Of STAGES, one after the other; each starts from what the ones before it have found.
    n_events : int
        Reference showers of each species at most.
    copies : int
        Parametrised showers for each of them.
    evaluations : int
        Trials of each stage at most.
    edges : tuple of float, GeV
        Bins of true energy.
    seed : int
    """

    stages: tuple[str, ...] = tuple(STAGES)
    n_events: int = 5000
    copies: int = 2
    evaluations: int = 80
    edges: tuple[float, ...] = fidelity.E_EDGES
    seed: int = 1

    def __post_init__(self) -> None:
        if unknown := [stage for stage in self.stages if stage not in STAGES]:
            raise ConfigError(f"unknown stages {unknown}; there are {', '.join(STAGES)}")
        if not self.stages or min(self.n_events, self.copies, self.evaluations) < 1:
            raise ConfigError("stages, n_events, copies and evaluations must be at least 1")


class FittedStage(NamedTuple):
    """What a stage has made of its numbers."""

    name: str
    numbers: dict[str, float]
    chi2_before: float  # over the number of comparisons
    chi2: float
    n_trials: int


def shower_chi2(
    reference: Showers, config: ShowerConfig, fit: ShowerFitConfig
) -> NDArray[np.float64]:
    """Squared deviations of parametrised showers from reference showers of one species over their
    squared errors, tolerance included; shape (n_comparisons,).
    """
    sigma = noise_sigma(WINDOW)
    rng = np.random.default_rng(fit.seed)
    fast, _ = fidelity.simulate_copies(reference, WINDOW, rng, copies=fit.copies, config=config)
    (m_fast, m_reference), energies = (
        [fidelity.shower_moments(showers, WINDOW, sigma) for showers in (fast, reference)],
        (fast.e_true, reference.e_true),
    )
    terms = []
    for c in fidelity.compare_showers(m_fast, energies[0], m_reference, energies[1], fit.edges):
        deviation = c.deviation
        variance = deviation.error**2 + (TOLERANCE * c.limit) ** 2
        terms.append((deviation.value**2 / variance)[c.compared])
    return np.concatenate(terms)


def fit_showers(
    reference: Showers,
    fit: ShowerFitConfig,
    *,
    start: ShowerConfig | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[ShowerConfig, list[FittedStage]]:
    """Fit the numbers of all stages.

    Parameters
    ----------
    reference : Showers
        Pions on the window, neutral and charged ones as the stages need them.
    fit : ShowerFitConfig
    start : ShowerConfig, optional
        By default the numbers of the package.
    say : callable
        Takes a line for every better trial.
    """
    config, done = start or ShowerConfig(), []
    for stage in fit.stages:
        pdg_id, names = STAGES[stage]
        pions = fidelity.select_showers(reference, (pdg_id,), fit.edges, n_max=fit.n_events)
        first = np.array([getattr(config, name) for name in names])
        scale = np.where(first == 0.0, 1.0, np.abs(first))
        trials: list[tuple[float, ShowerConfig]] = []

        def chi2(x: NDArray[np.float64]) -> float:
            numbers = dict(zip(names, (first + scale * x).tolist(), strict=True))  # noqa: B023
            trial = config._replace(**numbers)  # noqa: B023
            value = float(shower_chi2(pions, trial, fit).mean())  # noqa: B023
            if not trials or value < min(trials, key=_value)[0]:  # noqa: B023
                told = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
                say(f"{stage}, trial {len(trials) + 1}: chi2 {value:.3f}, {told}")  # noqa: B023
            trials.append((value, trial))  # noqa: B023
            return value

        simplex = np.vstack([np.zeros(len(names)), STEP * np.eye(len(names))])
        options = {"maxfev": fit.evaluations, "initial_simplex": simplex, "xatol": 1e-3}
        bounds = [(-0.8 if value else -1.0, 2.0) for value in first]
        minimize(chi2, simplex[0], method="Nelder-Mead", bounds=bounds, options=options)
        value, config = min(trials, key=_value)
        numbers = {name: float(getattr(config, name)) for name in names}
        done.append(FittedStage(stage, numbers, trials[0][0], value, len(trials)))
    return config, done


def _value(trial: tuple[float, ShowerConfig]) -> float:
    return trial[0]


def write_fit(
    path: Path,
    config: ShowerConfig,
    stages: list[FittedStage],
    *,
    fit: ShowerFitConfig,
    reference: Path,
    metadata: Mapping[str, Any],
) -> None:
    """Write all numbers as JSON, with the stages that found them and where they come from."""
    told = {
        "parameters": config._asdict(),
        "stages": [stage._asdict() for stage in stages],
        "config": dataclasses.asdict(fit),
        "reference": {
            "file": reference.name,
            "sha256": file_sha256(reference),
            "generator": metadata.get("generator", "unknown"),
        },
        "commit": commit()._asdict(),
        "versions": versions(),
    }
    write_text(path, json.dumps(told, indent=2) + "\n")


def read_fit(path: Path) -> ShowerConfig:
    """Numbers that `write_fit` has written.

    Raises
    ------
    BadFileError
        If it is not such a file.
    """
    try:
        return ShowerConfig(**json.loads(path.read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(f"{path}: expected JSON of `pfcalib tune-showers` ({error})") from error
