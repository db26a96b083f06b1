"""Moments of showers are computed by hand once, and fast showers are held against the packaged
Geant4 ones; estimators against known answers; the classifier finds a difference where there is one
and none where there is none.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import ValidationError
from pfcalib.geometry import WINDOW
from pfcalib.metrics import fidelity
from pfcalib.metrics.curve import Curve
from pfcalib.metrics.fidelity import (
    FEATURES,
    Comparison,
    compare_showers,
    feature_table,
    shower_moments,
    tell_apart,
)
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import Showers, read_showers
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers

EDGES = (1.0, 2.0, 4.0)
SIGMA = noise_sigma(WINDOW)


def by_hand():
    """10 GeV in three cells of EMB2 and one of TileBar0, all at phi of the particle; then a shower
    without signal.
    """
    middle = WINDOW.locate(2, np.array([0.0125, 0.0375, 0.1125]), 0.0125)
    tile = int(WINDOW.locate(4, 0.05, 0.05))
    cell = np.array([*middle, tile], np.int32)
    signal = np.array([4.0, 2.0, 1.0, 1.0])
    return Showers(
        np.array([111, 111], np.int32),
        np.array([10.0, 5.0]),
        np.full(2, 0.0125),
        np.full(2, WINDOW.phi[middle[0]]),
        np.array([0, 4, 4]),
        cell,
        signal,
    )


class TestMoments:
    @pytest.fixture
    def moments(self):
        return shower_moments(by_hand(), WINDOW, SIGMA)

    def test_response_and_shares_are_those_computed_by_hand(self, moments):
        assert moments["response"].tolist() == [0.8, 0.0]
        assert moments["share_EMB2"].tolist() == [0.875, 0.0]
        assert moments["share_TileBar0"].tolist() == [0.125, 0.0]
        assert moments["share_EMB1"].tolist() == [0.0, 0.0]

    def test_widths_are_those_computed_by_hand(self, moments):
        """Weights 4, 2, 1 at 0, 0.025, 0.1: mean 0.15/7, mean square (2 x 0.025^2 + 0.1^2)/7."""
        mean, square = 0.15 / 7.0, (2.0 * 0.025**2 + 0.1**2) / 7.0
        assert moments["offset_eta"][0] == pytest.approx(mean)
        assert moments["width_eta_EMB2"][0] == pytest.approx(np.sqrt(square - mean**2))
        assert moments["width_phi_EMB2"][0] == pytest.approx(0.0, abs=1e-9)

    def test_cells_core_and_depth_are_those_computed_by_hand(self, moments):
        assert moments["n_cells"].tolist() == [4, 0]
        assert moments["max_share"].tolist() == [0.5, 0.0]
        assert moments["second_share"].tolist() == [0.25, 0.0]
        assert moments["core"][0] == pytest.approx(6.0 / 7.0)
        radii = WINDOW.layers[2].r, WINDOW.layers[4].r
        assert moments["depth"][0] == pytest.approx(0.875 * radii[0] + 0.125 * radii[1])
        assert moments["depth_width"][0] == pytest.approx(
            (radii[1] - radii[0]) * np.sqrt(0.875 * 0.125)
        )

    def test_a_layer_without_signal_has_no_width(self, moments):
        assert np.isnan(moments["width_eta_EMB1"]).all()
        assert np.isnan(moments["core"][1])

    def test_there_are_twenty_and_more_of_one_length(self, moments):
        assert len(moments) > 20
        assert {values.shape for values in moments.values()} == {(2,)}

    def test_no_showers_have_no_moments(self):
        empty = by_hand().select(np.zeros(2, bool))
        assert all(len(values) == 0 for values in shower_moments(empty, WINDOW, SIGMA).values())


@pytest.fixture(scope="module")
def pair():
    """Geant4 showers and fast ones of the same particles."""
    geant4, _ = read_showers(packaged_sample("geant4_pions"), WINDOW)
    particles = Particles(
        np.arange(len(geant4.e_true)), geant4.pdg_id, geant4.e_true, geant4.eta, geant4.phi
    )
    hits = simulate_showers(particles, WINDOW, np.random.default_rng(6))
    return geant4, geant4._replace(offsets=hits.offsets, cell=hits.cell, signal=hits.signal)


class TestGeant4:
    """The packaged showers are a testing part: the fast showers were tuned on others."""

    @pytest.mark.parametrize(("pdg_id", "limit"), [(111, 0.03), (22, 0.03), (211, 0.05)])
    def test_the_mean_response_agrees_in_each_bin_of_energy(self, pair, pdg_id, limit):
        """Within the limit and three statistical errors of the two means."""
        bins = np.digitize(pair[0].e_true, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0])
        for number in range(7):
            chosen = (bins == number) & (pair[0].pdg_id == pdg_id)
            if chosen.sum() < 100:
                continue
            geant4, fast = (
                np.add.reduceat(np.append(s.signal, 0.0), s.offsets[:-1])[chosen]
                * (np.diff(s.offsets) > 0)[chosen]
                for s in pair
            )
            geant4, fast = geant4 / pair[0].e_true[chosen], fast / pair[0].e_true[chosen]
            error = np.hypot(geant4.std(), fast.std()) / np.sqrt(chosen.sum()) / geant4.mean()
            assert error < 0.04, "too few showers to tell"
            assert fast.mean() / geant4.mean() == pytest.approx(1.0, abs=limit + 3.0 * error), (
                f"bin {number}"
            )

    @pytest.mark.parametrize("pdg_id", [111, 211])
    def test_the_layers_share_the_signal_alike(self, pair, pdg_id):
        """Shares of the summed signal of showers above 2 GeV, within 0.04."""
        chosen = (pair[0].pdg_id == pdg_id) & (pair[0].e_true > 2.0)
        shares = []
        for showers in pair:
            part = showers.select(chosen)
            layer = np.bincount(WINDOW.layer[part.cell], part.signal, WINDOW.n_layers)
            shares.append(layer / layer.sum())
        np.testing.assert_allclose(shares[1], shares[0], atol=0.04)

    def test_particles_of_both_kinds_are_many_enough_to_tell(self, pair):
        kinds, counts = np.unique(pair[0].pdg_id, return_counts=True)
        assert dict(zip(kinds.tolist(), (counts > 1000).tolist(), strict=True)) == {
            22: True,
            111: True,
            211: True,
        }


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
    curves = [Curve(np.arange(len(fast) + 1.0), value, errors) for value in values]
    return Comparison(quantity, "", *curves, 0.05)


def test_the_errors_of_mean_and_rms_are_the_spread_of_repeated_samples(rng):
    samples = rng.gamma(2.0, 1.0, (2000, 200))
    for estimator, truth in ((fidelity.mean, 2.0), (fidelity.rms, np.sqrt(2.0))):
        values, errors = np.array([estimator(sample) for sample in samples]).T
        assert values.mean() == pytest.approx(truth, rel=0.02)
        assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_the_error_of_a_ratio_of_sums_is_the_spread_of_repeated_samples(rng):
    whole = rng.uniform(1.0, 10.0, (2000, 200))
    part = whole * rng.beta(2.0, 6.0, whole.shape)
    values, errors = np.array(
        [fidelity.ratio_of_sums(*one) for one in zip(part, whole, strict=True)]
    ).T
    assert values.mean() == pytest.approx(0.25, rel=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_too_few_showers_give_nan():
    few = np.ones(fidelity.MIN_COUNT - 1)
    for result in (
        fidelity.mean(few),
        fidelity.rms(few),
        fidelity.ratio_of_sums(few, few),
    ):
        assert np.isnan(result).all()


def test_samples_of_one_parent_agree_within_their_errors(rng):
    compared = compare_showers(*_moments(rng, 4000), *_moments(rng, 4000), EDGES)
    assert {c.quantity for c in compared} == set(fidelity.LIMITS)
    pulls = np.concatenate(
        [c.deviation.value[c.compared] / c.deviation.error[c.compared] for c in compared]
    )
    assert np.std(pulls) == pytest.approx(1.0, abs=0.35)
    assert np.abs(pulls).max() < 4.5


def test_a_shift_of_the_scale_is_found_in_response_and_rms_only(rng):
    compared = compare_showers(*_moments(rng, 8000, scale=1.2), *_moments(rng, 8000), EDGES)
    failed = {c.quantity for c in compared if not c.within[c.compared].all()}
    assert failed == {"response", "rms"}
    assert fidelity.worst(compared, "response").value == pytest.approx(0.2, abs=0.02)


def test_a_share_differs_absolutely_and_the_rest_relatively():
    assert _comparison([0.30], [0.25], "share").deviation.value == pytest.approx([0.05])
    ratio = _comparison([0.30], [0.25])
    assert ratio.deviation.value == pytest.approx([0.2])
    assert ratio.deviation.error == pytest.approx([1.2 * np.hypot(0.01 / 0.30, 0.01 / 0.25)])


def test_an_empty_bin_is_neither_within_nor_compared():
    compared = _comparison([1.0, np.nan, 1.1], [1.0, 1.0, 1.0])
    assert compared.compared.tolist() == [True, False, True]
    assert compared.within.tolist() == [True, False, False]


def test_the_table_counts_passed_over_made(rng):
    rows = fidelity.count_within(
        {"pi0": compare_showers(*_moments(rng, 4000), *_moments(rng, 4000), EDGES)}
    )
    assert [row[:2] for row in rows] == [["pi0", quantity] for quantity in fidelity.LIMITS]
    assert rows[0][3:] == ["1 / 1", "1 / 1", "2 / 2"]


def test_a_quantity_without_a_bin_has_no_worst_one():
    with pytest.raises(ValueError, match="no bin"):
        fidelity.worst([_comparison([np.nan], [np.nan])], "response")


def test_copies_are_of_the_particles_of_the_reference_and_conserve_energy(rng):
    showers = fidelity.select_showers(
        read_showers(packaged_sample("geant4_pions"), WINDOW)[0], (111, 211), EDGES, n_max=5
    )
    copies, hits = fidelity.simulate_copies(showers, WINDOW, rng, copies=3)
    assert copies.e_true == pytest.approx(np.repeat(showers.e_true, 3))
    assert copies.pdg_id.tolist() == np.repeat(showers.pdg_id, 3).tolist()
    in_cells = np.bincount(hits.event, hits.em + hits.non_em + hits.invisible + hits.escaped)
    assert in_cells + hits.e_dead + hits.e_leak == pytest.approx(hits.e_total, rel=1e-9)
    with pytest.raises(ValueError, match="at least 1"):
        fidelity.simulate_copies(showers, WINDOW, rng, copies=0)


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
    assert fidelity.select_showers(showers, (111,), EDGES, n_max=9).e_true.tolist() == [
        1.5,
        2.5,
    ]
    assert fidelity.select_showers(showers, (111, 211), EDGES, n_max=1).e_true.tolist() == [
        1.5,
        1.5,
    ]
    with pytest.raises(ValidationError, match="PDG id 22 "):
        fidelity.select_showers(showers, (22,), EDGES, n_max=1)


def test_a_profile_is_the_energy_of_each_layer_a_unit_of_depth():
    thickness = np.array([1.0, 2.0, 4.0, 1.0, 8.0])  # presampler, EMB1, EMB2, EMB3, TileBar0
    many = [by_hand()._replace(e_true=np.array([10.0, e])) for e in (5.0, 50.0)]
    both, alone = (
        fidelity.layer_profile(showers, WINDOW, thickness, (2.0, 20.0)) for showers in many
    )
    assert alone.edges.tolist() == [0.0, 2.0, 6.0, 7.0, 15.0]
    # 7 GeV of EMB2 and 1 of TileBar0, of 10 GeV; the other shower left nothing
    assert both.value == pytest.approx([0.0, 0.7 / 4.0 / 2.0, 0.0, 0.1 / 8.0 / 2.0])
    # of two values 0 and x the error of the mean is x / 2
    assert both.error == pytest.approx(both.value)
    assert alone.value == pytest.approx(2.0 * both.value)


def test_there_are_twenty_moments():
    assert len(set(FEATURES)) == 20


def test_equal_samples_are_not_told_apart(rng):
    geant4, fast = rng.normal(size=(600, 21)), rng.normal(size=(1200, 21))
    found = tell_apart(fast, geant4, copies=2, seed=1, n_folds=3)
    assert abs(found.auc.value - 0.5) < 4.0 * found.auc.error
    assert found.score.shape == found.is_fast.shape == (1800,)


def test_a_shift_of_one_moment_is_found_and_named(rng):
    geant4, fast = rng.normal(size=(600, 21)), rng.normal(size=(600, 21))
    place = FEATURES.index("core")
    fast[:, place] += 2.0
    found = tell_apart(fast, geant4, copies=1, seed=1, n_folds=3)
    assert 0.85 < found.auc.value < 0.93  # the best possible is Phi(2 / sqrt 2) = 0.921
    assert next(iter(found.importance)) == "core"


def test_a_moment_that_no_shower_has_is_no_obstacle(rng):
    geant4, fast = rng.normal(size=(100, 21)), rng.normal(size=(100, 21))
    geant4[:, 3] = fast[:, 3] = np.nan
    assert abs(tell_apart(fast, geant4, copies=1, seed=1, n_folds=2).auc.value - 0.5) < 0.3


def test_copies_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match="expected 2 copies of 10"):
        tell_apart(np.zeros((10, 21)), np.zeros((10, 21)), copies=2, seed=1)


def test_a_layer_below_its_noise_counts_as_empty():
    moments = {name: np.full(2, 0.5) for name in FEATURES}
    moments |= {f"share_{name}": np.full(2, 0.1) for name in LAYER_NAMES}
    # 0.05 and 5 GeV a layer, noise 0.1 GeV
    table = feature_table(moments, np.array([1.0, 100.0]), dict.fromkeys(LAYER_NAMES, 0.1))
    columns = dict(zip(FEATURES, table.T, strict=False))
    assert columns["share_EMB1"][0] == 0.0
    assert columns["share_EMB1"][1] == 0.1
    assert np.isnan(columns["width_eta_EMB2"][0])
    assert columns["width_eta_EMB2"][1] == 0.5
    assert columns["response"].tolist() == [0.5, 0.5]
    assert table[:, -1].tolist() == [0.0, 2.0]
