"""A normalisation is fitted to training clusters only and survives its file."""

import numpy as np
import pytest

from pfcalib.errors import BadFileError, ValidationError
from pfcalib.features.normalise import Normalisation, fit_normalisation


def test_training_clusters_get_mean_zero_and_width_one(rng):
    table = rng.normal([3.0, -100.0], [2.0, 0.01], (5000, 2))
    train = rng.random(5000) < 0.7
    table[~train] = 1e6  # what the fit must not see
    scaled = fit_normalisation(table, ("a", "b"), train=train)(table[train])
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, rtol=1e-4)


def test_a_constant_feature_becomes_zero():
    table = np.full((10, 1), 0.1)
    np.testing.assert_allclose(
        fit_normalisation(table, ("a",), train=np.ones(10, dtype=bool))(table), 0.0, atol=1e-7
    )


def test_the_file_brings_back_the_same_numbers(rng, tmp_path):
    fitted = fit_normalisation(
        rng.normal(size=(50, 3)), ("a", "b", "c"), train=np.ones(50, dtype=bool)
    )
    fitted.save(tmp_path / "normalisation.json")
    assert Normalisation.load(tmp_path / "normalisation.json") == fitted
    assert [path.name for path in tmp_path.iterdir()] == ["normalisation.json"]


BAD_FILES = [
    "",
    "[1]",
    '{"names": ["a"]}',
    '{"names": ["a"], "mean": [0], "scale": [0]}',
    '{"names": ["a"], "mean": [0], "scale": []}',
]


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(BadFileError, match=r"bad\.json"):
        Normalisation.load(tmp_path / "bad.json")


def test_a_fit_without_clusters_or_with_bad_values_is_refused():
    with pytest.raises(ValidationError, match="no training cluster"):
        fit_normalisation(np.zeros((3, 1)), ("a",), train=np.zeros(3, dtype=bool))
    with pytest.raises(ValidationError, match="b is not finite"):
        fit_normalisation([[1.0, np.nan]], ("a", "b"), train=np.ones(1, dtype=bool))
    with pytest.raises(ValidationError, match="shape"):
        Normalisation(("a",), (0.0,), (1.0,))(np.zeros((3, 2)))
