"""Measures of jets are held against toys whose answer is known, and their errors against repeated
experiments in which the jets of an event go together.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.jetperformance import (
    FoundJets,
    Resampled,
    combine,
    half_width,
    measure_in_bins,
    pile_up_jets,
    pile_up_part,
)
from pfcalib.metrics.response import resolution

median = functools.partial(np.median, axis=-1)
GAUSSIAN = 0.994458  # half of the central 68 % of a unit Gaussian


def covered(value, error, truth):
    return np.mean(np.abs(value - truth) < error)


class TestInBins:
    def test_errors_cover_the_truth_also_where_the_jets_of_an_event_measure_the_same(self, rng):
        """In 68 % of the bins, each an experiment; errors of single jets would be too small by
        sqrt(2).
        """
        n_bins, n_events = 100, 100
        event = np.repeat(np.arange(n_bins * n_events), 2)
        response = 1.0 + 0.1 * rng.normal(size=n_bins * n_events)[event]
        bins, edges = event // n_events, np.arange(n_bins + 1)
        for statistic, truth in ((median, 1.0), (resolution, 0.1 * GAUSSIAN)):
            found = measure_in_bins(
                statistic, {"a": response}, bins, event, edges, rng=rng, n_bootstrap=40
            )["a"]
            assert covered(found.value, found.error, truth) == pytest.approx(0.68, abs=0.12)
            naive = measure_in_bins(
                statistic, {"a": response[:2000]}, bins[:2000], np.arange(2000), edges[:11],
                rng=rng, n_bootstrap=40,
            )["a"]  # fmt: skip
            assert naive.error.mean() < 0.85 * found.error.mean()

    def test_the_bins_are_those_of_a_plain_selection_and_small_ones_are_unknown(self, rng):
        pt_true = rng.uniform(10.0, 40.0, 300)
        pt_true[:5] = 55.0
        pt = {"a": rng.normal(1.0, 0.1, 300), "b": rng.normal(0.9, 0.2, 300)}
        found = measure_in_bins(
            resolution, pt, pt_true, np.arange(300), [10.0, 20.0, 40.0, 60.0], rng=rng
        )
        for name, values in pt.items():
            assert found[name].value[0] == resolution(values[(pt_true >= 10.0) & (pt_true < 20.0)])
            assert found[name].value[1] == resolution(values[(pt_true >= 20.0) & (pt_true < 40.0)])
            assert np.isnan([found[name].value[2], found[name].error[2]]).all()

    def test_no_jets_are_no_measure(self, rng):
        found = measure_in_bins(resolution, {"a": []}, [], [], [10.0, 20.0], rng=rng)
        assert np.isnan(found["a"].value).all()

    def test_what_is_not_finite_or_of_another_length_is_refused(self, rng):
        with pytest.raises(ValueError, match="b: value 1 is not finite"):
            measure_in_bins(
                median, {"a": [1.0, 1.0], "b": [1.0, np.nan]}, [1, 1], [0, 1], [0, 2], rng=rng
            )
        with pytest.raises(ValueError, match="expected one shape"):
            measure_in_bins(median, {"a": [1.0, 1.0]}, [1, 1], [0], [0, 2], rng=rng)


class TestCombine:
    def test_a_ratio_of_methods_on_the_same_jets_has_the_error_of_the_pair(self, rng):
        """Widths 0.1 and 0.2 of which the most is shared: in 68 % of the experiments one half."""
        n_bins, n = 100, 200
        event = np.arange(n_bins * n)
        shared = rng.normal(size=event.size)
        pt = {
            "pflow": 1.0 + 0.08 * shared + 0.06 * rng.normal(size=event.size),
            "lcw": 1.0 + 0.2 * shared,
        }
        found = measure_in_bins(
            resolution, pt, event // n, event, np.arange(n_bins + 1), rng=rng, n_bootstrap=40
        )
        ratio = combine(np.divide, found["pflow"], found["lcw"])
        assert covered(ratio.value, ratio.error, 0.5) == pytest.approx(0.68, abs=0.12)
        apart = [found[name].error / found[name].value for name in pt]
        assert np.mean(ratio.error / ratio.value) < 0.8 * np.mean(np.hypot(*apart))
        assert Estimate(1.0 - ratio.value[0], ratio.error[0]).significance > 5.0

    def test_a_method_is_no_better_than_itself(self):
        one = Resampled(np.array([0.2, 0.3]), np.array([[0.1, 0.3], [0.2, 0.2]]))
        ratio = combine(np.divide, one, one)
        assert ratio.value.tolist() == [1.0, 1.0]
        assert ratio.error.tolist() == [0.0, 0.0]

    def test_pile_up_adds_in_quadrature(self, rng):
        """30 GeV jets of 3 GeV without and 5 GeV with pile-up: 4 GeV of pile-up."""
        n_bins, n = 100, 200
        event, edges = np.arange(n_bins * n), np.arange(n_bins + 1)
        with_pile_up, without = (
            measure_in_bins(
                resolution, {"a": rng.normal(30.0, width, event.size) / 30.0}, event // n, event,
                edges, rng=rng, n_bootstrap=40,
            )["a"]
            for width in (5.0, 3.0)
        )  # fmt: skip
        part = pile_up_part(with_pile_up, without, np.full(n_bins, 30.0))
        assert np.mean(part.value) == pytest.approx(4.0 * GAUSSIAN, abs=0.15)
        assert covered(part.value, part.error, 4.0 * GAUSSIAN) == pytest.approx(0.68, abs=0.12)
        back = pile_up_part(without, with_pile_up, 30.0)
        np.testing.assert_array_equal(back.value, -part.value)


@pytest.mark.parametrize("width", [0.01, 0.05])
def test_the_core_of_a_gaussian_is_its_width_whatever_lies_far_out(width, rng):
    shift = np.append(rng.normal(0.002, width, 50_000), np.full(500, 1.0))
    assert half_width(shift) == pytest.approx(width, rel=0.03)


def found(rng, n_events, *, slope=10.0, mean=3.0, same=False):
    """One truth jet an event, found with uniform pT of 0 to 100 GeV; pile-up jets fall
    exponentially. `same`: all jets of pile-up of an event have one pT.
    """
    n_pile_up = rng.poisson(mean, n_events)
    event = np.repeat(np.arange(n_events), n_pile_up)
    pt = rng.exponential(slope, n_events)[event] if same else rng.exponential(slope, event.size)
    return FoundJets(rng.uniform(0.0, 100.0, n_events), np.arange(n_events), pt, event)


class TestPileUpJets:
    def test_their_number_at_an_efficiency_is_the_known_one(self, rng):
        efficiency = np.array([0.5, 0.8, 0.9, 0.99])
        at = pile_up_jets({"a": found(rng, 50_000)}, 50_000, efficiency, rng=rng, n_bootstrap=50)
        expected = 3.0 * np.exp(-100.0 * (1.0 - efficiency) / 10.0)
        assert np.all(np.abs(at["a"].value - expected) < 4.0 * at["a"].error)
        np.testing.assert_allclose(at["a"].value[1:], expected[1:], rtol=0.05)

    @pytest.mark.parametrize("same", [False, True])
    def test_errors_cover_the_truth(self, rng, same):
        experiments = [
            pile_up_jets({"a": found(rng, 300, same=same)}, 300, [0.9], rng=rng, n_bootstrap=40)[
                "a"
            ]
            for _ in range(100)
        ]
        value, error = (
            np.array([getattr(a, key)[0] for a in experiments]) for key in ("value", "error")
        )
        assert covered(value, error, 3.0 * np.exp(-1.0)) == pytest.approx(0.68, abs=0.12)

    def test_methods_share_the_resamples(self, rng):
        one = found(rng, 500)
        half = one._replace(
            pile_up_pt=one.pile_up_pt[one.pile_up_event % 2 == 0],
            pile_up_event=one.pile_up_event[one.pile_up_event % 2 == 0],
        )
        at = pile_up_jets({"a": one, "again": one, "half": half}, 500, [0.9], rng=rng)
        assert combine(np.divide, at["again"], at["a"]).error == 0.0
        ratio = combine(np.divide, at["half"], at["a"])
        assert abs(ratio.value - 0.5) < 4.0 * ratio.error

    def test_a_cut_that_no_jet_passes_or_an_efficiency_that_none_reaches(self, rng):
        lost = FoundJets(
            np.array([40.0, 30.0, 0.0, 20.0]),
            np.arange(4),
            np.array([35.0, 20.0]),
            np.array([0, 9]),
        )
        at = pile_up_jets({"a": lost}, 10, [0.25, 0.5, 0.75, 0.8], rng=rng)["a"]
        np.testing.assert_array_equal(at.value, [0.0, 0.1, 0.2, np.nan])  # a jet at the cut counts
        none = FoundJets(*(np.array([], dtype=t) for t in (float, int, float, int)))
        assert np.isnan(pile_up_jets({"a": none}, 10, [0.9], rng=rng)["a"].value).all()

    @pytest.mark.parametrize("efficiency", [0.0, 1.1, np.nan])
    def test_efficiencies_are_shares(self, efficiency, rng):
        with pytest.raises(ValueError, match=r"expected in \(0, 1\]"):
            pile_up_jets({"a": found(rng, 10)}, 10, [efficiency], rng=rng)
