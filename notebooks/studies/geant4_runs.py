"""Equal particles shot by Geant4 straight into a stack of slabs: the reference slice, its Tile part
alone, or the calorimeter of Geant4's example TestEm3; each run in a process of its own, since
Geant4 allows one detector a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW, Grid, Layer
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import DataSets, find_data
from pfcalib.simulation.geant4.session import Session
from pfcalib.simulation.geant4.slice import em3_stack, tile_stack

EM3_GRID = Grid(
    "testem3",
    (Layer("Calorimeter", 1, 1.0, 401.0, 1, 1, 20.0, 2.0 * np.pi, 0.0, 0.0),),
    -10.0,
    -np.pi,
    True,
)
STACKS: dict[str, Any] = {
    "slice": (WINDOW, lambda grid: None),
    "tile": (BARREL, tile_stack),
    "em3": (EM3_GRID, lambda grid: em3_stack()),
}


class Shot(NamedTuple):
    """Equal particles along x shot in a process of their own."""

    signal: NDArray[np.float64]  # (n,) GeV at the EM scale
    tally: NDArray[np.float64]  # (n, n_layers, 2) GeV in absorbers and in active material
    unattributed: NDArray[np.float64]  # (n,) GeV
    seconds: float  # of processor time
    label: str


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
    code = f"from studies.geant4_runs import run_job; run_job({job!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
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
    (grid, build), data = STACKS[stack], DataSets(environment, synthetic, label)
    config = Geant4Config(calibration_truth=calibration_truth)
    session = Session(grid, data, config, stack=build(grid))
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
