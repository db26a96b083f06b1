"""Events of the whole barrel: one or two photons, pions, pile-up, noise and dead cells, with the
box and the centre of each photon's shower.

Places are counted in cells of EMB2: eta from 0 to N_ETA, phi from 0 to N_PHI, where it closes. A
box is (eta low, phi low, eta high, phi high).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL
from pfcalib.photons.pairs import EMB2, overlay, shower
from pfcalib.photons.parts import cached_parts, read_arrays
from pfcalib.samples.split import split_of
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pileup import Pool
from pfcalib.simulation.pythia import pythia_version

IntArray = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

N_ETA, N_PHI = BARREL.layers[EMB2].n_eta, BARREL.layers[EMB2].n_phi
ETA_CELL, PHI_CELL = BARREL.layers[EMB2].d_eta, BARREL.layers[EMB2].d_phi
EMB1 = LAYER_NAMES.index("EMB1")
# cells of EMB1-3 among those of the barrel, and of each layer among these
EM_CELLS = slice(int(BARREL.offset[EMB1]), int(BARREL.offset[EMB1 + 3]))
_ENDS = BARREL.offset[EMB1 : EMB1 + 4] - EM_CELLS.start
PARTS = tuple(slice(int(a), int(b)) for a, b in pairwise(_ENDS))
BOX_SHARE = 0.95  # of the energy in EMB2 that a box holds in eta and in phi
_REACH = (6, 10)  # cells in eta and phi about the hottest one that a box may reach
PIONS = (211, -211, 111)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapsConfig:
    """Which events to make.

    Parameters
    ----------
    n_events : int
        Half of them with one photon, half with two.
    n_pions : int
        Charged and neutral pions an event, half of every two side by side as two photons are.
    et : (float, float), GeV
        Of photons and pions, flat in its logarithm.
    distance : (float, float)
        Of two photons, or two pions, in (eta, phi), flat.
    eta_max : float
        Largest abs(eta); near the edge of the barrel, showers are cut.
    dead : float
        Share of the cells of EMB2 that are dead, others in each event.
    mu : float
        Mean number of collisions of pile-up.
    n_pool : int
        Minimum-bias collisions that pile-up is drawn from; each split draws from its own.
    seed, chunk, n_processes : int
        The events depend on the seed and on the events a chunk.
    """

    n_events: int
    n_pions: int = 2
    et: tuple[float, float] = (10.0, 80.0)
    distance: tuple[float, float] = (0.02, 0.2)
    eta_max: float = 0.79
    dead: float = 0.01
    mu: float = 20.0
    n_pool: int = 2000
    seed: int = 1
    chunk: int = 50
    n_processes: int = 1

    def __post_init__(self) -> None:
        if min(self.n_events, self.chunk, self.n_processes) < 1 or self.n_pool < 10:
            raise ConfigError("MapsConfig: numbers must be at least 1, n_pool at least 10")
        if not (0.0 <= self.dead < 1.0 and self.mu >= 0.0 and 0.0 < self.eta_max < 0.8):
            raise ConfigError(f"MapsConfig: dead, mu or eta_max out of range in {self}")

    @property
    def settings(self) -> dict[str, object]:
        """All that decides on the events."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "n_processes"}


class Maps(NamedTuple):
    """Events, and their photons, sorted by event."""

    number: IntArray  # (n_events,) split by it
    cells: NDArray[np.float16]  # (n_events, n_em) GeV at the EM scale, 0 where dead
    dead: NDArray[np.bool_]  # (n_events, N_ETA, N_PHI)
    event: IntArray  # (n_photons,) place of the event of each photon
    et: F64  # (n_photons,) GeV
    energy: F64  # (n_photons,) GeV
    distance: F64  # (n_photons,) to the other one in (eta, phi), inf where there is none
    converted: NDArray[np.bool_]  # (n_photons,) in the tracker
    centre: F64  # (n_photons, 2) of the energy in EMB2, cells in eta and phi
    box: F64  # (n_photons, 4) cells

    @property
    def n_events(self) -> int:
        return len(self.number)

    def take(self, rows: IntArray) -> Maps:
        """Some events with their photons, by place, rising."""
        kept = np.isin(self.event, rows)
        events = [column[rows] for column in self[:3]]
        photons = [column[kept] for column in self[4:]]
        return Maps._make([*events, np.searchsorted(rows, self.event[kept]), *photons])


