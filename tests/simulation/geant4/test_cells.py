"""Deposits become cells: Birks' law, the gate, the EM scale, the seam in phi, and truth that adds
up; no Geant4 is run.
"""

import numpy as np
import pytest

from pfcalib.geometry import BARREL, WINDOW
from pfcalib.simulation.geant4.cells import collect_event, locate, visible
from pfcalib.simulation.geant4.config import Geant4Config
from pfcalib.simulation.geant4.scoring import MeasurableEnergy, Records

CONFIG = Geant4Config()


class Definition:
    """The three numbers of a Geant4 particle that count."""

    def __init__(self, code, mass, baryons=0):
        self.GetPDGEncoding, self.GetPDGMass, self.GetBaryonNumber = (
            lambda: code,
            lambda: mass,
            lambda: baryons,
        )


def test_birks_law_halves_the_light_where_k_de_dx_is_one():
    deposit = np.array([1.0 / CONFIG.birks_scintillator])
    assert visible(deposit, np.array([1.0]), np.array([False]), CONFIG) == pytest.approx(
        0.5 * deposit
    )


def test_a_minimum_ionising_particle_gives_its_energy_in_liquid_argon():
    """2.1 MeV/cm in liquid argon: the normalisation of the signal undoes Birks' law."""
    assert visible(np.array([0.2105]), np.array([1.0]), np.array([True]), CONFIG) == pytest.approx(
        [0.2105], rel=1e-4
    )


def test_neutral_particles_are_not_quenched():
    assert visible(np.array([3.0]), np.array([0.0]), np.array([False]), CONFIG) == pytest.approx(
        [3.0]
    )


@pytest.mark.parametrize("turn", [0.0, 1.0, np.pi, -np.pi])
def test_points_are_turned_back_with_the_axis(turn):
    points = np.array([[1600.0, 0.0, 400.0], [1600.0, 100.0, -400.0], [1600.0, -100.0, 0.0]])
    eta, phi = (
        np.arcsinh(points[:, 2] / np.hypot(points[:, 0], points[:, 1])),
        np.arctan2(points[:, 1], points[:, 0]),
    )
    assert np.array_equal(
        locate(np.full(3, 2), points, BARREL, turn), BARREL.locate(2, eta, phi + turn)
    )


def test_points_in_dead_material_or_beyond_the_window_have_no_cell():
    points = np.array(
        [[1600.0, 0.0, 0.0], [1600.0, 0.0, 1600.0], [1600.0, 1600.0, 0.0], [1600.0, 0.0, 0.0]]
    )
    assert np.array_equal(
        locate(np.array([-1, 2, 2, 2]), points, WINDOW, 0.0) >= 0, [False, False, False, True]
    )
    assert (
        locate(np.array([2]), points[3:], WINDOW, 2.0 * np.pi)[0]
        == locate(np.array([2]), points[3:], WINDOW, 0.0)[0]
    )


@pytest.fixture
def records():
    """Two deposits in one cell of EMB2, one too late, one in the Tile, and what is nowhere."""
    found = Records()
    for layer, deposit, z, electron, time, length in (
        (2, 1.0, 1.0, 1.0, 5.0, 10.0),
        (2, 2.0, 1.5, 0.0, 300.0, 10.0),
        (4, 4.0, 1.0, 0.0, 5.0, 0.0),
    ):
        found.active.extend((layer, deposit, 1600.0, 1.0, z, electron, time, length))
    found.active.extend((2, 8.0, 1600.0, 1600.0, 0.0, 1.0, 5.0, 1.0))  # beside the window
    found.passive.extend((2, 16.0, 1600.0, 1.0, 1.0, 1.0))
    found.passive.extend((-1, 32.0, 1300.0, 1.0, 1.0, 0.0))
    found.balance.extend((2, 64.0, 1600.0, 1.0, 1.0, 0.0))
    found.balance.extend((2, 128.0, 1600.0, 1.0, 1.0, 1.0))
    found.leak.extend((256.0,))
    found.neutral.extend((500.0, 100.0))
    return found


def test_truth_of_an_event_adds_up(records):
    event = collect_event(records, WINDOW, 0.0, CONFIG)
    assert event.cell.tolist() == [
        int(WINDOW.locate(2, 1e-3, 1e-3)),
        int(WINDOW.locate(4, 1e-3, 1e-3)),
    ]
    assert event.values[:, 1:] == pytest.approx(
        1e-3 * np.array([[17.0, 2.0, 64.0, 128.0], [0.0, 4.0, 0.0, 0.0]])
    )
    assert (event.e_dead, event.e_leak, event.e_pi0) == pytest.approx((0.032, 0.264, 0.6))
    assert event.values[:, 1:].sum() + event.e_dead + event.e_leak == pytest.approx(0.511)
    assert event.tally[2] == pytest.approx([0.016, 0.011])


def test_signal_is_gated_quenched_and_scaled(records):
    event = collect_event(records, WINDOW, 0.0, CONFIG)
    expected = [CONFIG.lar_scale * 1.00733 / (1.0 + 0.0348 * 0.1), CONFIG.tile_scale * 4.0]
    assert event.values[:, 0] == pytest.approx(1e-3 * np.array(expected))


def test_an_event_without_deposits_has_no_cells():
    event = collect_event(Records(), WINDOW, 0.0, CONFIG)
    assert len(event.cell) == 0
    assert event.values.shape == (0, 5)
    assert (event.e_dead, event.e_leak, event.e_pi0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("definition", "rest"),
    [
        (Definition(2212, 938.272, 1), 0.0),
        (Definition(2112, 939.565, 1), 0.0),
        (Definition(1000020040, 3727.4, 4), 0.0),
        (Definition(-2212, 938.272, -1), 1876.544),
        (Definition(3122, 1115.683, 1), 177.411),
        (Definition(-3122, 1115.683, -1), 2053.955),
        (Definition(211, 139.57), 139.57),
        (Definition(11, 0.511), 0.0),
        (Definition(-11, 0.511), 1.022),
        (Definition(22, 0.0), 0.0),
        (Definition(-13, 105.658), 105.658),
    ],
)
def test_measurable_energy_of_particles(definition, rest):
    assert MeasurableEnergy(938.272).rest(definition) == pytest.approx(rest)
