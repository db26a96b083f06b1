"""Overlaps are areas that can be counted, doubles go, and photons are paired once."""

import numpy as np
import pytest

from pfcalib.photons.boxes import distances, overlaps, pair, suppress
from pfcalib.photons.photonmaps import ETA_CELL, N_PHI


def test_overlaps_are_those_counted_on_a_fine_grid_also_across_the_seam(rng):
    low = np.column_stack([rng.integers(0, 8, 20), rng.integers(-6, 6, 20)]) * 0.5
    box = np.hstack([low, low + rng.integers(1, 9, (20, 2)) * 0.5])
    eta, phi = np.meshgrid(np.arange(-40, 60) * 0.25 + 0.1, np.arange(-60, 60) * 0.25 + 0.1)
    inside = [
        (eta > b[0]) & (eta < b[2]) & (phi > b[1]) & (phi < b[3]) for b in box
    ]  # fmt: skip
    moved = box.copy()
    moved[:, 1::2] += N_PHI * rng.integers(-1, 2, 20)[:, None]
    found = overlaps(box, moved)
    for i in range(20):
        for j in range(20):
            counted = (inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum()
            assert found[i, j] == pytest.approx(counted, abs=1e-9)


def test_the_best_of_doubles_stays_and_neighbours_do():
    box = np.array([[0.0, 0, 3, 4], [0.5, 0, 3.5, 4], [0, 3, 3, 7], [0, 255, 3, 259]])
    stays = suppress(box, np.array([0.8, 0.9, 0.5, 0.7]), 0.4)
    assert stays.tolist() == [1, 2]  # the last one lies across the seam
    assert suppress(box, np.array([0.8, 0.9, 0.5, 0.7]), 0.9).tolist() == [1, 0, 3, 2]


def test_each_photon_is_taken_once_by_the_first_that_is_near():
    truth = np.array([[10.0, 0.5], [12.0, 0.5]])
    found = np.array([[10.9, 0.5], [10.2, N_PHI + 0.5], [12.1, 0.4], [30.0, 0.5]])
    assert pair(found, truth, 2.0 * ETA_CELL).tolist() == [0, 1, -1, -1]
    assert pair(found[1:], truth, 1.5 * ETA_CELL).tolist() == [0, 1, -1]
    assert pair(found[:1], truth, 1.5 * ETA_CELL).tolist() == [0]
    assert pair(found, truth[:0], 1.0).tolist() == [-1] * 4
    assert distances(found[1:2], truth)[0, 0] == pytest.approx(0.2 * ETA_CELL)
