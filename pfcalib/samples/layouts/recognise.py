"""All layouts that pfcalib reads, and which of them a file has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pfcalib.errors import BadFileError
from pfcalib.samples.layouts import (
    calochallenge,
    image_tree,
    mltree,
    pfcalib_tree,
    physlite,
    shower_tree,
)
from pfcalib.samples.layouts.protocol import Layout, Reader
from pfcalib.samples.rootfile import PathLike, open_sample, require_readable, root_trees

_LAYOUTS = (image_tree, pfcalib_tree, mltree, shower_tree, calochallenge, physlite)
LAYOUTS: tuple[Layout, ...] = tuple(module.LAYOUT for module in _LAYOUTS)


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
    if binning is None:
        opened = layout.open(path)
    elif layout is calochallenge.LAYOUT:
        opened = calochallenge.open_showers(path, binning=binning)
    else:
        raise BadFileError(
            f"{path}: is of layout {layout.name}, a binning goes with {calochallenge.LAYOUT.name} "
            "only"
        )
    with opened as reader:
        yield reader
