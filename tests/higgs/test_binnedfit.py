"""The binned fit finds the significance that closed formulas give."""

import numpy as np
import pytest
from scipy.stats import norm

pytest.importorskip("pyhf")

from pfcalib.errors import ConfigError
from pfcalib.higgs.binnedfit import expected_significance
from pfcalib.higgs.discriminant import asimov


def test_known_backgrounds_add_the_squares_of_the_bins():
    """Two Gaussians in bins: the likelihood of Poisson numbers is a sum over them."""
    edges = np.linspace(-4.0, 6.0, 21)
    s, b = 30.0 * np.diff(norm(1.5, 1.0).cdf(edges)), 400.0 * np.diff(norm(0.0, 1.0).cdf(edges))
    b += 0.01
    exact = np.sqrt(2.0 * np.sum((s + b) * np.log1p(s / b) - s))
    assert expected_significance(s, {"b": b}) == pytest.approx(exact, rel=1e-4)
    halves = {"one": 0.4 * b, "other": 0.6 * b}
    assert expected_significance(s, halves) == pytest.approx(exact, rel=1e-4)
    assert exact > asimov(s.sum(), b.sum())


def test_one_bin_with_an_uncertain_background_is_counting():
    """s / sqrt(b + (relative b)^2) for a small signal."""
    found = expected_significance([20.0], {"b": [10_000.0]}, errors={"b": 0.02})
    assert found == pytest.approx(asimov(20.0, 10_000.0, 0.02), rel=0.02)
    assert found == pytest.approx(20.0 / np.sqrt(1e4 + 200.0**2), rel=0.02)


def test_a_bin_without_signal_measures_the_background():
    """With it the error of the number is that of the bin, not the one that the fit is told."""
    s, b = [20.0, 0.0], [1_000.0, 1e7]
    free = expected_significance(s, {"b": b}, errors={"b": 0.3})
    assert free == pytest.approx(asimov(20.0, 1_000.0), rel=0.01)
    assert expected_significance(s[:1], {"b": b[:1]}, errors={"b": 0.3}) < 0.1


def test_a_bin_without_background_is_refused():
    with pytest.raises(ConfigError, match="no background"):
        expected_significance([1.0, 1.0], {"b": [3.0, 0.0]})
