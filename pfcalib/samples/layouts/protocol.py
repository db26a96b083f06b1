"""What a layout is: how a file of its kind is told from others, and how it is opened and read as
samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pfcalib.samples.rootfile import PathLike, open_sample
from pfcalib.samples.schema import CellGeo, Sample

# scalar that readers of events add to their samples: the entry (int64) of each cluster;
# `samples.read` takes it out
ENTRY = "entry"


class Reader(Protocol):
    """An open file of one layout.

    A reader of events may also have a method ``clusters_per_entry()``, the mean number of clusters
    in one, by which chunks are cut.
    """

    layout: str  # name of the layout
    unit: str  # what an entry is: "cluster", "event" or "shower"
    tree: str  # tree or data set, for messages
    n_entries: int
    found: tuple[str, ...]  # branches of the layout that the file has
    missing: tuple[str, ...]  # and those that it lacks
    geo: CellGeo  # without cells where the format has none
    metadata: dict[str, Any]  # of the file; a foreign layout adds its name as "layout"

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        """All clusters of entries [start, stop), with every column of `pfcalib.columns` that the
        file can give; values are not judged.

        Parameters
        ----------
        start, stop : int
            Entries, 0 <= start <= stop <= n_entries; an empty range gives an empty sample with all
            columns.
        columns : sequence of str, optional
            What is wanted, to save time: the sample may have more columns, and lacks those that the
            file cannot give.

        Raises
        ------
        BadEntriesError
            If some of the entries are damaged, and it is known which.
        BadFileError
            If they cannot be read for any other reason.
        """


@dataclasses.dataclass(frozen=True)
class Layout:
    """A kind of file.

    Parameters
    ----------
    name, description : str
    matches : callable
        path -> bool; cheap, and never raises for a readable file of another kind.
    open : callable
        path -> context manager of a `Reader`; raises BadFileError.
    """

    name: str
    description: str
    matches: Callable[[PathLike], bool]
    open: Callable[..., AbstractContextManager[Reader]]


def in_root(reader: Callable[..., Reader]) -> Callable[..., AbstractContextManager[Reader]]:
    """What opens a ROOT file with a reader, made of the path and the open file, and closes it."""

    @contextlib.contextmanager
    def opened(path: PathLike, **options: Any) -> Iterator[Reader]:
        with open_sample(path) as file:
            yield reader(path, file, **options)

    return opened
