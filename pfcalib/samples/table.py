"""One table of clusters in memory, read once, to which calibrations add columns.

clusters = read_table("sample.root", split="test", select=SelectionConfig(min_deposit=0.2))
clusters["response"] = clusters["clusterE"] / clusters["cluster_ENG_CALIB_TOT"]
neutral = clusters[clusters["is_em"]]                # all columns stay aligned
np.asarray(neutral["response"])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pfcalib.columns import COLUMNS
from pfcalib.samples.layouts.recognise import open_reader
from pfcalib.samples.locate import as_paths
from pfcalib.samples.read import STEP, PathLike, iterate_sample
from pfcalib.samples.schema import Sample
from pfcalib.samples.select import SELECT_COLUMNS, SelectionConfig
from pfcalib.samples.split import split_index, split_of

KEYS = ("sample", "event", "cluster")


def read_table(
    paths: PathLike | Sequence[PathLike],
    *,
    columns: Sequence[str] | None = None,
    split: str | None = None,
    select: SelectionConfig | None = None,
    step: int = STEP,
) -> ak.Array:
    """Clusters of one or several files as an array of records, in the order of the files.

    Parameters
    ----------
    paths : path-like or sequence of them
    columns : sequence of str, optional
        Names as in `pfcalib.columns`, scalars (GeV, mm, rad) or of cells (jagged); by default all
        scalars of the first file. What split and selection look at is read in any case.
    split : "train", "validation" or "test", optional
        All events if None.
    select : SelectionConfig, optional
        No cuts if None.
    step : int
        Entries in memory at once.

    Returns
    -------
    awkward.Array, shape (n_clusters,)
        The columns, and `is_em` where the file knows the particle. The keys of a cluster are
        `sample` (place of its file in the list), `event` (number of the event in that file, -1
        where the file has none) and `cluster` (its number among all clusters of that file).

    Raises
    ------
    BadFileError
        If a file cannot be read or lacks a column.
    ConfigError
        If there is no such split.
    """
    files = as_paths(paths)
    number = None if split is None else split_index(split)
    with open_reader(files[0]) as reader:
        nothing = reader.read(0, 0)
    found = [name for name in nothing.scalars if name in COLUMNS]
    needed = (
        SELECT_COLUMNS if select else ("eventNumber",) if split or "eventNumber" in found else ()
    )
    names = tuple(dict.fromkeys((*(found if columns is None else columns), *needed)))
    parts = []
    for place, path in enumerate(files):
        seen = 0
        for sample in iterate_sample(path, step=step, columns=names):
            keep = np.ones(len(sample), np.bool_) if select is None else select.mask(sample.scalars)
            if number is not None:
                keep &= split_of(sample["eventNumber"]) == number
            parts.append(_records(sample[keep], place, seen + np.flatnonzero(keep)))
            seen += len(sample)
    return ak.concatenate(parts) if parts else _records(nothing, 0, np.zeros(0, np.int64))


def _records(sample: Sample, place: int, rows: NDArray[np.int64]) -> ak.Array:
    columns: dict[str, Any] = {
        "sample": np.full(len(sample), place, dtype=np.int16),
        "event": sample.scalars.get("eventNumber", np.full(len(sample), -1)),
        "cluster": rows,
        **sample.scalars,
        **{name: ak.unflatten(v, np.diff(sample.offsets)) for name, v in sample.cells.items()},
    }
    if "truthPdgId" in sample.scalars:
        columns["is_em"] = sample.is_em
    return ak.zip(columns, depth_limit=1)
