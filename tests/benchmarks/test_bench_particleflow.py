"""Time an event of its simulation, of particle flow and of its parts, and time a cell, without
pile-up and at 200 interactions a crossing.
"""

import time

import numpy as np
import pytest

from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.calibration.rings import ring_cells
from pfcalib.particleflow.deposit import table_deposit
from pfcalib.particleflow.files import iterate_events, read_cells
from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.match import FlowConfig, match
from pfcalib.particleflow.methods import build_method
from pfcalib.simulation.collisions import CollisionConfig
from pfcalib.simulation.crossings import EventsConfig, produce_events
from pfcalib.simulation.pileup import cached_pool

N_EVENTS, N_POOL = 20, 200


@pytest.fixture(scope="module", params=[0, 40, 200])
def events(request, tmp_path_factory):
    """Pile-up, events and cells, and seconds an event that the simulation took."""
    folder = tmp_path_factory.mktemp("events")
    config = EventsConfig(
        n_events=N_EVENTS, mu=float(request.param), n_pool=N_POOL, chunk=N_EVENTS,
        collisions=CollisionConfig(pt_hat=(30.0, 60.0)),
    )  # fmt: skip
    cached_pool(config.pool_config, cache_dir=folder)
    produce_events(folder / "warm.root", config, cache_dir=folder)
    start = time.perf_counter()
    path = produce_events(folder / "events.root", config, cache_dir=folder)
    seconds = (time.perf_counter() - start) / N_EVENTS
    return request.param, list(iterate_events(path)), ring_cells(read_cells(path)), seconds


def test_rings(events, benchmark):
    mu, batch, cells, simulation = events
    method, find = build_method("rings"), table_deposit(EoverPTable.load())
    run_flow(batch[0], cells, method)
    found = benchmark(lambda: [run_flow(event, cells, method) for event in batch])
    assert all(np.isfinite(objects.neutrals.energy).all() for objects in found)
    n_cells = np.mean([len(event.clusters.cell) for event in batch])
    benchmark.extra_info |= {"mu": mu, "cells_per_event": n_cells}
    benchmark.extra_info |= {"milliseconds_of_simulation_per_event": 1e3 * simulation}
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        per_event = benchmark.stats.stats.median / len(batch)
        start = time.perf_counter()
        for event in batch:
            match(event, cells, find, FlowConfig())
        matching = (time.perf_counter() - start) / len(batch)
        benchmark.extra_info |= {
            "milliseconds_per_event": 1e3 * per_event,
            "nanoseconds_per_cell": 1e9 * per_event / n_cells,
            "share_of_matching": matching / per_event,
        }
