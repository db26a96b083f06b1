"""The command that trains a network on samples and exports it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Seed, console
from pfcalib.errors import ConfigError

N_REFERENCE = 1000  # clusters whose outputs travel with an exported model


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
