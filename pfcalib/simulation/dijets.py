"""A sample of clusters in jets: Pythia's dijets through the fast engine, digitised, clustered and
written as single particles are.

Chunks have random streams of their own, as in `pfcalib.simulation.produce`, so the sample does not
depend on the number of processes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import multiprocessing
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib import __version__
from pfcalib.cache import cache_folder, cache_key
from pfcalib.clustering.topo import TopoConfig
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.schema import CellGeo
from pfcalib.samples.write import SampleWriter
from pfcalib.simulation.detector import FRONT
from pfcalib.simulation.digitise import NOISE_SETTINGS, NoiseConfig, noise_sigma
from pfcalib.simulation.particles import Particles, propagate
from pfcalib.simulation.produce import FIELD, GENERATOR, Chunk, Progress, cluster_hits
from pfcalib.simulation.pythia import DijetConfig, require_pythia, simulate_dijets
from pfcalib.simulation.showers import simulate_showers

TRUTH_RADIUS = 0.05  # width in (eta, phi) within which a particle explains a cluster
# mm, centre of EMB2, where the azimuth of particles and clusters is compared
TRUTH_DEPTH = BARREL.layers[2].r


@dataclasses.dataclass(frozen=True, kw_only=True)
class DijetSampleConfig:
    """Which dijets to make and how to read them out, on the barrel in its field.

    Parameters
    ----------
    n_events : int
    dijets : DijetConfig
        Range of the hard scattering and of the particles.
    noise : str
        A setting of `simulation.digitise.NOISE_SETTINGS`.
    mu : float, optional
        Mean number of interactions a crossing; by default that of the setting.
    thresholds : (float, float, float)
        Noise cuts of the clustering: seed, growth and boundary, in units of the noise of a cell.
    seed, n_processes, chunk : int
        The sample depends on the seed and on the events a chunk, not on the number of processes.
        Each chunk starts Pythia anew (0.4 s).
    """

    n_events: int
    dijets: DijetConfig = dataclasses.field(default_factory=DijetConfig)
    noise: str = "nominal"
    mu: float | None = None
    thresholds: tuple[float, float, float] = (4.0, 2.0, 0.0)
    seed: int = 1
    n_processes: int = 1
    chunk: int = 128

    def __post_init__(self) -> None:
        if self.noise not in NOISE_SETTINGS:
            raise ConfigError(
                f"noise must be one of {', '.join(NOISE_SETTINGS)}, not {self.noise!r}"
            )
        if min(self.n_events, self.chunk, self.n_processes) < 1:
            raise ConfigError("n_events, chunk and n_processes must be at least 1")
        if self.mu is not None and self.mu < 0.0:
            raise ConfigError(f"mu must be at least 0, not {self.mu}")
        if len(self.thresholds) != 3:
            raise ConfigError(
                f"thresholds must be three, seed, growth and boundary, not {self.thresholds}"
            )
        _ = self.topo_config  # refuses thresholds that do not fall

    @property
    def noise_config(self) -> NoiseConfig:
        setting = NOISE_SETTINGS[self.noise]
        return setting if self.mu is None else dataclasses.replace(setting, mu=self.mu)

    @property
    def topo_config(self) -> TopoConfig:
        seed, growth, boundary = self.thresholds
        return TopoConfig(seed=seed, growth=growth, boundary=boundary)

    @property
    def n_chunks(self) -> int:
        return -(-self.n_events // self.chunk)

    def size(self, number: int) -> int:
        """Events of a chunk; the last one may be shorter."""
        return min(self.chunk, self.n_events - number * self.chunk)


def nearest_particles(
    particles: Particles, event: ArrayLike, eta: ArrayLike, phi: ArrayLike, *, field: float = 0.0
) -> NDArray[np.int64]:
    """The particle that explains each cluster: of those of its event the one of largest E exp(-dR^2
    / (2 TRUTH_RADIUS^2)).

    dR is the distance in (eta, phi) between the cluster and where the particle would cross the
    centre of EMB2, after its way through the field. This is truth by position: a cluster in a jet
    may hold energy of several particles. What its cells received, the columns ENG_CALIB, is exact
    and does not depend on it.

    Parameters
    ----------
    particles : Particles
        At the origin, sorted by event, at least one in each event.
    event, eta, phi : array_like, shape (n_clusters,)
        Event and position of the clusters.
    field : float, tesla

    Returns
    -------
    ndarray, shape (n_clusters,)
        Indices into the particles.
    """
    event, eta, phi = np.asarray(event, dtype=np.int64), np.asarray(eta), np.asarray(phi)
    first, last = (
        np.searchsorted(particles.event, event),
        np.searchsorted(particles.event, event, side="right"),
    )
    n_pairs = last - first
    start = np.cumsum(n_pairs) - n_pairs
    cluster = np.repeat(np.arange(len(event)), n_pairs)
    particle = np.arange(n_pairs.sum()) - np.repeat(start - first, n_pairs)
    particle_eta, particle_phi = _impact(particles, field)
    d_phi = np.angle(np.exp(1j * (phi[cluster] - particle_phi[particle])))
    distance2 = (eta[cluster] - particle_eta[particle]) ** 2 + d_phi**2
    score = np.log(particles.energy)[particle] - distance2 / (2.0 * TRUTH_RADIUS**2)
    order = np.lexsort((-score, cluster))  # the best one of each cluster comes first
    return particle[order[start]]


def _impact(particles: Particles, field: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pseudorapidity and azimuth where each particle crosses the cylinder of radius TRUTH_DEPTH,
    straight on from its entry.
    """
    entry = propagate(particles, field=field)
    ux, uy, uz = entry.direction.T
    transverse = np.hypot(ux, uy)
    # of the entry's position along the flight; across it stays the distance of the line from the
    # beam
    forward = FRONT * ux / transverse
    path = np.sqrt(TRUTH_DEPTH**2 - FRONT**2 + forward**2) - forward
    x, y = FRONT + path * ux / transverse, path * uy / transverse
    return np.arcsinh(
        (entry.z + path * uz / transverse) / TRUTH_DEPTH
    ), entry.phi_axis + np.arctan2(y, x)


