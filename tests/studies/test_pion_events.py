"""Events gathered from clusters, means in bins, and clusters of noise against what Gaussian noise
implies.
"""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample
from studies import pion_events as events

from pfcalib.columns import LAYER_NAMES
from pfcalib.geometry import WINDOW
from pfcalib.simulation.digitise import noise_sigma


def test_an_event_sums_its_clusters(rng):
    sample = make_sample(rng, 20, clusters_per_event=2)
    found = events.gather_events(sample, LAYER_NAMES)
    pairs = sample["clusterE"].astype(float).reshape(10, 2)
    assert found.e_clusters == pytest.approx(pairs.sum(axis=1))
    assert found.e_leading == pytest.approx(pairs.max(axis=1))
    assert found.n_clusters.tolist() == [2] * 10
    assert found.is_em.tolist() == sample.is_em[::2].tolist()
    assert found.e_layers.sum(axis=1) == pytest.approx(found.e_clusters, rel=1e-5)
    assert found.deposited == pytest.approx(
        sample["cluster_ENG_CALIB_TOT"].astype(float).reshape(10, 2).sum(axis=1)
    )


def test_the_error_of_a_mean_is_the_standard_one(rng):
    values, x = rng.normal(3.0, 1.0, 500), rng.uniform(0.0, 1.0, 500)
    average, error = events.mean_in_bins(values, x, [0.0, 1.0, 2.0])
    assert average[0] == pytest.approx(values.mean())
    assert error[0] == pytest.approx(values.std(ddof=1) / np.sqrt(500))
    assert np.isnan(average[1])
    assert np.isnan(error[1])


def test_species_are_kept_apart_and_nan_is_left_out(rng):
    found = events.gather_events(make_sample(rng, 400, clusters_per_event=1), LAYER_NAMES)
    values = np.where(found.is_em, 1.0, 2.0)
    values[0] = np.nan
    means = events.species_means(np.column_stack([values, 3.0 * values]), found, [0.0, 1e6])
    assert means["pi0"][0].tolist() == [[1.0, 3.0]]
    assert means["pic"][0].tolist() == [[2.0, 6.0]]


def test_the_error_of_a_median_is_its_spread(rng):
    medians, errors = np.array(
        [events.median_error(sample) for sample in rng.normal(size=(1000, 201))]
    ).T
    assert errors.mean() == pytest.approx(medians.std(), rel=0.1)
    with pytest.raises(ValueError, match="at least one"):
        events.median_error([])


def test_a_cell_in_three_clusters_is_noticed(rng):
    sample = make_sample(rng, 6, clusters_per_event=3)
    sample.cells["cluster_cell_ID"][sample.offsets[:3]] = 7
    assert events.clusters_per_cell(sample) == 3


def test_noise_clusters_come_at_the_rate_that_gaussian_noise_implies(rng):
    counts = events.count_noise_clusters(
        WINDOW, noise_sigma(WINDOW), rng, n_events=3000, chunk=1000
    )
    expected = events.expected_noise_clusters(WINDOW)
    assert counts.shape == (3000,)
    assert expected == pytest.approx(1000 * 6.334e-5, rel=0.01)
    assert abs(counts.mean() - expected) < 4.0 * np.sqrt(expected / 3000)


def test_a_photon_in_the_window_has_a_leading_cluster_around_it(rng):
    sigma = noise_sigma(WINDOW)
    event = events.simulate_event("gamma", 20.0, WINDOW, sigma, rng)
    middle = int(WINDOW.locate(2, 0.03, 0.03))
    assert event.owner[middle] == 0
    assert event.energy[event.owner == 0].sum() == pytest.approx(20.0, rel=0.2)


def test_the_time_of_clustering_is_positive(rng):
    time = events.time_clustering(
        rng.standard_normal((20, WINDOW.n_cells)), np.ones(WINDOW.n_cells), WINDOW
    )
    assert time.value >= 0.0


def test_cells_are_shared_and_their_weights_add_up_to_one(rng):
    shared = events.check_sharing("pi+", 100.0, WINDOW, noise_sigma(WINDOW), rng, n_events=30)
    assert shared.n_shared > 0
    assert shared.difference < 1e-12
