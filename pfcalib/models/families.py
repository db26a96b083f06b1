"""All networks by name: how each is built and which kind of input it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import keras

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.models.bayes import BayesianDense
from pfcalib.models.blocks import LayerShares, QuantileBins, SignedPower
from pfcalib.models.cnn import CnnConfig, build_cnn
from pfcalib.models.densenet import DenseNetConfig, build_densenet
from pfcalib.models.dnn import DnnConfig, build_dnn
from pfcalib.models.heads import RunningSum
from pfcalib.models.mlp import MlpConfig, build_mlp
from pfcalib.models.shapes import LayerShapes, PointsConfig, build_points_network

# name: kind of input, see features.inputs
MODEL_KINDS = {
    "dnn": "flat",
    "cnn": "layers",
    "densenet": "stacks",
    "mlp": "moments",
    "points": "points",
}
PUBLISHED = ("dnn", "cnn", "densenet")  # whose defaults are those of ATL-PHYS-PUB-2020-018
# configuration and builder
BUILDERS: dict[str, tuple[type, Callable[..., keras.Model]]] = {
    "dnn": (DnnConfig, build_dnn),
    "cnn": (CnnConfig, build_cnn),
    "densenet": (DenseNetConfig, build_densenet),
    "mlp": (MlpConfig, build_mlp),
    "points": (PointsConfig, build_points_network),
}


def build_model(name: str, *, seed: int | None = None, **options: Any) -> keras.Model:
    """Untrained model by name; options are the fields of its configuration (a list stands for a
    tuple, as JSON has none).

    A seed sets the random state of Keras and so the first weights.

    Raises
    ------
    ConfigError
        If the model or an option is unknown, or a value is out of range.
    """
    if name not in BUILDERS:
        raise ConfigError(f"unknown model {name!r}: expected one of {', '.join(BUILDERS)}")
    config, build = BUILDERS[name]
    known = [field.name for field in fields(config)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"model {name!r} has no option {', '.join(unknown)}: expected among {', '.join(known)}"
        )
    if seed is not None:
        keras.utils.set_random_seed(seed)
    return build(
        config(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in options.items()
            }
        )
    )


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give a model the weights of another with the same layers.

    Raises
    ------
    ConfigError
        If the shapes of their weights differ.
    """
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (source, target)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"models {source.name!r} and {target.name!r} do not have the same weights: a training "
            "cannot start from the other"
        )
    target.set_weights(source.get_weights())


def load_model(path: str | Path) -> keras.Model:
    """Model from a .keras file, ready to be applied, in safe mode: a file that carries code is
    refused.

    Raises
    ------
    BadFileError
        If the file is missing, broken or not safe.
    """
    try:
        return keras.saving.load_model(
            path,
            custom_objects={
                layer.__name__: layer
                for layer in (
                    *(BayesianDense, LayerShapes, LayerShares),
                    *(QuantileBins, RunningSum, SignedPower),
                )
            },
            compile=False,
            safe_mode=True,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadFileError(
            f"{path}: not a readable .keras model: {str(error).strip().splitlines()[0]}"
        ) from error
