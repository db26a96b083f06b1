"""Showers of the CaloChallenge's first data set: HDF5 with ``incident_energies`` and ``showers`` in
MeV, one row a shower.

Voxels are cut of cylinders around the axis of the particle by rings and sectors, as the challenge's
``binning_dataset_1_*.xml`` say. Public source: doi.org/10.5281/zenodo.6234054 (data),
arXiv:2410.21611 and github.com/CaloChallenge/homepage (challenge).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np

from pfcalib.columns import COLUMNS, LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.faults import BadEntriesError
from pfcalib.samples.layouts.protocol import Layout, Reader
from pfcalib.samples.locate import PathLike, is_url, open_binary
from pfcalib.samples.rootfile import reading, require_readable
from pfcalib.samples.schema import CellGeo, Sample

ENERGIES, SHOWERS = "incident_energies", "showers"
_MAGIC = b"\x89HDF\r\n\x1a\n"
_GEV = 1e-3  # GeV in a MeV
LAYERS = {layer.sampling: layer for layer in BARREL.layers}
NAMES = {layer.sampling: name for layer, name in zip(BARREL.layers, LAYER_NAMES, strict=True)}
_PDG_IDS = {"photon": 22, "electron": 11, "pion": 211}


@dataclasses.dataclass(frozen=True)
class VoxelLayer:
    """Voxels of one layer.

    Parameters
    ----------
    sampling : int
        Sampling number: PreSamplerB 0, EMB1-3 1-3, TileBar0-2 12-14.
    r_edges : tuple of float, mm
        Edges of the rings, rising from 0 or more.
    n_alpha : int
        Sectors of each ring, the first one from alpha = -pi.
    """

    sampling: int
    r_edges: tuple[float, ...]
    n_alpha: int

    def __post_init__(self) -> None:
        rising = len(self.r_edges) > 1 and all(low < high for low, high in pairwise(self.r_edges))
        known = ", ".join(map(str, LAYERS))
        for good, what in (
            (self.sampling in LAYERS, f" is no layer of the barrel: {known}"),
            (
                rising and self.r_edges[0] >= 0.0 and np.isfinite(self.r_edges[-1]),
                f": r_edges must rise from 0 or more, got {self.r_edges}",
            ),
            (self.n_alpha >= 1, f": n_bin_alpha must be at least 1, got {self.n_alpha}"),
        ):
            if not good:
                raise ConfigError(f"layer {self.sampling}{what}")

    @property
    def n_voxels(self) -> int:
        return (len(self.r_edges) - 1) * self.n_alpha


@dataclasses.dataclass(frozen=True)
class Binning:
    """Voxels of a data set: layer by layer, in a layer sector by sector, in a sector from the axis
    outwards.

    >>> PHOTONS.n_voxels, PIONS.n_voxels
    (368, 533)
    """

    name: str
    pdg_id: int
    layers: tuple[VoxelLayer, ...]

    def __post_init__(self) -> None:
        samplings = [layer.sampling for layer in self.layers]
        if not samplings or len(set(samplings)) != len(samplings):
            raise ConfigError(f"binning {self.name}: needs different layers, got {samplings}")

    @property
    def n_voxels(self) -> int:
        return sum(layer.n_voxels for layer in self.layers)

    @property
    def starts(self) -> list[int]:
        """First voxel of each layer."""
        return list(accumulate((layer.n_voxels for layer in self.layers[:-1]), initial=0))


PHOTONS = Binning(
    "photons",
    22,
    (
        VoxelLayer(0, (0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
        VoxelLayer(1, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200), 10),
        VoxelLayer(
            2,
            (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400),
            10,
        ),
        VoxelLayer(3, (0, 50, 100, 200, 400, 600), 1),
        VoxelLayer(12, (0, 100, 200, 400, 1000, 2000), 1),
    ),
)
PIONS = Binning(
    "pions",
    211,
    (
        VoxelLayer(0, (0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
        VoxelLayer(1, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200), 10),
        VoxelLayer(2, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400), 10),
        VoxelLayer(3, (0, 50, 100, 200, 400, 600), 1),
        VoxelLayer(
            12, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000), 10
        ),
        VoxelLayer(
            13, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000), 10
        ),
        VoxelLayer(14, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000), 1),
    ),
)
PUBLISHED = {binning.n_voxels: binning for binning in (PHOTONS, PIONS)}


def read_binning(path: PathLike) -> Binning:
    """The binning of an XML file; layers with a single edge have no voxels.

    Raises
    ------
    BadFileError
        If the file cannot be read, is no XML, has not exactly one ``Bin`` with a known particle, or
        a layer is not valid.
    """
    try:
        top = ElementTree.fromstring(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise BadFileError(f"{path}: no readable XML ({error})") from error
    bins = top.findall("Bin")
    if top.tag != "Bins" or len(bins) != 1:
        raise BadFileError(
            f"{path}: expected <Bins> with one <Bin>, found <{top.tag}> with {len(bins)}"
        )
    try:
        rings = [
            (layer.attrib, tuple(float(edge) for edge in layer.attrib["r_edges"].split(",")))
            for layer in bins[0].findall("Layer")
        ]
        layers = tuple(
            VoxelLayer(int(of["id"]), edges, int(of["n_bin_alpha"]))
            for of, edges in rings
            if len(edges) > 1
        )
        one = bins[0].attrib
        pdg_id = one["pid"] if "pid" in one else _PDG_IDS[one.get("name", "")]
        return Binning(Path(path).name, int(pdg_id), layers)
    except KeyError as error:
        raise BadFileError(
            f"{path}: <Bin> or <Layer> has no {error}, expected pid (or a known name), id, r_edges "
            "and n_bin_alpha"
        ) from error
    except (ValueError, ConfigError) as error:
        raise BadFileError(f"{path}: {error}") from error


def voxel_cells(binning: Binning) -> CellGeo:
    """Voxels as cells; ID = place in the data set ``showers``.

    The frame is that of the particle: its axis is at eta = phi = 0. A voxel with its centre (r,
    alpha) in the plane of its layer lies at eta = r cos(alpha) / R, phi = r sin(alpha) / R, with
    the radius R of the layer's centre in `pfcalib.geometry` (this is how ATLAS turns eta and phi
    into mm, arXiv:2109.02551). Rings that are not cut into sectors have their centre at alpha = 0,
    as in the challenge's own code, so that r is kept and the angle means nothing. deta = dphi is
    the side of the square of the same area; volume = area x thickness of the layer; there is no
    noise.
    """
    columns = []
    for layer in binning.layers:
        low, high = np.array(layer.r_edges[:-1]), np.array(layer.r_edges[1:])
        step = 2.0 * np.pi / layer.n_alpha
        alpha, r = np.meshgrid(
            -np.pi + (np.arange(layer.n_alpha) + 0.5) * step, 0.5 * (low + high), indexing="ij"
        )
        area = np.broadcast_to(0.5 * step * (high**2 - low**2), r.shape)
        barrel = LAYERS[layer.sampling]
        flat = [
            np.full(r.shape, layer.sampling),
            r * np.cos(alpha) / barrel.r,
            r * np.sin(alpha) / barrel.r,
            np.full(r.shape, barrel.r),
            np.sqrt(area) / barrel.r,
            area * (barrel.r_out - barrel.r_in),
        ]
        columns.append(np.stack(flat).reshape(len(flat), -1))
    sampling, eta, phi, radius, side, volume = np.concatenate(columns, axis=1)
    cell_id, sigma = np.arange(binning.n_voxels), np.zeros(binning.n_voxels)
    return CellGeo(cell_id, sampling, eta, phi, radius, side, side, volume, sigma)  # type: ignore[arg-type]


class CaloChallengeReader:
    """An open file; see `Reader`.

    A shower is one cluster, the only one of its event, with its row as eventNumber. Its cells are
    the voxels with energy, in the frame of `voxel_cells`, where clusterEta = clusterPhi = 0 is the
    axis of the particle; clusterE is the sum of the voxels.
    """

    layout, unit, tree = "CaloChallenge", "shower", SHOWERS

    def __init__(self, path: PathLike, file: h5py.File, binning: Binning | None = None) -> None:
        self._path = path
        self._energies, self._showers = (_numbers(path, file, name) for name in (ENERGIES, SHOWERS))
        self.n_entries, n_voxels = self._showers.shape
        if self._energies.shape != (self.n_entries, 1):
            raise BadFileError(
                f"{path}: {ENERGIES} has shape {self._energies.shape}, expected ({self.n_entries}, "
                f"1) as {SHOWERS} has rows"
            )
        self._binning = binning if binning is not None else _find_binning(path, n_voxels)
        if self._binning.n_voxels != n_voxels:
            raise BadFileError(
                f"{path}: {SHOWERS} has {n_voxels} voxels, binning {self._binning.name} has "
                f"{self._binning.n_voxels}"
            )
        self.found: tuple[str, ...] = (ENERGIES, SHOWERS)
        self.missing: tuple[str, ...] = ()
        self.geo = voxel_cells(self._binning)
        self.metadata = {"layout": self.layout, "binning": self._binning.name}

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`; a shower with a negative voxel is damaged."""
        with reading(self._path, f"{SHOWERS}: rows {start} to {stop} cannot be read"):
            truth = self._energies[start:stop, 0].astype(np.float64) * _GEV
            voxels = self._showers[start:stop].astype(np.float64) * _GEV
        negative = np.argwhere(voxels < 0.0)
        if len(negative):
            row, voxel = negative[0]
            reason = f"voxel {voxel} is {voxels[row, voxel] / _GEV} MeV, it must not be negative"
            raise BadEntriesError(
                self._path, SHOWERS, "", start + int(row), start + int(row) + 1, reason
            )
        row, voxel = np.nonzero(voxels)
        n_cells = np.bincount(row, minlength=stop - start)
        total = voxels.sum(axis=1)
        nothing = np.zeros(stop - start)
        scalars = {
            "eventNumber": np.arange(start, stop),
            "truthPdgId": np.full(stop - start, self._binning.pdg_id),
            "truthE": truth,
            "nCluster": np.ones(stop - start),
            "clusterIndex": nothing,
            "clusterE": total,
            "clusterEta": nothing,
            "clusterPhi": nothing,
            "cluster_nCells": n_cells,
            "cluster_sumCellE": total,
        }
        layers = np.add.reduceat(voxels, self._binning.starts, axis=1)
        scalars |= {
            f"cluster_E_{NAMES[layer.sampling]}": layers[:, i]
            for i, layer in enumerate(self._binning.layers)
        }
        offsets = np.concatenate([[0], np.cumsum(n_cells)]).astype(np.int64)
        typed, cells = (
            {name: array.astype(COLUMNS[name].dtype) for name, array in part.items()}
            for part in (
                scalars,
                {"cluster_cell_ID": voxel, "cluster_cell_E": voxels[row, voxel]},
            )
        )
        return Sample(typed, offsets, cells, self.geo, self.metadata)


