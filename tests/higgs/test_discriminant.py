"""The discriminant is a likelihood ratio, and significances have the limits that they must have."""

import numpy as np
import pytest
from scipy.stats import norm

from pfcalib.errors import ConfigError
from pfcalib.higgs.discriminant import asimov, best_cut, count, d_hh, reliability


def test_with_true_probabilities_it_is_the_logarithm_of_the_likelihood_ratio():
    x = np.linspace(-3.0, 3.0, 7)
    density = np.stack([norm.pdf(x, mean) for mean in (1.0, 0.0, -1.0)], axis=-1)
    p = density / density.sum(axis=1, keepdims=True)
    wanted = np.log(density[:, 0] / (0.2 * density[:, 1] + 0.8 * density[:, 2]))
    np.testing.assert_allclose(d_hh(p, {1: 0.2, 2: 0.8}), wanted)


def test_shares_that_are_not_of_all_backgrounds_are_refused():
    for shares in ({1: 1.0}, {1: 0.5, 2: 0.6}):
        with pytest.raises(ConfigError, match="fractions"):
            d_hh([[0.5, 0.2, 0.3]], shares)


def test_the_asimov_significance_has_its_limits():
    assert asimov(1.0, 1e6) == pytest.approx(1e-3, rel=1e-3)
    assert asimov(5.0, 50.0, 1e-6) == pytest.approx(asimov(5.0, 50.0), rel=1e-4)
    assert asimov(1.0, 1e4, 0.1) == pytest.approx(1.0 / np.hypot(100.0, 1000.0), rel=1e-2)


def test_the_asimov_significance_is_the_median_of_pseudo_experiments():
    rng = np.random.default_rng(1)
    s, b = 12.0, 20.0
    n = rng.poisson(s + b, 20_000)
    q0 = np.where(n > b, 2.0 * (n * np.log(n / b) - (n - b)), 0.0)
    assert asimov(s, b) == pytest.approx(np.median(np.sqrt(q0)), abs=0.2)


def test_the_best_cut_is_that_of_all_cuts():
    rng = np.random.default_rng(2)
    signal = rng.uniform(size=400) < 0.3
    d, weight = rng.normal(signal * 1.5), rng.uniform(0.1, 1.0, 400)
    cut = best_cut(d, signal, weight, min_background=3.0)
    every = [count(d, signal, weight, c) for c in d]
    wanted = max(c.s_over_root_b for c in every if c.background >= 3.0)
    assert count(d, signal, weight, cut).s_over_root_b == pytest.approx(wanted)
    with pytest.raises(ConfigError, match="min_background"):
        best_cut(d, signal, weight, min_background=1e9)


def test_true_probabilities_are_reliable_and_sharpened_ones_are_not():
    rng = np.random.default_rng(3)
    p, weight = rng.uniform(size=50_000), rng.exponential(size=50_000)
    label = rng.uniform(size=50_000) < p
    edges = np.linspace(0.0, 1.0, 11)
    mean, share, error = reliability(p, label, weight, edges)
    assert np.sum(((share - mean) / error) ** 2) < 30.0
    mean, share, error = reliability(np.clip(1.5 * p - 0.25, 0.0, 0.999), label, weight, edges)
    assert np.sum(((share - mean) / error) ** 2) > 300.0
