"""Clusters read from files a second of processor time on one core: pfcalib's own layout, and
vectors of vectors as ROOT wrote them.
"""

import time

import numpy as np
import pytest
from factories import make_sample
from samples.real_root import write_mltree

from pfcalib.samples.read import iterate_sample
from pfcalib.samples.write import write_sample

pytestmark = pytest.mark.benchmark(timer=time.process_time)
COLUMNS = {
    "all": None,
    "cells": ["clusterE", "clusterEta", "clusterPhi", "cluster_cell_ID", "cluster_cell_E"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each layout, 17 cells a cluster, made when it is first asked for."""
    folder, paths = tmp_path_factory.mktemp("read"), {}

    def path_of(layout):
        path = folder / f"{layout}.root"
        if layout not in paths and layout == "MLTree":
            write_mltree(path, n_events=5000)
        elif layout not in paths:
            write_sample(path, make_sample(np.random.default_rng(1), 50_000))
        return paths.setdefault(layout, path)

    return path_of


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("layout", ["pfcalib", "MLTree"])
def test_clusters_read_a_second(benchmark, files, layout, columns):
    path = files(layout)

    def read():
        return sum(len(chunk) for chunk in iterate_sample(path, columns=COLUMNS[columns]))

    n_clusters = benchmark.pedantic(read, rounds=5, warmup_rounds=1)
    assert n_clusters > 9000
    if benchmark.stats is not None:  # none where benchmarks are run as tests only
        benchmark.extra_info["clusters_per_second"] = n_clusters / benchmark.stats.stats.median
