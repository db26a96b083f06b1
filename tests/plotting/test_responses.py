"""Distributions of responses carry the errors of their counts."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from pfcalib.plotting.responses import plot_responses


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_responses_are_densities_with_the_errors_of_their_counts(rng):
    response = rng.normal(1.0, 0.1, 1000)
    axes = plot_responses({"lcw": {"one": response}, "dnn": {"one": response}}, n_columns=1)
    points, _, bars = axes[0, 0].containers[0]
    width = np.diff(points.get_xdata())[0]
    count = points.get_ydata() * width * 1000
    assert count == pytest.approx(np.round(count))
    assert 980 <= count.sum() <= 1000  # the central 99 % and a little more
    half = np.ptp(np.array(bars[0].get_segments())[:, :, 1], axis=1) / 2.0
    assert half * width * 1000 == pytest.approx(np.sqrt(count))
