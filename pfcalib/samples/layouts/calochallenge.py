"""Showers of the CaloChallenge's first data set: HDF5 with ``incident_energies`` and ``showers`` in
MeV, one row a shower.

Public source: doi.org/10.5281/zenodo.6234054 (data), arXiv:2410.21611 (challenge).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pfcalib.columns import COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.samples.faults import BadEntriesError
from pfcalib.samples.layouts.protocol import Layout, Reader
from pfcalib.samples.layouts.voxels import NAMES, PUBLISHED, Binning, read_binning, voxel_cells
from pfcalib.samples.locate import PathLike, is_url, open_binary
from pfcalib.samples.rootfile import reading, require_readable
from pfcalib.samples.schema import Sample

ENERGIES, SHOWERS = "incident_energies", "showers"
_MAGIC = b"\x89HDF\r\n\x1a\n"
_GEV = 1e-3  # GeV in a MeV


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
        cells = {"cluster_cell_ID": voxel, "cluster_cell_E": voxels[row, voxel]}
        typed = [
            {name: array.astype(COLUMNS[name].dtype) for name, array in part.items()}
            for part in (scalars, cells)
        ]
        return Sample(
            typed[0],
            np.concatenate([[0], np.cumsum(n_cells)]).astype(np.int64),
            typed[1],
            self.geo,
            self.metadata,
        )


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
    with open_binary(path) as binary, contextlib.ExitStack() as stack:
        with reading(path, "not a readable HDF5 file"):
            file = stack.enter_context(h5py.File(binary, "r"))
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
