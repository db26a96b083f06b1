"""The verb that applies a trained model to a sample."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Force, RootOutput, progress_bar, require_free, say


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
    output: RootOutput,
    force: Force = False,
) -> None:
    """Write calibrated energies and probabilities as a friend: the tree `calibration`, one entry a
    cluster in the order of the sample, keyed by sample, event and cluster.

    Example: pfcalib apply small-classifier pions.root p_em.root
    """
    from pfcalib.training.friend import open_model, write_friend

    require_free(output, force)
    chosen = open_model(model)
    with progress_bar("clusters", None) as advance:
        n = write_friend(sample, chosen, output, force=force, progress=advance)
    say(f"{output}: {', '.join(chosen.gives)} of {n} clusters by {chosen.path.name}")
