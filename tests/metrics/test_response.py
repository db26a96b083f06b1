"""The estimators of response are held against distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.metrics.curve import Curve
from pfcalib.metrics.response import (
    MIN_COUNT,
    closure_in,
    compare,
    curves_by_species,
    energy_edges,
    energy_name,
    in_energy_bin,
    narrowest,
    point_rows,
    resolution,
    response,
    response_curve,
    species_masks,
    worst_deviation,
)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.3])
def test_resolution_of_a_gaussian_is_its_width(width, rng):
    assert resolution(rng.normal(1.0, width, 200_000)) == pytest.approx(width, rel=0.02)


def test_resolution_does_not_depend_on_the_scale(rng):
    ratio = rng.normal(1.0, 0.1, 10_000)
    assert resolution(3.0 * ratio) == pytest.approx(resolution(ratio), rel=1e-12)


def test_errors_cover_the_truth(rng):
    """In 68 % of pseudo-experiments the true median and width lie within one quoted error."""
    n_experiments, n = 400, 400
    width = 0.1 * 0.994458  # half of the central 68 % of a Gaussian of width 0.1
    e_true = np.repeat(np.arange(1.5, n_experiments + 1), n)
    curve = response_curve(
        e_true * rng.normal(1.0, 0.1, e_true.size), e_true, np.arange(1, n_experiments + 2), rng=rng
    )
    assert np.mean(np.abs(curve.median.value - 1.0) < curve.median.error) == pytest.approx(
        0.68, abs=0.07
    )
    assert np.mean(
        np.abs(curve.resolution.value - width) < curve.resolution.error
    ) == pytest.approx(0.68, abs=0.07)


def test_a_curve_finds_the_median_and_the_resolution_of_every_bin(rng):
    e_true = 10.0 ** rng.uniform(0, 2, 200_000)
    width = np.where(e_true < 10.0, 0.2, 0.05)
    scale = np.where(e_true < 10.0, 0.9, 1.0)
    curve = response_curve(
        e_true * scale * (1.0 + width * rng.normal(size=e_true.size)), e_true, [1, 10, 100], rng=rng
    )
    np.testing.assert_allclose(curve.median.value, [0.9, 1.0], rtol=0.01)
    np.testing.assert_allclose(curve.resolution.value, [0.2, 0.05], rtol=0.02)
    np.testing.assert_allclose(curve.median.centres, [np.sqrt(10.0), np.sqrt(1000.0)])
    assert curve.median.count.sum() == e_true.size


def test_the_bins_of_a_curve_are_those_of_a_plain_loop(rng):
    e_true = rng.uniform(0, 5, 3000) + 1e-3
    e_pred = e_true * rng.normal(1, 0.2, e_true.size)
    edges = [1.0, 2.0, 4.0]
    curve = response_curve(e_pred, e_true, edges, rng=rng)
    for b in range(2):
        inside = (e_true >= edges[b]) & (e_true < edges[b + 1])
        assert curve.median.count[b] == inside.sum()
        assert curve.median.value[b] == np.median(e_pred[inside] / e_true[inside])
        assert curve.resolution.value[b] == pytest.approx(
            resolution(e_pred[inside] / e_true[inside]), rel=1e-12
        )


def test_a_bin_with_too_few_clusters_is_nan_not_a_number(rng):
    e_true = np.concatenate([np.full(60, 1.5), np.full(40, 2.5)])
    curve = response_curve(e_true, e_true, [1, 2, 3], min_count=50, rng=rng)
    assert curve.median.value[0] == 1.0
    assert all(
        np.isnan(values[1])
        for values in (
            curve.median.value,
            curve.median.error,
            curve.resolution.value,
            curve.resolution.error,
        )
    )
    assert curve.median.count.tolist() == [60, 40]


def test_the_same_seed_gives_the_same_errors():
    e_true = np.random.default_rng(3).uniform(1, 2, 500)
    first, second = (
        response_curve(e_true**1.1, e_true, [1, 2], rng=np.random.default_rng(7)) for _ in range(2)
    )
    assert first.median.error[0] == second.median.error[0] > 0


def test_truth_that_is_not_positive_is_refused_with_its_index(rng):
    with pytest.raises(ValueError, match=r"e_true\[3\]"):
        response_curve([1, 1, 1, 1], [1, 2, 3, -4], [0.5, 5], rng=rng)


def test_a_prediction_that_is_not_finite_is_refused_with_its_index():
    with pytest.raises(ValueError, match=r"e_pred\[1\]"):
        response([1.0, np.nan], [1.0, 1.0])


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shape"):
        response([1.0], [1.0, 1.0])


@pytest.mark.parametrize("edges", [[1.0], [2.0, 1.0], [1.0, 1.0]])
def test_edges_that_do_not_increase_are_refused(edges, rng):
    with pytest.raises(ValueError, match="edges"):
        response_curve([1.0], [1.0], edges, rng=rng)


def test_energy_edges_cover_the_range_on_the_public_grid():
    np.testing.assert_allclose(energy_edges(0.1, 1.0), 10.0 ** (-1 + 0.1 * np.arange(11)))
    with pytest.raises(ValueError, match="low < high"):
        energy_edges(2.0, 1.0)


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
    return e_pred, e_true, species_masks(np.arange(n) % 2 == 0)


def test_errors_of_a_ratio_cover_the_truth(rng):
    """In 68 % of pseudo-experiments the true ratio, one half, lies within one quoted error."""
    inside = []
    for _ in range(300):
        e_pred, e_true, _ = _sample(rng, 400)
        found = compare(
            e_pred["dnn"], e_pred["lcw"], e_true, np.ones(400, dtype=bool), 10.0, rng=rng
        )
        inside.append(abs(found.ratio - 0.5) < found.error)
    assert np.mean(inside) == pytest.approx(0.68, abs=0.08)


def test_pairing_makes_the_error_of_a_ratio_smaller(rng):
    e_pred, e_true, _ = _sample(rng, 4000)
    everything = np.ones(4000, dtype=bool)
    paired = compare(e_pred["lcw"] * 1.01, e_pred["lcw"], e_true, everything, 10.0, rng=rng)
    apart = compare(
        e_true * rng.normal(1.0, 0.2, 4000), e_pred["lcw"], e_true, everything, 10.0, rng=rng
    )
    assert paired.ratio == pytest.approx(1.0)
    assert paired.error < 1e-10
    assert apart.error > 0.01


def test_a_better_calibration_is_significantly_better_and_the_other_way_round(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    better = compare(e_pred["dnn"], e_pred["lcw"], e_true, species["pi0"], 10.0, rng=rng)
    worse = compare(e_pred["lcw"], e_pred["dnn"], e_true, species["pi0"], 10.0, rng=rng)
    assert (better.ratio, worse.ratio) == pytest.approx((0.5, 2.0), rel=0.1)
    assert better.significance > 10.0 > -10.0 > worse.significance
    assert better.n_clusters == 2000


def test_a_calibration_is_no_better_than_itself_and_too_few_clusters_say_nothing(rng):
    e_pred, e_true, species = _sample(rng, 100)
    assert compare(e_pred["lcw"], e_pred["lcw"], e_true, species["pi0"], 10.0, rng=rng)[:3] == (
        1.0,
        0.0,
        0.0,
    )
    empty = compare(e_pred["lcw"], e_pred["dnn"], e_true, species["pi0"], 50.0, rng=rng)
    assert empty.n_clusters == 0
    assert np.isnan(empty[:3]).all()


def rows_of(e_pred, e_true, species, energies, rng):
    rows = point_rows(e_pred, e_true, species, energies, rng=rng)
    keys = ("quantity", "model", "species", "energy")
    return {tuple(row[key] for key in keys): (row["value"], row["error"]) for row in rows}


def test_there_is_a_row_a_quantity_model_species_and_energy(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    rows = rows_of(e_pred, e_true, species, [10.0], rng)
    assert set(rows) == {
        (quantity, model, s, 10.0)
        for quantity in ("median", "iqr", "ratio_to_lcw")
        for model in e_pred
        for s in species
        if (quantity, model) != ("ratio_to_lcw", "lcw")
    }
    lcw, dnn = (e_pred[model] / e_true for model in ("lcw", "dnn"))
    assert rows["iqr", "lcw", "pi0", 10.0][0] == pytest.approx(resolution(lcw[species["pi0"]]))
    assert rows["median", "dnn", "pic", 10.0][0] == pytest.approx(np.median(dnn[species["pic"]]))
    value, error = rows["ratio_to_lcw", "dnn", "pic", 10.0]
    assert abs(value - 0.5) < 4.0 * error
    widths = (rows["iqr", model, "pic", 10.0] for model in ("dnn", "lcw"))
    assert error < value * np.hypot(*(e / v for v, e in widths))  # paired


def test_a_bin_with_too_few_clusters_yields_no_rows(rng):
    e_pred, e_true, species = _sample(rng, 2 * MIN_COUNT - 1)
    rows = rows_of(e_pred, e_true, species, [0.5, 10.0], rng)
    assert {key[2:] for key in rows} == {("pi0", 10.0)}


def test_without_the_reference_there_are_no_ratios(rng):
    e_pred, e_true, species = _sample(rng, 100)
    rows = rows_of({"dnn": e_pred["dnn"]}, e_true, species, [10.0], rng)
    assert {key[0] for key in rows} == {"median", "iqr"}


@pytest.mark.parametrize(("energy", "name"), [(0.3, "0p3gev"), (1.0, "1gev"), (200, "200gev")])
def test_energies_have_names(energy, name):
    assert energy_name(energy) == name


def test_the_bin_of_an_energy_is_a_fifth_of_a_decade():
    assert in_energy_bin([7.9, 8.0, 12.5, 12.7], 10.0).tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_curves_are_made_for_each_model_and_species(rng):
    e_pred, e_true, species = _sample(rng, 4000)
    curves = curves_by_species(
        e_pred, e_true, species, energy_edges(1.0, 100.0, per_decade=1), rng=rng
    )
    assert {model: set(by_species) for model, by_species in curves.items()} == {
        "lcw": {"pi0", "pic"},
        "dnn": {"pi0", "pic"},
    }
    assert curves["lcw"]["pi0"].median.count.tolist() == [0, 2000]
    assert curves["lcw"]["pi0"].resolution.value[1] == pytest.approx(0.2, rel=0.1)


def test_closure_is_the_median_in_bins_of_any_variable_with_errors_that_cover(rng):
    n_bins, n = 300, 200
    eta = np.repeat(np.arange(n_bins) + 0.5, n)
    e_true = rng.uniform(1.0, 100.0, eta.size)
    found = closure_in(
        e_true * rng.normal(0.98, 0.1, eta.size), e_true, eta, np.arange(n_bins + 2), rng=rng
    )
    assert np.mean(np.abs(found.value - 0.98)[:-1] < found.error[:-1]) == pytest.approx(
        0.68, abs=0.08
    )
    assert np.isnan(found.value[-1])
    assert found.count.tolist() == [n] * n_bins + [0]


def test_the_worst_deviation_is_looked_for_inside_the_range_only():
    edges = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    median = Curve(edges, np.array([0.5, 1.02, 0.97, np.nan]), np.full(4, 0.01))
    assert worst_deviation(median, 1.0, 8.0) == pytest.approx((0.03, 0.01))
    assert worst_deviation(median, 0.5, 8.0).value == pytest.approx(0.5)
    assert np.isnan(worst_deviation(median, 4.0, 8.0).value)


def test_the_narrowest_calibration_is_taken_in_each_bin_and_species(rng):
    n = 4000
    e_true, neutral = 10.0 ** rng.uniform(0.0, 2.0, n), rng.random(n) < 0.5
    noise, soft = rng.normal(size=n), e_true < 10.0
    wide = np.where(soft ^ neutral, 0.2, 0.1)  # "b" is the better one for soft neutral clusters ...
    e_pred = {"a": e_true * (1.0 + 0.15 * noise), "b": e_true * (1.0 + wide * noise)}
    species = species_masks(neutral)
    found = narrowest(e_pred, e_true, species, [1.0, 10.0, 100.0], rng=rng)
    assert found.names == {"pi0": ("b", "a"), "pic": ("a", "b")}
    energy = found.take(e_pred, e_true, species)
    bins = np.where(soft, 0, 1)
    scale = np.where(neutral, found.scales["pi0"][bins], found.scales["pic"][bins])
    chosen = np.where(soft == neutral, e_pred["b"], e_pred["a"])
    np.testing.assert_array_equal(energy, chosen * scale)
    np.testing.assert_allclose(scale, 1.0, atol=0.03)
    close = {"a": e_pred["a"], "b": e_true * (1.0 + 0.1499 * rng.normal(size=n))}
    near = narrowest(close, e_true, species, [1.0, 10.0, 100.0], rng=rng)
    assert set(near.names["pi0"] + near.names["pic"]) == {"a"}  # narrower, but not by its error
    few = {name: mask & (np.arange(n) < 40) for name, mask in species.items()}
    assert set(narrowest(e_pred, e_true, few, [1.0, 10.0, 100.0], rng=rng).names["pi0"]) == {"a"}
    assert np.isnan(found.take(e_pred, e_true, few)[40:]).all()
    off = {"a": e_pred["a"], "b": 1.2 * e_pred["b"]}  # at the median of the first one
    again = narrowest(off, e_true, species, [1.0, 10.0, 100.0], rng=rng)
    np.testing.assert_allclose(again.take(off, e_true, species), energy, rtol=1e-9)
