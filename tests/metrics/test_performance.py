"""The measures of the studies of calibrations are held against toys whose answer is known and
against the plain bootstrap.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from pfcalib.metrics import performance
from pfcalib.metrics.response import QUANTILES, ResponseCurve, energy_edges, resolution
from pfcalib.metrics.response_histograms import response_histogram


def _sample(
    rng: np.random.Generator, n: int, energy: float = 10.0
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Two correlated calibrations of width 0.2 and 0.1 at one energy."""
    e_true = np.full(n, energy)
    shared = rng.normal(size=n)
    e_pred = {
        "lcw": e_true * (1.0 + 0.2 * shared),
        "dnn": e_true * (1.0 + 0.08 * shared + 0.06 * rng.normal(size=n)),
    }
    return e_pred, e_true, performance.species_masks(np.arange(n) % 2 == 0)


def _curve(median, resolution, *, error=0.01) -> ResponseCurve:
    edges, n = np.array([0.5, 1.0, 2.0, 4.0, 8.0]), 4
    return ResponseCurve(
        edges,
        np.array(median),
        np.full(n, error),
        np.array(resolution),
        np.full(n, error),
        np.full(n, 100),
    )


def test_paired_quantiles_are_those_of_the_plain_bootstrap():
    samples = np.random.default_rng(2).exponential(size=(3, 400))
    samples[1] = np.round(samples[0], 1)  # with ties
    found = performance.paired_quantiles(samples, n_bootstrap=40, rng=np.random.default_rng(7))
    rng, plain = np.random.default_rng(7), []
    for _ in range(40):
        drawn = rng.integers(0, 400, 400, dtype=np.uint32)
        plain.append(np.quantile(samples[:, drawn], QUANTILES, axis=1).T)
    np.testing.assert_allclose(found, plain, rtol=1e-12)


def test_windows_and_portions_do_not_change_paired_quantiles(monkeypatch):
    samples = np.random.default_rng(2).normal(size=(2, 5000))
    whole = performance.paired_quantiles(samples, n_bootstrap=20, rng=np.random.default_rng(7))
    monkeypatch.setattr(performance, "_REACH", 1000.0)
    monkeypatch.setattr(performance, "_MAX_COUNTS", 3 * 5000)
    np.testing.assert_array_equal(
        whole, performance.paired_quantiles(samples, n_bootstrap=20, rng=np.random.default_rng(7))
    )


def test_errors_of_a_ratio_cover_the_truth(rng):
    """In 68 % of pseudo-experiments the true ratio, one half, lies within one quoted error."""
    inside = []
    for _ in range(300):
        e_pred, e_true, _ = _sample(rng, 400)
        found = performance.compare(
            e_pred["dnn"], e_pred["lcw"], e_true, np.ones(400, dtype=bool), 10.0, rng=rng
        )
        inside.append(abs(found.ratio - 0.5) < found.error)
    assert np.mean(inside) == pytest.approx(0.68, abs=0.08)


def test_pairing_makes_the_error_of_a_ratio_smaller(rng):
    e_pred, e_true, _ = _sample(rng, 4000)
    everything = np.ones(4000, dtype=bool)
    paired = performance.compare(
        e_pred["lcw"] * 1.01, e_pred["lcw"], e_true, everything, 10.0, rng=rng
    )
    apart = performance.compare(
        e_true * rng.normal(1.0, 0.2, 4000), e_pred["lcw"], e_true, everything, 10.0, rng=rng
    )
    assert paired.ratio == pytest.approx(1.0)
    assert paired.error < 1e-10
    assert apart.error > 0.01


