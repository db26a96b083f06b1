"""Where a converted network begins to differ: the part up to each layer is converted by itself and
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pfcalib.deploy.export import _convert, predict


def layer_differences(
    model: Any, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[float, float]]:
    """Largest difference between Keras and ONNX Runtime after each layer of a functional model, and
    the largest number there, by the name of the layer.

    Parameters
    ----------
    model : keras.Model
    inputs : mapping of str to array of float32, shape (n, ...)
    """
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) or isinstance(layer.output, list | tuple):
            continue
        part = keras.Model(model.inputs, layer.output, name="part")
        session = onnxruntime.InferenceSession(_convert(part), providers=["CPUExecutionProvider"])
        wanted = {of.name for of in session.get_inputs()}
        feed = {name: array for name, array in inputs.items() if name in wanted}
        expected = predict(part, inputs)
        output = session.run(None, feed)[0]
        found[layer.name] = (
            float(np.abs(output - expected).max()), float(np.abs(expected).max()),
        )  # fmt: skip
    return found
