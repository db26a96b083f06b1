"""The command that runs a study again and tells whether its results come out again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Study, say
from pfcalib.errors import ConfigError, ValidationError


def verify(
    study: Study,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results to verify; by default the published ones, reports/STUDY.",
            show_default=False,
        ),
    ] = None,
    sigmas: Annotated[
        float,
        typer.Option(
            help="Number of standard deviations that a metric may move by; one without error may "
            "move by a thousandth.",
            min=0.0,
        ),
    ] = 1.0,
) -> None:
    """Run a study with the parameters that its results record, into reports/STUDY/.verify, and
    compare all metrics.

    With one seed they should not move at all; the tolerance leaves room for another processor.
    Times, rates and memory are told only. Exit code 1 if a metric or a required check disagrees.

    Example: pfcalib verify 02
    """
    import dataclasses

    from pfcalib.reporting.catalogue import GIVEN_BY_THE_RUNNER, find_root, find_study
    from pfcalib.reporting.comparison import (
        compare_results,
        disagreements,
        open_results,
        render_table,
    )
    from pfcalib.reporting.runner import plan_study, run_study

    root = find_root()
    found = find_study(root, study)
    recorded, _ = open_results(results or root / "reports" / found.name)
    if recorded["study"] != found.name:
        raise ConfigError(f"{results}: these are results of {recorded['study']}")
    parameters = {
        name: value
        for name, value in recorded["provenance"]["parameters"].items()
        if name not in GIVEN_BY_THE_RUNNER
    }
    plan = plan_study(found.name, profile=recorded["profile"], overrides=parameters, root=root)
    # pages do not show it
    result = run_study(dataclasses.replace(plan, label=".verify"), say=say)
    pairs = compare_results(recorded, result.results, found.timings)
    say(render_table(pairs), end="")
    n_judged = sum(not pair.timing for pair in pairs)
    if wrong := disagreements(recorded, result.results, sigmas, found.timings):
        raise ValidationError(f"{found.name}: {len(wrong)} disagree: {'; '.join(wrong)}")
    say(f"{found.name}: {n_judged} metrics agree, within {sigmas:g} standard deviations")
