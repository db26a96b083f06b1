"""What a sample is: its two trees, and the objects that hold a part of it in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import CELL_GEO, COLUMNS, MEV
from pfcalib.errors import ValidationError
from pfcalib.geometry import Grid

CLUSTER_TREE = "ClusterTree"  # one entry a cluster
GEO_TREE = "CellGeo"  # one entry: vectors over all cells
METADATA = "metadata"  # a string of JSON
CONTENT = "content"  # a string: hash of all columns and cells, see `samples.write`
GEO_PREFIX = "cell_geo_"
EM_PDG_IDS = (111, 22, 11)  # pi0, photon, electron; by absolute value


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CellGeo:
    """The cells that a sample refers to; each array has one entry a cell and is named as its branch
    without ``cell_geo_``.

    >>> from pfcalib.geometry import WINDOW
    >>> geo = CellGeo.from_grid(WINDOW)
    >>> len(geo), geo.rows([3, 999, 1000]).tolist()
    (1000, [3, 999, -1])
    """

    ID: NDArray[np.uint64]
    sampling: NDArray[np.int32]  # PreSamplerB 0, EMB1-3 1-3, TileBar0-2 12-14
    eta: NDArray[np.float32]
    phi: NDArray[np.float32]  # rad
    rPerp: NDArray[np.float32]  # mm
    deta: NDArray[np.float32]
    dphi: NDArray[np.float32]  # rad
    volume: NDArray[np.float32]  # mm3
    sigma: NDArray[np.float32]  # noise, GeV

    def __post_init__(self) -> None:
        for name, dtype in CELL_GEO.items():
            short = name.removeprefix(GEO_PREFIX)
            object.__setattr__(self, short, np.ascontiguousarray(getattr(self, short), dtype=dtype))
        lengths = {name: len(array) for name, array in self.arrays().items()}
        if len(set(lengths.values())) != 1:
            raise ValidationError(
                f"{GEO_TREE}: all branches must have one entry a cell, got lengths {lengths}"
            )

    @classmethod
    def from_grid(cls, grid: Grid, sigma: ArrayLike = 0.0) -> CellGeo:
        """Cells of a grid with their noise; cell ID = flat index.

        Parameters
        ----------
        grid : Grid
        sigma : array_like, broadcastable to (n_cells,), GeV
            Noise of each cell.
        """
        arrays: list[Any] = [
            np.arange(grid.n_cells, dtype=np.uint64),
            *(grid.sampling, grid.eta, grid.phi, grid.r, grid.d_eta, grid.d_phi, grid.volume),
            np.broadcast_to(np.asarray(sigma, dtype=np.float32), grid.n_cells),
        ]
        return cls(*arrays)

    def __len__(self) -> int:
        return len(self.ID)

    def __repr__(self) -> str:
        return f"CellGeo({len(self)} cells)"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by the name of their branch."""
        return {name: getattr(self, name.removeprefix(GEO_PREFIX)) for name in CELL_GEO}

    def in_gev(self) -> CellGeo:
        """The cells, of a file whose energies are in MeV."""
        return dataclasses.replace(self, sigma=self.sigma * np.float32(MEV))

    def same_as(self, other: CellGeo) -> bool:
        """True where every array agrees bit by bit."""
        mine, theirs = self.arrays(), other.arrays()
        return self is other or all(np.array_equal(mine[name], theirs[name]) for name in CELL_GEO)

    @cached_property
    def _order(self) -> NDArray[np.int64] | None:
        """Order that sorts the IDs; None where they are 0, 1, 2, ... already."""
        return (
            None
            if np.array_equal(self.ID, np.arange(len(self), dtype=np.uint64))
            else np.argsort(self.ID, kind="stable")
        )

    def rows(self, cell_id: ArrayLike) -> NDArray[np.int64]:
        """Row of each cell ID in the arrays, -1 for an unknown ID; same shape as the argument."""
        ids = np.asarray(cell_id, dtype=np.uint64)
        if self._order is None:
            return np.where(ids < len(self), ids, np.uint64(0)).astype(np.int64) - (
                ids >= len(self)
            )
        place = np.minimum(np.searchsorted(self.ID, ids, sorter=self._order), len(self) - 1)
        rows = self._order[place]
        return np.where(self.ID[rows] == ids, rows, -1)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """Clusters in memory: scalars, and cells in jagged form (cells of cluster i at
    offsets[i]:offsets[i + 1]).

    Parameters
    ----------
    scalars : dict of str to array, shape (n_clusters,)
        Named as in `pfcalib.columns.SCALARS`.
    offsets : array of int64, shape (n_clusters + 1,)
        Rises from 0 to the number of cells in all.
    cells : dict of str to array, shape (offsets[-1],)
        Named as in `pfcalib.columns.JAGGED`.
    geo : CellGeo
    metadata : dict
        Generator, seed, configuration and versions of the file.
    """

    scalars: dict[str, NDArray[Any]]
    offsets: NDArray[np.int64]
    cells: dict[str, NDArray[Any]]
    geo: CellGeo
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        cells = f"{int(self.offsets[-1])} cells of {len(self.geo)}"
        return f"Sample({len(self)} clusters, {len(self.scalars)} scalars, {cells})"

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Sample: ...

    def __getitem__(self, key: str | slice | NDArray[Any]) -> NDArray[Any] | Sample:
        """A scalar column by name, or the clusters of a mask, an index array or a slice as a
        sample.
        """
        if isinstance(key, str):
            return column_of(self.scalars, key)
        rows = np.arange(len(self))[key]
        cells, offsets = gather(self.offsets, rows)
        taken = {name: array[cells] for name, array in self.cells.items()}
        return dataclasses.replace(
            self,
            scalars={name: array[rows] for name, array in self.scalars.items()},
            offsets=offsets,
            cells=taken,
        )

    @property
    def is_em(self) -> NDArray[np.bool_]:
        """True for the clusters of a pi0, a photon or an electron."""
        return is_em(self["truthPdgId"])

    @property
    def em_share(self) -> NDArray[np.float64]:
        """Electromagnetic share of the true energy in the cells of each cluster, 0 to 1, also where
        clusters of both kinds merge in jets; NaN where nothing was deposited.
        """
        total, em = (self[f"cluster_ENG_CALIB_{name}"].astype(np.float64) for name in ("TOT", "EM"))
        return np.divide(em, total, out=np.full(len(total), np.nan), where=total > 0.0)

    def in_gev(self) -> Sample:
        """The sample, of a file whose energies are in MeV; also the noise of its cells."""

        def scaled(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {
                name: array * array.dtype.type(MEV)
                if name in COLUMNS and COLUMNS[name].in_gev
                else array
                for name, array in arrays.items()
            }

        metadata = self.metadata | {"energies": "converted from MeV"}
        return Sample(
            scaled(self.scalars), self.offsets, scaled(self.cells), self.geo.in_gev(), metadata
        )


def event_index(scalars: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Place of the event of each cluster among the events, 0, 1, ...: an event is its number in its
    sample, as samples that were made apart count from the same number.

    >>> scalars = {"sampleNumber": np.array([0, 0, 1]), "eventNumber": np.array([7, 7, 7])}
    >>> event_index(scalars).tolist()
    [0, 0, 1]
    """
    number = column_of(scalars, "eventNumber")
    keys = np.stack([scalars.get("sampleNumber", np.zeros_like(number)), number])
    return np.unique(keys, axis=1, return_inverse=True)[1].ravel()


def column_of(scalars: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """A scalar column; a missing one is reported with what there is."""
    try:
        return scalars[name]
    except KeyError:
        raise ValidationError(
            f"the sample was read without column {name!r}; it has {', '.join(sorted(scalars))}"
        ) from None


def is_em(pdg_id: ArrayLike) -> NDArray[np.bool_]:
    """True for the PDG id of a particle that showers electromagnetically.

    >>> is_em([111, 211, -211, -11]).tolist()
    [True, False, False, True]
    """
    return np.isin(np.abs(np.asarray(pdg_id)), EM_PDG_IDS)


def gather(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the cells of some clusters lie: their flat indices, and the offsets of the clusters
    taken alone.

    >>> cells, offsets = gather(np.array([0, 2, 2, 5]), np.array([2, 0]))
    >>> cells.tolist(), offsets.tolist()
    ([2, 3, 4, 0, 1], [0, 3, 5])
    """
    counts = offsets[rows + 1] - offsets[rows]
    taken = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.repeat(offsets[rows] - taken[:-1], counts) + np.arange(taken[-1]), taken


def concatenate(samples: Sequence[Sample]) -> Sample:
    """One sample of several that share their columns and their cells; the metadata are those of the
    first.

    Raises
    ------
    ValidationError
        If there is no sample, or if columns or cells differ.
    """
    if not samples:
        raise ValidationError("nothing to concatenate: the list of samples is empty")
    first = samples[0]
    for i, sample in enumerate(samples[1:], start=1):
        if (
            sample.scalars.keys() != first.scalars.keys()
            or sample.cells.keys() != first.cells.keys()
        ):
            raise ValidationError(f"samples 0 and {i} do not have the same columns")
        if not sample.geo.same_as(first.geo):
            raise ValidationError(f"samples 0 and {i} do not have the same cells ({GEO_TREE})")
    ends = np.cumsum([0, *(int(sample.offsets[-1]) for sample in samples)])
    offsets = np.concatenate(
        [[0], *(sample.offsets[1:] + end for sample, end in zip(samples, ends[:-1], strict=True))]
    )
    return dataclasses.replace(
        first,
        scalars={
            name: np.concatenate([sample.scalars[name] for sample in samples])
            for name in first.scalars
        },
        offsets=offsets.astype(np.int64),
        cells={
            name: np.concatenate([sample.cells[name] for sample in samples]) for name in first.cells
        },
    )
