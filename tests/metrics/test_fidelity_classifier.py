"""The classifier finds a difference where there is one, none where there is none, and ignores what
noise would hide.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.columns import LAYER_NAMES
from pfcalib.metrics.fidelity_classifier import FEATURES, feature_table, tell_apart


def test_there_are_twenty_moments():
    assert len(set(FEATURES)) == 20


def test_equal_samples_are_not_told_apart(rng):
    geant4, fast = rng.normal(size=(600, 21)), rng.normal(size=(1200, 21))
    found = tell_apart(fast, geant4, copies=2, seed=1, n_folds=3)
    assert abs(found.auc.value - 0.5) < 4.0 * found.auc.error
    assert found.score.shape == found.is_fast.shape == (1800,)


def test_a_shift_of_one_moment_is_found_and_named(rng):
    geant4, fast = rng.normal(size=(600, 21)), rng.normal(size=(600, 21))
    place = FEATURES.index("core")
    fast[:, place] += 2.0
    found = tell_apart(fast, geant4, copies=1, seed=1, n_folds=3)
    assert 0.85 < found.auc.value < 0.93  # the best possible is Phi(2 / sqrt 2) = 0.921
    assert next(iter(found.importance)) == "core"


def test_a_moment_that_no_shower_has_is_no_obstacle(rng):
    geant4, fast = rng.normal(size=(100, 21)), rng.normal(size=(100, 21))
    geant4[:, 3] = fast[:, 3] = np.nan
    assert abs(tell_apart(fast, geant4, copies=1, seed=1, n_folds=2).auc.value - 0.5) < 0.3


def test_copies_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match="expected 2 copies of 10"):
        tell_apart(np.zeros((10, 21)), np.zeros((10, 21)), copies=2, seed=1)


def test_a_layer_below_its_noise_counts_as_empty():
    moments = {name: np.full(2, 0.5) for name in FEATURES}
    moments |= {f"share_{name}": np.full(2, 0.1) for name in LAYER_NAMES}
    # 0.05 and 5 GeV a layer, noise 0.1 GeV
    table = feature_table(moments, np.array([1.0, 100.0]), dict.fromkeys(LAYER_NAMES, 0.1))
    columns = dict(zip(FEATURES, table.T, strict=False))
    assert columns["share_EMB1"][0] == 0.0
    assert columns["share_EMB1"][1] == 0.1
    assert np.isnan(columns["width_eta_EMB2"][0])
    assert columns["width_eta_EMB2"][1] == 0.5
    assert columns["response"].tolist() == [0.5, 0.5]
    assert table[:, -1].tolist() == [0.0, 2.0]