@contextlib.contextmanager
def open_showers(path: PathLike, *, binning: PathLike | Binning | None = None) -> Iterator[Reader]:
    """A reader of a file, closed at the end.

    Parameters
    ----------
    path : path-like
        File or URL.
    binning : path-like or Binning, optional
        The binning or its XML. Otherwise the XML beside the file is taken, of the same name or,
        with the right number of voxels, of a name ``binning*.xml``; and last the published one of
        as many voxels: 368 of photons, 533 of pions.

    Raises
    ------
    BadFileError
        If the file or the XML cannot be read, a data set is missing or of the wrong shape or type,
        or the number of voxels is another.
    """
    require_readable(path)
    chosen = binning if isinstance(binning, Binning) or binning is None else read_binning(binning)
    with open_binary(path) as binary:
        with reading(path, "not a readable HDF5 file"):
            file = h5py.File(binary, "r")
        with file:
            yield CaloChallengeReader(path, file, chosen)


def _numbers(path: PathLike, file: h5py.File, name: str) -> Any:
    """A data set of numbers in rows."""
    with reading(path, f"data set {name} cannot be read"):
        there, data = sorted(file), file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise BadFileError(
            f"{path}: no data set {name!r}; the file has {', '.join(there) or 'none at all'}"
        )
    if data.dtype.kind not in "fiu" or data.ndim != 2:
        raise BadFileError(
            f"{path}: {name} is of type {data.dtype} and shape {data.shape}, expected rows of "
            "numbers"
        )
    return data


