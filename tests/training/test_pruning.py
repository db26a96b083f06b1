"""A pruned network has so many zeros in each kernel as were asked for, in the places of its
smallest weights, and keeps them in training and in its file.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from factories import make_sample

from pfcalib.errors import ConfigError
from pfcalib.models.families import build_model, load_model
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import NetworkConfig, fit_network
from pfcalib.training.pruning import fit_pruned, prune_kernels

# of Keras with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = TrainConfig(epochs=2, batch_size=64, learning_rate=0.003, seed=3)
CONFIG = NetworkConfig(name="dnn", options={"widths": [16, 8]}, train=TRAIN)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "toy.root"
    write_sample(path, make_sample(np.random.default_rng(7), 400))
    return path


@pytest.fixture(scope="module")
def network(path):
    return fit_network(path, CONFIG, say=quiet)


def quiet(line):
    pass


def kernels(model):
    return [
        keras.ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if hasattr(layer, "kernel")
    ]


def zeros(model):
    return [np.count_nonzero(kernel == 0.0) for kernel in kernels(model)]


@pytest.mark.parametrize("name", ["dnn", "cnn"])
def test_the_smallest_weights_of_each_kernel_go(name):
    small = {"dnn": {"widths": [16, 8]}, "cnn": {"filters": 4, "branch_width": 8}}
    model = build_model(name, seed=1, **small[name])
    before = kernels(model)
    biases = [layer.bias.numpy() for layer in model.layers if getattr(layer, "use_bias", False)]
    prune_kernels(model, 0.75)
    for old, new in zip(before, kernels(model), strict=True):
        gone = new == 0.0
        assert np.count_nonzero(gone) == round(0.75 * old.size)
        assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()
        assert np.array_equal(new[~gone], old[~gone])
    after = [layer.bias.numpy() for layer in model.layers if getattr(layer, "use_bias", False)]
    assert all(np.array_equal(*pair) for pair in zip(biases, after, strict=True))


def test_the_zeros_stay_in_training_and_in_the_file(path, network):
    before = kernels(network.model)
    wanted = [round(0.6 * kernel.size) for kernel in before]
    pruned = fit_pruned(path, network, 0.6, replace(TRAIN, weight_decay=0.01), say=quiet)
    assert zeros(pruned.model) == wanted
    assert zeros(load_model(pruned.folder / "model.keras")) == wanted
    kept = kernels(pruned.model)[0] != 0.0
    assert not np.array_equal(kernels(pruned.model)[0][kept], before[0][kept])
    assert all(np.array_equal(*pair) for pair in zip(before, kernels(network.model), strict=True))


def test_a_pruned_network_is_found_again_and_one_of_another_share_is_not(path, network):
    lines = []
    first = fit_pruned(path, network, 0.6, TRAIN, say=lines.append)
    again = fit_pruned(path, network, 0.6, TRAIN, say=lines.append)
    assert len(lines) == TRAIN.epochs
    assert again.folder == first.folder
    assert zeros(again.model) == zeros(first.model)
    other = fit_pruned(path, network, 0.3, replace(TRAIN, epochs=1), say=lines.append)
    assert other.folder != first.folder
    assert zeros(other.model) < zeros(first.model)


def test_averages_of_the_weights_are_refused(path, network):
    with pytest.raises(ConfigError, match=r"ema = 0\.9"):
        fit_pruned(path, network, 0.6, replace(TRAIN, ema=0.9))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(sparsity):
    with pytest.raises(ConfigError, match="expected in"):
        prune_kernels(build_model("dnn", n_pixels=4, widths=[4]), sparsity)


def test_a_network_without_kernels_is_refused():
    x = keras.Input((3,))
    with pytest.raises(ConfigError, match="no dense or convolutional kernel"):
        prune_kernels(keras.Model(x, keras.layers.ReLU()(x)), 0.5)
