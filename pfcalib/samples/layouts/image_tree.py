"""The earlier MLTree layout: ``ClusterTree`` with one entry a cluster and dense images in place of
cells.

Images as in ATL-PHYS-PUB-2020-018: a pixel is a cell of the window around the cluster's central
cell, its value the cell's energy times the cluster's share of the cell, over the energy of the
cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS, EXTRA, JAGGED, LAYER_NAMES, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.geometry import Grid, build_grid
from pfcalib.samples.faults import BadEntriesError
from pfcalib.samples.layouts.protocol import Layout, in_root
from pfcalib.samples.rootfile import (
    WHOLE,
    PathLike,
    as_column,
    form_of,
    found_and_missing,
    get_tree,
    read_branches,
    reading,
    require_branches,
    require_numbers,
    root_trees,
)
from pfcalib.samples.schema import CLUSTER_TREE, CellGeo, Sample
from pfcalib.samples.split import splitmix64

IMAGES = {  # branch: sampling of the grid, pixels in eta and phi
    "PSB": (0, 16, 4),
    "EMB1": (1, 128, 4),
    "EMB2": (2, 16, 16),
    "EMB3": (3, 8, 16),
    "TileBar0": (4, 4, 4),
    "TileBar1": (5, 4, 4),
    "TileBar2": (6, 2, 4),
}
_CENTRE = LAYER_NAMES.index("EMB2")
# of a cell: a centre that lies on a pixel's edge but for rounding belongs to the upper pixel
_EDGE = 1e-3
_NEEDED = ("clusterE", "clusterEta", "clusterPhi")  # what makes cells of pixels
# the same for all clusters of an event, and for no other event
_SIGNATURE = ("truthE", "truthEta", "truthPhi")
_CELLS = ("cluster_cell_ID", "cluster_cell_E")
_FILE_SCALARS = (  # of formats in the wild; pfcalib's further columns are read where they are there
    *("truthE", "truthPt", "truthEta", "truthPhi", "clusterE", "clusterECalib", "clusterPt"),
    *("clusterEta", "clusterPhi", "clusterIndex", "nCluster", "cluster_nCells"),
    *("cluster_sumCellE", "cluster_ENG_CALIB_TOT", "cluster_ENG_CALIB_OUT_T"),
    "cluster_ENG_CALIB_DEAD_TOT",
    *("cluster_EM_PROBABILITY", "cluster_HAD_WEIGHT", "cluster_OOC_WEIGHT", "cluster_DM_WEIGHT"),
    *("cluster_CENTER_MAG", "cluster_FIRST_ENG_DENS", "cluster_CENTER_LAMBDA", "cluster_ISOLATION"),
)


@lru_cache(maxsize=1)
def image_grid() -> Grid:
    """The cells of the barrel, continued to |eta| < 1.6: as far as images reach that are centred in
    the barrel.
    """
    return build_grid("images", eta_max=1.6, phi_max=np.pi, n_towers_phi=64, wraps=True)


@lru_cache(maxsize=1)
def _image_geo() -> CellGeo:
    return CellGeo.from_grid(image_grid())


class ImageReader:
    """An open file; see `Reader`.

    The cells are those of the barrel's grid around the EMB2 cell that holds the barycentre
    (clusterEta, clusterPhi), with pixel x clusterE as cluster_cell_E, so that
    `pfcalib.features.images` makes the same images of them. Pixels of zero are no cells. The images
    hold no truth by cell, no noise, and no cells outside their window. Where the file has no
    eventNumber, it is a hash of the truth particle's energy and direction, which the clusters of an
    event share; there is no PDG id.
    """

    layout, unit, tree = "ClusterTree images", "cluster", CLUSTER_TREE

    def __init__(self, path: PathLike, file: Any) -> None:
        self._path, self._tree = path, get_tree(path, file, CLUSTER_TREE)
        require_branches(path, self._tree, _NEEDED)
        there = set(self._tree.keys())
        scalars = found_and_missing(there, (*SCALARS, *EXTRA))[0]
        require_numbers(path, self._tree, scalars, depth=0, whole=WHOLE)
        self._images = found_and_missing(there, tuple(IMAGES))[0]
        self.found = (*scalars, *self._images)
        self.missing = found_and_missing(there, (*_FILE_SCALARS, *IMAGES))[1]
        for name in self._images:
            self._require_shape(name)
        self._pixels = _pixels(self._images)
        self.n_entries = int(self._tree.num_entries)
        self.geo = _image_geo()
        self.metadata = {
            "layout": self.layout,
            "cells": "of images: pixel x clusterE, on the barrel's grid around the central cell",
        }

    def _require_shape(self, name: str) -> None:
        shape, kind = IMAGES[name][1:], form_of(self._tree, name).type
        found = []
        while isinstance(kind, ak.types.RegularType):
            found.append(kind.size)
            kind = kind.content
        if tuple(found) != shape or getattr(kind, "primitive", "bool") == "bool":
            raise BadFileError(
                f"{self._path}: {CLUSTER_TREE}: branch {name} is of type "
                f"{self._tree[name].typename}, expected an image of {shape[0]} x {shape[1]} "
                "numbers an entry"
            )

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """See `Reader.read`."""
        can = dict.fromkeys((*self.found, "eventNumber", *_CELLS))
        wanted = [name for name in can if columns is None or name in columns]
        with_cells = any(name in _CELLS for name in wanted)
        hashed = (
            "eventNumber" in wanted
            and "eventNumber" not in self.found
            and set(_SIGNATURE) <= set(self.found)
        )
        names = {*set(wanted).difference(IMAGES), *(_SIGNATURE if hashed else ())}
        names |= {*_NEEDED, *self._images} if with_cells else {_NEEDED[0]}
        branches = [name for name in self.found if name in names]
        arrays = read_branches(self._path, self._tree, branches, start, stop)
        with reading(self._path, f"{CLUSTER_TREE}: entries {start} to {stop} cannot be unpacked"):
            flat = {name: ak.to_numpy(arrays[name]) for name in arrays.fields}
        scalars = {
            name: as_column(name, flat[name]) for name in wanted if name in flat and name in COLUMNS
        }
        if hashed:
            scalars["eventNumber"] = event_hash([flat[name] for name in _SIGNATURE])
        if not with_cells:
            none = np.zeros(stop - start + 1, dtype=np.int64)
            return Sample(scalars, none, {}, self.geo, self.metadata)
        offsets, cells = self._cells(flat, start)
        kept = {name: cells[name] for name in wanted if name in cells}
        return Sample(scalars, offsets, kept, self.geo, self.metadata)

    def _cells(
        self, flat: dict[str, NDArray[Any]], start: int
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        n = len(flat["clusterE"])
        images = [
            flat[name].reshape(n, np.prod(flat[name].shape[1:], dtype=int)) for name in self._images
        ]
        rows = np.concatenate([np.zeros((n, 0), dtype=np.float32), *images], axis=1)
        cluster, pixel = np.nonzero(rows)
        direction = [
            np.nan_to_num(flat[name], nan=0.0, posinf=0.0, neginf=0.0)
            for name in ("clusterEta", "clusterPhi")
        ]
        eta, phi = (values[cluster] for values in direction)
        cell = _cell_of(eta, phi, *self._pixels[:, pixel])
        outside = np.flatnonzero(cell < 0)
        if len(outside):
            entry = start + int(cluster[outside[0]])
            raise BadEntriesError(
                self._path,
                CLUSTER_TREE,
                "clusterEta",
                entry,
                entry + 1,
                f"puts pixels beyond |eta| = {-image_grid().eta_min}",
            )
        # what is not finite is reported by those who judge values
        with np.errstate(invalid="ignore", over="ignore"):
            energy = (rows[cluster, pixel] * flat["clusterE"][cluster].astype(np.float64)).astype(
                np.float32
            )
        offsets = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=n))]).astype(
            np.int64
        )
        return offsets, {"cluster_cell_ID": cell.astype(np.uint64), "cluster_cell_E": energy}


def event_hash(signature: Sequence[NDArray[np.floating]]) -> NDArray[np.int64]:
    """A number of 63 bits for each event, made from what its clusters share; equal signatures give
    equal numbers.

    Parameters
    ----------
    signature : sequence of arrays of floats, shape (n_clusters,)
        Taken as float32, bit by bit.
    """
    state = np.zeros(len(signature[0]), dtype=np.uint64)
    for values in signature:
        state = splitmix64(state ^ values.astype(np.float32).view(np.uint32))
    return (state >> np.uint64(1)).astype(np.int64)


def _pixels(images: Sequence[str]) -> NDArray[np.int64]:
    """Layer of every pixel, and its index in eta and phi within the image, minus half of the
    image's size: pixels from the edge of the window's centre; images one after the other, eta
    first. Shape (3, n_pixels).
    """
    parts = [np.zeros((3, 0), dtype=np.int64)]
    for name in images:
        layer, n_eta, n_phi = IMAGES[name]
        eta, phi = np.divmod(np.arange(n_eta * n_phi), n_phi)
        parts.append(np.stack([np.full(n_eta * n_phi, layer), eta - n_eta // 2, phi - n_phi // 2]))
    return np.concatenate(parts, axis=1)


def _cell_of(
    eta: NDArray[np.floating],
    phi: NDArray[np.floating],
    layer: NDArray[np.int64],
    pixel_eta: NDArray[np.int64],
    pixel_phi: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Cell under each pixel (see `_pixels`) of an image about the EMB2 cell that is nearest to a
    direction; -1 outside the grid.

    A pixel k holds the one cell whose centre lies in [k, k + 1) cells from the centre of the
    central cell.
    """
    grid = image_grid()
    central = grid.layers[_CENTRE]
    i_eta = np.clip(
        np.floor((eta.astype(np.float64) - grid.eta_min) / central.d_eta), 0, central.n_eta - 1
    )
    i_phi = np.floor((phi.astype(np.float64) - grid.phi_min) / central.d_phi)
    sizes = np.array([(each.n_eta, each.n_phi) for each in grid.layers])[layer]
    steps = np.array([(each.d_eta, each.d_phi) for each in grid.layers])[layer]
    from_eta = (i_eta + 0.5) * central.d_eta / steps[:, 0]
    from_phi = (i_phi + 0.5) * central.d_phi / steps[:, 1]
    k_eta = np.ceil(pixel_eta + from_eta - 0.5 - _EDGE).astype(np.int64)
    k_phi = np.ceil(pixel_phi + from_phi - 0.5 - _EDGE).astype(np.int64) % sizes[:, 1]
    inside = (k_eta >= 0) & (k_eta < sizes[:, 0])
    return np.where(inside, grid.offset[layer] + k_eta * sizes[:, 1] + k_phi, -1)


def _matches(path: PathLike) -> bool:
    branches = root_trees(path).get(CLUSTER_TREE, frozenset())
    return any(name in branches for name in IMAGES) and not any(name in branches for name in JAGGED)


LAYOUT = Layout(
    "ClusterTree images",
    "ClusterTree: one entry a cluster, dense images of the earlier MLTree",
    _matches,
    in_root(ImageReader),
)
