"""Scores are standard Gaussians, go back to what they were made of, and showers keep their sums."""

import numpy as np
import pytest
from scipy.stats import kstest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.scores import (
    NormalScores,
    augmented,
    balanced,
    compose,
    depths,
    layer_energies,
    rings_in_layers,
    shares_in_layers,
    total_and_layers,
    turns,
)
from pfcalib.fastsim.voxels import BINNINGS, Voxels, layer_of, layer_of_rings, ring_of
from pfcalib.fastsim.yardstick import high_level
from pfcalib.samples.layouts.calochallenge import Binning, VoxelLayer

TOY = Binning("toy", 22, (VoxelLayer(1, (0, 2, 4), 4), VoxelLayer(12, (0, 50, 90), 1)))


def log_normal(rng, n):
    """Two quantities at two energies, of widths that go with the energy, one of them often 0."""
    energy = np.repeat([1.0, 4.0], n // 2)
    values = np.exp(rng.standard_normal((n, 2)) * (0.2 / np.sqrt(energy))[:, None])
    values[:, 1] *= rng.random(n) < 0.3
    return energy, values


def test_scores_are_standard_gaussians_and_go_back(rng):
    energy, values = log_normal(rng, 8000)
    tables = NormalScores.fit(energy, values)
    scores, empty = tables.forward(energy, values, rng)
    for one in (1.0, 4.0):
        for j in range(2):
            assert kstest(scores[energy == one, j], "norm").pvalue > 1e-3
    assert empty[0].tolist() == pytest.approx([0.0, 0.7], abs=0.05)
    back, above = tables.inverse(energy, scores)
    assert np.array_equal(back > 0.0, values > 0.0)
    assert np.array_equal(above > 0.0, values > 0.0)
    usual = np.abs(np.log(np.maximum(values, 1e-9))) * np.sqrt(energy)[:, None] < 0.4  # two sigma
    np.testing.assert_allclose(back[usual], values[usual], rtol=1e-9)


def test_between_energies_the_median_is_that_of_both(rng):
    energy, values = log_normal(rng, 8000)
    values *= energy[:, None]  # medians 1 and 4
    tables = NormalScores.fit(energy, values)
    found, _ = tables.inverse(np.array([2.0]), np.zeros((1, 2)))
    assert found[0, 0] == pytest.approx(2.0, rel=0.02)
    # widths of 0.2 and 0.1 that go with the inverse root of the energy
    values /= energy[:, None]
    tables = NormalScores.fit(energy, values, n_roots=1)
    found, _ = tables.inverse(np.full(20_000, 2.0), rng.standard_normal((20_000, 2)))
    assert np.log(found[:, 0]).std() == pytest.approx(0.2 / np.sqrt(2.0), rel=0.03)
    with pytest.raises(ConfigError, match="known"):
        tables.forward(np.array([2.0]), values[:1], rng)


def test_a_quantity_that_is_never_there_stays_away(rng):
    tables = NormalScores.fit(np.array([1.0, 1.0, 2.0]), np.array([[1.0, 0.0]] * 3))
    found, _ = tables.inverse(np.array([1.0, 1.5, 2.0]), rng.standard_normal((3, 2)))
    assert np.all(found[:, 1] == 0.0)


def test_showers_are_put_together_again_from_depths_and_shares(rng):
    showers = rng.random((20, TOY.n_voxels)) * (rng.random((20, TOY.n_voxels)) < 0.6)
    voxels = Voxels(TOY, np.full(20, 3.0), showers)
    layers = layer_energies(voxels.energy, depths(voxels))
    np.testing.assert_allclose(layers, voxels.layers)
    np.testing.assert_allclose(balanced(voxels.energy, total_and_layers(voxels)), voxels.layers)
    shares = shares_in_layers(voxels)
    again = compose(layers, layer_of(TOY), shares, shares - 0.5, threshold=0.0)
    np.testing.assert_allclose(again, showers, atol=1e-12)
    # by rings: whatever the voxels of other rings, each ring keeps its own energy
    of_rings = rings_in_layers(voxels)
    rings = compose(layers, layer_of_rings(TOY), of_rings, of_rings - 0.5, threshold=0.0)
    np.testing.assert_allclose(rings[:, 0], showers[:, :8:2].sum(axis=1), atol=1e-12)
    uneven = shares * np.where(ring_of(TOY) == 0, 3.0, 1.0)
    again = compose(rings, ring_of(TOY), uneven, uneven - 0.5, threshold=0.0)
    np.testing.assert_allclose(again, showers, atol=1e-12)


def test_layers_are_balanced_at_the_cost_of_the_large_ones():
    found = balanced(np.array([2.0, 2.0, 2.0]), np.array([[1, 0.8, 0.1], [0, 1, 1], [1, 0, 0.0]]))
    # 0.2 GeV missing, of which the small layer has 1 in 65
    np.testing.assert_allclose(found[0], [1.6 + 0.2 * 64 / 65, 0.2 + 0.2 / 65])
    assert found[1:].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_no_energy_is_lost_where_voxels_are_dark_or_below_the_threshold():
    layers = np.array([[1.0, 0.5]])
    shares = np.array([[0.9, 0.1 - 1e-5, 1e-5, 0, 0, 0, 0, 0, 0.0, 0.0]])
    above = np.where(shares > 0.0, 0.1, -0.2)
    above[0, 9] = -0.1  # the likeliest of a layer in which all are dark
    found = compose(layers, layer_of(TOY), shares, above, threshold=1e-3)
    assert found[0, 2] == 0.0
    assert found[0, :8].sum() == pytest.approx(1.0)
    assert found[0, 8:].tolist() == [0.0, 0.5]


@pytest.mark.parametrize("particle", BINNINGS)
def test_turns_keep_rings_and_move_the_centre_round(particle, rng):
    binning = BINNINGS[particle]
    assert sorted(turns(binning)[7].tolist()) == list(range(binning.n_voxels))
    assert len(turns(binning)) == 20
    showers = rng.random((3, binning.n_voxels)) ** 8
    voxels = Voxels(binning, np.full(3, 8.0), showers)
    many = augmented(voxels, rng, 5)
    first, all_ = high_level(voxels), high_level(many)
    np.testing.assert_allclose(many.layers, np.tile(voxels.layers, (5, 1)))
    for name in ("EMB1", "EMB2"):
        radius = [
            np.hypot(of[f"centre_eta_{name}"], of[f"centre_phi_{name}"]) for of in (first, all_)
        ]
        np.testing.assert_allclose(radius[1], np.tile(radius[0], 5), rtol=1e-5)
    assert not np.allclose(all_["centre_eta_EMB2"][3:6], first["centre_eta_EMB2"])
