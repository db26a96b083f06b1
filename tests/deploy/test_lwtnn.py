"""A file for lwtnn computes what Keras does, by a program that was written from lwtnn's C++ and not
from the converter; one that does not is not written.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from pfcalib.deploy.lwtnn import (
    ACTIVATIONS,
    build_graph,
    export_lwtnn,
    lwtnn_latency,
    require_lwtnn,
    run_lwtnn,
)
from pfcalib.deploy.native import find_compiler
from pfcalib.errors import ValidationError
from pfcalib.fastsim.imagegan import GanConfig, build_adversaries
from pfcalib.fastsim.imagevae import VaeConfig, build_vae
from pfcalib.models.families import build_model

pytestmark = [
    pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),  # TensorFlow 2.21 with numpy 2
]
N_ROWS, N_STEPS = 120, 7


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


def rows_for(model, rng):
    """Random rows for all inputs of a model."""
    return {
        tensor.name: rng.normal(
            size=(N_ROWS, *(N_STEPS if n is None else n for n in tensor.shape[1:]))
        ).astype(np.float32)
        for tensor in model.inputs
    }


def scatter_weights(model, rng):
    """Give all weights random values, also those that start from 0 or 1."""
    for weight in model.weights:
        if "seed" not in weight.name:
            away = rng.normal(0.0, 0.3, weight.shape)
            weight.assign(weight + (np.abs(away) if "variance" in weight.path else away))
    return model


def dense_stack():
    x = cells = keras.Input((6,), name="cells")
    for activation in ("relu", "tanh", "sigmoid", "elu", "swish", "leaky_relu", None):
        x = layers.Dense(5, activation=activation)(x)
    x = layers.Dropout(0.5)(layers.Dense(4, use_bias=False)(x))
    for layer in (layers.LeakyReLU(0.4), layers.ELU(0.7), layers.ReLU(), layers.Softmax()):
        x = layer(x)
    return keras.Model(cells, layers.Activation("tanh")(x))


def two_inputs():
    cells, tracks = keras.Input((5,), name="cells"), keras.Input((3,), name="a_track")
    shared = layers.Dense(4, activation="relu")
    wide = layers.Dense(5)(tracks)
    x = layers.Concatenate()([shared(cells), tracks, shared(wide)])
    x = layers.Add()([layers.Dense(4)(x), layers.Dense(4)(cells)])
    return keras.Model([cells, tracks], layers.Dense(2, activation="softmax", name="p")(x))


def normalised():
    cells = keras.Input((5,), name="cells")
    x = layers.BatchNormalization()(layers.Rescaling(1.5, 0.25)(cells))
    x = layers.BatchNormalization(scale=False, center=False)(layers.Dense(4)(x))
    x = layers.Rescaling([0.5, -2.0, 1.0, 3.0], [0.0, 1.0, -1.0, 2.0])(x)
    return keras.Model({"cells": cells}, layers.Dense(1, name="y")(x))


def recurrent(layer, **options):
    def build():
        hits, x = keras.Input((None, 3), name="hits"), keras.Input((2,), name="scalars")
        y = layer(5, return_sequences=True, **options)(hits)
        y = layer(4, **options)(layers.Dense(4, activation="relu")(y))
        y = layers.Concatenate()([x, y])
        return keras.Model({"hits": hits, "scalars": x}, layers.Dense(2, name="p")(y))

    return build


def masked():
    hits = keras.Input((N_STEPS, 3), name="hits")
    return keras.Model(hits, layers.Dense(2)(layers.LSTM(4)(layers.Masking(-1.0)(hits))))


def deep_sets():
    points = x = keras.Input((None, 4), name="points")
    x = layers.TimeDistributed(layers.Dense(6, activation="tanh"))(x)
    x = layers.BatchNormalization()(layers.Activation("relu")(layers.Dense(5)(x)))
    return keras.Model(points, layers.Dense(2, activation="softmax", name="p")(ops.sum(x, axis=1)))


def flat_network():
    return build_model("dnn", n_pixels=30, widths=[16, 8], with_scalars=True)


def generator():
    """Noise and condition to quantities, as of adversaries."""
    config = GanConfig(n_noise=5, width=8, channels=0)
    return build_adversaries(4, 3, config).get_layer("generator")


def decoder():
    """Latent numbers and condition to pixels, as of an autoencoder."""
    config = VaeConfig(n_latent=3, widths=(8, 12))
    condition = np.arange(24, dtype=np.float32).reshape(8, 3)
    return build_vae(config, np.ones((8, 20)), condition).get_layer("decoder")


def layer_by_layer():
    """Noise of one layer of a calorimeter after the other through gates, and a condition."""
    noise, condition = keras.Input((None, 2), name="noise"), keras.Input((3,), name="condition")
    x = layers.GRU(6, reset_after=False, return_sequences=True)(noise)
    x = layers.Concatenate()([layers.LSTM(5)(x), condition])
    x = layers.Dense(8, activation="leaky_relu")(x)
    return keras.Model({"noise": noise, "condition": condition}, layers.Dense(4, name="shower")(x))


MODELS = {
    "dense stack": dense_stack,
    "two inputs": two_inputs,
    "normalised": normalised,
    "lstm": recurrent(layers.LSTM),
    "lstm without bias": recurrent(layers.LSTM, use_bias=False),
    "gru": recurrent(layers.GRU, reset_after=False),
    "masked": masked,
    "deep sets": deep_sets,
    "dnn": flat_network,
    "generator": generator,
    "decoder": decoder,
    "recurrent generator": layer_by_layer,
    "dnn, energy": lambda: build_model("dnn", n_pixels=30, widths=[8], head="class_and_energy"),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_a_file_computes_what_keras_does(build, rng, tmp_path):
    model = scatter_weights(build(), rng)
    inputs = rows_for(model, rng)
    if build is masked:
        inputs["hits"][rng.random((N_ROWS, N_STEPS)) < 0.4] = -1.0
        inputs["hits"][0] = -1.0
    path = tmp_path / "net.lwtnn.json"
    assert export_lwtnn(model, path, inputs=inputs) < 1e-5
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == [
        path.name
    ]


def test_a_plain_stack_is_also_written_for_the_plain_class(rng, tmp_path):
    model = scatter_weights(dense_stack(), rng)
    inputs = rows_for(model, rng)
    names = [f"cell{i}" for i in range(6)]
    path = tmp_path / "net.lwtnn.json"
    assert export_lwtnn(model, path, inputs=inputs, variables={"cells": names}, stack=True) < 1e-5
    written = json.loads(path.read_text())
    assert [variable["name"] for variable in written["inputs"]] == names
    assert written.keys() == {"inputs", "layers", "outputs"}
    with pytest.raises(ValidationError, match="not a plain stack"):
        export_lwtnn(two_inputs(), path, inputs=rows_for(two_inputs(), rng), stack=True)


def test_a_file_has_the_fields_that_lwtnn_reads(rng):
    """Names and order as in parse_json.cxx and kerasfunc2json.py, on a network known by heart."""
    pixels = keras.Input((2,), name="pixels")
    model = keras.Model({"pixels": pixels}, layers.Dense(2, "relu", name="p")(pixels))
    model.set_weights([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])])
    assert build_graph(model) == {
        "inputs": [
            {
                "name": "pixels",
                "variables": [
                    {"name": "pixels_0", "offset": 0.0, "scale": 1.0},
                    {"name": "pixels_1", "offset": 0.0, "scale": 1.0},
                ],
            }
        ],
        "input_sequences": [],
        "nodes": [
            {"type": "input", "sources": [0], "size": 2},
            {"type": "feed_forward", "layer_index": 0, "sources": [0]},
        ],
        "layers": [
            {
                "architecture": "dense",
                "weights": [1.0, 3.0, 2.0, 4.0],
                "bias": [5.0, 6.0],
                "activation": "rectified",
            }
        ],
        "outputs": {"p": {"node_index": 1, "labels": ["charged", "neutral"]}},
    }


def test_the_program_takes_offset_and_scale_of_an_input_as_lwtnn_does(tmp_path):
    """(x + offset) scale, then W x + b with the rows of W one after the other."""
    layer = {
        "architecture": "dense",
        "weights": [1, 2, 3, 4],
        "bias": [0.5, 0],
        "activation": "linear",
    }
    variables = [
        {"name": "a", "offset": 1.0, "scale": 2.0},
        {"name": "b", "offset": 0.0, "scale": 10.0},
    ]
    path = tmp_path / "stack.json"
    path.write_text(json.dumps({"inputs": variables, "layers": [layer], "outputs": ["u", "v"]}))
    found = run_lwtnn(path, {"any": [[3.0, 0.1]]})
    assert found.tolist() == [[8.0 + 2.0 + 0.5, 24.0 + 4.0]]


def transpose(graph):
    layer = next(layer for layer in graph["layers"] if len(layer.get("weights", ())) == 16)
    layer["weights"] = np.reshape(layer["weights"], (4, 4)).T.ravel().tolist()


def swap_gates(first, second):
    def change(graph):
        parts = next(layer for layer in graph["layers"] if "components" in layer)["components"]
        parts[first], parts[second] = parts[second], parts[first]

    return change


def reverse(graph):
    output = graph["outputs"]["p"]
    layer = graph["layers"][graph["nodes"][output["node_index"]]["layer_index"]]
    layer["bias"].reverse()


def one_weight(graph):
    graph["layers"][-1]["bias"][0] += 1e-4


@pytest.mark.parametrize(
    ("build", "change"),
    [
        (recurrent(layers.LSTM), swap_gates("f", "c")),
        (recurrent(layers.LSTM), swap_gates("i", "o")),
        (recurrent(layers.GRU, reset_after=False), swap_gates("z", "r")),
        (recurrent(layers.LSTM), reverse),
        (recurrent(layers.LSTM), one_weight),
        (lambda: build_model("dnn", n_pixels=4, widths=[4], head="classes"), transpose),
    ],
    ids=["f and c", "i and o", "z and r", "labels", "a weight", "a matrix"],
)
def test_a_file_that_was_changed_is_found_out(build, change, rng, tmp_path):
    model = scatter_weights(build(), rng)
    inputs = rows_for(model, rng)
    path = tmp_path / "net.lwtnn.json"
    export_lwtnn(model, path, inputs=inputs)
    graph = json.loads(path.read_text())
    change(graph)
    path.write_text(json.dumps(graph))
    with pytest.raises(ValidationError, match="differs by"):
        require_lwtnn(path, model, inputs)


def test_what_a_wrong_converter_makes_is_not_written(rng, tmp_path, monkeypatch):
    model = scatter_weights(dense_stack(), rng)
    monkeypatch.setitem(ACTIVATIONS, keras.activations.tanh, "sigmoid")
    with pytest.raises(ValidationError, match="differs by"):
        export_lwtnn(model, tmp_path / "net.lwtnn.json", inputs=rows_for(model, rng))
    assert not list(tmp_path.glob("*.json"))


def on(layer, shape=(5,)):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layers.Dense(1)(layers.Flatten()(layer(x))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: on(layers.LayerNormalization(name="ln")), r"'ln' \(LayerNormalization\)"),
        (lambda: on(layers.Conv1D(2, 2, name="c"), (4, 2)), r"'c' \(Conv1D\)"),
        (lambda: on(layers.Dense(2, "hard_sigmoid", name="h")), "'h' .*no activation hard_sigmoid"),
        (lambda: on(layers.ReLU(6.0, name="r")), "'r' .*largest value"),
        (lambda: on(layers.GRU(2, name="g"), (4, 2)), "'g' .*reset_after=False"),
        (lambda: on(layers.LSTM(2, go_backwards=True, name="b"), (4, 2)), "'b' .*forwards"),
        (
            lambda: on(
                lambda x: layers.GRU(2, reset_after=False, name="s")(x, initial_state=x[:, 0]),
                (4, 2),
            ),
            "'s' .*first state",
        ),
        (lambda: on(layers.Bidirectional(layers.LSTM(2), name="b"), (4, 2)), r"\(Bidirectional\)"),
        (lambda: on(layers.Rescaling(0.0, name="z")), "'z' .*a scale is 0"),
        (lambda: on(layers.Dense(2), (3, 3, 2)), "neither a vector nor a sequence"),
        (lambda: on(lambda x: ops.sum(x, axis=2), (4, 2)), "'sum.*over its steps"),
        (lambda: on(lambda x: ops.cast(x > 0.0, "float32")), "'cast.*no logic"),
        (lambda: keras.Sequential([keras.Input((2,)), layers.Dense(2)]), "functional"),
        (lambda: build_model("cnn"), "neither a vector nor a sequence"),
        (lambda: build_model("mlp"), r"\(LayerShares\): lwtnn has no such layer"),
        (lambda: build_model("points"), r"\(LayerShapes\): lwtnn has no such layer"),
        (lambda: build_model("dnn", pixel_power=0.5), r"'pixels_power' \(SignedPower\)"),
        (lambda: build_model("dnn", head="mixture"), "no activation log_softmax"),
    ],
)
def test_what_lwtnn_lacks_is_refused_by_name(model, message):
    with pytest.raises(ValidationError, match=message):
        build_graph(model())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"cells": ["a"] * 6}, "'cells' .*6 names, expected 6 different ones"),
        ({"cells": ["a", "b"]}, "'cells' .*2 names, expected 6"),
        ({"pixels": ["a"]}, "has no input pixels"),
    ],
)
def test_names_that_do_not_fit_the_inputs_are_refused(variables, message):
    with pytest.raises(ValidationError, match=message):
        build_graph(dense_stack(), variables)


def test_a_weight_that_is_not_finite_is_refused():
    model = on(layers.Dense(2, name="d"))
    model.get_layer("d").bias.assign([0.0, np.nan])
    with pytest.raises(ValidationError, match=r"'d' .*not finite"):
        build_graph(model)


def test_a_few_rows_prove_nothing(rng, tmp_path):
    model = dense_stack()
    with pytest.raises(ValidationError, match="99 rows are too few"):
        export_lwtnn(
            model,
            tmp_path / "net.lwtnn.json",
            inputs={"cells": rng.normal(size=(99, 6)).astype(np.float32)},
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file for lwtnn"),
        ('{"inputs": [], "nodes": []}', "input_sequences"),
        ('{"inputs": [{"name": "a"}], "layers": [], "outputs": []}', "offset"),
        (
            '{"inputs": [{"name": "a", "offset": 0, "scale": 1}], "layers": [{"architecture": '
            '"dense", "weights": [1], "bias": [], "activation": "mish"}], "outputs": ["u"]}',
            "activation function mish",
        ),
    ],
)
def test_a_broken_file_is_one_line(text, message, tmp_path):
    path = tmp_path / "net.lwtnn.json"
    path.write_text(text)
    with pytest.raises(ValidationError, match=message) as error:
        run_lwtnn(path, {"x": [[1.0]] if "name" in text else [[]]})
    assert "\n" not in str(error.value)


def test_a_graph_with_a_cycle_is_refused(rng, tmp_path):
    graph = build_graph(two_inputs())
    graph["nodes"][-1]["sources"] = [len(graph["nodes"]) - 1]
    path = tmp_path / "net.lwtnn.json"
    path.write_text(json.dumps(graph))
    with pytest.raises(ValidationError, match="cycle"):
        run_lwtnn(path, rows_for(two_inputs(), rng))


def test_rows_are_timed_one_by_one(rng, tmp_path):
    model = dense_stack()
    path = tmp_path / "net.lwtnn.json"
    inputs = rows_for(model, rng)
    export_lwtnn(model, path, inputs=inputs)
    latency = lwtnn_latency(path, inputs)
    assert latency.n_calls == N_ROWS
    assert 0.0 < latency.quartiles_us[0] <= latency.median_us <= latency.quartiles_us[1]
