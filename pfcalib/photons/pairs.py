"""Pairs of images: photons and fakes in windows of the calorimeter layers, without pile-up, and
what pile-up adds to each pixel.

A window is 7 x 11 cells of EMB2 about the hottest one; the other layers are cut where it lies, each
in its own cells, so that the strips of EMB1 stay as fine as they are. The image at some mu is the
one without pile-up plus what pile-up adds, so the two of a pair differ by nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import cache_folder, cache_key
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, Grid
from pfcalib.photons.fakes import (
    Candidates,
    match_pt,
    simulate_candidates,
    to_calorimeter,
    turn,
)
from pfcalib.photons.parts import cached_parts, read_arrays
from pfcalib.samples.split import split_of
from pfcalib.simulation.detector import build_slabs, grid_arrays
from pfcalib.simulation.digitise import NoiseConfig, noise_sigma
from pfcalib.simulation.kernels import Setup, new_scratch
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.pileup import (
    N_TURNS,
    Pool,
    turn_table,
)
from pfcalib.simulation.produce import FIELD
from pfcalib.simulation.pythia import pythia_version, require_pythia
from pfcalib.simulation.showers import run_events

IntArray = NDArray[np.int64]
F32 = NDArray[np.float32]

# cells in eta and phi of each layer's image
SHAPES = {
    "PreSamplerB": (7, 3), "EMB1": (56, 3), "EMB2": (7, 11), "EMB3": (4, 11),
    "TileBar0": (3, 3), "TileBar1": (3, 3),
}  # fmt: skip
SIZES = {name: n_eta * n_phi for name, (n_eta, n_phi) in SHAPES.items()}
ENDS = dict(zip(SIZES, np.cumsum(list(SIZES.values())).tolist(), strict=True))
SLICES = {name: slice(ENDS[name] - SIZES[name], ENDS[name]) for name in SIZES}
N_PIXELS = sum(SIZES.values())
EMB2 = LAYER_NAMES.index("EMB2")
SEARCH = 0.06  # in (eta, phi), within which the hottest cell is looked for
_PART_OF_POOL = np.cumsum([0.0, 0.7, 0.1, 0.2])  # each split draws from its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs to make.

    Parameters
    ----------
    n_fakes : int
        Collisions with a fake, half of them dijets and half with a photon; as many photons as
        uses of fakes, of collisions of their own and of like pT.
    n_copies : int
        Uses of each fake.
    mus : tuple of float
        Mean numbers of collisions of pile-up, rising; those of a smaller mu are among those of a
        larger one.
    pt_min, pt_hat_max : float, GeV
    eta_max, share_beside : float
        See `fakes.simulate_candidates`.
    n_pool : int
        Minimum-bias collisions that pile-up is drawn from; training, validation and test draw from
        their own.
    seed, chunk, n_processes : int
        The pairs depend on the seed and on the fakes a chunk.
    """

    n_fakes: int
    n_copies: int = 8
    mus: tuple[float, ...] = (20.0, 60.0, 140.0, 200.0)
    pt_min: float = 20.0
    pt_hat_max: float = 150.0
    eta_max: float = 0.6
    share_beside: float = 0.4
    n_pool: int = 2000
    seed: int = 1
    chunk: int = 50
    n_processes: int = 1

    def __post_init__(self) -> None:
        if min(self.n_fakes, self.n_copies, self.chunk, self.n_processes) < 1 or self.n_pool < 10:
            raise ConfigError("PairsConfig: numbers must be at least 1, n_pool at least 10")
        if any(np.diff((0.0, *self.mus)) <= 0.0):
            raise ConfigError(f"mus must rise from above 0, not {self.mus}")

    @property
    def settings(self) -> dict[str, object]:
        """All that decides on the pairs."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "n_processes"}


class Pairs(NamedTuple):
    """Photons and fakes, one a row; columns of a file of `cached_pairs`."""

    collision: IntArray  # (n,) split and resample by it
    is_photon: NDArray[np.bool_]  # (n,)
    pdg_id: IntArray  # (n,) 22, 111, 221
    pt: F32  # (n,) GeV, of the candidate
    eta: F32  # (n,)
    beside: F32  # (n,) GeV, sum of pT of other particles within fakes.CONE
    converted: NDArray[np.bool_]  # (n,) in the tracker; of a fake its hardest photon
    signal: F32  # (n, N_PIXELS) GeV at the EM scale
    noise: F32  # (n, N_PIXELS) GeV, electronic
    pileup: F32  # (n_mus, n, N_PIXELS) GeV that pile-up and its noise add

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Pairs:
        """Some of them, by place or mask."""
        return Pairs._make([*(column[rows] for column in self[:-1]), self.pileup[:, rows]])

    @property
    def clean(self) -> F32:
        """Images without pile-up, (n, N_PIXELS), GeV."""
        return self.signal + self.noise

    def pixels(self, mus: tuple[float, ...], mu: float) -> F32:
        """Images at one mu as rows of pixels, shape (n, N_PIXELS); mu = 0 is without pile-up.

        Raises
        ------
        ConfigError
            If there are none of that mu.
        """
        if mu == 0.0:
            return self.clean
        if mu not in mus:
            raise ConfigError(f"no images at mu = {mu:g}; there are 0 and {mus}")
        return self.clean + self.pileup[mus.index(mu)]


def image(pixels: F32, name: str) -> F32:
    """Image of one layer, shape (n, n_eta, n_phi), of rows of pixels."""
    return pixels[:, SLICES[name]].reshape(-1, *SHAPES[name])


def window_cells(grid: Grid, centre: IntArray) -> IntArray:
    """Cells of the windows about cells of EMB2, shape (n, N_PIXELS); -1 outside of the grid."""
    local = centre - grid.offset[EMB2]
    i_eta, i_phi = np.divmod(local, grid.layers[EMB2].n_phi)
    parts = []
    for name, (n_eta, n_phi) in SHAPES.items():
        layer = LAYER_NAMES.index(name)
        of, middle = grid.layers[layer], grid.layers[EMB2]
        # cells of EMB2 a cell in phi; in eta either may be the finer one
        per_phi, per_eta = round(of.d_phi / middle.d_phi), of.d_eta / middle.d_eta
        # the first cell is the one that holds the edge of the window, or is centred on it
        first_phi = i_phi // per_phi - n_phi // 2
        edge = i_eta - SHAPES["EMB2"][0] // 2
        first_eta = (
            np.floor(edge / per_eta + 1e-9) if per_eta < 4 else i_eta // per_eta - n_eta // 2
        ).astype(np.int64)
        eta = first_eta[:, None, None] + np.arange(n_eta)[:, None]
        phi = first_phi[:, None, None] + np.arange(n_phi)
        if grid.wraps:
            phi = phi % of.n_phi
        inside = (eta >= 0) & (eta < of.n_eta) & (phi >= 0) & (phi < of.n_phi)
        cell = np.where(inside, grid.offset[layer] + eta * of.n_phi + phi, -1)
        parts.append(cell.reshape(len(centre), -1))
    return np.concatenate(parts, axis=1)


def hottest(grid: Grid, energy: NDArray[np.floating], eta: float, phi: float) -> int:
    """The hottest cell of EMB2 within SEARCH of a place, of the energies of all cells."""
    step = np.arange(-2, 3) * grid.layers[EMB2].d_eta
    cells = np.unique(grid.locate(EMB2, eta + step[:, None], phi + step))
    cells = cells[cells >= 0]
    return int(cells[np.argmax(energy[cells])])


def simulate_pairs(config: PairsConfig, pool: Pool, number: int) -> Pairs:
    """One chunk of pairs.

    Parameters
    ----------
    config : PairsConfig
    pool : Pool
        Of pile-up; none is needed without mus.
    number : int
        Of the chunk.
    """
    n_fakes = min(config.chunk, config.n_fakes - number * config.chunk)
    source, showers, noise, beam = (
        np.random.default_rng(s)
        for s in np.random.SeedSequence(config.seed, spawn_key=(number,)).spawn(4)
    )
    cuts = {
        "pt_min": config.pt_min, "pt_hat_max": config.pt_hat_max, "eta_max": config.eta_max,
        "share_beside": config.share_beside,
    }  # fmt: skip
    parts = []
    first = 2 * number * config.chunk * config.n_copies  # number of the first collision
    of_dijets = n_fakes - n_fakes // 2
    fakes = [
        simulate_candidates(name, n, source, **cuts)
        for name, n in (("dijet", of_dijets), ("jet", n_fakes - of_dijets))
        if n
    ]
    for fake in fakes:
        rows = np.repeat(np.arange(fake.n), config.n_copies)
        parts.append((first + rows, turn(fake.take(rows), source)))
        first += fake.n
    wanted = np.concatenate([part.pt for _, part in parts])
    photons = simulate_candidates("photon", 2 * len(wanted), source, **cuts)
    chosen = match_pt(photons.pt, wanted, source)
    parts.append((first + np.arange(len(wanted)), turn(photons.take(chosen), source)))
    made = [_image(config, pool, *part, (showers, noise, beam)) for part in parts]
    return join_pairs(made)


def join_pairs(parts: list[Pairs]) -> Pairs:
    """One after the other."""
    columns = [
        np.concatenate(column) for column in zip(*(part[:-1] for part in parts), strict=True)
    ]
    return Pairs._make([*columns, np.concatenate([part.pileup for part in parts], axis=1)])


def _image(
    config: PairsConfig,
    pool: Pool,
    collision: IntArray,
    candidates: Candidates,
    rngs: tuple[np.random.Generator, ...],
) -> Pairs:
    """Showers of candidates and their pairs of images."""
    showers, noise, beam = rngs
    n = candidates.n
    offsets, cell, signal, converted = shower(candidates.particles, BARREL, showers)
    place = candidates.eta, candidates.phi
    windows, pixels, electronic = read_windows(BARREL, offsets, cell, signal, *place, noise)
    pileup = np.zeros((len(config.mus), n, N_PIXELS), np.float32)
    split = split_of(collision)
    for i in range(n if config.mus else 0):
        pileup[:, i] = overlay(pool, config.mus, windows[i], int(split[i]), beam)
    return Pairs(
        collision,
        candidates.pdg_id == 22,
        candidates.pdg_id,
        candidates.pt.astype(np.float32),
        candidates.eta.astype(np.float32),
        candidates.beside.astype(np.float32),
        converted,
        pixels,
        electronic,
        pileup,
    )


def shower(
    particles: Particles, grid: Grid, rng: np.random.Generator
) -> tuple[IntArray, NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_]]:
    """Showers of events: offsets of their hits, cells, signal in GeV, and whether the hardest
    particle is a photon that converted in the tracker.

    Neutral pions decay before, so none of the showers is refined, see `simulation.refine`: photons
    and pions are made alike. The window of the Geant4 reference has no tracker and no field.
    """
    if grid.wraps:
        event, rows, converted = to_calorimeter(particles, rng, field=FIELD)
    else:
        event, rows, converted = to_calorimeter(particles, rng, field=0.0, tracker=False)
    n = len(converted)
    setup = Setup(build_slabs(grid), grid_arrays(grid), ShowerConfig())
    starts, totals = np.searchsorted(event, np.arange(n + 1)), np.bincount(event, rows[:, 1], n)
    offsets, cell, values, _ = run_events(
        rng, setup, new_scratch(grid.n_cells), rows, starts, totals
    )
    return offsets, cell, np.ascontiguousarray(values[:, 0]), converted


def read_windows(
    grid: Grid,
    offsets: IntArray,
    cell: NDArray[np.int32],
    signal: NDArray[np.float64],
    eta: ArrayLike,
    phi: ArrayLike,
    rng: np.random.Generator,
) -> tuple[IntArray, F32, F32]:
    """Cells of the window of each event, -1 outside of the grid, signal and electronic noise in
    them, each (n, N_PIXELS).

    Parameters
    ----------
    grid : Grid
    offsets, cell, signal : ndarray
        Hits of events, as of `shower`.
    eta, phi : array_like, shape (n,)
        Where the candidate points to.
    rng : numpy.random.Generator
        Source of the noise.
    """
    n, sigma = len(offsets) - 1, np.append(noise_sigma(grid), 0.0)
    windows, pixels = np.empty((n, N_PIXELS), np.int64), np.empty((n, N_PIXELS), np.float32)
    for i, place in enumerate(zip(np.asarray(eta), np.asarray(phi), strict=True)):
        hits = slice(offsets[i], offsets[i + 1])
        energy = np.zeros(grid.n_cells + 1)  # the last one is what lies outside
        energy[cell[hits]] = signal[hits]
        windows[i] = window_cells(grid, np.array([hottest(grid, energy, *place)]))[0]
        pixels[i] = energy[windows[i]]
    noise = rng.standard_normal((n, N_PIXELS)) * sigma[windows]
    return windows, pixels, noise.astype(np.float32)


def overlay(
    pool: Pool, mus: tuple[float, ...], window: IntArray, split: int, rng: np.random.Generator
) -> F32:
    """What pile-up adds to the pixels of one window at each mu, shape (n_mus, n_pixels), GeV.

    Collisions of the same crossing leave their energy; those of others are the noise that grows
    with mu, see `simulation.digitise.NoiseConfig`.
    """
    low, high = (_PART_OF_POOL[[split, split + 1]] * pool.n_events).round().astype(np.int64)
    numbers = rng.poisson(np.diff((0.0, *mus)))
    drawn = rng.integers(low, high, size=int(numbers.sum()))
    turns = rng.integers(0, N_TURNS, size=int(numbers.sum()))
    pixel = np.full(BARREL.n_cells, -1, np.int32)
    pixel[window] = np.arange(len(window))
    hits = pool.offsets, pool.cell, pool.values[:, 0], turn_table(BARREL), pixel
    added = add_hits(np.cumsum(numbers), drawn, turns, len(window), *hits)
    # the electronic part of the noise is in the image without pile-up
    nothing = (0.0,) * len(LAYER_NAMES)
    per_root_mu = noise_sigma(BARREL, NoiseConfig(electronic=nothing, mu=1.0))[window]
    shape = rng.standard_normal(len(window)) * per_root_mu
    return (added + np.sqrt(mus)[:, None] * shape).astype(np.float32)


@njit(cache=True, nogil=True)
def add_hits(
    ends: IntArray,
    drawn: IntArray,
    turns: IntArray,
    n_pixels: int,
    offsets: IntArray,
    cell: NDArray[np.int32],
    signal: F32,
    turned: NDArray[np.int32],
    pixel: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Signal in each pixel after the first ``ends[k]`` collisions, shape (len(ends), n_pixels);
    ``pixel`` is that of each cell, -1 for none.
    """
    total, found = np.zeros(n_pixels), np.zeros((len(ends), n_pixels))
    first = 0
    for k in range(len(ends)):
        for i in range(first, ends[k]):
            for j in range(offsets[drawn[i]], offsets[drawn[i] + 1]):
                at = pixel[turned[turns[i], cell[j]]]
                if at >= 0:
                    total[at] += signal[j]
        first = ends[k]
        found[k] = total
    return found


def cached_pairs(config: PairsConfig, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Path of the pairs of a configuration (.npz, no pickle), made on first use chunk by chunk;
    what was stopped goes on at the first chunk that is missing.

    Parameters
    ----------
    config : PairsConfig
    cache_dir : path-like, optional
        By default `cache.cache_folder`.

    Raises
    ------
    ConfigError
        If Pythia is not installed.
    """
    require_pythia()
    folder = Path(cache_dir or cache_folder())
    key = cache_key(
        "simulation", "pythia", "events", config=config.settings, pythia8=pythia_version()
    )
    path = folder / f"photons-{config.n_fakes}-{key}.npz"
    return cached_parts(
        path,
        Pairs,
        functools.partial(simulate_pairs, config),
        -(-config.n_fakes // config.chunk),
        join=join_pairs,
        n_pool=config.n_pool if config.mus else 0,
        n_processes=config.n_processes,
    )


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """The pairs of a file of `cached_pairs`."""
    found: Pairs = read_arrays(Pairs, Path(path))
    return found
