"""The free numbers of the parametrised showers, fitted to showers of Geant4.

Showers of the same particles are shot with trial numbers and compared with the reference in bins of
energy, by what `metrics.fidelity` compares: mean response, its rms, cells, and share and widths of
each layer, and by the distributions of the moments that its classifier sees, at the deciles of the
reference. The mean square of all

    deviation / sqrt(statistical error^2 + (TOLERANCE x limit)^2)

is made as small as possible by least squares with finite differences (a trust region, SciPy), a
few numbers at a time: those of electromagnetic showers on neutral pions first, then those of the
hadronic cascade on charged ones. Every trial has the same random numbers at its start.

The numbers in `simulation.parameters` came from such fits to Geant4 pions of 0.5 to 60 GeV that are
not in the package, by a script that took several stages at once and, for charged pions, the mean
shares of the calibration truth besides; a fit from here finds numbers of its own, close to them as
far as the comparisons tell numbers apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pfcalib.cache import file_sha256, write_text
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.metrics import fidelity
from pfcalib.provenance import commit, versions
from pfcalib.samples.showerfile import Showers
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.parameters import ShowerConfig

TOLERANCE = 0.2  # of a limit of `fidelity.LIMITS`: what no fit can be asked to do better
SHAPE_TOLERANCE = 0.02  # the same of a distribution function
DECILES = np.linspace(0.1, 0.9, 9)
STEP = 0.1  # of the finite differences, relative, or absolute in a number that starts from 0
STAGES: dict[str, tuple[int, tuple[str, ...]]] = {  # PDG id of the pions, numbers
    "em-scale": (111, ("em_presampler", "em_strips", "em_lar", "em_tile")),
    "em-depth": (111, ("t_shift", "a_scale", "s_scale", "beta_min")),
    "em-width": (111, ("core_scale", "core_strips", "tail_scale", "tail_more", "gap_spread")),
    "em-spread": (
        111,
        ("sampling_lar", "sampling_tile", "albedo", "albedo_growth", "albedo_radius"),
    ),
    "interactions": (211, ("lambda_scale", "p_elastic", "p_elastic_low", "mip_scale")),
    "secondaries": (
        211,
        ("leading", "stick", "p_pi0", "p_exchange", "p_exchange_low", "pi0_rise", "soft"),
    ),
    "nuclei": (211, ("nuclear_scale", "nuclear_slope", "nuclear_power", "binding", "f_gamma")),
    "nucleons": (211, ("proton_lar", "proton_tile", "neutron_lar", "neutron_tile")),
    "hadron-width": (
        211,
        (
            "pt_mean",
            "pt_elastic",
            "neutron_path",
            "neutron_path_tile",
            "mip_radius",
            "delta_radius",
        ),
    ),
    "hadron-spread": (211, ("nuclear_shape", "proton_shape", "neutron_shape", "mip_shape")),
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


class _EnoughTrialsError(Exception):
    """Ends a fit. Not StopIteration: raised inside `map`, it would only end SciPy's loop over the
    columns of the Jacobian, whose rest is whatever was in the memory.
    """


def shower_pulls(
    reference: Showers, config: ShowerConfig, fit: ShowerFitConfig
) -> NDArray[np.float64]:
    """Deviations of parametrised showers from reference showers of one species over their errors,
    tolerance included: of all comparisons, then of the distributions of the moments; shape (n,).
    """
    sigma = noise_sigma(WINDOW)
    rng = np.random.default_rng(fit.seed)
    fast, _ = fidelity.simulate_copies(reference, WINDOW, rng, copies=fit.copies, config=config)
    (m_fast, m_reference), energies = (
        [fidelity.shower_moments(showers, WINDOW, sigma) for showers in (fast, reference)],
        (fast.e_true, reference.e_true),
    )
    pulls = []
    for c in fidelity.compare_showers(m_fast, energies[0], m_reference, energies[1], fit.edges):
        deviation = c.deviation
        error = np.hypot(deviation.error, TOLERANCE * c.limit)
        pulls.append((deviation.value / error)[c.compared])
    noise = {name: float(sigma[WINDOW.layer == i][0]) for i, name in enumerate(LAYER_NAMES)}
    tables = [
        np.nan_to_num(fidelity.feature_table(moments, energy, noise)[:, :-1], nan=-1.0)
        for moments, energy in zip((m_fast, m_reference), energies, strict=True)
    ]
    for low, high in pairwise(fit.edges):
        columns = [
            table[(energy >= low) & (energy < high)].T
            for table, energy in zip(tables, energies, strict=True)
        ]
        if columns[1].shape[1] >= fidelity.MIN_COUNT:
            pulls += [_shape_pulls(*pair) for pair in zip(*columns, strict=True)]
    return np.concatenate(pulls)


def _shape_pulls(fast: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences of two distribution functions at the deciles of the second over their errors."""
    at = np.unique(np.quantile(reference, DECILES))
    share, expected = (np.mean(x[:, None] <= at, axis=0) for x in (fast, reference))
    variance = expected * (1.0 - expected) * (1.0 / len(fast) + 1.0 / len(reference))
    return np.asarray((share - expected) / np.sqrt(variance + SHAPE_TOLERANCE**2))


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
        offset = np.where(first == 0.0, 1.0, 0.0)  # numbers are first * x, or x - 1
        trials: list[tuple[float, ShowerConfig]] = []

        def pulls(x: NDArray[np.float64]) -> NDArray[np.float64]:
            if len(trials) == fit.evaluations:  # noqa: B023
                raise _EnoughTrialsError
            trial_numbers = ((first + offset) * x - offset).tolist()  # noqa: B023
            numbers = dict(zip(names, trial_numbers, strict=True))  # noqa: B023
            trial = config._replace(**numbers)  # noqa: B023
            found = shower_pulls(pions, trial, fit)  # noqa: B023
            value = float(np.mean(found**2))
            if not trials or value < min(trials, key=_value)[0]:  # noqa: B023
                told = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
                say(f"{stage}, trial {len(trials) + 1}: chi2 {value:.3f}, {told}")  # noqa: B023
            trials.append((value, trial))  # noqa: B023
            return found

        with contextlib.suppress(_EnoughTrialsError):
            least_squares(pulls, np.ones(len(names)), diff_step=STEP, bounds=(0.2, 3.0))
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
