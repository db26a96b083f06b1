"""The command that runs studies as one workflow, and builds the page of all results."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import Cores, DryRun, Place, Profile, Studies, say
from pfcalib.errors import ValidationError


def report(
    studies: Studies = None,
    profile: Profile = "smoke",
    on: Place = "local",
    cores: Cores = None,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run also studies that are up to date.")
    ] = False,
) -> None:
    """Run what is not up to date of the core studies, or of those that are named, build
    reports/index.html and tell where it lies.

    A study that fails stops only those that come after it; exit code 1 if any failed. A second
    call runs what is missing or failed, and what has changed since.

    Example: pfcalib report 01 02 --cores 2
    """
    import subprocess

    from pfcalib.reporting.catalogue import find_root, find_studies, select_studies
    from pfcalib.reporting.workflow import run_workflow, snakemake_command

    root = find_root()
    names = select_studies(find_studies(root), studies or [], root)
    config = {"studies": " ".join(names), "profile": profile}
    if dry_run:
        command = snakemake_command(config, on=on, cores=cores, dry_run=True, force=force)
        raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)
    from pfcalib.reporting.site import build_index

    outcomes = run_workflow(config, on=on, cores=cores, force=force, root=root, say=say)
    index = root / "reports" / "index.html"
    if any(each.seconds is not None for each in outcomes) or not index.exists():
        build_index(root)
    say(f"Report: {index}")
    if failed := [each.job.plan.study.name for each in outcomes if not each.passed]:
        raise ValidationError(
            f"{len(failed)} of {len(outcomes)} studies failed: {', '.join(failed)}"
        )
