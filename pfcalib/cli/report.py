"""The command that runs every study, or the core ones, and builds the page of all results."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Profile, say
from pfcalib.errors import ValidationError


def report(
    profile: Profile = "smoke",
    core: Annotated[bool, typer.Option("--core", help="Only the core studies.")] = False,
) -> None:
    """Run every study in order, build reports/index.html and tell where it lies; exit code 1 if any
    study failed.

    Example: pfcalib report --profile standard
    """
    from pfcalib.reporting.catalogue import find_root, find_studies, order_studies
    from pfcalib.reporting.results import describe_verdict
    from pfcalib.reporting.runner import plan_study, run_study
    from pfcalib.reporting.site import build_index

    root = find_root()
    studies = find_studies(root)
    names = [name for name in order_studies(studies) if studies[name].core or not core]
    plans = [plan_study(name, profile=profile, root=root) for name in names]
    failed = []
    for number, plan in enumerate(plans, start=1):
        say(f"[{number}/{len(plans)}] {plan.study.name} ({profile})")
        result = run_study(plan, say=say)
        say(
            f"[{number}/{len(plans)}] {plan.study.name}: "
            f"{describe_verdict(result.results)}{': ' * bool(result.error)}{result.error} "
            f"({result.seconds:.0f} s)"
        )
        failed += [] if result.passed else [plan.study.name]
    say(f"Report: {build_index(root)}")
    if failed:
        raise ValidationError(f"{len(failed)} of {len(plans)} studies failed: {', '.join(failed)}")
