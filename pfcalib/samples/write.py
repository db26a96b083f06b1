"""Write a sample: ROOT trees, zstd, chunk by chunk; the file appears under its name only when it is
complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.columns import COLUMNS, JAGGED, SCALARS
from pfcalib.errors import ValidationError
from pfcalib.samples.schema import (
    CLUSTER_TREE,
    CONTENT,
    GEO_PREFIX,
    GEO_TREE,
    METADATA,
    CellGeo,
    Sample,
)

CHUNK = 20_000  # clusters held back before they are written
_CELL_PREFIX = "cluster_cell_"


class SampleWriter:
    """Writes clusters as they come; at most `chunk` of them and one call's worth are in memory.

    Parameters
    ----------
    path : path-like
        File to be written; an older one is replaced at the end.
    geo : CellGeo
        The cells that the clusters refer to.
    metadata : mapping
        JSON values: generator, seed, configuration, versions; the attribute `metadata` may be added
        to until the end.
    columns : sequence of str
        Branches of the file; every `extend` must bring exactly these.
    chunk : int
        Clusters written at once.

    Raises
    ------
    ValidationError
        By `extend`, if columns are missing or unknown, lengths disagree, a value is not finite or a
        cell is not in `geo`.

    Examples
    --------
    ::

        with SampleWriter("pions.root", geo, {"generator": "pfcalib simulation", "seed": 1}) as
        writer:
            for chunk in chunks:
                writer.extend(chunk.scalars, chunk.offsets, chunk.cells)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        geo: CellGeo,
        metadata: Mapping[str, Any],
        *,
        columns: Sequence[str] = (*SCALARS, *JAGGED),
        chunk: int = CHUNK,
    ) -> None:
        unknown = [name for name in columns if name not in COLUMNS]
        if unknown:
            raise ValidationError(f"{path}: no such columns: {', '.join(unknown)}")
        self.path = Path(path)
        self.n_clusters = 0  # written or held back
        self._scalars = tuple(name for name in columns if not COLUMNS[name].jagged)
        self._jagged = tuple(name for name in columns if COLUMNS[name].jagged)
        self._geo, self._chunk = geo, chunk
        self.metadata = dict(metadata)
        self._hashes = {name: hashlib.sha256() for name in (*columns, "counts")}
        self._pending: list[Sample] = []
        self._n_pending = 0

    def __enter__(self) -> Self:
        self._new = new_file(self.path)
        self._file = uproot.recreate(self._new.__enter__(), compression=uproot.ZSTD(3))
        self._tree = self._file.mktree(CLUSTER_TREE, self._branches(), title="one entry a cluster")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.push(self._new)  # gives the file its name, or removes it, when all below is done
            stack.callback(self._file.close)
            if kind is None:
                self._flush()
                geo = _records(np.array([0, len(self._geo)]), self._geo.arrays(), GEO_PREFIX)
                types = {GEO_PREFIX[:-1]: geo.type.content}
                tree = self._file.mktree(GEO_TREE, types, title="one entry: vectors over all cells")
                tree.extend({GEO_PREFIX[:-1]: geo})
                self._file[CONTENT] = self._content()
                self._file[METADATA] = json.dumps(self.metadata, sort_keys=True)
            else:
                raise error  # type: ignore[misc]

    def extend(
        self,
        scalars: Mapping[str, NDArray[Any]],
        offsets: NDArray[np.int64],
        cells: Mapping[str, NDArray[Any]],
    ) -> None:
        """Append clusters; arguments as in `Sample`, arrays are cast to the dtypes of
        `pfcalib.columns`.
        """
        typed, of_cells = self._cast(scalars, self._scalars), self._cast(cells, self._jagged)
        chunk = Sample(typed, np.asarray(offsets, dtype=np.int64), of_cells, self._geo, {})
        self._require_sound(chunk)
        self._pending.append(chunk)
        self._n_pending += len(chunk)
        self.n_clusters += len(chunk)
        if self._n_pending >= self._chunk:
            self._flush()

    def _cast(
        self, arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...]
    ) -> dict[str, NDArray[Any]]:
        if set(arrays) != set(names):
            missing, extra = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
            raise ValidationError(
                f"{self.path}: {CLUSTER_TREE} misses columns {missing} and does not have {extra}"
            )
        return {name: np.array(arrays[name], dtype=COLUMNS[name].numpy_dtype) for name in names}

    def _require_sound(self, chunk: Sample) -> None:
        if len(chunk.offsets) == 0 or chunk.offsets[0] != 0 or np.any(np.diff(chunk.offsets) < 0):
            raise ValidationError(f"{self.path}: offsets must start at 0 and never fall")
        for arrays, length in ((chunk.scalars, len(chunk)), (chunk.cells, int(chunk.offsets[-1]))):
            for name, array in arrays.items():
                if array.shape != (length,):
                    raise ValidationError(
                        f"{self.path}: {name} must have shape ({length},), got {array.shape}"
                    )
                good, wish = (
                    (np.isfinite(array), "finite")
                    if name != "cluster_cell_ID"
                    else (self._geo.rows(array) >= 0, f"in {GEO_TREE}")
                )
                if not good.all():
                    i = int(np.argmin(good))
                    raise ValidationError(
                        f"{self.path}: {name}[{i}] of this call is {array[i]}, it must be {wish}"
                    )

    def _branches(self) -> dict[str, Any]:
        """Types of the tree; the jagged branches are fields of one record, so that they share one
        counter.
        """
        types: dict[str, Any] = {name: COLUMNS[name].numpy_dtype for name in self._scalars}
        if self._jagged:
            empty = {name: np.zeros(0, dtype=COLUMNS[name].numpy_dtype) for name in self._jagged}
            types[_CELL_PREFIX[:-1]] = _records(
                np.zeros(1, dtype=np.int64), empty, _CELL_PREFIX
            ).type.content
        return types

    def _flush(self) -> None:
        """Write what is pending as one basket a branch."""
        chunks, self._pending, self._n_pending = self._pending, [], 0
        if not any(len(chunk) for chunk in chunks):
            return
        scalars: dict[str, Any] = {
            name: np.concatenate([chunk.scalars[name] for chunk in chunks])
            for name in self._scalars
        }
        cells = {
            name: np.concatenate([chunk.cells[name] for chunk in chunks]) for name in self._jagged
        }
        counts = np.concatenate([np.diff(chunk.offsets) for chunk in chunks])
        ends = np.concatenate([[0], np.cumsum(counts)])
        jagged = {_CELL_PREFIX[:-1]: _records(ends, cells, _CELL_PREFIX)} if cells else {}
        self._tree.extend(scalars | jagged)
        for name, array in {**scalars, **cells, "counts": counts}.items():
            self._hashes[name].update(np.ascontiguousarray(array).data)

    def _content(self) -> str:
        """Hash of all columns and cells, which does not depend on the chunks in which they came."""
        digests = {name: part.hexdigest() for name, part in self._hashes.items()}
        digests |= {
            name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
            for name, array in self._geo.arrays().items()
        }
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def write_sample(path: str | os.PathLike[str], sample: Sample, *, chunk: int = CHUNK) -> None:
    """Write a sample that is in memory, with the columns that it has."""
    with SampleWriter(
        path, sample.geo, sample.metadata, columns=(*sample.scalars, *sample.cells), chunk=chunk
    ) as writer:
        writer.extend(sample.scalars, sample.offsets, sample.cells)


def _records(
    offsets: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]], prefix: str
) -> ak.Array:
    """Jagged records whose fields are the arrays without the prefix; uproot joins both again to the
    name of the branch.
    """
    contents = [ak.contents.NumpyArray(array) for array in arrays.values()]
    record = ak.contents.RecordArray(contents, [name.removeprefix(prefix) for name in arrays])
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), record))
