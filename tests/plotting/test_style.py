"""Plot functions draw what they are given, name their source, and leave the caller's style
alone.
"""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib.geometry import WINDOW
from pfcalib.metrics.curve import Curve
from pfcalib.plotting import curves as plots
from pfcalib.plotting import display as plots_clusters

EDGES = np.array([0.5, 1.0, 2.0, 4.0])


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def _curve(value, *, error=0.01):
    return Curve(EDGES, np.asarray(value, dtype=float), np.full(3, error))


PAIR = (_curve([0.9, 1.0, 1.1]), _curve([1.0, 1.0, 1.0]))


def test_the_style_of_the_caller_is_left_alone():
    before = dict(mpl.rcParams)
    plots.plot_distributions({"fast": [0.5]}, edges=[0.0, 1.0], x_label="E [GeV]")
    assert dict(mpl.rcParams) == before


def test_a_figure_names_its_source_which_is_no_experiment():
    ax = plots.plot_distributions(
        {"fast": [0.5]}, edges=[0.0, 1.0], x_label="E [GeV]", sources=(plots.GEANT4,)
    )
    assert ax.get_title(loc="left") == plots.GEANT4
    assert "ATLAS" not in plots.SIMULATION + plots.GEANT4


def test_the_lower_panel_holds_the_ratio_with_its_error():
    _, lower = plots.plot_ratio_curves(
        {"pi0": PAIR}, x_label="E [GeV]", y_label="response", limits=[0.05]
    )
    drawn = lower.containers[0]
    assert drawn.lines[0].get_ydata() == pytest.approx([0.9, 1.0, 1.1])
    segments = drawn.lines[2][1].get_segments()
    assert 0.5 * (segments[1][1, 1] - segments[1][0, 1]) == pytest.approx(0.01 * np.sqrt(2.0))


def test_a_grid_has_one_panel_a_name():
    panels = {name: {"pi0": PAIR} for name in ("EMB1", "EMB2", "EMB3")}
    axes = plots.plot_curve_grid(
        panels, x_label="E [GeV]", y_label="share", tolerance=0.03, absolute=True, n_columns=2
    )
    assert [ax.texts[0].get_text() for ax in axes] == list(panels)


def test_a_distribution_counts_entries_outside_in_its_norm():
    ax = plots.plot_distributions(
        {"a": [0.5, 0.6, 7.0, np.nan]}, edges=[0.0, 1.0, 2.0], x_label="x"
    )
    assert ax.patches[0].get_data().values.tolist() == [0.5, 0.0]


def test_the_second_distribution_of_a_colour_is_dashed():
    ax = plots.plot_distributions(
        {"a": [0.5], "b": [0.5]}, edges=[0.0, 1.0], x_label="x", colours=["red", "red"]
    )
    assert [patch.get_linestyle() for patch in ax.patches] == ["-", "--"]


def test_an_event_shows_six_layers_and_the_borders_of_its_clusters():
    owner = np.full(WINDOW.n_cells, -1)
    owner[WINDOW.offset[2]] = 0  # one cell in a corner of EMB2
    axes = plots_clusters.plot_event(
        np.ones(WINDOW.n_cells), owner, np.ones(WINDOW.n_cells), WINDOW, title="a corner"
    )
    assert [ax.get_title(loc="right") for ax in axes.flat] == [
        "EMB1",
        "EMB2",
        "EMB3",
        "TileBar0",
        "TileBar1",
        "TileBar2",
    ]
    borders = axes.flat[1].collections[-1].get_segments()
    assert len(borders) == 4
    assert np.min(borders, axis=(0, 1)) == pytest.approx([-0.2, -0.2])
    assert np.max(borders, axis=(0, 1)) == pytest.approx([-0.175, -0.175])
