"""Physics whose answer is known: Geant4's published TestEm3, the pi/e of the Tile, the resolution
of electrons.
"""

import numpy as np
import pytest
from studies.geant4_runs import shoot_along_x

from pfcalib.errors import ConfigError


def mean(values):
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def test_test_em3_gives_the_energies_that_geant4_publishes():
    shot = shoot_along_x("em3", 11, 1.0, 300, seed=1)
    assert shot.label.startswith("Geant4 11.")
    for part, published, published_error in ((1, 215.74, 1.3), (0, 774.03, 1.5)):
        value, error = mean(1e3 * shot.tally[:, 0, part])
        assert error < 1.5
        assert abs(value - published) < 3.0 * np.hypot(error, published_error)


def test_pions_give_less_than_electrons_in_the_tile_alone():
    (pion, pion_error), (electron, electron_error) = (
        mean(shoot_along_x("tile", code, 10.0, n, seed=2, calibration_truth=False).signal)
        for code, n in ((-211, 40), (11, 10))
    )
    ratio = pion / electron
    error = ratio * np.hypot(pion_error / pion, electron_error / electron)
    assert error < 0.05
    assert 0.80 - error < ratio < 0.90 + error


def test_electrons_have_the_resolution_of_the_lead_argon_calorimeter():
    signal = shoot_along_x("slice", 11, 5.0, 60, seed=3, calibration_truth=False).signal
    term = signal.std(ddof=1) / signal.mean() * np.sqrt(5.0)
    assert term == pytest.approx(0.115, abs=0.015 + 2.0 * term / np.sqrt(2.0 * 59))


def test_a_run_that_fails_says_why():
    with pytest.raises(ConfigError, match=r"(?s)Geant4 ended with code 1: .*PDG ids"):
        shoot_along_x("slice", 15, 5.0, 1, seed=1)
