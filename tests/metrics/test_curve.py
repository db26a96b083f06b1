"""Estimates, curves and the bootstrap are held against answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.metrics.bootstrap import bootstrap, bootstrap_quantiles
from pfcalib.metrics.curve import Curve, Estimate

EDGES = np.array([0.5, 1.0, 2.0, 4.0])


def curve(*values, edges=EDGES, error=0.01):
    return Curve(edges, np.array(values, dtype=float), np.full(len(values), error))


def test_the_significance_of_a_difference_is_that_of_independent_errors():
    difference = Estimate(1.0, 0.3) - Estimate(2.5, 0.4)
    assert difference == pytest.approx((-1.5, 0.5))
    assert difference.significance == pytest.approx(-3.0)
    assert difference.p_value == pytest.approx(0.0027, abs=1e-4)


def test_trainings_are_averaged_and_their_spread_is_part_of_the_error():
    trained = [Estimate(0.90, 0.03), Estimate(0.96, 0.05), Estimate(0.93, 0.04)]
    assert Estimate.repeated(trained) == pytest.approx((0.93, np.hypot(0.04, 0.03)))
    assert Estimate.repeated(trained[:1]) == pytest.approx(trained[0])
    assert Estimate.repeated([Estimate(np.inf, np.inf), trained[0]]) == (np.inf, np.inf)


@pytest.mark.parametrize(("value", "wanted"), [(0.0, 0.0), (1.0, np.inf), (-1.0, -np.inf)])
def test_a_value_without_error_is_infinitely_significant_unless_it_is_zero(value, wanted):
    assert Estimate(value, 0.0).significance == wanted


def test_centres_are_geometric_unless_an_edge_is_not_positive():
    assert curve(1, 1, 1).centres == pytest.approx(np.sqrt([0.5, 2.0, 8.0]))
    assert curve(1, 1, edges=np.array([-1.0, 0.0, 2.0])).centres == pytest.approx([-0.5, 1.0])


def test_the_ratio_of_curves_has_the_errors_of_both():
    ratio = curve(0.1, 0.2, 0.3).ratio(curve(0.2, 0.2, np.nan))
    assert ratio.value[:2] == pytest.approx([0.5, 1.0])
    assert ratio.error[1] == pytest.approx(np.hypot(0.05, 0.05))
    assert ratio.largest() == pytest.approx((1.0, np.hypot(0.05, 0.05)))
    with pytest.raises(ValueError, match="edges"):
        curve(1, 1, 1).ratio(curve(1, 1, 1, edges=EDGES + 1.0))


def test_the_largest_value_is_looked_for_inside_the_range_only():
    assert curve(9, 2, 3).largest(1.0, 4.0) == (3.0, 0.01)
    assert np.isnan(curve(1, 2, np.nan).largest(2.0, 4.0)).all()


def test_a_bin_whose_centre_is_an_end_of_the_range_belongs_to_it():
    assert curve(9, 2, edges=np.array([-1.0, 1.0, 3.0])).largest(0.0, 2.0) == (9.0, 0.01)
    assert curve(1, 2, edges=np.array([-1.0, 1.0, 3.0])).largest(0.0, 2.0) == (2.0, 0.01)


def test_arrays_are_resampled_together(rng):
    a = rng.normal(size=500)
    drawn = bootstrap(lambda x, y: np.mean(x - y), a, a + 1.0, rng=rng, n_resamples=20)
    np.testing.assert_allclose(drawn, -1.0)


def test_the_bootstrap_has_the_spread_of_repeated_samples(rng):
    drawn = bootstrap(lambda x: np.mean(x, axis=-1), rng.normal(size=(2, 400)), rng=rng)
    assert drawn.shape == (200, 2)
    np.testing.assert_allclose(np.std(drawn, axis=0), 0.05, rtol=0.2)


def test_the_short_cut_to_quantiles_has_the_spread_of_real_resamples(rng):
    ordered = np.sort(rng.exponential(size=300))
    quantiles = np.array([0.16, 0.5, 0.84])
    real = bootstrap(lambda x: np.quantile(x, quantiles), ordered, rng=rng, n_resamples=4000)
    quick = bootstrap_quantiles(ordered, quantiles, n_resamples=4000, rng=rng)
    np.testing.assert_allclose(quick.mean(axis=0), real.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(np.cov(quick.T), np.cov(real.T), rtol=0.12)
