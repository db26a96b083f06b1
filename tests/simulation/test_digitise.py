"""Noise has the width it is asked for, grows as pile-up does, and showers on top of each other add
up.
"""

import numpy as np
import pytest
from scipy import stats

from pfcalib.errors import ConfigError
from pfcalib.geometry import BARREL, WINDOW
from pfcalib.simulation.digitise import (
    ELECTRONIC,
    NOISE_SETTINGS,
    PILEUP,
    Hits,
    NoiseConfig,
    digitise,
    noise_sigma,
)


def make_hits(rng, n_events=5, n_hits=30, grid=WINDOW):
    """Random cells, each once an event."""
    cell = np.concatenate(
        [np.sort(rng.choice(grid.n_cells, n_hits, replace=False)) for _ in range(n_events)]
    ).astype(np.int32)
    values = [rng.exponential(1.0, n_events * n_hits) for _ in range(5)]
    return Hits(
        np.arange(n_events + 1) * n_hits,
        cell,
        *values,
        *(rng.exponential(1.0, n_events) for _ in range(4)),
    )


def empty(n_events):
    nothing = np.zeros(0)
    return Hits(
        np.zeros(n_events + 1, np.int64),
        np.zeros(0, np.int32),
        *[nothing] * 5,
        *[np.zeros(n_events)] * 4,
    )


def dense(hits, name, grid=WINDOW):
    """One value a cell of each event."""
    return np.bincount(
        hits.event * grid.n_cells + hits.cell, getattr(hits, name), hits.n_events * grid.n_cells
    ).reshape(-1, grid.n_cells)


class TestSigma:
    def test_without_pile_up_it_is_the_electronic_noise_of_the_layer(self):
        sigma = noise_sigma(BARREL)
        assert sigma.shape == (BARREL.n_cells,)
        np.testing.assert_allclose(sigma, 1e-3 * np.array(ELECTRONIC)[BARREL.layer])

    def test_pile_up_adds_in_quadrature_and_grows_with_the_square_root_of_mu(self):
        extra = [
            noise_sigma(WINDOW, NoiseConfig(mu=mu)) ** 2 - noise_sigma(WINDOW) ** 2
            for mu in (1.0, 40.0, 160.0)
        ]
        np.testing.assert_allclose(
            np.sqrt(extra[0]), 1e-3 * np.array(PILEUP)[WINDOW.layer], rtol=1e-9
        )
        np.testing.assert_allclose(np.sqrt(extra[2] / extra[1]), 2.0, rtol=1e-9)
        np.testing.assert_allclose(extra[1], 40.0 * extra[0], rtol=1e-9)

    def test_the_settings_have_names(self):
        assert NOISE_SETTINGS["nominal"].mu == 0.0
        assert np.all(
            noise_sigma(WINDOW, NOISE_SETTINGS["pileup"])
            > noise_sigma(WINDOW, NOISE_SETTINGS["nominal"])
        )

    def test_a_layer_may_be_silent(self):
        assert noise_sigma(WINDOW, NoiseConfig(electronic=(0.0,) * 7)).max() == 0.0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"electronic": (1.0, 2.0)},
                r"noise electronic: expected 7 values >= 0 MeV, one for each of .*TileBar2.*, got "
                r"\(1\.0, 2\.0\)",
            ),
            ({"pileup": (-1.0,) * 7}, r"noise pileup: expected 7 values >= 0 MeV"),
            ({"mu": -1.0}, r"noise mu: expected >= 0, got -1\.0"),
        ],
    )
    def test_impossible_noise_is_refused_by_name(self, options, message):
        with pytest.raises(ConfigError, match=message):
            NoiseConfig(**options)


class TestDigitise:
    def test_the_noise_of_each_layer_is_gaussian_of_its_width(self, rng):
        sigma = noise_sigma(WINDOW)
        energy = digitise(empty(200), WINDOW, sigma, rng)
        for layer in range(WINDOW.n_layers):
            pull = (energy / sigma)[:, WINDOW.layer == layer].ravel()
            assert pull.std() == pytest.approx(1.0, abs=5.0 / np.sqrt(2.0 * pull.size))
            assert abs(pull.mean()) < 5.0 / np.sqrt(pull.size)
            assert stats.kstest(pull, "norm").pvalue > 1e-3

    def test_cells_do_not_know_of_each_other(self, rng):
        energy = digitise(empty(2000), WINDOW, noise_sigma(WINDOW), rng)[:, :50]
        assert np.abs(np.corrcoef(energy.T) - np.eye(50)).max() < 6.0 / np.sqrt(2000)

    def test_without_noise_the_signal_remains(self, rng):
        hits = make_hits(rng)
        energy = digitise(hits, WINDOW, np.zeros(WINDOW.n_cells), rng)
        assert energy.dtype == np.float64
        np.testing.assert_array_equal(energy, dense(hits, "signal"))

    def test_the_noise_does_not_depend_on_the_signal(self, rng):
        hits, sigma = make_hits(rng), noise_sigma(WINDOW)
        with_signal, without = (
            digitise(h, WINDOW, sigma, np.random.default_rng(5)) for h in (hits, empty(5))
        )
        np.testing.assert_allclose(with_signal - without, dense(hits, "signal"), atol=1e-12)


def test_the_event_of_each_hit_follows_from_the_offsets():
    nothing = np.zeros(4)
    hits = Hits(np.array([0, 3, 3, 4]), np.zeros(4, np.int32), *[nothing] * 5, *[np.zeros(3)] * 4)
    assert hits.n_events == 3
    assert hits.event.tolist() == [0, 0, 0, 2]
