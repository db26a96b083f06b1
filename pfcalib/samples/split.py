"""Training, validation or test: each event belongs to one of them for good, by a hash of its
number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.7, 0.1, 0.2)


def hash_events(event_number: ArrayLike, *, salt: int = 0) -> NDArray[np.uint64]:
    """64 well-mixed bits for each event number."""
    shift = splitmix64(np.uint64(salt % 2**64) + np.zeros(1, dtype=np.uint64))
    return splitmix64(np.asarray(event_number).astype(np.uint64) ^ shift)


def split_of(
    event_number: ArrayLike, *, fractions: Sequence[float] = FRACTIONS, salt: int = 0
) -> NDArray[np.int8]:
    """Split of each event: 0 training, 1 validation, 2 test.

    All clusters of an event fall into one split, whatever the file, the order or the machine.

    Parameters
    ----------
    event_number : array_like of int
    fractions : three floats
        Shares of the three splits; not negative, sum 1.
    salt : int
        Another salt makes an independent split.

    Raises
    ------
    ConfigError
        If the fractions are not three shares that sum to 1.

    >>> split_of([1, 1, 2, 3, 4, 5]).tolist()
    [0, 0, 2, 1, 0, 0]
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or not np.all(shares >= 0.0) or abs(shares.sum() - 1.0) > 1e-9:
        raise ConfigError(f"fractions must be three shares that sum to 1, got {tuple(fractions)}")
    uniform = (hash_events(event_number, salt=salt) >> np.uint64(11)) * 2.0**-53
    return np.searchsorted(np.cumsum(shares)[:2], uniform, side="right").astype(np.int8)


def split_index(name: str) -> int:
    """Number of a split by its name.

    Raises
    ------
    ConfigError
        If there is no split of that name.
    """
    if name not in SPLITS:
        raise ConfigError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
    return SPLITS.index(name)


def splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea and Flood, OOPSLA 2014); unsigned arithmetic wraps, as it
    should.
    """
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
