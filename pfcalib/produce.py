"""From particles to a sample file: shoot, shower, digitise, cluster and write, in chunks that any number of processes share.

Each chunk of events has random streams of its own, spawned from the seed and the chunk's number, so the clusters do not depend on the number
of processes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib import __version__
from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.clustering.truth import cluster_truth
from pfcalib.columns import COLUMNS
from pfcalib.errors import ConfigError
from pfcalib.geometry import GRIDS, Grid
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.showers import Showers
from pfcalib.samples.write import SampleWriter
from pfcalib.simulation.digitise import NOISE_SETTINGS, NoiseConfig, digitise, noise_sigma
from pfcalib.simulation.hits import Hits
from pfcalib.simulation.particles import GUNS, Particles, simulate_gun
from pfcalib.simulation.showers import simulate_showers

GENERATOR = "pfcalib simulation"
FIELD = 2.0  # tesla
MIN_CLUSTER_E = 0.1  # GeV, clusters below it are counted in nCluster but not written

Chunk = tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[str, NDArray[Any]]]  # scalars, offsets, cells of clusters


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProduceConfig:
    """What to shoot and how to read it out.

    Parameters
    ----------
    n_events : int
        One particle each.
    particles : tuple of str
        Species of `simulation.particles.GUNS`, drawn with equal shares.
    e_min, e_max : float, GeV
        Range of the total energy, flat in its logarithm.
    eta_max : float
        |eta| at the origin is flat below it; |phi| likewise on a grid that does not close, else phi is flat.
    grid : str
        ``barrel`` (64,000 cells, 2 T) or ``window`` (the 1,000 cells of the Geant4 reference, no field).
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.
    mu : float, optional
        Mean number of interactions a crossing; by default that of the setting.
    seed, n_processes, chunk : int
        The sample depends on the seed and on the events a chunk, not on the number of processes.
    """

    n_events: int
    particles: tuple[str, ...] = ("pi0", "pi+", "pi-")
    e_min: float = 0.2
    e_max: float = 2000.0
    eta_max: float = 0.7
    grid: str = "barrel"
    noise: str = "nominal"
    mu: float | None = None
    seed: int = 1
    n_processes: int = 1
    chunk: int = 64

    def __post_init__(self) -> None:
        for name, value, allowed in (("grid", self.grid, GRIDS), ("noise", self.noise, NOISE_SETTINGS)):
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if unknown := set(self.particles) - set(GUNS):
            raise ConfigError(f"unknown particles {sorted(unknown)}; there are {', '.join(GUNS)}")
        if not self.particles or self.n_events < 1 or self.chunk < 1 or self.n_processes < 1:
            raise ConfigError("particles must not be empty; n_events, chunk and n_processes must be at least 1")
        if not 0.2 <= self.e_min <= self.e_max:
            raise ConfigError(f"energies must satisfy 0.2 GeV <= e_min <= e_max, not {self.e_min}, {self.e_max}")
        if self.mu is not None and self.mu < 0.0:
            raise ConfigError(f"mu must be at least 0, not {self.mu}")
        limit = -GRIDS[self.grid].eta_min
        if not 0.0 <= self.eta_max < limit:
            raise ConfigError(f"eta_max must lie in [0, {limit}) on the grid {self.grid!r}, not {self.eta_max}")

    @property
    def noise_config(self) -> NoiseConfig:
        setting = NOISE_SETTINGS[self.noise]
        return setting if self.mu is None else dataclasses.replace(setting, mu=self.mu)


def shoot(config: ProduceConfig, n_events: int, rng: np.random.Generator) -> Particles:
    """Particles of one chunk: every species with equal probability."""
    grid = GRIDS[config.grid]
    phi = (-np.pi, np.pi) if grid.wraps else (-config.eta_max, config.eta_max)
    window = {"energy": (config.e_min, config.e_max), "eta": (-config.eta_max, config.eta_max), "phi": phi}
    species = rng.integers(len(config.particles), size=n_events)
    guns = [simulate_gun(name, n_events, rng, **window) for name in config.particles]
    columns = [np.choose(species, [getattr(gun, field) for gun in guns]) for field in Particles._fields[1:]]
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
    cells |= {"cluster_cell_ID": clusters.cell, "cluster_cell_E": energy[entry_event, clusters.cell] * clusters.weight}
    keep = scalars["clusterE"] > MIN_CLUSTER_E
    kept_cells = np.repeat(keep, size)
    offsets = np.concatenate([[0], np.cumsum(size[keep])]).astype(np.int64)
    return {k: v[keep] for k, v in scalars.items()}, offsets, {k: v[kept_cells] for k, v in cells.items()}


def produce_chunk(config: ProduceConfig, number: int) -> Chunk:
    """Clusters of one chunk of events."""
    first = number * config.chunk
    n_events = min(config.chunk, config.n_events - first)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(3)]
    grid = GRIDS[config.grid]
    particles = shoot(config, n_events, streams[0])
    hits = simulate_showers(particles, grid, streams[1], field=FIELD if grid.wraps else 0.0)
    return cluster_hits(hits, particles, grid, noise_sigma(grid, config.noise_config), streams[2], first_event=first)


def produce_sample(path: str | os.PathLike[str], config: ProduceConfig, *, progress: Callable[[int], None] | None = None) -> Path:
    """Write a sample; returns its path.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : ProduceConfig
    progress : callable, optional
        Called with the number of events finished since the last call.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = GRIDS[config.grid]
    geo = CellGeo.from_grid(grid, noise_sigma(grid, config.noise_config))
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "n_processes"}
    metadata = {"generator": GENERATOR, "version": __version__, "seed": config.seed, "config": settings}
    n_chunks = -(-config.n_events // config.chunk)
    with SampleWriter(path, geo, metadata) as writer:
        for number, chunk in enumerate(_chunks(config, n_chunks)):
            writer.extend(*chunk)
            if progress is not None:
                progress(min(config.chunk, config.n_events - number * config.chunk))
    return path


def _hash_sources() -> bytes:
    """Hash of all code that makes samples."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    parts = ("simulation/*.py", "clustering/*.py", "samples/write.py", "columns.py", "geometry.py", "produce.py")
    for source in sorted(source for part in parts for source in package.glob(part)):
        digest.update(source.read_bytes())
    return digest.digest()


SOURCES = _hash_sources()  # at import: what runs, even if the files change meanwhile


def cached_sample(config: ProduceConfig, *, cache_dir: str | os.PathLike[str] | None = None, progress: Callable[[int], None] | None = None) -> Path:
    """Path of the sample of a configuration, made on first use.

    The name of the file holds a hash of the configuration and of the code that makes samples, so a change of either makes a new one.

    Parameters
    ----------
    config : ProduceConfig
    cache_dir : path-like, optional
        By default $PFCALIB_CACHE, else ~/.cache/pfcalib.
    progress : callable, optional
        See `produce_sample`.
    """
    folder = Path(cache_dir or os.environ.get("PFCALIB_CACHE") or Path.home() / ".cache" / "pfcalib")
    settings = dataclasses.asdict(config) | {"n_processes": 1}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + SOURCES)
    path = folder / f"{config.grid}-{config.n_events}-{digest.hexdigest()[:16]}.root"
    return path if path.exists() else produce_sample(path, config, progress=progress)


def cluster_showers(showers: Showers, grid: Grid, rng: np.random.Generator, *, generator: str, noise: NoiseConfig) -> Sample:
    """Clusters of noise-free showers, such as the packaged Geant4 ones, with noise added, as a sample in memory.

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
    hits = Hits(showers.offsets, showers.cell, showers.signal, nothing, nothing, nothing, nothing, per_event, per_event, showers.e_true, per_event)
    particles = Particles(np.arange(n), showers.pdg_id, showers.e_true, showers.eta, showers.phi)
    scalars, offsets, cells = cluster_hits(hits, particles, grid, sigma, rng)
    scalars, cells = ({k: v.astype(COLUMNS[k].numpy_dtype) for k, v in columns.items()} for columns in (scalars, cells))
    return Sample(scalars, offsets, cells, CellGeo.from_grid(grid, sigma), {"generator": generator, "calibration truth": "none"})


def _chunks(config: ProduceConfig, n_chunks: int) -> Iterator[Chunk]:
    """All chunks in order; with several processes a few are made ahead."""
    if config.n_processes == 1:
        yield from (produce_chunk(config, number) for number in range(n_chunks))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(config.n_processes, mp_context=context) as pool:
        ahead = 3 * config.n_processes
        pending = [pool.submit(produce_chunk, config, number) for number in range(min(ahead, n_chunks))]
        for number in range(n_chunks):
            yield pending.pop(0).result()
            if number + ahead < n_chunks:
                pending.append(pool.submit(produce_chunk, config, number + ahead))
