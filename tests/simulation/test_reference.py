"""The packaged Geant4 pions become a sample that streams and trees can read."""

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.samples.read import read_sample
from pfcalib.simulation.reference import geant4_sample


def test_it_holds_pions_only_and_no_truth(tmp_path):
    sample = read_sample(geant4_sample(tmp_path / "new", seed=1))
    assert set(np.unique(sample["truthPdgId"])) == {111, 211}
    assert not sample["cluster_ENG_CALIB_TOT"].any()
    assert "Geant4" in sample.metadata["generator"]


def test_an_unknown_noise_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="noise"):
        geant4_sample(tmp_path, seed=1, noise="loud")
