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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfcalib import __version__
from pfcalib.cache import cache_folder, cache_key, one_maker
from pfcalib.clustering.deposits import cluster_truth
from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.columns import COLUMNS
from pfcalib.errors import ConfigError
from pfcalib.geometry import GRIDS, WINDOW, Grid
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.showerfile import Showers, read_showers
from pfcalib.samples.write import SampleWriter, write_sample
from pfcalib.simulation.digitise import NOISE_SETTINGS, Hits, NoiseConfig, digitise, noise_sigma
from pfcalib.simulation.geant4.config import require_geant4
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.engine import describe_geant4, simulate_batches
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import GUNS, Particles, simulate_gun
from pfcalib.simulation.pythia import (
    DijetConfig,
    nearest_particles,
    pythia_version,
    require_pythia,
    simulate_dijets,
)
from pfcalib.simulation.showers import simulate_showers

GENERATOR = "pfcalib simulation"
ENGINES = ("fast", "geant4")
FIELD = 2.0  # tesla, in a grid that closes in azimuth
MIN_CLUSTER_E = 0.1  # GeV, clusters below it are counted in nCluster but not written
OF_GUNS = ("particles", "e_min", "e_max", "eta_max")  # settings without a meaning for dijets

Progress = Callable[[int], None]
# scalars, offsets, cells of clusters
Chunk = tuple[dict[str, NDArray[Any]], NDArray[np.int64], dict[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProduceConfig:
    """What to shoot and how to read it out.

    Parameters
    ----------
    n_events : int
        One particle each, or a dijet.
    particles : tuple of str
        Species of `simulation.particles.GUNS`, drawn with equal shares.
    e_min, e_max : float, GeV
        Range of the total energy, flat in its logarithm.
    eta_max : float
        |eta| at the origin is flat below it; |phi| likewise on a grid that does not close, else phi
        is flat.
    dijets : DijetConfig, optional
        Dijets of Pythia in place of the particles above, on the barrel.
    engine : str
        ``fast``, the parametrised showers, or ``geant4``; the particles of a seed are the same.
    grid : str
        ``barrel`` (64,000 cells, 2 T) or ``window`` (the 1,000 cells of the Geant4 reference, no
        field).
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.
    mu : float, optional
        Mean number of interactions a crossing; by default that of the setting.
    thresholds : (float, float, float)
        Noise cuts of the clustering: seed, growth and boundary, in units of the noise of a cell.
    seed, n_processes, chunk : int
        The sample depends on the seed and on the events a chunk, not on the number of processes.
        Each chunk of dijets starts Pythia anew (0.4 s).
    """

    n_events: int
    particles: tuple[str, ...] = ("pi0", "pi+", "pi-")
    e_min: float = 0.2
    e_max: float = 2000.0
    eta_max: float = 0.7
    dijets: DijetConfig | None = None
    engine: str = "fast"
    grid: str = "barrel"
    noise: str = "nominal"
    mu: float | None = None
    thresholds: tuple[float, float, float] = (4.0, 2.0, 0.0)
    seed: int = 1
    n_processes: int = 1
    chunk: int = 64

    def __post_init__(self) -> None:
        choices = (
            ("engine", self.engine, ENGINES),
            ("grid", self.grid, GRIDS),
            ("noise", self.noise, NOISE_SETTINGS),
        )
        for name, value, allowed in choices:
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if unknown := set(self.particles) - set(GUNS):
            raise ConfigError(f"unknown particles {sorted(unknown)}; there are {', '.join(GUNS)}")
        if not self.particles or self.n_events < 1 or self.chunk < 1 or self.n_processes < 1:
            raise ConfigError(
                "particles must not be empty; n_events, chunk and n_processes must be at least 1"
            )
        if not 0.2 <= self.e_min <= self.e_max:
            raise ConfigError(
                f"energies must satisfy 0.2 GeV <= e_min <= e_max, not {self.e_min}, {self.e_max}"
            )
        if self.mu is not None and self.mu < 0.0:
            raise ConfigError(f"mu must be at least 0, not {self.mu}")
        if len(self.thresholds) != 3:
            raise ConfigError(
                f"thresholds must be three, seed, growth and boundary, not {self.thresholds}"
            )
        _ = self.topo_config  # refuses thresholds that do not fall
        if self.dijets is not None and self.grid != "barrel":
            raise ConfigError(f"dijets need the grid 'barrel', not {self.grid!r}")
        limit = -GRIDS[self.grid].eta_min
        if not 0.0 <= self.eta_max < limit:
            raise ConfigError(
                f"eta_max must lie in [0, {limit}) on the grid {self.grid!r}, not {self.eta_max}"
            )

    @property
    def noise_config(self) -> NoiseConfig:
        setting = NOISE_SETTINGS[self.noise]
        return setting if self.mu is None else dataclasses.replace(setting, mu=self.mu)

    @property
    def topo_config(self) -> TopoConfig:
        seed, growth, boundary = self.thresholds
        return TopoConfig(seed=seed, growth=growth, boundary=boundary)

    @property
    def field(self) -> float:
        """Solenoid in tesla."""
        return FIELD if GRIDS[self.grid].wraps else 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides on the sample, for its metadata and its key."""
        unused = OF_GUNS if self.dijets else ("dijets",)
        every = dataclasses.asdict(self)
        return {k: v for k, v in every.items() if k not in ("n_processes", *unused)}


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
    hits: Hits,
    particles: Particles,
    grid: Grid,
    sigma: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    first_event: int = 0,
    topo: TopoConfig | None = None,
) -> Chunk:
    """Clusters of a batch of events, in the columns of a sample.

    The truth of a cluster is the particle of its event that explains it, see
    `simulation.pythia.nearest_particles`. Energy out of clusters and in dead material is shared
    among all clusters of the event, so in jets it says little about one of them.

    Parameters
    ----------
    hits : Hits
    particles : Particles
        What was shot, at least one an event.
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
    event, size = clusters.event, np.diff(clusters.offsets)
    n_cluster = np.bincount(event, minlength=hits.n_events)
    scalars |= truth | {
        "eventNumber": first_event + event,
        "nCluster": n_cluster[event],
        "clusterIndex": np.arange(len(event)) - np.concatenate([[0], np.cumsum(n_cluster)])[event],
    }
    cells |= {
        "cluster_cell_ID": clusters.cell,
        "cluster_cell_E": energy[np.repeat(event, size), clusters.cell] * clusters.weight,
    }
    keep = scalars["clusterE"] > MIN_CLUSTER_E
    kept_cells = np.repeat(keep, size)
    offsets = np.concatenate([[0], np.cumsum(size[keep])]).astype(np.int64)
    scalars = {k: v[keep] for k, v in scalars.items()}
    place = scalars["clusterEta"], scalars["clusterPhi"]
    field = FIELD if grid.wraps else 0.0
    nearest = nearest_particles(particles, event[keep], *place, field=field)
    found = Particles._make(values[nearest] for values in particles)
    scalars |= {
        "truthPdgId": found.pdg_id,
        "truthE": found.energy,
        "truthPt": found.energy / np.cosh(found.eta),
        "truthEta": found.eta,
        "truthPhi": found.phi,
    }
    return scalars, offsets, {k: v[kept_cells] for k, v in cells.items()}


def start_chunk(
    config: ProduceConfig, number: int
) -> tuple[Particles, np.random.Generator, np.random.Generator]:
    """Particles of a chunk, and the random streams of its showers and of its noise."""
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    source, showers, noise = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(3)
    )
    if config.dijets:
        return simulate_dijets(n_events, source, config.dijets, field=config.field), showers, noise
    return shoot(config, n_events, source), showers, noise


def read_out(
    config: ProduceConfig, number: int, hits: Hits, particles: Particles, noise: np.random.Generator
) -> Chunk:
    """Clusters of a chunk of showers."""
    grid = GRIDS[config.grid]
    return cluster_hits(
        hits,
        particles,
        grid,
        noise_sigma(grid, config.noise_config),
        noise,
        first_event=number * config.chunk,
        topo=config.topo_config,
    )


def produce_chunk(config: ProduceConfig, number: int) -> Chunk:
    """Clusters of one chunk of events by the fast engine."""
    particles, showers, noise = start_chunk(config, number)
    hits = simulate_showers(particles, GRIDS[config.grid], showers, field=config.field)
    return read_out(config, number, hits, particles, noise)


def produce_sample(
    path: str | os.PathLike[str], config: ProduceConfig, *, progress: Progress | None = None
) -> Path:
    """Write a sample; returns its path.

    Events without a cluster above MIN_CLUSTER_E leave nothing in the file; the metadata count them,
    ``n_events_without_cluster`` of ``n_events``. What Geant4 has shot is kept in a folder
    ``<path>.parts`` until the sample is complete, so that an interrupted call goes on there.

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
        If Geant4 or Pythia is asked for and not installed.
    """
    path, grid = Path(path), GRIDS[config.grid]
    progress = progress or (lambda n_events: None)
    metadata = {
        "generator": GENERATOR,
        "version": __version__,
        "seed": config.seed,
        "config": config.settings,
    }
    if config.dijets:
        require_pythia()
        metadata |= {"process": "dijets", "pythia": pythia_version()}
    parts = path.with_name(f"{path.name}.parts")
    chunks = _fast_chunks(config, progress)
    if config.engine == "geant4":
        require_geant4()
        metadata |= describe_geant4(find_data())
        chunks = _geant4_chunks(config, parts, progress)
    geo, n_with_cluster = CellGeo.from_grid(grid, noise_sigma(grid, config.noise_config)), 0
    with contextlib.closing(chunks), SampleWriter(path, geo, metadata) as writer:
        for chunk in chunks:
            writer.extend(*chunk)
            n_with_cluster += len(np.unique(chunk[0]["eventNumber"]))
        writer.metadata |= {
            "n_events": config.n_events,
            "n_events_without_cluster": config.n_events - n_with_cluster,
        }
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
    stages, versions = ["simulation", "clustering"], {}
    if config.engine == "geant4":
        stages, versions = [*stages, "geant4"], {"data": find_data().label}
    if config.dijets:
        require_pythia()
        stages, versions = [*stages, "pythia"], versions | {"pythia8": pythia_version()}
    key = cache_key(*stages, config=config.settings, **versions)
    name = f"{'dijets' if config.dijets else config.grid}-{config.n_events}-{key}.root"
    path = Path(cache_dir or cache_folder()) / name
    with one_maker(path):
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
    n, sigma = len(showers.e_true), noise_sigma(grid, noise)
    nothing, per_event = np.zeros(len(showers.cell)), np.zeros(n)
    truth = nothing, nothing, nothing, nothing, per_event, per_event, showers.e_true, per_event
    hits = Hits(showers.offsets, showers.cell, showers.signal, *truth)
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


def geant4_sample(folder: str | os.PathLike[str], *, seed: int, noise: str = "nominal") -> Path:
    """Write the clusters of the packaged Geant4 pions, with noise added, as a ROOT sample; returns
    its path.

    Parameters
    ----------
    folder : path-like
        Where the file goes; made if it does not exist.
    seed : int
        Of the noise.
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.
    """
    if noise not in NOISE_SETTINGS:
        raise ConfigError(f"noise must be one of {', '.join(NOISE_SETTINGS)}, not {noise!r}")
    showers, metadata = read_showers(packaged_sample("geant4_pions"), WINDOW)
    pions = showers.select(showers.pdg_id != GUNS["gamma"])
    readout = {"generator": metadata["generator"], "noise": NOISE_SETTINGS[noise]}
    path = Path(folder) / f"geant4_pions-{noise}-{seed}.root"
    write_sample(path, cluster_showers(pions, WINDOW, np.random.default_rng(seed), **readout))
    return path


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
    starts = [start_chunk(config, number) for number in range(-(-config.n_events // config.chunk))]
    shots = [build_shots(particles, rng, field=config.field) for particles, rng, _ in starts]
    batches = simulate_batches(
        shots, GRIDS[config.grid], parts, n_processes=config.n_processes, progress=progress
    )
    with contextlib.closing(batches):
        for number, (batch, (particles, _, noise)) in enumerate(zip(batches, starts, strict=True)):
            yield read_out(config, number, batch.hits, particles, noise)
