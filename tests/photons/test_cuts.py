"""Peeling finds a box that is known, and its efficiencies hold on candidates that it has not
seen.
"""

import numpy as np
import pytest

from pfcalib.errors import ValidationError
from pfcalib.photons.cuts import fit_cuts

ONE_BIN = {"eta_edges": [0.0, 1.0], "et_edges": [0.0, 100.0]}


def toy(rng, n=20_000):
    """Photons fill 0.5-1 of two shapes, fakes 0-1; the third tells nothing."""
    is_photon = np.arange(2 * n) < n
    shapes = rng.random((2 * n, 3))
    shapes[:n, :2] = 0.5 + 0.5 * shapes[:n, :2]
    return shapes, is_photon, rng.uniform(-0.9, 0.9, 2 * n), rng.uniform(10.0, 90.0, 2 * n)


def test_the_box_of_all_photons_is_found(rng):
    data = toy(rng)
    boxes = fit_cuts(*data, sides=[1, 1, 1], **ONE_BIN, least=0.95, step=0.005)
    at = int(np.argmin(np.abs(boxes.kept[0] - 0.97)))
    np.testing.assert_allclose(boxes.cuts[0, at, :2], 0.5, atol=0.03)
    assert boxes.cuts[0, at, 2] == -np.inf
    score = boxes.score(*toy(rng)[:1], *data[2:])
    passed = score >= 1.0 - boxes.kept[0, at]
    assert passed[data[1]].mean() == pytest.approx(0.97, abs=0.01)
    assert passed[~data[1]].mean() == pytest.approx(0.25, abs=0.02)


def test_each_bin_keeps_the_wanted_share_of_photons_on_others(rng):
    shapes, is_photon, eta, et = toy(rng)
    # the photons of one bin are worse, which one cut for all would punish
    worse = is_photon & (np.abs(eta) > 0.5)
    shapes[worse, :2] -= 0.3
    bins = {"eta_edges": [0.0, 0.5, 1.0], "et_edges": [0.0, 50.0, 100.0]}
    half = np.arange(len(eta)) % 2 == 0
    parts = shapes[half], is_photon[half], eta[half], et[half]
    boxes = fit_cuts(*parts, sides=[1, 1, 1], **bins, step=0.01)
    score = boxes.score(shapes[~half], eta[~half], et[~half])
    place = boxes.bins(eta[~half], et[~half])
    assert set(place) == {0, 1, 2, 3}
    for one in range(4):
        kept = (score >= 0.2)[is_photon[~half] & (place == one)].mean()
        assert kept == pytest.approx(0.8, abs=0.03)


def test_a_cut_from_above_is_the_same_cut(rng):
    shapes, *rest = toy(rng, 5000)
    up = fit_cuts(shapes, *rest, sides=[1, 1, 1], **ONE_BIN)
    down = fit_cuts(-shapes, *rest, sides=[-1, -1, -1], **ONE_BIN)
    np.testing.assert_array_equal(up.score(shapes, *rest[1:]), down.score(-shapes, *rest[1:]))


def test_too_few_photons_are_refused(rng):
    data = toy(rng, 50)
    with pytest.raises(ValidationError, match="too few to peel"):
        fit_cuts(*data, sides=[1, 1, 1], **ONE_BIN, step=0.01)
