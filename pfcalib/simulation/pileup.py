"""Pile-up: a pool of minimum-bias collisions, showered once to sparse deposits of their particles,
and crossings that draw from it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key, new_file
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, Grid
from pfcalib.samples.schema import gather
from pfcalib.simulation.collisions import CollisionConfig, Collisions, simulate_collisions
from pfcalib.simulation.digitise import Hits
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.produce import FIELD
from pfcalib.simulation.pythia import pythia_version, require_pythia
from pfcalib.simulation.refine import merge
from pfcalib.simulation.showers import simulate_showers
from pfcalib.simulation.tracks import TrackConfig, Vertices, may_leave_track

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNLISTED = -1  # the particle of deposits that are kept together
N_STREAMS = 5  # random ones of a chunk of events; those of the pool are others
N_TURNS = 64  # towers of the barrel in azimuth: every layer comes back to its cells
STAGES = ("events", "simulation", "pythia")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Which collisions the pool holds.

    Parameters
    ----------
    n_events : int
        Collisions, those that leave nothing in the barrel included.
    eta_max : float
        Largest |eta| of their particles.
    sqrt_s : float, GeV
    tracks : TrackConfig
        What can leave one is listed particle by particle, see `simulation.tracks.may_leave_track`.
    seed, chunk : int
        The pool depends on both.
    """

    n_events: int = 2000
    eta_max: float = 1.2
    sqrt_s: float = 13_000.0
    tracks: TrackConfig = dataclasses.field(default_factory=TrackConfig)
    seed: int = 1
    chunk: int = 500

    def __post_init__(self) -> None:
        if self.n_events < 1 or self.chunk < 1:
            raise ConfigError(
                f"a pool needs n_events and chunk of at least 1, not {self.n_events}, {self.chunk}"
            )


class Pool(NamedTuple):
    """Minimum-bias collisions in the barrel; particles and hits are sorted by event."""

    particles: Particles  # those that can leave a track
    first: IntArray  # (n_events + 1,) first particle of each event
    offsets: IntArray  # (n_events + 1,) first hit of each event
    cell: NDArray[np.int32]  # (n_hits,) flat index in the barrel
    # (n_hits,) place of the particle among those of its event, or UNLISTED; once a cell
    owner: NDArray[np.int32]
    values: NDArray[np.float32]  # (n_hits, 5) GeV: signal, em, non_em, invisible, escaped

    @property
    def n_events(self) -> int:
        return len(self.offsets) - 1


NO_POOL = Pool(
    Particles(*(np.zeros(0, dtype) for dtype in ("i8", "i4", "f8", "f8", "f8"))),
    np.zeros(1, np.int64),
    np.zeros(1, np.int64),
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros((0, 5), np.float32),
)


class Overlay(NamedTuple):
    """Pile-up of a batch of crossings: collisions of crossing i at offsets[i]:offsets[i + 1]."""

    offsets: IntArray  # (n_crossings + 1,)
    event: IntArray  # (n,) of the pool
    turn: IntArray  # (n,) towers by which it is turned in azimuth
    z: FloatArray  # (n,) mm, of its vertex from the centre of the beam spot


def shower_particles(collisions: Collisions, rng: np.random.Generator) -> tuple[IntArray, Hits]:
    """One shower in the barrel of each particle that showers: their rows among the particles, and
    the hits, in whose place of events these particles stand.
    """
    row = np.flatnonzero(collisions.showers)
    particles = Particles._make(values[row] for values in collisions.particles)
    alone = particles._replace(event=np.arange(len(row)))
    return row, simulate_showers(alone, BARREL, rng, field=FIELD)


def simulate_pool(config: PoolConfig, number: int) -> Pool:
    """One chunk of a pool."""
    n_events = min(config.chunk, config.n_events - number * config.chunk)
    streams = np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(N_STREAMS + 2)
    source, showers = (np.random.default_rng(s) for s in streams[N_STREAMS:])
    of_pool = CollisionConfig(process="minimum_bias", eta_max=config.eta_max, sqrt_s=config.sqrt_s)
    collisions = simulate_collisions(n_events, source, of_pool, field=FIELD, keep_empty=True)
    listed = may_leave_track(collisions.particles, config.tracks)
    row, hits = shower_particles(collisions, showers)
    event = collisions.particles.event
    first = np.searchsorted(event[listed], np.arange(n_events + 1))
    place = np.where(listed, np.cumsum(listed) - 1 - first[event], UNLISTED)
    stride = int(np.diff(first).max()) + 1
    owner = (event * stride + place + 1)[row[hits.event]]
    values = np.column_stack(hits[2:7])
    offsets, cell, values = merge(owner, hits.cell, values, n_events * stride, BARREL.n_cells)
    owner = np.repeat(np.arange(n_events * stride), np.diff(offsets)) % stride - 1
    particles = Particles._make(column[listed] for column in collisions.particles)
    as_stored = owner.astype(np.int32), values.astype(np.float32)
    return Pool(particles, first, offsets[::stride], cell, *as_stored)


