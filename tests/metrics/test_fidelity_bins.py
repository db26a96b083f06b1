"""Comparisons in bins of energy: estimators against known answers, and equal samples within the
statistics.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.geometry import WINDOW
from pfcalib.metrics import fidelity_bins
from pfcalib.metrics.fidelity_bins import Comparison, compare_showers
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import Showers, read_showers

EDGES = (1.0, 2.0, 4.0)


def _moments(rng, n, *, scale=1.0):
    shares = rng.dirichlet(np.full(7, 2.0), n)
    moments = {
        "response": scale * rng.normal(0.8, 0.1, n),
        "n_cells": rng.poisson(20.0, n).astype(float),
    }
    for i, name in enumerate(LAYER_NAMES):
        moments |= {
            f"share_{name}": shares[:, i],
            f"width_eta_{name}": rng.gamma(4.0, 0.01, n),
            f"width_phi_{name}": rng.gamma(4.0, 0.01, n),
        }
    return moments, rng.uniform(1.0, 4.0, n)


def _comparison(fast, geant4, quantity="response", error=0.01):
    values = [np.array(values, dtype=float) for values in (fast, geant4)]
    errors = np.full(len(fast), error)
    return Comparison(
        quantity, "", np.arange(len(fast) + 1.0), values[0], errors, values[1], errors, 0.05
    )


def test_the_errors_of_mean_and_rms_are_the_spread_of_repeated_samples(rng):
    samples = rng.gamma(2.0, 1.0, (2000, 200))
    for estimator, truth in ((fidelity_bins.mean, 2.0), (fidelity_bins.rms, np.sqrt(2.0))):
        values, errors = np.array([estimator(sample) for sample in samples]).T
        assert values.mean() == pytest.approx(truth, rel=0.02)
        assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_the_error_of_a_ratio_of_sums_is_the_spread_of_repeated_samples(rng):
    whole = rng.uniform(1.0, 10.0, (2000, 200))
    part = whole * rng.beta(2.0, 6.0, whole.shape)
    values, errors = np.array(
        [fidelity_bins.ratio_of_sums(*one) for one in zip(part, whole, strict=True)]
    ).T
    assert values.mean() == pytest.approx(0.25, rel=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_too_few_showers_give_nan():
    few = np.ones(fidelity_bins.MIN_COUNT - 1)
    for result in (
        fidelity_bins.mean(few),
        fidelity_bins.rms(few),
        fidelity_bins.ratio_of_sums(few, few),
    ):
        assert np.isnan(result).all()


def test_samples_of_one_parent_agree_within_their_errors(rng):
    compared = compare_showers(*_moments(rng, 4000), *_moments(rng, 4000), EDGES)
    assert {c.quantity for c in compared} == set(fidelity_bins.LIMITS)
    pulls = np.concatenate([c.deviation[c.compared] / c.error[c.compared] for c in compared])
    assert np.std(pulls) == pytest.approx(1.0, abs=0.35)
    assert np.abs(pulls).max() < 4.5


def test_a_shift_of_the_scale_is_found_in_response_and_rms_only(rng):
    compared = compare_showers(*_moments(rng, 8000, scale=1.2), *_moments(rng, 8000), EDGES)
    failed = {c.quantity for c in compared if not c.within[c.compared].all()}
    assert failed == {"response", "rms"}
    assert fidelity_bins.worst(compared, "response").value == pytest.approx(0.2, abs=0.02)


def test_a_share_differs_absolutely_and_the_rest_relatively():
    assert _comparison([0.30], [0.25], "share").deviation == pytest.approx([0.05])
    ratio = _comparison([0.30], [0.25])
    assert ratio.deviation == pytest.approx([0.2])
    assert ratio.error == pytest.approx([1.2 * np.hypot(0.01 / 0.30, 0.01 / 0.25)])


def test_an_empty_bin_is_neither_within_nor_compared():
    compared = _comparison([1.0, np.nan, 1.1], [1.0, 1.0, 1.0])
    assert compared.compared.tolist() == [True, False, True]
    assert compared.within.tolist() == [True, False, False]


def test_the_table_counts_passed_over_made(rng):
    rows = fidelity_bins.count_within(
        {"pi0": compare_showers(*_moments(rng, 4000), *_moments(rng, 4000), EDGES)}
    )
    assert [row[:2] for row in rows] == [["pi0", quantity] for quantity in fidelity_bins.LIMITS]
    assert rows[0][3:] == ["1 / 1", "1 / 1", "2 / 2"]


def test_a_quantity_without_a_bin_has_no_worst_one():
    with pytest.raises(ValueError, match="no bin"):
        fidelity_bins.worst([_comparison([np.nan], [np.nan])], "response")


def test_copies_are_of_the_particles_of_the_reference_and_conserve_energy(rng):
    showers = fidelity_bins.select_showers(
        read_showers(packaged_sample("geant4_pions"), WINDOW)[0], (111, 211), EDGES, n_max=5
    )
    copies, hits = fidelity_bins.simulate_copies(showers, WINDOW, rng, copies=3)
    assert copies.e_true == pytest.approx(np.repeat(showers.e_true, 3))
    assert copies.pdg_id.tolist() == np.repeat(showers.pdg_id, 3).tolist()
    assert fidelity_bins.energy_balance(hits) < 1e-9
    with pytest.raises(ValueError, match="at least 1"):
        fidelity_bins.simulate_copies(showers, WINDOW, rng, copies=0)


def test_showers_are_chosen_by_kind_and_energy_in_their_order():
    n = 6
    kinds, energies = (
        np.array([111, 111, 211, 111, 211, 111], np.int32),
        np.array([0.5, 1.5, 1.5, 2.5, 3.0, 9.0]),
    )
    showers = Showers(
        kinds,
        energies,
        np.zeros(n),
        np.zeros(n),
        np.arange(n + 1),
        np.arange(n, dtype=np.int32),
        np.ones(n),
    )
    assert fidelity_bins.select_showers(showers, (111,), EDGES, n_max=9).e_true.tolist() == [
        1.5,
        2.5,
    ]
    assert fidelity_bins.select_showers(showers, (111, 211), EDGES, n_max=1).e_true.tolist() == [
        1.5,
        1.5,
    ]
    with pytest.raises(ValidationError, match="PDG id 22 "):
        fidelity_bins.select_showers(showers, (22,), EDGES, n_max=1)


def test_speed_is_positive_and_carries_an_error(rng):
    speed = fidelity_bins.measure_speed(WINDOW, rng, n_events=5, repeats=2)
    assert speed.showers > 0.0
    assert speed.energy > 0.0
    assert speed.error >= 0.0
