"""Physics whose answer is known: Geant4's published TestEm3, the pi/e of the Tile, the resolution
of electrons.
"""

import pytest

from pfcalib.simulation.geant4.benchmarks import (
    EM3_LAR,
    EM3_LEAD,
    simulate_electron_resolution,
    simulate_em3,
    simulate_pi_over_e,
    simulate_speed,
)


def test_test_em3_gives_the_energies_that_geant4_publishes():
    report = simulate_em3(300, seed=1)
    assert report.label.startswith("Geant4 11.")
    for measured, (value, error) in ((report.lar, EM3_LAR), (report.lead, EM3_LEAD)):
        assert measured.error < 1.5
        assert abs(measured.value - value) < 3.0 * (measured.error**2 + error**2) ** 0.5


def test_pions_give_less_than_electrons_in_the_tile_alone():
    ratio = simulate_pi_over_e(40, 10, seed=2)
    assert 0.80 - ratio.error < ratio.value < 0.90 + ratio.error
    assert ratio.error < 0.05


def test_electrons_have_the_resolution_of_the_lead_argon_calorimeter():
    term = simulate_electron_resolution(60, seed=3)
    assert 0.10 - 2.0 * term.error < term.value < 0.13 + 2.0 * term.error


def test_speed_is_told():
    report = simulate_speed(11, 1.0, 5, seed=4)
    assert report.gev_per_second == pytest.approx(5.0 / report.seconds)
