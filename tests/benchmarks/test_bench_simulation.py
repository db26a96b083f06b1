"""GeV per second of the showers on one core, against Geant4's, and the time from particles to
clusters.
"""

import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.produce import ProduceConfig, produce_chunk
from pfcalib.simulation.showers import simulate_showers

GEANT4 = 33.0  # GeV/s on one core of the same kind, full simulation of the reference slice


@pytest.mark.parametrize("name", ["pi0", "pi+"])
def test_showers_of_a_gun(name, benchmark):
    rng = np.random.default_rng(1)
    gun = simulate_gun(name, 500, rng, energy=(0.5, 100.0), eta=(-0.05, 0.05), phi=(-0.05, 0.05))
    hits = benchmark(simulate_showers, gun, WINDOW, rng)
    np.testing.assert_allclose(hits.e_total, gun.energy)
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        speed = gun.energy.sum() / benchmark.stats.stats.median
        benchmark.extra_info["gev_per_second"] = speed
        benchmark.extra_info["times_faster_than_geant4"] = speed / GEANT4


@pytest.mark.parametrize("grid", ["window", "barrel"])
def test_a_chunk_from_particles_to_clusters(grid, benchmark):
    config = ProduceConfig(
        n_events=250, chunk=250, grid=grid, eta_max=0.05 if grid == "window" else 0.7
    )
    scalars, _, _ = benchmark(produce_chunk, config, 0)
    assert len(np.unique(scalars["eventNumber"])) > 200
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds_per_event"] = (
            1e3 * benchmark.stats.stats.median / config.n_events
        )
