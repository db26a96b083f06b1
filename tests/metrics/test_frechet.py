"""Distances of samples are held against the closed formula for Gaussians."""

import numpy as np
import pytest

from pfcalib.metrics.frechet import (
    frechet_distance,
    frechet_physics_distance,
    kernel_physics_distance,
    scaled,
    separation,
)

MIXING = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.3, 0.5]])


def gaussians(rng, n, shift=0.0, width=1.0):
    return (width * rng.standard_normal((n, 3))) @ MIXING.T + shift


def test_the_distance_of_gaussians_is_that_of_the_formula(rng):
    # covariances that commute: the trace of the difference of their roots, squared
    a, b = rng.standard_normal((200_000, 2)) * [1.0, 3.0], rng.standard_normal((200_000, 2)) * 2.0
    assert frechet_distance(a, b + np.array([2.0, 0.0])) == pytest.approx(4.0 + 1.0 + 1.0, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_the_extrapolated_distance_has_no_bias_and_an_error_that_covers(rng):
    pulls = []
    for _ in range(12):
        a, b = gaussians(rng, 1500), gaussians(rng, 1500, 0.3, 1.2)
        found = frechet_physics_distance(a, b, rng=rng)
        # of Gaussians whose covariances differ by 1.2^2 alone: |shift|^2 + (1.2 - 1)^2 tr C
        inverse = 1.0 / np.abs(a).max(axis=0)
        variance = np.sum(MIXING**2, axis=1)
        exact = np.sum((0.3 * inverse) ** 2) + 0.04 * np.sum(variance * inverse**2)
        pulls.append((found.value - exact) / found.error)
    assert abs(np.mean(pulls)) < 1.2
    assert 0.4 < np.std(pulls) < 2.5


def test_equal_samples_have_no_distance_and_others_have(rng):
    a, b, c = gaussians(rng, 3000), gaussians(rng, 3000), gaussians(rng, 3000, 0.5)
    for measure in (frechet_physics_distance, kernel_physics_distance):
        same, other = measure(a, b, rng=rng), measure(a, c, rng=rng)
        assert abs(same.value) < 5.0 * same.error
        assert other.value > 5.0 * other.error


def test_quantities_are_scaled_by_the_reference_and_constants_left_alone():
    a, b = scaled([[2.0, 0.0], [-4.0, 0.0]], [[8.0, 1.0]])
    assert a.tolist() == [[0.5, 0.0], [-1.0, 0.0]]
    assert b.tolist() == [[2.0, 1.0]]


def test_separation_of_poisson_counts_is_what_chance_gives(rng):
    # of n bins with equal shares and N entries each: (n - 1) / (2 N)
    found = np.mean([separation(*rng.multinomial(5000, np.full(20, 0.05), 2)) for _ in range(300)])
    assert found == pytest.approx(19.0 / (2.0 * 5000), rel=0.1)