def produce_dijet_chunk(config: DijetSampleConfig, number: int) -> Chunk:
    """Clusters of one chunk of events, in the columns of a sample."""
    streams = np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(3)
    generator, showers, noise = (np.random.default_rng(stream) for stream in streams)
    particles = simulate_dijets(config.size(number), generator, config.dijets, field=FIELD)
    hits = simulate_showers(particles, BARREL, showers, field=FIELD)
    sigma, first = noise_sigma(BARREL, config.noise_config), number * config.chunk
    stand_ins = Particles._make(
        values[np.searchsorted(particles.event, np.arange(hits.n_events))] for values in particles
    )
    scalars, offsets, cells = cluster_hits(
        hits, stand_ins, BARREL, sigma, noise, first_event=first, topo=config.topo_config
    )
    nearest = nearest_particles(
        particles,
        scalars["eventNumber"] - first,
        scalars["clusterEta"],
        scalars["clusterPhi"],
        field=FIELD,
    )
    found = Particles._make(values[nearest] for values in particles)
    scalars |= {
        "truthPdgId": found.pdg_id,
        "truthE": found.energy,
        "truthPt": found.energy / np.cosh(found.eta),
    }
    scalars |= {"truthEta": found.eta, "truthPhi": found.phi}
    return scalars, offsets, cells


def produce_dijets(
    path: str | os.PathLike[str], config: DijetSampleConfig, *, progress: Progress | None = None
) -> Path:
    """Write a sample of clusters in jets; returns its path.

    The truth columns of a cluster are those of the particle that explains it, see
    `nearest_particles`. Energy out of clusters and in dead material is shared among all clusters of
    the event, so in jets it says little about one of them.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : DijetSampleConfig
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If Pythia is not installed.
    """
    require_pythia()
    path, progress = Path(path), progress or (lambda n_events: None)
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "n_processes"}
    metadata = {
        "generator": GENERATOR,
        "version": __version__,
        "seed": config.seed,
        "config": settings,
        "process": "dijets",
        "pythia": _version(),
    }
    geo = CellGeo.from_grid(BARREL, noise_sigma(BARREL, config.noise_config))
    with contextlib.closing(_chunks(config)) as chunks, SampleWriter(path, geo, metadata) as writer:
        for number, chunk in enumerate(chunks):
            writer.extend(*chunk)
            progress(config.size(number))
    return path


def cached_dijets(
    config: DijetSampleConfig,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Path of the sample of a configuration, made on first use.

    The name of the file holds a key of the configuration, of the versions of simulation and
    clustering and of that of Pythia.

    Parameters
    ----------
    config : DijetSampleConfig
    cache_dir : path-like, optional
        By default `cache.cache_folder`.
    progress : callable, optional
        See `simulation.dijets`.

    Raises
    ------
    ConfigError
        If Pythia is not installed.
    """
    require_pythia()
    settings = dataclasses.asdict(config) | {"n_processes": 1}
    key = cache_key("simulation", "pythia", "clustering", config=settings, pythia8=_version())
    path = Path(cache_dir or cache_folder()) / f"dijets-{config.n_events}-{key}.root"
    return path if path.exists() else produce_dijets(path, config, progress=progress)


def _version() -> str:
    return importlib.metadata.version("pythia8mc")


def _chunks(config: DijetSampleConfig) -> Generator[Chunk, None, None]:
    """All chunks in order; with several processes a few are made ahead."""
    if config.n_processes == 1:
        yield from (produce_dijet_chunk(config, number) for number in range(config.n_chunks))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(config.n_processes, mp_context=context) as pool:
        yield from _ahead(pool, config)


def _ahead(pool: concurrent.futures.Executor, config: DijetSampleConfig) -> Iterator[Chunk]:
    pending: list[concurrent.futures.Future[Chunk]] = []
    for number in range(config.n_chunks):
        pending.append(pool.submit(produce_dijet_chunk, config, number))
        if len(pending) == 3 * config.n_processes:
            yield pending.pop(0).result()
    for future in pending:
        yield future.result()
