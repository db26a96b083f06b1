"""The verb that exports a Keras model of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, Seed, require_free, say
from pfcalib.cli.validate import Layers
from pfcalib.errors import ConfigError


def export(
    model: Annotated[
        Path,
        typer.Argument(
            help=".keras file, functional or sequential, loaded in safe mode.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(help="ONNX file to be written, with its contract.", show_default=False),
    ],
    inputs: Annotated[
        Path | None,
        typer.Option(
            help=".npz file of reference inputs, one float32 array for each input of the network, "
            "by its name; standard normal numbers by default.",
            show_default=False,
        ),
    ] = None,
    layers: Layers = None,
    seed: Seed = 1,
    force: Force = False,
) -> None:
    """Convert a Keras model to ONNX, with a contract and reference outputs beside it; nothing is
    written unless ONNX Runtime computes what Keras does.

    Example: pfcalib export models/cnn/model.keras own.onnx
    """
    import numpy as np

    from pfcalib.cache import file_sha256
    from pfcalib.deploy.against import load_layers, normal_inputs
    from pfcalib.deploy.contract import read_arrays
    from pfcalib.deploy.export import export_onnx, functional
    from pfcalib.models.families import load_model

    require_free(output, force)
    if layers is not None:
        load_layers(layers)
    network = functional(load_model(model))
    if inputs is not None:
        arrays, kind = read_arrays(inputs), inputs.name
        names = [tensor.name for tensor in network.inputs]
        if sorted(arrays) != sorted(names):
            raise ConfigError(
                f"--inputs {inputs}: arrays {', '.join(arrays)}, expected {', '.join(names)}"
            )
    else:
        arrays, kind = list(normal_inputs(network, np.random.default_rng(seed)))[-1], "own"
    report = export_onnx(
        network,
        output,
        inputs=arrays,
        kind=kind,
        training={"keras_sha256": file_sha256(model), "inputs": kind, "seed": seed},
        normalisation="that of the network itself",
    )
    say(f"{output}: differs by at most {report.max_abs:.1e} from Keras")
