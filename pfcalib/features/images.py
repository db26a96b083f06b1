"""Calorimeter images of clusters: one array a layer, centred on the cluster, pixels as shares of
the cluster's energy.

The layout is that of the public ``ClusterTree`` (ATL-PHYS-PUB-2020-018): a window of |d_eta| < 0.2
and four towers in phi around the cluster's central cell. Pixel = cell energy x share of the cluster
/ clusterE.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numba as nb
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.samples.schema import CellGeo, Sample

IMAGE_SHAPES = {  # pixels in eta and phi; a pixel is a cell
    "PreSamplerB": (16, 4),
    "EMB1": (128, 4),
    "EMB2": (16, 16),
    "EMB3": (8, 16),
    "TileBar0": (4, 4),
    "TileBar1": (4, 4),
    "TileBar2": (2, 4),
}
IMAGE_LAYERS = ("EMB1", "EMB2", "EMB3", "TileBar0", "TileBar1", "TileBar2")  # the published ones
SAMPLING = dict(zip(LAYER_NAMES, (0, 1, 2, 3, 12, 13, 14), strict=True))
N_PIXELS = sum(IMAGE_SHAPES[name][0] * IMAGE_SHAPES[name][1] for name in IMAGE_LAYERS)
# of a cell: a centre that lies on a pixel's edge but for rounding belongs to the upper pixel
_EDGE = 1e-3


class ImageWindow:
    """The window of the images on the cells of a sample: made once, then applied to any number of
    clusters.

    With an even number of pixels the central cell is pixel n / 2, and the window is half open: -0.2
    <= d_eta < 0.2, likewise in phi.

    Parameters
    ----------
    geo : CellGeo
    layers : sequence of str
        Layers with an image, in the order of their pixels in a flat row.

    Raises
    ------
    ConfigError
        If a layer is unknown or given twice.
    ValidationError
        If the geometry has no EMB2 cell to be the centre.
    """

    def __init__(self, geo: CellGeo, *, layers: Sequence[str] = IMAGE_LAYERS) -> None:
        unknown = [name for name in layers if name not in IMAGE_SHAPES]
        if unknown or len(set(layers)) != len(layers) or not layers:
            raise ConfigError(
                f"layers must be different ones of {', '.join(IMAGE_SHAPES)}, got {tuple(layers)}"
            )
        self.layers = tuple(layers)
        self.geo = geo
        self.sizes = [IMAGE_SHAPES[name][0] * IMAGE_SHAPES[name][1] for name in layers]
        self.n_pixels = sum(self.sizes)
        # place in `layers` of each cell, -1 for layers without an image
        self._layer = np.full(len(geo), -1, dtype=np.int8)
        for i, name in enumerate(layers):
            self._layer[geo.sampling == SAMPLING[name]] = i
        starts = np.cumsum([0, *self.sizes[:-1]])
        self._shapes = np.array(
            [(start, *IMAGE_SHAPES[name]) for name, start in zip(layers, starts, strict=True)],
            dtype=np.int64,
        )
        phi = geo.phi - 2.0 * np.pi * np.round(geo.phi / (2.0 * np.pi))
        self._position = np.column_stack([geo.eta, phi]).astype(np.float64)
        self._whole, self._lattices = _find_lattices(
            self._position, np.column_stack([geo.deta, geo.dphi]).astype(np.float64), self._layer
        )

    @cached_property
    def _centres(self) -> tuple[NDArray[np.int64], NDArray[np.float64], cKDTree]:
        """Rows of the EMB2 cells, size of a cell, and a search tree over them in units of cells,
        periodic in phi.
        """
        rows = np.flatnonzero(self.geo.sampling == SAMPLING["EMB2"])
        if not len(rows):
            raise ValidationError(
                "CellGeo has no cell of EMB2 (sampling 2): an image has no centre"
            )
        size = np.array(
            [np.median(self.geo.deta[rows]), np.median(self.geo.dphi[rows])], dtype=np.float64
        )
        points = np.column_stack([self.geo.eta[rows], _turned(self.geo.phi[rows])]) / size
        return rows, size, cKDTree(points, boxsize=[0.0, 2.0 * np.pi / size[1]])

    def central_cell(
        self, eta: NDArray[np.floating], phi: NDArray[np.floating]
    ) -> NDArray[np.int64]:
        """Row in CellGeo of the EMB2 cell nearest to each barycentre, in units of cells; shape
        (n_clusters,).
        """
        rows, size, tree = self._centres
        points = np.column_stack([np.asarray(eta, dtype=np.float64), _turned(phi)])
        return rows[tree.query(points / size)[1]]

    def fill(
        self,
        pixels: NDArray[np.float32],
        place: NDArray[np.int64],
        row: NDArray[np.int64],
        offsets: NDArray[np.int64],
        cell: NDArray[np.integer],
        energy: NDArray[np.floating],
        centre: NDArray[np.int64],
        norm: NDArray[np.floating],
    ) -> None:
        """Write clusters to rows of pixels, whatever these hold; safe to call from several threads
        on different rows.

        Parameters
        ----------
        pixels : array of float32, shape (n, n_pixels)
        place, row : arrays of int64, shape (m,)
            Row of `pixels` that each cluster goes to, and the cluster's own row in `offsets`.
        offsets, cell, energy : arrays
            Jagged cells as in `Sample`; `cell` holds rows of CellGeo, `energy` GeV.
        centre, norm : arrays, shape (m,)
            Central cell (row of CellGeo) of each cluster, and what its energies are divided by.
        """
        _fill(
            pixels,
            place,
            row,
            offsets,
            cell,
            energy,
            self._position[centre],
            norm,
            self._whole,
            self._lattices,
            self._shapes,
        )

    def split(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Images of the layers as views of flat rows of pixels: (n, n_pixels) to a dict of (n,
        n_eta, n_phi).
        """
        parts = np.split(pixels, np.cumsum(self.sizes)[:-1], axis=1)
        return {
            name: part.reshape(len(pixels), *IMAGE_SHAPES[name])
            for name, part in zip(self.layers, parts, strict=True)
        }


