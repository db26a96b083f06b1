"""The process that measures one thing: ``python -m studies.throughput_process CONFIG.json
ANSWER.json``, started by `studies.throughput`.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pfcalib.models.families import MODEL_KINDS, build_model
from studies.throughput import ThroughputConfig
from studies.throughput_feeds import open_feed

N_PARTS = 5  # of the timed steps of a block, for its spread
_STATUS = Path("/proc/self/status")


class MemoryWatch(threading.Thread):
    """Looks at the resident memory fifty times a second; MB in all, of the process itself, of
    files, where it was largest.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_mb = resident()[0]
        self.peak = resident()
        self._done = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._done.wait(0.02):
            self.peak = max(self.peak, resident())

    def stop(self) -> dict[str, float]:
        """What was found."""
        self._done.set()
        self.join()
        return {
            "peak_mb": self.peak[0],
            "anonymous_mb": self.peak[1],
            "file_mb": self.peak[2],
            "start_mb": self.start_mb,
        }


def resident() -> tuple[float, float, float]:
    """Resident memory of this process in MB: all, anonymous, and pages of files with shared
    memory.
    """
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    total, anonymous = (float(lines[name].split()[0]) / 1024.0 for name in ("VmRSS", "RssAnon"))
    return total, anonymous, total - anonymous


class StepTimes(keras.callbacks.Callback):
    """Clock and processor time at the end of every step."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the last block."""
        self.ends: list[tuple[float, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the end of a step."""
        self.ends.append((time.perf_counter(), time.process_time()))


def train(config: ThroughputConfig) -> tuple[list[list[list[float]]], int]:
    """Rounds of a block of training on each feed; rates (2, n, n_feeds), by the clock and by
    processor time, and the clusters.
    """
    kind = MODEL_KINDS[config.network]
    model = build_model(config.network, seed=config.seed, **config.options)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.CategoricalCrossentropy(),
        jit_compile=False,
    )
    feeds = [open_feed(name, config, kind) for name in config.feeds]
    n_clusters, times = feeds[0][1], StepTimes()
    # whole batches only
    n_steps = min(config.n_warm + config.n_steps, n_clusters // config.batch_size)
    edges = np.unique(
        np.linspace(
            min(config.n_warm, n_steps // 2) - 1,
            n_steps - 1,
            (N_PARTS if config.task == "train" else 1) + 1,
        ).astype(int)
    )
    rates = []
    for turn in range(config.n_rounds if config.task == "compare" else 1):
        block = np.zeros((len(feeds), 2, len(edges) - 1))
        for i in np.roll(np.arange(len(feeds)), turn):
            model.fit(
                **feeds[i][0], steps_per_epoch=n_steps, epochs=1, verbose=0, callbacks=[times]
            )
            block[i] = (
                config.batch_size
                * np.diff(edges)[:, None]
                / np.diff(np.array(times.ends)[edges], axis=0)
            ).T
        rates.append(block)
    if config.task == "train" and not config.processes:
        fetch(feeds[0][0], config)  # the memory of a whole epoch
    return np.concatenate(rates, axis=2).transpose(1, 2, 0).tolist(), n_clusters


def fetch(feed: dict[str, Any], config: ThroughputConfig) -> int:
    """Fetch an epoch without a network, or as much of it as `max_seconds` allow; number of
    clusters.
    """
    end, n_clusters = time.perf_counter() + config.max_seconds, 0
    for labels in _labels_of(feed, config):
        n_clusters += len(labels)
        if time.perf_counter() > end:
            break
    return n_clusters


def _labels_of(feed: dict[str, Any], config: ThroughputConfig) -> Iterator[Any]:
    """The labels of each batch, which is made as a whole."""
    data = feed["x"]
    if isinstance(data, keras.utils.PyDataset):
        data.on_epoch_end()  # the next order
        yield from (data[i][1] for i in range(len(data)))
    elif isinstance(data, dict):
        order = np.random.default_rng(config.seed).permutation(len(feed["y"]))
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            _ = {name: array[rows] for name, array in data.items()}
            yield feed["y"][rows]
    else:
        yield from (labels for _, labels in data)


def feed_alone(config: ThroughputConfig) -> tuple[list[list[list[float]]], int]:
    """Rates of whole epochs without a network; as `training.fit`."""
    feed, n_clusters = open_feed(
        config.feeds[0], config, config.kind or MODEL_KINDS[config.network]
    )
    rates = []
    for turn in range(config.n_rounds + 1):
        clock, processor = time.perf_counter(), time.process_time()
        n_fetched = fetch(feed, config)
        if turn:  # the first one compiles
            rates.append(
                [
                    n_fetched / (time.perf_counter() - clock),
                    n_fetched / (time.process_time() - processor),
                ]
            )
    return np.array(rates).T[:, :, None].tolist(), n_clusters


def main(text: str, answer: str) -> None:
    """Measure what the configuration says, write the answer."""
    fields = json.loads(text)
    config = ThroughputConfig(
        **fields | {"feeds": tuple(fields["feeds"]), "paths": tuple(fields["paths"])}
    )
    if config.processes:
        multiprocessing.set_start_method("spawn")
    watch = MemoryWatch()
    watch.start()
    (rates, processor_rates), n_clusters = (
        feed_alone(config) if config.task == "feed" else train(config)
    )
    found = {
        "n_clusters": n_clusters,
        "rates": rates,
        "processor_rates": processor_rates,
        **watch.stop(),
    }
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
