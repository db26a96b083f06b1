"""Predicted uncertainties are held against distributions that are right, too narrow or too wide by
construction.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from pfcalib.metrics import uncertainty
from pfcalib.metrics.uncertainty import Mixture, mixture, mixture_quantiles


def _mixtures(rng: np.random.Generator, n: int, k: int = 3) -> Mixture:
    return mixture(
        rng.dirichlet(np.ones(k), n), rng.normal(1.0, 1.0, (n, k)), rng.uniform(0.02, 0.5, (n, k))
    )


def _draw(predicted: Mixture, rng: np.random.Generator) -> np.ndarray:
    """One true y of each cluster, component by component."""
    rows = np.arange(len(predicted.weights))
    chosen = (rng.random((rows.size, 1)) > np.cumsum(predicted.weights, axis=1)[:, :-1]).sum(axis=1)
    return rng.normal(predicted.means[rows, chosen], predicted.sigmas[rows, chosen])


def test_the_cdf_of_one_component_is_that_of_a_gaussian(rng):
    y = rng.normal(size=50)
    single = mixture(np.ones((50, 1)), np.full((50, 1), 0.3), np.full((50, 1), 0.7))
    np.testing.assert_allclose(single.cdf(y), norm.cdf(y, 0.3, 0.7), rtol=1e-12)
    np.testing.assert_allclose(single.cdf(y, sign=-1.0), norm.sf(y, 0.3, 0.7), rtol=1e-12)


def test_quantiles_are_the_inverse_of_the_cdf(rng):
    predicted, p = _mixtures(rng, 2000), np.array([0.001, 0.16, 0.5, 0.84, 0.999])
    np.testing.assert_allclose(
        predicted.cdf(mixture_quantiles(predicted, p)), np.tile(p, (2000, 1)), atol=1e-10
    )


def test_quantiles_are_found_across_a_gap_without_density():
    apart = mixture(
        [[0.5, 0.5], [0.3, 0.7]], [[-50.0, 50.0], [-50.0, 50.0]], [[0.01, 0.01], [0.01, 0.01]]
    )
    found = mixture_quantiles(apart, [0.25, 0.75])
    assert found[0] == pytest.approx([-50.0, 50.0], abs=0.01)
    assert apart.cdf(found)[1] == pytest.approx([0.25, 0.75])


def test_the_median_of_a_symmetric_mixture_is_its_centre():
    predicted = mixture([[0.5, 0.5]], [[0.0, 2.0]], [[0.3, 0.3]])
    assert mixture_quantiles(predicted, [0.5]) == pytest.approx(1.0)


def test_a_true_mixture_gives_a_uniform_pit_and_unit_pulls(rng):
    predicted = _mixtures(rng, 20_000)
    y = _draw(predicted, rng)
    pulls = uncertainty.pull(predicted, y)
    assert (pulls.mean(), pulls.std()) == pytest.approx((0.0, 1.0), abs=0.02)
    centre, width = uncertainty.pull_shape(pulls, rng=rng)
    assert abs(centre.value) < 4.0 * centre.error
    assert abs(width.value - 0.994458) < 4.0 * width.error
    pit = np.histogram(predicted.cdf(y), 10, (0.0, 1.0))[0] / len(y)
    assert pit == pytest.approx(0.1, abs=4.0 * np.sqrt(0.09 / len(y)))


def test_the_pull_of_a_gaussian_is_the_distance_in_sigmas_even_far_out():
    single = mixture([[1.0]] * 4, [[1.0]] * 4, [[0.5]] * 4)
    assert uncertainty.pull(single, [1.0, -9.0, 11.0, 1e6]) == pytest.approx(
        [0.0, -20.0, 20.0, 37.05], abs=0.01
    )


@pytest.mark.parametrize(
    ("weights", "sigmas", "message"),
    [
        ([[0.5, 0.5], [0.9, 0.2]], [[1.0, 1.0], [1.0, 1.0]], "cluster 1"),
        ([[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 1.0]], "cluster 0"),
        ([[0.5, 0.5], [0.5, np.nan]], [[1.0, 1.0], [1.0, 1.0]], "cluster 1"),
        ([[1.0], [1.0]], [[1.0, 1.0], [1.0, 1.0]], "shape"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, sigmas, message):
    with pytest.raises(ValueError, match=message):
        mixture(weights, np.zeros((2, 2)), sigmas)


@pytest.mark.parametrize("p", [0.0, 1.0, np.nan])
def test_quantiles_at_the_ends_are_refused(p):
    with pytest.raises(ValueError, match="probabilities"):
        mixture_quantiles(mixture([[1.0]], [[0.0]], [[1.0]]), [p])