def _find_binning(path: PathLike, n_voxels: int) -> Binning:
    """The binning that lies beside the file, or the published one."""
    if not is_url(path):
        own = Path(path).with_suffix(".xml")
        if own.is_file():
            return read_binning(own)
        beside = [read_binning(file) for file in sorted(Path(path).parent.glob("binning*.xml"))]
        fitting = [binning for binning in beside if binning.n_voxels == n_voxels]
        if len({binning.layers for binning in fitting}) > 1:
            raise BadFileError(
                f"{path}: {' and '.join(binning.name for binning in fitting)} fit its {n_voxels} "
                f"voxels: name one {own.name}"
            )
        if fitting:
            return fitting[0]
    if n_voxels not in PUBLISHED:
        known = ", ".join(f"{binning.n_voxels} ({binning.name})" for binning in PUBLISHED.values())
        raise BadFileError(
            f"{path}: {SHOWERS} has {n_voxels} voxels, known are {known}; other binnings need "
            "their XML beside the file"
        )
    return PUBLISHED[n_voxels]


def _matches(path: PathLike) -> bool:
    with open_binary(path) as file:
        return bool(file.read(len(_MAGIC)) == _MAGIC)


LAYOUT = Layout("CaloChallenge", "HDF5 of showers in voxels, MeV", _matches, open_showers)