def test_a_better_calibration_is_significantly_better_and_the_other_way_round(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    better = performance.compare(
        e_pred["dnn"], e_pred["lcw"], e_true, species["pi0"], 10.0, rng=rng
    )
    worse = performance.compare(e_pred["lcw"], e_pred["dnn"], e_true, species["pi0"], 10.0, rng=rng)
    assert (better.ratio, worse.ratio) == pytest.approx((0.5, 2.0), rel=0.1)
    assert better.significance > 10.0 > -10.0 > worse.significance
    assert better.n_clusters == 2000


def test_a_calibration_is_no_better_than_itself_and_too_few_clusters_say_nothing(rng):
    e_pred, e_true, species = _sample(rng, 100)
    assert performance.compare(e_pred["lcw"], e_pred["lcw"], e_true, species["pi0"], 10.0, rng=rng)[
        :3
    ] == (1.0, 0.0, 0.0)
    empty = performance.compare(e_pred["lcw"], e_pred["dnn"], e_true, species["pi0"], 50.0, rng=rng)
    assert empty.n_clusters == 0
    assert np.isnan(empty[:3]).all()


def test_point_metrics_have_the_agreed_names_and_values(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    metrics = {
        name: (value, error)
        for name, value, error, *_ in performance.point_metrics(
            e_pred, e_true, species, [10.0], where="toy", rng=rng
        )
    }
    tails = [f"{model}_{s}_10gev" for s in ("pi0", "pic") for model in ("lcw", "dnn")]
    assert set(metrics) == {f"{kind}_{tail}" for kind in ("median", "iqr") for tail in tails} | {
        f"ratio_to_lcw_dnn_{s}_10gev" for s in species
    }
    assert metrics["iqr_lcw_pi0_10gev"][0] == pytest.approx(
        resolution(e_pred["lcw"][species["pi0"]] / 10.0)
    )
    assert metrics["median_dnn_pic_10gev"][0] == pytest.approx(
        np.median(e_pred["dnn"][species["pic"]]) / 10.0
    )
    value, error = metrics["ratio_to_lcw_dnn_pic_10gev"]
    assert abs(value - 0.5) < 4.0 * error
    independent = value * np.hypot(
        *(
            metrics[f"iqr_{m}_pic_10gev"][1] / metrics[f"iqr_{m}_pic_10gev"][0]
            for m in ("dnn", "lcw")
        )
    )
    assert error < independent


def test_a_bin_with_too_few_clusters_yields_no_metrics(rng):
    e_pred, e_true, species = _sample(rng, 2 * performance.MIN_COUNT - 1)
    names = [
        name
        for name, *_ in performance.point_metrics(
            e_pred, e_true, species, [0.5, 10.0], where="toy", rng=rng, suffix="_b"
        )
    ]
    assert names
    assert all(name.endswith("_pi0_10gev_b") for name in names)


def test_without_the_reference_there_are_no_ratios(rng):
    e_pred, e_true, species = _sample(rng, 100)
    metrics = list(
        performance.point_metrics(
            {"dnn": e_pred["dnn"]}, e_true, species, [10.0], where="toy", rng=rng
        )
    )
    assert [name.partition("_")[0] for name, *_ in metrics] == ["median", "iqr"] * 2


def test_a_large_bin_takes_seconds_not_minutes(rng):
    e_pred, e_true, species = _sample(rng, 100_000)
    start = time.process_time()
    list(performance.point_metrics(e_pred, e_true, species, [10.0], where="toy", rng=rng))
    assert time.process_time() - start < 6.0


@pytest.mark.parametrize(("energy", "name"), [(0.3, "0p3gev"), (1.0, "1gev"), (200, "200gev")])
def test_energies_have_names(energy, name):
    assert performance.energy_name(energy) == name


def test_the_bin_of_an_energy_is_a_fifth_of_a_decade():
    assert performance.in_energy_bin([7.9, 8.0, 12.5, 12.7], 10.0).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_curves_are_made_for_each_model_and_species(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    curves = performance.curves_by_species(
        e_pred, e_true, species, energy_edges(1.0, 100.0, per_decade=1), rng=rng
    )
    assert {model: set(by_species) for model, by_species in curves.items()} == {
        "lcw": {"pi0", "pic"},
        "dnn": {"pi0", "pic"},
    }
    assert curves["lcw"]["pi0"].n_clusters.tolist() == [0, 2000]
    assert curves["lcw"]["pi0"].resolution[1] == pytest.approx(0.2, rel=0.1)


def test_the_worst_deviation_is_looked_for_inside_the_range_only():
    curve = _curve([0.5, 1.02, 0.97, np.nan], [0.1] * 4)
    assert performance.worst_deviation(curve, 1.0, 8.0) == pytest.approx((0.03, 0.01))
    assert performance.worst_deviation(curve, 0.5, 8.0).value == pytest.approx(0.5)
    assert np.isnan(performance.worst_deviation(curve, 4.0, 8.0).value)


def test_the_largest_ratio_has_the_errors_of_both():
    found = performance.largest_ratio(
        _curve([1] * 4, [0.1, 0.2, 0.3, np.nan]), _curve([1] * 4, [0.2, 0.2, 0.4, 0.1]), 0.5, 8.0
    )
    assert found == pytest.approx((1.0, np.hypot(0.05, 0.05)))
    with pytest.raises(ValueError, match="edges"):
        performance.largest_ratio(
            _curve([1] * 4, [0.1] * 4),
            _curve([1] * 4, [0.1] * 4)._replace(edges=np.arange(1.0, 6.0)),
            0.5,
            8.0,
        )


def test_closure_is_the_median_in_bins_of_any_variable_with_errors_that_cover(rng):
    n_bins, n = 300, 200
    eta = np.repeat(np.arange(n_bins) + 0.5, n)
    e_true = rng.uniform(1.0, 100.0, eta.size)
    found = performance.closure_in(
        e_true * rng.normal(0.98, 0.1, eta.size), e_true, eta, np.arange(n_bins + 2), rng=rng
    )
    assert np.mean(np.abs(found.value - 0.98)[:-1] < found.error[:-1]) == pytest.approx(
        0.68, abs=0.08
    )
    assert np.isnan(found.value[-1])
    assert found.n_clusters.tolist() == [n] * n_bins + [0]


def test_a_histogram_counts_each_cluster_once_and_keeps_the_overflow(rng):
    e_pred, e_true, species = _sample(rng, 1000)
    histogram = response_histogram(e_pred, e_true, species, [1.0, 10.0], limits=(0.9, 1.1))
    counts = histogram.values(flow=True)[0, 0, 1]  # lcw, pi0, 10 GeV
    assert counts.sum() == 500
    assert counts[0] == np.count_nonzero(e_pred["lcw"][species["pi0"]] < 9.0)
    assert histogram.values(flow=True)[:2, :2, 0].sum() == 0
