"""All layouts that pfcalib reads, and which of them a file has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pfcalib.errors import BadFileError
from pfcalib.samples import showerfile
from pfcalib.samples.layouts import (
    calochallenge,
    edm4hep,
    image_tree,
    mltree,
    pfcalib_tree,
    physlite,
)
from pfcalib.samples.layouts.protocol import Layout, Reader
from pfcalib.samples.rootfile import PathLike, open_sample, require_readable, root_trees

LAYOUTS: tuple[Layout, ...] = (
    image_tree.LAYOUT,
    pfcalib_tree.LAYOUT,
    mltree.LAYOUT,
    showerfile.LAYOUT,
    calochallenge.LAYOUT,
    physlite.LAYOUT,
    edm4hep.LAYOUT,
)


def recognise(path: PathLike) -> Layout:
    """The layout of a file.

    Raises
    ------
    BadFileError
        If the file cannot be read, or is of none of the known layouts.
    """
    require_readable(path)
    for layout in LAYOUTS:
        if layout.matches(path):
            return layout
    with open_sample(path):  # says what is wrong where the file is no ROOT file either
        trees = ", ".join(root_trees(path)) or "none"
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise BadFileError(
        f"{path}: is of none of the known layouts ({known}); the file has trees: {trees}"
    )


@contextlib.contextmanager
def open_reader(path: PathLike, *, binning: PathLike | None = None) -> Iterator[Reader]:
    """A reader of a file of any known layout, closed at the end.

    Parameters
    ----------
    path : path-like
        File or address.
    binning : path-like, optional
        Binning XML of a CaloChallenge file, see `calochallenge.open_showers`.

    Raises
    ------
    BadFileError
        As `recognise`, or if the file does not hold what its layout promises, or a binning was
        given for another layout.
    """
    layout = recognise(path)
    if binning is not None and layout is not calochallenge.LAYOUT:
        raise BadFileError(
            f"{path}: is of layout {layout.name}, a binning goes with {calochallenge.LAYOUT.name} "
            "only"
        )
    with layout.open(path, **({} if binning is None else {"binning": binning})) as reader:
        yield reader
