"""Discriminants of flavours and cuts on them."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.metrics.roc import rejection
from pfcalib.tagging.discriminants import discriminant, passing


def test_a_discriminant_is_the_likelihood_ratio_of_gaussians():
    x = np.random.default_rng(1).normal(size=(50, 1))
    densities = np.exp(-0.5 * (x - np.array([1.0, 0.0, -1.0])) ** 2)
    p = densities / densities.sum(axis=1, keepdims=True)
    found = discriminant(p, "b", {"c": 0.2, "light": 0.8})
    wanted = np.log(densities[:, 0] / (0.2 * densities[:, 1] + 0.8 * densities[:, 2]))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    only_c = discriminant(p, "b", {"c": 1.0, "light": 0.0})
    np.testing.assert_allclose(only_c, x[:, 0] - 0.5, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fractions", [{"c": 1.0}, {"c": 0.3, "light": 0.3}, {"b": 0.5, "c": 0.5}])
def test_fractions_are_of_the_other_classes(fractions):
    with pytest.raises(ConfigError, match="fractions"):
        discriminant(np.full((1, 3), 1.0 / 3.0), "b", fractions)


def test_shares_are_those_of_rejections():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 3, 6000)
    scores = rng.normal(size=(2, 6000)) + np.array([[2.0, 1.0, 0.0], [1.0, 0.5, 0.0]])[:, label]
    found = passing(scores, label, [0.7, 0.77])
    np.testing.assert_allclose(found[:, :, 0], np.tile([0.7, 0.77], (2, 1)), atol=1e-3)
    for i, k in ((0, 1), (1, 2)):
        kept = (label == 0) | (label == k)
        wanted = rejection(scores[i][kept], label[kept] == 0, em_efficiency=0.77)
        assert 1.0 / found[i, 1, k] == pytest.approx(wanted.value, rel=0.01)
    as_c = passing(scores, label, [0.5], signal="c")
    np.testing.assert_allclose(as_c[:, 0, 1], 0.5, atol=1e-3)
