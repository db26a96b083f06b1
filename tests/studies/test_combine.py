"""Two regressors joined by a classifier: known means, known rates, and a scan that finds the cut
that was put in.
"""

from __future__ import annotations

import numpy as np
import pytest
from studies.combine import (
    MIXED,
    combine_hard,
    combine_soft,
    measure_merit,
    merit_of,
    mixed_masks,
    oracle,
    outcome_rates,
    scan_cut,
)

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.response import energy_edges, response_curve
from pfcalib.metrics.roc import accuracy

EDGES = energy_edges(1.0, 100.0, per_decade=5)


def toy(rng: np.random.Generator, n: int = 6000, separation: float = 2.0):
    """Clusters with a score that separates two species, and two regressors that are right for one
    species and 30 % off for the other.
    """
    is_em = rng.random(n) < 0.4
    e_true = 10.0 ** rng.uniform(0.0, 2.0, n)
    log_odds = separation * np.where(is_em, 1.0, -1.0) + rng.normal(
        0.0, np.sqrt(2.0 * separation), n
    )
    seen = e_true * np.exp(rng.normal(0.0, 0.05, n))
    e_neutral, e_charged = np.where(is_em, seen, 0.75 * seen), np.where(is_em, 1.3 * seen, seen)
    return 1.0 / (1.0 + np.exp(-2.0 * log_odds)), is_em, e_neutral, e_charged, e_true


def test_a_certain_classifier_makes_the_oracle(rng):
    _, is_em, e_neutral, e_charged, _ = toy(rng, 100)
    truth = oracle(is_em, e_neutral, e_charged)
    for energy in (
        combine_hard(is_em.astype(float), e_neutral, e_charged),
        combine_soft(is_em.astype(float), e_neutral, e_charged),
        combine_soft(is_em.astype(float), e_neutral, e_charged, scale="linear"),
    ):
        np.testing.assert_allclose(energy, truth, rtol=1e-12)


def test_a_cluster_at_the_cut_is_neutral():
    assert combine_hard([0.3], [1.0], [2.0], 0.3).tolist() == [1.0]


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_weighted_energy_lies_between_both(rng, scale):
    p, _, e_neutral, e_charged, _ = toy(rng, 1000)
    energy = combine_soft(p, e_neutral, e_charged, scale=scale)
    low, high = np.minimum(e_neutral, e_charged), np.maximum(e_neutral, e_charged)
    assert np.all((energy >= low * (1.0 - 1e-12)) & (energy <= high * (1.0 + 1e-12)))


def test_the_linear_mean_lies_above_the_logarithmic_one_as_the_docstring_says():
    p, e_neutral, e_charged = np.array([0.5]), np.array([1.0]), np.array([1.3])
    excess = (
        combine_soft(p, e_neutral, e_charged, scale="linear")
        / combine_soft(p, e_neutral, e_charged)
        - 1.0
    )
    assert excess == pytest.approx(0.125 * np.log(1.3) ** 2, rel=0.05)
    assert excess == pytest.approx(0.01, abs=0.002)


def test_rates_are_those_of_a_slow_count(rng):
    p, is_em, *_ = toy(rng, 500)
    p = p.round(2)  # with ties at the cuts
    cuts = np.linspace(0.0, 1.0, 11).round(2)
    rates = outcome_rates(p, is_em, cuts)
    for k, cut in enumerate(cuts):
        slow = accuracy(p, is_em, cut=cut)
        assert rates["accuracy"][k] == pytest.approx(slow.all.value)
        assert rates["em_as_em"][k] == pytest.approx(slow.em.value)
        assert rates["had_as_had"][k] == pytest.approx(slow.had.value)
    np.testing.assert_allclose(rates["em_as_em"] + rates["em_as_had"], 1.0)
    np.testing.assert_allclose(rates["had_as_em"] + rates["had_as_had"], 1.0)


def test_the_merit_of_a_gaussian_is_its_width_and_its_shift(rng):
    e_true = 10.0 ** rng.uniform(0.0, 2.0, 40_000)
    merit = measure_merit(e_true * rng.normal(1.05, 0.105, e_true.size), e_true, EDGES, rng=rng)
    assert merit.resolution.value == pytest.approx(0.1, rel=0.03)
    assert merit.bias.value == pytest.approx(0.05, abs=4.0 * merit.bias.error + 1e-3)


