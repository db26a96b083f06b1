"""Makers of damaged files: each takes a good ROOT file and writes a copy with one fault at a known
place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from pfcalib.samples.schema import Sample

Region = tuple[int, int]  # first byte, byte after the last


def damage(source: Path, target: Path, change: Callable[[bytearray], bytearray | None]) -> Path:
    """A copy of a file whose bytes were changed, in place or by what the function returns."""
    content = bytearray(source.read_bytes())
    changed = change(content)
    target.write_bytes(content if changed is None else changed)
    return target


def cut(source: Path, target: Path, at: float) -> Path:
    """The first part of a file: a share below 1, or a number of bytes; -n leaves out the last n
    bytes.
    """
    return damage(
        source, target, lambda content: content[: int(len(content) * at) if 0 < at < 1 else int(at)]
    )


def flip(
    source: Path, target: Path, region: Region, rng: np.random.Generator, *, n: int = 20
) -> Path:
    """Change n different bytes of a region, each to some other value."""

    def change(content: bytearray) -> None:
        for place in rng.choice(np.arange(*region), min(n, region[1] - region[0]), replace=False):
            content[place] ^= int(rng.integers(1, 256))

    return damage(source, target, change)


def blank(source: Path, target: Path, region: Region) -> Path:
    """Fill a region with zeros."""
    return damage(
        source,
        target,
        lambda content: content.__setitem__(slice(*region), bytes(region[1] - region[0])),
    )


def basket(path: Path, tree: str, branch: str, number: int = 0) -> Region:
    """The payload of a basket, without its key: where the (compressed) values of some entries
    lie.
    """
    with uproot.open(path) as file:
        found = file[tree][branch]
        start, size = (int(found.member(name)[number]) for name in ("fBasketSeek", "fBasketBytes"))
    key_length = int.from_bytes(path.read_bytes()[start + 14 : start + 16], "big")
    return start + key_length, start + size


def header(path: Path) -> Region:
    """The header of the file behind the magic word: version, where things lie, compression."""
    return 4, 64


def streamer_info(path: Path) -> Region:
    """The description of the classes in the file."""
    with uproot.open(path) as opened:
        return int(opened.file.fSeekInfo), int(opened.file.fSeekInfo + opened.file.fNbytesInfo)


def directory(path: Path) -> Region:
    """The list of keys at the end of the top folder."""
    with uproot.open(path) as opened:
        seek, size = opened.fSeekKeys, opened.fNbytesKeys
    return int(seek), int(seek + size)


def write_clusters(
    path: Path,
    sample: Sample,
    *,
    scalars: Mapping[str, Any] | None = None,
    jagged: Mapping[str, Any] | None = None,
    geo: Mapping[str, Any] | None = None,
    geo_entries: int = 1,
    basket_size: int | None = None,
    compress: bool = True,
) -> Path:
    """A file in the native layout as a careless tool would write it, one counter a jagged branch;
    None for a column leaves it out.

    Parameters
    ----------
    scalars, jagged, geo : mapping of str to array or None
        What replaces the columns of the sample; jagged ones as awkward arrays.
    geo_entries : int
        Entries of CellGeo: 1 in a sound file.
    basket_size : int, optional
        Clusters a basket; all by default.
    compress : bool
        False leaves everything open to single changes of bytes.
    """
    cells = {
        name: ak.unflatten(array, np.diff(sample.offsets)) for name, array in sample.cells.items()
    }
    columns = {
        name: array
        for name, array in {**sample.scalars, **(scalars or {}), **cells, **(jagged or {})}.items()
        if array is not None
    }
    vectors = {
        name: array
        for name, array in {**sample.geo.arrays(), **(geo or {})}.items()
        if array is not None
    }
    entries = {
        name: ak.Array([array] * geo_entries) if geo_entries else ak.Array([array])[:0]
        for name, array in vectors.items()
    }
    step = basket_size or max(len(sample), 1)
    with uproot.recreate(path, compression=uproot.ZSTD(3) if compress else None) as file:
        made = file.mktree("ClusterTree", {name: _type(array) for name, array in columns.items()})
        for start in range(0, len(sample), step):
            made.extend({name: array[start : start + step] for name, array in columns.items()})
        file.mktree("CellGeo", {name: _type(array) for name, array in entries.items()}).extend(
            entries
        )
    return path


def _type(array: Any) -> Any:
    return (
        np.dtype((array.dtype, array.shape[1:]))
        if isinstance(array, np.ndarray)
        else array.type.content
    )
