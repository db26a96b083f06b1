"""Events as particle flow wants them: a hard collision with pile-up, its tracks, its clusters, and
in every cell the energy that each particle left there; written in the layout MLTree.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib import __version__
from pfcalib.cache import cache_folder, cache_key, new_file
from pfcalib.clustering.topo import TopoConfig
from pfcalib.columns import COLUMNS, JAGGED, LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.layouts.mltree import CLUSTER, EVENT_TREE
from pfcalib.samples.schema import CONTENT, GEO_TREE, METADATA, CellGeo
from pfcalib.simulation.collisions import (
    CollisionConfig,
    CrossSection,
    cross_section,
    simulate_collisions,
)
from pfcalib.simulation.digitise import Hits, NoiseConfig, noise_sigma
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pileup import (
    N_STREAMS,
    NO_POOL,
    STAGES,
    UNLISTED,
    Overlay,
    Pool,
    PoolConfig,
    add_pileup,
    cached_pool,
    draw_pileup,
    in_order,
    overlaid_particles,
    place_vertices,
    read_pool,
    shower_particles,
    turn_table,
)
from pfcalib.simulation.produce import FIELD, GENERATOR, Progress, cluster_hits
from pfcalib.simulation.pythia import pythia_version, require_pythia
from pfcalib.simulation.tracks import (
    HARD_SCATTER,
    PION_MASS,
    FoundTracks,
    TrackConfig,
    mass_and_charge,
    simulate_tracks,
    transverse_momentum,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NOT_REACHED = -999999999.0  # place of a track in a layer that it does not reach, as in MLTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventsConfig:
    """Which events to make.

    Parameters
    ----------
    n_events : int
        In equal shares from the slices of the process, which take turns chunk by chunk.
    collisions : CollisionConfig
        The hard collision.
    mu : float
        Mean number of other collisions in the crossing; the noise of cells, which stands for those
        of other crossings, grows with it too.
    sigma_z : float, mm
        Length of the beam spot.
    tracks : TrackConfig
    n_pool, pool_seed : int
        Minimum-bias collisions that pile-up is drawn from. Samples of the same two share them; one
        to train on and one to test with must not.
    thresholds : (float, float, float)
        Noise cuts of the clustering: seed, growth and boundary, in units of the noise of a cell.
    seed, n_processes, chunk : int
        The events depend on the seed and on the events a chunk, not on the number of processes.
        Each chunk starts Pythia anew (0.4 s).
    """

    n_events: int
    collisions: CollisionConfig = dataclasses.field(default_factory=CollisionConfig)
    mu: float = 0.0
    sigma_z: float = 40.0
    tracks: TrackConfig = dataclasses.field(default_factory=TrackConfig)
    n_pool: int = 2000
    pool_seed: int = 1
    thresholds: tuple[float, float, float] = (4.0, 2.0, 0.0)
    seed: int = 1
    n_processes: int = 1
    chunk: int = 50

    def __post_init__(self) -> None:
        if self.n_events < self.collisions.n_slices or self.chunk < 1 or self.n_processes < 1:
            raise ConfigError(
                f"n_events must be at least {self.collisions.n_slices}, one a slice, chunk and "
                f"n_processes at least 1, not {self.n_events}, {self.chunk}, {self.n_processes}"
            )
        if self.mu < 0.0 or self.sigma_z < 0.0:
            raise ConfigError(f"mu and sigma_z must not be negative, not {self.mu}, {self.sigma_z}")
        if self.tracks.eta_max > self.collisions.eta_max:
            raise ConfigError(
                f"eta_max of tracks must not be above that of particles, {self.collisions.eta_max}"
            )
        _ = self.topo_config, self.pool_config  # refuse what they do

    @property
    def topo_config(self) -> TopoConfig:
        seed, growth, boundary = self.thresholds
        return TopoConfig(seed=seed, growth=growth, boundary=boundary)

    @property
    def pool_config(self) -> PoolConfig:
        return PoolConfig(
            n_events=self.n_pool,
            eta_max=self.collisions.eta_max,
            sqrt_s=self.collisions.sqrt_s,
            tracks=self.tracks,
            seed=self.pool_seed,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides on the events, for their metadata and their key."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "n_processes"}

    @property
    def events_of_slices(self) -> IntArray:
        """Number of events of each slice, shape (n_slices,)."""
        n = self.collisions.n_slices
        return np.full(n, self.n_events // n) + (np.arange(n) < self.n_events % n)

    @property
    def chunks(self) -> list[Chunk]:
        """The chunks in their order, in which the slices take turns."""
        found: list[Chunk] = []
        for start in range(0, int(self.events_of_slices.max()), self.chunk):
            for part, n in enumerate(self.events_of_slices):
                if n > start:
                    first = found[-1].first_event + found[-1].n_events if found else 0
                    found.append(Chunk(len(found), part, first, min(self.chunk, int(n) - start)))
        return found


class Chunk(NamedTuple):
    """Events of one slice that are made together."""

    number: int
    part: int  # the slice
    first_event: int
    n_events: int


class Crossings(NamedTuple):
    """A batch of crossings in memory, before noise."""

    weight: FloatArray  # (n_events,) Pythia's
    overlay: Overlay
    # of the hard collision, stable and no neutrinos, then of pile-up with a track, sorted by event
    particles: Particles
    vertex: IntArray  # (n_particles,) 0, or the number of the collision of pile-up
    tracks: FoundTracks  # whose `particle` counts from the first particle of the event
    hit_offsets: IntArray  # (n_events + 1,) of what each particle left in each cell
    hit_cell: NDArray[np.int32]  # (n_hits,) rising in each event
    hit_particle: NDArray[np.int32]  # (n_hits,) counted as those of tracks, or UNLISTED
    # (n_hits, 5) GeV: signal, em, non_em, invisible, escaped
    hit_values: FloatArray
    # what all particles left in each cell; lost energy is that of the hard collision alone
    hits: Hits


def simulate_crossings(config: EventsConfig, chunk: Chunk, pool: Pool = NO_POOL) -> Crossings:
    """One chunk of crossings: collisions, showers, pile-up and tracks.

    Parameters
    ----------
    config : EventsConfig
    chunk : Chunk
    pool : Pool
        Of pile-up; none is needed at mu = 0.
    """
    source, showers, beam, finder = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence(config.seed, spawn_key=(chunk.number,)).spawn(4)
    )
    hard = simulate_collisions(
        chunk.n_events, source, config.collisions, number=chunk.part, field=FIELD
    )
    shower, alone = shower_particles(hard, showers)
    overlay = draw_pileup(pool.n_events, config.mu, hard.n_events, beam, sigma_z=config.sigma_z)
    vertices = place_vertices(overlay, beam, sigma_z=config.sigma_z)
    others, number = overlaid_particles(pool, overlay)
    n_hard = len(hard.showers)
    order = np.argsort(np.concatenate([hard.particles.event, others.event]), kind="stable")
    particles = Particles(
        *(np.concatenate([hard.particles[i], others[i]])[order] for i in range(len(others)))
    )
    vertex = np.concatenate([np.full(n_hard, HARD_SCATTER), number])[order]
    tracks = simulate_tracks(
        particles, vertex, vertices, BARREL, finder, config.tracks, field=FIELD
    )
    real = tracks.particle >= 0
    listed = vertex == HARD_SCATTER
    listed[tracks.particle[real]] = True
    before = np.concatenate([[0], np.cumsum(listed)])
    first = before[np.searchsorted(particles.event, np.arange(hard.n_events))]
    row = np.where(listed, before[:-1] - first[particles.event], UNLISTED)
    of_track = np.where(real, row[tracks.particle], UNLISTED)
    row_of = np.empty(len(order), np.int32)
    row_of[order] = row
    found = _add_up(
        hard.particles.event[shower], row_of[shower], alone, row_of[n_hard:], overlay, pool
    )
    return Crossings(
        hard.weight,
        overlay,
        Particles._make(column[listed] for column in particles),
        vertex[listed],
        tracks._replace(particle=of_track),
        *found,
    )


def _add_up(
    event: IntArray,
    row: NDArray[np.int32],
    alone: Hits,
    rows: NDArray[np.int32],
    overlay: Overlay,
    pool: Pool,
) -> tuple[IntArray, NDArray[np.int32], NDArray[np.int32], FloatArray, Hits]:
    """Hits of each crossing by cell and particle, from those of single particles, whose events and
    rows in the truth are given, and from those of pile-up; and their sums in each cell.
    """
    n_events = len(overlay.offsets) - 1
    bounds = alone.offsets[np.searchsorted(event, np.arange(n_events + 1))]
    values, rows_of_hits = np.column_stack(alone[2:7]), row[alone.event]
    n_listed = np.diff(pool.first)[overlay.event]
    first_row = np.cumsum(n_listed) - n_listed
    parts, sums = [], []
    for i in range(n_events):
        own, drawn = slice(*bounds[i : i + 2]), slice(*overlay.offsets[i : i + 2])
        part = add_pileup(
            alone.cell[own], rows_of_hits[own], values[own],
            overlay.event[drawn], overlay.turn[drawn], first_row[drawn], rows,
            pool.offsets, pool.cell, pool.owner, pool.values, turn_table(BARREL),
        )  # fmt: skip
        starts = np.flatnonzero(np.diff(part[0], prepend=-1))
        parts.append(part)
        sums.append((part[0][starts], np.add.reduceat(part[2], starts)))
    offsets, of_cells = (
        np.concatenate([[0], np.cumsum([len(part[0]) for part in several])])
        for several in (parts, sums)
    )
    cell, particle, by_particle = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    lit, total = (np.concatenate(columns) for columns in zip(*sums, strict=True))
    lost = (np.bincount(event, of_particle, n_events) for of_particle in alone[7:])
    columns = (np.ascontiguousarray(column) for column in total.T)
    return offsets, cell, particle, by_particle, Hits._make((of_cells, lit, *columns, *lost))


def build_branches(
    config: EventsConfig, chunk: Chunk, crossings: Crossings, normal: CrossSection
) -> dict[str, Any]:
    """Branches of EventTree: crossings with noise, clusters, and all the rest by event.

    Beside those of MLTree there are truthPartVertex and trackVertex (0 the hard scattering, k the
    k-th collision of pile-up, -1 none), hitCell, hitParticle (row in the truth, -1 for pile-up
    without a track), hitSignal (GeV at the EM scale, without noise) and hitE (GeV of calibration
    truth), sorted by cell, and truthEDead, truthELeak (GeV of the hard collision).

    Parameters
    ----------
    config : EventsConfig
    chunk : Chunk
    crossings : Crossings
    normal : CrossSection
        Of the slice; the weights of its events sum to it, in mb.
    """
    n, number = chunk.n_events, np.arange(chunk.first_event, chunk.first_event + chunk.n_events)
    stream = np.random.SeedSequence(config.seed, spawn_key=(chunk.number,)).spawn(N_STREAMS)[-1]
    # of the particles one an event is enough, as MLTree does not say which made a cluster
    anyone = crossings.particles.event.searchsorted(np.arange(n))
    scalars, offsets, cells = cluster_hits(
        crossings.hits,
        Particles._make(column[anyone] for column in crossings.particles),
        BARREL,
        noise_sigma(BARREL, NoiseConfig(mu=config.mu)),
        np.random.default_rng(stream),
        first_event=chunk.first_event,
        topo=config.topo_config,
    )
    n_clusters = np.bincount(scalars["eventNumber"] - chunk.first_event, minlength=n)
    particles, tracks = crossings.particles, crossings.tracks
    n_particles, n_tracks = (np.bincount(of.event, minlength=n) for of in (particles, tracks))
    n_pileup = np.diff(crossings.overlay.offsets)
    unit = normal.value / (normal.mean_weight * config.events_of_slices[chunk.part])
    scalar: dict[str, tuple[str, Any]] = {
        "runNumber": ("int32", np.full(n, config.seed)),
        "eventNumber": ("int64", number),
        "lumiBlock": ("int32", np.ones(n)),
        "mcEventNumber": ("int32", number),
        "mcChannelNumber": ("int32", np.full(n, chunk.part)),
        "mcEventWeight": ("float32", unit * crossings.weight),
        "NPV": ("int32", 1 + _count_vertices(tracks, n)),
        "actualInteractionsPerCrossing": ("float32", n_pileup),
        "averageInteractionsPerCrossing": ("float32", np.full(n, config.mu)),
        "nTruthPart": ("int32", n_particles),
        "nTrack": ("int32", n_tracks),
        "nCluster": ("int32", n_clusters),
        "truthEDead": ("float32", crossings.hits.e_dead),
        "truthELeak": ("float32", crossings.hits.e_leak),
    }
    row = np.arange(len(particles.event)) - np.repeat(
        np.cumsum(n_particles) - n_particles, n_particles
    )
    truth: dict[str, tuple[str, Any]] = {
        "PdgId": ("int32", particles.pdg_id),
        "Status": ("int32", np.ones(len(row))),
        "Barcode": ("int32", row + 1),
        "Pt": ("float32", transverse_momentum(particles)),
        "E": ("float32", particles.energy),
        "Mass": ("float32", mass_and_charge(particles.pdg_id)[0]),
        "Eta": ("float32", particles.eta),
        "Phi": ("float32", particles.phi),
        "Vertex": ("int32", crossings.vertex),
    }
    track: dict[str, tuple[str, Any]] = {
        "Pt": ("float32", tracks.pt),
        "P": ("float32", tracks.p),
        "Mass": ("float32", np.full(len(tracks.pt), PION_MASS)),
        "Eta": ("float32", tracks.eta),
        "Phi": ("float32", tracks.phi),
        "D0": ("float32", tracks.d0),
        "Z0": ("float32", tracks.z0),
        "ChiSquared": ("float32", tracks.chi2),
        "TruthParticleIndex": ("int32", tracks.particle),
        "Vertex": ("int32", tracks.vertex),
    }
    for i, layer in enumerate(LAYER_NAMES):
        for name, at in (("Eta", tracks.eta_at), ("Phi", tracks.phi_at)):
            track[f"{name}_{layer}"] = ("float32", np.nan_to_num(at[:, i], nan=NOT_REACHED))
    hit: dict[str, tuple[str, Any]] = {
        "Cell": ("int32", crossings.hit_cell),
        "Particle": ("int32", crossings.hit_particle),
        "Signal": ("float32", crossings.hit_values[:, 0]),
        "E": ("float32", crossings.hit_values[:, 1:].sum(axis=1)),
    }
    branches = {name: np.asarray(array).astype(dtype) for name, (dtype, array) in scalar.items()}
    lists = (
        ("truthPart", truth, n_particles),
        ("track", track, n_tracks),
        ("hit", hit, np.diff(crossings.hit_offsets)),
    )
    for prefix, columns, counts in lists:
        for name, (dtype, array) in columns.items():
            branches[prefix + name] = ak.unflatten(np.asarray(array).astype(dtype), counts)
    for name, branch in CLUSTER.items():
        if name in scalars:
            typed = scalars[name].astype(COLUMNS[name].numpy_dtype)
            branches[branch] = ak.unflatten(typed, n_clusters)
    for name in JAGGED:
        typed = cells[name].astype(COLUMNS[name].numpy_dtype)
        branches[name] = ak.unflatten(ak.unflatten(typed, np.diff(offsets)), n_clusters)
    return branches


def _count_vertices(tracks: FoundTracks, n_events: int) -> IntArray:
    """Vertices of pile-up with two tracks or more in each event."""
    others = tracks.vertex > HARD_SCATTER
    pair = np.stack([tracks.event[others], tracks.vertex[others]])
    found, counts = np.unique(pair, axis=1, return_counts=True)
    return np.bincount(found[0, counts >= 2], minlength=n_events)


def _make_chunk(
    config: EventsConfig, pool: Path | None, slices: list[CrossSection], chunk: Chunk
) -> dict[str, Any]:
    crossings = simulate_crossings(config, chunk, read_pool(pool) if pool else NO_POOL)
    return build_branches(config, chunk, crossings, slices[chunk.part])


def produce_events(
    path: str | os.PathLike[str],
    config: EventsConfig,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write events as an RNTuple ``EventTree`` with ``CellGeo``, see `build_branches`; returns the
    path.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : EventsConfig
    cache_dir : path-like, optional
        Where the pool of pile-up is kept, by default `cache.cache_folder`.
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If Pythia is not installed.
    """
    require_pythia()
    pool = None
    if config.mu > 0.0:
        pool = cached_pool(config.pool_config, cache_dir=cache_dir, n_processes=config.n_processes)
    slices = [cross_section(config.collisions, i) for i in range(config.collisions.n_slices)]
    metadata = {
        "generator": GENERATOR,
        "version": __version__,
        "seed": config.seed,
        "config": config.settings,
        "pythia": pythia_version(),
        "n_events": config.n_events,
        "cross_sections_mb": [(one.value, one.error) for one in slices],
    }
    geo = CellGeo.from_grid(BARREL, noise_sigma(BARREL, NoiseConfig(mu=config.mu))).arrays()
    digest, tree = hashlib.sha256(), None
    with (
        new_file(path) as temporary,
        uproot.recreate(temporary, compression=uproot.ZSTD(3)) as file,
    ):
        # first: uproot 5.7 cannot begin an RNTuple beyond 2 GB
        file.mkrntuple(GEO_TREE, {name: ak.Array(v[None]) for name, v in geo.items()})
        make = functools.partial(_make_chunk, config, pool, slices)
        for chunk, branches in zip(
            config.chunks, in_order(make, config.chunks, config.n_processes), strict=True
        ):
            if tree is None:
                tree = file.mkrntuple(EVENT_TREE, branches)
            else:
                tree.extend(branches)
            for name, array in branches.items():
                for part in ak.to_buffers(ak.to_packed(ak.Array(array)))[2].values():
                    digest.update(name.encode() + np.ascontiguousarray(part).tobytes())
            if progress:
                progress(chunk.n_events)
        file[CONTENT] = digest.hexdigest()
        file[METADATA] = json.dumps(metadata, sort_keys=True)
    return Path(path)


def cached_events(
    config: EventsConfig,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Path of the events of a configuration, made on first use.

    Parameters
    ----------
    config : EventsConfig
    cache_dir : path-like, optional
        By default `cache.cache_folder`.
    progress : callable, optional
        See `produce_events`.
    """
    require_pythia()
    key = cache_key(*STAGES, "clustering", config=config.settings, pythia8=pythia_version())
    name = f"{config.collisions.process}-mu{config.mu:g}-{config.n_events}-{key}.root"
    path = Path(cache_dir or cache_folder()) / name
    if path.exists():
        return path
    return produce_events(path, config, cache_dir=cache_dir, progress=progress)
