"""The moment table is finite, of measured quantities only, and in the order of its names."""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import MOMENTS
from pfcalib.errors import ValidationError
from pfcalib.features.scalars import MOMENT_COLUMNS, MOMENT_FEATURES, moment_table


def test_columns_follow_their_names(rng):
    sample = make_sample(rng, 40)
    table = moment_table(sample)
    assert table.shape == (40, len(MOMENT_FEATURES)) == (40, 34)
    assert table.dtype == np.float32
    np.testing.assert_allclose(
        table[:, MOMENT_FEATURES.index("log10_clusterE")], np.log10(sample["clusterE"]), rtol=1e-5
    )
    np.testing.assert_allclose(
        table[:, MOMENT_FEATURES.index("FRAC_EMB2")],
        sample["cluster_E_EMB2"] / sample["clusterE"],
        rtol=1e-5,
    )
    np.testing.assert_array_equal(moment_table(sample.scalars), table)


def test_no_feature_is_made_of_truth():
    assert not [name for name in MOMENT_COLUMNS if "truth" in name or "CALIB" in name]
    assert set(MOMENTS) <= set(MOMENT_COLUMNS)


def test_clusters_of_no_or_negative_energy_stay_finite(rng):
    scalars = {name: np.array([0.0, -1.0, -1e-30], dtype=np.float32) for name in MOMENT_COLUMNS}
    assert np.isfinite(moment_table(scalars)).all()


def test_missing_and_infinite_columns_are_named(rng):
    scalars = {name: np.ones(3, dtype=np.float32) for name in MOMENT_COLUMNS}
    with pytest.raises(ValidationError, match="cluster_PTD"):
        moment_table({name: array for name, array in scalars.items() if name != "cluster_PTD"})
    with pytest.raises(ValidationError, match="PTD of cluster 1 is nan"):
        moment_table(scalars | {"cluster_PTD": np.array([1, np.nan, 1])})
