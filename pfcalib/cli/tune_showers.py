"""The command that fits the free numbers of the parametrised showers to Geant4."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, Reference, Seed, Steps, require_free, say


def tune_showers(
    showers: Reference,
    out: Annotated[Path, typer.Option(help="JSON file of the numbers.", show_default=False)],
    stages: Annotated[
        str | None,
        typer.Option(
            help="Which numbers, in which order, such as em-scale,em-depth; all by default.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Go on from the numbers of this JSON file.", show_default=False),
    ] = None,
    events: Annotated[
        int, typer.Option("--events", "-n", min=1, help="Geant4 pions of each charge at most.")
    ] = 5000,
    copies: Annotated[
        int, typer.Option(min=1, help="Parametrised showers for each Geant4 pion.")
    ] = 2,
    evaluations: Annotated[int, typer.Option(min=1, help="Trials of each stage at most.")] = 80,
    seed: Seed = 1,
    force: Force = False,
) -> None:
    """Fit the numbers of the parametrised showers to Geant4, stage by stage; one line for every
    better trial.

    Example: pfcalib tune-showers g4.root --out showers.json
    """
    from pfcalib.geometry import WINDOW
    from pfcalib.samples.showerfile import read_showers
    from pfcalib.training.shower_fit import (
        STAGES,
        ShowerFitConfig,
        fit_showers,
        read_fit,
        write_fit,
    )

    require_free(out, force)
    wanted = tuple(stages.split(",")) if stages else tuple(STAGES)
    fit = ShowerFitConfig(
        stages=wanted, n_events=events, copies=copies, evaluations=evaluations, seed=seed
    )
    first = read_fit(start) if start else None
    reference, metadata = read_showers(showers, WINDOW)
    config, done = fit_showers(reference, fit, start=first, say=Steps())
    write_fit(out, config, done, fit=fit, reference=showers, metadata=metadata)
    for stage in done:
        say(f"{stage.name}: chi2 {stage.chi2_before:.3f} to {stage.chi2:.3f}")
    say(f"{out}: {len(config)} numbers, {sum(len(stage.numbers) for stage in done)} of them fitted")
