"""The short functions that notebooks 03 and 07 to 09 define: a network is ahead from some size on,
the floor finds its weights, each step of local cell weighting has its own target and split, and
what is chosen or inverted is so on the validation split.
"""

from __future__ import annotations

import ast

import nbformat
import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.inversion import fit_inversion
from pfcalib.calibration.lcw import LcwConfig, apply_lcw, derive_lcw
from pfcalib.calibration.likelihood import LikelihoodConfig
from pfcalib.metrics.bootstrap import bootstrap_quantiles
from pfcalib.metrics.curve import UNKNOWN, Estimate
from pfcalib.metrics.response import response_curve, species_masks
from pfcalib.samples.split import split_of
from pfcalib.samples.table import read_table
from pfcalib.samples.write import write_sample

SMALL = LcwConfig(
    likelihood=LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5),
    n_energy=3,
    n_density=4,
    n_cluster_eta=2,
    n_lambda=3,
)


def definitions(root, name, *constants, **namespace):
    """What a notebook defines: its functions, and the constants that are named."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    trees = [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    wanted = [
        node
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in constants)
    ]
    exec(compile(ast.Module(wanted, []), name, "exec"), namespace)
    return namespace


@pytest.fixture
def lcw(root):
    return definitions(
        root,
        "07_lcw",
        *("(DEPOSIT, OUT, DEAD)", "TARGETS", "STEPS"),
        **{"np": np, "read_table": read_table, "apply_lcw": apply_lcw, "Estimate": Estimate},
        **{"species_masks": species_masks, "bootstrap_quantiles": bootstrap_quantiles},
        **{"UNKNOWN": UNKNOWN, "MIN_COUNT": 30, "pileup_range": (2.0, 20.0)},
    )


def test_each_step_of_lcw_has_its_own_target_on_the_split_that_is_named(lcw, rng, tmp_path):
    sample = make_sample(rng, 400)
    lost = ("cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT")
    sample.scalars.update({name: rng.exponential(1.0, 400) for name in lost})
    path = tmp_path / "pions.root"
    write_sample(path, sample)
    tables = derive_lcw(path, split="all", config=SMALL)
    clusters = lcw["calibrate"](path, tables, "test")
    rows = np.flatnonzero(
        (split_of(sample["eventNumber"]) == 2) & SMALL.selection.mask(sample.scalars)
    )
    assert 40 < len(rows) < 200
    deposit = sample["cluster_ENG_CALIB_TOT"][rows].astype(float)
    out, dead = (sample[name][rows] for name in lost)
    for step, target in {"em": deposit, "cells": deposit, "ooc": deposit + out}.items():
        np.testing.assert_allclose(clusters[f"target_{step}"], target, rtol=1e-6)
    np.testing.assert_allclose(clusters["target_full"], deposit + out + dead, rtol=1e-6)
    everywhere = apply_lcw(path, tables)
    for step in ("cells", "ooc", "full"):
        np.testing.assert_array_equal(clusters[f"e_{step}"], getattr(everywhere, step)[rows])
    assert len(lcw["calibrate"](path, tables, "all")) > 3 * len(rows)


def test_the_median_against_pileup_is_that_of_the_range_that_is_followed(lcw, rng):
    target = 10.0 ** rng.uniform(-1.0, 3.0, 4000)
    inside = (target >= 2.0) & (target < 20.0)
    energy = target * np.where(inside, 0.9, 3.0)
    is_em = rng.random(4000) < 0.5
    lcw["rng"] = rng
    found = lcw["median_in_range"](
        {"e_full": energy, "target_full": target, "is_em": is_em}, "full"
    )
    assert [estimate.value for estimate in found.values()] == pytest.approx([0.9, 0.9])
    few = {"e_full": energy[:5], "target_full": target[:5], "is_em": is_em[:5]}
    assert np.isnan(lcw["median_in_range"](few, "full")["pi0"].value)


@pytest.fixture
def combined(root):
    names = {"np": np, "family": "mlp", "fit_inversion": fit_inversion, "Estimate": Estimate}
    names |= {"species_masks": species_masks, "response_curve": response_curve, "UNKNOWN": UNKNOWN}
    return definitions(root, "09_combined", **names)


def test_a_cut_takes_one_energy_and_a_weight_mixes_both(combined):
    p, neutral, charged = np.array([0.5, 0.2, 1.0]), np.full(3, 1.0), np.full(3, 4.0)
    assert combined["hard"](p, neutral, charged, 0.5).tolist() == [1.0, 4.0, 1.0]
    assert combined["soft"](p, neutral, charged, "log")[[0, 2]] == pytest.approx([2.0, 1.0])
    assert combined["soft"](p, neutral, charged, "linear")[[0, 2]] == pytest.approx([2.5, 1.0])
    assert combined["oracle"](p >= 0.5, neutral, charged).tolist() == [1.0, 4.0, 1.0]


def test_the_inversion_of_a_combination_is_measured_on_validation(combined, rng):
    """Validation is 20 % low; of the test split, which is 50 % low, nothing may be learnt."""
    e_true = 10.0 ** rng.uniform(0.0, 2.5, 20_000)
    combined["held_out"] = {"e_dep": e_true}
    on_test = 0.5 * 10.0 ** rng.uniform(0.5, 2.0, 100)
    found = combined["inverted"](0.8 * e_true, on_test)
    np.testing.assert_allclose(found, on_test / 0.8, rtol=0.01)


def test_combinations_are_judged_by_the_validation_split_and_every_decade_counts_alike(
    combined, rng
):
    """20 % wide in the sparse upper decade, 10 % in the lower one: 15 % in the mean."""
    low, high = 10.0 ** rng.uniform(0.0, 1.0, 20_000), 10.0 ** rng.uniform(1.0, 2.0, 5_000)
    e_true = np.concatenate([low, high])
    width = np.where(e_true < 10.0, 0.1, 0.2)
    energy = e_true * (1.0 + width * rng.normal(size=len(e_true)))

    class Table(dict):
        def __len__(self):
            return len(self["e_dep"])

    combined["held_out"] = Table({"e_dep": e_true, "is_em": rng.random(len(e_true)) < 0.5})
    combined |= {"choice_edges": np.array([1.0, 10.0, 100.0]), "min_count": 30, "rng": rng}
    for found in combined["merits"](energy).values():
        assert found["resolution"].value == pytest.approx(0.15, abs=0.005)
        assert found["bias"].value == pytest.approx(0.0, abs=0.01)


def test_the_floor_finds_the_weights_of_what_is_invisible_in_each_bin(root, rng):
    """Each bin of visible energy has weights of its own; one with few clusters keeps one."""
    study = definitions(root, "08_regression", np=np, edges=np.array([10.0, 20.0]))
    sums = rng.exponential(2.0, (3000, 2, 3))
    bins = study["bins_of"](sums)
    assert set(bins) == {0, 1, 2}
    np.testing.assert_array_equal(bins == 0, sums.sum(axis=(1, 2)) < 10.0)
    weights = np.array([[1.5, 2.0, 1.1], [1.2, 1.4, 1.0], [1.1, 1.2, 1.3]])
    e_true = np.sum(sums[:, 0] + weights[bins] * sums[:, 1], axis=1)
    np.testing.assert_allclose(study["fit_floor"](sums, e_true, bins, 3), weights, rtol=1e-8)
    few = slice(0, 20)
    found = study["fit_floor"](sums[few], e_true[few], bins[few], 3)
    np.testing.assert_array_equal(found, 1.0)


@pytest.mark.parametrize(
    ("leads", "size"),
    [
        ((0.01, -0.02, -0.01, 0.03), 10**5.25),
        ((-0.1, -0.1, -0.1, -0.1), None),
        ((0.1, 0.1, 0.1, -0.1), None),
        ((0.1, 0.1, 0.1, 0.2), 1e3),
    ],
)
def test_a_network_is_ahead_from_between_the_last_size_behind_and_the_next(root, leads, size):
    study = definitions(root, "03_classification", np=np, styled=lambda function: function)
    estimates = [Estimate(value, 0.01) for value in leads]
    found, error = study["crossing_size"]([1e3, 1e4, 1e5, 1e6], estimates)
    assert found == (size if size is None else pytest.approx(size, rel=1e-6))
    assert (error is None) == (leads[0] * leads[1] > 0.0)
