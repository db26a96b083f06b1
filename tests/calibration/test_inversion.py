"""Numerical inversion undoes a known response, keeps the order of energies and says where it cannot
be measured.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.calibration.inversion import LARGEST_STEP, Inversion, fit_inversion
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.response import response_curve

# 0.3 GeV to 1.2 TeV, other bins than those of the inversion
EDGES = 0.3 * 10.0 ** (np.arange(37) / 10.0)


def bend(energy):
    """A response that rises from about a half to one and falls at the end of the range."""
    return energy * (1.0 - 0.5 / (1.0 + energy) ** 0.4) * (1.0 + energy / 4000.0) ** -0.5


@pytest.fixture
def clusters(rng):
    truth = 10.0 ** rng.uniform(np.log10(0.2), np.log10(2000.0), 200_000)
    return bend(truth), truth


def test_a_known_response_is_inverted_to_half_a_per_cent(clusters, rng):
    predicted, truth = clusters
    inversion = fit_inversion(predicted, truth)
    held = 10.0 ** rng.uniform(np.log10(0.3), np.log10(1500.0), 20_000)
    np.testing.assert_allclose(inversion.apply(bend(held)), held, rtol=5e-3)


def test_the_median_response_of_a_smeared_energy_becomes_one(clusters, rng):
    predicted, truth = clusters
    smeared = predicted * np.exp(0.05 * rng.normal(size=truth.size))
    inversion = fit_inversion(smeared, truth)
    held = 10.0 ** rng.uniform(np.log10(0.3), np.log10(1200.0), 150_000)
    corrected = inversion.apply(bend(held) * np.exp(0.05 * rng.normal(size=held.size)))
    curve = response_curve(corrected, held, EDGES, n_bootstrap=50, rng=rng)
    before = response_curve(bend(held), held, EDGES, n_bootstrap=50, rng=rng)
    assert np.nanmax(np.abs(before.median.value - 1.0)) > 0.3
    np.testing.assert_allclose(curve.median.value, 1.0, atol=0.01)


def test_energies_that_are_right_stay(rng):
    truth = 10.0 ** rng.uniform(-0.7, 3.3, 50_000)
    np.testing.assert_allclose(fit_inversion(truth, truth).apply(truth), truth, rtol=1e-9)


def test_a_constant_response_is_divided_out_also_beyond_the_range(rng):
    truth = 10.0 ** rng.uniform(-0.7, 3.3, 50_000)
    inversion = fit_inversion(0.8 * truth, truth)
    energies = np.array([1e-3, 0.1, 1.0, 5000.0, 1e6])
    np.testing.assert_allclose(inversion.apply(energies), energies / 0.8, rtol=1e-6)


def test_corrected_energies_keep_their_order(clusters, rng):
    predicted, truth = clusters
    inversion = fit_inversion(predicted * np.exp(0.5 * rng.normal(size=truth.size)), truth)
    assert np.all(np.diff(inversion.log_predicted) > 0.0)
    assert np.all(np.diff(inversion.log_corrected) > 0.0)
    assert np.all(np.diff(inversion.apply(np.logspace(-3.0, 5.0, 5000))) > 0.0)


def test_points_that_turn_back_are_left_out(rng):
    """Beyond 100 GeV the prediction no longer rises."""
    truth = 10.0 ** rng.uniform(-0.7, 3.3, 50_000)
    inversion = fit_inversion(np.minimum(truth, 100.0), truth)
    assert np.all(np.diff(inversion.log_predicted) > 0.0)
    energies = np.logspace(-0.5, 1.8, 50)
    np.testing.assert_allclose(inversion.apply(energies), energies, rtol=1e-6)


def test_a_correction_beyond_a_factor_of_three_is_not_believed(rng):
    truth = 10.0 ** rng.uniform(-0.7, 3.3, 50_000)
    np.testing.assert_allclose(
        fit_inversion(0.1 * truth, truth).apply([1.0, 10.0]), [3.0, 30.0], rtol=1e-9
    )
    assert pytest.approx(np.log(3.0)) == LARGEST_STEP


def test_any_shape_is_corrected_by_its_elements():
    inversion = Inversion(np.log([1.0, 10.0]), np.log([2.0, 10.0]))
    energies = np.array([[0.5, 1.0], [10.0, 20.0]])
    np.testing.assert_allclose(inversion.apply(energies), [[1.0, 2.0], [10.0, 20.0]], rtol=1e-12)


def test_bins_without_a_positive_response_are_left_out(rng):
    truth = 10.0 ** rng.uniform(-0.7, 3.3, 50_000)
    inversion = fit_inversion(np.where(truth < 1.0, -0.1, truth), truth)
    assert np.isfinite(inversion.log_predicted).all()
    np.testing.assert_allclose(inversion.apply([2.0, 50.0]), [2.0, 50.0], rtol=1e-6)


@pytest.mark.parametrize("n", [0, 3, 60])
def test_too_few_clusters_are_refused(n, rng):
    truth = 10.0 ** rng.uniform(0.0, 0.05, n)
    with pytest.raises(
        ValidationError,
        match=r"[01] bins between 0\.2 and 2000\.0 GeV have 50 clusters.*expected two at least",
    ):
        fit_inversion(truth, truth)


@pytest.mark.parametrize(("e_min", "e_max"), [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_an_empty_range_is_refused(e_min, e_max):
    with pytest.raises(ConfigError, match=r"expected 0 < e_min < e_max"):
        fit_inversion([1.0], [1.0], e_min=e_min, e_max=e_max)
