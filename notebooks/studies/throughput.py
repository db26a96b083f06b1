"""How fast a network trains on each kind of feed and how much memory that takes: every measurement
in a process of its own.

A process measures one thing and answers in JSON, so that its peak memory is nobody else's. Ratios
of speeds come from one process that trains on the feeds in turn, because the speed of a shared
machine changes from minute to minute.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.columns import SCALARS
from pfcalib.errors import ConfigError, PfcalibError
from pfcalib.samples.read import PathLike, iterate_sample
from pfcalib.samples.write import SampleWriter

FEEDS = {
    "memory": "(a) arrays in memory",
    "root": "(b) stream over ROOT",
    "cache": "(c) stream over the cache",
    "per_sample": "(d) one cluster at a time",
    "tfdata": "(e) tf.data over the cache",
}
_CELLS = ("cluster_cell_ID", "cluster_cell_E")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThroughputConfig:
    """One measurement.

    Parameters
    ----------
    task : "train", "compare" or "feed"
        Train on one feed, on all `feeds` in turn, or fetch whole epochs without a network.
    feeds : tuple of str
        Names in `FEEDS`; "train" and "feed" take one.
    paths : tuple of str
        Samples.
    cache_dir : str
        Folder of the caches.
    network : str
        Name in `pfcalib.models.families`, with its `options`; it decides the kind of input.
    kind : str
        Kind of input of "feed"; that of the network if empty.
    workers, processes
        As `workers` and `use_multiprocessing` of a Keras data set; processes are spawned.
    n_warm, n_steps : int
        Steps of a block of training that are not timed, and that are.
    n_rounds : int
        Blocks of each feed in "compare", epochs in "feed".
    pool_size : int
        Clusters in the pool of "root".
    max_seconds : float
        An epoch of a feed is broken off after it.
    """

    task: Literal["train", "compare", "feed"]
    feeds: tuple[str, ...]
    paths: tuple[str, ...]
    cache_dir: str
    network: str = "densenet"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = ""
    batch_size: int = 256
    workers: int = 1
    processes: bool = False
    n_warm: int = 10
    n_steps: int = 60
    n_rounds: int = 1
    pool_size: int = 100_000
    max_seconds: float = 60.0
    seed: int = 1

    def __post_init__(self) -> None:
        if unknown := set(self.feeds) - set(FEEDS):
            raise ConfigError(
                f"unknown feeds {', '.join(sorted(unknown))}; there are {', '.join(FEEDS)}"
            )
        if not self.feeds or (len(self.feeds) > 1 and self.task != "compare"):
            raise ConfigError(
                f"task {self.task!r} takes {'feeds' if self.task == 'compare' else 'one feed'}, "
                f"got {len(self.feeds)}"
            )


class Measurement(NamedTuple):
    """What a process found; each row of `rates` is a block or an epoch, each column a feed."""

    config: ThroughputConfig
    n_clusters: int
    rates: NDArray[np.float64]  # clusters a second
    # clusters a second of processor time, of all threads of the process
    processor_rates: NDArray[np.float64]
    peak_mb: float  # resident, at most
    anonymous_mb: float  # of it when it was largest: memory of the process itself
    file_mb: float  # and pages of files: libraries and maps
    start_mb: float  # resident before there were data

    @property
    def rate(self) -> tuple[float, float]:
        """Clusters a second, median over the blocks, with its error."""
        return median_with_error(self.rates[:, 0])

    @property
    def processor_rate(self) -> tuple[float, float]:
        """Clusters a second of processor time, median over the blocks, with its error."""
        return median_with_error(self.processor_rates[:, 0])

    def ratio(
        self, feed: str, over: str = "memory", *, processor: bool = False
    ) -> tuple[float, float]:
        """Speed on one feed over that on another, median over the rounds, with its error."""
        rates, columns = (self.processor_rates if processor else self.rates), self.config.feeds
        return median_with_error(rates[:, columns.index(feed)] / rates[:, columns.index(over)])


def median_with_error(values: ArrayLike) -> tuple[float, float]:
    """Median, and its error from the spread of the values (1.2533 times that of a mean, for a
    Gaussian of the central 68 %); NaN for one value.

    >>> median_with_error([1.0, 1.0, 1.0])
    (1.0, 0.0)
    """
    array = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(array, [0.16, 0.84])
    return float(np.median(array)), float(1.2533 * 0.5 * (high - low) / np.sqrt(len(array))) if len(
        array
    ) > 1 else float("nan")


def measure(config: ThroughputConfig) -> Measurement:
    """Run one measurement in a process of its own.

    Raises
    ------
    PfcalibError
        If the process fails, with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [
            sys.executable,
            "-m",
            "studies.throughput_process",
            json.dumps(dataclasses.asdict(config)),
            str(answer),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["nothing on its error stream"])[-1]
            raise PfcalibError(
                f"measurement of {config.task} {', '.join(config.feeds)} failed "
                f"({done.returncode}): {last}"
            )
        found = json.loads(answer.read_text(encoding="utf-8"))
    rates, processor_rates = (
        np.array(found.pop(name), dtype=np.float64) for name in ("rates", "processor_rates")
    )
    return Measurement(config, rates=rates, processor_rates=processor_rates, **found)


