"""Networks whose weights are known: what they do not look at has no importance, what they look at
has; and parts tile the layers, whatever the inputs look like.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from factories import make_sample
from studies.importance import (
    Inputs,
    Measure,
    energy_bins,
    exchange,
    layer_parts,
    permutation_importance,
    pixel_distances,
    predict_energy,
    read_inputs,
    ring_parts,
    scalar_parts,
    shuffle_in_bins,
)

from pfcalib.calibration.inversion import Inversion
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.features.images import IMAGE_LAYERS, IMAGE_SHAPES
from pfcalib.features.inputs import INPUT_SHAPES, build_inputs, input_layers
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.response import resolution
from pfcalib.models.families import MODEL_KINDS, PUBLISHED, build_model
from pfcalib.samples.write import write_sample
from pfcalib.training.fit import TrainConfig
from pfcalib.training.networks import SCALARS, Network, NetworkConfig
from pfcalib.training.regressors import SELECTION, Regressor

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2

KINDS = ("flat", "layers", "stacks", "layer:EMB1", "layer:PreSamplerB")
REGRESSION = NetworkConfig(
    name="dnn",
    options={"head": "energy", "with_scalars": True},
    target=TargetConfig(),
    train=TrainConfig(loss="huber"),
)
NO_RESULT: Any = None


def linear_regressor(weights: dict[str, np.ndarray]) -> Regressor:
    """ln(E / clusterE) as a weighted sum of the pixels of all layers."""
    images = {
        name: weights.get(name, np.zeros(shape))[None].astype(np.float32)
        for name, shape in IMAGE_SHAPES.items()
    }
    inputs = {
        "pixels": keras.Input((936,), name="pixels"),
        "scalars": keras.Input((2,), name="scalars"),
    }
    joined = keras.layers.Concatenate()([inputs["pixels"], inputs["scalars"]])
    column = np.append(build_inputs(images, "flat")["pixels"][0], np.zeros(2, np.float32))[:, None]
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, dense(joined))
    dense.set_weights([column])
    return Regressor(Network(REGRESSION, model, NO_RESULT, Path("nowhere")), None)


def make_inputs(rng, weights: dict[str, np.ndarray], n: int = 3000) -> Inputs:
    """Clusters whose true energy is what the linear network of these weights says, but for two
    per cent.
    """
    images = {
        name: rng.exponential(1.0, (n, *IMAGE_SHAPES[name])).astype(np.float32)
        / np.prod(IMAGE_SHAPES[name])
        for name in IMAGE_LAYERS
    }
    cluster_e = 10.0 ** rng.uniform(-0.5, 2.5, n)
    scalars = np.column_stack([np.log10(cluster_e), rng.uniform(-0.7, 0.7, n)]).astype(np.float32)
    y = sum(np.tensordot(images[name], weight, axes=2) for name, weight in weights.items())
    e_true = cluster_e * np.exp(y + 0.02 * rng.standard_normal(n))
    return Inputs({**build_inputs(images, "flat"), "scalars": scalars}, cluster_e, e_true)


def half_width(e_pred, e_true):
    return resolution(e_pred / e_true)


def mean_log(e_pred, e_true):
    return np.mean(np.abs(np.log(e_pred / e_true)), axis=-1)


def near(inputs: Inputs, energy: float, width: float) -> np.ndarray:
    return np.flatnonzero(np.abs(np.log10(inputs.e_true / energy)) < width)


def counts_of(parts, kind):
    """How many of the parts hold each input."""
    counts = {name: np.zeros(shape, dtype=int) for name, shape in INPUT_SHAPES[kind].items()}
    for part in parts:
        for name, mask in part.masks.items():
            counts[name] += mask
    return counts


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """EMB2 matters, by its core alone; nothing else does."""
    (core,) = [part for part in ring_parts("layers") if part.name == "EMB2 core"]
    return {"EMB2": np.where(core.masks["EMB2"][..., 0], 20.0, 0.0)}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_rings_tile_the_inputs(kind):
    assert [part.name for part in layer_parts(kind)] == list(input_layers(kind))
    for parts in (layer_parts(kind), ring_parts(kind)):
        for counts in counts_of(parts, kind).values():
            assert (counts == 1).all()


def test_the_core_of_emb2_is_three_by_three_cells_around_the_central_one(weights):
    expected = np.zeros((16, 16))
    expected[7:10, 7:10] = 20.0
    np.testing.assert_array_equal(weights["EMB2"], expected)


def test_the_core_of_emb1_is_the_strips_across_the_axis():
    (core,) = [part for part in ring_parts("layers") if part.name == "EMB1 core"]
    eta, phi = np.nonzero(core.masks["EMB1"][..., 0])
    assert sorted(set(phi)) == [1, 2]
    assert (eta.min(), eta.max()) == (64 - 8, 64 + 7)


@pytest.mark.parametrize("layer", IMAGE_SHAPES)
def test_distances_are_those_of_the_nearest_of_many_points(layer, rng):
    """Slow and obvious: points thrown into the window, each put into its pixel."""
    shape, half = IMAGE_SHAPES[layer], np.array([0.2, np.pi / 16.0])
    size = 2.0 * half / shape
    middle = np.array([0.5 if n == 16 else 0.0 for n in shape]) * size
    points = rng.uniform(-half - middle, half - middle, (400_000, 2))
    place = np.floor((points + half + middle) / size).astype(int)
    nearest = np.full(shape, np.inf)
    np.minimum.at(nearest, tuple(place.T), np.hypot(*points.T))
    assert (pixel_distances(layer) <= nearest + 1e-12).all()
    np.testing.assert_allclose(pixel_distances(layer), nearest, atol=0.02)


def test_a_part_means_the_same_pixels_in_every_kind_of_inputs(rng):
    images = {
        name: rng.random((3, *shape)).astype(np.float32) for name, shape in IMAGE_SHAPES.items()
    }
    kinds = ("flat", "layers", "stacks")
    for same in zip(*(ring_parts(kind) for kind in kinds), strict=True):
        sums = []
        for part, kind in zip(same, kinds, strict=True):
            inputs = build_inputs(images, kind)
            sums.append(sum(inputs[name][:, m].sum(axis=1) for name, m in part.masks.items()))
        np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)
        np.testing.assert_allclose(sums[2], sums[0], rtol=1e-5)


def test_only_the_energy_is_shuffled_among_all_clusters():
    energy, eta = scalar_parts(("clusterE", "clusterEta"))
    assert (energy.within_bins, eta.within_bins) == (False, True)
    assert eta.masks["scalars"].tolist() == [False, True]


def test_only_the_pixels_with_weights_are_important(weights, rng):
    inputs, regressor = make_inputs(rng, weights), linear_regressor(weights)
    parts = [*layer_parts("flat"), *ring_parts("flat"), *scalar_parts(SCALARS)]
    measures = {
        badness: Measure(near(inputs, 10.0, 0.5), badness) for badness in (half_width, mean_log)
    }
    found = permutation_importance(regressor, inputs, parts, measures, rng=rng)
    for rise in found.values():
        for name, estimate in rise.items():
            if name in ("EMB2", "EMB2 core"):
                assert estimate.value > 20.0 * estimate.error > 0.0
            else:
                assert estimate == pytest.approx((0.0, 0.0), abs=1e-7), name
        assert rise["EMB2"] == pytest.approx(rise["EMB2 core"])


def test_the_rise_is_that_of_the_definition(weights, rng):
    """With as many independent donors the answer is off by the difference of two draws: ln response
    has sqrt(2) times the spread of y.
    """
    inputs, regressor = make_inputs(rng, weights, n=6000), linear_regressor(weights)
    y = np.log(predict_energy(regressor, inputs) / inputs.cluster_e)
    measures = {"iqr": Measure(near(inputs, 10.0, 0.8), half_width)}
    found = permutation_importance(
        regressor, inputs, layer_parts("flat")[1:2], measures, rng=rng, n_repeats=5
    )
    other = y[rng.permutation(len(y))]
    expected = resolution(np.exp(other - y + 0.02 * rng.standard_normal(len(y)))) / 0.02 - 1.0
    assert found["iqr"]["EMB2"].value == pytest.approx(expected, rel=0.1)


def test_the_error_is_the_spread_of_repeated_experiments(weights):
    values, errors = [], []
    regressor = linear_regressor(weights)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        inputs = make_inputs(rng, weights, n=300)
        measures = {"log": Measure(np.arange(300), mean_log)}
        found = permutation_importance(
            regressor, inputs, layer_parts("flat")[1:2], measures, rng=rng
        )
        values.append(found["log"]["EMB2"].value)
        errors.append(found["log"]["EMB2"].error)
    assert np.std(values, ddof=1) == pytest.approx(np.mean(errors), rel=0.5)


def test_shuffling_in_bins_keeps_the_spectrum_and_mixes_inside(rng):
    energy = 10.0 ** rng.uniform(0.0, 3.0, 5000)
    bins = energy_bins(energy, size=100)
    counts = np.bincount(bins)
    assert counts.min() >= 100
    assert counts.max() <= 101 + len(energy) % 100
    assert (np.diff(bins[np.argsort(energy)]) >= 0).all()
    donors = shuffle_in_bins(bins, rng)
    np.testing.assert_array_equal(np.sort(donors), np.arange(5000))
    np.testing.assert_array_equal(bins[donors], bins)
    assert np.mean(donors == np.arange(5000)) < 0.03
    places = (np.argsort(np.argsort(values)) % 100 for values in (energy, energy[donors]))
    assert np.corrcoef(*places)[0, 1] < 0.2


def test_few_clusters_make_one_bin():
    assert energy_bins(np.array([3.0, 1.0]), size=100).tolist() == [0, 0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_exchange_touches_the_part_alone_for_every_kind_of_inputs(name, rng):
    kind = MODEL_KINDS[name]
    arrays = {
        key: rng.random((6, *shape)).astype(np.float32) for key, shape in INPUT_SHAPES[kind].items()
    }
    inputs = Inputs({key: array.copy() for key, array in arrays.items()}, np.ones(6), np.ones(6))
    rows, donors = np.array([4, 0]), np.array([1, 5])
    for part in [*layer_parts(kind), *ring_parts(kind)]:
        changed, zeroed = exchange(inputs, part, rows, donors), inputs.without([part])
        for key, array in arrays.items():
            mask = part.masks.get(key, np.zeros(INPUT_SHAPES[kind][key], dtype=bool))
            expected = np.where(mask, array[donors], array[rows])
            np.testing.assert_array_equal(changed.arrays[key], expected)
            np.testing.assert_array_equal(zeroed.arrays[key], np.where(mask, 0.0, array))
            np.testing.assert_array_equal(inputs.arrays[key], array)


def test_a_layer_without_weights_can_be_taken_away_and_one_alone_keeps_the_response(weights, rng):
    inputs, regressor = make_inputs(rng, weights, n=500), linear_regressor(weights)
    by_name = {layer.name: layer for layer in layer_parts("flat")}
    whole = predict_energy(regressor, inputs)
    assert half_width(whole, inputs.e_true) == pytest.approx(0.02, rel=0.15)
    rest = [layer for name, layer in by_name.items() if name != "EMB2"]
    np.testing.assert_allclose(predict_energy(regressor, inputs.without(rest)), whole, rtol=1e-6)
    empty = predict_energy(regressor, inputs.without([by_name["EMB2"]]))
    np.testing.assert_allclose(empty, inputs.cluster_e)


def test_the_energy_is_inverted(weights, rng):
    inputs, regressor = make_inputs(rng, weights, n=50), linear_regressor(weights)
    doubled = regressor._replace(inversion=Inversion(np.zeros(1), np.log([2.0])))
    expected = 2.0 * predict_energy(regressor, inputs)
    np.testing.assert_allclose(predict_energy(doubled, inputs), expected)


def test_too_few_clusters_are_refused(weights, rng):
    inputs, regressor = make_inputs(rng, weights, n=50), linear_regressor(weights)
    with pytest.raises(ConfigError, match="0 measures"):
        permutation_importance(regressor, inputs, layer_parts("flat"), {}, rng=rng)
    measures = {("iqr", 10.0): Measure(np.arange(29), half_width)}
    with pytest.raises(ValidationError, match=r"10\.0\): 29 clusters of 50, expected 30"):
        permutation_importance(regressor, inputs, layer_parts("flat"), measures, rng=rng)


def test_inputs_are_the_test_split_in_the_order_of_the_file(tmp_path, rng):
    write_sample(tmp_path / "a.root", make_sample(rng, 600))
    options = {"filters": 2, "branch_width": 4, "merged_width": 4, "head": "energy"}
    config = NetworkConfig(
        name="cnn",
        options={**options, "with_scalars": True},
        target=TargetConfig(),
        select=SELECTION,
        train=TrainConfig(loss="huber"),
    )
    model = build_model("cnn", seed=1, **config.options)
    regressor = Regressor(Network(config, model, NO_RESULT, tmp_path), None)
    path = tmp_path / "a.root"
    inputs = read_inputs(regressor, path, split="test", n_clusters=1000, rng=rng)
    assert len(inputs.e_true) == len(inputs.cluster_e) == len(inputs.arrays["EMB2"]) > 60
    np.testing.assert_allclose(
        inputs.arrays["scalars"][:, 0], np.log10(inputs.cluster_e), rtol=1e-5
    )
    np.testing.assert_allclose(
        predict_energy(regressor, inputs), regressor.energy(path, split="test"), rtol=1e-5
    )
    some = read_inputs(regressor, path, split="test", n_clusters=20, rng=rng)
    place = [int(np.flatnonzero(inputs.cluster_e == energy)[0]) for energy in some.cluster_e]
    assert len(place) == 20
    np.testing.assert_array_equal(place, sorted(place))
    np.testing.assert_array_equal(some.arrays["EMB1"], inputs.arrays["EMB1"][place])
