"""Networks on windows of digits about a peak: whether it is of a track, and where the track
crossed; their training and export.

As in ALICE's cluster finder of Run 3 (C. Sonnabend et al., CHEP 2024 and ACAT 2025) they are dense,
see three rows of nine pads by nine bins, and the second corrects the centre of gravity and the
widths of the nine digits about the peak by factors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.errors import ConfigError
from pfcalib.tpc.digits import Pieces
from pfcalib.tpc.padclusters import ATTACHED, WINDOW, Peaks, windows
from pfcalib.training.fit import Arrays, Say, TrainConfig
from pfcalib.training.kept import Kept, fit_kept

INPUT, GRAVITY, OF_TRACK, PLACE = "window", "gravity", "of_track", "place"
N_INPUTS = int(np.prod(WINDOW)) + 1
TASKS = ("class", "factors", "shifts")
QUANTITIES = ("pad", "time", "width_pad", "width_time")
N_REFERENCE = 500  # peaks that check an export


@dataclass(frozen=True, kw_only=True)
class PadNetConfig:
    """A network and its training.

    Parameters
    ----------
    task : str
        ``class``: probability that a peak is of a track. ``factors``: place and widths as those of
        the nine digits times what the network says; ``shifts``: plus what it says.
    widths : tuple of int
        Of the dense layers.
    train : TrainConfig
        With the loss "crossentropy" or, for place and widths, "mae".
    """

    task: str = "class"
    widths: tuple[int, ...] = (64, 32, 16)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        wanted = "crossentropy" if self.task == "class" else "mae"
        if self.task not in TASKS or self.train.loss != wanted:
            raise ConfigError(
                f"PadNetConfig: task = {self.task!r} with loss {self.train.loss!r}: expected one "
                f"of {', '.join(TASKS)}, and {wanted!r}"
            )


def build_pad_network(config: PadNetConfig) -> keras.Model:
    """Untrained network: inputs "window" (n, 244) float32 of `padclusters.windows` and, for place
    and widths, "gravity" (n, 4); output "of_track" (n, 2), softmax, or "place" (n, 4).
    """
    inputs = {INPUT: keras.Input((N_INPUTS,), name=INPUT)}
    x = inputs[INPUT]
    if config.task != "class":
        inputs[GRAVITY] = keras.Input((4,), name=GRAVITY)
        x = layers.Concatenate(name="joined")([x, inputs[GRAVITY]])
    for i, width in enumerate(config.widths):
        x = layers.Dense(width, activation="relu", name=f"dense{i}")(x)
    if config.task == "class":
        out = layers.Dense(2, activation="softmax", name=OF_TRACK)(x)
    elif config.task == "factors":
        start = {"kernel_initializer": "zeros", "bias_initializer": "ones"}
        factors = layers.Dense(4, **start, name="factors")(x)
        out = layers.Multiply(name=PLACE)([inputs[GRAVITY], factors])
    else:
        shifts = layers.Dense(4, kernel_initializer="zeros", name="shifts")(x)
        out = layers.Add(name=PLACE)([inputs[GRAVITY], shifts])
    return keras.Model(inputs, out, name=f"pads_{config.task}")


def network_inputs(
    pieces: Pieces, peaks: Peaks, rows: NDArray[np.integer], *, task: str
) -> dict[str, NDArray[np.float32]]:
    """Inputs of a network for some of the peaks."""
    seen = {INPUT: windows(pieces, peaks, rows)}
    return seen if task == "class" else {**seen, GRAVITY: peaks.gravity[rows].astype(np.float32)}


def true_places(pieces: Pieces, peaks: Peaks, rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of peaks that are attached: place of the crossing from the highest digit, pads and bins, and
    widths of its charge, (n, 4).
    """
    of = peaks.crossing[rows]
    return np.column_stack(
        [
            pieces.pad[of] - peaks.pad[rows], pieces.time[of] - peaks.time[rows],
            pieces.width_pad[of], pieces.width_time[of],
        ]
    )  # fmt: skip


def training_arrays(
    pieces: Pieces, peaks: Peaks, rows: NDArray[np.integer], *, task: str
) -> Arrays:
    """Inputs and answers for some of the peaks; those of place and widths must be attached."""
    seen = network_inputs(pieces, peaks, rows, task=task)
    if task == "class":
        return seen, np.eye(2, dtype=np.float32)[(peaks.kind[rows] == ATTACHED).astype(int)]
    return seen, true_places(pieces, peaks, rows).astype(np.float32)


def fit_pad_network(
    training: Arrays, held_out: Arrays, config: PadNetConfig, *, inputs: str, export: bool = True,
    say: Say = print,
) -> Kept:  # fmt: skip
    """Train a network and export it, or find it; a training that was killed goes on.

    Parameters
    ----------
    training, held_out : (inputs, answers)
        Of `training_arrays`.
    config : PadNetConfig
    inputs : str
        What the peaks are: part of the key of the cache.
    export : bool
        Without it there is no ONNX file.
    say : callable
        Takes one line an epoch.
    """

    def file(_: keras.Model) -> dict[str, Any]:
        return {
            "inputs": {name: values[:N_REFERENCE] for name, values in held_out[0].items()},
            "kind": "peaks",
            "normalisation": f"{INPUT}: digits over the highest, -1 outside, then ln(highest / 20 "
            f"counts); {GRAVITY}, {PLACE}: {', '.join(QUANTITIES)} from the highest, pads and bins",
        }

    return fit_kept(
        f"pads_{config.task}", lambda: build_pad_network(config), (training, held_out),
        config.train, settings={"config": asdict(config), "inputs": inputs},
        export=file if export else None, say=say,
    )  # fmt: skip


def apply_pad_network(model: keras.Model, seen: dict[str, NDArray[np.float32]]) -> NDArray[Any]:
    """Probability of being of a track, (n,), or place and widths, (n, 4)."""
    said = predict(model, seen, batch=20_000).astype(np.float64)
    return said[:, 1] if said.shape[1] == 2 else said
