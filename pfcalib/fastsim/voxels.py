"""Showers of single particles as voxels about their axis, in the layout of the CaloChallenge: by
Geant4, by the parametrised engine, or from files of one's own.

Particles come from the centre at eta = phi = 0, so their axis is normal to all layers. A deposit at
(eta, phi) of a layer at radius R lies at r cos(alpha) = R eta, r sin(alpha) = R phi, as in
`samples.layouts.calochallenge`. Energies are at the EM scale, without noise; voxels below a
threshold are empty. Geant4's deposits find their voxel one by one. The parametrised engine fills
cells of a millimetre or a little more, whose signal goes to a random place inside of each.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.cache import cache_folder, cache_key, new_file, write_text
from pfcalib.errors import ConfigError
from pfcalib.geometry import WINDOW, Grid
from pfcalib.samples.layouts import calochallenge
from pfcalib.samples.layouts.calochallenge import (
    PHOTONS,
    PIONS,
    PUBLISHED,
    Binning,
    open_showers,
    read_binning,
)
from pfcalib.simulation.chunks import join_columns, keep_chunks, read_columns
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.geant4.session import Session
from pfcalib.simulation.geant4.shots import build_shots
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
BINNINGS = {"photon": PHOTONS, "pion": PIONS}
ENERGIES = tuple(0.256 * 2.0**k for k in range(11))  # GeV, those of the challenge up to 262
ENGINES = ("geant4", "parametrised")
REACH = 0.82  # of the cells of the parametrised engine in eta and phi, as far as any voxel
CELL = (4.0, 1.0, 1.5, 8.0, 8.0, 10.0, 20.0)  # mm, their size in each layer
_MEV = 1e3  # in a GeV


class Voxels(NamedTuple):
    """Showers of one kind of particle."""

    binning: Binning
    energy: F64  # (n,) GeV, of the particles
    showers: F32  # (n, binning.n_voxels) GeV

    @property
    def layers(self) -> F64:
        """Energy of each layer in GeV, (n, n_layers)."""
        return layer_sums(self.showers, self.binning)

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """Some of the showers."""
        return self._replace(energy=self.energy[rows], showers=self.showers[rows])


def group_sums(values: NDArray[Any], of: NDArray[np.int64]) -> F64:
    """Sums over the columns of each group, (n, n_groups); `of`, (n_columns,), is their group."""
    return np.add.reduceat(*_grouped(values, of), axis=1, dtype=np.float64)


def group_largest(values: NDArray[Any], of: NDArray[np.int64]) -> NDArray[Any]:
    """Largest value of the columns of each group, (n, n_groups)."""
    return np.maximum.reduceat(*_grouped(values, of), axis=1)


def _grouped(values: NDArray[Any], of: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    order = np.argsort(of, kind="stable")
    return values[:, order], np.searchsorted(of[order], np.arange(of.max() + 1))


def layer_sums(showers: NDArray[Any], binning: Binning) -> F64:
    """Sums over the voxels of each layer, (n, n_layers)."""
    return group_sums(showers, layer_of(binning))


def layer_of(binning: Binning) -> NDArray[np.int64]:
    """Place of the layer of each voxel in `binning.layers`, (n_voxels,)."""
    return np.repeat(np.arange(len(binning.layers)), [one.n_voxels for one in binning.layers])


def ring_of(binning: Binning) -> NDArray[np.int64]:
    """Number of the ring of each voxel, through all layers, (n_voxels,)."""
    start, found = 0, []
    for layer in binning.layers:
        n = layer.n_voxels // layer.n_alpha
        found.append(np.tile(start + np.arange(n), layer.n_alpha))
        start += n
    return np.concatenate(found)


def layer_of_rings(binning: Binning) -> NDArray[np.int64]:
    """Place of the layer of each ring in `binning.layers`, (n_rings,)."""
    sizes = [layer.n_voxels // layer.n_alpha for layer in binning.layers]
    return np.repeat(np.arange(len(sizes)), sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoxelConfig:
    """Which showers to make.

    Parameters
    ----------
    particle : str
        "photon" or "pion", a positive one.
    engine : str
        Of ENGINES.
    energies : tuple of float, GeV
    n_most : int
        Showers of each energy, at most.
    budget : float, GeV
        Energy of all showers of one energy, at most; Geant4's time goes with it.
    n_least : int
        Showers of each energy in any case.
    threshold : float, GeV
        Below it a voxel is empty.
    seed : int
    chunk : float, GeV
        Energy that is shot at once.
    """

    particle: str = "photon"
    engine: str = "geant4"
    energies: tuple[float, ...] = ENERGIES
    n_most: int = 1000
    budget: float = 5000.0
    n_least: int = 10
    threshold: float = 1e-4
    seed: int = 1
    chunk: float = 2000.0

    def __post_init__(self) -> None:
        if self.particle not in BINNINGS or self.engine not in ENGINES:
            raise ConfigError(
                f"VoxelConfig: {self.engine!r} showers of {self.particle!r}: there are "
                f"{', '.join(ENGINES)} of {', '.join(BINNINGS)}"
            )
        if not (
            len(self.energies)
            and all(energy > 0.15 for energy in self.energies)
            and min(self.n_most, self.n_least, self.budget, self.chunk) > 0
            and self.threshold >= 0.0
        ):
            raise ConfigError(f"VoxelConfig: expected energies above 0.15 GeV, not {self}")

    @property
    def binning(self) -> Binning:
        return BINNINGS[self.particle]

    def of_all(self) -> F64:
        """Energy of each shower in GeV, shuffled, (n,)."""
        counts = [
            max(self.n_least, min(self.n_most, int(self.budget / one))) for one in self.energies
        ]
        energy = np.repeat(np.array(self.energies), counts)
        return np.random.default_rng(self.seed).permutation(energy)

    @property
    def n_chunks(self) -> int:
        return max(1, int(np.ceil(self.of_all().sum() / self.chunk)))


def kept_voxels(config: VoxelConfig, *, n_processes: int = 1) -> Voxels:
    """Showers of a configuration, made where they are not in the cache; what an interrupted call
    has made is taken.

    Parameters
    ----------
    config : VoxelConfig
    n_processes : int
        That share the work; the showers do not depend on it.
    """
    key = cache_key("fastsim", "simulation", "geant4", "geant4_tables", config=config)
    columns = read_columns(
        keep_chunks(
            cache_folder() / "fastsim" / f"{config.engine}-{config.particle}-{key}.npz",
            functools.partial(simulate_voxels, config), config.n_chunks, join=join_columns,
            n_processes=n_processes,
        )
    )  # fmt: skip
    return Voxels(config.binning, columns["energy"], columns["showers"])


def simulate_voxels(config: VoxelConfig, number: int) -> dict[str, NDArray[Any]]:
    """Showers of one chunk: ``energy`` and ``showers`` as in `Voxels`."""
    energy = config.of_all()
    rows = np.arange(len(energy))[number :: config.n_chunks]
    if config.engine == "geant4":
        showers = _by_geant4(config, energy, rows)
    else:
        rng = np.random.default_rng((config.seed, number))
        showers = fast_voxels(config.binning, energy[rows], rng)
    showers = np.where(showers < config.threshold, 0.0, showers)
    return {"energy": energy[rows], "showers": showers.astype(np.float32)}


def fast_voxels(binning: Binning, energy: ArrayLike, rng: np.random.Generator) -> F64:
    """Showers of the parametrised engine, unrefined: what refines it knows cells of the window
    only.

    Parameters
    ----------
    binning : Binning
    energy : array_like, shape (n,), GeV
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, n_voxels), GeV
    """
    grid = _fine_grid()
    particles = _along_axis(binning, np.asarray(energy, dtype=np.float64))
    hits = simulate_showers(particles, grid, rng, refine=False)
    layer = np.searchsorted(grid.offset, hits.cell, side="right") - 1
    of_layer = np.array([(one.n_phi, one.d_eta, one.d_phi) for one in grid.layers])[layer]
    place = np.stack(np.divmod(hits.cell - grid.offset[layer], of_layer[:, 0].astype(np.int64)))
    where = (place + rng.random(place.shape)) * of_layer[:, 1:].T - REACH
    voxel = find_voxels(binning, grid, layer, *where)
    inside = voxel >= 0
    index = hits.event[inside] * binning.n_voxels + voxel[inside]
    size = len(particles.energy) * binning.n_voxels
    return (
        np.bincount(index, hits.signal[inside], size)
        .astype(np.float64)
        .reshape(-1, binning.n_voxels)
    )


def find_voxels(
    binning: Binning, grid: Grid, layer: NDArray[np.int64], eta: F64, phi: F64
) -> NDArray[np.int64]:
    """Voxel of each point of the layers of a grid, -1 where there is none.

    Parameters
    ----------
    binning : Binning
    grid : Grid
    layer : ndarray of int, shape (n,)
        Place in `grid.layers`.
    eta, phi : ndarray, shape (n,)
        From the axis; phi in rad.
    """
    found = np.full(len(layer), -1, np.int64)
    starts = dict(zip((one.sampling for one in binning.layers), binning.starts, strict=True))
    for one in binning.layers:
        at = [i for i, of_grid in enumerate(grid.layers) if of_grid.sampling == one.sampling]
        here = np.flatnonzero(layer == at[0])
        x, y = grid.layers[at[0]].r * eta[here], grid.layers[at[0]].r * phi[here]
        n_r = len(one.r_edges) - 1
        ring = np.searchsorted(one.r_edges, np.hypot(x, y), side="right") - 1
        sector = np.floor((np.arctan2(y, x) + np.pi) / (2.0 * np.pi) * one.n_alpha).astype(np.int64)
        sector = np.minimum(sector, one.n_alpha - 1)  # alpha = pi
        inside = (ring >= 0) & (ring < n_r)
        found[here] = np.where(inside, starts[one.sampling] + sector * n_r + ring, -1)
    return found


def _along_axis(binning: Binning, energy: F64) -> Particles:
    zero = np.zeros(len(energy))
    pdg_id = np.full(len(energy), binning.pdg_id, np.int32)
    return Particles(np.arange(len(energy)), pdg_id, energy, zero, zero)


def _fine_grid() -> Grid:
    """The layers of the window, cut into cells of about CELL."""
    layers = []
    for layer, size in zip(WINDOW.layers, CELL, strict=True):
        n = 2 * int(np.ceil(REACH * layer.r / size))
        step = 2.0 * REACH / n
        layers.append(dataclasses.replace(layer, n_eta=n, n_phi=n, d_eta=step, d_phi=step))
    return Grid("fine", tuple(layers), -REACH, -REACH, wraps=False)


@dataclasses.dataclass(frozen=True, eq=False)
class VoxelGrid(Grid):
    """The layers of the window, in which points find voxels in place of cells."""

    binning: Binning

    def locate(self, layer: int, eta: ArrayLike, phi: ArrayLike) -> NDArray[np.int64]:
        eta, phi = np.asarray(eta, dtype=np.float64), np.asarray(phi, dtype=np.float64)
        return find_voxels(self.binning, self, np.full(len(eta), layer), eta, phi)


def _by_geant4(config: VoxelConfig, energy: F64, rows: NDArray[np.int64]) -> F64:
    """Showers of some rows by a process of its own, which Geant4 wants."""
    rng = np.random.default_rng((config.seed, len(energy)))
    shots = build_shots(_along_axis(config.binning, energy), rng)
    with tempfile.TemporaryDirectory() as folder:
        job, result, log = (Path(folder) / name for name in ("job.npz", "result.npz", "log"))
        np.savez(
            job, rows=shots.rows[rows], pdg_id=shots.pdg_id[rows], seeds=shots.seeds[rows],
            particle=np.array(config.particle),
        )  # fmt: skip
        with log.open("wb") as said:
            command = [sys.executable, "-m", "pfcalib.fastsim.voxels", str(job), str(result)]
            subprocess.run(command, stdout=said, stderr=said, check=False)
        if not result.exists():
            raise ConfigError(f"Geant4 ended early: {log.read_text(errors='replace')[-2000:]}")
        return read_columns(result)["showers"]


def shoot_job(job: Path, result: Path) -> None:
    """Shoot the rows of a file by Geant4 and write their voxels; the process is of no use
    afterwards.
    """
    columns = read_columns(job)
    binning = BINNINGS[str(columns["particle"])]
    grid = VoxelGrid("voxels", WINDOW.layers, -REACH, -REACH, False, binning)
    config = Geant4Config(calibration_truth=False)
    hits = Session(grid, find_data(), config).shoot(
        columns["rows"], columns["pdg_id"], columns["seeds"]
    )
    index = hits.event * binning.n_voxels + hits.cell
    size = hits.n_events * binning.n_voxels
    showers = np.bincount(index, hits.signal, size).reshape(-1, binning.n_voxels)
    with new_file(result) as temporary:
        np.savez(temporary, showers=showers)


def write_voxels(path: str | os.PathLike[str], voxels: Voxels) -> Path:
    """Write showers as the challenge's HDF5 in MeV, and their binning as XML beside it."""
    path = Path(path)
    with new_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in (
            (calochallenge.ENERGIES, voxels.energy[:, None] * _MEV),
            (calochallenge.SHOWERS, voxels.showers * _MEV),
        ):
            file.create_dataset(name, data=values.astype(np.float32), compression="gzip")
    write_binning(path.with_suffix(".xml"), voxels.binning)
    return path


