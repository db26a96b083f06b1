"""Packaged samples are found by name and are sound."""

import pytest

from pfcalib.errors import ConfigError
from pfcalib.samples.check import check_sample
from pfcalib.samples.packaged import packaged_sample, packaged_samples


def test_every_packaged_sample_is_sound_and_says_where_it_comes_from():
    for name in packaged_samples():
        report = check_sample(packaged_sample(name))
        assert report.passed, (name, report.problems)
        assert report.metadata["generator"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no packaged sample 'muons'"):
        packaged_sample("muons")
