"""Calibration truth: every GeV that was shot is in one cluster's account, once."""

import numpy as np
import pytest

from pfcalib.clustering.deposits import cluster_truth
from pfcalib.clustering.topo import Clusters, find_clusters
from pfcalib.geometry import WINDOW
from pfcalib.simulation.digitise import Hits, digitise, noise_sigma
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.showers import simulate_showers

ACCOUNT = ("cluster_ENG_CALIB_TOT", "cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT")
CELLS = tuple(f"cluster_cell_hitsE_{name}" for name in ("EM", "nonEM", "Invisible", "Escaped"))


def by_hand():
    """Two events: cells 1, 2, 5 and 7 with truth; cell 7 of the first event is in no cluster, the
    second has no hit in its cluster.
    """
    nothing = np.zeros(2)
    hits = Hits(
        offsets=np.array([0, 4, 5]),
        cell=np.array([1, 2, 5, 7, 3], np.int32),
        signal=np.zeros(5),
        em=np.array([1.0, 2.0, 0.0, 0.5, 1.0]),
        non_em=np.array([0.0, 0.0, 3.0, 0.5, 0.0]),
        invisible=np.array([0.0, 0.0, 1.0, 1.0, 0.0]),
        escaped=np.array([0.0, 1.0, 0.0, 0.0, 0.0]),
        e_dead=np.array([0.8, 0.3]),
        e_leak=nothing,
        e_total=nothing,
        e_pi0=nothing,
    )
    clusters = Clusters(
        event=np.array([0, 0, 1]),
        offsets=np.array([0, 3, 5, 6]),
        cell=np.array([1, 2, 9, 2, 5, 4], np.int32),
        weight=np.array([1.0, 0.25, 1.0, 0.75, 1.0, 1.0]),
    )
    return clusters, hits


def test_the_account_of_two_clusters_is_that_done_by_hand():
    """Cell 2 (3 GeV) is shared 1 to 3: 1 + 0.75 and 2.25 + 4 GeV; the 2 GeV outside and 0.8 GeV
    dead go 1.75 to 6.25.
    """
    scalars, cells = cluster_truth(*by_hand())
    assert scalars["cluster_ENG_CALIB_TOT"].tolist() == [1.75, 6.25, 0.0]
    assert scalars["cluster_ENG_CALIB_EM"].tolist() == [1.5, 1.5, 0.0]
    np.testing.assert_allclose(
        scalars["cluster_ENG_CALIB_OUT_T"], [2.0 * 1.75 / 8.0, 2.0 * 6.25 / 8.0, 0.0]
    )
    np.testing.assert_allclose(
        scalars["cluster_ENG_CALIB_DEAD_TOT"], [0.8 * 1.75 / 8.0, 0.8 * 6.25 / 8.0, 0.0]
    )
    assert cells["cluster_cell_hitsE_EM"].tolist() == [1.0, 0.5, 0.0, 1.5, 0.0, 0.0]
    assert cells["cluster_cell_hitsE_nonEM"].tolist() == [0.0, 0.0, 0.0, 0.0, 3.0, 0.0]
    assert cells["cluster_cell_hitsE_Escaped"].tolist() == [0.0, 0.25, 0.0, 0.75, 0.0, 0.0]


def test_cells_without_a_hit_have_no_truth_and_no_hits_give_no_truth():
    clusters, hits = by_hand()
    bare = Hits(
        np.zeros(3, np.int64), np.zeros(0, np.int32), *[np.zeros(0)] * 5, *[np.zeros(2)] * 4
    )
    scalars, cells = cluster_truth(clusters, bare)
    assert not any(np.any(values) for values in (*scalars.values(), *cells.values()))
    none = Clusters(
        np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0)
    )
    assert all(len(values) == 0 for part in cluster_truth(none, hits) for values in part.values())


@pytest.mark.parametrize("name", ["pi0", "pi+", "gamma"])
def test_the_clusters_of_an_event_account_for_all_energy_that_was_shot(name, rng):
    """Cells of clusters + cells of none + dead material + leakage = energy shot, for every event
    with a deposit in a cluster.
    """
    particles = simulate_gun(name, 150, rng, energy=(0.2, 200.0), eta=(-0.1, 0.1), phi=(-0.1, 0.1))
    hits = simulate_showers(particles, WINDOW, rng)
    sigma = noise_sigma(WINDOW)
    clusters = find_clusters(digitise(hits, WINDOW, sigma, rng), sigma, WINDOW)
    scalars, cells = cluster_truth(clusters, hits)
    found = sum(np.bincount(clusters.event, scalars[name], 150) for name in ACCOUNT) + hits.e_leak
    clustered = np.bincount(clusters.event, scalars["cluster_ENG_CALIB_TOT"], 150) > 0.0
    assert clustered.mean() > 0.8
    np.testing.assert_allclose(found[clustered], hits.e_total[clustered], rtol=1e-6)
    assert not np.any(
        np.bincount(clusters.event, scalars["cluster_ENG_CALIB_OUT_T"], 150)[~clustered]
    )
    owner = np.repeat(np.arange(len(clusters.event)), np.diff(clusters.offsets))
    per_cell = np.bincount(owner, sum(cells[name] for name in CELLS), len(clusters.event))
    np.testing.assert_allclose(per_cell, scalars["cluster_ENG_CALIB_TOT"], rtol=1e-9, atol=1e-12)
