"""Shapes of images made by hand, whose answers are known."""

import numpy as np
import pytest

from pfcalib.photons.pairs import N_PIXELS, SHAPES, SLICES
from pfcalib.photons.showershapes import (
    SHAPES_NAMES,
    SIDES,
    cluster_energy,
    layer_energies,
    shower_shapes,
)


def paint(**cells):
    """One window with {(eta, phi): GeV} in each layer."""
    pixels = np.zeros(N_PIXELS, np.float32)
    for name, values in cells.items():
        of = pixels[SLICES[name]].reshape(SHAPES[name])
        for place, value in values.items():
            of[place] = value
    return pixels[None]


def shapes_of(pixels):
    return dict(zip(SHAPES_NAMES, shower_shapes(pixels)[0], strict=True))


def test_ratios_and_width_in_the_middle_layer():
    found = shapes_of(paint(EMB2={(3, 5): 6.0, (4, 5): 2.0, (3, 8): 1.0, (0, 5): 1.0}))
    assert found["R_eta"] == pytest.approx(0.9)
    assert found["R_phi"] == pytest.approx(8.0 / 9.0)
    assert found["w_eta2"] == pytest.approx(0.025 * np.sqrt(0.25 * 0.75))


def test_two_maxima_in_the_strips():
    found = shapes_of(
        paint(EMB1={(28, 1): 8.0, (29, 1): 1.0, (31, 1): 3.0, (30, 0): 0.5, (38, 1): 1.0})
    )
    assert found["E_ratio"] == pytest.approx((8.0 - 3.0) / (8.0 + 3.0))
    assert found["dE"] == pytest.approx(3.0 - 0.5)
    assert found["F_side"] == pytest.approx(3.5 / 9.0)
    assert found["w_s3"] == pytest.approx(np.sqrt(1.0 / 9.0))
    assert found["w_s1"] == pytest.approx(np.sqrt((1 + 4 * 0.5 + 9 * 3 + 100 * 1) / 13.5))


def test_one_maximum_has_the_largest_ratio_and_no_second():
    found = shapes_of(paint(EMB1={(27, 1): 1.0, (28, 1): 5.0, (29, 1): 2.0}))
    assert (found["E_ratio"], found["dE"]) == (1.0, 0.0)


def test_shares_of_layers_and_what_lies_behind():
    pixels = paint(
        PreSamplerB={(3, 1): 1.0}, EMB1={(28, 1): 3.0}, EMB2={(3, 5): 5.0}, EMB3={(2, 5): 1.0},
        TileBar0={(1, 1): 0.5}, TileBar1={(0, 0): 0.5},
    )  # fmt: skip
    found = shapes_of(pixels)
    np.testing.assert_allclose(layer_energies(pixels)[0], [1.0, 3.0, 5.0, 1.0])
    assert cluster_energy(pixels)[0] == pytest.approx(10.0)
    assert (found["f1"], found["f3"], found["R_had"]) == pytest.approx((0.3, 0.1, 0.1))


def test_an_empty_window_has_finite_shapes():
    assert np.isfinite(shower_shapes(np.zeros((2, N_PIXELS), np.float32))).all()


def test_the_sides_of_cuts_are_of_shapes():
    assert set(SIDES) <= set(SHAPES_NAMES)
