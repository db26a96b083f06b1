"""The command that runs one study."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Profile, console, say
from pfcalib.errors import ConfigError, ValidationError


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
    result = run_study(plan_study(study, profile=profile, overrides=overrides, root=root), say=say)
    build_index(root)
    verdict = "passed" if result.passed else "failed"
    console.print(
        f"{study}: {verdict} in {result.seconds:.0f} s, see {result.folder / 'report.html'}",
        soft_wrap=True,
    )
    if not result.passed:
        raise ValidationError(f"{study}: {result.error or 'a check failed'}")
