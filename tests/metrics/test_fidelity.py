"""Moments of showers are computed by hand once, and fast showers are held against the packaged
Geant4 ones.
"""

import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.metrics.fidelity import shower_moments
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.showerfile import Showers, read_showers
from pfcalib.simulation.digitise import noise_sigma
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.showers import simulate_showers

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