def write_binning(path: str | os.PathLike[str], binning: Binning) -> None:
    """Write a binning as the challenge's XML, which `read_binning` reads."""
    layers = "".join(
        f'    <Layer id="{one.sampling}" r_edges="{",".join(f"{edge:g}" for edge in one.r_edges)}"'
        f' n_bin_alpha="{one.n_alpha}"/>\n'
        for one in binning.layers
    )
    write_text(
        path,
        f'<Bins>\n  <Bin pid="{binning.pdg_id}" etaMin="0" etaMax="5" '
        f'name="{binning.name}">\n{layers}  </Bin>\n</Bins>\n',
    )


def read_voxels(
    path: str | os.PathLike[str], *, binning: Binning | None = None, n_most: int | None = None
) -> Voxels:
    """Showers of a file in the layout of the challenge.

    Parameters
    ----------
    path : path
    binning : Binning, optional
        Otherwise that of the XML of the same name beside the file or, without one, the published
        one with as many voxels.
    n_most : int, optional
        Of the showers, the first.

    Raises
    ------
    BadFileError, BadEntriesError
        As `open_showers` and its reader do.
    """
    xml = Path(path).with_suffix(".xml")
    if binning is None and xml.is_file():
        binning = read_binning(xml)
    with open_showers(path, binning=binning) as reader:
        binning = binning or PUBLISHED[len(reader.geo)]
        sample = reader.read(0, min(reader.n_entries, n_most or reader.n_entries))
    showers = np.zeros((len(sample), binning.n_voxels), np.float32)
    row = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    showers[row, sample.cells["cluster_cell_ID"]] = sample.cells["cluster_cell_E"]
    return Voxels(binning, sample["truthE"].astype(np.float64), showers)


if __name__ == "__main__":
    shoot_job(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # Geant4 and Python do not agree on the order of the end
