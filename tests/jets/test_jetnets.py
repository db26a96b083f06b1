"""Networks of jets begin with no change, do not mind the order of constituents, and learn."""

import dataclasses
import json

import numpy as np
import pytest

from pfcalib.deploy.contract import contract_path
from pfcalib.deploy.export import predict
from pfcalib.jets.jetnets import (
    POINTS_INPUT,
    VARIABLES_INPUT,
    JetData,
    JetNetworkConfig,
    build_jet_network,
    fit_jet_network,
    leaky_kernel,
)
from pfcalib.jets.jetvariables import POINT
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = JetNetworkConfig(
    widths=(16,),
    n_bins=4,
    point_widths=(8,),
    n_blocks=1,
    n_heads=2,
    train=TrainConfig(loss="mae", epochs=3, batch_size=50, learning_rate=0.02),
)


def clouds(rng, n, n_points):
    points = rng.random((n, n_points, len(POINT))).astype(np.float32)
    points[:, :, 3] = rng.integers(3, size=(n, n_points))
    return points


def test_an_untrained_network_changes_nothing(rng):
    model = build_jet_network(3, 2, SMALL, n_points=4)
    inputs = {VARIABLES_INPUT: rng.random((5, 3), np.float32), POINTS_INPUT: clouds(rng, 5, 4)}
    assert np.array_equal(predict(model, inputs), np.zeros((5, 2)))


def test_order_of_constituents_and_zeros_behind_them_do_not_matter(rng):
    model = build_jet_network(3, 1, SMALL, n_points=6)
    model.set_weights([rng.normal(0.3, 0.5, w.shape) for w in model.get_weights()])
    points = clouds(rng, 5, 6)
    points[:, 4:] = 0.0
    inputs = {VARIABLES_INPUT: rng.random((5, 3), np.float32), POINTS_INPUT: points}
    first = predict(model, inputs)
    turned = predict(model, {**inputs, POINTS_INPUT: points[:, [5, 2, 0, 3, 4, 1]]})
    np.testing.assert_allclose(turned, first, rtol=1e-4)
    points[:, 0, 0] *= 2.0
    assert np.all(np.abs(predict(model, inputs) - first) > 1e-6)


def test_the_kernel_leads_to_the_mode_and_its_leak_to_the_median_where_it_sees_no_jets():
    rng = np.random.default_rng(1)
    drawn = rng.gamma(2.0, 1.0, 20_000)  # mode 1, smeared 1.04; median 1.678
    tried = np.linspace(0.5, 2.5, 101)
    for width, expected in ((0.2, 1.04), (1e-4, 1.678)):
        losses = [float(np.mean(leaky_kernel(drawn - value, width))) for value in tried]
        assert tried[np.argmin(losses)] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("kernel", [0.0, 0.1])
def test_a_network_learns_by_its_loss_is_exported_and_found_again(
    rng, kernel, tmp_path, monkeypatch
):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    n, lines = 600, []
    table = rng.random((n, 2)).astype(np.float32)
    answer = (0.4 * (table[:, :1] - 0.5)).astype(np.float32)
    data = JetData({VARIABLES_INPUT: table}, answer, np.repeat([0, 1, 2], n // 3))
    config = dataclasses.replace(SMALL, kernel=kernel)
    told = {"names": ["a", "b [GeV]"], "answers": ["ln(true / a)"], "inputs": "toy"}
    first = fit_jet_network(data, config, **told, say=lines.append)
    held_inputs, held = data.of("validation")
    away = np.log(first.factors(held_inputs)) - held
    assert np.mean(np.abs(away)) < 0.6 * np.mean(np.abs(held))
    loss = leaky_kernel(away, kernel) if kernel else np.abs(away)
    best = first.result.history["val_loss"][first.result.best_epoch]
    assert best == pytest.approx(float(np.mean(loss)), rel=2e-3)
    contract = json.loads(contract_path(first.path).read_text())
    assert "b [GeV]" in contract["normalisation"]
    again = fit_jet_network(data, config, **told, say=lines.append)
    assert len(lines) == 3  # nothing was trained again
    np.testing.assert_array_equal(again.factors(held_inputs), first.factors(held_inputs))
