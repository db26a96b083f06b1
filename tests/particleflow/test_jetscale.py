"""The energy scale undoes a known response of jets that it has not seen, also where that depends on
eta.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError, ValidationError
from pfcalib.metrics.response import response_curve
from pfcalib.particleflow.jetscale import fit_jet_scale

EDGES = 20.0 * (500.0 / 20.0) ** np.linspace(0.0, 1.0, 15)  # other bins than those of the fit


def measured(rng, pt_true, eta=0.0):
    """A response from 0.55 at 10 GeV to 0.8 at 500 GeV, of less at the edge, with a smearing."""
    mean = pt_true * (0.9 - 0.9 * pt_true**-0.4) * (1.0 - 0.2 * np.abs(eta))
    return mean * (1.0 + 0.8 / np.sqrt(pt_true) * rng.normal(size=pt_true.size))


@pytest.fixture
def jets(rng):
    pt_true = 10.0 ** rng.uniform(0.9, 3.0, 200_000)
    return np.maximum(measured(rng, pt_true), 0.0), pt_true, np.arange(200_000) % 2 == 0


def test_the_median_response_of_the_other_half_becomes_one_in_every_bin(jets, rng):
    pt, pt_true, half = jets
    scale = fit_jet_scale(pt[half], pt_true[half])
    before, after = (
        response_curve(each[~half], pt_true[~half], EDGES, n_bootstrap=50, rng=rng).median.value
        for each in (pt, scale.apply(pt))
    )
    assert np.all(before < 0.85)
    np.testing.assert_allclose(after, 1.0, atol=0.01)


def test_the_scale_of_each_bin_in_eta_is_its_own(rng):
    pt_true, eta = 10.0 ** rng.uniform(0.9, 3.0, 200_000), rng.uniform(-0.8, 0.8, 200_000)
    pt, outer = measured(rng, pt_true, np.where(np.abs(eta) < 0.4, 0.0, 0.8)), np.abs(eta) >= 0.4
    two = fit_jet_scale(pt, pt_true, eta, eta_edges=[0.0, 0.4, 0.8])
    for part in (outer, ~outer):
        curve = response_curve(
            two.apply(pt, eta)[part], pt_true[part], EDGES, n_bootstrap=50, rng=rng
        )
        np.testing.assert_allclose(curve.median.value, 1.0, atol=0.015)
    assert two.apply(50.0, -0.6) > two.apply(50.0, 0.1)
    assert two.apply(50.0, 1.2) == two.apply(50.0, 0.7)  # as in the last bin
    assert two.apply([[50.0], [60.0]], 0.1).shape == (2, 1)


def test_what_is_subtracted_away_stays_away(jets):
    scale = fit_jet_scale(*jets[:2])
    assert scale.apply(0.0) == 0.0
    assert scale.apply([]).shape == (0,)
    for wrong in (np.nan, -1.0):
        with pytest.raises(ValidationError, match="expected finite pT"):
            scale.apply([20.0, wrong])


def test_too_few_jets_are_refused_with_their_bin(jets):
    pt, pt_true, _ = jets
    with pytest.raises(ValidationError, match=r"abs\(eta\) 0.4 to 0.8: inversion: 0 bins"):
        fit_jet_scale(pt, pt_true, np.full(pt.size, 0.1), eta_edges=[0.0, 0.4, 0.8])


@pytest.mark.parametrize("edges", [[0.0], [0.4, 0.4], [0.8, 0.0]])
def test_edges_that_do_not_increase_are_refused(edges):
    with pytest.raises(ConfigError, match="expected to increase"):
        fit_jet_scale([1.0], [1.0], eta_edges=edges)