def in_order(
    function: Callable[[Any], Any], jobs: Iterable[Any], n_processes: int
) -> Iterator[Any]:
    """Results of independent jobs in their order, made by as many processes."""
    if n_processes == 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n_processes, mp_context=context) as executor:
        yield from executor.map(function, jobs)


def cached_pool(
    config: PoolConfig | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    n_processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Path of the pool of a configuration (.npz, no pickle), made on first use.

    Parameters
    ----------
    config : PoolConfig, optional
    cache_dir : path-like, optional
        By default `cache.cache_folder`.
    n_processes : int
        That share the work; the pool is the same.
    progress : callable, optional
        Called with the number of events finished since the last call.
    """
    config = config or PoolConfig()
    require_pythia()
    key = cache_key(*STAGES, config=config, pythia8=pythia_version())
    path = Path(cache_dir or cache_folder()) / f"pool-{config.n_events}-{key}.npz"
    if not path.exists():
        parts = []
        jobs = range(-(-config.n_events // config.chunk))
        for part in in_order(functools.partial(simulate_pool, config), jobs, n_processes):
            parts.append(part)
            if progress:
                progress(part.n_events)
        pool = _join(parts)
        arrays = {f"particles.{name}": v for name, v in pool.particles._asdict().items()}
        arrays |= {name: v for name, v in pool._asdict().items() if name != "particles"}
        with new_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    return path


@functools.lru_cache(maxsize=2)
def read_pool(path: Path) -> Pool:
    """The pool of a file of `cached_pool`, read once a process."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        particles = Particles(*(file[f"particles.{name}"] for name in Particles._fields))
        return Pool(particles, *(file[name] for name in Pool._fields[1:]))


def _join(parts: list[Pool]) -> Pool:
    """One pool of several chunks."""
    before = np.cumsum([0, *(part.n_events for part in parts)])
    event = [part.particles.event + n for part, n in zip(parts, before, strict=False)]
    columns = [np.concatenate(v) for v in zip(*(part.particles for part in parts), strict=True)]
    particles = Particles(np.concatenate(event), *columns[1:])
    first, offsets = (
        np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part[i]) for part in parts]))])
        for i in (1, 2)
    )
    hits = (np.concatenate(v) for v in zip(*(part[3:] for part in parts), strict=True))
    return Pool(particles, first, offsets, *hits)


def draw_pileup(
    n_pool: int, mu: float, n_crossings: int, rng: np.random.Generator, *, sigma_z: float
) -> Overlay:
    """Collisions beside the hard one: their number is Poisson, each is turned by a whole number of
    towers and has a vertex of its own.

    Parameters
    ----------
    n_pool : int
        Collisions to draw from, with replacement.
    mu : float
        Mean number a crossing.
    n_crossings : int
    rng : numpy.random.Generator
    sigma_z : float, mm
        Length of the beam spot.
    """
    offsets = np.concatenate([[0], np.cumsum(rng.poisson(mu, n_crossings))])
    n = int(offsets[-1])
    drawn = rng.integers(max(n_pool, 1), size=n), rng.integers(N_TURNS, size=n)
    return Overlay(offsets, *drawn, sigma_z * rng.standard_normal(n))


def overlaid_particles(pool: Pool, overlay: Overlay) -> tuple[Particles, IntArray]:
    """Particles of pile-up that can leave a track, as turned, in the order of the overlay, with the
    numbers of their vertices, 1, 2, ... in each crossing.
    """
    rows, first = gather(pool.first, overlay.event)
    draw = np.repeat(np.arange(len(overlay.event)), np.diff(first))
    crossing = np.repeat(np.arange(len(overlay.offsets) - 1), np.diff(overlay.offsets))[draw]
    chosen = Particles._make(column[rows] for column in pool.particles)
    phi = chosen.phi + 2.0 * np.pi / N_TURNS * overlay.turn[draw]
    turned = chosen._replace(event=crossing, phi=np.mod(phi + np.pi, 2.0 * np.pi) - np.pi)
    return turned, draw - overlay.offsets[crossing] + 1


