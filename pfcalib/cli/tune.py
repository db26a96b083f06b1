"""The command that tunes the hyper-parameters of a network: one call that does everything, and goes
on where it was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, PionSample, Steps, require_free, say
from pfcalib.errors import ConfigError


def tune(
    sample: PionSample,
    out: Annotated[Path, typer.Option(help="JSON file of the best settings.", show_default=False)],
    model: Annotated[str, typer.Option(help="dnn, cnn, densenet, mlp or points.")] = "cnn",
    trials: Annotated[
        int, typer.Option(min=1, help="Trials in all, those of earlier calls included.")
    ] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each.")] = 1,
    storage: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file of the trials; beside the sample by default.", show_default=False
        ),
    ] = None,
    clusters: Annotated[
        int, typer.Option(min=1, help="Clusters that each trial is trained on.")
    ] = 40_000,
    epochs: Annotated[int, typer.Option(min=1, help="Of each trial.")] = 4,
    timeout: Annotated[
        float | None,
        typer.Option(min=1.0, help="Seconds after which no trial is started.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of clusters, first weights and proposals.")] = 1,
    family: Annotated[str | None, typer.Option(hidden=True, help="Old name of --model.")] = None,
    force: Force = False,
) -> None:
    """Tune the hyper-parameters of the energy regression; one line a trial. Called again, it goes
    on where it stopped.

    Example: pfcalib tune pions.root --trials 20 --workers 2 --out cnn.json
    """
    from pfcalib.training.tuning import (
        MIN_COMPLETE,
        TuneConfig,
        best_trial,
        importances,
        read_trials,
        study_place,
        tune_network,
        write_tuned,
    )

    if out.suffix != ".json":
        raise ConfigError(f"--out {out}: the name must end with .json")
    require_free(out, force)
    config = TuneConfig(
        family=family or model,
        n_trials=trials,
        n_workers=workers,
        timeout=timeout,
        n_clusters=clusters,
        n_validation=max(clusters // 4, 1),
        epochs=epochs,
        seed=seed,
    )
    study = tune_network(sample, config, storage=storage, say=Steps())
    found, best = read_trials(study), best_trial(read_trials(study))
    write_tuned(study, out, config=config, sample=sample)
    n_pruned = sum(trial.pruned for trial in found)
    where = study_place(sample, config, storage=storage).storage
    say(f"{where}: {len(found)} trials, {n_pruned} of them pruned")
    if len(found) - n_pruned >= MIN_COMPLETE:
        parts = (
            f"{name} {part.value:.2f} ± {part.error:.2f}"
            for name, part in importances(study, seed=seed).items()
        )
        say(f"importance: {', '.join(parts)}")
    say(f"{out}: loss {best.loss:.4f}, that of trial {best.number}")
