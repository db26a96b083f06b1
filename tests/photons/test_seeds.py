"""Sums over boxes are those of their cells, and windows and clusters find what was put there."""

import numpy as np
import pytest

from pfcalib.geometry import BARREL
from pfcalib.photons.boxes import distances
from pfcalib.photons.pairs import EMB2
from pfcalib.photons.photonmaps import EM_CELLS, N_ETA, N_PHI, PARTS, to_maps
from pfcalib.photons.seeds import (
    Seeds,
    box_energy,
    boxes_about,
    cluster_seeds,
    seed_features,
    slide_window,
    towers,
)
from pfcalib.simulation.digitise import noise_sigma

PLACES = np.array([[20.5, 0.5], [20.5, 8.5], [1.5, 100.5], [40.5, 200.5]])
ENERGIES = np.array([30.0, 20.0, 12.0, 8.0])


@pytest.fixture
def event(rng):
    """Spots of nine cells of EMB2 with most of their energy in the middle, and noise."""
    cells = rng.standard_normal(EM_CELLS.stop - EM_CELLS.start) * noise_sigma(BARREL)[EM_CELLS]
    middle = cells[PARTS[1]].reshape(N_ETA, N_PHI)
    shape = np.outer([1, 3, 1], [1, 3, 1]) / 25.0
    for (eta, phi), energy in zip(PLACES.astype(int), ENERGIES, strict=True):
        for i in range(3):
            for j in range(3):
                middle[eta + i - 1, (phi + j - 1) % N_PHI] += energy * shape[i, j]
    return cells


def test_towers_are_the_pixels_of_maps(event):
    pixels = to_maps(event[None], np.zeros((1, N_ETA, N_PHI), np.bool_))[0, ..., :10].sum(axis=-1)
    np.testing.assert_allclose(towers(event), pixels, atol=1e-4)
    assert towers(event).sum() == pytest.approx(event.sum())


def test_a_box_counts_cells_by_what_lies_inside_also_across_the_seam(rng):
    energy = rng.random((N_ETA, N_PHI))
    box = np.array([[3.0, 254.0, 5.0, 258.0], [3.25, 10.0, 3.75, 11.5], [-2.0, 0.0, 1.0, 1.0]])
    found = box_energy(energy, box)
    assert found[0] == pytest.approx(energy[3:5, [254, 255, 0, 1]].sum())
    assert found[1] == pytest.approx(0.5 * (energy[3, 10] + 0.5 * energy[3, 11]))
    assert found[2] == pytest.approx(energy[0, 0])
    np.testing.assert_array_equal(boxes_about(PLACES[:1], (3, 7)), [[19, -3, 22, 4]])


@pytest.mark.parametrize(
    "find",
    [
        lambda cells: slide_window(cells, size=(3, 7), least=5.0),
        lambda cells: slide_window(cells, size=(5, 5), least=5.0),
        lambda cells: cluster_seeds(cells, mu=0.0, least=5.0),
    ],
)
def test_spots_are_found_where_they_are_with_their_energy(event, find):
    seeds = find(event)
    assert len(seeds.energy) == len(PLACES)
    apart = distances(seeds.centre, PLACES)
    assert apart.min(axis=0).max() < 0.01
    assert seeds.energy[np.argmin(apart, axis=0)] == pytest.approx(ENERGIES, rel=0.1)


def test_features_see_shapes_and_dead_cells(event):
    dead = np.zeros((N_ETA, N_PHI), np.bool_)
    dead[20, [255, 0, 3]] = True
    table = seed_features(event, dead, Seeds(PLACES, ENERGIES))
    assert table.shape == (4, 18)
    assert table[:, -2:].tolist() == [[2.0, 3.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(table[:, 14], np.log(ENERGIES))
    assert BARREL.layers[EMB2].n_phi == N_PHI
    assert len(seed_features(event, dead, Seeds(np.zeros((0, 2)), np.zeros(0)))) == 0
