"""Figures of studies of hyper-parameters show every parameter and every trial."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from studies import plots_tuning as plots

mpl.use("Agg")
LOSS = np.array([0.5, 0.3, 9.0, np.nan, 0.2])
PRUNED = np.array([False, False, True, True, False])


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_importances_have_a_bar_a_parameter_largest_on_top():
    axes = plots.plot_importances(
        {"DNN": {"width": (0.6, 0.1), "learning_rate": (0.3, 0.5)}, "CNN": {"filters": (1.0, 0.0)}}
    )
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["width", "learning rate"]
    bars = axes[0].containers[-1].patches
    assert [bar.get_width() for bar in bars] == [0.6, 0.3]
    assert bars[0].get_y() > bars[1].get_y()


def test_the_best_so_far_never_rises_and_leaves_pruned_trials_out():
    (ax,) = plots.plot_history({"DNN": (LOSS, PRUNED)})
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["best so far"].get_ydata(), [0.5, 0.3, 0.3, 0.3, 0.2])
    np.testing.assert_array_equal(lines["pruned"].get_xdata(), [3, 4])
    assert ax.get_ylim()[1] < 9.0


def test_a_study_without_a_complete_trial_is_drawn():
    plots.plot_history({"DNN": ([0.5, 0.4], [True, True])})


def test_slices_show_numbers_where_they_lie_and_names_side_by_side():
    values = {
        "learning_rate": [1e-4, 1e-3, 2e-3, 3e-3, 1e-2],
        "taper": ["none", "each", "none", "last", "each"],
    }
    axes = plots.plot_slices(values, LOSS, PRUNED, best=4, title="DNN", log=("learning_rate",))
    assert axes[0].get_xscale() == "log"
    stars = [line for line in axes[0].get_lines() if line.get_label() == "best"]
    assert stars[0].get_xdata() == [1e-2]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["each", "last", "none"]


def test_few_trials_of_a_continuous_parameter_are_no_choice():
    values = {
        "dropout": [0.1, 0.013, 0.15],
        "pixel_power": [0.5, 1.0, 0.5],
        "learning_rate": [1e-3, 1e-3, 2e-3],
    }
    axes = plots.plot_slices(
        values, [3.0, 2.0, 1.0], [False] * 3, best=2, title="DNN", log=("learning_rate",)
    )
    assert [
        line.get_xdata()[0] for line in axes[0].get_lines() if line.get_label() == "default"
    ] == [0.1]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["0.5", "1.0"]
    assert axes[2].get_xscale() == "log"
