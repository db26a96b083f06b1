"""All layouts that pfcalib reads, and which of them a file has."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from pfcalib.errors import BadFileError, ConfigError
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
from pfcalib.samples.schema import Sample

Unit = Literal["GeV", "MeV"]
UNITS: tuple[str, ...] = get_args(Unit)
OWN_UNIT = ("CaloChallenge", "PHYSLITE", "EDM4hep")  # the format says what its energies are in
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
    layout = next((layout for layout in LAYOUTS if layout.matches(path)), None)
    if layout is not None:
        return layout
    with open_sample(path):  # says what is wrong where the file is no ROOT file either
        trees = ", ".join(root_trees(path)) or "none"
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise BadFileError(
        f"{path}: is of none of the known layouts ({known}); the file has trees: {trees}"
    )


class _InGev:
    """A reader of a file whose energies are in MeV."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self.geo = reader, reader.geo.in_gev()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Sample:
        return dataclasses.replace(self._reader.read(start, stop, columns).in_gev(), geo=self.geo)


@contextlib.contextmanager
def open_reader(
    path: PathLike, *, binning: PathLike | None = None, unit: Unit | None = None
) -> Iterator[Reader]:
    """A reader of a file of any known layout, closed at the end.

    Parameters
    ----------
    path : path-like
        File or address.
    binning : path-like, optional
        Binning XML of a CaloChallenge file, see `calochallenge.open_showers`.
    unit : "GeV" or "MeV", optional
        Of the energies of a file whose layout leaves it open.

    Raises
    ------
    BadFileError
        As `recognise`, or if the file does not hold what its layout promises, or a binning or a
        unit was given for a layout that has none or its own.
    ConfigError
        If the unit is another.
    """
    layout = recognise(path)
    if unit not in (None, *UNITS):
        raise ConfigError(f"unit must be GeV or MeV, got {unit!r}")
    if unit is not None and layout.name in OWN_UNIT:
        raise BadFileError(f"{path}: files of {layout.name} have a unit of their own: give none")
    if binning is not None and layout is not calochallenge.LAYOUT:
        raise BadFileError(
            f"{path}: is of layout {layout.name}, a binning goes with {calochallenge.LAYOUT.name} "
            "only"
        )
    with layout.open(path, **({} if binning is None else {"binning": binning})) as reader:
        yield _InGev(reader) if unit == "MeV" else reader
