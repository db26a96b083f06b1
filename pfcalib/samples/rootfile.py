"""ROOT files opened with care: trees (TTree or RNTuple), types of branches, cells and metadata, and
what is wrong said with file, tree, branch and entry.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from uproot.behaviors.RNTuple import RNTuple

from pfcalib.cache import file_sha256
from pfcalib.columns import CELL_GEO, COLUMNS
from pfcalib.errors import BadFileError
from pfcalib.samples.faults import BadEntriesError, require_equal_lengths
from pfcalib.samples.locate import PathLike, is_url, require_served, seekable
from pfcalib.samples.schema import CONTENT, GEO_PREFIX, GEO_TREE, METADATA, CellGeo

_LARGE_FILES = 1_000_000  # versions from which a ROOT file has 64-bit places
# classes; what is said of a tree and its branches holds of both
_TREES = ("TTree", "ROOT::RNTuple")
# columns of integers
WHOLE = tuple(name for name, column in COLUMNS.items() if column.numpy_dtype.kind in "iu")
# of RNTuples, whose clusters are read whole, also where some of their entries are asked for
_ARRAY_CACHE = "512 MB"
Identity = tuple[int, int, int, int]  # device, inode, bytes, time of the last change in ns


def identity(path: PathLike) -> Identity | None:
    """What tells a file from one that took its place; None for a URL or a file that is gone."""
    if is_url(path):
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def content_id(path: PathLike) -> str:
    """What tells the content of a sample from any other, whatever the file is called: a hash.

    It is the one of the columns, where `samples.write` has put it into the file, so that a sample
    that is made again is the same sample; else that of the bytes of the file.
    """
    require_readable(path)
    if not is_url(path) and Path(path).suffix == ".root":
        with open_sample(path) as file:
            if CONTENT in file.keys(cycle=False):
                return str(file[CONTENT])
    with seekable(path) as place:
        return file_sha256(place)


def require_readable(path: PathLike) -> None:
    """Raise a BadFileError where the path or URL is no file, may not be read, or is empty."""
    if is_url(path):
        require_served(str(path))
        return
    path = Path(path)
    for wrong, what in (
        (path.is_dir(), "is a directory, not a file"),
        (not path.exists(), "no such file"),
        (not path.is_file(), "is not a regular file"),
    ):
        if wrong:
            raise BadFileError(f"{path}: {what}")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise BadFileError(f"{path}: the file is empty (0 bytes)")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be opened ({error.strerror})") from error


@contextlib.contextmanager
def open_sample(path: PathLike) -> Iterator[Any]:
    """The ROOT file, closed at the end.

    Raises
    ------
    BadFileError
        If the file is missing, a directory, empty, may not be read, is not ROOT, or was cut short.
    """
    require_readable(path)
    with seekable(path) as place:
        if not is_url(place):
            _require_whole(path, Path(place))
        with reading(path, "not a readable ROOT file"):
            # a mapping: a colon in a name does not open a tree
            file = uproot.open({place: None}, array_cache=_ARRAY_CACHE)
        with file:
            yield file


def _require_whole(path: PathLike, place: Path) -> None:
    """Raise a BadFileError where a ROOT file ends before its header says, even if nothing that is
    read lies behind the end.

    Header: "root", version (4 bytes), place of the first record (4), end of the file (4, or 8 from
    version 1,000,000 on), big endian.
    """
    size = place.stat().st_size
    with place.open("rb") as file:
        magic, version, _, end = file.read(4), file.read(4), file.read(4), file.read(8)
    end = end if int.from_bytes(version, "big") >= _LARGE_FILES else end[:4]
    if magic == b"root" and size < int.from_bytes(end, "big"):
        raise BadFileError(
            f"{path}: the file is cut short, it has {size} of {int.from_bytes(end, 'big')} bytes"
        )


def root_trees(path: PathLike) -> dict[str, frozenset[str]]:
    """Trees of a ROOT file with the names of their branches; empty for a file of another kind, and
    a damaged tree has no branches.
    """
    version = identity(path)
    return (
        _root_trees.__wrapped__(path, None) if version is None else _root_trees(str(path), version)
    )


@lru_cache(maxsize=32)
def _root_trees(path: str, version: Identity | None) -> dict[str, frozenset[str]]:
    """Every layout asks for the trees in turn: look once, as long as the file stays the same."""
    trees: dict[str, frozenset[str]] = {}
    with contextlib.suppress(BadFileError), open_sample(path) as file:
        with reading(path, "the directory of the file cannot be read"):
            names = _names_of_trees(file)
        for name in names:
            trees[name] = frozenset()
            with contextlib.suppress(BadFileError), reading(path, ""):
                trees[name] = frozenset(file[name].keys())
    return trees


def get_tree(path: PathLike, file: Any, name: str) -> Any:
    """A tree of the file.

    Raises
    ------
    BadFileError
        If there is no tree of that name.
    """
    with reading(path, "the directory of the file cannot be read"):
        trees = _names_of_trees(file)
    if name not in trees:
        raise BadFileError(
            f"{path}: no tree {name!r}; the file has {', '.join(trees) or 'no tree at all'}"
        )
    with reading(path, f"tree {name} cannot be read"):
        return file[name]


def read_flat(
    path: PathLike, wanted: Sequence[str], *, tree: str | None = None
) -> dict[str, NDArray[Any]]:
    """Those of the wanted branches that a tree has, a number an entry each.

    Parameters
    ----------
    path : path
    wanted : sequence of str
    tree : str, optional
        Of the file, if it holds several.

    Raises
    ------
    BadFileError
        If the file or the tree cannot be read, there are several trees and none is named, none of
        the branches is there, or one holds something else than numbers.
    """
    with open_sample(path) as file:
        with reading(path, "the directory of the file cannot be read"):
            trees = _names_of_trees(file)
        if tree is None and len(trees) != 1:
            raise BadFileError(f"{path}: name one of its trees, {', '.join(trees) or 'none'}")
        table = get_tree(path, file, tree or trees[0])
        there = set(table.keys())
        found = [name for name in dict.fromkeys(wanted) if name in there]
        if not found:
            raise BadFileError(
                f"{path}: {table.name}: no branch of {', '.join(wanted)}; it has "
                f"{', '.join(sorted(there))}"
            )
        require_numbers(path, table, found, depth=0)
        columns = read_branches(path, table, found, 0, table.num_entries)
        return {name: np.asarray(columns[name]) for name in found}


def _names_of_trees(file: Any) -> list[str]:
    return list(file.keys(cycle=False, filter_classname=lambda name: name in _TREES))


def form_of(tree: Any, name: str) -> Any:
    """Awkward form of a branch."""
    if isinstance(tree, RNTuple):
        return tree[name].array(entry_stop=0).layout.form
    return tree[name].interpretation.awkward_form(tree.file)


def entry_offsets(tree: Any, name: str) -> list[int]:
    """First entries of what is read at once, baskets or clusters, and the number of entries."""
    if isinstance(tree, RNTuple):
        return [part.num_first_entry for part in tree.cluster_summaries] + [tree.num_entries]
    return [int(edge) for edge in tree[name].entry_offsets]


def _array(tree: Any, name: str, start: int, stop: int) -> ak.Array:
    cache = "inherit" if isinstance(tree, RNTuple) else None
    return tree[name].array(entry_start=start, entry_stop=stop, library="ak", array_cache=cache)


def require_branches(path: PathLike, tree: Any, wanted: Sequence[str]) -> None:
    """Raise a BadFileError that names the branches that a tree does not have."""
    there = set(tree.keys())
    missing = [branch for branch in wanted if branch not in there]
    if missing:
        raise BadFileError(f"{path}: {tree.name} has no branch {', '.join(missing)}")


def require_numbers(
    path: PathLike, tree: Any, branches: Sequence[str], *, depth: int, whole: Container[str] = ()
) -> None:
    """Raise a BadFileError for a branch that does not hold numbers in lists of that depth: 0
    numbers, 1 vectors, 2 vectors of vectors.

    Parameters
    ----------
    path, tree, branches
        Where to look, and at what.
    depth : int
    whole : container of str
        Branches whose numbers must be integers.
    """
    for name in branches:
        kind = "integer" if name in whole else "number"
        one = "an integer" if name in whole else "a number"
        wish = (one, f"a vector of {kind}s", f"a vector of vectors of {kind}s")[depth]
        with reading(path, f"{tree.name}: branch {name} is of a type that cannot be read"):
            form = form_of(tree, name)
        levels = 0
        while form.is_list:
            form, levels = form.content, levels + 1
        good = (
            levels == depth
            and form.is_numpy
            and not form.inner_shape
            and not form.parameter("__array__")
            and form.primitive != "bool"
        )
        if not good or (name in whole and "int" not in form.primitive):
            raise BadFileError(
                f"{path}: {tree.name}: branch {name} is of type {tree[name].typename}, expected "
                f"{wish} an entry"
            )


def read_branches(
    path: PathLike, tree: Any, branches: Sequence[str], start: int, stop: int
) -> ak.Array:
    """Branches of entries [start, stop) as an awkward record.

    Raises
    ------
    BadEntriesError
        With branch and entries of the first basket that cannot be read.
    """
    if start == stop:  # of which uproot would read a basket
        with reading(path, f"{tree.name}: branches cannot be read"):
            empty = {name: form_of(tree, name).length_zero_array() for name in branches}
            return ak.zip(empty, depth_limit=1)
    try:
        if isinstance(tree, RNTuple):
            fields = {name: _array(tree, name, start, stop) for name in branches}
            return ak.zip(fields, depth_limit=1)
        return tree.arrays(
            list(branches), entry_start=start, entry_stop=stop, library="ak", array_cache=None
        )
    except Exception as error:
        for name in branches:
            _require_baskets(path, tree, name, start, stop)
        raise BadFileError(
            f"{path}: {tree.name}: entries {start} to {stop} cannot be read "
            f"({type(error).__name__})"
        ) from error


def _require_baskets(path: PathLike, tree: Any, name: str, start: int, stop: int) -> None:
    """Read a branch basket by basket, and say which one cannot be read."""
    with reading(path, f"{tree.name}: branch {name} cannot be read"):
        edges = [edge for edge in entry_offsets(tree, name) if start < edge < stop]
    for first, last in itertools.pairwise([start, *edges, stop]):
        try:
            _array(tree, name, first, last)
        except Exception as error:
            raise BadEntriesError(
                path, tree.name, name, first, last, f"cannot be read ({type(error).__name__})"
            ) from error


def read_geo(path: PathLike, file: Any, *, needed: bool = True) -> CellGeo:
    """The cells of an open sample; none where there is no CellGeo and none is needed.

    Raises
    ------
    BadFileError
        If a CellGeo that is needed is missing, has not exactly one entry, lacks a branch, its
        vectors differ in length, a value is not finite or a cell comes twice.
    """
    if not needed and GEO_TREE not in root_trees(path):
        return no_cells()
    tree = get_tree(path, file, GEO_TREE)
    if tree.num_entries != 1:
        raise BadFileError(
            f"{path}: {GEO_TREE} must have exactly one entry, it has {tree.num_entries}"
        )
    require_branches(path, tree, list(CELL_GEO))
    require_numbers(path, tree, list(CELL_GEO), depth=1)
    with reading(path, f"{GEO_TREE} cannot be read"):
        arrays = tree.arrays(list(CELL_GEO), library="ak", array_cache=None)
    flat = {
        name.removeprefix(GEO_PREFIX): ak.to_numpy(arrays[name][0]).astype(dtype)
        for name, dtype in CELL_GEO.items()
    }
    if len({len(array) for array in flat.values()}) != 1:
        raise BadFileError(f"{path}: {GEO_TREE}: the vectors do not have the same length")
    for name, array in flat.items():
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise BadFileError(
                f"{path}: {GEO_TREE}: entry 0: {GEO_PREFIX}{name}[{bad[0]}] is {array[bad[0]]}, it "
                "must be finite"
            )
    ids = np.sort(flat["ID"])
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise BadFileError(f"{path}: {GEO_TREE}: entry 0: cell ID {twice[0]} occurs more than once")
    return CellGeo(**flat)


def no_cells() -> CellGeo:
    """The geometry of a file without cells."""
    return CellGeo(*(np.zeros(0, dtype=dtype) for dtype in CELL_GEO.values()))


def read_metadata(path: PathLike, file: Any) -> dict[str, Any]:
    """The metadata of an open sample; empty where the file has none."""
    try:
        with reading(path, f"{METADATA} cannot be read"):
            text = str(file[METADATA]) if METADATA in file.keys(cycle=False) else "{}"
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise BadFileError(f"{path}: {METADATA} is not JSON: {error}") from error


def as_column(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Values in the dtype of a column; what is beyond its range becomes infinite, which those who
    judge values report.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(COLUMNS[name].dtype, copy=False)


def found_and_missing(
    there: Container[str], wanted: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The wanted names that are there, and those that are not."""
    found = tuple(name for name in wanted if name in there)
    return found, tuple(name for name in wanted if name not in there)


