"""The command that holds an ONNX model against its contract and its reference outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import rich.table
import typer

from pfcalib.cli.console import console, say
from pfcalib.errors import ConfigError, ValidationError

OWN, ATHENA = "own", "athena-eoverp"


def validate(
    model: Annotated[
        Path,
        typer.Argument(
            help="ONNX file; its contract .json and .reference.npz lie beside it.",
            show_default=False,
        ),
    ],
    contract: Annotated[
        str, typer.Option(help=f"{OWN}: that beside the file; {ATHENA}: what Athena loads.")
    ] = OWN,
) -> None:
    """Compare an ONNX model with its contract and with the reference outputs of the Keras model, at
    batch sizes 1, 7 and 256; or give it tracks as Athena's neural E/p gets them.
    """
    if contract == ATHENA:
        return _validate_athena(model)
    if contract != OWN:
        raise ConfigError(f"--contract must be {OWN} or {ATHENA}, not {contract!r}")
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


def _validate_athena(model: Path) -> None:
    from pfcalib.particleflow.conformance import check_athena

    report = check_athena(model)
    table = rich.table.Table("a track with", "ln(E / GeV)", title=str(model))
    for what, answer in report.answers.items():
        table.add_row(what, f"{answer:.4f}")
    if report.answers:
        console.print(table)
    if not report.passed:
        raise ValidationError(f"{model}: {'; '.join(report.problems)}")
    say(f"{model}: is what Athena's neural E/p loads")
