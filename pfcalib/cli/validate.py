"""The command that holds an ONNX model against its contract and its reference outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import rich.table
import typer

from pfcalib.cli.console import console, say


def validate(
    model: Annotated[
        Path,
        typer.Argument(
            help="ONNX file; its contract .json and .reference.npz lie beside it.",
            show_default=False,
        ),
    ],
) -> None:
    """Compare an ONNX model with its contract and with the reference outputs of the Keras model, at
    batch sizes 1, 7 and 256.
    """
    from pfcalib.deploy.validator import check_stored_model, require_parity

    report = check_stored_model(model)
    table = rich.table.Table(
        "batch",
        "largest difference",
        "worst cluster",
        "not finite",
        "changed class",
        title=str(model),
    )
    for batch in report.batches:
        table.add_row(
            *map(
                str,
                (
                    batch.batch,
                    f"{batch.max_abs:.2e}",
                    batch.worst_cluster,
                    batch.n_nan,
                    batch.n_changed_argmax,
                ),
            )
        )
    if report.batches:
        console.print(table)
    require_parity(report)
    say(f"{model}: agrees on {report.n_clusters} clusters within {report.tolerance:.0e}")
