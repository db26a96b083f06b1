"""Files of single showers before noise and clustering: one entry an event, jagged cells; the layout
of the packaged Geant4 showers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.errors import BadFileError
from pfcalib.geometry import Grid
from pfcalib.samples.rootfile import get_tree, open_sample, read_geo, read_metadata
from pfcalib.samples.schema import GEO_TREE, METADATA, CellGeo

SHOWER_TREE = "ShowerTree"
_BRANCHES = {
    "truthPdgId": "int32",
    "truthE": "float32",
    "truthEta": "float32",
    "truthPhi": "float32",
}


class Showers(NamedTuple):
    """Noise-free showers of single particles: jagged cells and what was shot."""

    pdg_id: NDArray[np.int32]  # (n,)
    e_true: NDArray[np.float64]  # (n,) GeV
    eta: NDArray[np.float64]  # (n,)
    phi: NDArray[np.float64]  # (n,) rad
    offsets: NDArray[np.int64]  # (n + 1,)
    cell: NDArray[np.int32]  # (n_hits,) flat index in the grid
    signal: NDArray[np.float64]  # (n_hits,) GeV at the EM scale

    def select(self, mask: NDArray[np.bool_]) -> Showers:
        """The showers where mask is true."""
        sizes = np.diff(self.offsets)
        hits = np.repeat(mask, sizes)
        offsets = np.concatenate([[0], np.cumsum(sizes[mask])]).astype(np.int64)
        return Showers(
            self.pdg_id[mask],
            self.e_true[mask],
            self.eta[mask],
            self.phi[mask],
            offsets,
            self.cell[hits],
            self.signal[hits],
        )


def write_showers(
    path: str | os.PathLike[str], showers: Showers, grid: Grid, metadata: Mapping[str, Any]
) -> None:
    """Write showers as a ROOT file, zstd, under a temporary name first."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    counts = np.diff(showers.offsets)
    hits = ak.unflatten(
        ak.zip({"ID": showers.cell.astype(np.uint16), "E": showers.signal.astype(np.float32)}),
        counts,
    )
    columns: tuple[NDArray[Any], ...] = (showers.pdg_id, showers.e_true, showers.eta, showers.phi)
    scalars = {
        name: column.astype(dtype)
        for (name, dtype), column in zip(_BRANCHES.items(), columns, strict=True)
    }
    try:
        with uproot.recreate(temporary, compression=uproot.ZSTD(9)) as file:
            tree = file.mktree(SHOWER_TREE, {**_BRANCHES, "hit": hits.type.content})
            tree.extend({**scalars, "hit": hits})
            geo = {
                name: ak.Array(array[None])
                for name, array in CellGeo.from_grid(grid).arrays().items()
            }
            file.mktree(GEO_TREE, {name: array.type.content for name, array in geo.items()}).extend(
                geo
            )
            file[METADATA] = json.dumps(dict(metadata), sort_keys=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_showers(path: str | os.PathLike[str], grid: Grid) -> tuple[Showers, dict[str, Any]]:
    """Showers and metadata of a file.

    Raises
    ------
    BadFileError
        If it is not such a file, its cells are not those of the grid, or an energy is not finite.
    """
    with open_sample(path) as file:
        tree = get_tree(path, file, SHOWER_TREE)
        geo, metadata = read_geo(path, file), read_metadata(path, file)
        arrays = tree.arrays([*_BRANCHES, "hit_ID", "hit_E"], library="ak")
    if not geo.same_as(CellGeo.from_grid(grid)):
        raise BadFileError(
            f"{path}: {GEO_TREE} does not describe the cells of the grid {grid.name!r}"
        )
    offsets = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(arrays["hit_ID"])))]).astype(
        np.int64
    )
    cell, signal = (ak.to_numpy(ak.flatten(arrays[name])) for name in ("hit_ID", "hit_E"))
    bad = np.flatnonzero(~np.isfinite(signal) | (cell >= grid.n_cells))
    if len(bad):
        entry = int(np.searchsorted(offsets, bad[0], side="right")) - 1
        raise BadFileError(
            f"{path}: {SHOWER_TREE}, entry {entry}: hit_E must be finite and hit_ID below "
            f"{grid.n_cells}"
        )
    pdg_id, e_true, eta, phi = (ak.to_numpy(arrays[name]) for name in _BRANCHES)
    bad = np.flatnonzero(~(np.isfinite(e_true) & (e_true > 0.0)))
    if len(bad):
        raise BadFileError(
            f"{path}: {SHOWER_TREE}, entry {bad[0]}: truthE must be positive and finite, not "
            f"{e_true[bad[0]]}"
        )
    e_true, eta, phi, signal = (array.astype(np.float64) for array in (e_true, eta, phi, signal))
    return Showers(pdg_id, e_true, eta, phi, offsets, cell.astype(np.int32), signal), metadata