def to_maps(cells: NDArray[np.floating], dead: NDArray[np.bool_]) -> F32:
    """Maps with a pixel for each cell of EMB2, shape (n, N_ETA, N_PHI, 11) float32.

    Parameters
    ----------
    cells : ndarray, shape (n, n_em), GeV
        Of EMB1-3, see `Maps`.
    dead : ndarray of bool, shape (n, N_ETA, N_PHI)

    Returns
    -------
    ndarray
        Eight strips, EMB2, EMB3, GeV, and 1 where the cell of EMB2 is alive. A cell that spans
        several pixels gives each the same part, so that pixels add up to the energy.
    """
    n = len(cells)
    strips, middle, back = (cells[:, part] for part in PARTS)
    strips = strips.reshape(n, N_ETA, 8, -1).transpose(0, 1, 3, 2)
    back = back.reshape(n, -1, N_PHI)
    of_phi, of_eta = N_PHI // strips.shape[2], N_ETA // back.shape[1]
    maps = np.empty((n, N_ETA, N_PHI, 11), np.float32)
    maps[..., :8] = np.repeat(strips, of_phi, axis=2)
    maps[..., :8] /= of_phi
    maps[..., 8] = middle.reshape(n, N_ETA, N_PHI)
    maps[..., 9] = np.repeat(back, of_eta, axis=1)
    maps[..., 9] /= of_eta
    maps[..., 10] = ~dead
    return maps


def box_of(energy: F64) -> tuple[F64, F64]:
    """Centre and box of the energies of one shower in EMB2.

    Parameters
    ----------
    energy : ndarray, shape (N_ETA, N_PHI), GeV

    Returns
    -------
    centre, box : ndarray, shape (2,), (4,)
        Mean place, and the interval in eta and in phi that holds the central BOX_SHARE of the
        energy near the hottest cell, spread evenly within each cell.

    Examples
    --------
    >>> energy = np.zeros((N_ETA, N_PHI))
    >>> energy[10, 0] = energy[10, -1] = 1.0
    >>> centre, box = box_of(energy)
    >>> [round(float(v), 2) for v in (*centre, *box)]
    [10.5, 256.0, 10.02, 255.05, 10.97, 256.95]
    """
    hot = np.unravel_index(np.argmax(energy), energy.shape)
    places, ends = [], []
    near = np.take(energy, np.arange(hot[1] - _REACH[1], hot[1] + _REACH[1] + 1) % N_PHI, axis=1)
    low = max(int(hot[0]) - _REACH[0], 0)
    near = near[low : int(hot[0]) + _REACH[0] + 1]
    for axis, first in ((1, low), (0, int(hot[1]) - _REACH[1])):
        share = near.sum(axis=axis) / near.sum()
        edges = first + np.arange(len(share) + 1)
        tail = 0.5 - 0.5 * BOX_SHARE
        rising = np.append(0.0, np.cumsum(share)) + 1e-9 * np.arange(len(edges))
        ends.append(np.interp([tail, 1.0 - tail], rising, edges))
        places.append(share @ (edges[:-1] + 0.5))
    # the centre in phi lies above 0
    turns = N_PHI if places[1] < 0.0 or ends[1][0] < 0.0 else 0.0
    centre = np.array([places[0], places[1] + turns])
    box = np.array([ends[0][0], ends[1][0] + turns, ends[0][1], ends[1][1] + turns])
    return centre, box