def measure_all(
    configs: Iterable[ThroughputConfig],
    *,
    n_parallel: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[Measurement]:
    """Run measurements one after the other; several at once only to see that they work, as they
    slow each other down.
    """
    found = []
    with concurrent.futures.ThreadPoolExecutor(n_parallel) as pool:
        for result in pool.map(measure, configs):
            config, (rate, _) = result.config, result.rate
            workers = f"{config.workers} {'processes' if config.processes else 'workers'}"
            text = (
                f"{config.task} {' '.join(config.feeds)}, {result.n_clusters} clusters, {workers}"
            )
            say(f"{text}: {rate:.0f} clusters/s, {result.peak_mb:.0f} MB")
            found.append(result)
    return found


def split_sample(
    path: PathLike, sizes: Sequence[int], folder: PathLike, *, n_parts: int = 3
) -> dict[int, tuple[str, ...]]:
    """Write the first clusters of a sample to several files, so that those of a smaller size are
    the first ones of a larger size.

    Parameters
    ----------
    path : path-like
        Sample of at least as many clusters as the largest size.
    sizes : sequence of int
        Clusters in all files of a size.
    folder : path-like
        For the files; those that are there already are kept.
    n_parts : int
        Files for the clusters between two sizes.

    Returns
    -------
    dict of int to tuple of str
        Files of each size.

    Raises
    ------
    ConfigError
        If the sample is too small.
    """
    ends = [0, *sorted(sizes)]
    edges = sorted(
        {
            int(edge)
            for low, high in itertools.pairwise(ends)
            for edge in np.linspace(low, high, n_parts + 1)
        }
    )
    files = {
        edge: str(Path(folder) / f"{Path(path).stem}-{start}-{edge}.root")
        for start, edge in itertools.pairwise(edges)
    }
    for start, stop in itertools.pairwise(edges):
        if not Path(files[stop]).exists():
            _write_part(path, start, stop, files[stop])
    return {size: tuple(file for edge, file in files.items() if edge <= size) for size in sizes}


def _write_part(path: PathLike, start: int, stop: int, target: str) -> None:
    """Clusters start to stop with all scalars and what images are made of."""
    chunks = iterate_sample(path, columns=(*SCALARS, *_CELLS), entry_start=start, entry_stop=stop)
    first = next(chunks, None)
    if first is None:
        raise ConfigError(f"{path} does not have {stop} clusters")
    with SampleWriter(target, first.geo, first.metadata, columns=(*SCALARS, *_CELLS)) as writer:
        for chunk in itertools.chain([first], chunks):
            writer.extend(chunk.scalars, chunk.offsets, chunk.cells)
        if writer.n_clusters < stop - start:
            raise ConfigError(
                f"{path} has only {start + writer.n_clusters} clusters, {stop} are wanted"
            )
