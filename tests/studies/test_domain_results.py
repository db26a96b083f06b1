"""Points, closeness and verdicts are held against toys whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample
from studies.domain import TrainedTrees, read_splits
from studies.domain_results import (
    Calibrated,
    Point,
    calibrate_splits,
    choose_remedy,
    closeness,
    closeness_metrics,
    closenesses,
    compare_at,
    judge,
    list_points,
    matrix,
    sample_metrics,
)

from pfcalib.calibration.inversion import Inversion
from pfcalib.calibration.lcw import LcwConfig, fit_lcw
from pfcalib.calibration.likelihood import LikelihoodConfig
from pfcalib.metrics.curve import Estimate
from pfcalib.samples.split import SPLITS, split_of
from pfcalib.samples.write import write_sample

SMALL = LcwConfig(
    likelihood=LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5),
    n_energy=3,
    n_density=4,
    n_cluster_eta=2,
    n_lambda=3,
)


def _toy(
    rng: np.random.Generator, widths: dict[str, float], n: int = 4000, e_true: float = 10.0
) -> Calibrated:
    """Calibrations with Gaussian responses of known widths, clusters of both species at one
    energy.
    """
    truth = np.full(n, e_true)
    return Calibrated(
        {name: truth * (1.0 + width * rng.standard_normal(n)) for name, width in widths.items()},
        truth,
        np.arange(n) % 2 == 0,
    )


class Measured:
    """Trees that have learnt nothing."""

    def energy(self, columns):
        return columns["clusterE"].astype(np.float64)


def test_lcw_stands_for_the_deposit_and_trees_for_their_own_sample(rng, tmp_path):
    """Of local cell weighting the sum of the cells is taken, nothing outside of the cluster."""
    sample = make_sample(rng, 300)
    for name, share in (("OUT_T", 0.3), ("DEAD_TOT", 0.6)):
        sample.scalars[f"cluster_ENG_CALIB_{name}"] = share * sample["clusterE"]
    path = tmp_path / "b.root"
    write_sample(path, sample)
    tables = fit_lcw([sample], SMALL)
    weighted = tables.apply(sample)
    assert np.median(weighted.full / weighted.cells) > 1.4
    clusters = read_splits({"b": path})["b"]
    by_home = {"a": 2.0, "b": 2.5}
    factors = {home: Inversion(np.zeros(1), np.log([x])) for home, x in by_home.items()}
    trees = {"gbdt": TrainedTrees(Measured(), factors)}
    found = calibrate_splits(path, "b", clusters, networks={}, trees=trees, tables={"lcw": tables})
    assert list(found) == ["validation", "test"]
    for split, calibrated in found.items():
        rows = clusters[split].rows
        assert len(rows) > 20
        assert np.all(split_of(sample["eventNumber"][rows]) == SPLITS.index(split))
        np.testing.assert_allclose(calibrated.energy["lcw"], weighted.cells[rows], rtol=1e-6)
        np.testing.assert_array_equal(calibrated.energy["em"], sample["clusterE"][rows])
        np.testing.assert_allclose(calibrated.energy["gbdt"], 2.5 * sample["clusterE"][rows])
        np.testing.assert_array_equal(calibrated.e_true, sample["cluster_ENG_CALIB_TOT"][rows])
        np.testing.assert_array_equal(calibrated.is_em, sample.is_em[rows])


def test_points_of_a_sample_lie_side_by_side_and_mixed_is_asked_where_it_matters():
    points = list_points({"a": [1, 10], "d": [1]})
    assert [point.tail for point in points] == [
        "pi0_1gev",
        "pi0_10gev",
        "pic_1gev",
        "pic_10gev",
        "pi0_1gev_d",
        "pic_1gev_d",
        "mixed_1gev_d",
    ]
    assert points[-1].column == ("D", "mixed", "1 GeV")


def test_metrics_carry_the_sample_in_their_name(rng):
    calibrated = {name: _toy(rng, {"lcw": 0.2, "cnn_a": 0.1}) for name in "ab"}
    metrics = {
        name: (value, error)
        for name, value, error, *_ in sample_metrics(
            calibrated, list_points({"a": [10], "b": [10]}), rng=rng
        )
    }
    assert metrics["iqr_cnn_a_pic_10gev"][0] == pytest.approx(0.1, rel=0.1)
    assert metrics["ratio_to_lcw_cnn_a_pi0_10gev_b"][0] == pytest.approx(0.5, rel=0.1)
    assert "iqr_lcw_mixed_10gev_b" not in metrics


def test_a_matrix_has_nan_where_nothing_is_known():
    points = [Point("b", "pi0", 1.0), Point("c", "pi0", 1.0)]
    rows = matrix({"median_em_pi0_1gev_c": Estimate(0.9, 0.1)}, ["em"], "median", points)
    assert np.isnan(rows["em"][0].value)
    assert rows["em"][1] == Estimate(0.9, 0.1)


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_closeness_of_an_unbiased_response_is_its_width(rng, width):
    truth = 10.0 ** rng.uniform(0.0, 2.0, 50_000)
    energy = truth * np.exp(width * rng.standard_normal(truth.size))
    found = closeness(energy, truth, rng.random(truth.size) < 0.5, limits=(1.0, 100.0), rng=rng)
    # 68 % of a Gaussian lie within 0.9945 standard deviations
    assert found.value == pytest.approx(0.9945 * width, rel=0.02)
    assert 0.0 < found.error < 0.02 * width


def test_closeness_of_a_biased_response_is_the_bias(rng):
    truth = 10.0 ** rng.uniform(0.0, 2.0, 10_000)
    energy = 1.5 * truth * np.exp(0.01 * rng.standard_normal(truth.size))
    assert closeness(
        energy, truth, np.ones(truth.size, bool), limits=(1.0, 100.0), rng=rng
    ).value == pytest.approx(np.log(1.5), rel=0.02)


def test_closeness_weights_energies_flat(rng):
    """A hundred times more clusters at 1 GeV than at 50 GeV count no more than the few."""
    truth = np.concatenate([np.full(10_000, 1.05), np.full(2000, 52.0)])
    energy = truth * np.where(truth < 2.0, 1.0, 1.3)
    assert closeness(
        energy, truth, np.ones(truth.size, bool), limits=(0.5, 200.0), rng=rng
    ).value == pytest.approx(np.log(1.3))


def test_closeness_of_no_clusters_is_nan(rng):
    assert np.isnan(closeness([1.0], [1.0], [True], limits=(2.0, 3.0), rng=rng).value)


def test_the_remedy_is_the_closest_of_the_candidates(rng):
    found = closenesses(
        _toy(rng, {"cnn_a": 0.05, "mixed": 0.2, "tuned_b": 0.1}), limits=(1.0, 100.0), rng=rng
    )
    assert choose_remedy(found, ["mixed", "tuned_b"]) == "tuned_b"


def test_metrics_of_closeness_name_model_and_sample():
    assert next(closeness_metrics({"d": {"cnn_a": Estimate(0.1, 0.01)}}))[:3] == (
        "closeness_cnn_a_d",
        0.1,
        0.01,
    )


def test_a_wider_calibration_is_behind_and_a_narrower_is_not(rng):
    calibrated = {
        "b": _toy(rng, {"lcw": 0.1, "cnn_a": 0.15}),
        "d": _toy(rng, {"lcw": 0.1, "cnn_a": 0.08}),
    }
    points = list_points({"b": [10.0], "d": [1.0, 10.0]})
    b, d = judge(calibrated, {"b": "cnn_a", "d": "cnn_a"}, "lcw", points, n_sigma=2.0, rng=rng)
    assert (b.sample, b.n_points, b.n_behind) == ("b", 2, 2)
    assert b.ratio.value == pytest.approx(1.5, rel=0.1)
    assert (d.n_points, d.n_behind, d.worst.energy) == (3, 0, 10.0)  # nothing at 1 GeV


def test_a_sample_without_the_reference_is_left_out(rng):
    calibrated = {
        "b": _toy(rng, {"lcw": 0.1, "mixed": 0.1}),
        "c": _toy(rng, {"lcw": 0.1, "lcw_retrained": 0.1, "mixed": 0.1}),
    }
    found = compare_at(
        calibrated,
        {"b": "mixed", "c": "mixed"},
        "lcw_retrained",
        list_points({"b": [10.0], "c": [10.0]}),
        rng=rng,
    )
    assert {point.sample for point in found} == {"c"}


def test_only_the_chosen_calibrations_are_kept(rng):
    assert list(_toy(rng, {"em": 0.1, "lcw": 0.1}).only("lcw", "lcw_retrained").energy) == ["lcw"]
