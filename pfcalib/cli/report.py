"""The command that runs every study and builds the page of all results."""

from __future__ import annotations

from pfcalib.cli.console import Profile, say
from pfcalib.errors import ValidationError


def report(profile: Profile = "smoke") -> None:
    """Run every study in order, build reports/index.html and tell where it lies; exit code 1 if any
    study failed.
    """
    from pfcalib.reporting.catalogue import find_root, find_studies, order_studies
    from pfcalib.reporting.results import describe_verdict
    from pfcalib.reporting.runner import plan_study, run_study
    from pfcalib.reporting.site import build_index

    root = find_root()
    names = order_studies(find_studies(root))
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
