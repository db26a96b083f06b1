"""From particles to a sample file: shoot, shower, digitise, cluster and write, in chunks that any
number of processes share.

Each chunk of events has random streams of its own, spawned from the seed and the chunk's number, so
the clusters do not depend on the number of processes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib import __version__
from pfcalib.cache import cache_folder, cache_key
from pfcalib.clustering.deposits import cluster_truth
from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.columns import COLUMNS
from pfcalib.geometry import GRIDS, Grid
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.showerfile import Showers
from pfcalib.samples.write import SampleWriter
from pfcalib.simulation.digitise import NoiseConfig, digitise, noise_sigma
from pfcalib.simulation.geant4.config import require_geant4
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.engine import describe_geant4, simulate_batches
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.hits import Hits
from pfcalib.simulation.particles import Particles, simulate_gun
from pfcalib.simulation.produce_config import ProduceConfig
from pfcalib.simulation.showers import simulate_showers

GENERATOR = "pfcalib simulation"
FIELD = 2.0  # tesla
MIN_CLUSTER_E = 0.1  # GeV, clusters below it are counted in nCluster but not written

Progress = Callable[[int], None]
# scalars, offsets, cells of clusters
Chunk = tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[str, NDArray[Any]]]


def shoot(config: ProduceConfig, n_events: int, rng: np.random.Generator) -> Particles:
    """Particles of one chunk: every species with equal probability."""
    grid = GRIDS[config.grid]
    phi = (-np.pi, np.pi) if grid.wraps else (-config.eta_max, config.eta_max)
    window = {
        "energy": (config.e_min, config.e_max),
        "eta": (-config.eta_max, config.eta_max),
        "phi": phi,
    }
    species = rng.integers(len(config.particles), size=n_events)
    guns = [simulate_gun(name, n_events, rng, **window) for name in config.particles]
    columns = [
        np.choose(species, [getattr(gun, field) for gun in guns]) for field in Particles._fields[1:]
    ]
    return Particles(np.arange(n_events), *columns)


def cluster_hits(
    hits: Hits, particles: Particles, grid: Grid, sigma: NDArray[np.float64], rng: np.random.Generator, *,
    first_event: int = 0, topo: TopoConfig | None = None,
) -> Chunk:  # fmt: skip
    """Clusters of a batch of events with one particle each, in the columns of a sample.

    Parameters
    ----------
    hits : Hits
    particles : Particles
        What was shot, one an event.
    grid : Grid
    sigma : ndarray, shape (n_cells,), GeV
        Noise of each cell.
    rng : numpy.random.Generator
        Source of the noise.
    first_event : int
        Number of the first event.
    topo : TopoConfig, optional

    Returns
    -------
    scalars, offsets, cells
        As `samples.write.SampleWriter.extend` takes them; only clusters above MIN_CLUSTER_E.
    """
    energy = digitise(hits, grid, sigma, rng)
    clusters = find_clusters(energy, sigma, grid, topo)
    scalars: dict[str, NDArray[Any]] = dict(cluster_moments(clusters, energy, sigma, grid))
    truth, cells = cluster_truth(clusters, hits)
    scalars |= truth
    event, size = clusters.event, np.diff(clusters.offsets)
    n_cluster = np.bincount(event, minlength=hits.n_events)
    scalars |= {
        "eventNumber": first_event + event,
        "truthPdgId": particles.pdg_id[event],
        "truthE": particles.energy[event],
        "truthPt": particles.energy[event] / np.cosh(particles.eta[event]),
        "truthEta": particles.eta[event],
        "truthPhi": particles.phi[event],
        "nCluster": n_cluster[event],
        "clusterIndex": np.arange(len(event)) - np.concatenate([[0], np.cumsum(n_cluster)])[event],
    }
    entry_event = np.repeat(event, size)
    cells |= {
        "cluster_cell_ID": clusters.cell,
        "cluster_cell_E": energy[entry_event, clusters.cell] * clusters.weight,
    }
    keep = scalars["clusterE"] > MIN_CLUSTER_E
    kept_cells = np.repeat(keep, size)
    offsets = np.concatenate([[0], np.cumsum(size[keep])]).astype(np.int64)
    return (
        {k: v[keep] for k, v in scalars.items()},
        offsets,
        {k: v[kept_cells] for k, v in cells.items()},
    )


class _Start(NamedTuple):
    """Particles of a chunk and the random streams for the rest of it."""

    first_event: int
    particles: Particles
    showers: np.random.Generator
    noise: np.random.Generator


def _start(config: ProduceConfig, number: int) -> _Start:
    first = number * config.chunk
    guns, showers, noise = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(3)
    )
    return _Start(
        first, shoot(config, min(config.chunk, config.n_events - first), guns), showers, noise
    )


def _read_out(config: ProduceConfig, start: _Start, hits: Hits) -> Chunk:
    grid = GRIDS[config.grid]
    sigma = noise_sigma(grid, config.noise_config)
    return cluster_hits(
        hits,
        start.particles,
        grid,
        sigma,
        start.noise,
        first_event=start.first_event,
        topo=config.topo_config,
    )


def produce_chunk(config: ProduceConfig, number: int) -> Chunk:
    """Clusters of one chunk of events by the fast engine."""
    start = _start(config, number)
    return _read_out(
        config,
        start,
        simulate_showers(start.particles, GRIDS[config.grid], start.showers, field=_field(config)),
    )


def produce_sample(
    path: str | os.PathLike[str], config: ProduceConfig, *, progress: Progress | None = None
) -> Path:
    """Write a sample; returns its path.

    What Geant4 has shot is kept in a folder ``<path>.parts`` until the sample is complete, so that
    an interrupted call goes on there.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : ProduceConfig
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If Geant4 is asked for and not installed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = GRIDS[config.grid]
    geo = CellGeo.from_grid(grid, noise_sigma(grid, config.noise_config))
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "n_processes"}
    metadata = {
        "generator": GENERATOR,
        "version": __version__,
        "seed": config.seed,
        "config": settings,
    }
    progress = progress or (lambda n_events: None)
    parts = path.with_name(f"{path.name}.parts")
    if config.engine == "geant4":
        require_geant4()
        metadata |= describe_geant4(find_data())
        chunks = _geant4_chunks(config, parts, progress)
    else:
        chunks = _fast_chunks(config, progress)
    with contextlib.closing(chunks), SampleWriter(path, geo, metadata) as writer:
        for chunk in chunks:
            writer.extend(*chunk)
    shutil.rmtree(parts, ignore_errors=True)
    return path


