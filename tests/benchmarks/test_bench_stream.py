"""Images and clusters fed a second of processor time on one core."""

import time

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.images import build_images
from pfcalib.geometry import BARREL
from pfcalib.samples.write import write_sample
from pfcalib.stream import ClusterStream

pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(scope="module")
def sample():
    return make_sample(np.random.default_rng(1), 50_000, BARREL, max_cells=200)  # 33 cells a cluster, as real ones


def rate(benchmark, n_clusters):
    return n_clusters / benchmark.stats.stats.median


def test_images_a_second(benchmark, sample):
    """Two thousand clusters at a time, as memory is bounded."""
    parts = [sample[first : first + 2000] for first in range(0, len(sample), 2000)]

    def images():
        for part in parts:
            build_images(part)

    benchmark.pedantic(images, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        benchmark.extra_info["images_per_second"] = rate(benchmark, len(sample))


@pytest.mark.parametrize("kind", ["flat", "layers", "stacks"])
def test_clusters_fed_a_second_at_batch_256(benchmark, sample, tmp_path, kind):
    write_sample(tmp_path / "bench.root", sample)
    stream = ClusterStream(tmp_path / "bench.root", kind=kind, split="all", balance=None)

    def epoch():
        for i in range(len(stream)):
            stream[i]

    benchmark.pedantic(epoch, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["clusters_per_second"] = rate(benchmark, stream.n_clusters)


def test_the_first_opening_builds_the_cache(benchmark, sample, tmp_path):
    write_sample(tmp_path / "cold.root", sample)
    folders = (tmp_path / f"cache{i}" for i in range(10))
    stream = benchmark.pedantic(
        lambda: ClusterStream(tmp_path / "cold.root", split="all", balance=None, cache_dir=next(folders)), rounds=3, warmup_rounds=1
    )
    assert stream.n_clusters > 0
