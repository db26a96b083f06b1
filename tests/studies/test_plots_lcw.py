"""Figures of local cell weighting show every bin, kind and step that they are given."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from studies.plots_lcw import STEP_LABELS, plot_p_em_maps, plot_pileup, plot_steps, plot_weight_maps

from pfcalib.calibration.lcw import LcwConfig
from pfcalib.metrics.curve import Curve
from pfcalib.metrics.response import response_curve

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_p_em_has_a_panel_a_bin_of_energy():
    edges = LcwConfig().likelihood.edges
    content = np.random.default_rng(1).random([len(axis) - 1 for axis in edges])
    axes = plot_p_em_maps(content, edges, eta_bin=1, energy_bins=(2, 5, 8))
    low, high = 10.0 ** edges[1][2:4] / 1e3
    assert axes[0].texts[0].get_text() == f"{low:.3g} to {high:.3g} GeV"
    assert len(axes) == 3


def test_bins_that_keep_weight_one_are_left_white():
    config = LcwConfig()
    weight = np.ones((14, 14))
    weight[3, 4] = 1.3
    (ax,) = plot_weight_maps(
        {"charged": weight}, config.energy_edges, config.density_edges[2], title="EMB2"
    )
    assert ax.collections[0].get_array().count() == 1


def test_every_step_has_a_panel_with_both_kinds(rng):
    energy = rng.uniform(1.0, 100.0, 1000)
    curve = response_curve(
        energy * rng.normal(1.0, 0.1, 1000), energy, [1.0, 10.0, 100.0, 1000.0], rng=rng
    )
    axes = plot_steps({step: {"pi0": curve, "pic": curve} for step in STEP_LABELS})
    assert [ax.texts[0].get_text() for ax in axes] == [label for label, _ in STEP_LABELS.values()]
    assert len(axes[0].get_lines()) == 3
    assert len(axes[-1].get_legend().get_texts()) == 3


def test_points_of_pileup_stand_at_their_mu():
    found = Curve(
        np.array([-10.0, 10.0, 30.0]),
        np.array([1.0, 0.9]),
        np.array([0.01, 0.01]),
        np.array([100, 100]),
    )
    axes = plot_pileup(
        {"LCW": {"pi0": found, "pic": found}, "old tables": {"pi0": found, "pic": found}}
    )
    assert [list(container[0].get_xdata()) for container in axes[1].containers] == [[0.0, 20.0]] * 2
    assert len(axes[0].get_legend().get_texts()) == 2
