"""Targets lead back to their energies, and weights make each species flat in the logarithm of its
energy.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.targets import FLAT_EDGES, MAX_WEIGHT, SCALES, TargetConfig, flat_weights


@pytest.fixture
def energies(rng):
    e = 10.0 ** rng.uniform(-0.7, 3.3, 500)
    return e, e * rng.uniform(0.2, 1.5, 500)


@pytest.mark.parametrize("scale", SCALES)
def test_decoding_undoes_encoding(scale, energies):
    config = TargetConfig(scale=scale)
    e_true, cluster_e = energies
    np.testing.assert_allclose(
        config.decode(config.encode(e_true, cluster_e), cluster_e), e_true, rtol=1e-12
    )


def test_scales_are_what_they_are_called(energies):
    e_true, cluster_e = energies
    wanted = {
        "log_ratio": np.log(e_true / cluster_e),
        "ratio": e_true / cluster_e,
        "log": np.log(e_true),
    }
    for scale in SCALES:
        np.testing.assert_allclose(
            TargetConfig(scale=scale).encode(e_true, cluster_e),
            wanted[scale],
            rtol=1e-12,
            atol=1e-12,
        )


@pytest.mark.parametrize("scale", SCALES)
def test_several_targets_of_a_cluster_are_decoded_together(scale, rng):
    config = TargetConfig(scale=scale)
    target, cluster_e = rng.uniform(0.5, 1.0, (20, 5)), rng.uniform(1.0, 2.0, 20)
    together = config.decode(target, cluster_e[:, None])
    for i in range(5):
        np.testing.assert_array_equal(together[:, i], config.decode(target[:, i], cluster_e))


def test_a_wild_target_does_not_overflow():
    assert np.isfinite(TargetConfig().decode([1e9, -1e9], [1.0, 1.0])).all()


@pytest.mark.parametrize("scale", ["log", "log_ratio"])
def test_logarithms_of_energies_are_those_of_the_decoded_ones(scale, energies):
    config = TargetConfig(scale=scale)
    e_true, cluster_e = energies
    np.testing.assert_allclose(
        config.log_energy(config.encode(e_true, cluster_e), cluster_e),
        np.log(e_true),
        rtol=1e-9,
        atol=1e-12,
    )
    with pytest.raises(ConfigError, match="'ratio' has no logarithm"):
        TargetConfig(scale="ratio").log_energy([1.0], [1.0])


def test_the_true_energy_is_the_deposit_or_the_sum_of_all_shares(rng):
    names = ("cluster_ENG_CALIB_TOT", "cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT")
    scalars = {name: rng.uniform(1.0, 2.0, 30).astype(np.float32) for name in names}
    np.testing.assert_array_equal(
        TargetConfig().energy_true(scalars), scalars[names[0]].astype(np.float64)
    )
    np.testing.assert_allclose(
        TargetConfig(truth="full").energy_true(scalars),
        sum(scalars[name].astype(np.float64) for name in names),
        rtol=1e-15,
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("which", ["true energy", "clusterE"])
def test_an_energy_that_has_no_target_is_named(bad, which):
    energies = {"true energy": np.ones(5), "clusterE": np.ones(5)}
    energies[which][3] = bad
    with pytest.raises(ValidationError, match=f"{which} of cluster 3 is {bad}"):
        TargetConfig().encode(energies["true energy"], energies["clusterE"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"truth": "shot"}, "truth = 'shot'"), ({"scale": "sqrt"}, "scale = 'sqrt'")],
)
def test_a_target_that_there_is_not_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TargetConfig(**options)


def test_weights_make_both_species_flat_with_equal_sums(rng):
    em = rng.random(20_000) < 0.3
    energy = 10.0 ** np.where(em, rng.uniform(0.0, 3.0, em.size), 3.0 * rng.beta(1.5, 1.0, em.size))
    weights = flat_weights(energy, em)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[em].sum() == pytest.approx(weights[~em].sum())
    for species in (em, ~em):
        spectrum = np.histogram(energy[species], FLAT_EDGES, weights=weights[species])[0]
        filled = spectrum[spectrum > 0.0]
        assert len(filled) == 30
        np.testing.assert_allclose(filled, filled[0], rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2000), st.floats(0.0, 1.0))
def test_no_cluster_weighs_more_than_the_cap_times_the_mean_of_its_species(seed, n, share):
    rng = np.random.default_rng(seed)
    em = rng.random(n) < share
    energy = 10.0 ** (rng.normal(1.0, 0.2, n) + 2.0 * (rng.random(n) < 0.02) * rng.random(n))
    weights = flat_weights(energy, em)
    assert weights.mean() == pytest.approx(1.0)
    assert weights.min() > 0.0
    for species in (em, ~em):
        if species.any():
            assert weights[species].max() <= 1.01 * MAX_WEIGHT * weights[species].mean()


def test_one_cluster_in_each_of_many_bins_is_held_back():
    energy = np.concatenate([np.full(1000, 1.1), 10.0 ** (0.05 + 0.1 * np.arange(1, 31))])
    weights = flat_weights(energy, np.ones(len(energy), dtype=bool))
    assert weights.max() == pytest.approx(MAX_WEIGHT * weights.mean(), rel=0.01)


def test_energies_outside_of_the_bins_count_in_the_last_ones():
    assert flat_weights([0.01, 0.11, 1e5, 9e3], [True] * 4).tolist() == [1.0] * 4
