"""The feeds whose speed is compared: each gives what `keras.Model.fit` takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import uproot
from numpy.typing import NDArray

from pfcalib.features.images import build_images
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs
from pfcalib.samples.read import open_sample, read_geo
from pfcalib.samples.schema import CLUSTER_TREE, Sample, is_em
from pfcalib.samples.select import SelectionConfig
from pfcalib.training.stream import ClusterStream, one_hot
from studies.throughput import ThroughputConfig

EVERYTHING = SelectionConfig(min_cluster_e=1e-6, max_abs_eta=100.0)
_BRANCHES = (
    "clusterE",
    "clusterEta",
    "clusterPhi",
    "truthPdgId",
    "cluster_cell_ID",
    "cluster_cell_E",
)

Arrays = tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]


def open_stream(config: ThroughputConfig, kind: str, *, source: str) -> ClusterStream:
    """A stream of all clusters of the files, neither split nor balanced."""
    options: dict[str, Any] = {
        "workers": config.workers,
        "use_multiprocessing": config.processes,
        "cache_dir": config.cache_dir,
    }
    options |= {
        "split": "all",
        "balance": None,
        "select": EVERYTHING,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    return ClusterStream(
        config.paths, source=source, kind=kind, pool_size=config.pool_size, **options
    )  # type: ignore[arg-type]


def load_arrays(stream: ClusterStream) -> Arrays:
    """All inputs and labels of a stream in memory, in the order of the files."""
    inputs = {
        name: np.empty((stream.n_clusters, *shape), dtype=np.float32)
        for name, shape in stream.input_shapes.items()
    }
    for start in range(0, stream.n_clusters, 4096):
        rows = np.arange(start, min(start + 4096, stream.n_clusters))
        for name, array in stream.batch(rows)[0].items():
            inputs[name][rows] = array
    return inputs, stream.labels


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
    """Arguments of `fit` for a feed, and the number of its clusters."""
    if name in ("root", "cache"):
        stream = open_stream(config, kind, source=name)
        return {"x": stream, "shuffle": False}, stream.n_clusters
    stream = open_stream(config, kind, source="cache")
    if name == "memory":
        inputs, labels = load_arrays(stream)
        return {
            "x": inputs,
            "y": labels,
            "batch_size": config.batch_size,
            "shuffle": True,
        }, stream.n_clusters
    if name == "per_sample":
        return {"x": one_at_a_time(config, kind)}, stream.n_clusters
    return {"x": tf_pipeline(stream, config)}, stream.n_clusters
