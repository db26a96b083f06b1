"""Binnings of the CaloChallenge's first data set: cylinders around the axis of the particle, cut
into rings and sectors.

The format is that of the challenge's ``binning_dataset_1_*.xml`` and ``XMLHandler``
(github.com/CaloChallenge/homepage, arXiv:2410.21611).
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import BARREL
from pfcalib.samples.locate import PathLike
from pfcalib.samples.schema import CellGeo

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
        if self.sampling not in LAYERS:
            raise ConfigError(
                f"layer {self.sampling} is no layer of the barrel: {', '.join(map(str, LAYERS))}"
            )
        rising = len(self.r_edges) > 1 and all(
            low < high for low, high in itertools.pairwise(self.r_edges)
        )
        if not rising or self.r_edges[0] < 0.0 or not np.isfinite(self.r_edges[-1]):
            raise ConfigError(
                f"layer {self.sampling}: r_edges must rise from 0 or more, got {self.r_edges}"
            )
        if self.n_alpha < 1:
            raise ConfigError(
                f"layer {self.sampling}: n_bin_alpha must be at least 1, got {self.n_alpha}"
            )

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
        return list(itertools.accumulate((layer.n_voxels for layer in self.layers[:-1]), initial=0))


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
        layers = []
        for layer in bins[0].findall("Layer"):
            edges = tuple(float(edge) for edge in layer.attrib["r_edges"].split(","))
            if len(edges) > 1:
                layers.append(
                    VoxelLayer(int(layer.attrib["id"]), edges, int(layer.attrib["n_bin_alpha"]))
                )
        name = bins[0].get("name", "")
        return Binning(
            Path(path).name,
            int(bins[0].attrib["pid"]) if "pid" in bins[0].attrib else _PDG_IDS[name],
            tuple(layers),
        )
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
            r * np.cos(alpha) / barrel.r,
            r * np.sin(alpha) / barrel.r,
            np.sqrt(area) / barrel.r,
            area * (barrel.r_out - barrel.r_in),
        ]
        columns.append(np.stack(flat).reshape(len(flat), -1).astype(np.float32))
    eta, phi, side, volume = np.concatenate(columns, axis=1)
    owner = np.repeat(np.arange(len(binning.layers)), [layer.n_voxels for layer in binning.layers])
    sampling = np.array([layer.sampling for layer in binning.layers], dtype=np.int32)[owner]
    radius = np.array([LAYERS[layer.sampling].r for layer in binning.layers], dtype=np.float32)[
        owner
    ]
    return CellGeo(
        np.arange(len(eta), dtype=np.uint64),
        sampling,
        eta,
        phi,
        radius,
        side,
        side,
        volume,
        np.zeros_like(eta),
    )
