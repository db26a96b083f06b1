"""Time per batch of clustering and of moments, and how many times faster than the reference it
is.
"""

import time

import numpy as np
import pytest

from pfcalib.clustering.moments import cluster_moments
from pfcalib.clustering.topo import TopoConfig, find_clusters
from pfcalib.geometry import BARREL, WINDOW
from tests.clustering.reference import reference_clusters
from tests.clustering.toys import noise, simulate_event

CASES = ((WINDOW, 200, 1), (BARREL, 10, 0), (BARREL, 10, 10))  # grid, events, showers an event


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name}-{case[2]}-showers")
def batch(request):
    """Grid, energies and noise of a batch."""
    grid, n_events, n_showers = request.param
    rng = np.random.default_rng(1)
    return (
        grid,
        np.array([simulate_event(grid, n_showers, rng) for _ in range(n_events)]),
        noise(grid),
    )


def test_clusters_of_a_batch(batch, benchmark):
    grid, energy, sigma = batch
    # the second call finds the table of neighbours made
    reference_clusters(energy[0], sigma, grid, TopoConfig())
    start = time.perf_counter()
    expected = [len(reference_clusters(cells, sigma, grid, TopoConfig())) for cells in energy[:5]]
    slow = (time.perf_counter() - start) / len(expected)
    clusters = benchmark(find_clusters, energy, sigma, grid)
    assert np.bincount(clusters.event, minlength=5)[:5].tolist() == expected
    benchmark.extra_info["cells_per_event"] = len(clusters.cell) / len(energy)
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        per_event = benchmark.stats.stats.median / len(energy)
        benchmark.extra_info["microseconds_per_event"] = 1e6 * per_event
        benchmark.extra_info["times_faster_than_reference"] = slow / per_event


def test_clusters_of_one_event_alone(batch, benchmark):
    """What a call costs beside its share of a batch."""
    grid, energy, sigma = batch
    clusters = benchmark(find_clusters, energy[:1], sigma, grid)
    assert not clusters.event.any()
    if benchmark.stats is not None:
        start = time.perf_counter()
        find_clusters(energy, sigma, grid)
        in_batch = (time.perf_counter() - start) / len(energy)
        benchmark.extra_info["microseconds"] = 1e6 * benchmark.stats.stats.median
        benchmark.extra_info["times_its_share_of_a_batch"] = benchmark.stats.stats.median / in_batch


def test_moments_of_a_batch(batch, benchmark):
    grid, energy, sigma = batch
    clusters = find_clusters(energy, sigma, grid)
    moments = benchmark(cluster_moments, clusters, energy, sigma, grid)
    assert np.all(np.isfinite(moments["cluster_SECOND_R"]))
    if benchmark.stats is not None:
        benchmark.extra_info["microseconds_per_cluster"] = (
            1e6 * benchmark.stats.stats.median / max(len(clusters.event), 1)
        )
