"""From a Keras file of one's own to a validated ONNX file, by the command."""

from __future__ import annotations

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # TensorFlow 2.21 with numpy 2
LAYERS = """\
import keras

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2.0 * inputs
"""


@pytest.fixture
def own(tmp_path):
    """A sequential network with a layer that only a file of the user's knows."""
    (tmp_path / "mine.py").write_text(LAYERS)
    names: dict[str, type] = {}
    exec(LAYERS, names)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), names["Twice"]()])
    model.save(tmp_path / "own.keras")
    yield tmp_path
    keras.saving.get_custom_objects().pop("Twice", None)


def test_a_network_of_ones_own_is_exported_and_validated(own, pfcalib):
    layers = ("--layers", str(own / "mine.py"))
    code, out, errors = pfcalib("export", str(own / "own.keras"), str(own / "own.onnx"), *layers)
    assert code == 0, errors
    assert "differs by at most" in out
    page = own / "own.html"
    against = ("--against", str(own / "own.keras"), *layers, "--page", str(page))
    code, out, errors = pfcalib("validate", str(own / "own.onnx"), *against)
    assert code == 0, errors
    assert "fresh inputs against Keras" in page.read_text()
    assert "nothing is wrong; 3 things were not verified" in out


def test_a_layer_that_is_not_known_is_told(own, pfcalib):
    code, _, errors = pfcalib("export", str(own / "own.keras"), str(own / "own.onnx"))
    assert code == 1
    assert "own.keras: not a readable .keras model" in errors
    assert not (own / "own.onnx").exists()


def test_inputs_of_ones_own_are_the_reference(own, pfcalib):
    np.savez(own / "x.npz", other=np.ones((3, 6), np.float32))
    layers = ("--layers", str(own / "mine.py"), "--inputs", str(own / "x.npz"))
    code, _, errors = pfcalib("export", str(own / "own.keras"), str(own / "own.onnx"), *layers)
    assert code == 1
    assert "x.npz" in errors
    assert "expected" in errors


def test_a_file_that_is_none_ends_with_one_line(own, pfcalib):
    (own / "bad.onnx").write_bytes(b"nothing")
    code, _, errors = pfcalib("validate", str(own / "bad.onnx"))
    assert code == 1
    assert errors.startswith("pfcalib: ")
    assert "bad.onnx: no ONNX file" in errors
