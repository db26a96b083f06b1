"""Efficiency at a rate: cuts keep what they may, errors are those of exponentials."""

import numpy as np
import pytest

from pfcalib.trigger.rates import cut_at_rate


def test_a_cut_keeps_no_more_than_the_share_also_where_scores_are_the_same(rng):
    scores = {"fine": rng.normal(size=5000), "coarse": rng.integers(0, 50, 5000)}
    for name, found in cut_at_rate(scores, 0.01, rng=rng).items():
        kept = np.mean(scores[name] > found.cut)
        assert kept == found.rate <= 0.01
        below = scores[name][scores[name] <= found.cut].max()
        assert np.mean(scores[name] >= below) > 0.01


def test_cut_and_efficiency_of_exponentials_and_their_errors(rng):
    # the cut at a share s lies at -ln s, with an error of (s n)^(-1/2); the efficiency of a signal
    # that is k times as long is s^(1/k)
    n, share, k = 200_000, 1e-3, 4.0
    signal = k * rng.exponential(size=20_000)
    found = cut_at_rate({"a": rng.exponential(size=n)}, share, rng=rng)["a"]
    error = (share * n) ** -0.5
    assert found.cut == pytest.approx(-np.log(share), abs=4.0 * error)
    assert found.cuts.std() == pytest.approx(error, rel=0.35)
    expected = share ** (1.0 / k)
    of_cut = expected * error / k
    of_signal = np.sqrt(expected * (1.0 - expected) / len(signal))
    total = np.hypot(of_cut, of_signal)
    assert found.efficiency(signal) == pytest.approx(expected, abs=4.0 * total)
    resamples = found.efficiencies(signal, seed=1)
    assert resamples.std() == pytest.approx(total, rel=0.35)


def test_triggers_that_agree_share_their_resamples(rng):
    scores = rng.exponential(size=20_000)
    found = cut_at_rate({"a": scores, "b": 2.0 * scores}, 0.01, rng=rng)
    np.testing.assert_allclose(found["b"].cuts, 2.0 * found["a"].cuts)
    signal = 3.0 * rng.exponential(size=500)
    one = found["a"].efficiencies(signal, seed=4)
    np.testing.assert_array_equal(found["b"].efficiencies(2.0 * signal, seed=4), one)


def test_a_share_below_one_crossing_is_refused(rng):
    with pytest.raises(ValueError, match="less than one"):
        cut_at_rate({"a": rng.normal(size=100)}, 1e-3, rng=rng)
