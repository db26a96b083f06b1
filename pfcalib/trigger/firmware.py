"""Students as projects of hls4ml, which makes programmable logic of them (arXiv:1804.06913), and
computes bit by bit what that will say. hls4ml is an extra: ``pip install 'pfcalib[fpga]'``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras import layers

from pfcalib.errors import ConfigError
from pfcalib.trigger.cicada import INPUT, INPUT_FORM
from pfcalib.trigger.fixedpoint import Fixed

_GUARD = 28  # bits before the point of a sum of products, more than any can reach


def precision(form: Fixed) -> str:
    """A format as hls4ml writes it.

    >>> precision(Fixed(10, 6, signed=False))
    'ufixed<10,6,RND,SAT>'
    """
    kind = "fixed" if form.signed else "ufixed"
    return f"{kind}<{form.width},{form.integer},{form.rounding},{form.overflow}>"


def write_firmware(
    student: keras.Model, formats: Mapping[str, Mapping[str, Any]], folder: str | Path,
    *, backend: str = "Vitis",
) -> Any:  # fmt: skip
    """Write the project of a student, with or without formats of its own, into a folder.

    Its input are counts (n, N_PHI, N_ETA), its output is the anomaly in published units. What it
    says is to be had by ``compile()``, which wants a C++ compiler, and ``predict(counts)``.

    Parameters
    ----------
    student : keras.Model
        Of `cicada.build_student`.
    formats : mapping
        Of `cicada.fixed_formats`.
    folder : path
    backend : str
        Of hls4ml.

    Returns
    -------
    hls4ml.model.ModelGraph

    Raises
    ------
    ConfigError
        If hls4ml is not installed, or the student sums over azimuth, which hls4ml has not.
    """
    if importlib.util.find_spec("hls4ml") is None:
        raise ConfigError("firmware needs the package hls4ml: pip install 'pfcalib[fpga]'")
    import hls4ml

    if "mix" in formats:
        raise ConfigError("a student that sums over azimuth has no layers of hls4ml")
    x = inputs = keras.Input(student.inputs[0].shape[1:], name=INPUT)
    told, form = {INPUT: {"Precision": {"result": precision(INPUT_FORM)}}}, INPUT_FORM
    for layer in student.layers:
        if isinstance(layer, layers.Reshape):
            x = layers.Reshape(layer.target_shape, name="reshaped")(x)
        if isinstance(layer, layers.Flatten):
            x = layers.Flatten(name="flat")(x)
        if layer.name not in formats:
            continue
        kernel, bias, output = (
            Fixed(**formats[layer.name][name]) for name in ("form", "bias_form", "output")
        )
        plain = {"name": layer.name, "use_bias": layer.bias is not None}
        if isinstance(layer, layers.Conv2D):
            size = {"kernel_size": layer.kernel_size, "strides": layer.strides}
            copy = layers.Conv2D(layer.filters, **size, **plain)
        else:
            copy = layers.Dense(layer.units, **plain)
        x = layers.ReLU(name=f"{layer.name}_out")(copy(x))
        copy.set_weights(layer.get_weights())
        fraction = max(form.fraction + kernel.fraction, bias.fraction)
        exact = f"fixed<{fraction + _GUARD},{_GUARD}>"
        told[layer.name] = {
            "Precision": {
                "weight": precision(kernel), "bias": precision(bias), "accum": exact,
                "result": exact,
            }
        }  # fmt: skip
        told[f"{layer.name}_out"] = {"Precision": {"result": precision(output)}}
        form = output
    model = keras.Model(inputs, x, name="student")
    config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend=backend)
    for name, settings in told.items():
        config["LayerName"][name]["Precision"] = settings["Precision"]
    return hls4ml.converters.convert_from_keras_model(
        model, hls_config=config, output_dir=str(folder), backend=backend, io_type="io_parallel"
    )
