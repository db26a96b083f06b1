"""Profiles stand over their ratios."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib.metrics.curve import Curve
from pfcalib.plotting.profiles import plot_profiles


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_profiles_have_a_column_each_and_the_ratio_below():
    edges = np.array([0.0, 2.0, 6.0])
    fast, reference = (
        Curve(edges, np.array(v), np.full(2, 0.01)) for v in ([0.2, 0.1], [0.4, 0.1])
    )
    axes = plot_profiles({"one": (fast, reference), "two": (fast, fast)}, units=["X_0", "L"])
    assert axes.shape == (2, 2)
    drawn = axes[1, 0].containers[0].lines[0].get_ydata()
    assert list(drawn) == [0.5, 1.0]
    assert "X_0" in axes[1, 0].get_xlabel()
    assert "L" in axes[1, 1].get_xlabel()
