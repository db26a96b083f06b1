"""Figures of calibrations show every model and species that they are given, name their source, and
hold the numbers that they are given.
"""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib.metrics.curve import Curve, Estimate
from pfcalib.metrics.response import ResponseCurves
from pfcalib.plotting import curves as plots
from pfcalib.plotting.style import GEANT4, MODEL_LOOKS, SIMULATION

EDGES = np.array([0.5, 1.0, 2.0, 4.0])
CLASSIFIERS = {"likelihood": "EM likelihood", "gbdt": "boosted trees", "dnn": "DNN"}
MODELS = ("em", "lcw", "dnn", "my_model")


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def _curve(median: float, width: float) -> ResponseCurves:
    constant = [np.array([value, value, np.nan]) for value in (median, 0.01, width, 0.01)]
    return ResponseCurves(*(Curve(EDGES, *pair) for pair in (constant[:2], constant[2:])))


def _curves() -> dict[str, dict[str, ResponseCurves]]:
    return {
        model: {s: _curve(1.0 - 0.1 * i, 0.2 - 0.02 * i) for s in ("pi0", "pic")}
        for i, model in enumerate(MODELS)
    }


def _legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_model_of_the_studies_has_a_look_of_its_own():
    looks = MODEL_LOOKS
    assert {
        "likelihood",
        "em",
        "lcw",
        "lcw_network",
        "gbdt",
        "gbdt_shapes",
        "mlp",
        "points",
        "points_all",
        "dnn",
        "cnn",
        "densenet",
        "combined_hard",
        "combined_soft",
        "end_to_end",
        "oracle",
    } == set(looks)
    assert (
        len({(look.colour, look.marker, look.line) for look in looks.values()})
        == len({look.label for look in looks.values()})
        == len(looks)
    )


def test_unknown_models_get_spare_colours_and_their_names():
    looks = plots.looks_of(["dnn", "my_model", "other"])
    assert looks["my_model"].label == "my model"
    assert len({look.colour for look in looks.values()}) == 3


@pytest.mark.parametrize("quantity", ["median", "resolution"])
def test_calibrations_have_a_column_a_species_and_the_ratio_below(quantity):
    axes = plots.plot_calibrations(
        _curves(), quantity, goals=[(1.0, 4.0, 0.01)], ratio_limits=(0.5, 1.5), sources=(GEANT4,)
    )
    assert axes.shape == (2, 2)
    assert axes[0, 0].get_title(loc="left") == GEANT4
    assert axes[1, 1].get_ylim() == (0.5, 1.5)
    assert [text for text in _legend(axes[0, 0].figure) if text != "goal"] == [
        "EM scale",
        "LCW",
        "DNN",
        "my model",
    ]
    expected = {"median": 0.8 / 0.9, "resolution": 0.16 / 0.18}[quantity]
    # the DNN, where anything is known
    assert axes[1, 0].lines[1].get_ydata() == pytest.approx([expected] * 2)
    assert axes[0, 0].get_xlim() == (0.5, 2.0)


def test_an_unknown_quantity_is_refused():
    with pytest.raises(ValueError, match="quantity"):
        plots.plot_calibrations(_curves(), "mean")


def test_without_lcw_the_first_model_is_the_reference():
    axes = plots.plot_calibrations({"dnn": _curves()["dnn"], "cnn": _curves()["em"]})
    assert axes[1, 0].lines[0].get_ydata() == pytest.approx([1.0 / 0.8] * 2)


def test_closure_has_a_panel_a_species_and_its_band():
    binned = Curve(
        np.array([0.0, 0.4, 0.8]), np.array([1.0, 0.99]), np.array([0.01, 0.01]), np.array([50, 50])
    )
    axes = plots.plot_binned(
        {"lcw": {"pi0": binned, "pic": binned}},
        x_label=r"$|\eta|$",
        tolerance=0.02,
        y_limits=(0.9, 1.1),
    )
    assert axes[0].get_ylim() == (0.9, 1.1)
    assert axes[0].containers[0].lines[0].get_ydata() == pytest.approx([1.0, 0.99])


def test_a_size_study_has_a_point_a_size_and_lines_for_what_is_not_trained():
    ax = plots.plot_size_study(
        [1e3, 1e4],
        {"dnn": [Estimate(0.2, 0.01)] * 2},
        y_label="IQR / (2 median)",
        levels={"lcw": 0.3},
        log_y=True,
    )
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LCW", "DNN"]


def test_no_figure_claims_to_be_of_an_experiment():
    ax = plots.plot_size_study([1e3], {"dnn": [Estimate(0.2, 0.01)]}, y_label="IQR / (2 median)")
    assert ax.get_title(loc="left") == SIMULATION


def test_points_of_a_bin_stand_side_by_side_on_either_scale():
    binned = Curve(np.array([0.5, 10.0, 100.0]), np.array([0.9, 0.8]), np.full(2, 0.01))
    curves = {model: {"energy": binned, "eta": binned} for model in ("gbdt", "dnn", "cnn")}
    axes = plots.plot_binned(
        curves, x_label=("E", "eta"), log_x=(True, False), sources=(SIMULATION, GEANT4)
    )
    for ax in axes:
        positions = [container[0].get_xdata() for container in ax.containers]
        assert all(np.all(a < b) for a, b in itertools.pairwise(positions))
    assert [ax.get_title(loc="left") for ax in axes] == [SIMULATION, GEANT4]


def test_trainings_take_negative_losses_and_mark_the_kept_epoch():
    history = {"loss": np.array([2.0, -1.0, -2.0]), "val_loss": np.array([2.0, -1.5, -1.0])}
    axes = plots.plot_trainings(
        {f"m{i}": history for i in range(5)}, dict.fromkeys(map("m{}".format, range(5)), 1)
    )
    assert len(axes) == 5
    assert axes[0].lines[2].get_xydata().tolist() == [[2.0, -1.5]]
    assert axes[0].get_ylim()[0] < -2.0


@pytest.mark.parametrize("crossing", [300.0, None])
def test_the_crossing_is_marked_only_where_there_is_one(crossing):
    areas = {"cnn": [Estimate(0.8, 0.01), Estimate(0.95, 0.01)]}
    ax = plots.plot_size_study([100, 1000], areas, y_label="area", crossing=crossing)
    assert any("crossing" in label for label in labels(ax)) == (crossing is not None)


@pytest.fixture
def scored(rng):
    is_em = rng.random(500) < 0.5
    return {
        name: np.clip(rng.normal(np.where(is_em, 0.7, 0.3), 0.2), 0.0, 1.0) for name in CLASSIFIERS
    }, is_em


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def test_the_roc_has_a_panel_a_sample_and_a_curve_a_classifier(scored):
    axes = plots.plot_roc({"test": scored, "Geant4": scored})
    assert [labels(ax) for ax in axes] == [list(CLASSIFIERS.values())] * 2
