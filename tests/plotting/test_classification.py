"""Figures of classifiers show every classifier and every sample they are given."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.roc import auc_in_bins
from pfcalib.plotting import classification as plots

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def scored(rng):
    is_em = rng.random(500) < 0.5
    return {
        name: np.clip(rng.normal(np.where(is_em, 0.7, 0.3), 0.2), 0.0, 1.0)
        for name in plots.MODEL_LABELS
    }, is_em


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def test_roc_and_scores_have_a_panel_a_sample_and_a_classifier(scored):
    axes = plots.plot_roc({"test": scored, "Geant4": scored})
    assert [labels(ax) for ax in axes] == [list(plots.MODEL_LABELS.values())] * 2
    assert len(plots.plot_scores({"fast": scored, "Geant4": scored})) == len(plots.MODEL_LABELS)


def test_areas_are_drawn_in_bins_side_by_side(scored):
    p_em, is_em = scored
    curves = auc_by_model(p_em, is_em, np.linspace(0.5, 99.0, len(is_em)), [0.5, 10.0, 100.0])
    axes = plots.plot_binned_auc({"energy": curves, "eta": curves}, log_x=(True, False))
    positions = [container[0].get_xdata() for container in axes[0].containers]
    assert all(np.all(a < b) for a, b in itertools.pairwise(positions))


def test_a_training_shows_the_epoch_that_is_kept():
    history = {"loss": np.array([3.0, 2.0, 1.0]), "val_loss": np.array([3.0, 1.0, 2.0])}
    (ax,) = plots.plot_trainings({"cnn": history}, {"cnn": 1})
    ring = ax.get_lines()[-1]
    assert (*ring.get_xdata(), *ring.get_ydata()) == (2, 1.0)


def test_the_crossing_is_marked_only_where_there_is_one():
    areas = {"gbdt": [Estimate(0.9, 0.01)] * 2, "cnn": [Estimate(0.8, 0.01), Estimate(0.95, 0.01)]}
    assert any(
        "crossing" in label
        for label in labels(plots.plot_size_study([100, 1000], areas, crossing=300.0))
    )
    assert not any(
        "crossing" in label
        for label in labels(plots.plot_size_study([100, 1000], areas, crossing=None))
    )


def test_published_areas_stand_beside_ours():
    ax = plots.plot_layers(
        {"EMB1": Estimate(0.9, 0.01), "all": Estimate(0.95, 0.01)}, {"EMB1": 0.97}
    )
    assert [text.get_text() for text in ax.get_xticklabels()] == ["EMB1", "all"]


def test_equal_outputs_are_counted_too():
    ax = plots.plot_differences({"dnn": np.array([0.0, 1e-7, 1.0])}, tolerance=1e-5)
    assert ax.dataLim.y1 >= 1.0


def test_latency_is_drawn_a_cluster():
    ax = plots.plot_latency([1, 10], {"dnn": [5.0, 20.0]}, {"dnn": [(4.0, 6.0), (18.0, 25.0)]})
    np.testing.assert_allclose(ax.containers[0][0].get_ydata(), [5.0, 2.0])
