"""Images built a second of processor time on one core, and how many times faster than one cluster
at a time.
"""

import time

import numpy as np
import pytest
from factories import make_sample

from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES, build_images
from pfcalib.features.inputs import build_inputs
from pfcalib.geometry import BARREL

pytestmark = pytest.mark.benchmark(timer=time.process_time)

PART = 2000  # clusters at a time, as memory is bounded


@pytest.fixture(scope="module")
def sample():
    # 33 cells a cluster
    return make_sample(np.random.default_rng(1), 20_000, BARREL, max_cells=200)


def all_images(sample):
    """Images of all clusters, of which those of the last part are kept."""
    for first in range(0, len(sample), PART):
        images = build_images(sample[first : first + PART])
    return images


def test_images_of_many_clusters(benchmark, sample):
    singles = 100
    build_images(sample[:1])
    start = time.process_time()
    for i in range(singles):
        alone = build_images(sample[len(sample) - singles + i : len(sample) - singles + i + 1])
    slow = (time.process_time() - start) / singles
    images = benchmark.pedantic(all_images, (sample,), rounds=5, warmup_rounds=1)
    for name in IMAGE_LAYERS:
        np.testing.assert_array_equal(images[name][-1], alone[name][0])
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        per_cluster = benchmark.stats.stats.median / len(sample)
        benchmark.extra_info["images_per_second"] = 1.0 / per_cluster
        benchmark.extra_info["times_faster_than_one_at_a_time"] = slow / per_cluster


@pytest.mark.parametrize("kind", ["flat", "layers", "stacks"])
def test_inputs_of_images(benchmark, kind):
    images = {name: np.ones((PART, *IMAGE_SHAPES[name]), dtype=np.float32) for name in IMAGE_LAYERS}
    inputs = benchmark(build_inputs, images, kind)
    assert all(len(array) == PART for array in inputs.values())
    if benchmark.stats is not None:
        benchmark.extra_info["microseconds_per_cluster"] = 1e6 * benchmark.stats.stats.median / PART
