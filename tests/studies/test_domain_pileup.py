"""Calibrations against pile-up: each sample gives one point, at its mu."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_sample
from studies.domain_pileup import PileupCurves, follow_pileup

from pfcalib.metrics.curve import Curve
from pfcalib.samples.write import write_sample


def test_each_sample_is_a_point_at_its_mu(tmp_path):
    paths = {}
    for mu in (0, 20, 40):
        paths[mu] = (
            write_sample(tmp_path / f"{mu}.root", make_sample(np.random.default_rng(mu), 500))
            or tmp_path / f"{mu}.root"
        )
    curves = follow_pileup(
        paths,
        networks={},
        tables={},
        energies=(0.5, 200.0),
        rng=np.random.default_rng(1),
        split="all",
    )
    charged = curves.median["em"]["pic"]
    assert charged.edges.tolist() == [-10.0, 10.0, 30.0, 50.0]
    assert charged.value == pytest.approx(1.0 / 1.3, abs=1e-3)  # of the toy
    assert curves.resolution["em"]["pi0"].value == pytest.approx(0.0, abs=1e-3)
    assert charged.count.min() > 100


def test_the_drift_is_the_change_from_the_first_mu_to_the_last():
    estimate = Curve(
        np.arange(4.0), np.array([1.0, 5.0, 0.9]), np.array([0.03, 1.0, 0.04]), np.full(3, 100)
    )
    drift = PileupCurves({"lcw": {"pi0": estimate}}, {}).drift["lcw", "pi0"]
    assert drift == pytest.approx((-0.1, 0.05))
