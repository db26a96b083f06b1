"""Areas, errors and rejections are held against the exact binormal answers, against pairs counted
one by one, and against the bootstrap.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pfcalib.metrics.roc import (
    accuracy,
    auc,
    auc_difference,
    auc_in_bins,
    proportion,
    rejection,
    roc_curve,
)

SHIFT = 1.5


def binormal(rng, n_em, n_had, shift=SHIFT):
    """Charged scores of a unit Gaussian at 0, neutral ones at shift: AUC = Phi(shift / sqrt 2)."""
    return np.concatenate([rng.normal(shift, 1, n_em), rng.normal(0, 1, n_had)]), np.arange(
        n_em + n_had
    ) < n_em


def test_the_area_of_a_binormal_score_is_known(rng):
    area = auc(*binormal(rng, 200_000, 200_000))
    assert area.value == pytest.approx(norm.cdf(SHIFT / np.sqrt(2)), abs=4 * area.error)
    assert area.error < 1e-3


def test_the_area_counts_ordered_pairs_and_half_of_the_ties(rng):
    score, is_em = rng.integers(0, 8, 300), rng.random(300) < 0.4
    weights = rng.uniform(0.5, 2.0, 300)
    em, had = score[is_em][:, None], score[~is_em][None, :]
    won = (em > had) + 0.5 * (em == had)
    assert auc(score, is_em).value == pytest.approx(won.mean(), rel=1e-12)
    pair_weights = weights[is_em][:, None] * weights[~is_em][None, :]
    assert auc(score, is_em, weights=weights).value == pytest.approx(
        np.average(won, weights=pair_weights), rel=1e-12
    )
    assert auc(score, is_em, weights=weights).value == pytest.approx(
        roc_auc_score(is_em, score, sample_weight=weights), rel=1e-12
    )


def test_the_error_is_the_one_of_the_exact_binormal_formula(rng):
    """Var = [A (1 - A) + (n_em - 1)(Q1 - A^2) + (n_had - 1)(Q2 - A^2)] / (n_em n_had), Q from the
    bivariate normal (Hanley and McNeil 1982).
    """
    n_em, n_had = 3000, 1500
    first, second, third = rng.normal(size=(3, 4_000_000))
    area = norm.cdf(SHIFT / np.sqrt(2))
    # one neutral above two charged; by symmetry also the other way
    q = np.mean((SHIFT + first > second) & (SHIFT + first > third))
    exact = np.sqrt((area * (1 - area) + (n_em + n_had - 2) * (q - area**2)) / (n_em * n_had))
    assert auc(*binormal(rng, n_em, n_had)).error == pytest.approx(exact, rel=0.05)


def test_the_error_agrees_with_the_bootstrap(rng):
    score, is_em = binormal(rng, 400, 600)
    em, had = score[is_em], score[~is_em]
    areas = [
        auc(np.concatenate([rng.choice(em, em.size), rng.choice(had, had.size)]), is_em).value
        for _ in range(600)
    ]
    assert auc(score, is_em).error == pytest.approx(np.std(areas), rel=0.12)


def test_the_error_covers_the_truth_in_pseudo_experiments(rng):
    truth = norm.cdf(SHIFT / np.sqrt(2))
    pulls = [
        (area.value - truth) / area.error
        for area in (auc(*binormal(rng, 200, 300)) for _ in range(500))
    ]
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)


def test_weights_of_one_change_nothing_and_the_scale_of_weights_does_not_matter(rng):
    score, is_em = binormal(rng, 50, 70)
    weights = rng.uniform(0.1, 1, 120)
    assert auc(score, is_em, weights=np.ones(120)) == auc(score, is_em)
    np.testing.assert_allclose(
        auc(score, is_em, weights=weights), auc(score, is_em, weights=10 * weights), rtol=1e-12
    )


def test_the_error_of_a_weighted_area_agrees_with_the_bootstrap(rng):
    score, is_em = binormal(rng, 500, 500)
    weights = rng.exponential(size=1000)

    def resampled():
        index = np.concatenate([rng.integers(0, 500, 500), rng.integers(500, 1000, 500)])
        return auc(score[index], is_em, weights=weights[index]).value

    assert auc(score, is_em, weights=weights).error == pytest.approx(
        np.std([resampled() for _ in range(600)]), rel=0.15
    )


def test_the_area_is_that_under_the_curve(rng):
    score, is_em = binormal(rng, 500, 400)
    curve = roc_curve(np.round(score, 1), is_em)
    assert np.trapezoid(curve.em_efficiency, curve.had_efficiency) == pytest.approx(
        auc(np.round(score, 1), is_em).value, rel=1e-12
    )
    assert curve.em_efficiency[[0, -1]].tolist() == [0.0, 1.0]
    assert np.all(np.diff(curve.cut) < 0)


def test_the_paired_test_sees_a_difference_that_separate_errors_hide(rng):
    score, is_em = binormal(rng, 2000, 2000)
    worse = score + rng.normal(0, 0.35, score.size)
    result = auc_difference(score, worse, is_em)
    assert result.value > 0
    assert result.error < 0.6 * np.hypot(auc(score, is_em).error, auc(worse, is_em).error)
    assert result.significance == pytest.approx(result.value / result.error)
    assert result.p_value == pytest.approx(2 * norm.sf(result.significance))


def test_the_error_of_a_difference_agrees_with_the_paired_bootstrap(rng):
    score, is_em = binormal(rng, 500, 500)
    other = score + rng.normal(0, 0.7, score.size)

    def resampled():
        index = np.concatenate([rng.integers(0, 500, 500), rng.integers(500, 1000, 500)])
        return auc(score[index], is_em).value - auc(other[index], is_em).value

    assert auc_difference(score, other, is_em).error == pytest.approx(
        np.std([resampled() for _ in range(500)]), rel=0.15
    )


def test_equal_classifiers_do_not_differ(rng):
    score, is_em = binormal(rng, 100, 100)
    result = auc_difference(score, np.exp(score), is_em)
    assert result == (0.0, 0.0)
    assert result.p_value == 1.0


def test_p_values_are_flat_where_two_classifiers_are_equally_good(rng):
    p_values = []
    for _ in range(300):
        common, is_em = binormal(rng, 200, 200)
        p_values.append(
            auc_difference(
                common + rng.normal(0, 1, 400), common + rng.normal(0, 1, 400), is_em
            ).p_value
        )
    assert np.mean(np.array(p_values) < 0.32) == pytest.approx(0.32, abs=0.08)


def test_accuracy_at_a_cut_counts_each_class_apart():
    p_em = np.array([0.9, 0.35, 0.2, 0.1, 0.4])
    is_em = np.array([True, True, True, False, False])
    half, low = accuracy(p_em, is_em), accuracy(p_em, is_em, cut=0.3)
    assert (half["all"].value, half["em"].value, half["had"].value) == (3 / 5, 1 / 3, 1.0)
    assert (low["all"].value, low["em"].value, low["had"].value) == (3 / 5, 2 / 3, 1 / 2)


def test_the_error_of_a_proportion_is_binomial_for_many_and_positive_for_none(rng):
    assert proportion(300, 10_000).error == pytest.approx(np.sqrt(0.03 * 0.97 / 10_000), rel=0.01)
    assert proportion(0, 100).error > 0.004
    with pytest.raises(ValueError, match="n"):
        proportion(0, 0)


def test_rejection_at_fixed_efficiency_is_that_of_the_binormal(rng):
    result = rejection(*binormal(rng, 200_000, 200_000, shift=3.0), em_efficiency=0.9)
    exact = 1 / norm.sf(3.0 + norm.ppf(0.1))
    assert result.value == pytest.approx(exact, abs=4 * result.error)
    assert result.error < 0.03 * exact


def test_the_error_of_a_rejection_is_the_spread_of_pseudo_experiments(rng):
    results = np.array([rejection(*binormal(rng, 300, 3000, shift=2.0)) for _ in range(400)])
    assert np.median(results[:, 1]) == pytest.approx(np.std(results[:, 0]), rel=0.15)


def test_rejection_without_a_charged_cluster_above_the_cut_is_infinite():
    assert rejection([1.0, 1.0, 0.0], [True, True, False]).value == np.inf


def test_the_area_in_bins_is_the_area_of_each_bin_and_nan_where_a_class_is_rare(rng):
    score, is_em = binormal(rng, 500, 500)
    energy = rng.uniform(0, 2, 1000)
    energy[is_em & (energy > 1)] = 0.5
    result = auc_in_bins(score, is_em, energy, [0, 1, 2])
    assert result.value[0] == auc(score[energy < 1], is_em[energy < 1]).value
    assert np.isnan(result.value[1])
    assert result.count.sum() == 1000


@pytest.mark.parametrize(
    ("score", "is_em", "message"),
    [
        ([1.0, 2.0], [True], "shape"),
        ([1.0, np.nan], [True, False], r"score\[1\]"),
        ([1.0, 2.0], [True, True], "both classes"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(score, is_em, message):
    with pytest.raises(ValueError, match=message):
        auc(score, is_em)


def test_a_cut_efficiency_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="em_efficiency"):
        rejection([1.0, 0.0], [True, False], em_efficiency=1.0)


def test_a_million_clusters_take_seconds_at_most(rng):
    score, is_em = binormal(rng, 500_000, 500_000)
    start = time.perf_counter()
    auc(score, is_em)
    assert time.perf_counter() - start < 3.0
