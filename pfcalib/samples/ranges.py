"""Read many short ranges of a file with one system call each and no Python in between.

Memory maps would do the same with page faults, but every fault maps the neighbours of a page too: a
few hundred random clusters make a sample of a million resident. What is read with pread(2) lands in
a buffer of its own and nowhere else.
"""

from __future__ import annotations

import numba as nb
from numba import types

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64)
)


@nb.njit(cache=True, nogil=True)
def read_ranges(descriptor, start, length, out) -> int:  # type: ignore[no-untyped-def] # pragma: no cover
    """Read ranges of an open file one after the other into `out`; safe to call from several
    threads.

    Parameters
    ----------
    descriptor : int
    start, length : arrays of int64, shape (n,), bytes
    out : array of uint8, shape (sum of lengths,)

    Returns
    -------
    int
        -1, or the first range that could not be read to its end.
    """
    place = 0
    for i in range(len(start)):
        done = 0
        while done < length[i]:
            count = _pread(descriptor, out[place:].ctypes, length[i] - done, start[i] + done)
            if count <= 0:
                return i
            place += count
            done += count
    return -1
