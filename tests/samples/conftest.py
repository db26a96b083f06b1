"""A small sample in memory and the same one in a file."""

import pytest
from factories import make_sample

from pfcalib.samples.write import write_sample


@pytest.fixture
def sample(rng):
    return make_sample(rng, 300)


@pytest.fixture
def path(sample, tmp_path):
    write_sample(tmp_path / "sample.root", sample)
    return tmp_path / "sample.root"
