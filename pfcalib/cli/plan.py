"""The command that tells what studies will cost before they run."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Profile, Studies, say


def plan(
    studies: Studies = None,
    profile: Profile = "standard",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value for each study; may be repeated."),
    ] = None,
    pilot: Annotated[
        bool,
        typer.Option(
            "--pilot",
            help="First run each study in its smoke profile, with an empty cache and two "
            "numbers of events.",
        ),
    ] = False,
) -> None:
    """Tell events, core hours (of processor time) and GB of cache (1e9 bytes) of each study, and
    what they are measured on: results of this machine, as far as there are any, and pilots.

    Example: pfcalib plan 01 02 --profile standard
    """
    from pfcalib.reporting.catalogue import (
        find_root,
        find_studies,
        parse_override,
        select_studies,
    )
    from pfcalib.reporting.costs import collect_records, estimate_cost, run_pilot
    from pfcalib.reporting.runner import plan_study

    root = find_root()
    found = find_studies(root)
    costs = []
    for name in select_studies(found, studies or [], root):
        if pilot:
            run_pilot(found[name], root, say)
        overrides = dict(parse_override(found[name], text) for text in parameters or [])
        wanted = plan_study(name, profile=profile, overrides=overrides, root=root)
        costs.append(estimate_cost(wanted, collect_records(found[name], root)))
    say(f"{'study':24s} {'events':>10s} {'core hours':>11s} {'cache GB':>9s}  measured on")
    for cost in costs:
        hours, gb = _number(cost.core_hours), _number(cost.cache_gb)
        say(f"{cost.plan.study.name:24s} {cost.n_events:10d} {hours:>11s} {gb:>9s}  {cost.basis}")
    total = sum(cost.core_hours or 0.0 for cost in costs)
    space = sum(cost.cache_gb or 0.0 for cost in costs)
    events = sum(cost.n_events for cost in costs)
    say(f"{'all':24s} {events:10d} {total:11.3g} {space:9.3g}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
