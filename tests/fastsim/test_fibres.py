"""Images of fibres have the moments that formulas give, and channels are those of the layout."""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.fibres import (
    HALF,
    KINDS,
    N_FIBRES,
    YIELD,
    FibreConfig,
    Hits,
    channel_distances,
    channel_masks,
    channel_moments,
    channels,
    draw_images,
    simulate_fibres,
)


def hits_at(n, kind, energy, x, y):
    return Hits(*(np.full(n, value) for value in (kind, energy, x, y)))


def test_each_fibre_goes_to_one_channel():
    masks = channel_masks()
    assert np.all(masks.sum(axis=0) == 1.0)
    assert masks.sum(axis=(1, 2)).tolist() == [968.0, 242.0, 242.0, 242.0, 242.0]
    beside = masks[0, 1:] + masks[0, :-1]
    assert np.all(beside == 1.0)


def test_channels_are_sums_of_their_fibres(rng):
    images = rng.integers(9, size=(3, N_FIBRES, N_FIBRES))
    assert channels(images).sum(axis=1) == pytest.approx(images.sum(axis=(1, 2)))
    quadrant = images[:, : N_FIBRES // 2, : N_FIBRES // 2]
    i, j = np.indices(quadrant.shape[1:])
    assert channels(images)[:, 1] == pytest.approx((quadrant * ((i + j) % 2 == 0)).sum(axis=(1, 2)))


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_channels_have_the_exact_moments(kind, rng):
    n = 6000
    hits = hits_at(n, kind, 800.0, 5.0, -9.0)
    found = channels(draw_images(hits, rng))
    mean, covariance = (of[0] for of in channel_moments(hits.take(slice(1))))
    pull = (found.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / n)
    assert np.all(np.abs(pull) < 4.5)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.cov(found.T) / scale == pytest.approx(covariance / scale, abs=0.08)


def test_the_sum_in_the_middle_has_the_moments_of_a_negative_binomial(rng):
    """All light of a photon at the centre is contained: N is Poisson of Gamma."""
    hits = hits_at(1, 1, 1000.0, 0.0, 0.0)
    mean, covariance = channel_moments(hits)
    total, n = covariance.sum(), YIELD * 1000.0
    assert mean.sum() == pytest.approx(n, rel=1e-4)
    assert total == pytest.approx(n + (n * hits.gain_width[0]) ** 2, rel=1e-3)


def test_a_turned_particle_exchanges_quadrants():
    """Half a turn and an exchange of axes leave the chessboard as it is."""
    one, turned, swapped = (
        channel_moments(hits_at(1, 0, 500.0, *at))[0][0] for at in ((7, 3), (-7, -3), (3, 7))
    )
    assert turned[[0, 4, 3, 2, 1]] == pytest.approx(one, rel=1e-9)
    assert swapped[[0, 1, 3, 2, 4]] == pytest.approx(one, rel=1e-9)


def test_distances_of_shifted_channels_are_the_shift(rng):
    true = rng.normal(100.0, 5.0, (500, 5))
    shift = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert channel_distances(true, true + shift) == pytest.approx(shift)


def test_the_same_seed_gives_the_same_images():
    one, other, third = (simulate_fibres(FibreConfig(n_images=20, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(one[1], other[1])
    assert not np.array_equal(one[1], third[1])
    assert np.all(np.abs(one[0].x) <= HALF)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="rising energies"):
        FibreConfig(e_range=(5.0, 1.0))
