"""The same pions through Geant4 and through the parametrised showers: made once and kept, with what
they cost and where their energy goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, new_file
from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW, Grid
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.fidelity import (
    Comparison,
    Moments,
    compare_showers,
    mean,
    shower_moments,
    simulate_copies,
)
from pfcalib.samples.showerfile import Showers, write_showers
from pfcalib.simulation.digitise import TRUTH, Hits
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.engine import describe_geant4, simulate_batches
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import Particles, simulate_gun
from pfcalib.simulation.produce import GENERATOR
from pfcalib.simulation.showers import simulate_showers

# where the energy goes; adds up to one
BUDGET = ("em", "non_em", "invisible", "escaped", "dead", "leak")

MIN_SHARE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class PionConfig:
    """Pions of one kind shot into the window.

    Parameters
    ----------
    name : str
        A gun of `simulation.particles`.
    n_events : int
    e_min, e_max : float, GeV
        Flat in log E.
    eta_max : float
        |eta| and |phi| are flat below it, as in the packaged sample.
    seed : int
    """

    name: str
    n_events: int
    e_min: float = 0.5
    e_max: float = 100.0
    eta_max: float = 0.05
    seed: int = 1

    def __post_init__(self) -> None:
        if self.n_events < 1:
            raise ConfigError(f"n_events must be at least 1, not {self.n_events}")
        if not 0.0 < self.eta_max < -WINDOW.eta_min:
            raise ConfigError(f"eta_max must lie in (0, {-WINDOW.eta_min}), not {self.eta_max}")


class Run(NamedTuple):
    """Pions and their showers by one engine, with the truth of the energy, and what they took."""

    particles: Particles
    hits: Hits
    job_energy: NDArray[np.float64]  # (n_jobs,) GeV
    job_seconds: NDArray[np.float64]  # (n_jobs,) processor time of one core
    generator: str

    @property
    def showers(self) -> Showers:
        """Without the truth of the cells."""
        p, hits = self.particles, self.hits
        return Showers(p.pdg_id, p.energy, p.eta, p.phi, hits.offsets, hits.cell, hits.signal)


def start_pions(config: PionConfig) -> tuple[Particles, np.random.Generator]:
    """Pions, and the generator with which either engine has to go on, so that both let the same
    pions decay alike.
    """
    gun, showers = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence([config.seed, *config.name.encode()]).spawn(2)
    )
    window = (-config.eta_max, config.eta_max)
    return simulate_gun(
        config.name,
        config.n_events,
        gun,
        energy=(config.e_min, config.e_max),
        eta=window,
        phi=window,
    ), showers


def simulate_fast(config: PionConfig, *, repeats: int = 3) -> Run:
    """The pions through the parametrised engine, `repeats` times after a first call that compiles;
    the hits are those of the first call.
    """
    particles, rng = start_pions(config)
    hits = simulate_showers(particles, WINDOW, rng)
    seconds = np.empty(repeats)
    for i in range(repeats):
        start = time.process_time()
        simulate_showers(particles, WINDOW, rng)
        seconds[i] = time.process_time() - start
    return Run(particles, hits, np.full(repeats, particles.energy.sum()), seconds, GENERATOR)


def simulate_geant4(
    config: PionConfig,
    *,
    n_processes: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """The pions through Geant4; made on first use, then read from the cache.

    Beside the showers with their truth, the cache holds them as a ROOT file for
    `samples.showerfile.read_showers`: study 01 takes it as ``geant4_file``. An interrupted call
    goes on where it stopped.

    Parameters
    ----------
    config : PionConfig
    n_processes : int
        Workers; the showers do not depend on it.
    cache_dir : path-like, optional
        By default `cache.cache_folder`.
    progress : callable, optional
        Called with the number of events finished since the last call.
    """
    data = find_data()
    key = cache_key("simulation", "geant4", config=config, geant4=Geant4Config(), data=data.label)
    path = (
        Path(cache_dir or cache_folder()) / "geant4" / f"{config.name}-{config.n_events}-{key}.root"
    )
    stored = path.with_suffix(".npz")
    particles, rng = start_pions(config)
    if not (path.exists() and stored.exists()):
        parts = path.with_suffix(".parts")
        with contextlib.closing(
            simulate_batches(
                [build_shots(particles, rng)],
                WINDOW,
                parts,
                n_processes=n_processes,
                progress=progress,
            )
        ) as batches:
            batch = next(batches)
        run = Run(particles, *batch, data.label)
        write_showers(
            path,
            run.showers,
            WINDOW,
            describe_geant4(data) | {"config": dataclasses.asdict(config)},
        )
        _store(stored, run)
        shutil.rmtree(parts, ignore_errors=True)
    return _load(stored, particles, data.label)


def _store(path: Path, run: Run) -> None:
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, **run.hits._asdict(), job_energy=run.job_energy, job_seconds=run.job_seconds
        )


def _load(path: Path, particles: Particles, generator: str) -> Run:
    with np.load(path, allow_pickle=False) as file:
        return Run(
            particles,
            Hits(*(file[name] for name in Hits._fields)),
            file["job_energy"],
            file["job_seconds"],
            generator,
        )


def speed(runs: Sequence[Run]) -> Estimate:
    """GeV a second of processor time of one core over several runs; the error is that of a ratio of
    sums over the jobs.
    """
    energy, seconds = (
        np.concatenate([getattr(run, name) for run in runs])
        for name in ("job_energy", "job_seconds")
    )
    rate, n = float(energy.sum() / seconds.sum()), len(energy)
    return Estimate(
        rate,
        float(np.std(energy - rate * seconds, ddof=1) * np.sqrt(n) / seconds.sum())
        if n > 1
        else float("nan"),
    )


@dataclasses.dataclass(frozen=True)
class Contest:
    """Pions of one kind by both engines, their moments and how these compare."""

    geant4: Run
    fast: Showers  # `copies` of each pion
    fast_hits: Hits
    moments: tuple[Moments, Moments]  # of the parametrised engine and of Geant4
    comparisons: list[Comparison]

    @property
    def showers(self) -> tuple[Showers, Showers]:
        """Of the parametrised engine and of Geant4."""
        return self.fast, self.geant4.showers

    @property
    def within(self) -> float:
        """Share of all comparisons that lie within their limits."""
        return float(
            sum(c.within.sum() for c in self.comparisons)
            / sum(c.compared.sum() for c in self.comparisons)
        )


def compare_engines(
    run: Run,
    edges: Sequence[float],
    rng: np.random.Generator,
    *,
    copies: int,
    sigma: NDArray[np.float64],
    response_limit: float,
) -> Contest:
    """The pions of a run of Geant4, each `copies` times through the parametrised engine, compared
    in bins of energy.

    Parameters
    ----------
    run : Run
    edges : sequence of float, GeV
    rng : numpy.random.Generator
        Source of the parametrised showers.
    copies : int
    sigma : ndarray, shape (n_cells,), GeV
        Noise of the cells of the window.
    response_limit : float
        Tolerated relative difference of the mean response.
    """
    fast, hits = simulate_copies(run.showers, WINDOW, rng, copies=copies)
    moments = shower_moments(fast, WINDOW, sigma), shower_moments(run.showers, WINDOW, sigma)
    comparisons = compare_showers(
        moments[0],
        fast.e_true,
        moments[1],
        run.particles.energy,
        edges,
        response_limit=response_limit,
    )
    return Contest(run, fast, hits, moments, comparisons)


def energy_budget(hits: Hits) -> dict[str, NDArray[np.float64]]:
    """Shares of the energy of each event by BUDGET, each of shape (n_events,)."""
    shares = {name: np.bincount(hits.event, getattr(hits, name), hits.n_events) for name in TRUTH}
    return {
        name: part / hits.e_total
        for name, part in (shares | {"dead": hits.e_dead, "leak": hits.e_leak}).items()
    }


def mean_budget(hits: Hits, edges: Sequence[float]) -> dict[str, list[Estimate]]:
    """Mean share of each part of the budget in bins of the energy in GeV; NaN in a bin with too few
    events.
    """
    place = np.digitize(hits.e_total, edges) - 1
    return {
        name: [mean(share[place == b]) for b in range(len(edges) - 1)]
        for name, share in energy_budget(hits).items()
    }


def worst_difference(
    one: Mapping[str, Sequence[Estimate]], two: Mapping[str, Sequence[Estimate]]
) -> Estimate:
    """Largest difference of two mean budgets over parts and bins, and its statistical error."""
    values = np.array(
        [
            [
                (abs(a.value - b.value), np.hypot(a.error, b.error))
                for a, b in zip(one[name], two[name], strict=True)
            ]
            for name in BUDGET
        ]
    )
    difference, error = values.reshape(-1, 2).T
    place = int(np.nanargmax(difference))
    return Estimate(float(difference[place]), float(error[place]))


def layer_profile(
    showers: Showers, grid: Grid, e_range: tuple[float, float]
) -> NDArray[np.float64]:
    """Mean over the showers of a range of energies in GeV of the EM-scale energy in each layer over
    the true energy, shape (n_layers,).
    """
    inside = (showers.e_true >= e_range[0]) & (showers.e_true < e_range[1])
    event = np.repeat(np.arange(len(inside)), np.diff(showers.offsets))
    weight = np.where(inside, 1.0 / showers.e_true, 0.0)[event] * showers.signal
    return np.asarray(
        np.bincount(grid.layer[showers.cell], weight, grid.n_layers) / max(int(inside.sum()), 1),
        dtype=np.float64,
    )


def compare_with(
    contest: Contest, other: Showers, edges: Sequence[float], *, sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pulls, (Geant4 of the contest - other) / error, of all that
    `metrics.fidelity.compare_showers` compares; shape (n,).

    Showers outside the bins are left out, and so are shares of layers below MIN_SHARE: a few
    showers make them up, and their errors are far from Gaussian.
    """
    energy = contest.geant4.particles.energy
    compared = compare_showers(
        contest.moments[1], energy, shower_moments(other, WINDOW, sigma), other.e_true, edges
    )
    kept = [c.compared & ((c.quantity != "share") | (c.geant4.value > MIN_SHARE)) for c in compared]
    return np.concatenate(
        [(c.deviation.value / c.deviation.error)[k] for c, k in zip(compared, kept, strict=True)]
    )
