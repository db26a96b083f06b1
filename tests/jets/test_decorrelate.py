"""Penalties, moving cuts and the divergence against direct formulas, independence and toys."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from pfcalib.deploy.validator import check_stored_model
from pfcalib.errors import ConfigError
from pfcalib.jets.decorrelate import (
    Adversary,
    DecorrelationConfig,
    TaggedJets,
    carving,
    distance_correlation,
    divergence,
    fit_tagger,
    normal_distance_correlation,
    rank_at_mass,
    reverse_gradient,
    shift_with_mass,
)
from pfcalib.metrics.roc import auc
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def direct(x, y):
    """Squared distance correlation by its definition, loop by loop."""
    n = len(x)
    centred = []
    for v in (x, y):
        d = np.array([[abs(a - b) for b in v] for a in v])
        centred.append(
            [
                [d[i, j] - d[i].mean() - d[:, j].mean() + d.mean() for j in range(n)]
                for i in range(n)
            ]
        )
    a, b = np.array(centred)
    return (a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean())


def found(x, y, weight=None):
    weight = np.ones(len(x)) if weight is None else weight
    return float(distance_correlation(*(np.asarray(v, np.float32) for v in (x, y, weight))))


def test_distance_correlation_is_what_its_definition_says():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 30))
    assert found(x, x**2 + 0.1 * y) == pytest.approx(direct(x, x**2 + 0.1 * y), rel=1e-4)
    assert found(x, 3.0 - 2.0 * x) == pytest.approx(1.0, rel=1e-5)
    weight = np.array([1.0, 2.0, 0.0] * 10)
    twice = np.repeat(np.arange(30), weight.astype(int))
    assert found(x, y, weight) == pytest.approx(direct(x[twice], y[twice]), rel=1e-4)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_distance_correlation_of_normal_quantities_is_the_known_one(rho):
    x, y = np.random.default_rng(2).normal(size=(2, 3000))
    y = rho * x + np.sqrt(1.0 - rho**2) * y
    assert found(x, y) == pytest.approx(normal_distance_correlation(rho), abs=0.02)


def test_divergence_of_two_shares_is_the_closed_form():
    p, q = 0.2, 0.7

    def entropy(x):
        return -x * np.log2(x) - (1.0 - x) * np.log2(1.0 - x)

    expected = entropy(0.5 * (p + q)) - 0.5 * (entropy(p) + entropy(q))
    assert divergence([20, 80], [7, 3]) == pytest.approx(expected)


def test_carving_sees_what_a_cut_on_the_mass_does():
    rng = np.random.default_rng(3)
    is_w = rng.random(20_000) < 0.5
    mass = rng.uniform(0.0, 1.0, len(is_w))
    random, tied = (carving(s, mass, is_w, [0.0, 0.5, 1.0]) for s in (rng.random(len(is_w)), mass))
    assert random.rejection == pytest.approx(2.0, rel=0.05)
    assert random.jsd < 1e-3
    assert tied.jsd > 0.95


def test_gradient_is_turned_around_and_the_adversary_makes_the_mass_unknown():
    x = keras.Variable([2.0])
    with tf.GradientTape() as tape:
        y = 3.0 * reverse_gradient(x, 5.0)
    assert float(y[0]) == pytest.approx(6.0)
    assert float(tape.gradient(y, x.value)[0]) == pytest.approx(-15.0)
    # at its best an adversary reaches the entropy of the mass: one Gaussian, set by hand
    layer = Adversary(1.0, 1, 2)
    mass = np.random.default_rng(4).normal(1.0, 2.0, (4000, 1)).astype(np.float32)
    p = np.full((4000, 2), 0.5, np.float32)
    layer(p, mass, np.ones((4000, 1), np.float32))
    width = 3.0 * np.arctanh(np.log(2.0) / 3.0)
    kernel, _ = layer.mixture.get_weights()
    layer.mixture.set_weights([0.0 * kernel, np.array([0.0, 1.0, width], np.float32)])
    layer(p, mass, np.ones((4000, 1), np.float32))
    # without the constant ln(2 pi) / 2
    assert float(layer.losses[0]) == pytest.approx(0.5 + np.log(2.0), abs=0.05)


def test_moving_cuts_keep_the_same_share_at_each_mass():
    rng = np.random.default_rng(5)
    mass = rng.uniform(1.0, 3.0, 20_000)
    score = 2.0 * np.log(mass) + rng.normal(0.0, 0.5, len(mass))
    background = np.arange(len(mass)) < 10_000
    heavy = mass > 2.0
    plain = score > np.quantile(score[background], 0.8)
    assert plain[heavy].mean() > 2.0 * plain[~heavy].mean()
    for moved in (
        rank_at_mass(score, mass, background, k=400),
        shift_with_mass(score, np.log(mass), background),
    ):
        passes = moved > np.quantile(moved[background], 0.8)
        for side in (heavy, ~heavy):
            assert passes[side & ~background].mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("method", "strength"), [("distance", 30.0), ("adversary", 3.0)])
def test_a_penalty_takes_the_mass_out_of_the_output(method, strength, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    rng = np.random.default_rng(6)
    is_w = rng.random(6000) < 0.5
    mass = rng.normal(size=6000) * np.where(is_w, 0.2, 1.0)
    shape = rng.normal(size=6000) + 1.5 * is_w
    jets = TaggedJets(
        np.stack([shape, mass], axis=-1).astype(np.float32), mass.astype(np.float32), is_w
    )
    half = np.arange(6000) < 3000
    dcor, said = {}, []
    for name, of in (("plain", 0.0), (method, strength)):
        config = DecorrelationConfig(
            method=name, strength=of, widths=(24,), warm_up=80,
            train=TrainConfig(
                learning_rate=0.01, batch_size=300, epochs=16, patience=16, schedule="cosine_steps"
            ),
        )  # fmt: skip
        for _ in range(2):
            tagger = fit_tagger(
                jets.take(half), jets.take(~half), config, names=("x", "m"), inputs="toy",
                say=said.append,
            )  # fmt: skip
        p = tagger.p_w(jets.shapes[~half])
        qcd = ~is_w[~half]
        dcor[name] = found(p[qcd], mass[~half][qcd])
        assert auc(p, is_w[~half]).value > 0.8
        assert check_stored_model(tagger.path).passed
    assert len(said) == 32  # the second call finds the first one's network
    assert dcor[method] < 0.4 * dcor["plain"]


def test_a_strength_without_a_penalty_is_refused():
    with pytest.raises(ConfigError, match="strength"):
        DecorrelationConfig(strength=1.0)
    with pytest.raises(ConfigError, match="strength"):
        DecorrelationConfig(method="distance")
