"""Each step of the calibration takes away what it is made for and leaves the rest alone."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.jets.sequential import (
    FLOOR,
    SequenceConfig,
    apply_sequence,
    fit_residual,
    fit_sequence,
    fit_spline_scale,
    pile_up_slopes,
)
from pfcalib.metrics.response import resolution

N = 4000


@pytest.fixture(scope="module")
def toy():
    """True pT, three even variables, and noise of the logarithm."""
    rng = np.random.default_rng(3)
    pt_true = np.exp(rng.uniform(np.log(10.0), np.log(300.0), N))
    return pt_true, rng.random((3, N)), 0.08 * rng.standard_normal(N)


def test_what_is_linear_in_pile_up_is_found_and_taken_and_the_scale_stays():
    rng = np.random.default_rng(1)
    mu = rng.choice([20.0, 40.0, 60.0], 500)
    npv = rng.poisson(0.7 * mu)
    excess = 2.0 + 0.3 * npv - 0.1 * mu
    np.testing.assert_allclose(pile_up_slopes(excess, npv, mu), [0.3, -0.1])
    residual = fit_residual(20.0 + excess, np.full(500, 20.0), npv, mu)
    corrected = residual.apply(20.0 + excess, npv, mu)
    np.testing.assert_allclose(corrected, np.mean(20.0 + excess))
    assert residual.apply([0.5], [200.0], [20.0])[0] == FLOOR


def test_the_spline_reads_any_smooth_response_backwards_in_each_bin(toy):
    pt_true, u, _ = toy
    eta = 1.2 * u[0] - 0.6
    response = (0.5 + 0.08 * np.log(pt_true)) * np.where(np.abs(eta) < 0.3, 1.0, 0.8)
    scale = fit_spline_scale(response * pt_true, pt_true, eta, eta_edges=(0.0, 0.3, 0.6), n_knots=6)
    inner = (pt_true > 12.0) & (pt_true < 250.0)
    np.testing.assert_allclose(
        scale.apply(response * pt_true, eta)[inner] / pt_true[inner], 1.0, atol=3e-3
    )


def test_the_scale_of_noisy_jets_closes_at_a_given_true_pt(toy):
    pt_true, _, noise = toy
    pt = 0.7 * pt_true * np.exp(noise)
    scale = fit_spline_scale(pt, pt_true, np.zeros(N), eta_edges=(0.0, 1.0))
    found = scale.apply(pt, np.zeros(N)) / pt_true
    place = np.digitize(pt_true, [15.0, 30.0, 60.0, 120.0, 250.0])
    assert all(abs(np.median(found[place == b]) - 1.0) < 0.012 for b in range(1, 5))


def test_edges_that_do_not_rise_and_empty_bins_are_refused(toy):
    pt_true = toy[0]
    with pytest.raises(ConfigError, match="increase"):
        fit_spline_scale(pt_true, pt_true, np.zeros(N), eta_edges=(0.3, 0.0))
    with pytest.raises(ValidationError, match="0 jets"):
        fit_spline_scale(pt_true, pt_true, np.zeros(N), eta_edges=(0.0, 0.3, 0.6))


def test_a_sequence_reaches_what_one_variable_at_a_time_can_tell_and_no_more(toy):
    pt_true, u, noise = toy
    alone = 0.5 * (u[0] - 0.5) + 0.4 * (u[1] ** 2 - 1.0 / 3.0)
    product = 1.2 * (u[0] - 0.5) * (u[2] - 0.5)
    pt = pt_true * np.exp(alone + product + noise)
    variables = {f"u{i}": x for i, x in enumerate(u)}
    fit = np.arange(N) < N // 2
    steps = fit_sequence(
        pt[fit], pt_true[fit], {k: x[fit] for k, x in variables.items()},
        SequenceConfig(n_pt=5, n_bins=8),
    )  # fmt: skip
    response = apply_sequence(steps, pt, variables)[~fit] / pt_true[~fit]
    limit = resolution(np.exp(product + noise)[~fit])
    assert resolution(pt[~fit] / pt_true[~fit]) > 1.3 * limit
    assert 0.95 * limit < resolution(response) < 1.08 * limit


def test_the_response_at_a_given_momentum_stays(toy):
    pt_true, u, noise = toy
    pt = 0.8 * pt_true * np.exp(0.4 * (u[0] - 0.5) * np.log(pt_true) / 3.0 + noise)
    done = apply_sequence(fit_sequence(pt, pt_true, {"u": u[0]}), pt, {"u": u[0]})
    place = np.digitize(pt_true, [15.0, 30.0, 60.0, 120.0, 250.0])
    for b in range(1, 5):
        before, after = (np.median((x / pt_true)[place == b]) for x in (pt, done))
        assert after == pytest.approx(before, abs=0.03)  # 0.8 within errors


def test_a_step_with_a_threshold_leaves_softer_jets_alone(toy):
    pt_true, u, noise = toy
    pt = pt_true * np.exp(0.4 * (u[0] - 0.5) + noise)
    steps = fit_sequence(pt, pt_true, {"u": u[0]}, pt_min={"u": 50.0})
    done = apply_sequence(steps, pt, {"u": u[0]})
    assert np.array_equal(done[pt <= 50.0], pt[pt <= 50.0])
    assert np.mean(done[pt > 50.0] != pt[pt > 50.0]) > 0.99


def test_a_variable_that_is_the_same_for_all_jets_does_nothing(toy):
    pt_true, _, noise = toy
    pt, same = pt_true * np.exp(noise), {"u": np.ones(N)}
    np.testing.assert_allclose(apply_sequence(fit_sequence(pt, pt_true, same), pt, same), pt)
