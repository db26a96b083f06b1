"""Clusters fed a second of processor time on one core over the cache and over ROOT, and the share
of it that the images alone would take.
"""

import time

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.clouds import cluster_clouds
from pfcalib.geometry import BARREL
from pfcalib.samples.maps import open_cache
from pfcalib.samples.read import read_sample
from pfcalib.samples.write import SampleWriter
from pfcalib.training.cloudfit import CloudData, CloudStream
from pfcalib.training.stream import ClusterStream

pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Fifty thousand clusters of 33 cells in baskets of five thousand."""
    sample, path = (
        make_sample(np.random.default_rng(1), 50_000, BARREL, max_cells=200),
        tmp_path_factory.mktemp("bench") / "bench.root",
    )
    with SampleWriter(path, sample.geo, {}, chunk=5000) as writer:
        for part in (sample[first : first + 5000] for first in range(0, len(sample), 5000)):
            writer.extend(part.scalars, part.offsets, part.cells)
    return path


def one_epoch(stream):
    """All batches, in their order."""
    for i in range(len(stream)):
        stream[i]


def images_alone(stream, path):
    """Processor seconds to fill the images of an epoch with cells that are in memory."""
    cells = open_cache(path)
    in_memory = cells.offsets.copy(), cells.cell.copy(), cells.energy.copy()
    batches = np.array_split(stream._order, len(stream))
    start = time.process_time()
    for chosen in batches:
        pixels = np.empty((len(chosen), stream._window.n_pixels), dtype=np.float32)
        centre, norm = (
            stream._centre[chosen].astype(np.int64),
            stream._norm[chosen].astype(np.float64),
        )
        stream._window.fill(
            pixels, np.arange(len(chosen)), stream.rows[chosen], *in_memory, centre, norm
        )
    return time.process_time() - start


@pytest.mark.parametrize("kind", ["flat", "layers", "stacks"])
@pytest.mark.parametrize("source", ["cache", "root"])
def test_an_epoch_at_batch_256(benchmark, path, source, kind):
    stream = ClusterStream(
        path, source=source, pool_size=10_000, kind=kind, split="all", balance=None
    )
    benchmark.pedantic(one_epoch, (stream,), setup=stream.on_epoch_end, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        images_alone(stream, path)  # compiles
        median = benchmark.stats.stats.median
        benchmark.extra_info["clusters_per_second"] = stream.n_clusters / median
        benchmark.extra_info["share_of_images_alone"] = images_alone(stream, path) / median


def test_an_epoch_of_clouds_at_batch_256(benchmark, path):
    """Beside the images above: points of about the same number in a batch."""
    clouds = cluster_clouds(read_sample(path))
    data = CloudData(clouds, np.zeros((clouds.n_clouds, 1), dtype=np.float32))
    stream = CloudStream(data, layout="cells", n_points=128, batch_size=256, shuffle=True)
    benchmark.pedantic(one_epoch, (stream,), setup=stream.on_epoch_end, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        benchmark.extra_info["clusters_per_second"] = stream.n_clusters / median


def test_the_first_opening_builds_the_cache(benchmark, path, tmp_path):
    folders = (tmp_path / f"cache{i}" for i in range(10))
    cache = benchmark.pedantic(
        lambda: open_cache(path, cache_dir=next(folders)), rounds=3, warmup_rounds=1
    )
    assert cache.n_clusters == 50_000
    if benchmark.stats is not None:
        benchmark.extra_info["clusters_per_second"] = (
            cache.n_clusters / benchmark.stats.stats.median
        )


def test_what_a_random_read_from_root_would_cost(benchmark, path, rng):
    """Batches far apart from each other: the reason for the pool."""
    stream = ClusterStream(
        path, source="root", pool_size=1, split="all", balance=None, shuffle=False
    )
    batches = rng.permutation(len(stream))[:10]
    inputs, _ = benchmark.pedantic(
        lambda: [stream[int(i)] for i in batches][-1], rounds=2, warmup_rounds=1
    )
    assert np.isfinite(inputs["pixels"]).all()
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_batch"] = (
            1e3 * benchmark.stats.stats.median / len(batches)
        )