def read_jagged(
    path: PathLike, tree: str, arrays: ak.Array, branches: Sequence[str], start: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Offsets that start at 0, and the flat values of jagged branches, which must have the same
    lengths.

    Parameters
    ----------
    path, tree
        Where the arrays come from.
    arrays : awkward.Array
        Of `read_branches`.
    branches : sequence of str
        Without any, all lengths are 0.
    start : int
        First entry of the arrays.

    Raises
    ------
    BadEntriesError
        If the lengths of two branches differ.
    """
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    values: dict[str, NDArray[Any]] = {}
    entry = start + np.arange(len(arrays))
    for name in branches:
        where = f"{tree}: entries {start} to {start + len(arrays)}: {name}"
        with reading(path, f"{where} cannot be unpacked"):
            layout = ak.to_packed(arrays[name]).layout
            own, flat = np.asarray(layout.offsets.data, np.int64), np.asarray(layout.content.data)
        if values:
            names = (name, next(iter(values)))
            require_equal_lengths(path, tree, entry, (np.diff(own), np.diff(offsets)), names)
        offsets, values[name] = own, flat
    return offsets, values


@contextlib.contextmanager
def reading(path: PathLike, trouble: str) -> Iterator[None]:
    """Turn any error of uproot, which has many kinds for files that are damaged or cut short, into
    a BadFileError.
    """
    try:
        yield
    except Exception as error:
        raise BadFileError(f"{path}: {trouble} ({type(error).__name__})") from error
