"""Splits have the shares asked for, and no event is in two of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfcalib.errors import ConfigError
from pfcalib.samples.split import FRACTIONS, hash_events, split_index, split_of


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**62),
    st.integers(0, 2**63),
    st.sampled_from([FRACTIONS, (0.5, 0.5, 0.0), (0.0, 0.25, 0.75)]),
)
def test_the_shares_are_kept_for_consecutive_events(first, salt, fractions):
    n = 20_000
    shares = (
        np.bincount(split_of(first + np.arange(n), fractions=fractions, salt=salt), minlength=3) / n
    )
    errors = np.sqrt(np.array(fractions) * (1 - np.array(fractions)) / n)
    assert np.all(np.abs(shares - fractions) <= 5 * errors)


@given(st.lists(st.integers(0, 10), min_size=1))
def test_an_event_has_one_split_whatever_its_neighbours(events):
    together = split_of(events)
    assert all(split_of([event])[0] == split for event, split in zip(events, together, strict=True))


def test_the_hash_is_the_published_splitmix64():
    """The first outputs of the reference generator started at 0 are the hashes of multiples of its
    increment.
    """
    steps = (np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ hash_shift()
    assert [f"{value:016x}" for value in hash_events(steps)] == [
        "e220a8397b1dcdaf",
        "6e789e6aa1b965f4",
        "06c45d188009454f",
    ]


def hash_shift():
    """What salt 0 adds: the first output of the generator."""
    return np.uint64(0xE220A8397B1DCDAF)


def test_another_salt_is_independent():
    events = np.arange(50_000)
    both = (split_of(events) == 2) & (split_of(events, salt=1) == 2)
    assert both.mean() == pytest.approx(0.04, abs=0.005)


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.2, 0.2), (1.0, 0.0), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(ConfigError, match="fractions"):
        split_of([1], fractions=fractions)


def test_an_unknown_split_is_refused_with_the_known_ones():
    assert split_index("validation") == 1
    with pytest.raises(ConfigError, match="train, validation, test"):
        split_index("training")
