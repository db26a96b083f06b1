"""Packaged samples are found by name, small, and say where they come from."""

import pytest

from pfcalib.errors import ConfigError
from pfcalib.samples.packaged import packaged_sample, packaged_samples
from pfcalib.samples.read import open_sample, read_geo, read_metadata


@pytest.mark.parametrize("name", packaged_samples())
def test_every_packaged_file_has_cells_and_says_where_it_comes_from(name):
    path = packaged_sample(name)
    assert path.stat().st_size < 10e6
    with open_sample(path) as file:
        assert len(read_geo(path, file))
        assert read_metadata(path, file)["generator"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no packaged sample 'muons'"):
        packaged_sample("muons")