def build_images(
    sample: Sample,
    *,
    layers: Sequence[str] = IMAGE_LAYERS,
    normalise_by: str | None = "clusterE",
    significance: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Images of all clusters of a sample.

    Parameters
    ----------
    sample : Sample
        With clusterEta, clusterPhi, the column of `normalise_by`, cluster_cell_ID and
        cluster_cell_E (which holds the share already).
    layers : sequence of str
        Layers wanted; those of the published images by default, "PreSamplerB" is the one other.
    normalise_by : str or None
        Scalar column that the energies are divided by; None leaves GeV.
    significance : bool
        Energies over the noise of their cells, before they are divided.

    Returns
    -------
    dict of str to array of float32, shape (n_clusters, n_eta, n_phi)
        One image a layer, by name; sizes in `IMAGE_SHAPES`.

    Raises
    ------
    ValidationError
        If a cell is not in CellGeo, or the normalisation of a cluster is zero or not finite.
    """
    window = _window_of(sample.geo, tuple(layers))
    norm = np.ones(len(sample)) if normalise_by is None else sample[normalise_by].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(norm) | (norm == 0.0))
    if len(bad):
        raise ValidationError(
            f"{normalise_by}[{bad[0]}] is {norm[bad[0]]}: an image cannot be normalised by it"
        )
    cell = sample.geo.rows(sample.cells["cluster_cell_ID"])
    if np.any(cell < 0):
        raise ValidationError(
            f"cell {sample.cells['cluster_cell_ID'][np.argmin(cell)]} is not in CellGeo"
        )
    pixels = np.empty((len(sample), window.n_pixels), dtype=np.float32)
    rows = np.arange(len(sample))
    centre = window.central_cell(sample["clusterEta"], sample["clusterPhi"])
    energy = sample.cells["cluster_cell_E"]
    if significance:
        energy = energy / sample.geo.sigma[cell]
    window.fill(pixels, rows, rows, sample.offsets, cell, energy, centre, norm)
    return window.split(pixels)


@lru_cache(maxsize=4)
def _window_of(geo: CellGeo, layers: tuple[str, ...]) -> ImageWindow:
    """The chunks of a file share one geometry, so its search tree is made once."""
    return ImageWindow(geo, layers=layers)


def _turned(phi: ArrayLike) -> NDArray[np.float64]:
    """Azimuth in 0 <= phi < 2 pi; rounding never yields 2 pi itself."""
    turned = np.mod(np.asarray(phi, dtype=np.float64), 2.0 * np.pi)
    return np.where(turned < 2.0 * np.pi, turned, 0.0)


def _find_lattices(
    position: NDArray[np.float64], size: NDArray[np.float64], layer: NDArray[np.int8]
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Cells as whole numbers on lattices, so that a kernel needs no division a cell.

    Cells of one layer and size whose distances are whole numbers of cells share a lattice; odd
    geometries have more of them, no less exact.

    Returns
    -------
    whole : array of int16 or int32, shape (n_cells, 3)
        Lattice (-1 for layers without an image) and place in eta and phi.
    lattices : array of float64, shape (n_lattices, 6)
        Layer, fraction of a cell by which it is shifted in eta and phi, cells per unit of eta and
        of phi, cells in a turn.
    """
    scaled = position / size
    shift = np.round((scaled - np.floor(scaled)) / _EDGE) * _EDGE
    keys, lattice = np.unique(np.column_stack([layer, shift, size]), axis=0, return_inverse=True)
    whole = np.column_stack([np.where(layer < 0, -1, lattice.ravel()), np.round(scaled - shift)])
    dtype = np.int16 if np.abs(whole).max(initial=0) < 2**15 else np.int32
    turn = np.round(2.0 * np.pi / keys[:, 4])
    return whole.astype(dtype), np.column_stack([keys[:, :3], 1.0 / keys[:, 3:], turn])


@nb.njit(cache=True, nogil=True)
def _fill(pixels, place, row, offsets, cell, energy, centre, norm, whole, lattices, shapes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Kernel of `ImageWindow.fill`: one pass over the cells of the clusters, in units of each
    cell's own size; what a lattice needs is worked out where the lattice changes, as the cells of a
    layer come together.
    """
    for i in range(len(row)):
        scale = np.float32(1.0 / norm[i])
        image = pixels[place[i]]
        image[:] = 0.0
        lattice = -1
        start = n_eta = n_phi = n_turn = corner_eta = corner_phi = 0  # corner: pixel of place 0
        for j in range(offsets[row[i]], offsets[row[i] + 1]):
            c = cell[j]
            if whole[c, 0] != lattice:
                lattice, n_eta = whole[c, 0], 0
                if lattice >= 0:
                    layer, shift_eta, shift_phi, per_eta, per_phi, turn = lattices[lattice]
                    start, n_eta, n_phi = shapes[int(layer)]
                    n_turn = int(turn)
                    corner_eta = int(
                        np.floor(shift_eta - centre[i, 0] * per_eta + 0.5 * n_eta + _EDGE)
                    )
                    corner_phi = int(
                        np.floor(shift_phi - centre[i, 1] * per_phi + 0.5 * n_phi + _EDGE)
                    )
            k_eta, k_phi = whole[c, 1] + corner_eta, whole[c, 2] + corner_phi
            if k_phi < 0:
                k_phi += n_turn
            elif k_phi >= n_phi:
                k_phi -= n_turn
            if 0 <= k_eta < n_eta and 0 <= k_phi < n_phi:
                image[start + k_eta * n_phi + k_phi] += energy[j] * scale
