"""Samples of clusters whose showers come from a generator of voxels in place of an engine.

Generators lie in a folder, one for each kind of particle: ``photon`` and ``pion`` are folders of
`flowmatching.Flow.save`, or ``photon.hdf5`` and ``pion.hdf5`` showers in the layout of the
CaloChallenge with their binning, from which one is drawn each time. A pi0 is two photons.

Voxels know nothing of cells: the energy of each is spread over its ring and sector, in the more
spots the more it is, and each spot falls into a cell. Showers are those of particles at a right
angle, so the window, |eta| < 0.05 without a field, is all that they are good for. They hold no
calibration truth: its columns are zero.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pfcalib import __version__
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.fastsim.flowmatching import load_flow
from pfcalib.fastsim.generators import FrozenShowers, Generator
from pfcalib.fastsim.voxels import Voxels, layer_of, read_voxels
from pfcalib.geometry import GRIDS, Grid
from pfcalib.samples.layouts.calochallenge import Binning
from pfcalib.samples.schema import CellGeo
from pfcalib.samples.write import SampleWriter
from pfcalib.simulation.digitise import Hits, noise_sigma
from pfcalib.simulation.particles import Particles, decay_at_origin
from pfcalib.simulation.pileup import in_order
from pfcalib.simulation.produce import Chunk, ProduceConfig, read_out, start_chunk

KINDS = {22: "photon", 211: "pion", -211: "pion"}  # of generators, by PDG id
ANGLE = 0.05  # largest |eta|
SPOT = 0.01  # GeV, of a voxel's energy in one spot
MOST_SPOTS = 20  # of a voxel
ENDINGS = (".hdf5", ".h5")


@functools.lru_cache(maxsize=4)
def load_generators(folder: Path) -> dict[str, Generator]:
    """Generators by kind of particle from a folder, at least one.

    Raises
    ------
    BadFileError
        If there is none, or a file is broken.
    """
    found: dict[str, Generator] = {}
    for kind in dict.fromkeys(KINDS.values()):
        files = [path for end in ENDINGS if (path := folder / f"{kind}{end}").is_file()]
        if (folder / kind).is_dir():
            found[kind] = load_flow(folder / kind)
        elif files:
            found[kind] = FrozenShowers(read_voxels(files[0]))
    if not found:
        raise BadFileError(
            f"{folder}: no generator: expected a folder photon or pion of networks, or photon.hdf5 "
            "or pion.hdf5 with showers"
        )
    return found


def generated_hits(
    generators: Mapping[str, Generator],
    particles: Particles,
    grid: Grid,
    rng: np.random.Generator,
) -> Hits:
    """Hits of a batch of events from generated showers.

    Parameters
    ----------
    generators : mapping of str to Generator
        By kind of particle.
    particles : Particles
        As of `simulation.showers.build_rows`, near eta = 0.
    grid : Grid
    rng : numpy.random.Generator
        Source of decays, of showers and of places in voxels.

    Raises
    ------
    ConfigError
        If there is no generator of a kind of particle.
    """
    n_events = int(particles.event[-1]) + 1 if len(particles.event) else 0
    alone = decay_at_origin(particles, rng)
    keys, signals = [np.empty(0, np.int64)], [np.empty(0)]
    kinds = np.array([KINDS.get(int(pdg_id), f"PDG id {pdg_id}") for pdg_id in alone.pdg_id])
    for kind in np.unique(kinds):
        if kind not in generators:
            raise ConfigError(f"no generator of {kind}: there are {', '.join(generators)}")
        rows = np.flatnonzero(kinds == kind)
        row, cell, signal = into_cells(
            generators[kind].generate(alone.energy[rows], rng), alone.eta[rows], alone.phi[rows],
            grid, rng,
        )  # fmt: skip
        keys.append(alone.event[rows][row] * grid.n_cells + cell)
        signals.append(signal)
    found, where = np.unique(np.concatenate(keys), return_inverse=True)
    event, cell = np.divmod(found, grid.n_cells)
    total = np.bincount(where, np.concatenate(signals), len(found)).astype(np.float64)
    nothing = np.zeros(len(found))
    offsets = np.searchsorted(event, np.arange(n_events + 1))
    e_total = np.bincount(particles.event, particles.energy, n_events).astype(np.float64)
    unknown = np.zeros(n_events)
    return Hits(
        offsets, cell.astype(np.int32), total, nothing, nothing, nothing, nothing, unknown,
        unknown, e_total, unknown,
    )  # fmt: skip


def into_cells(
    voxels: Voxels,
    eta: NDArray[np.float64],
    phi: NDArray[np.float64],
    grid: Grid,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Spots of showers in cells, those outside the grid left out.

    Parameters
    ----------
    voxels : Voxels
    eta, phi : ndarray, shape (n,)
        Of the axes; phi in rad.
    grid : Grid
    rng : numpy.random.Generator

    Returns
    -------
    row, cell, signal : ndarray, shape (n_spots,)
        Shower, cell and energy in GeV of each spot.
    """
    low, high, alpha, step = _bounds(voxels.binning)
    shower, voxel = np.nonzero(voxels.showers)
    energy = voxels.showers[shower, voxel].astype(np.float64)
    n_spots = np.clip(np.ceil(energy / SPOT), 1, MOST_SPOTS).astype(np.int64)
    spot = np.repeat(np.arange(len(energy)), n_spots)
    row, at = shower[spot], voxel[spot]
    r = np.sqrt(low[at] ** 2 + rng.random(len(at)) * (high[at] ** 2 - low[at] ** 2))
    angle = alpha[at] + step[at] * rng.random(len(at))
    cell = np.full(len(at), -1, np.int64)
    layers = layer_of(voxels.binning)[at]
    for i, one in enumerate(voxels.binning.layers):
        here = np.flatnonzero(layers == i)
        k = next(k for k, layer in enumerate(grid.layers) if layer.sampling == one.sampling)
        x, y = (r[here] * of(angle[here]) / grid.layers[k].r for of in (np.cos, np.sin))
        cell[here] = grid.locate(k, eta[row[here]] + x, phi[row[here]] + y)
    inside = cell >= 0
    return row[inside], cell[inside], (energy / n_spots)[spot][inside]


