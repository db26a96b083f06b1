"""The EM likelihood finds the probability that two known densities imply, whatever the spectrum,
and falls back where it has seen nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.likelihood import (
    EmLikelihood,
    LikelihoodConfig,
    bin_indices,
    fit_likelihood,
)
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.roc import auc

COARSE = LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5)


def clusters(log_e, log_density, log_lambda, eta):
    """Columns in the units of the files, from the coordinates of the table."""
    energy = 10.0 ** np.asarray(log_e)  # MeV
    return {
        "clusterE": energy / 1e3,
        "clusterEta": np.asarray(eta, dtype=float),
        "cluster_FIRST_ENG_DENS": 10.0 ** np.asarray(log_density) * energy / 1e3,
        "cluster_CENTER_LAMBDA": 10.0 ** np.asarray(log_lambda),
    }


def toy(rng, n, *, em_share=0.5):
    """Neutral clusters early and dense, charged ones late and thin, in Gaussians; charged ones fall
    more steeply in energy.
    """
    is_em = rng.random(n) < em_share
    log_e = 3.0 + rng.exponential(np.where(is_em, 0.8, 0.4))
    return clusters(
        log_e,
        rng.normal(np.where(is_em, -6.0, -6.8), 0.4),
        rng.normal(np.where(is_em, 2.3, 2.8), 0.3),
        rng.uniform(-0.8, 0.8, n),
    ), is_em


def exact(sample):
    energy = sample["clusterE"] * 1e3
    density, depth = (
        np.log10(sample["cluster_FIRST_ENG_DENS"] * 1e3 / energy),
        np.log10(sample["cluster_CENTER_LAMBDA"]),
    )
    chi2 = (
        ((density + 6.0) / 0.4) ** 2
        - ((density + 6.8) / 0.4) ** 2
        + ((depth - 2.3) / 0.3) ** 2
        - ((depth - 2.8) / 0.3) ** 2
    )
    return 1.0 / (1.0 + np.exp(0.5 * chi2))


def test_the_published_bins_are_the_default():
    edges = LikelihoodConfig().edges
    assert [len(axis) - 1 for axis in edges] == [25, 14, 20, 20]
    assert [(axis[0], axis[-1]) for axis in edges] == [
        (0.0, 5.0),
        (pytest.approx(np.log10(200.0)), 6.0),
        (-9.0, -4.0),
        (0.0, 4.0),
    ]


def test_the_coordinates_are_in_mev_and_mm():
    """1 GeV at 1e-6 GeV/mm3: log10 of 1e-3 MeV/mm3 over 1000 MeV is -6."""
    edges = (
        np.array([0.0, 1.0, 2.0]),
        np.array([2.9, 2.99, 3.01, 4.0]),
        np.array([-7.0, -6.01, -5.99, -5.0]),
        np.array([1.0, 1.99, 2.01, 3.0]),
    )
    sample = {
        "clusterE": [1.0],
        "clusterEta": [-0.5],
        "cluster_FIRST_ENG_DENS": [1e-6],
        "cluster_CENTER_LAMBDA": [100.0],
    }
    assert [int(index[0]) for index in bin_indices(sample, edges)] == [0, 1, 1, 1]


def test_the_table_comes_near_to_the_exact_probability_whatever_the_spectra(rng):
    likelihood = fit_likelihood(*toy(rng, 200_000, em_share=0.3))
    sample, is_em = toy(rng, 50_000)
    p, truth = likelihood.p_em(sample), exact(sample)
    assert np.mean(p - truth) == pytest.approx(0.0, abs=0.01)
    assert np.sqrt(np.mean((p - truth) ** 2)) < 0.08  # bins are half as wide as the Gaussians
    assert auc(p, is_em).value > auc(truth, is_em).value - 0.01


def test_a_bin_of_plain_counts_is_the_published_ratio():
    """One (|eta|, energy) bin, no prior: 3 of 4 neutral and 1 of 2 charged clusters in the bin, P =
    0.75 / (0.75 + 0.5).
    """
    place = np.array([-6.0, -6.0, -6.0, -8.0, -6.0, -8.0])
    is_em = np.array([True, True, True, True, False, False])
    sample = clusters(np.full(6, 4.0), place, np.full(6, 2.5), np.full(6, 0.1))
    p = fit_likelihood(sample, is_em, config=LikelihoodConfig(prior_clusters=0.0)).p_em(sample)
    np.testing.assert_allclose(p[place == -6.0], 0.75 / (0.75 + 0.5))
    np.testing.assert_allclose(p[place == -8.0], 0.25 / (0.25 + 0.5))


def test_an_empty_bin_takes_the_value_without_eta_and_an_unseen_place_one_half():
    place, is_em = np.array([-6.0, -6.0, -8.0, -8.0]), np.array([True, True, False, False])
    likelihood = fit_likelihood(
        clusters(np.full(4, 4.0), place, np.full(4, 2.5), np.full(4, 0.1)),
        is_em,
        config=LikelihoodConfig(prior_clusters=0.0),
    )
    elsewhere = clusters(
        [4.0, 4.0, 5.5, 4.0], [-6.0, -8.0, -6.0, -4.5], [2.5, 2.5, 2.5, 0.5], [4.0, 4.0, 4.0, 0.1]
    )
    np.testing.assert_array_equal(likelihood.p_em(elsewhere), [1.0, 0.0, 1.0, 0.5])


def test_few_clusters_lean_on_the_coarser_table(rng):
    sample, is_em = toy(rng, 2_000)
    test, test_is_em = toy(rng, 20_000)
    plain, leaning = (
        fit_likelihood(sample, is_em, config=LikelihoodConfig(prior_clusters=prior))
        for prior in (0.0, 5.0)
    )
    assert auc(leaning.p_em(test), test_is_em).value > auc(plain.p_em(test), test_is_em).value


def test_the_prior_counts_as_so_many_clusters_of_the_coarser_table():
    """Weighted to 3 clusters a class, the bin holds 2.25 neutral and 1.5 charged ones; all three
    tables hold the same, the first leans on one half.
    """
    place = np.array([-6.0, -6.0, -6.0, -8.0, -6.0, -8.0])
    is_em = np.array([True, True, True, True, False, False])
    sample = clusters(np.full(6, 4.0), place, np.full(6, 2.5), np.full(6, 0.1))
    prior = 5.0  # more than there are clusters
    p = fit_likelihood(sample, is_em, config=LikelihoodConfig(prior_clusters=prior)).p_em(sample)
    expected = 0.5
    for _ in range(3):
        expected = (2.25 + prior * expected) / (3.75 + prior)
    np.testing.assert_allclose(p[place == -6.0], expected)


def test_clusters_beyond_the_axes_take_the_outermost_bins(rng):
    likelihood = fit_likelihood(*toy(rng, 1_000))
    odd = {
        "clusterE": [-1.0, 1e9],
        "clusterEta": [9.0, -9.0],
        "cluster_FIRST_ENG_DENS": [0.0, -1.0],
        "cluster_CENTER_LAMBDA": [0.0, 1e9],
    }
    p = likelihood.p_em({name: np.array(values) for name, values in odd.items()})
    assert np.all((p >= 0.0) & (p <= 1.0))


def test_a_sample_gives_its_own_columns(rng):
    sample = make_sample(rng, 200)
    p = fit_likelihood(sample, sample.is_em).p_em(sample)
    assert p.shape == (200,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda edges, p: (edges[:3], p), "4 axes"),
        (lambda edges, p: (edges, p[:-1]), "its edges ask for"),
        (lambda edges, p: (edges, p + 1.0), "not a probability"),
        (lambda edges, p: ((edges[0][::-1], *edges[1:]), p), "do not increase"),
    ],
    ids=["axes", "shape", "no probability", "edges"],
)
def test_a_table_that_makes_no_sense_is_refused(change, message):
    content = np.full([len(axis) - 1 for axis in COARSE.edges], 0.5)
    with pytest.raises(ValidationError, match=message):
        EmLikelihood(*change(COARSE.edges, content))


def test_a_moment_that_is_not_finite_is_named(rng):
    sample, is_em = toy(rng, 10)
    sample["cluster_CENTER_LAMBDA"][3] = np.nan
    with pytest.raises(ValidationError, match="cluster_CENTER_LAMBDA, cluster 3"):
        fit_likelihood(sample, is_em)


def test_one_class_alone_is_refused(rng):
    with pytest.raises(ValidationError, match="both classes"):
        fit_likelihood(toy(rng, 10)[0], np.ones(10, dtype=bool))


@pytest.mark.parametrize(
    "options", [{"n_eta": 0}, {"prior_clusters": -1.0}, {"eta_range": (1.0, 1.0)}]
)
def test_a_binning_that_makes_no_table_is_refused(options):
    with pytest.raises(ConfigError, match="LikelihoodConfig"):
        LikelihoodConfig(**options)
