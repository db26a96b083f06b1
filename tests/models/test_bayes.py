"""Weights with a distribution, and networks side by side, against what can be computed by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from pfcalib.errors import ConfigError
from pfcalib.models.bayes import START_LOG_SIGMA, BayesianDense, member_dense
from pfcalib.models.families import build_model
from pfcalib.models.heads import finish, split_mixture
from pfcalib.models.losses import members, mixture


def test_a_bayesian_layer_draws_the_activations_that_its_weights_make(rng):
    layer = BayesianDense(2)
    x = np.tile(rng.normal(size=(1, 3)), (200_000, 1)).astype(np.float32)
    layer.build(x.shape)
    kernel, sigma = rng.normal(size=(3, 2)), rng.uniform(0.1, 0.5, (3, 2))
    layer.kernel.assign(kernel)
    layer.log_sigma.assign(np.log(sigma))
    drawn = keras.ops.convert_to_numpy(layer(x, training=True))
    np.testing.assert_allclose(drawn.mean(axis=0), x[0] @ kernel, atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(x[0] ** 2 @ sigma**2), rtol=0.01)
    np.testing.assert_allclose(layer(x[:1]), x[:1] @ kernel, rtol=1e-5)  # else the means


def test_the_divergence_is_that_of_gaussians_and_counts_in_training_alone(rng):
    layer = BayesianDense(1)
    layer.build((None, 1))
    layer.kernel.assign([[0.7]])
    layer.kl_weight.assign(0.5)
    sigma = np.exp(START_LOG_SIGMA)
    x = rng.normal(0.7, sigma, 400_000)  # draws of the weight: mean of ln q - ln p
    ln_q = -0.5 * ((x - 0.7) / sigma) ** 2 - np.log(sigma)
    expected = np.mean(ln_q + 0.5 * x**2)
    assert float(layer.divergence()) == pytest.approx(expected, rel=1e-2)
    one = np.ones((4, 1), dtype=np.float32)
    layer(one)
    assert not layer.losses
    layer(one, training=True)
    assert float(layer.losses[0]) == pytest.approx(0.5 * expected, rel=1e-2)


def ensemble(n_members: int = 3, n_components: int = 2) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = {"x": keras.Input((4,), name="x")}
    x = keras.layers.RepeatVector(n_members)(inputs["x"])
    x = member_dense(8, n_members, activation="swish", name="dense")(x)
    return finish(inputs, x, head="members", n_components=n_components, name="test")


def test_members_are_networks_of_their_own(rng):
    model, x = ensemble(), rng.normal(size=(50, 4)).astype(np.float32)
    before = keras.ops.convert_to_numpy(model({"x": x}))
    assert before.shape == (50, 3, 6)
    dense = model.get_layer("dense")
    spread = dense.kernel.numpy().std()
    assert spread == pytest.approx(np.sqrt(2 / (4 + 8)), rel=0.2)  # Glorot's, of each member
    kernel = dense.kernel.numpy()
    kernel[1] += 1.0
    dense.kernel.assign(kernel)
    after = keras.ops.convert_to_numpy(model({"x": x}))
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert np.abs(after[:, 1] - before[:, 1]).min() > 0.0
    weights, means, _ = split_mixture(before)
    assert weights.shape == (50, 6)
    np.testing.assert_allclose(weights.reshape(50, 3, 2).sum(axis=2), 1 / 3, rtol=1e-5)
    np.testing.assert_array_equal(means[0], before[0, :, 2:4].ravel())


def test_the_loss_of_members_is_that_of_each_without_repulsion_and_pushes_with_it(rng):
    y = rng.normal(size=(20, 1)).astype(np.float32)
    output = keras.ops.convert_to_numpy(ensemble()({"x": rng.normal(size=(20, 4))}))
    alone = sum(np.asarray(mixture(y, output[:, i])) for i in range(3))
    np.testing.assert_allclose(members(0.0)(y, output), alone / 3, rtol=1e-5)

    means = keras.Variable(np.array([[-0.1], [0.0], [0.2]]))  # of three members, for all clusters
    step = keras.optimizers.SGD(0.03)
    zeros = keras.ops.zeros((20, 3, 1))
    before = np.ptp(means.numpy())
    for _ in range(5):
        with tf.GradientTape() as tape:
            at = keras.ops.broadcast_to(means[None], (20, 3, 1))
            flat = keras.ops.concatenate([zeros, at, zeros + 9.0], axis=-1)  # wide: no likelihood
            loss = keras.ops.mean(members(1.0)(y, flat))
        step.apply([tape.gradient(loss, means.value)], [means])
    assert np.ptp(means.numpy()) > 1.1 * before
    assert means.numpy()[0] < -0.1
    assert means.numpy()[2] > 0.2


def test_a_network_has_gaussian_weights_or_members_not_both():
    names = [layer.name for layer in build_model("mlp", bayesian=True, head="mixture").layers]
    assert "dense0" in names
    assert "dropout0" not in names
    model = build_model("mlp", head="members", n_members=4, widths=[6], n_components=2)
    assert model.output_shape == (None, 4, 6)
    with pytest.raises(ConfigError, match="no Gaussian weights"):
        build_model("mlp", head="members", bayesian=True)