def place_vertices(overlay: Overlay, rng: np.random.Generator, *, sigma_z: float) -> Vertices:
    """Vertices of the crossings, the hard one first, from which z is counted; it too lies somewhere
    in the beam spot.
    """
    n = len(overlay.offsets) - 1
    crossing = np.repeat(np.arange(n), np.diff(overlay.offsets))
    z = overlay.z - (sigma_z * rng.standard_normal(n))[crossing]
    return Vertices(overlay.offsets + np.arange(n + 1), np.insert(z, overlay.offsets[:-1], 0.0))


@functools.lru_cache(maxsize=2)
def turn_table(grid: Grid) -> NDArray[np.int32]:
    """Where each cell lies after a turn by a number of towers, shape (N_TURNS, n_cells): exact, as
    every layer has a whole number of cells a tower.
    """
    n_phi = np.array([layer.n_phi for layer in grid.layers])[grid.layer]
    place = np.arange(grid.n_cells) - grid.offset[grid.layer]
    row, i_phi = place - place % n_phi + grid.offset[grid.layer], place % n_phi
    step = n_phi // N_TURNS * np.arange(N_TURNS)[:, None]
    return (row + (i_phi + step) % n_phi).astype(np.int32)


@njit(cache=True, nogil=True)
def add_pileup(
    cell: NDArray[np.int32],
    row: NDArray[np.int32],
    values: NDArray[np.float64],
    drawn: IntArray,
    turn: IntArray,
    first_row: IntArray,
    rows: NDArray[np.int32],
    pool_offsets: IntArray,
    pool_cell: NDArray[np.int32],
    pool_owner: NDArray[np.int32],
    pool_values: NDArray[np.float32],
    turned: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Hits of one crossing, sorted by cell, those of what is not listed added up in each cell.

    Parameters
    ----------
    cell, row, values : ndarray, shape (n,), (n,), (n, 5)
        Hits of the hard collision and the rows of their particles in the truth of the crossing.
    drawn, turn : ndarray, shape (n_pileup,)
        See `Overlay`.
    first_row : ndarray, shape (n_pileup,)
        Where the particles of each collision begin in `rows`.
    rows : ndarray
        Row of each particle of `overlaid_particles` in the truth, UNLISTED for none.
    pool_offsets, pool_cell, pool_owner, pool_values
        See `Pool`.
    turned : ndarray, shape (N_TURNS, n_cells)
        See `turn_table`.
    """
    n_cells = turned.shape[1]
    count, rest = np.zeros(n_cells + 1, np.int64), np.zeros((n_cells, 5))
    lit = np.zeros(n_cells, np.bool_)
    for i in range(len(cell)):
        count[cell[i] + 1] += 1
    for k in range(len(drawn)):
        for i in range(pool_offsets[drawn[k]], pool_offsets[drawn[k] + 1]):
            to, owner = turned[turn[k], pool_cell[i]], pool_owner[i]
            if owner >= 0 and rows[first_row[k] + owner] >= 0:
                count[to + 1] += 1
            else:
                if not lit[to]:
                    lit[to] = True
                    count[to + 1] += 1
                for j in range(5):
                    rest[to, j] += pool_values[i, j]
    place = np.cumsum(count)
    n = place[n_cells]
    out_cell, out_row, out = np.empty(n, np.int32), np.empty(n, np.int32), np.empty((n, 5))
    for i in range(len(cell)):
        at = place[cell[i]]
        place[cell[i]] += 1
        out_cell[at], out_row[at], out[at] = cell[i], row[i], values[i]
    for k in range(len(drawn)):
        for i in range(pool_offsets[drawn[k]], pool_offsets[drawn[k] + 1]):
            owner = pool_owner[i]
            if owner >= 0 and rows[first_row[k] + owner] >= 0:
                to = turned[turn[k], pool_cell[i]]
                at = place[to]
                place[to] += 1
                out_cell[at], out_row[at] = to, rows[first_row[k] + owner]
                for j in range(5):
                    out[at, j] = pool_values[i, j]
    for to in range(n_cells):
        if lit[to]:
            at = place[to]
            out_cell[at], out_row[at], out[at] = to, -1, rest[to]
    return out_cell, out_row, out