def _bounds(binning: Binning) -> tuple[NDArray[np.float64], ...]:
    """Inner and outer radius in mm, first angle and its range in rad of each voxel, (n_voxels,)."""
    parts = []
    for layer in binning.layers:
        step = 2.0 * np.pi / layer.n_alpha
        alpha, low = np.meshgrid(
            -np.pi + step * np.arange(layer.n_alpha), layer.r_edges[:-1], indexing="ij"
        )
        high = np.broadcast_to(layer.r_edges[1:], low.shape)
        parts.append([low, high, alpha, np.full(low.shape, step)])
    return tuple(np.concatenate([of[k].ravel() for of in parts]) for k in range(4))


def generated_chunk(config: ProduceConfig, folder: Path, number: int) -> Chunk:
    """Clusters of one chunk of events, by the generators of a folder."""
    particles, rng, noise = start_chunk(config, number)
    hits = generated_hits(load_generators(folder), particles, GRIDS[config.grid], rng)
    return read_out(config, number, hits, particles, noise)


def produce_generated(
    path: str | os.PathLike[str],
    config: ProduceConfig,
    folder: str | os.PathLike[str],
    *,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a sample as `simulation.produce.produce_sample` does, of the same particles and with
    the same noise, its showers by the generators of a folder; returns its path.

    Parameters
    ----------
    path : path-like
        ROOT file; it appears under this name only when it is complete.
    config : ProduceConfig
        Of single particles in the window; its engine is not used.
    folder : path-like
        As of `load_generators`.
    progress : callable, optional
        Called with the number of events finished since the last call.

    Raises
    ------
    ConfigError
        If particles go where the showers are not valid.
    BadFileError
        As of `load_generators`.
    """
    if config.dijets or config.grid != "window" or config.eta_max > ANGLE:
        raise ConfigError(
            f"generated showers are at a right angle: expected guns, the grid 'window' and eta_max "
            f"<= {ANGLE:g}, not {'dijets' if config.dijets else 'guns'}, {config.grid!r} and "
            f"{config.eta_max:g}"
        )
    path, folder, grid = Path(path), Path(folder).resolve(), GRIDS[config.grid]
    load_generators(folder)
    metadata = {
        "generator": f"generated showers, pfcalib {__version__}", "folder": folder.name,
        "seed": config.seed, "config": {**config.settings, "engine": "generator"},
        "calibration truth": "none",
    }  # fmt: skip
    n_chunks, n_with_cluster = -(-config.n_events // config.chunk), 0
    make = functools.partial(generated_chunk, config, folder)
    chunks = in_order(make, range(n_chunks), config.n_processes)
    geo = CellGeo.from_grid(grid, noise_sigma(grid, config.noise_config))
    with contextlib.closing(chunks), SampleWriter(path, geo, metadata) as writer:  # type: ignore[type-var]
        for number, chunk in enumerate(chunks):
            writer.extend(*chunk)
            n_with_cluster += len(np.unique(chunk[0]["eventNumber"]))
            if progress:
                progress(min(config.chunk, config.n_events - number * config.chunk))
        writer.metadata |= {
            "n_events": config.n_events,
            "n_events_without_cluster": config.n_events - n_with_cluster,
        }
    return path
