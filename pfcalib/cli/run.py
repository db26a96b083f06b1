"""The command that runs one study."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Profile, Steps, Study, say
from pfcalib.errors import ValidationError


def run(
    study: Study,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value, a JSON value; may be repeated."),
    ] = None,
    profile: Profile = "smoke",
    name: Annotated[
        str | None,
        typer.Option(
            help="Folder of the results; by default PROFILE, with the parameters that -p changes.",
            show_default=False,
        ),
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Do nothing if the results are up to date.")
    ] = False,
    site: Annotated[
        bool, typer.Option("--site/--no-site", help="Build reports/index.html anew at the end.")
    ] = True,
) -> None:
    """Run one study and write reports/STUDY/PROFILE, or with other parameters a folder of its
    own.

    Example: pfcalib run 02 -p n_events=300
    """
    from pfcalib.reporting.catalogue import find_root, find_study, parse_override
    from pfcalib.reporting.results import describe_verdict
    from pfcalib.reporting.runner import plan_study, run_study
    from pfcalib.reporting.site import build_index

    root = find_root()
    found = find_study(root, study)
    overrides = dict(parse_override(found, text) for text in parameters or [])
    plan = plan_study(found.name, profile=profile, overrides=overrides, folder=name, root=root)
    result = run_study(plan, missing=missing, say=Steps())
    if site:
        build_index(root)
    say(
        f"{found.name}: {describe_verdict(result.results)} ({result.seconds:.0f} s), see "
        f"{result.folder / 'report.html'}"
    )
    if not result.passed:
        raise ValidationError(f"{found.name}: {result.error or 'a required check failed'}")
