"""What is wrong with values of a sample, in one place for all layouts, and the log of what was
skipped because of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import BEAM
from pfcalib.errors import BadFileError
from pfcalib.samples.schema import GEO_TREE, Sample

ROUNDING = 1e-6  # GeV: a sum of deposits may be below zero by so much
MIN_COUNT = 10  # clusters, or cells, by which a unit is judged
_MAX_CELL, _MAX_NOISE = 10.0, 5.0  # GeV: typical energy and noise of a cell, far too large
_CELLS = 10_000  # cells that are looked at for a typical one
_POSITIVE = ("truthE",)
_NOT_NEGATIVE = ("cluster_ENG_CALIB_TOT",)


class Fault(NamedTuple):
    """Something that was skipped, and why."""

    path: str
    tree: str  # empty where the file could not be opened
    entry: int | None  # the first one concerned; None for a whole file
    branch: str  # empty where not one branch is to blame
    reason: str
    # clusters, or entries that could not be read; 0 for a file that could not be opened: nobody
    # knows how many it held
    n_lost: int

    def __str__(self) -> str:
        where = ": ".join(
            part
            for part in (
                self.tree,
                "" if self.entry is None else f"entry {self.entry}",
                self.branch,
            )
            if part
        )
        colon, lost = ": " if where else "", self.n_lost or "the file"
        return f"{self.path}: {where}{colon}{self.reason} (lost: {lost})"


class FaultLog(list[Fault]):
    """Everything that was skipped, in the order in which it was met."""

    @property
    def n_lost(self) -> int:
        """Clusters and unreadable entries lost in all; whole files that could not be opened are not
        in it.
        """
        return sum(fault.n_lost for fault in self)


class BadEntriesError(BadFileError):
    """Entries [start, stop) cannot be used, the rest of the file can; raised by readers so that
    `on_error="skip"` loses no more than these.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tree: str,
        branch: str,
        start: int,
        stop: int,
        reason: str,
    ) -> None:
        entries = f"entry {start}" if stop == start + 1 else f"entries {start} to {stop}"
        colon = f"{branch} " if branch else ""
        super().__init__(f"{path}: {tree}: {entries}: {colon}{reason}")
        self.start, self.stop = start, stop
        self.fault = Fault(str(path), tree, start, branch, reason, stop - start)


def require_equal_lengths(
    path: str | os.PathLike[str],
    tree: str,
    entry: NDArray[np.int64],
    lengths: tuple[NDArray[np.integer], NDArray[np.integer]],
    names: tuple[str, str],
) -> None:
    """Raise a BadEntriesError for the first entry where two vectors differ in length.

    Parameters
    ----------
    path, tree
        Where the vectors come from.
    entry : array of int64, shape (n,)
    lengths : two arrays of int, shape (n,)
    names : two str
        Names of the vectors; the first one is blamed.
    """
    bad = np.flatnonzero(lengths[0] != lengths[1])
    if len(bad):
        i = int(entry[bad[0]])
        numbers = " and ".join(str(length[bad[0]]) for length in lengths)
        reason = f"does not have the same length as {names[1]} ({numbers})"
        raise BadEntriesError(path, tree, names[0], i, i + 1, reason)


class BadValue(NamedTuple):
    """Clusters of a sample that show one fault of one column."""

    branch: str
    clusters: NDArray[np.int64]  # rows of the sample, rising, at least one
    value: Any  # the first bad one
    wish: str


