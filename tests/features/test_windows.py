"""Windows hold each element once, near it what is near, and cost in proportion to the elements."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.features.windows import ELEMENT_COLUMNS, ETA, PHI, cut_windows, write_windows


def scattered(rng, n):
    return rng.uniform(-0.8, 0.8, n), rng.uniform(-np.pi, np.pi, n)


@pytest.mark.parametrize("n", [0, 1, 64, 65, 700])
def test_each_element_is_the_core_of_one_window(n, rng):
    windows = cut_windows(*scattered(rng, n))
    assert sorted(windows.rows[windows.is_core]) == list(range(n))
    for rows in windows.rows:
        there = rows[rows >= 0]
        assert len(set(there)) == len(there)
    assert len(windows.phi) == -(-n // 64)
    assert windows.is_core.sum(axis=1).max(initial=0) <= 64


def test_the_halo_is_nearest_across_the_end_of_phi_too(rng):
    eta, phi = scattered(rng, 500)
    windows = cut_windows(eta, phi, n_core=20, n_halo=30)
    for rows, is_core in zip(windows.rows, windows.is_core, strict=True):
        core, halo = rows[is_core], rows[~is_core & (rows >= 0)]
        low, high = phi[core].min(), phi[core].max()
        turned = [
            np.maximum(np.maximum(low - phi - turn, phi + turn - high), 0.0)
            for turn in (-2.0 * np.pi, 0.0, 2.0 * np.pi)
        ]
        beside = np.maximum(np.maximum(eta[core].min() - eta, eta - eta[core].max()), 0.0)
        square = np.min(turned, axis=0) ** 2 + beside**2
        rest = np.setdiff1d(np.arange(500), rows)
        assert len(halo) == 30
        assert square[halo].max() <= square[rest].min() + 1e-12


def test_written_windows_turn_with_the_event(rng):
    """An event turned in phi gives the same numbers, and empty places are zero."""
    columns = rng.normal(size=(150, len(ELEMENT_COLUMNS))).astype(np.float32)
    columns[:, ETA], columns[:, PHI] = scattered(rng, 150)
    windows = cut_windows(columns[:, ETA], columns[:, PHI])
    written = write_windows(columns, windows)
    assert not written[windows.rows < 0].any()
    assert np.abs(written[..., PHI]).max() <= np.pi
    kept = windows.is_core & (windows.rows >= 0)
    turned = columns.copy()
    turned[:, PHI] = np.mod(columns[:, PHI] + 2.0 + np.pi, 2.0 * np.pi) - np.pi
    again = write_windows(turned, windows._replace(phi=windows.phi + 2.0))
    np.testing.assert_allclose(again[kept], written[kept], atol=1e-5)


def test_the_number_of_places_grows_with_that_of_elements(rng):
    places = [cut_windows(*scattered(rng, n)).rows.size for n in (640, 6400)]
    assert places[1] == 10 * places[0]


@pytest.mark.parametrize("sizes", [{"n_core": 0}, {"n_halo": -1}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ConfigError, match="windows: n_core"):
        cut_windows([0.0], [0.0], **sizes)
