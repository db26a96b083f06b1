"""Time of one call of an ONNX model, as a median with quartiles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.deploy.validator import open_session
from pfcalib.errors import ValidationError


class Latency(NamedTuple):
    """Time of a call in microseconds."""

    batch: int
    n_threads: int
    n_calls: int
    median_us: float
    quartiles_us: tuple[float, float]

    @property
    def clusters_per_second(self) -> float:
        """Throughput at the median."""
        return 1e6 * self.batch / self.median_us


def measure_latency(
    path: str | Path,
    inputs: Mapping[str, NDArray[np.float32]],
    *,
    batch: int = 1,
    n_threads: int = 1,
    n_calls: int = 200,
    n_warm_up: int = 20,
) -> Latency:
    """Call a model again and again, each time with the next clusters, and time each call.

    Parameters
    ----------
    inputs : mapping of str to float32 array, shape (n_clusters, ...)
        At least one batch; the clusters are taken in turn.
    n_warm_up : int
        Calls before the clock runs.

    Raises
    ------
    ValidationError
        If the file cannot be loaded or there are fewer clusters than a batch.
    """
    session = open_session(Path(path), n_threads=n_threads)
    n_clusters = len(next(iter(inputs.values())))
    if n_clusters < batch:
        raise ValidationError(f"{n_clusters} clusters are fewer than a batch of {batch}")
    starts = np.arange(n_clusters // batch) * batch
    feeds = [
        {name: np.ascontiguousarray(array[start : start + batch]) for name, array in inputs.items()}
        for start in starts[: n_calls + n_warm_up]
    ]
    times = np.empty(n_warm_up + n_calls)
    for i in range(len(times)):
        start = time.perf_counter_ns()
        session.run(None, feeds[i % len(feeds)])
        times[i] = (time.perf_counter_ns() - start) / 1e3
    low, median, high = np.quantile(times[n_warm_up:], (0.25, 0.5, 0.75))
    return Latency(batch, n_threads, n_calls, float(median), (float(low), float(high)))
