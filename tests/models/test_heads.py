"""Every head gives one tensor of its own width with the properties that its loss and its reader
rely on.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.models.families import build_model, copy_weights, load_model
from pfcalib.models.heads import (
    HEADS,
    LEVELS,
    MAX_LOG_WIDTH,
    MEANINGS,
    MIN_LOG_WIDTH,
    RunningSum,
    split_mixture,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

# numbers that a head gives for a cluster, two Gaussians in a mixture
WIDTHS = {"classes": 2, "energy": 1, "quantiles": 5, "mixture": 6, "members": (5, 6)}
WIDTHS["class_and_energy"] = 3
OPTIONS = {"n_pixels": 6, "widths": [8, 4], "n_components": 2}


def outputs(head, rng, *, scale=1.0, n=200, **options):
    """Outputs of a network with random weights of some size."""
    model = build_model("dnn", seed=2, head=head, **(OPTIONS | options))
    model.set_weights([scale * rng.normal(size=weight.shape) for weight in model.get_weights()])
    return np.asarray(model({"pixels": rng.normal(size=(n, 6)).astype(np.float32)}, training=False))


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_one_output_of_its_name_and_width(head, rng):
    model = build_model("dnn", head=head, **OPTIONS)
    assert model.output_names == [HEADS[head][0]]
    assert outputs(head, rng).shape == (200, *np.atleast_1d(WIDTHS[head]))
    assert MEANINGS[HEADS[head][0]]


@pytest.mark.parametrize("head", HEADS)
def test_a_model_file_gives_back_every_head(head, rng, tmp_path):
    model = build_model("dnn", seed=1, head=head, **OPTIONS)
    model.save(tmp_path / "model.keras")
    inputs = {"pixels": rng.normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_quantiles_never_cross(scale, rng):
    quantiles = outputs("quantiles", rng, scale=scale)
    assert np.all(np.diff(quantiles, axis=1) >= 0.0)
    assert len(LEVELS) == quantiles.shape[1]
    assert list(LEVELS) == sorted(LEVELS)


def test_running_sums_are_those_of_numpy(rng):
    values = rng.normal(size=(7, 5)).astype(np.float32)
    np.testing.assert_allclose(
        RunningSum()(values), np.cumsum(values, axis=1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_a_mixture_has_weights_that_sum_to_one_and_bounded_widths(scale, rng):
    output = outputs("mixture", rng, scale=scale)
    np.testing.assert_allclose(np.exp(output[:, :2].astype(np.float64)).sum(axis=1), 1.0, rtol=1e-5)
    weights, means, sigmas = split_mixture(output)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(means, output[:, 2:4].astype(np.float64))
    assert np.all(sigmas >= np.exp(MIN_LOG_WIDTH) * (1.0 - 1e-6))
    assert np.all(sigmas <= np.exp(MAX_LOG_WIDTH) * (1.0 + 1e-6))


def test_a_mixture_is_read_as_it_was_written(rng):
    weights = rng.dirichlet(np.ones(3), size=50)
    means, sigmas = rng.normal(size=(50, 3)), rng.uniform(0.01, 2.0, (50, 3))
    for found, wanted in zip(
        split_mixture(np.hstack([np.log(weights), means, np.log(sigmas)])),
        (weights, means, sigmas),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_the_means_of_an_untrained_mixture_start_apart(n_components):
    model = build_model("dnn", seed=1, head="mixture", **(OPTIONS | {"n_components": n_components}))
    output = np.asarray(model({"pixels": np.zeros((1, 6), dtype=np.float32)}, training=False))
    wanted = np.linspace(-0.3, 0.3, n_components) if n_components > 1 else [0.0]
    np.testing.assert_allclose(output[0, n_components : 2 * n_components], wanted, atol=1e-6)


def test_class_and_energy_are_two_probabilities_and_a_number(rng):
    output = outputs("class_and_energy", rng)
    np.testing.assert_allclose(output[:, :2].sum(axis=1), 1.0, rtol=1e-5)
    assert output[:, 2].min() < 0.0 < output[:, 2].max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "spin"}, "head = 'spin', expected one of classes"),
        ({"n_components": 0}, "n_components = 0"),
    ],
)
@pytest.mark.parametrize("name", ["dnn", "cnn", "densenet"])
def test_a_head_that_there_is_not_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, **options)


def test_weights_are_copied_between_equal_layers_only(rng):
    source, target = (build_model("dnn", seed=seed, head="energy", **OPTIONS) for seed in (1, 2))
    copy_weights(source, target)
    inputs = {"pixels": rng.normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_array_equal(target(inputs), source(inputs))
    with pytest.raises(ConfigError, match="do not have the same weights"):
        copy_weights(source, build_model("dnn", head="classes", **OPTIONS))


def test_the_published_classifier_still_ends_in_a_softmax():
    last = build_model("dnn", **OPTIONS).layers[-1]
    assert isinstance(last, keras.layers.Dense)
    assert last.activation.__name__ == "softmax"
