"""The study of combined calibrations: the better classifier and combination are recognised, and
what is not known is told as such.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from studies import combined_study as study

from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.metrics.response import energy_edges
from pfcalib.training.regressions import take_rows
from pfcalib.training.regressors import Clusters
from pfcalib.training.trees import TreesConfig

EDGES = energy_edges(1.0, 100.0, per_decade=3)
FOREST = TreesConfig(max_iter=12, max_leaf_nodes=15, learning_rate=0.25)
SPARSE = TreesConfig(max_iter=2, max_leaf_nodes=7, learning_rate=0.25)


@pytest.fixture
def clusters(rng) -> Clusters:
    """Clusters of which one moment tells the species and the energy needs a factor of it."""
    n = 4000
    is_em = rng.random(n) < 0.4
    e_true = 10.0 ** rng.uniform(0.0, 2.0, n)
    columns = {name: rng.uniform(1.0, 2.0, n) for name in MOMENT_COLUMNS}
    columns |= {
        "clusterE": e_true / np.where(is_em, 1.0, 1.3) * np.exp(rng.normal(0.0, 0.05, n)),
        "cluster_ENG_CALIB_TOT": e_true,
    }
    columns["cluster_CENTER_LAMBDA"] = np.where(is_em, 100.0, 300.0) + rng.normal(0.0, 60.0, n)
    return Clusters(np.arange(n), columns, is_em, e_true)


def energies_of(clusters: Clusters, p_em: np.ndarray) -> study.Energies:
    """Regressors that differ by the factor between the species."""
    return study.Energies(p_em, clusters.e_em, 1.3 * clusters.e_em)


def test_balanced_clusters_are_half_neutral(clusters):
    kept = study.balanced_mask(clusters, seed=1)
    assert clusters.is_em[kept].sum() == (~clusters.is_em[kept]).sum() > 1000


def test_forests_learn_class_and_energies(clusters):
    parts = [take_rows(clusters, np.arange(4000) // 1300 == part) for part in range(3)]
    train, held_out, seen = parts
    forests = study.fit_forests(train, held_out, config=FOREST)
    energies = forests.energies(seen)
    assert np.mean((energies.p_em > 0.5) == seen.is_em) > 0.9
    right = np.where(seen.is_em, energies.e_neutral, energies.e_charged) / seen.e_true
    assert np.median(right) == pytest.approx(1.0, abs=0.02)
    together = forests.together.energy(seen.columns) / seen.e_true
    assert np.median(together) == pytest.approx(1.0, abs=0.03)


def test_forests_are_inverted_to_the_truth_of_the_validation_split(clusters):
    """Its deposits are twice as large, so all energies double, of whatever clusters."""
    train, held_out = (take_rows(clusters, np.arange(4000) % 2 == part) for part in (0, 1))
    deposit = 2.0 * held_out.e_true
    columns = {**held_out.columns, "cluster_ENG_CALIB_TOT": deposit}
    held_out = held_out._replace(columns=columns, e_true=deposit)
    forests = study.fit_forests(train, held_out, config=SPARSE)
    energies = forests.energies(train)
    apart = np.where(train.is_em, energies.e_neutral, energies.e_charged)
    for energy in (apart, forests.together.energy(train.columns)):
        assert np.median(energy / train.e_true) == pytest.approx(2.0, rel=0.04)


def test_forests_give_even_odds_where_nothing_tells_the_species(clusters, rng):
    """One cluster in five is neutral, few of much energy: balanced, neither counts."""
    e_true = clusters.e_true
    is_em = rng.random(len(e_true)) < np.where(e_true < 10.0, 0.35, 0.05)
    blind = clusters.columns | {
        "clusterE": e_true,
        "cluster_CENTER_LAMBDA": rng.uniform(1.0, 2.0, len(e_true)),
    }
    blind = clusters._replace(columns=blind, is_em=is_em)
    train, held_out = (take_rows(blind, np.arange(4000) % 4 // 3 == part) for part in (0, 1))
    p_em = study.fit_forests(train, held_out, config=SPARSE).energies(held_out).p_em
    assert np.mean(held_out.is_em) < 0.25
    for energies in (held_out.e_true < 10.0, held_out.e_true >= 10.0):
        assert np.mean(p_em[energies]) == pytest.approx(0.5, abs=0.08)


def test_the_better_classifier_gains(clusters, rng):
    weak = 0.5 * clusters.is_em + rng.random(len(clusters.is_em))
    areas = study.compare_classifiers(
        {"likelihood": weak, "cnn": clusters.is_em + weak},
        clusters.is_em,
        study.balanced_mask(clusters, seed=1),
    )
    assert areas.mixed["cnn"].value > areas.mixed["likelihood"].value
    assert areas.gains["cnn"].value == pytest.approx(
        areas.balanced["cnn"].value - areas.balanced["likelihood"].value
    )
    assert areas.gains["cnn"].significance > 5.0
    columns, rows = areas.table
    assert [len(row) for row in rows] == [len(columns)] * 2
    assert rows[0][-1] is None
    names = [name for name, *_ in areas.metrics(where="toy")]
    assert names == [
        "auc_likelihood",
        "auc_mixed_likelihood",
        "auc_cnn",
        "auc_mixed_cnn",
        "gain_over_likelihood_cnn",
    ]


def test_a_sure_classifier_reaches_the_class_known(clusters, rng):
    sure = energies_of(clusters, clusters.is_em.astype(float))
    taken = study.choose_combination(
        sure, clusters.e_em, clusters, cut=0.5, edges=EDGES, rng=rng, min_count=30
    )
    widths = {name: merits["mixed"].resolution.value for name, merits in taken.merits.items()}
    assert widths[study.CUT] == widths[study.CLASS_KNOWN] == pytest.approx(widths["weighted, log"])
    assert widths[study.ONE_NETWORK] > 1.5 * widths[study.CUT]
    assert taken.combination == "combined_soft"  # no worse
    columns, rows = taken.table
    assert {len(row) for row in rows} == {len(columns)}
    assert "validation_iqr_best_cut" in [name for name, *_ in taken.metrics()]


def test_a_score_that_is_no_probability_is_better_cut_than_weighted(clusters, rng):
    timid = energies_of(clusters, np.where(clusters.is_em, 0.51, 0.49))
    taken = study.choose_combination(
        timid, clusters.e_em, clusters, cut=0.5, edges=EDGES, rng=rng, min_count=30
    )
    assert taken.combination == "combined_hard"


def test_the_inversion_takes_out_the_bias_of_the_validation_split_and_no_other(clusters):
    """The validation split reads 1.1 of the truth; what the test split reads above that stays."""
    held_out, seen = (take_rows(clusters, np.arange(4000) % 4 // 3 == part) for part in (0, 1))
    biased = [
        study.Energies(part.is_em.astype(float), bias * part.e_em, 1.3 * bias * part.e_em)
        for part, bias in ((held_out, 1.1), (seen, 1.1 * 1.2))
    ]
    for energy in study.combine_inverted(*biased, held_out, cut=0.5, scale="log"):
        assert np.median(energy / seen.e_true) == pytest.approx(1.2, abs=0.02)


def test_the_inversion_is_measured_on_the_validation_split_even_for_the_same_clusters(clusters):
    p_em = clusters.is_em.astype(float)
    learnt, tested = (
        study.Energies(p_em, bias * clusters.e_em, 1.3 * bias * clusters.e_em)
        for bias in (1.1, 1.32)
    )
    for energy in study.combine_inverted(learnt, tested, clusters, cut=0.5, scale="log"):
        assert np.median(energy / clusters.e_true) == pytest.approx(1.2, abs=0.02)


def test_lcw_takes_the_given_probabilities_where_they_are_known(clusters, monkeypatch):
    part = clusters._replace(rows=np.array([1, 3]))
    monkeypatch.setattr(
        study, "apply_lcw", lambda path, tables, *, p_em: SimpleNamespace(cells=10.0 * p_em)
    )
    likelihood = np.full(5, 0.5)
    assert study.lcw_with_classes(
        "x.root", None, likelihood, part, np.array([0.1, 0.9])
    ).tolist() == [1.0, 9.0]
    assert likelihood.tolist() == [0.5] * 5


def test_standing_tells_who_is_narrower_and_where_nothing_is_known(clusters, rng):
    narrow, wide = (
        clusters.e_true * rng.normal(1.0, width, len(clusters.e_true)) for width in (0.05, 0.1)
    )
    pred = {"combined_soft": narrow, "lcw": wide}
    standing = study.stand_against(
        pred, "combined_soft", ["lcw"], clusters.e_true, [2.0, 20.0, 900.0], rng=rng
    )
    assert standing.worst_ratio("lcw") == pytest.approx(0.5, abs=0.08)
    assert standing.least_significance("lcw") > 4.0
    columns, rows = standing.table
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[2] == [900.0, None, None, 0]
    nowhere = study.stand_against(pred, "combined_soft", ["lcw"], clusters.e_true, [900.0], rng=rng)
    assert np.isnan([nowhere.worst_ratio("lcw"), nowhere.least_significance("lcw")]).all()


def test_points_that_a_report_lacks_are_left_open():
    metrics = {"median_lcw_mixed_1gev": {"value": 0.97}, "iqr_lcw_mixed_1gev": {"value": 0.3}}
    columns, rows = study.point_table(metrics, ["lcw"], [1.0, 10.0], species=["mixed"])
    assert columns[2:] == [
        "median, 1 GeV",
        "median, 10 GeV",
        "IQR / (2 median), 1 GeV",
        "IQR / (2 median), 10 GeV",
    ]
    assert rows == [["lcw", "mixed", 0.97, None, 0.3, None]]
    assert study.worst_median(metrics, "lcw", [1.0, 10.0]) == pytest.approx(0.03)
    assert study.worst_median(metrics, "lcw", [10.0]) == np.inf
