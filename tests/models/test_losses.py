"""Losses are their formulas, and are lowest where they should be."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from pfcalib.errors import ConfigError
from pfcalib.models.heads import HEADS, LEVELS
from pfcalib.models.losses import build_loss, class_and_energy, huber, mixture, pinball

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2


def value(loss, y_true, y_pred):
    return keras.ops.convert_to_numpy(
        loss(
            keras.ops.convert_to_tensor(y_true, "float32"),
            keras.ops.convert_to_tensor(y_pred, "float32"),
        )
    )


def test_the_pinball_loss_is_its_formula(rng):
    y, q = rng.normal(size=(40, 1)), rng.normal(size=(40, len(LEVELS)))
    d = y - q
    wanted = sum(
        np.where(d[:, i] >= 0.0, level * d[:, i], (level - 1.0) * d[:, i])
        for i, level in enumerate(LEVELS)
    )
    np.testing.assert_allclose(value(pinball, y, q), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("place", range(len(LEVELS)))
def test_the_pinball_loss_is_lowest_at_the_quantile(place, rng):
    y = rng.exponential(size=(2001, 1))
    best = np.quantile(y, LEVELS, method="inverted_cdf")

    def mean_loss(shift):
        q = best.copy()
        q[place] += shift
        return value(pinball, y, np.tile(q, (len(y), 1))).astype(np.float64).mean()

    assert mean_loss(0.0) <= min(mean_loss(-0.05), mean_loss(0.05))


def test_the_loss_of_a_mixture_is_the_negative_logarithm_of_its_density(rng):
    weights, means, sigmas = (
        rng.dirichlet(np.ones(3), size=100),
        rng.normal(size=(100, 3)),
        rng.uniform(0.05, 2.0, (100, 3)),
    )
    y = rng.normal(size=(100, 1))
    wanted = -logsumexp(norm.logpdf(y, means, sigmas), axis=1, b=weights)
    found = value(mixture, y, np.hstack([np.log(weights), means, np.log(sigmas)]))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_truth_far_off_keeps_the_loss_of_a_mixture_finite():
    found = value(mixture, [[50.0]], [[0.0, 0.0, -5.0]])
    np.testing.assert_allclose(found, -norm.logpdf(50.0, 0.0, np.exp(-5.0)), rtol=1e-5)


@pytest.mark.parametrize("delta", [0.05, 0.1, 1.0])
def test_hubers_loss_is_square_near_zero_and_linear_far_off(delta):
    d = np.array([-3.0, -1.0, -0.01, 0.0, 0.02, 0.04, 0.5, 2.0])[:, None]
    wanted = np.where(np.abs(d) < delta, d**2 / (2.0 * delta), np.abs(d) - 0.5 * delta)[:, 0]
    np.testing.assert_allclose(
        value(huber(delta), d, np.zeros_like(d)), wanted, rtol=1e-5, atol=1e-7
    )
    below, above = value(
        huber(delta), [[delta * (1.0 - 1e-4)], [delta * (1.0 + 1e-4)]], [[0.0], [0.0]]
    )
    assert above - below == pytest.approx(2e-4 * delta, rel=0.02)  # no step, slope one


def test_the_limits_of_hubers_loss_are_half_the_square_and_the_absolute_value(rng):
    d = rng.normal(size=(50, 1))
    np.testing.assert_allclose(
        1e3 * value(huber(1e3), d, 0.0 * d), 0.5 * d[:, 0] ** 2, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(value(huber(1e-5), d, 0.0 * d), np.abs(d[:, 0]), atol=1e-5)


@pytest.mark.parametrize(("energy_weight", "delta"), [(0.5, 0.1), (5.0, 0.3)])
def test_class_and_energy_is_cross_entropy_and_weighted_huber(energy_weight, delta, rng):
    labels, p = np.eye(2)[rng.integers(0, 2, 60)], rng.dirichlet(np.ones(2), size=60)
    y, predicted = rng.normal(size=60), rng.normal(size=60)
    d = np.abs(y - predicted)
    wanted = -np.log(np.sum(labels * p, axis=1)) + energy_weight * np.where(
        d < delta, d**2 / (2.0 * delta), d - 0.5 * delta
    )
    found = value(
        class_and_energy(energy_weight, delta),
        np.column_stack([labels, y]),
        np.column_stack([p, predicted]),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", sorted({loss for _, losses in HEADS.values() for loss in losses}))
def test_every_loss_of_a_head_can_be_built(loss):
    assert callable(build_loss(loss, delta=0.1, energy_weight=5.0))


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="loss 'hinge' is unknown"):
        build_loss("hinge", delta=0.1, energy_weight=5.0)


@pytest.mark.parametrize(("loss", "best"), [("mse", np.mean), ("mae", np.median)])
def test_the_best_constant_is_the_mean_of_squares_and_the_median_of_absolute_values(
    loss, best, rng
):
    y = rng.exponential(size=(2001, 1)).astype(np.float32)
    built = build_loss(loss, delta=0.1, energy_weight=1.0)
    here, below, above = (
        float(value(built, y, np.full_like(y, best(y) + shift))) for shift in (0.0, -0.05, 0.05)
    )
    assert here < min(below, above)


def test_the_best_gaussian_of_a_mixture_is_that_of_mean_and_width(rng):
    y = rng.normal(0.3, 0.2, (2000, 1))

    def mean_loss(mean, log_width):
        return (
            value(mixture, y, np.tile([0.0, mean, log_width], (len(y), 1)))
            .astype(np.float64)
            .mean()
        )

    mean, log_width = y.mean(), np.log(y.std())
    for step in ((0.02, 0.0), (-0.02, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert mean_loss(mean, log_width) < mean_loss(mean + step[0], log_width + step[1])
