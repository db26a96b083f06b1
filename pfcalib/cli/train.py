"""The verb that trains a network on samples and exports it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pfcalib.cli.console import Force, Seed, Steps, require_free, say
from pfcalib.errors import BadFileError, ConfigError, ValidationError

TASKS = ("classification", "regression")


def train(
    samples: Annotated[
        list[Path],
        typer.Argument(
            help="ROOT files or patterns; events are split 70/10/20 % by a hash of their number.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints, history, model.keras and ONNX; an interrupted training "
            "goes on there. By default models/ beside the first sample, where studies that ask for "
            "the same network find it.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="dnn, cnn, densenet, mlp or points.")] = "cnn",
    task: Annotated[str, typer.Option(help="classification or regression.")] = "classification",
    species: Annotated[
        str, typer.Option(help="Regression: clusters of all, neutral or charged pions.")
    ] = "all",
    head: Annotated[
        str,
        typer.Option(help="Regression: energy, quantiles, mixture, members or class_and_energy."),
    ] = "energy",
    option: Annotated[
        list[str] | None,
        typer.Option(help="name=value of the network, such as filters=8; may be repeated."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training clusters at most.")
    ] = 100,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Clusters a step; 256, or as tuned."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Of Adam; 0.001, or as tuned.")
    ] = None,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a lower validation loss before it stops.")
    ] = 20,
    export: Annotated[
        str | None,
        typer.Option(help="Name of the ONNX file; that of --model by default.", show_default=False),
    ] = None,
    reference: Annotated[
        int, typer.Option(min=1, help="Clusters whose outputs travel with the ONNX file.")
    ] = 1000,
    multi_worker: Annotated[
        bool,
        typer.Option(
            "--multi-worker",
            help="Share every batch with the other processes that TF_CONFIG tells of; the first "
            "one writes.",
        ),
    ] = False,
    seed: Seed = 1,
    force: Force = False,
) -> None:
    """Train a classifier of neutral against charged pions or a regression of the energy; one line
    an epoch.

    A classifier of dnn, cnn or densenet has the published size of its network and a constant
    learning rate; mlp, points and regressions have the tuned settings and a rate that falls along a
    cosine.

    Example: pfcalib train pions.root --epochs 2 --out models/cnn
    """
    from pfcalib.models.families import PUBLISHED
    from pfcalib.samples.locate import as_paths
    from pfcalib.samples.rootfile import content_id
    from pfcalib.training.fit import HISTORY, TrainConfig
    from pfcalib.training.judge import judge_model, write_physics
    from pfcalib.training.networks import NetworkConfig, export_network, fit_network
    from pfcalib.training.regressors import measure_inversion
    from pfcalib.training.settings import FAMILIES, classifier_config, regression_config

    if multi_worker:
        from pfcalib.training.together import fit_together, join_workers

        workers = join_workers()
    if out is not None and not (out / HISTORY).exists():  # a training goes on in its folder
        require_free(out, force)
    for name, value, known in (("model", model, FAMILIES), ("task", task, TASKS)):
        if value not in known:
            raise ConfigError(f"--{name} {value!r} is unknown; choose one of {', '.join(known)}")
    options = dict(parse_option(text) for text in option or [])
    given = {"batch_size": batch_size, "learning_rate": learning_rate}
    rates = {name: value for name, value in given.items() if value is not None}
    tuned: dict[str, Any] = {
        "epochs": epochs,
        "seed": seed,
        "options": options,
        "train": {**rates, "patience": patience},
    }
    if task == "regression":
        config = regression_config(
            model,
            species=species,
            head=head,
            **tuned,
        )
    elif species != "all" or head != "energy":
        raise ConfigError("--species and --head go with --task regression")
    elif model not in PUBLISHED:
        config = classifier_config(model, select=None, **tuned)
    else:
        training = TrainConfig(
            learning_rate=learning_rate or 1e-3,
            batch_size=batch_size or 256,
            epochs=epochs,
            patience=patience,
            seed=seed,
        )
        config = NetworkConfig(name=model, options=options, train=training)
    samples = [Path(path) for path in as_paths(samples)]
    if not multi_worker:
        network = fit_network(samples, config, folder=out, say=Steps())
    else:
        network = fit_together(workers, samples, config, folder=out, say=Steps())
        if workers.number > 0:
            say(f"worker {workers.number} of {workers.of} has done its part; the first one writes")
            return
    more: dict[str, Any] = {
        "samples": {path.name: content_id(path) for path in samples},
        "made_by": shlex.join(["pfcalib", *sys.argv[1:]]) if "train" in sys.argv else "",
    }
    if task == "regression":
        try:
            inversion = measure_inversion(network, samples)
            more["inversion"] = {name: part.tolist() for name, part in vars(inversion).items()}
        except ValidationError as error:
            say(f"exported without inversion: {error}")
    parity = export_network(network, samples, name=export, n_clusters=reference, **more)
    try:
        write_physics(parity.path, judge_model(parity.path, samples, split="validation"))
    except BadFileError as error:
        say(f"the contract tells no physics: {error}")
    result = network.result
    best = f"best epoch {result.best_epoch + 1}, {result.seconds:.0f} s"
    say(f"{network.folder / 'model.keras'}: {best}")
    say(f"{parity.path}: differs by at most {parity.max_abs:.1e} from Keras")


def parse_option(text: str) -> tuple[str, Any]:
    """Name and value of an option of a network.

    >>> parse_option("widths=[64, 32]")
    ('widths', [64, 32])
    """
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        raise ConfigError(f"--option {text!r}: expected name=value, a JSON value") from None
