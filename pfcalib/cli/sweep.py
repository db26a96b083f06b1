"""The command that runs one study with each combination of some values of its parameters."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Cores, DryRun, Place, say
from pfcalib.errors import ValidationError


def sweep(
    grid: Annotated[
        Path,
        typer.Argument(
            help="YAML file: study, profile, and parameters: {name: [values]}.", show_default=False
        ),
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="Metric to show, may be repeated; by default the headlines of the study.",
            show_default=False,
        ),
    ] = None,
    on: Place = "local",
    cores: Cores = None,
    dry_run: DryRun = False,
) -> None:
    """Run a study once a point of a grid, and write one table (CSV with all metrics and errors,
    Markdown) and a figure of parallel coordinates to reports/sweeps/GRID.

    Each point is a run of its own in reports/STUDY/PROFILE-NAME=VALUE; a second call runs what is
    missing or failed.

    Example: pfcalib sweep seeds.yaml --cores 2
    """
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.grid import collect_points, sweep_metrics, write_tables
    from pfcalib.reporting.workflow import run_workflow, snakemake_command

    root, grid = find_root(), grid.resolve()
    config = {"sweep": grid}
    if dry_run:
        command = snakemake_command(config, on=on, cores=cores, dry_run=True)
        raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)
    outcomes = run_workflow(config, on=on, cores=cores, root=root, say=say)

    from pfcalib.plotting.parallel import plot_parallel_coordinates

    points = collect_points(grid, root)
    chosen = sweep_metrics(points, metrics or ())
    folder = root / "reports" / "sweeps" / grid.stem
    write_tables(points, chosen, folder)
    passed = [point for point in points if point.metrics]
    columns = {name: [point.values[name] for point in passed] for name in points[0].values}
    columns |= {
        name: [point.metrics.get(name, {}).get("value") for point in passed] for name in chosen
    }
    figure = plot_parallel_coordinates(columns).get_figure(root=True)
    assert figure is not None
    for ending in ("png", "pdf"):
        figure.savefig(folder / f"parallel.{ending}", dpi=150, bbox_inches="tight")
    say((folder / "table.md").read_text(encoding="utf-8"), end="")
    say(f"Sweep: {folder}")
    if failed := [each.job.plan.label for each in outcomes if not each.passed]:
        raise ValidationError(
            f"{len(failed)} of {len(outcomes)} points failed: {', '.join(failed)}"
        )