def find_bad_values(sample: Sample) -> Iterator[BadValue]:
    """Faults of the values: not finite, truth energy not positive, deposit negative, or a cell that
    is not in CellGeo.

    Cells come first, so that they are blamed for the sums that a reader makes of them.

    Parameters
    ----------
    sample : Sample
        With any columns.
    """
    for name, array in (sample.cells | sample.scalars).items():
        wishes = (
            [("must be finite", np.isfinite(array))]
            if name != "cluster_cell_ID"
            else [(f"must be in {GEO_TREE}", sample.geo.rows(array) >= 0)]
        )
        if name in _POSITIVE:
            wishes.append(("must be positive", ~(array <= 0.0)))
        if name in _NOT_NEGATIVE:
            wishes.append(("must not be negative", ~(array < -ROUNDING)))
        for wish, good in wishes:
            if not good.all():
                places = np.flatnonzero(~good)
                rows = np.searchsorted(sample.offsets, places, side="right") - 1
                clusters = np.unique(rows) if name in sample.cells else places
                yield BadValue(name, clusters, array[places[0]], wish)


def find_mev(sample: Sample) -> str:
    """Why the energies of a sample look like MeV; empty where they do not.

    No beam has 7 TeV for one cluster or particle in ten, no cluster cells of typically 10 GeV, no
    calorimeter a noise of 5 GeV a cell.
    """
    for name in ("truthE", "clusterE"):
        values = sample.scalars.get(name, np.zeros(0))
        values = values[np.isfinite(values)]
        if len(values) >= MIN_COUNT and (high := np.quantile(values, 0.9)) > BEAM:
            return f"a tenth of {name} is above {high:.4g} GeV"
    cells = np.abs(sample.cells.get("cluster_cell_E", np.zeros(0))[:_CELLS])
    if len(cells) >= MIN_COUNT and (typical := np.median(cells)) > _MAX_CELL:
        return f"half of the cells have more than {typical:.4g} GeV"
    if len(sample.geo) and (noise := np.median(sample.geo.sigma)) > _MAX_NOISE:
        return f"the noise of a cell is {noise:.4g} GeV"
    return ""


def require_gev(sample: Sample, path: str | os.PathLike[str]) -> None:
    """Raise a BadFileError where energies look like MeV."""
    if reason := find_mev(sample):
        raise BadFileError(
            f"{path}: energies in MeV? {reason}: read or convert it with unit='MeV' (--unit MeV), "
            "or 'GeV' if that is what they are"
        )


def require_aligned(sample: Sample, path: str | os.PathLike[str], tree: str) -> None:
    """Raise a BadFileError where a column does not have one value a cluster or, of cells, one a
    cell.
    """
    steps = np.diff(sample.offsets)
    if sample.offsets[0] != 0 or np.any(steps < 0):
        raise BadFileError(f"{path}: {tree}: the numbers of cells make no sense")
    for arrays, length in ((sample.scalars, len(sample)), (sample.cells, int(sample.offsets[-1]))):
        for name, array in arrays.items():
            if array.shape != (length,):
                raise BadFileError(
                    f"{path}: {tree}: {name} has shape {array.shape}, expected ({length},)"
                )


def require_sound(
    sample: Sample, entry: NDArray[np.int64], path: str | os.PathLike[str], tree: str
) -> None:
    """Raise a BadFileError for the first column that has a bad value.

    Parameters
    ----------
    sample : Sample
    entry : array of int64, shape (n_clusters,)
        Entry of the file that each cluster comes from.
    path, tree
        Where the sample comes from.
    """
    for bad in find_bad_values(sample):
        raise BadFileError(
            f"{path}: {tree}: entry {entry[bad.clusters[0]]}: {bad.branch} is {bad.value}, it "
            f"{bad.wish}"
        )


def drop_unsound(
    sample: Sample, entry: NDArray[np.int64], path: str | os.PathLike[str], tree: str, log: FaultLog
) -> Sample:
    """The clusters without a bad value; each of the others is counted once in the log, under the
    first fault that it shows.
    """
    good = np.ones(len(sample), dtype=np.bool_)
    for bad in find_bad_values(sample):
        new = bad.clusters[good[bad.clusters]]
        if len(new):
            log.append(
                Fault(
                    str(path),
                    tree,
                    int(entry[new[0]]),
                    bad.branch,
                    f"is {bad.value}, it {bad.wish}",
                    len(new),
                )
            )
            good[new] = False
    return sample if good.all() else sample[good]
