"""Physics runs whose answer is known: TestEm3, pi/e of the Tile part, the resolution of electrons;
each in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW, Grid, Layer
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets, find_data
from pfcalib.simulation.geant4.session import Session
from pfcalib.simulation.geant4.slice import em3_stack, tile_stack

# MeV and error: Geant4's published output of TestEm3, 1 GeV electrons, its own data sets
EM3_LAR, EM3_LEAD = (215.74, 1.3), (774.03, 1.5)
TILE_PI_OVER_E = (0.82, 0.85)  # test beam, about 10 GeV
EM3_GRID = Grid(
    "testem3",
    (Layer("Calorimeter", 1, 1.0, 401.0, 1, 1, 20.0, 2.0 * np.pi, 0.0, 0.0),),
    -10.0,
    -np.pi,
    True,
)


class Measured(NamedTuple):
    """A number with its statistical error."""

    value: float
    error: float


class Em3Report(NamedTuple):
    """Energies that a 1 GeV electron leaves in the calorimeter of TestEm3, MeV."""

    lar: Measured
    lead: Measured
    label: str  # of the data sets


class SpeedReport(NamedTuple):
    """Events that Geant4 has shot, and how fast."""

    gev_per_second: float  # of processor time on one core
    seconds: float


class Shot(NamedTuple):
    """Equal particles along x shot in a process of their own."""

    signal: NDArray[np.float64]  # (n,) GeV at the EM scale
    tally: NDArray[np.float64]  # (n, n_layers, 2) GeV in absorbers and in active material
    unattributed: NDArray[np.float64]  # (n,) GeV
    seconds: float  # of processor time
    label: str


STACKS: dict[str, Any] = {
    "slice": lambda grid: None,
    "tile": tile_stack,
    "em3": lambda grid: em3_stack(),
}
GRIDS = {"slice": WINDOW, "tile": BARREL, "em3": EM3_GRID}


def simulate_em3(n_events: int, *, seed: int) -> Em3Report:
    """Energies in liquid argon and lead of 1 GeV electrons in 50 x (2.3 mm Pb + 5.7 mm LAr).

    Parameters
    ----------
    n_events : int
    seed : int

    Raises
    ------
    ConfigError
        If Geant4 cannot run here.
    """
    shot = shoot_along_x("em3", 11, 1.0, n_events, seed=seed)
    lead, lar = (_mean(1e3 * shot.tally[:, 0, i]) for i in (0, 1))
    return Em3Report(lar, lead, shot.label)


def simulate_pi_over_e(
    n_pions: int, n_electrons: int, *, seed: int, energy: float = 10.0
) -> Measured:
    """Ratio of the mean signals of pi- and e- of the same energy (GeV) in the Tile part alone."""
    pion = _mean(
        shoot_along_x("tile", -211, energy, n_pions, seed=seed, calibration_truth=False).signal
    )
    electron = _mean(
        shoot_along_x(
            "tile", 11, energy, n_electrons, seed=seed + 1, calibration_truth=False
        ).signal
    )
    ratio = pion.value / electron.value
    return Measured(
        ratio, ratio * float(np.hypot(pion.error / pion.value, electron.error / electron.value))
    )


def simulate_electron_resolution(n_events: int, *, seed: int, energy: float = 5.0) -> Measured:
    """Standard deviation over mean of the signal of e- in the slice, times sqrt(E / GeV): the
    sampling term.
    """
    signal = shoot_along_x("slice", 11, energy, n_events, seed=seed, calibration_truth=False).signal
    value = float(signal.std(ddof=1) / signal.mean() * np.sqrt(energy))
    return Measured(value, value / np.sqrt(2.0 * (n_events - 1)))


def simulate_speed(
    pdg_id: int, energy: float, n_events: int, *, seed: int, calibration_truth: bool = True
) -> SpeedReport:
    """Speed of one core in the slice, start-up not counted; energy in GeV."""
    shot = shoot_along_x(
        "slice", pdg_id, energy, n_events, seed=seed, calibration_truth=calibration_truth
    )
    return SpeedReport(energy * n_events / shot.seconds, shot.seconds)


def shoot_along_x(
    stack: str,
    pdg_id: int,
    energy: float,
    n_events: int,
    *,
    seed: int,
    calibration_truth: bool = True,
) -> Shot:
    """Shoot equal particles at normal incidence in a fresh process.

    Parameters
    ----------
    stack : str
        "slice", "tile" or "em3".
    pdg_id : int
    energy : float, GeV
        As in the rows of `Session.shoot`.
    n_events, seed : int
    calibration_truth : bool

    Raises
    ------
    ConfigError
        If Geant4 cannot run here.
    """
    data = find_data()
    job = json.dumps(
        [
            stack,
            pdg_id,
            energy,
            n_events,
            seed,
            calibration_truth,
            data.environment,
            data.synthetic,
            data.label,
        ]
    )
    code = f"from pfcalib.simulation.geant4.benchmarks import run_job; run_job({job!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    answer = next(
        (line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None
    )
    if done.returncode or answer is None:
        raise ConfigError(
            f"Geant4 ended with code {done.returncode}: "
            f"{(done.stderr.strip() or done.stdout.strip() or 'no message')[-500:]}"
        )
    found = json.loads(answer)
    signal, tally, unattributed = (
        np.array(found[name], dtype=np.float64) for name in ("signal", "tally", "unattributed")
    )
    return Shot(signal, tally, unattributed, found["seconds"], data.label)


def run_job(job: str) -> None:
    """Do what `shoot_along_x` asks for, print the answer as one line, and leave."""
    stack, pdg_id, energy, n_events, seed, calibration_truth, environment, synthetic, label = (
        json.loads(job)
    )
    grid, config = GRIDS[stack], Geant4Config(calibration_truth=calibration_truth)
    session = Session(
        grid, DataSets(environment, synthetic, label), config, stack=STACKS[stack](grid)
    )
    rows = np.tile([0.0, energy, 0.0, 0.0, 1.0, 0.0, 0.0], (n_events, 1))
    seeds = np.random.default_rng(seed).integers(1, 2**32, (n_events, 2))
    begin = time.process_time()
    hits = session.shoot(rows, np.full(n_events, pdg_id), seeds)
    seconds = time.process_time() - begin
    signal = np.add.reduceat(np.append(hits.signal, 0.0), hits.offsets[:-1]) * (
        np.diff(hits.offsets) > 0
    )
    answer = {"signal": signal, "tally": session.tally, "unattributed": session.unattributed}
    print(
        json.dumps(
            {**{name: array.tolist() for name, array in answer.items()}, "seconds": seconds}
        ),
        flush=True,
    )
    os._exit(0)


def _mean(values: NDArray[np.float64]) -> Measured:
    return Measured(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
