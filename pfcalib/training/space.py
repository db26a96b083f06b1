"""What a study of hyper-parameters may vary: a space of parameters for each family of networks, as
data, and what they mean for a network.

All parameters of a family are there in every trial, none hangs on another, so that the importance
of each can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna

# options of a network without its head, options of its training
Settings = tuple[dict[str, Any], dict[str, Any]]


class Choice(NamedTuple):
    """One of some values."""

    meaning: str
    values: tuple[Any, ...]


class Range(NamedTuple):
    """A number between two limits, flat or flat in its logarithm; whole if the limits are."""

    meaning: str
    low: float
    high: float
    log: bool = False


Parameter = Choice | Range
_COMMON: dict[str, Parameter] = {
    "dropout": Range("share of the units that a training step leaves out", 0.0, 0.2),
    "pixel_power": Choice("exponent that pixels are raised to; 1 = published", (0.25, 0.5, 1.0)),
    "learning_rate": Range("of Adam at the start of the cosine", 3e-4, 5e-3, log=True),
    "batch_size": Choice("clusters a step", (128, 256, 512)),
}
SPACES: dict[str, dict[str, Parameter]] = {
    "dnn": {
        "n_layers": Range("hidden layers", 2, 4),
        "width": Choice("units of the first hidden layer", (64, 128, 256, 512)),
        "taper": Choice(
            "width against depth: all alike, the last half as wide (published), or each half of "
            "the one before",
            ("none", "last", "each"),
        ),
        "scalars_first": Choice(
            "energy and direction join the pixels, not the last hidden layer", (False, True)
        ),
        **_COMMON,
    },
    "cnn": {
        "filters": Choice("filters of each layer's convolution", (8, 16, 32)),
        "branch_width": Choice("units behind each layer's convolution", (32, 64, 128)),
        "merged_width": Range("units behind the merged branches", 32, 128, log=True),
        **_COMMON,
    },
    "densenet": {
        "growth": Choice("maps that each convolution adds", (4, 8, 12)),
        "block_layers": Range("convolutions of each of the two dense blocks", 1, 3),
        "compression": Choice("share of the maps that a transition keeps", (0.3, 0.5, 0.8)),
        "head_width": Range("units behind the merged stacks", 32, 128, log=True),
        **_COMMON,
    },
}
# The first trial of each study: the published settings as near as the space holds them, at a rate
# that the few epochs of a trial allow.
# The published DNN is nearly twice as wide; of the DenseNet no widths are published.
_PUBLISHED = {"dropout": 0.2, "pixel_power": 1.0, "learning_rate": 1e-3, "batch_size": 256}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dnn": {"n_layers": 3, "width": 512, "taper": "last", "scalars_first": True, **_PUBLISHED},
    "cnn": {"filters": 32, "branch_width": 128, "merged_width": 50, **_PUBLISHED},
    "densenet": {
        "growth": 8,
        "block_layers": 2,
        "compression": 0.5,
        "head_width": 64,
        **_PUBLISHED,
    },
}
MIN_WIDTH = 16  # of a hidden layer that is half of a half


def suggest(trial: optuna.Trial, family: str) -> dict[str, Any]:
    """Let a trial choose all parameters of a family."""
    chosen: dict[str, Any] = {}
    for name, parameter in SPACES[family].items():
        if isinstance(parameter, Choice):
            chosen[name] = trial.suggest_categorical(name, parameter.values)
        elif isinstance(parameter.low, int):
            chosen[name] = trial.suggest_int(
                name, parameter.low, int(parameter.high), log=parameter.log
            )
        else:
            chosen[name] = trial.suggest_float(
                name, parameter.low, parameter.high, log=parameter.log
            )
    return chosen


def settings(family: str, parameters: Mapping[str, Any]) -> Settings:
    """Options of the network and of its training that parameters of the space stand for.

    >>> settings("dnn", DEFAULTS["dnn"])[0]["widths"]
    [512, 512, 256]
    """
    rest = dict(parameters)
    train = {name: rest.pop(name) for name in ("learning_rate", "batch_size")}
    if family == "dnn":
        rest["widths"] = _widths(rest.pop("n_layers"), rest.pop("width"), rest.pop("taper"))
    elif family == "densenet":
        rest["block_layers"] = [rest["block_layers"]] * 2
    return {**rest, "with_scalars": True}, train


def _widths(n_layers: int, width: int, taper: str) -> list[int]:
    halvings = {
        "none": [0] * n_layers,
        "last": [0] * (n_layers - 1) + [1],
        "each": list(range(n_layers)),
    }[taper]
    return [max(width // 2**halving, MIN_WIDTH) for halving in halvings]


def describe(family: str) -> list[tuple[str, str, str, str]]:
    """Name, meaning, range and default of each parameter of a family, in words.

    >>> describe("cnn")[2]
    ('merged_width', 'units behind the merged branches', '32 to 128, logarithmic', '50')
    """
    rows = []
    for name, parameter in SPACES[family].items():
        if isinstance(parameter, Choice):
            text = ", ".join(map(str, parameter.values))
        else:
            text = (
                f"{parameter.low:g} to {parameter.high:g}{', logarithmic' if parameter.log else ''}"
            )
        rows.append((name, parameter.meaning, text, str(DEFAULTS[family][name])))
    return rows


def logarithmic(family: str) -> list[str]:
    """Names of the parameters of a family that are drawn flat in their logarithm."""
    return [
        name
        for name, parameter in SPACES[family].items()
        if isinstance(parameter, Range) and parameter.log
    ]
