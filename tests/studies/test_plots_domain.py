"""The figures of the study of domain shift show what they are given."""

from __future__ import annotations

import numpy as np
import pytest
from studies.plots_domain import plot_resolution

from pfcalib.metrics.curve import Curve


def test_each_species_has_a_panel_and_each_calibration_its_points():
    estimate = Curve(
        np.array([-10.0, 10.0, 30.0]),
        np.array([0.1, 0.2]),
        np.array([0.01, 0.01]),
        np.array([90, 90]),
    )
    axes = plot_resolution(
        {
            "lcw": {"pi0": estimate, "pic": estimate},
            "augmented": {"pi0": estimate, "pic": estimate},
        },
        x_label=r"$\mu$",
    )
    assert len(axes) == 2
    lines = [container.lines[0] for container in axes[0].containers]
    assert [line.get_ydata().tolist() for line in lines] == [[0.1, 0.2], [0.1, 0.2]]
    assert lines[0].get_xdata() == pytest.approx([-1.0, 19.0])
    assert axes[0].get_ylim()[0] == 0.0
