"""Classifiers of several classes come close to the true probabilities of Gaussian classes."""

import numpy as np
import pytest
from scipy.special import softmax

from pfcalib.deploy.contract import read_contract
from pfcalib.deploy.validator import check_stored_model, require_parity
from pfcalib.training.classes import (
    Candidates,
    ClassNetworkConfig,
    cross_entropy,
    fit_class_network,
    fit_class_trees,
)
from pfcalib.training.fit import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MEANS = np.array([[1.5, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
TRAIN = TrainConfig(learning_rate=1e-2, batch_size=128, epochs=6, schedule="cosine_steps")
CONFIG = ClassNetworkConfig(widths=(24,), dropout=0.0, n_bins=8, train=TRAIN)


@pytest.fixture(scope="module")
def data():
    """Classes of which the first is rare and the others come with weights."""
    rng = np.random.default_rng(1)
    label = rng.choice(3, 12_000, p=[0.1, 0.5, 0.4])
    table = rng.normal(MEANS[label]).astype(np.float32)
    weight = np.array([0.2, 3.0, 50.0])[label]
    return Candidates(table, label, weight, rng.choice(3, 12_000).astype(np.int8))


def exact(data):
    """True probabilities of classes that are equally common."""
    return softmax(-0.5 * np.sum((data.table[:, None] - MEANS) ** 2, axis=-1), axis=1)


@pytest.fixture(scope="module")
def network(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFCALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        said: list[str] = []
        about = {"names": ["x", "y"], "classes": ["a", "b", "c"], "inputs": "toy"}
        found = fit_class_network(data, CONFIG, **about, say=said.append)
        again = fit_class_network(data, CONFIG, **about, say=said.append)
    assert len(said) == TRAIN.epochs
    np.testing.assert_array_equal(again.probabilities(data.table), found.probabilities(data.table))
    return found


def test_balanced_weights_make_all_classes_equally_common(data):
    total = np.bincount(data.label, data.balanced)
    np.testing.assert_allclose(total, len(data.label) / 3)


def test_the_network_comes_close_to_the_true_probabilities(data, network):
    test = data.of("test")
    best = cross_entropy(exact(test), test)
    assert best < cross_entropy(network.probabilities(test.table), test) < best + 0.03


def test_so_do_the_trees(data):
    test = data.of("test")
    trees = fit_class_trees(data, {"learning_rate": 0.1, "max_leaf_nodes": 8}, seed=1)
    best = cross_entropy(exact(test), test)
    assert best < cross_entropy(trees.predict_proba(test.table), test) < best + 0.08


def test_the_file_of_the_network_is_valid_and_tells_its_inputs_and_classes(network):
    require_parity(check_stored_model(network.path))
    contract = read_contract(network.path)
    assert contract.output.shape == (3,)
    assert "a, b, c" in contract.normalisation
