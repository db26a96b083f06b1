"""A network is trained once, under the key of all that decides on it."""

import keras
import numpy as np
import pytest
from keras import layers

from pfcalib.deploy.contract import read_contract
from pfcalib.deploy.export import predict
from pfcalib.deploy.validator import check_stored_model
from pfcalib.training.fit import TrainConfig, weights_path
from pfcalib.training.kept import fit_kept

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def build():
    x = keras.Input((2,), name="x", dtype="float32")
    p = layers.Dense(2, activation="softmax", name="p")(x)
    return keras.Model({"x": x}, p, name="toy")


@pytest.mark.parametrize("last", [False, True])
def test_a_second_call_finds_the_network_and_other_settings_do_not(last, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    x = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    data = ({"x": x}, np.eye(2, dtype=np.float32)[(x[:, 0] > 0).astype(int)])
    train = TrainConfig(learning_rate=0.05, batch_size=50, epochs=3, patience=3)
    said = []

    def fit(settings):
        return fit_kept(
            "toy", build, (data, data), train, settings=settings, last=last, say=said.append,
            export=lambda _: {"inputs": {"x": x[:50]}, "kind": "toy", "normalisation": "none"},
        )  # fmt: skip

    first, again = fit({"inputs": "a"}), fit({"inputs": "a"})
    assert len(said) == 3
    np.testing.assert_array_equal(predict(again.model, {"x": x}), predict(first.model, {"x": x}))
    assert check_stored_model(first.path).passed
    assert read_contract(first.path).training["inputs"] == "a"
    other = fit({"inputs": "b"})
    assert len(said) == 6
    assert other.path != first.path
    kept = build()
    kept.load_weights(weights_path(first.path.parent, 2))
    if last:
        np.testing.assert_array_equal(predict(first.model, {"x": x}), predict(kept, {"x": x}))
