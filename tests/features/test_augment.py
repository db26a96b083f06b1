"""Random noise and cuts do to the cells of a cluster what is asked for, and nothing where nothing
is.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.features.augment import MIN_SHARE, AugmentConfig, augment_cells


def toy(rng, n_clusters=400, n_cells=50):
    """Offsets, energies and noise of clusters of positive cells far above the noise."""
    offsets = np.arange(n_clusters + 1) * n_cells
    return (
        offsets,
        rng.uniform(5.0, 10.0, n_clusters * n_cells).astype(np.float32),
        rng.uniform(0.01, 0.05, n_clusters * n_cells).astype(np.float32),
    )


@pytest.mark.parametrize(
    "config", [AugmentConfig(noise=0.0, cut=0.0, share=1.0), AugmentConfig(share=0.0)]
)
def test_no_noise_and_no_cut_or_no_share_leave_all_as_it_is(config, rng):
    offsets, energy, sigma = toy(rng)
    new, factor = augment_cells(offsets, energy, sigma, config, rng)
    np.testing.assert_array_equal(new, energy)
    np.testing.assert_array_equal(factor, 1.0)
    assert new.dtype == np.float32


def test_the_variance_of_the_noise_is_that_of_a_uniform_strength(rng):
    """Strength uniform in [0, s], so the mean variance is s^2 / 3 in units of sigma^2, and the
    pulls of one cluster share one strength.
    """
    offsets, energy, sigma = toy(rng, n_clusters=1500, n_cells=400)
    new, _ = augment_cells(
        offsets, energy.astype(np.float64), sigma, AugmentConfig(noise=3.0, cut=0.0, share=1.0), rng
    )
    pulls = ((new - energy.astype(np.float64)) / sigma).reshape(1500, 400)
    strength = pulls.std(axis=1)
    assert pulls.mean() == pytest.approx(0.0, abs=4.0 * np.sqrt(3.0 / pulls.size))
    assert np.mean(pulls**2) == pytest.approx(3.0, rel=0.06)
    assert strength.max() == pytest.approx(3.0, rel=0.12)
    np.testing.assert_allclose(
        np.quantile(strength, [0.25, 0.5, 0.75]), [0.75, 1.5, 2.25], atol=0.2
    )


def test_a_cut_drops_small_cells_only(rng):
    offsets = np.arange(201) * 100
    sigma = np.full(20_000, 0.1)
    energy = np.where(
        rng.random(20_000) < 0.5, rng.uniform(-0.4, 0.4, 20_000), rng.uniform(1.0, 2.0, 20_000)
    ).astype(np.float32)
    new, _ = augment_cells(
        offsets, energy, sigma, AugmentConfig(noise=0.0, cut=3.0, share=1.0), rng
    )
    dropped = new != energy
    assert 0.3 < dropped[np.abs(energy) < 0.3].mean() < 0.7
    assert not dropped[np.abs(energy) >= 0.3].any()
    assert not new[dropped].any()
    for first, last in itertools.pairwise(offsets):  # one threshold a cluster
        gone, kept = (
            np.abs(energy[first:last])[dropped[first:last]],
            np.abs(energy[first:last])[~dropped[first:last]],
        )
        assert gone.size == 0 or gone.max() <= kept.min()


def test_the_factor_is_the_change_of_the_sum(rng):
    offsets, energy, sigma = toy(rng)
    new, factor = augment_cells(offsets, energy, 20.0 * sigma, AugmentConfig(), rng)
    before, after = (
        np.add.reduceat(values.astype(np.float64), offsets[:-1]) for values in (energy, new)
    )
    np.testing.assert_allclose(factor * before, after, rtol=1e-5)
    assert 0.7 < np.mean(factor != 1.0) < 0.9


def test_a_cluster_that_would_lose_most_of_its_energy_stays(rng):
    offsets, energy, sigma = toy(rng, n_clusters=2000, n_cells=3)
    new, factor = augment_cells(
        offsets, energy, 500.0 * sigma, AugmentConfig(noise=3.0, cut=3.0, share=1.0), rng
    )
    assert np.all(factor > MIN_SHARE)
    kept = np.repeat(factor == 1.0, 3)
    assert kept.any()
    np.testing.assert_array_equal(new[kept], energy[kept])


def test_a_cluster_without_positive_energy_stays(rng):
    energy = np.array([-1.0, -2.0, 0.5, 0.5], dtype=np.float32)
    new, factor = augment_cells(
        np.array([0, 2, 4, 4]), energy, np.full(4, 0.01), AugmentConfig(share=1.0), rng
    )
    np.testing.assert_array_equal(new[:2], energy[:2])
    assert factor[0] == factor[2] == 1.0
    assert factor[1] != 1.0


def test_the_generator_decides(rng):
    offsets, energy, sigma = toy(rng)
    first, second, other = (
        augment_cells(offsets, energy, sigma, AugmentConfig(), np.random.default_rng(seed))[0]
        for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_arguments_are_not_changed(rng):
    offsets, energy, sigma = toy(rng)
    before = energy.copy()
    augment_cells(offsets, energy, sigma, AugmentConfig(share=1.0), rng)
    np.testing.assert_array_equal(energy, before)


@pytest.mark.parametrize(
    "options", [{"noise": -1.0}, {"cut": -0.1}, {"share": 1.1}, {"share": -0.1}]
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="must not be negative and share lies in"):
        AugmentConfig(**options)
