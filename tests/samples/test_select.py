"""Cuts are those asked for, and balanced classes have the same spectrum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfcalib.errors import ConfigError
from pfcalib.samples.select import (
    BALANCE_EDGES,
    SelectionConfig,
    balance_mask,
    balance_weights,
    choose_clusters,
)
from pfcalib.samples.split import split_of


def spectra(deposit, em, weights=None):
    inside = np.clip(deposit, BALANCE_EDGES[0], BALANCE_EDGES[-1] * 0.999)
    return [
        np.histogram(
            inside[em == label],
            BALANCE_EDGES,
            weights=None if weights is None else weights[em == label],
        )[0]
        for label in (False, True)
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.floats(0.0, 1.0))
def test_balanced_classes_have_equal_spectra_and_lose_no_more_than_they_must(seed, n, share):
    rng = np.random.default_rng(seed)
    em = rng.random(n) < share
    deposit = 10 ** rng.normal(np.where(em, 1.0, 1.5), 1.0)
    keep = balance_mask(deposit, em, rng=rng)
    charged, neutral = spectra(deposit[keep], em[keep])
    np.testing.assert_array_equal(charged, neutral)
    np.testing.assert_array_equal(neutral, np.minimum(*spectra(deposit, em)))
    weights = balance_weights(deposit, em)
    np.testing.assert_allclose(*spectra(deposit, em, weights), atol=1e-9)
    assert not weights.any() or weights.mean() == pytest.approx(1.0)


def test_what_is_left_out_is_chosen_by_the_seed_alone(sample):
    rows = [
        choose_clusters(sample.scalars, split="all", balance="subsample", seed=seed).rows
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_splits_are_disjoint_and_complete(sample):
    rows = {
        split: choose_clusters(sample.scalars, split=split).rows
        for split in ("train", "validation", "test", "all")
    }
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["train"], rows["validation"], rows["test"]])), rows["all"]
    )
    assert np.all(split_of(sample["eventNumber"][rows["test"]]) == 2)


def test_cuts_hold(sample):
    select = SelectionConfig(
        min_cluster_e=2.0, max_cluster_e=20.0, max_abs_eta=0.08, min_deposit=3.0
    )
    rows = choose_clusters(sample.scalars, split="all", select=select).rows
    energy, eta, deposit = (
        sample[name] for name in ("clusterE", "clusterEta", "cluster_ENG_CALIB_TOT")
    )
    wanted = (energy >= 2) & (energy <= 20) & (np.abs(eta) <= 0.08) & (deposit >= 3)
    np.testing.assert_array_equal(rows, np.flatnonzero(wanted))


def test_weights_are_one_unless_asked_for(sample):
    assert set(choose_clusters(sample.scalars, split="all", balance="subsample").weights) == {1.0}
    assert len(set(choose_clusters(sample.scalars, split="all", balance="weight").weights)) > 1


def test_what_makes_no_sense_is_refused(sample):
    with pytest.raises(ConfigError, match="min_cluster_e"):
        SelectionConfig(min_cluster_e=0.0)
    with pytest.raises(ConfigError, match="keeps nothing"):
        SelectionConfig(max_cluster_e=0.1)
    with pytest.raises(ConfigError, match="'both'"):
        choose_clusters(sample.scalars, split="all", balance="both")
    with pytest.raises(ConfigError, match="'training'"):
        choose_clusters(sample.scalars, split="training")


def test_a_species_is_all_that_and_nothing_else(sample):
    rows = {
        species: choose_clusters(
            sample.scalars, split="all", select=SelectionConfig(species=species)
        ).rows
        for species in ("all", "neutral", "charged")
    }
    assert sample.is_em[rows["neutral"]].all()
    assert not sample.is_em[rows["charged"]].any()
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["neutral"], rows["charged"]])), rows["all"]
    )
    with pytest.raises(
        ConfigError, match="species must be one of all, neutral, charged, got 'muon'"
    ):
        SelectionConfig(species="muon")
