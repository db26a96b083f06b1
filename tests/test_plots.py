"""Plot functions draw what they are given, name their source, and leave the caller's style alone."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib import plots

EDGES = np.array([0.5, 1.0, 2.0, 4.0])


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def _curve(label, value, *, error=0.01, **options):
    return plots.Curve(label, EDGES, np.asarray(value, dtype=float), np.full(3, error), **options)


PAIR = (_curve("fast", [0.9, 1.0, 1.1]), _curve("Geant4", [1.0, 1.0, 1.0]))


def test_a_curve_has_geometric_centres_and_arithmetic_ones_where_an_edge_is_not_positive():
    assert _curve("a", [1, 2, 3]).centres == pytest.approx(np.sqrt([0.5, 2.0, 8.0]))
    assert plots.Curve("a", np.array([-1.0, 0.0, 2.0]), np.zeros(2)).centres == pytest.approx([-0.5, 1.0])


def test_the_style_of_the_caller_is_left_alone():
    before = dict(mpl.rcParams)
    plots.plot_curves([PAIR[0]], x_label="E [GeV]", y_label="response")
    assert dict(mpl.rcParams) == before


def test_every_figure_names_its_source_and_its_axes():
    ax = plots.plot_curves([PAIR[0]], x_label="E [GeV]", y_label="response", sources=(plots.GEANT4,), level=1.0, log_y=True, y_limits=(0.5, 2.0))
    assert (ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()) == (plots.GEANT4, "E [GeV]", "response")
    assert "ATLAS" not in plots.SIMULATION + plots.GEANT4


def test_the_lower_panel_holds_the_ratio_with_its_error():
    _, lower = plots.plot_ratio_curves([PAIR], x_label="E [GeV]", y_label="response", limits=[0.05])
    drawn = lower.containers[0]
    assert drawn.lines[0].get_ydata() == pytest.approx([0.9, 1.0, 1.1])
    segments = drawn.lines[2][1].get_segments()
    assert 0.5 * (segments[1][1, 1] - segments[1][0, 1]) == pytest.approx(0.01 * np.sqrt(2.0))


def test_a_grid_has_one_panel_a_name():
    panels = {"EMB1": [PAIR], "EMB2": [PAIR], "EMB3": [PAIR]}
    axes = plots.plot_curve_grid(panels, x_label="E [GeV]", y_label="share", tolerance=0.03, absolute=True, n_columns=2)
    assert [ax.texts[0].get_text() for ax in axes] == list(panels)


def test_a_distribution_counts_entries_outside_in_its_norm():
    ax = plots.plot_distributions({"a": [0.5, 0.6, 7.0, np.nan]}, edges=[0.0, 1.0, 2.0], x_label="x")
    assert ax.patches[0].get_data().values.tolist() == [0.5, 0.0]


def test_the_second_distribution_of_a_colour_is_dashed():
    ax = plots.plot_distributions({"a": [0.5], "b": [0.5]}, edges=[0.0, 1.0], x_label="x", colours=["red", "red"], log_x=False)
    assert [patch.get_linestyle() for patch in ax.patches] == ["-", "--"]
