"""The least time of one call of a network: that of reading its weights, each of which is used once
for one cluster.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

MEMORY = 400_000_000  # bytes, beyond what any cache holds


class ReadBound(NamedTuple):
    """Bytes of the weights of a model, and microseconds in which one thread reads so many."""

    n_bytes: int
    cached_us: float  # where the cache still holds them from the last call
    memory_us: float  # where it does not


def read_bandwidth(n_bytes: int, *, n_passes: int = 5) -> float:
    """Bytes that one thread reads in a second, the best of several passes over an array of that
    size: memory far beyond the size of the caches, else the smallest cache that holds it.
    """
    array = np.ones(-(-n_bytes // 8), dtype=np.int64)
    times = []
    for _ in range(n_passes + 1):  # the first fills the caches
        start = time.perf_counter()
        array.sum()
        times.append(time.perf_counter() - start)
    return array.nbytes / min(times[1:])


def read_bound(path: str | Path) -> ReadBound:
    """Time to read the weights of an ONNX file on this machine: none of its calls for one cluster
    takes less, whatever the arithmetic. ``n_bytes`` is that in the file, of float32 four a weight.
    """
    graph = onnx.load(path).graph
    n_bytes = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    cached = n_bytes / read_bandwidth(n_bytes, n_passes=50)
    return ReadBound(n_bytes, 1e6 * cached, 1e6 * n_bytes / _memory_bandwidth())


@functools.cache
def _memory_bandwidth() -> float:
    return read_bandwidth(MEMORY)
