"""Runs of Geant4 whose answer is known: TestEm3, pions over electrons in the Tile part, and the
resolution of electrons.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import NamedTuple

import numpy as np

from pfcalib.metrics.curve import Estimate
from pfcalib.simulation.geant4 import benchmarks
from pfcalib.simulation.geant4.benchmarks import (
    EM3_LAR,
    EM3_LEAD,
    TILE_PI_OVER_E,
    Em3Report,
    Measured,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Events of the runs of Geant4 whose answer is known: TestEm3, pions in the Tile part,
    electrons of each energy (GeV) in the slice.
    """

    n_em3: int
    n_tile: int
    n_electrons: int
    electron_energies: tuple[float, ...]
    seed: int = 1


class Benchmarks(NamedTuple):
    """What Geant4 gives where the answer is known."""

    em3: Em3Report
    pi_over_e: Measured
    electrons: dict[float, Measured]  # sampling term, sqrt(GeV), by energy in GeV

    @property
    def em3_pulls(self) -> dict[str, float]:
        """Difference to the published energies of TestEm3 over the error of both."""
        parts = {"LAr": (self.em3.lar, EM3_LAR), "Pb": (self.em3.lead, EM3_LEAD)}
        return {
            part: (found.value - value) / float(np.hypot(found.error, error))
            for part, (found, (value, error)) in parts.items()
        }

    @property
    def stochastic_term(self) -> Estimate:
        """Mean of the sampling terms of the energies, weighted by their inverse variances."""
        weight = np.array([1.0 / one.error**2 for one in self.electrons.values()])
        return Estimate(
            float(weight @ [one.value for one in self.electrons.values()] / weight.sum()),
            float(weight.sum() ** -0.5),
        )

    def rows(self) -> list[list[str | float]]:
        """Rows of a table: quantity, value, error, what is known."""
        em3 = {"LAr": (self.em3.lar, EM3_LAR), "Pb": (self.em3.lead, EM3_LEAD)}
        rows: list[list[str | float]] = [
            [f"TestEm3, {part} [MeV]", *found, f"{known[0]} ± {known[1]}"]
            for part, (found, known) in em3.items()
        ]
        rows.append(["Tile alone, 10 GeV, pi/e", *self.pi_over_e, "{}–{}".format(*TILE_PI_OVER_E)])
        return rows + [
            [f"electrons, {energy:g} GeV, rms / mean x sqrt(E)", *one, "about 0.10"]
            for energy, one in self.electrons.items()
        ]


def run_benchmarks(config: BenchmarkConfig, *, n_processes: int) -> Benchmarks:
    """TestEm3, pi/e of the Tile part at 10 GeV and the resolution of electrons, `n_processes` at a
    time, each in a process of its own.
    """
    with concurrent.futures.ThreadPoolExecutor(n_processes) as pool:
        # electrons fluctuate less
        ratio = pool.submit(
            benchmarks.simulate_pi_over_e,
            config.n_tile,
            max(2, config.n_tile // 4),
            seed=config.seed,
        )
        energies = sorted(config.electron_energies)
        electrons = [
            pool.submit(
                benchmarks.simulate_electron_resolution,
                config.n_electrons,
                seed=config.seed,
                energy=energy,
            )
            for energy in energies
        ]
        em3 = pool.submit(benchmarks.simulate_em3, config.n_em3, seed=config.seed)
        return Benchmarks(
            em3.result(),
            ratio.result(),
            {energy: one.result() for energy, one in zip(energies, electrons, strict=True)},
        )
