"""The study holds each step against its own target, on the split that it names."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample
from studies.lcw_study import (
    STEPS,
    CalibratedClusters,
    calibrate_split,
    closures_in_eta,
    closures_in_mu,
    step_curves,
    worst_closures,
    worst_in_eta,
)

from pfcalib.calibration.lcw import LcwConfig, fit_lcw
from pfcalib.calibration.likelihood import LikelihoodConfig
from pfcalib.metrics.curve import Curve
from pfcalib.samples.split import split_of
from pfcalib.samples.write import write_sample

SMALL = LcwConfig(
    likelihood=LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5),
    n_energy=3,
    n_density=4,
    n_cluster_eta=2,
    n_lambda=3,
)


def clusters(rng, n=4000, *, scale=1.0):
    """EM scale 10 % too low; each step exact but for a common scale."""
    target = {"em": rng.uniform(1.0, 100.0, n)}
    target |= {"cells": target["em"], "ooc": 1.1 * target["em"], "full": 1.2 * target["em"]}
    energy = {"em": 0.9 * target["em"], **{step: scale * target[step] for step in STEPS}}
    return CalibratedClusters(
        energy, target, np.full(n, 0.5), rng.random(n) < 0.5, rng.uniform(0.0, 0.7, n)
    )


def test_each_step_answers_for_its_own_target(rng):
    curves = step_curves(clusters(rng), [1.0, 10.0, 150.0], rng=rng)
    worst = worst_closures(curves, (1.0, 150.0))
    assert set(worst) == {(step, species) for step in ("em", *STEPS) for species in ("pi0", "pic")}
    assert worst["em", "pic"].value == pytest.approx(0.1)
    assert all(worst[step, "pi0"].value == pytest.approx(0.0, abs=1e-12) for step in STEPS)


def test_closures_in_eta_look_at_the_range_of_energy_only(rng):
    found = closures_in_eta(clusters(rng), [0.0, 0.35, 0.7], energies=(10.0, 50.0), rng=rng)
    np.testing.assert_allclose(found["em"]["pi0"].value, 0.9)
    assert found["full"]["pic"].median.count.sum() < 2000


def test_closures_in_mu_have_a_bin_a_point(rng):
    points = {0: clusters(rng), 20: clusters(rng, scale=0.95), 40: clusters(rng, scale=0.9)}
    found = closures_in_mu(points, energies=(1.0, 150.0), rng=rng)
    np.testing.assert_allclose(found["pi0"].value, [1.0, 0.95, 0.9])
    np.testing.assert_allclose(found["pic"].edges, [-10.0, 10.0, 30.0, 50.0])
    assert (
        len(closures_in_mu({0.0: clusters(rng)}, energies=(1.0, 150.0), rng=rng)["pi0"].value) == 1
    )


def test_a_split_of_a_file_is_calibrated_in_file_order(rng, tmp_path):
    sample = make_sample(rng, 300)
    write_sample(tmp_path / "pions.root", sample)
    tables = fit_lcw([sample], SMALL)
    found = calibrate_split(tmp_path / "pions.root", tables, split="test")
    rows = np.flatnonzero(
        (split_of(sample["eventNumber"]) == 2) & SMALL.selection.mask(sample.scalars)
    )
    assert len(found.is_em) == len(rows) > 20
    expected = tables.apply(sample[rows])
    np.testing.assert_array_equal(found.energy["full"], expected.full)
    np.testing.assert_array_equal(found.energy["em"], sample["clusterE"][rows])
    np.testing.assert_array_equal(found.is_em, sample.is_em[rows])


def test_targets_add_what_is_out_of_the_cluster_and_then_what_is_in_dead_material(rng, tmp_path):
    sample = make_sample(rng, 300)
    sample.scalars["cluster_ENG_CALIB_OUT_T"] = 0.2 * sample["clusterE"]
    sample.scalars["cluster_ENG_CALIB_DEAD_TOT"] = 0.5 * sample["clusterE"]
    write_sample(tmp_path / "pions.root", sample)
    found = calibrate_split(tmp_path / "pions.root", fit_lcw([sample], SMALL), split="all")
    deposit, measured = found.target["em"], found.energy["em"]
    np.testing.assert_allclose(deposit / measured, np.where(found.is_em, 1.0, 1.3), rtol=1e-5)
    for step, outside in (("cells", 0.0), ("ooc", 0.2), ("full", 0.7)):
        np.testing.assert_allclose(found.target[step], deposit + outside * measured, rtol=1e-5)


def test_the_worst_bin_in_eta_is_found_over_all_steps_with_its_own_error():
    def binned(value, error):
        return Curve(
            np.array([0.0, 0.1, 0.2]), np.array(value), np.array(error), np.array([9, 9])
        )

    closures = {
        "em": {"pi0": binned([1.01, np.nan], [0.1, 0.2])},
        "cells": {"pi0": binned([1.0, 0.96], [0.3, 0.4])},
    }
    assert worst_in_eta(closures)["pi0"] == pytest.approx((0.04, 0.4))
