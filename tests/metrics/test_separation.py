"""What is quoted of a classifier agrees with answers that are known."""

import numpy as np
import pytest

from pfcalib.metrics.roc import Estimate
from pfcalib.metrics.separation import auc_by_model, crossing_size, evaluate, evaluation_metrics


@pytest.fixture
def toy(rng):
    is_em = rng.random(4000) < 0.5
    return np.clip(rng.normal(np.where(is_em, 0.6, 0.4), 0.1), 0.0, 1.0), is_em


def test_two_gaussians_have_the_area_of_their_distance(toy):
    area = evaluate(*toy).auc
    assert area.value == pytest.approx(0.9214, abs=4 * area.error)  # Phi(0.2 / (0.1 sqrt 2))


def test_the_accuracy_of_two_gaussians_at_the_middle_is_that_of_one_sigma(toy):
    right = evaluate(*toy).accuracy[0.5]
    for share in right:
        assert share.value == pytest.approx(0.8413, abs=4 * share.error)


def test_metrics_have_the_agreed_names_and_an_error_each(toy):
    evaluations = {"cnn": evaluate(*toy)}
    metrics = list(evaluation_metrics(evaluations, where="toy", suffix="_geant4"))
    names = [metric[0] for metric in metrics]
    assert {
        "auc_cnn_geant4",
        "accuracy_cnn_p50_geant4",
        "accuracy_cnn_p30_geant4",
        "accuracy_cnn_p30_em_geant4",
        "rejection_cnn_90_geant4",
    } < set(names)
    assert len(names) == len(set(names)) == 8
    assert all(metric[2] > 0.0 for metric in metrics)
    assert [
        metric[0] for metric in evaluation_metrics(evaluations, where="toy", auc_only=True)
    ] == ["auc_cnn"]


def test_a_bin_without_enough_clusters_has_no_area(toy):
    p_em, is_em = toy
    binned = auc_by_model(
        {"cnn": p_em}, is_em, np.where(np.arange(len(is_em)) < 10, 0.5, 1.5), [0.0, 1.0, 2.0]
    )["cnn"]
    assert np.isnan(binned.value[0])
    assert binned.value[1] > 0.9


def lead(*values):
    return [Estimate(value, 0.01) for value in values]


def test_the_crossing_lies_between_the_last_size_behind_and_the_next():
    crossing = crossing_size([1e3, 1e4, 1e5, 1e6], lead(0.01, -0.02, -0.01, 0.03))
    assert crossing.size == pytest.approx(10**5.25, rel=1e-6)
    assert 0.0 < crossing.error < crossing.size


@pytest.mark.parametrize(
    ("values", "size"), [((-0.1, -0.01), None), ((0.1, -0.01), None), ((0.1, 0.2), 100.0)]
)
def test_without_a_crossing_there_is_no_error(values, size):
    assert crossing_size([100, 1000], lead(*values)) == (size, None)