def test_the_error_of_a_merit_is_its_spread(rng):
    merits = []
    for _ in range(60):
        e_true = 10.0 ** rng.uniform(0.0, 2.0, 2000)
        merits.append(
            measure_merit(e_true * rng.normal(1.0, 0.1, e_true.size), e_true, EDGES, rng=rng)
        )
    spread = np.std([merit.resolution.value for merit in merits], ddof=1)
    assert np.mean([merit.resolution.error for merit in merits]) == pytest.approx(spread, rel=0.3)


def test_bins_without_clusters_do_not_count(rng):
    e_true = np.full(1000, 2.0)
    energy = e_true * rng.normal(1.0, 0.1, 1000)
    assert measure_merit(energy, e_true, EDGES, rng=rng).resolution.value == pytest.approx(
        0.1, rel=0.15
    )
    empty = merit_of(response_curve(energy, e_true, [10.0, 20.0], rng=rng))
    assert np.isnan([*empty.resolution, *empty.bias]).all()


def test_the_scan_knows_what_the_ends_do(rng):
    p, is_em, e_neutral, e_charged, e_true = toy(rng)
    scan = scan_cut(p, is_em, e_neutral, e_charged, e_true, [0.0, 0.5, 1.1], edges=EDGES, rng=rng)
    assert scan.rates["em_as_em"].tolist()[::2] == [1.0, 0.0]
    assert scan.rates["had_as_had"].tolist()[::2] == [0.0, 1.0]
    assert list(scan.merits) == ["pi0", "pic", MIXED]
    all_neutral = measure_merit(e_neutral, e_true, EDGES, rng=rng)
    assert scan.merits[MIXED][0].resolution.value == pytest.approx(all_neutral.resolution.value)
    # all neutral clusters got their own regressor
    assert scan.merits["pi0"][0].bias.value == pytest.approx(0.0, abs=0.01)
    assert scan.merits["pi0"][2].bias.value == pytest.approx(0.3, abs=0.02)
    assert scan.best == 0.5


def test_the_scan_finds_the_cut_of_a_shifted_score(rng):
    p, is_em, e_neutral, e_charged, e_true = toy(rng, separation=6.0)
    shifted = 0.5 * p  # what lay at one half now lies at one quarter
    cuts = np.linspace(0.05, 0.6, 12)
    scan = scan_cut(
        shifted, is_em, e_neutral, e_charged, e_true, cuts, edges=EDGES, rng=rng, n_bootstrap=10
    )
    assert 0.0 < scan.best < 0.5
    assert (
        scan.resolutions[MIXED][list(cuts).index(scan.best)].value
        < 0.9 * scan.resolutions[MIXED][-1].value
    )


def test_a_scan_without_a_filled_bin_is_refused(rng):
    p, is_em, e_neutral, e_charged, e_true = toy(rng, 50)
    with pytest.raises(ValidationError, match="no bin of true energy holds 1000 clusters"):
        scan_cut(
            p, is_em, e_neutral, e_charged, e_true, [0.5], edges=EDGES, rng=rng, min_count=1000
        )


def test_the_masks_of_the_species_make_up_the_mixed_one():
    masks = mixed_masks([True, False, False])
    assert masks[MIXED].all()
    assert np.array_equal(masks["pi0"] | masks["pic"], masks[MIXED])


@pytest.mark.parametrize(
    ("p_em", "e_neutral", "e_charged", "message"),
    [
        ([0.5, 1.2], [1.0, 1.0], [1.0, 1.0], r"p_em\[1\] = 1.2"),
        ([0.5, np.nan], [1.0, 1.0], [1.0, 1.0], r"p_em\[1\]"),
        ([0.5, 0.5], [1.0, 0.0], [1.0, 1.0], r"e_neutral\[1\] = 0.0"),
        ([0.5, 0.5], [1.0, 1.0], [np.inf, 1.0], r"e_charged\[0\] = inf"),
        ([0.5], [1.0, 1.0], [1.0, 1.0], "shapes"),
    ],
)
@pytest.mark.parametrize("combine", [combine_hard, combine_soft])
def test_what_is_no_probability_or_energy_is_refused_with_its_cluster(
    combine, p_em, e_neutral, e_charged, message
):
    with pytest.raises(ValidationError, match=message):
        combine(p_em, e_neutral, e_charged)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ConfigError, match="scale = 'cubic'"):
        combine_soft([0.5], [1.0], [1.0], scale="cubic")


def test_rates_of_one_species_alone_are_refused():
    with pytest.raises(ValidationError, match="both species"):
        outcome_rates([0.5], [True], [0.5])