def cached_sample(
    config: ProduceConfig,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Path of the sample of a configuration, made on first use.

    The name of the file holds a key of the configuration and of the versions of simulation and
    clustering, so a change of either makes a new one.

    Parameters
    ----------
    config : ProduceConfig
    cache_dir : path-like, optional
        By default `cache.cache_folder`.
    progress : callable, optional
        See `produce_sample`.
    """
    settings = dataclasses.asdict(config) | {"n_processes": 1}
    stages, data = ("simulation", "clustering"), {}
    if config.engine == "geant4":
        stages, data = (*stages, "geant4"), {"data": find_data().label}
    path = (
        Path(cache_dir or cache_folder())
        / f"{config.grid}-{config.n_events}-{cache_key(*stages, config=settings, **data)}.root"
    )
    return path if path.exists() else produce_sample(path, config, progress=progress)


def cluster_showers(
    showers: Showers, grid: Grid, rng: np.random.Generator, *, generator: str, noise: NoiseConfig
) -> Sample:
    """Clusters of noise-free showers, such as the packaged Geant4 ones, with noise added, as a
    sample in memory.

    Such files hold no calibration truth: the columns of it are zero.

    Parameters
    ----------
    showers : Showers
    grid : Grid
    rng : numpy.random.Generator
        Source of the noise.
    generator : str
        What made the showers; kept in the metadata.
    noise : NoiseConfig
    """
    n, nothing, sigma = len(showers.e_true), np.zeros(len(showers.cell)), noise_sigma(grid, noise)
    per_event = np.zeros(n)
    hits = Hits(
        showers.offsets,
        showers.cell,
        showers.signal,
        nothing,
        nothing,
        nothing,
        nothing,
        per_event,
        per_event,
        showers.e_true,
        per_event,
    )
    particles = Particles(np.arange(n), showers.pdg_id, showers.e_true, showers.eta, showers.phi)
    scalars, offsets, cells = cluster_hits(hits, particles, grid, sigma, rng)
    scalars, cells = (
        {k: v.astype(COLUMNS[k].numpy_dtype) for k, v in columns.items()}
        for columns in (scalars, cells)
    )
    return Sample(
        scalars,
        offsets,
        cells,
        CellGeo.from_grid(grid, sigma),
        {"generator": generator, "calibration truth": "none"},
    )


def _fast_chunks(config: ProduceConfig, progress: Progress) -> Generator[Chunk, None, None]:
    """All chunks in order; with several processes a few are made ahead."""
    n_chunks = -(-config.n_events // config.chunk)
    with contextlib.ExitStack() as stack:
        if config.n_processes == 1:
            chunks: Iterator[Chunk] = (produce_chunk(config, number) for number in range(n_chunks))
        else:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(config.n_processes, mp_context=context)
            )
            chunks = _ahead(pool, config, n_chunks)
        for number, chunk in enumerate(chunks):
            yield chunk
            progress(min(config.chunk, config.n_events - number * config.chunk))


def _ahead(
    pool: concurrent.futures.Executor, config: ProduceConfig, n_chunks: int
) -> Iterator[Chunk]:
    ahead = 3 * config.n_processes
    pending = [pool.submit(produce_chunk, config, number) for number in range(min(ahead, n_chunks))]
    for number in range(n_chunks):
        yield pending.pop(0).result()
        if number + ahead < n_chunks:
            pending.append(pool.submit(produce_chunk, config, number + ahead))


def _geant4_chunks(
    config: ProduceConfig, parts: Path, progress: Progress
) -> Generator[Chunk, None, None]:
    """All chunks in order, from the particles that the fast engine would shower."""
    starts = [_start(config, number) for number in range(-(-config.n_events // config.chunk))]
    shots = [build_shots(start.particles, start.showers, field=_field(config)) for start in starts]
    batches = simulate_batches(
        shots, GRIDS[config.grid], parts, n_processes=config.n_processes, progress=progress
    )
    with contextlib.closing(batches):
        for start, batch in zip(starts, batches, strict=True):
            yield _read_out(config, start, batch.hits)


def _field(config: ProduceConfig) -> float:
    return FIELD if GRIDS[config.grid].wraps else 0.0
