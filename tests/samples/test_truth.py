"""The electromagnetic share is what the truth columns say, and nothing where they say nothing."""

import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import ValidationError
from pfcalib.samples.truth import em_share


def test_the_share_is_one_column_over_the_other_and_nan_without_deposit(rng):
    sample = make_sample(rng, 3)
    sample.scalars["cluster_ENG_CALIB_TOT"] = np.array([4.0, 2.0, 0.0], np.float32)
    sample.scalars["cluster_ENG_CALIB_EM"] = np.array([1.0, 2.0, 0.0], np.float32)
    np.testing.assert_array_equal(em_share(sample), [0.25, 1.0, np.nan])


def test_a_sample_without_truth_is_refused(rng):
    sample = make_sample(rng, 3)
    del sample.scalars["cluster_ENG_CALIB_EM"]
    with pytest.raises(ValidationError, match="cluster_ENG_CALIB_EM"):
        em_share(sample)