def simulate_maps(config: MapsConfig, pool: Pool, number: int) -> Maps:
    """One chunk of events.

    Parameters
    ----------
    config : MapsConfig
    pool : Pool
        Of pile-up; none is needed at mu = 0.
    number : int
        Of the chunk.
    """
    n = min(config.chunk, config.n_events - number * config.chunk)
    source, showers, noise, beam = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(4)
    )
    numbers = number * config.chunk + np.arange(n)
    event, shot, distance = _draw(config, n, source)
    offsets, cell, signal, converted = shower(shot, BARREL, showers)
    sigma = noise_sigma(BARREL)[EM_CELLS].astype(np.float32)
    cells = noise.standard_normal((n, len(sigma)), dtype=np.float32) * sigma
    found = []
    inside = (cell >= EM_CELLS.start) & (cell < EM_CELLS.stop)
    for i in range(len(event)):
        hits = np.flatnonzero(inside[offsets[i] : offsets[i + 1]]) + offsets[i]
        own = np.zeros(len(sigma))
        own[cell[hits] - EM_CELLS.start] = signal[hits]
        cells[event[i]] += own
        middle = own[PARTS[1]].reshape(N_ETA, N_PHI)
        # of what flies out of the barrel there is nothing to find
        if shot.pdg_id[i] == 22 and own.sum() > 0.5 * shot.energy[i]:
            found.append((i, *box_of(middle)))
    for i, split in enumerate(split_of(numbers) if config.mu else ()):
        window = np.arange(EM_CELLS.start, EM_CELLS.stop)
        cells[i] += overlay(pool, (config.mu,), window, int(split), beam)[0]
    dead = noise.random((n, N_ETA, N_PHI)) < config.dead
    cells[:, PARTS[1]][dead.reshape(n, -1)] = 0.0
    rows = np.array([i for i, _, _ in found], np.int64)
    return Maps(
        numbers, cells.astype(np.float16), dead, event[rows],
        (shot.energy / np.cosh(shot.eta))[rows], shot.energy[rows], distance[rows],
        converted[rows], np.array([c for _, c, _ in found]).reshape(-1, 2),
        np.array([b for _, _, b in found]).reshape(-1, 4),
    )  # fmt: skip


def _draw(config: MapsConfig, n: int, rng: np.random.Generator) -> tuple[IntArray, Particles, F64]:
    """Event of each particle, the particles, each as an event of its own, and distances."""
    pairs = rng.random(n) < 0.5
    photons = 1 + pairs.astype(np.int64)
    count = photons + config.n_pions
    event = np.repeat(np.arange(n), count)
    place = np.arange(len(event)) - np.repeat(np.cumsum(count) - count, count)
    is_photon = place < photons[event]
    eta = rng.uniform(-config.eta_max, config.eta_max, len(event))
    phi = rng.uniform(-np.pi, np.pi, len(event))
    distance = np.full(len(event), np.inf)
    # half of the pions have a partner as half of the photons do, so that it tells nothing
    odd = (place - photons[event]) % 2 == 1
    partner = ~is_photon & odd & (rng.random(len(event)) < 0.5)
    second = np.flatnonzero((is_photon & (place == 1)) | partner)
    apart = rng.uniform(*config.distance, len(second))
    angle = rng.uniform(-np.pi, np.pi, len(second))
    # towards the middle, so that the second one lies in the barrel too
    step = apart * np.cos(angle)
    eta[second] = eta[second - 1] - np.sign(eta[second - 1]) * np.abs(step)
    phi[second] = np.angle(np.exp(1j * (phi[second - 1] + apart * np.sin(angle))))
    distance[second] = distance[second - 1] = apart
    et = config.et[0] * (config.et[1] / config.et[0]) ** rng.random(len(event))
    pdg_id = np.where(is_photon, 22, rng.choice(PIONS, len(event))).astype(np.int32)
    return event, Particles(np.arange(len(event)), pdg_id, et * np.cosh(eta), eta, phi), distance


def cached_maps(config: MapsConfig, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Path of the events of a configuration (.npz, no pickle), made on first use chunk by chunk;
    what was stopped goes on at the first chunk that is missing.

    Parameters
    ----------
    config : MapsConfig
    cache_dir : path-like, optional
        By default `cache.cache_folder`.

    Raises
    ------
    ConfigError
        If pile-up is wanted and Pythia is not installed.
    """
    folder = Path(cache_dir or cache_folder())
    pythia = pythia_version() if config.mu else None
    key = cache_key("simulation", "pythia", "events", config=config.settings, pythia8=pythia)
    path = folder / f"photon-maps-{config.n_events}-{key}.npz"
    return cached_parts(
        path,
        Maps,
        functools.partial(simulate_maps, config),
        -(-config.n_events // config.chunk),
        join=join_maps,
        n_pool=config.n_pool if config.mu else 0,
        n_processes=config.n_processes,
    )


def join_maps(parts: list[Maps]) -> Maps:
    """One after the other."""
    before = np.cumsum([0, *(part.n_events for part in parts)])
    moved = [p._replace(event=p.event + n) for p, n in zip(parts, before, strict=False)]
    return Maps(*(np.concatenate(column) for column in zip(*moved, strict=True)))


def read_maps(path: str | os.PathLike[str]) -> Maps:
    """The events of a file of `cached_maps`."""
    found: Maps = read_arrays(Maps, Path(path))
    return found
