"""Part of a sample, for a batch system: shard K of N holds consecutive chunks of events, so that
the N files together are the whole sample, cluster by cluster.

Each chunk has random streams of its own (`simulation.produce`), so a shard knows nothing of the
others.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pfcalib import __version__
from pfcalib.errors import ConfigError
from pfcalib.geometry import GRIDS
from pfcalib.samples.schema import CellGeo
from pfcalib.samples.write import SampleWriter
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.geant4.config import require_geant4
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.engine import describe_geant4, simulate_batches
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.produce import (
    GENERATOR,
    Chunk,
    ProduceConfig,
    Progress,
    produce_chunk,
    read_out,
    start_chunk,
)
from pfcalib.simulation.pythia import pythia_version, require_pythia


class Shard(NamedTuple):
    """One of several parts."""

    number: int  # from 1
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a text such as ``2/10``.

        Raises
        ------
        ConfigError
            If it is none.

        >>> Shard.parse("2/10")
        Shard(number=2, of=10)
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard must be K/N with 1 <= K <= N, such as 2/10, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def chunks(self, config: ProduceConfig) -> range:
        """Chunks of events that it holds.

        Raises
        ------
        ConfigError
            If there are more shards than chunks.
        """
        n_chunks = -(-config.n_events // config.chunk)
        if self.of > n_chunks:
            raise ConfigError(
                f"{config.n_events} events are {n_chunks} chunks of {config.chunk}: ask for at "
                f"most {n_chunks} shards, not {self.of}"
            )
        first, last = (n_chunks * k // self.of for k in (self.number - 1, self.number))
        return range(first, last)


def produce_shard(
    path: str | os.PathLike[str],
    config: ProduceConfig,
    shard: Shard,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write a shard of the sample that `simulation.produce.produce_sample` writes as a whole;
    returns its path. What Geant4 has shot is kept as there.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : ProduceConfig
        Of the whole sample.
    shard : Shard
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If there are more shards than chunks, or Geant4 or Pythia is asked for and not installed.
    """
    path, grid, numbers = Path(path), GRIDS[config.grid], shard.chunks(config)
    n_events = min(numbers.stop * config.chunk, config.n_events) - numbers.start * config.chunk
    progress = progress or (lambda n_events: None)
    settings = {**config.settings, "shard": list(shard)}
    metadata = {
        "generator": GENERATOR,
        "version": __version__,
        "seed": config.seed,
        "config": settings,
    }
    if config.dijets:
        require_pythia()
        metadata |= {"process": "dijets", "pythia": pythia_version()}
    parts = path.with_name(f"{path.name}.parts")
    chunks = _fast(config, numbers, progress)
    if config.engine == "geant4":
        require_geant4()
        metadata |= describe_geant4(find_data())
        chunks = _geant4(config, numbers, parts, progress)
    geo, n_with_cluster = CellGeo.from_grid(grid, noise_sigma(grid, config.noise_config)), 0
    with contextlib.closing(chunks), SampleWriter(path, geo, metadata) as writer:
        for chunk in chunks:
            writer.extend(*chunk)
            n_with_cluster += len(np.unique(chunk[0]["eventNumber"]))
        writer.metadata |= {
            "n_events": n_events,
            "n_events_without_cluster": n_events - n_with_cluster,
        }
    shutil.rmtree(parts, ignore_errors=True)
    return path


def _fast(
    config: ProduceConfig, numbers: range, progress: Progress
) -> Generator[Chunk, None, None]:
    """Chunks in order; with several processes a few are made ahead."""
    with contextlib.ExitStack() as stack:
        if config.n_processes > 1:
            pool = stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(
                    config.n_processes, mp_context=multiprocessing.get_context("spawn")
                )
            )
        waiting = list(numbers)
        pending: list[concurrent.futures.Future[Chunk]] = []
        for number in numbers:
            if config.n_processes == 1:
                yield produce_chunk(config, number)
            else:
                while waiting and len(pending) < 3 * config.n_processes:
                    pending.append(pool.submit(produce_chunk, config, waiting.pop(0)))
                yield pending.pop(0).result()
            progress(min(config.chunk, config.n_events - number * config.chunk))


def _geant4(
    config: ProduceConfig, numbers: range, parts: Path, progress: Progress
) -> Generator[Chunk, None, None]:
    """Chunks in order."""
    starts = [start_chunk(config, number) for number in numbers]
    shots = [build_shots(particles, rng, field=config.field) for particles, rng, _ in starts]
    batches = simulate_batches(
        shots, GRIDS[config.grid], parts, n_processes=config.n_processes, progress=progress
    )
    with contextlib.closing(batches):
        for number, batch, (particles, _, noise) in zip(numbers, batches, starts, strict=True):
            yield read_out(config, number, batch.hits, particles, noise)
