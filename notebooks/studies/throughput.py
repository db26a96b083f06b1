"""How fast a network trains on each kind of feed and how much memory that takes: every measurement
in a process of its own, ``python -m studies.throughput CONFIG ANSWER.json``.

A process measures one thing and answers in JSON, so that its peak memory is nobody else's. Ratios
of speeds come from one process that trains on the feeds in turn, because the speed of a shared
machine changes from minute to minute.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import psutil
import tensorflow as tf
import uproot
from numpy.typing import NDArray

from pfcalib.columns import SCALARS
from pfcalib.errors import ConfigError, PfcalibError
from pfcalib.features.images import build_images
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs
from pfcalib.models.families import MODEL_KINDS, build_model
from pfcalib.samples.read import PathLike, as_paths, iterate_sample, open_sample, read_geo
from pfcalib.samples.schema import CLUSTER_TREE, Sample, is_em
from pfcalib.samples.select import SelectionConfig
from pfcalib.samples.write import SampleWriter
from pfcalib.training.stream import ClusterStream, one_hot

FEEDS = {
    "memory": "(a) arrays in memory",
    "root": "(b) stream over ROOT",
    "cache": "(c) stream over the cache",
    "per_sample": "(d) one cluster at a time",
    "tfdata": "(e) tf.data over the cache",
}
EVERYTHING = SelectionConfig(min_cluster_e=1e-6, max_abs_eta=100.0)
N_PARTS = 5  # of the timed steps of a block of training, for its spread
_CELLS = ("cluster_cell_ID", "cluster_cell_E")
_BRANCHES = ("clusterE", "clusterEta", "clusterPhi", "truthPdgId", *_CELLS)

Rates = list[list[list[float]]]  # by the clock and by processor time, round and feed


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


def measure(config: ThroughputConfig) -> Measurement:
    """Run one measurement in a process of its own.

    Raises
    ------
    PfcalibError
        If the process fails, with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, text = Path(folder) / "answer.json", json.dumps(dataclasses.asdict(config))
        done = subprocess.run(
            [sys.executable, "-m", "studies.throughput", text, str(answer)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["nothing on its error stream"])[-1]
            raise PfcalibError(
                f"measurement of {config.task} {', '.join(config.feeds)} failed "
                f"({done.returncode}): {last}"
            )
        found = json.loads(answer.read_text(encoding="utf-8"))
    by_clock, by_processor = (np.array(found.pop(key)) for key in ("rates", "processor_rates"))
    return Measurement(config, rates=by_clock, processor_rates=by_processor, **found)


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
            config, rate = result.config, np.median(result.rates[:, 0])
            workers = f"{config.workers} {'processes' if config.processes else 'workers'}"
            what = f"{config.task} {' '.join(config.feeds)}, {result.n_clusters} clusters"
            say(f"{what}, {workers}: {rate:.0f} clusters/s, {result.peak_mb:.0f} MB")
            found.append(result)
    return found


def split_sample(
    paths: PathLike | Sequence[PathLike],
    sizes: Sequence[int],
    folder: PathLike,
    *,
    n_parts: int = 3,
) -> dict[int, tuple[str, ...]]:
    """Write the first clusters of samples to several files, so that those of a smaller size are
    the first ones of a larger size.

    Parameters
    ----------
    paths : path-like or sequence of them
        Samples of at least as many clusters as the largest size, one after the other.
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
        If the samples are too small.
    """
    samples = as_paths(paths)
    ends = itertools.pairwise([0, *sorted(sizes)])
    edges = sorted({int(edge) for end in ends for edge in np.linspace(*end, n_parts + 1)})
    files = {
        edge: str(Path(folder) / f"{Path(samples[0]).stem}-{start}-{edge}.root")
        for start, edge in itertools.pairwise(edges)
    }
    for start, stop in itertools.pairwise(edges):
        if not Path(files[stop]).exists():
            _write_part(samples, start, stop, files[stop])
    return {size: tuple(file for edge, file in files.items() if edge <= size) for size in sizes}


def _write_part(samples: Sequence[PathLike], start: int, stop: int, target: str) -> None:
    """Clusters start to stop with all scalars and what images are made of."""
    names = ", ".join(map(str, samples))
    chunks = iterate_sample(
        samples, columns=(*SCALARS, *_CELLS), entry_start=start, entry_stop=stop
    )
    first = next(chunks, None)
    if first is None:
        raise ConfigError(f"{names}: not {stop} clusters")
    with SampleWriter(target, first.geo, first.metadata, columns=(*SCALARS, *_CELLS)) as writer:
        for chunk in itertools.chain([first], chunks):
            writer.extend(chunk.scalars, chunk.offsets, chunk.cells)
        if writer.n_clusters < stop - start:
            raise ConfigError(
                f"{names}: only {start + writer.n_clusters} clusters, {stop} are wanted"
            )


def open_stream(config: ThroughputConfig, kind: str, *, source: str) -> ClusterStream:
    """A stream of all clusters of the files, neither split nor balanced."""
    return ClusterStream(
        config.paths,
        source=source,
        kind=kind,
        split="all",
        balance=None,
        select=EVERYTHING,
        batch_size=config.batch_size,
        pool_size=config.pool_size,
        seed=config.seed,
        cache_dir=config.cache_dir,
        workers=config.workers,
        use_multiprocessing=config.processes,
    )


def load_arrays(stream: ClusterStream) -> dict[str, NDArray[np.float32]]:
    """All inputs of a stream in memory, in the order of the files."""
    inputs = {
        name: np.empty((stream.n_clusters, *shape), dtype=np.float32)
        for name, shape in stream.input_shapes.items()
    }
    for start in range(0, stream.n_clusters, 4096):
        rows = np.arange(start, min(start + 4096, stream.n_clusters))
        for name, array in stream.batch(rows)[0].items():
            inputs[name][rows] = array
    return inputs


def one_at_a_time(config: ThroughputConfig, kind: str) -> Any:
    """Each cluster read, made into images and handed over alone, as generators in public code do:
    no shuffling, a thousand entries a read.
    """
    with open_sample(config.paths[0]) as file:
        geo = read_geo(config.paths[0], file)

    def clusters() -> Iterator[tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]]:
        for chunk in uproot.iterate(
            [f"{path}:{CLUSTER_TREE}" for path in config.paths], list(_BRANCHES), step_size=1000
        ):
            for cluster in chunk:
                columns = {name: np.atleast_1d(np.asarray(cluster[name])) for name in _BRANCHES}
                cells = {name: columns.pop(name) for name in _BRANCHES[-2:]}
                sample = Sample(
                    columns, np.array([0, len(cells["cluster_cell_ID"])]), cells, geo, {}
                )
                inputs = build_inputs(build_images(sample), kind)
                yield (
                    {name: array[0] for name, array in inputs.items()},
                    one_hot(is_em(columns["truthPdgId"]))[0],
                )

    shapes = {name: tf.TensorSpec(shape, tf.float32) for name, shape in INPUT_SHAPES[kind].items()}
    signature = (shapes, tf.TensorSpec((2,), tf.float32))
    return (
        tf.data.Dataset.from_generator(clusters, output_signature=signature)
        .batch(config.batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def tf_pipeline(stream: ClusterStream, config: ThroughputConfig) -> Any:
    """Row numbers shuffled and batched by tf.data, which calls for the images of a batch on as many
    threads as it finds good.
    """
    names = list(stream.input_shapes)

    def fetch(rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        inputs, labels = stream.batch(rows)[:2]
        return [*(inputs[name] for name in names), labels]

    def images(rows: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        *arrays, labels = tf.numpy_function(fetch, [rows], [tf.float32] * (len(names) + 1))
        for name, array in zip(names, arrays, strict=True):
            array.set_shape((None, *stream.input_shapes[name]))
        labels.set_shape((None, 2))
        return dict(zip(names, arrays, strict=True)), labels

    rows = (
        tf.data.Dataset.range(stream.n_clusters)
        .shuffle(stream.n_clusters, seed=config.seed)
        .batch(config.batch_size)
    )
    return rows.map(images, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def open_feed(name: str, config: ThroughputConfig, kind: str) -> tuple[dict[str, Any], int]:
    """Arguments of `keras.Model.fit` for a feed, and the number of its clusters."""
    stream = open_stream(config, kind, source="root" if name == "root" else "cache")
    if name == "memory":
        arrays = {"x": load_arrays(stream), "y": stream.labels}
        return {**arrays, "batch_size": config.batch_size, "shuffle": True}, stream.n_clusters
    if name == "per_sample":
        return {"x": one_at_a_time(config, kind)}, stream.n_clusters
    if name == "tfdata":
        return {"x": tf_pipeline(stream, config)}, stream.n_clusters
    return {"x": stream, "shuffle": False}, stream.n_clusters


class MemoryWatch(threading.Thread):
    """Looks at the resident memory fifty times a second; MB in all, of the process itself, of
    files, where it was largest.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_mb, self.peak = resident()[0], resident()
        self._done = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._done.wait(0.02):
            self.peak = max(self.peak, resident())

    def stop(self) -> dict[str, float]:
        """What was found."""
        self._done.set()
        self.join()
        names = ("peak_mb", "anonymous_mb", "file_mb")
        return {**dict(zip(names, self.peak, strict=True)), "start_mb": self.start_mb}


def resident() -> tuple[float, float, float]:
    """Resident memory of this process in MB: all, anonymous, and pages of files with shared
    memory.
    """
    memory = psutil.Process().memory_info()
    return tuple(n / 2.0**20 for n in (memory.rss, memory.rss - memory.shared, memory.shared))


def train(config: ThroughputConfig) -> tuple[Rates, int]:
    """Rounds of a block of training on each feed: rates, shape (2, n, n_feeds), and the clusters.

    A block is `n_steps` steps after `n_warm` that do not count; "train" cuts its one block into
    N_PARTS.
    """
    kind = MODEL_KINDS[config.network]
    model = build_model(config.network, seed=config.seed, **config.options)
    loss, adam = keras.losses.CategoricalCrossentropy(), keras.optimizers.Adam(1e-3)
    model.compile(optimizer=adam, loss=loss, jit_compile=False)
    feeds = [open_feed(name, config, kind) for name in config.feeds]
    n_clusters = feeds[0][1]
    ends: list[tuple[float, float]] = []  # of the steps of a block, by both clocks
    note = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: ends.clear(),
        on_train_batch_end=lambda batch, logs: ends.append(
            (time.perf_counter(), time.process_time())
        ),
    )
    # whole batches only
    n_steps = min(config.n_warm + config.n_steps, n_clusters // config.batch_size)
    n_rounds, n_parts = (config.n_rounds, 1) if config.task == "compare" else (1, N_PARTS)
    first = min(config.n_warm, n_steps // 2) - 1
    edges = np.unique(np.linspace(first, n_steps - 1, n_parts + 1).astype(int))
    fit = {"steps_per_epoch": n_steps, "epochs": 1, "verbose": 0, "callbacks": [note]}
    rates = []
    for turn in range(n_rounds):
        block = np.zeros((len(feeds), 2, len(edges) - 1))
        for i in np.roll(np.arange(len(feeds)), turn):
            model.fit(**feeds[i][0], **fit)
            seconds = np.diff(np.array(ends)[edges], axis=0)
            block[i] = (config.batch_size * np.diff(edges)[:, None] / seconds).T
        rates.append(block)
    if config.task == "train" and not config.processes:
        fetch(feeds[0][0], config)  # the memory of a whole epoch
    return np.concatenate(rates, axis=2).transpose(1, 2, 0).tolist(), n_clusters


def fetch(feed: dict[str, Any], config: ThroughputConfig) -> int:
    """Fetch an epoch without a network, or as much of it as `max_seconds` allow; number of
    clusters.
    """
    data, labels = feed["x"], feed.get("y")
    if labels is not None:
        rows = np.random.default_rng(config.seed).permutation(len(labels))
        parts = np.split(rows, np.arange(config.batch_size, len(rows), config.batch_size))
        batches = (({name: a[part] for name, a in data.items()}, labels[part]) for part in parts)
    elif isinstance(data, keras.utils.PyDataset):
        data.on_epoch_end()  # the next order
        batches = (data[i][:2] for i in range(len(data)))
    else:
        batches = iter(data)
    end, n_clusters = time.perf_counter() + config.max_seconds, 0
    for batch in batches:
        n_clusters += len(batch[1])
        if time.perf_counter() > end:
            break
    return n_clusters


def feed_alone(config: ThroughputConfig) -> tuple[Rates, int]:
    """Rates of whole epochs without a network; as `train`."""
    kind = config.kind or MODEL_KINDS[config.network]
    feed, n_clusters = open_feed(config.feeds[0], config, kind)
    rates = []
    for _ in range(config.n_rounds + 1):
        start = np.array([time.perf_counter(), time.process_time()])
        n_fetched = fetch(feed, config)
        rates.append(n_fetched / (np.array([time.perf_counter(), time.process_time()]) - start))
    # the first one compiles
    return np.array(rates[1:]).T[:, :, None].tolist(), n_clusters


def main(text: str, answer: str) -> None:
    """Measure what the configuration says, write the answer."""
    fields = json.loads(text)
    tuples = {name: tuple(fields[name]) for name in ("feeds", "paths")}
    config = ThroughputConfig(**fields | tuples)
    if config.processes:
        multiprocessing.set_start_method("spawn")
    watch = MemoryWatch()
    watch.start()
    (by_clock, by_processor), n = feed_alone(config) if config.task == "feed" else train(config)
    found = {"n_clusters": n, "rates": by_clock, "processor_rates": by_processor, **watch.stop()}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
