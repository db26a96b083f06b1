"""The command that holds an ONNX model against its contract, its reference outputs, its training
and labelled clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.table
import typer

from pfcalib.cli.console import console, say
from pfcalib.errors import ConfigError, ValidationError

if TYPE_CHECKING:
    from pfcalib.deploy.examination import Examination

OWN, ATHENA = "own", "athena-eoverp"

Layers = Annotated[
    Path | None,
    typer.Option(
        help="Python file with Keras layers of your own, which is run.", show_default=False
    ),
]


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
    trained_by: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the training, with model.keras: weights, parameters and fresh inputs "
            "are compared.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Keras file; any ONNX file, without a contract too, is compared with it.",
            show_default=False,
        ),
    ] = None,
    layers: Layers = None,
    sample: Annotated[
        list[Path] | None,
        typer.Option(help="ROOT file of labelled clusters; may be repeated.", show_default=False),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="HTML page to be written: what was checked.", show_default=False),
    ] = None,
) -> None:
    """Examine an ONNX model in a process of its own: its graph, before it runs; its contract,
    recomputed; reference clusters and fresh inputs at batch sizes 1, 7, 256 and 1000; and, where
    asked for, the Keras model that it was made from and labelled clusters. What was not verified
    is said. Or give it tracks as Athena's neural E/p gets them.

    Example: pfcalib validate models/cnn/cnn.onnx --trained-by models/cnn
    """
    if contract == ATHENA:
        return _validate_athena(model)
    if contract != OWN:
        raise ConfigError(f"--contract must be {OWN} or {ATHENA}, not {contract!r}")
    from pfcalib.deploy.contract import contract_path
    from pfcalib.deploy.examination import examine_apart

    own = against is not None and not contract_path(model).exists()
    result = examine_apart(model, own=own)
    if result.passed and (trained_by or against):
        result = _with_keras(result, trained_by, against, layers)
    if result.passed and sample:
        from pfcalib.deploy.examination import Examination, merge
        from pfcalib.training.judge import check_physics, judge_model

        finding = check_physics(model, judge_model(model, sample))
        result = merge(result, Examination(model, (finding,)))
    table = rich.table.Table("checked", "verdict", "found", title=str(model))
    for finding in result.findings:
        table.add_row(*finding)
    console.print(table)
    if page is not None:
        from pfcalib.reporting.modelpage import write_model_page

        write_model_page(page, result)
        say(f"{page}: what was checked")
    if not result.passed:
        raise ValidationError(f"{model}: {'; '.join(result.problems)}")
    n_open = sum(finding.verdict == "not verified" for finding in result.findings)
    say(f"{model}: nothing is wrong; {n_open} things were not verified")


def _with_keras(
    result: Examination, trained_by: Path | None, against: Path | None, layers: Path | None
) -> Examination:
    """What the Keras model tells beside."""
    from pfcalib.deploy.against import examine_against, examine_training, load_layers
    from pfcalib.deploy.contract import read_contract
    from pfcalib.deploy.examination import merge
    from pfcalib.models.families import load_model

    if layers is not None:
        load_layers(layers)
    path = result.path
    if trained_by is not None:
        model = load_model(trained_by / "model.keras")
        more = examine_training(path, read_contract(path), model, trained_by)
    else:
        assert against is not None
        more = examine_against(path, load_model(against))
    return merge(result, more)


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
