"""The command ``pfcalib``: every step of the corridor from a shell; bad input ends with one line
and exit code 1.

Heavy modules are imported inside the commands, and only here, so that ``pfcalib --help`` answers at
once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import rich.table
import typer

from pfcalib.cli.console import console
from pfcalib.cli.data import convert, derive_lcw, inspect
from pfcalib.cli.simulate import Seed, simulate
from pfcalib.cli.tune import tune
from pfcalib.errors import ConfigError, PfcalibError, ValidationError

app = typer.Typer(
    help="Calorimeter clusters to validated networks. Energies in GeV, lengths in mm, angles in rad.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

N_REFERENCE = 1000  # clusters whose outputs travel with an exported model

Profile = Annotated[
    str, typer.Option(help="Parameter set of notebooks/profiles.yaml: smoke, standard or full.")
]


def main() -> None:
    """Entry point: errors that the user can mend become one line on standard error and exit code
    1.
    """
    try:
        app()
    except PfcalibError as error:
        one_line = " ".join(str(error).split())
        sys.exit(f"pfcalib: {one_line}")


app.command()(simulate)
app.command()(inspect)
app.command()(convert)
app.command(name="derive-lcw")(derive_lcw)
app.command()(tune)


@app.command()
def train(
    samples: Annotated[
        list[Path],
        typer.Argument(
            help="ROOT files; events are split 70/10/20 % by a hash of their number.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for checkpoints, history and model.keras; an interrupted training goes on there."
        ),
    ],
    model: Annotated[str, typer.Option(help="dnn, cnn or densenet.")] = "cnn",
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training clusters at most.")
    ] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Clusters a step.")] = 256,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of Adam.")] = 1e-3,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a lower validation loss before it stops.")
    ] = 20,
    seed: Seed = 1,
) -> None:
    """Train a classifier of neutral against charged pions; one line an epoch."""
    with _silent_stderr():
        import keras
        import numpy as np

        from pfcalib.deploy.export import export_onnx
        from pfcalib.models.families import MODEL_KINDS, build_model
        from pfcalib.training.fit import TrainConfig, fit_model
        from pfcalib.training.stream import ClusterStream

    if model not in MODEL_KINDS:
        raise ConfigError(f"--model {model!r} is unknown; choose one of {', '.join(MODEL_KINDS)}")
    config = TrainConfig(
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
        patience=patience,
        seed=seed,
    )
    training, validation = (
        ClusterStream(
            samples,
            kind=MODEL_KINDS[model],
            split=split,
            batch_size=batch_size,
            seed=seed,
            shuffle=split == "train",
        )
        for split in ("train", "validation")
    )
    keras.utils.set_random_seed(seed)
    network = build_model(model)
    result = fit_model(network, training, validation, config, out_dir=out)
    batches = [
        validation[number][0]
        for number in range(min(len(validation), -(-N_REFERENCE // batch_size)))
    ]
    reference = {
        name: np.concatenate([batch[name] for batch in batches])[:N_REFERENCE]
        for name in batches[0]
    }
    settings = {
        **dataclasses.asdict(config),
        "samples": [path.name for path in samples],
        "best_epoch": result.best_epoch,
    }
    parity = export_onnx(
        network, out / f"{model}.onnx", inputs=reference, kind=MODEL_KINDS[model], training=settings
    )
    console.print(
        f"{out / 'model.keras'}: best epoch {result.best_epoch + 1}, {result.seconds:.0f} s",
        soft_wrap=True,
    )
    console.print(
        f"{parity.path}: differs by at most {parity.max_abs:.1e} from Keras", soft_wrap=True
    )


@app.command()
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
    console.print(
        f"{model}: agrees on {report.n_clusters} clusters within {report.tolerance:.0e}",
        soft_wrap=True,
    )


@app.command()
def run(
    study: Annotated[
        str,
        typer.Argument(help="Study, such as 01_showers; see `pfcalib list`.", show_default=False),
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value, a JSON value; may be repeated."),
    ] = None,
    profile: Profile = "smoke",
) -> None:
    """Run one study and write reports/STUDY/PROFILE."""
    from pfcalib.reporting.catalogue import find_root, find_studies, parse_override
    from pfcalib.reporting.runner import plan_study, run_study
    from pfcalib.reporting.site import build_index

    root = find_root()
    known = find_studies(root)
    if study not in known:
        raise ConfigError(f"study {study!r} is unknown; there are {', '.join(known) or 'none'}")
    overrides = dict(parse_override(known[study], text) for text in parameters or [])
    result = run_study(plan_study(study, profile=profile, overrides=overrides, root=root), say=_say)
    build_index(root)
    verdict = "passed" if result.passed else "failed"
    console.print(
        f"{study}: {verdict} in {result.seconds:.0f} s, see {result.folder / 'report.html'}",
        soft_wrap=True,
    )
    if not result.passed:
        raise ValidationError(f"{study}: {result.error or 'a check failed'}")


@app.command()
def report(profile: Profile = "smoke") -> None:
    """Run every study in order, build reports/index.html and tell where it lies; exit code 1 if any
    study failed.
    """
    from pfcalib.reporting.catalogue import find_root, find_studies
    from pfcalib.reporting.runner import plan_study, run_study
    from pfcalib.reporting.site import build_index

    root = find_root()
    plans = [plan_study(name, profile=profile, root=root) for name in find_studies(root)]
    failed = []
    for number, plan in enumerate(plans, start=1):
        _say(f"[{number}/{len(plans)}] {plan.study.name} ({profile})\n")
        result = run_study(plan, say=_say)
        _say(
            f"[{number}/{len(plans)}] {plan.study.name}: "
            f"{'passed' if result.passed else 'FAILED: ' + result.error} ({result.seconds:.0f} s)\n"
        )
        failed += [] if result.passed else [plan.study.name]
    _say(f"Report: {build_index(root)}\n")
    if failed:
        raise ValidationError(f"{len(failed)} of {len(plans)} studies failed: {', '.join(failed)}")


@app.command(name="list")
def list_studies() -> None:
    """List the studies with their parameters in the smoke and standard profiles."""
    from pfcalib.reporting.catalogue import PROFILES, find_root, find_studies, read_profiles

    root = find_root()
    profiles = read_profiles(root)
    for study in find_studies(root).values():
        table = rich.table.Table(
            "parameter", *PROFILES, title=f"{study.name}: {study.title}", title_justify="left"
        )
        values = profiles.get(study.name, {})
        for name in (parameter.name for parameter in study.parameters):
            if name not in ("profile", "out_dir"):
                table.add_row(
                    name,
                    *(str(values.get(profile, {}).get(name, "missing")) for profile in PROFILES),
                )
        console.print(table)


@app.command()
def index() -> None:
    """Build reports/index.html from the results that are there."""
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.site import build_index

    console.print(f"Report: {build_index(find_root())}", soft_wrap=True)


@app.command()
def readme() -> None:
    """Bring the table of studies in README.md up to date with the published results."""
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.site import write_readme

    console.print(
        "README.md: changed" if write_readme(find_root()) else "README.md: was up to date"
    )


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing on standard error, also from compiled code: TensorFlow tells of missing GPUs there
    when it is imported, whatever it is told.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _say(text: str) -> None:
    """Progress text as it comes, also into a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()
