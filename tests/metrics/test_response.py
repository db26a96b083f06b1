"""The estimators of response are held against distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.metrics.response import (
    bootstrap_quantiles,
    energy_edges,
    resolution,
    response,
    response_curve,
)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.3])
def test_resolution_of_a_gaussian_is_its_width(width, rng):
    assert resolution(rng.normal(1.0, width, 200_000)) == pytest.approx(width, rel=0.02)


def test_resolution_does_not_depend_on_the_scale(rng):
    ratio = rng.normal(1.0, 0.1, 10_000)
    assert resolution(3.0 * ratio) == pytest.approx(resolution(ratio), rel=1e-12)


def test_errors_cover_the_truth(rng):
    """In 68 % of pseudo-experiments the true median and width lie within one quoted error."""
    n_experiments, n = 400, 400
    width = 0.1 * 0.994458  # half of the central 68 % of a Gaussian of width 0.1
    e_true = np.repeat(np.arange(1.5, n_experiments + 1), n)
    curve = response_curve(
        e_true * rng.normal(1.0, 0.1, e_true.size), e_true, np.arange(1, n_experiments + 2), rng=rng
    )
    assert np.mean(np.abs(curve.median - 1.0) < curve.median_error) == pytest.approx(0.68, abs=0.07)
    assert np.mean(np.abs(curve.resolution - width) < curve.resolution_error) == pytest.approx(
        0.68, abs=0.07
    )


def test_the_short_cut_to_bootstrap_quantiles_has_the_spread_of_real_resamples(rng):
    ordered = np.sort(rng.exponential(size=300))
    quantiles = np.array([0.16, 0.5, 0.84])
    real = np.quantile(rng.choice(ordered, (4000, ordered.size)), quantiles, axis=1).T
    quick = bootstrap_quantiles(ordered, quantiles, n_bootstrap=4000, rng=rng)
    np.testing.assert_allclose(quick.mean(axis=0), real.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(np.cov(quick.T), np.cov(real.T), rtol=0.12)


def test_a_curve_finds_the_median_and_the_resolution_of_every_bin(rng):
    e_true = 10.0 ** rng.uniform(0, 2, 200_000)
    width = np.where(e_true < 10.0, 0.2, 0.05)
    scale = np.where(e_true < 10.0, 0.9, 1.0)
    curve = response_curve(
        e_true * scale * (1.0 + width * rng.normal(size=e_true.size)), e_true, [1, 10, 100], rng=rng
    )
    np.testing.assert_allclose(curve.median, [0.9, 1.0], rtol=0.01)
    np.testing.assert_allclose(curve.resolution, [0.2, 0.05], rtol=0.02)
    np.testing.assert_allclose(curve.centres, [np.sqrt(10.0), np.sqrt(1000.0)])
    assert curve.n_clusters.sum() == e_true.size


def test_the_bins_of_a_curve_are_those_of_a_plain_loop(rng):
    e_true = rng.uniform(0, 5, 3000) + 1e-3
    e_pred = e_true * rng.normal(1, 0.2, e_true.size)
    edges = [1.0, 2.0, 4.0]
    curve = response_curve(e_pred, e_true, edges, rng=rng)
    for b in range(2):
        inside = (e_true >= edges[b]) & (e_true < edges[b + 1])
        assert curve.n_clusters[b] == inside.sum()
        assert curve.median[b] == np.median(e_pred[inside] / e_true[inside])
        assert curve.resolution[b] == pytest.approx(
            resolution(e_pred[inside] / e_true[inside]), rel=1e-12
        )


def test_a_bin_with_too_few_clusters_is_nan_not_a_number(rng):
    e_true = np.concatenate([np.full(60, 1.5), np.full(40, 2.5)])
    curve = response_curve(e_true, e_true, [1, 2, 3], min_count=50, rng=rng)
    assert curve.median[0] == 1.0
    assert all(
        np.isnan(values[1])
        for values in (curve.median, curve.median_error, curve.resolution, curve.resolution_error)
    )
    assert curve.n_clusters.tolist() == [60, 40]


def test_the_same_seed_gives_the_same_errors():
    e_true = np.random.default_rng(3).uniform(1, 2, 500)
    first, second = (
        response_curve(e_true**1.1, e_true, [1, 2], rng=np.random.default_rng(7)) for _ in range(2)
    )
    assert first.median_error[0] == second.median_error[0] > 0


def test_truth_that_is_not_positive_is_refused_with_its_index(rng):
    with pytest.raises(ValueError, match=r"e_true\[3\]"):
        response_curve([1, 1, 1, 1], [1, 2, 3, -4], [0.5, 5], rng=rng)


def test_a_prediction_that_is_not_finite_is_refused_with_its_index():
    with pytest.raises(ValueError, match=r"e_pred\[1\]"):
        response([1.0, np.nan], [1.0, 1.0])


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shape"):
        response([1.0], [1.0, 1.0])


@pytest.mark.parametrize("edges", [[1.0], [2.0, 1.0], [1.0, 1.0]])
def test_edges_that_do_not_increase_are_refused(edges, rng):
    with pytest.raises(ValueError, match="edges"):
        response_curve([1.0], [1.0], edges, rng=rng)


def test_energy_edges_cover_the_range_on_the_public_grid():
    np.testing.assert_allclose(energy_edges(0.1, 1.0), 10.0 ** (-1 + 0.1 * np.arange(11)))
    with pytest.raises(ValueError, match="low < high"):
        energy_edges(2.0, 1.0)
