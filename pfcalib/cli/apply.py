"""The verb that applies a trained model to a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import console, progress_bar
from pfcalib.cli.train import silent_stderr


def apply(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of `pfcalib train`, .onnx or .keras file with its contract, .json tables "
            "of local cell weighting, or the packaged small-classifier or small-regression.",
            show_default=False,
        ),
    ],
    sample: Annotated[
        str,
        typer.Argument(help="ROOT file, pattern or @list.txt, of any layout.", show_default=False),
    ],
    output: Annotated[Path, typer.Argument(help="ROOT file to be written.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace an output that exists.")] = False,
) -> None:
    """Write calibrated energies and probabilities as a friend: the tree `calibration`, one entry a
    cluster in the order of the sample, keyed by sample, event and cluster.
    """
    with silent_stderr():
        from pfcalib.training.friend import open_model, write_friend

    chosen = open_model(model)
    with progress_bar("clusters", None) as advance:
        n = write_friend(sample, chosen, output, force=force, progress=advance)
    gives = ", ".join(chosen.gives)
    console.print(f"{output}: {gives} of {n} clusters by {chosen.path.name}", soft_wrap=True)
