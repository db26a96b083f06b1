"""Thresholds and angles are those of the books, and draws follow the exact distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import kstest

from pfcalib.errors import ConfigError
from pfcalib.fastsim.richtoy import (
    HYPOTHESES,
    KINDS,
    LIMIT,
    MASS,
    RADIATORS,
    RichConfig,
    RichTracks,
    cherenkov_angle,
    draw_differences,
    exact_below,
    mean_differences,
    saturated,
    simulate_rich,
    unsaturated,
)


@pytest.mark.parametrize(
    ("gas", "kind", "threshold"),
    [("C4F10", "pion", 2.6), ("C4F10", "kaon", 9.3), ("CF4", "pion", 4.4), ("CF4", "kaon", 15.6)],
)
def test_light_begins_at_the_published_momenta(gas, kind, threshold):
    """GeV, table 1 of arXiv:1211.6759."""
    mass, index = MASS[list(KINDS).index(kind)], RADIATORS[gas].refraction
    assert cherenkov_angle(index, mass, threshold - 0.1) == 0.0
    assert cherenkov_angle(index, mass, threshold + 0.1) > 0.0


def test_fast_particles_have_the_published_angles():
    angles = [1e3 * cherenkov_angle(gas.refraction, 0.0, 1.0) for gas in RADIATORS.values()]
    assert angles == pytest.approx([53.0, 32.0], abs=0.5)


def test_saturation_is_undone():
    ell = np.array([-5000.0, -1.0, 0.0, 3.0, 700.0])
    assert unsaturated(saturated(ell)) == pytest.approx(ell)
    assert np.all(np.abs(saturated(ell)) < LIMIT)


def test_draws_follow_the_exact_distribution():
    tracks, drawn = simulate_rich(RichConfig(n_tracks=2500, seed=3))
    rank = exact_below(tracks, drawn)
    for h, name in enumerate(HYPOTHESES):
        assert kstest(rank[:, h], "uniform").pvalue > 1e-3, name
        for kind in range(len(KINDS)):
            assert kstest(rank[tracks.kind == kind, h], "uniform").pvalue > 1e-4, (name, kind)


def test_a_wrong_width_is_found_out():
    tracks, _ = simulate_rich(RichConfig(n_tracks=2500, seed=3))
    quiet = tracks._replace(n_tracks=0.5 * tracks.n_tracks)
    drawn = draw_differences(quiet, np.random.default_rng(1))
    assert kstest(exact_below(tracks, drawn)[:, 0], "uniform").pvalue < 1e-6


def test_mean_and_variance_of_draws_are_the_exact_ones(rng):
    n = 40_000
    for kind in range(len(KINDS)):
        tracks = RichTracks(*(np.full(n, x) for x in (kind, 25.0, 3.6, 150.0)))
        ell = unsaturated(draw_differences(tracks, rng))
        mean, variance = (of[0] for of in mean_differences(tracks))
        pull = (ell.mean(axis=0) - mean) / np.sqrt(variance / n)
        assert np.all(np.abs(pull) < 4.5)
        assert ell.var(axis=0) == pytest.approx(variance, rel=0.05)


def test_fast_kaons_and_pions_differ_by_the_angle_over_its_error():
    """Where numbers of photons are alike, l has the mean d^2 / 2 and, with its noise of 1, the
    variance d^2 + 1; fluctuations of the number of photons change little.
    """
    n = 2
    tracks = RichTracks(np.array([0, 1]), np.full(n, 80.0), np.full(n, 3.6), np.full(n, 1.0))
    of_gas = 0.0
    for gas in RADIATORS.values():
        angle = cherenkov_angle(gas.refraction, MASS[:2], 80.0)
        of_gas += gas.photons * (np.diff(angle)[0] / gas.width) ** 2
    pull = 0.5 * of_gas / np.sqrt(of_gas + 1.0)
    below = exact_below(tracks, 0.0)[:, 0]
    assert below[0] == pytest.approx(ndtr(pull), abs=0.015)
    assert below[1] == pytest.approx(ndtr(-pull), abs=0.015)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="rising ranges"):
        RichConfig(p_range=(10.0, 3.0))
