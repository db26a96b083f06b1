"""The command that tells what is in a file of data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.box
import rich.table
import typer

from pfcalib.cli.console import (
    Binning,
    Force,
    Unit,
    console,
    listed,
    progress_bar,
    require_free,
    say,
)
from pfcalib.errors import ConfigError, ValidationError

if TYPE_CHECKING:
    from pfcalib.samples.check import SampleReport

PLOT_SUFFIXES = (".png", ".pdf", ".svg")

_PLAIN = str.maketrans("", "", "{}'")  # a dictionary as a reader writes it


def inspect(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, patterns, @lists or addresses, of any known layout.", show_default=False
        ),
    ],
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw a page of histograms of one file into this one: .png, .pdf or .svg.",
            show_default=False,
        ),
    ] = None,
    binning: Binning = None,
    unit: Unit = None,
    force: Force = False,
) -> None:
    """Tell the layout of files, what is in them, what is missing, and whether their values are
    sane; exit code 1 if they are not.

    Layouts: pfcalib, MLTree (EventTree), ClusterTree with images, showers, CaloChallenge (HDF5),
    PHYSLITE and AOD, EDM4hep; trees and RNTuples.

    Example: pfcalib inspect pions.root --plot pions.pdf
    """
    from pfcalib.samples.check import check_sample
    from pfcalib.samples.histograms import SampleHistograms
    from pfcalib.samples.locate import as_paths

    paths, problems = as_paths(files), []
    if plot is not None and plot.suffix not in PLOT_SUFFIXES:
        raise ConfigError(
            f"--plot {plot}: the name must end with one of {', '.join(PLOT_SUFFIXES)}"
        )
    if plot is not None and len(paths) > 1:
        raise ConfigError(f"--plot {plot}: is of one file, not of {len(paths)}")
    if plot is not None:
        require_free(plot, force)
    for file in paths:
        histograms = SampleHistograms()
        observe = None if plot is None else histograms.fill
        with progress_bar("entries", None) as advance:
            report = check_sample(
                file, binning=binning, unit=unit, progress=advance, observe=observe
            )
        console.print(_table(report))
        for line in _summary(report):
            say(line)
        if plot is not None:
            from pfcalib.plotting.inspection import save_page, source_name

            noun = "showers" if report.unit == "shower" else "clusters"
            title = f"{Path(file).name}: {report.n_clusters} {noun}"
            made_by = source_name(report.metadata, report.layout)
            save_page(plot, histograms, title=title, source=made_by)
            say(f"{plot}: page of histograms")
        if not report.passed:
            told = listed(report.problems, "; ")
            problems.append(f"{file}: {len(report.problems)} problems: {told}")
        else:
            say(
                "no problems: all values are sane"
                if report.missing
                else "all branches are there, all values are sane"
            )
    if problems:
        raise ValidationError("; ".join(problems))


def _table(report: SampleReport) -> rich.table.Table:
    """One line a column: unit, range of the finite values, share of clusters with a bad one."""
    from pfcalib.columns import COLUMNS

    table = rich.table.Table(
        title=str(report.path), box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("branch", overflow="fold")
    for heading in ("unit", "lowest", "mean", "highest", "bad"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    for name, found in report.ranges.items():
        bad = f"{found.n_bad_clusters / report.n_clusters:.2%}" if found.n_bad_clusters else "0"
        unit = COLUMNS[name].unit.replace("$^", "").replace("$", "") if name in COLUMNS else ""
        table.add_row(
            name, unit, *(f"{value:.4g}" for value in (found.low, found.mean, found.high)), bad
        )
    return table


def _summary(report: SampleReport) -> list[str]:
    """What is said below the table."""
    noun = "shower" if report.unit == "shower" else "cluster"
    counts = f"{report.n_events} events, {report.n_clusters} {noun}s" + (
        f" in {report.n_entries} entries" if report.unit == "event" else ""
    )
    counts += "" if report.n_em is None else f", {report.n_em} of them of pi0, photons or electrons"
    counts += (
        f"; {report.n_cells} cells, of {report.n_geo} in CellGeo" if report.n_geo else "; no cells"
    )
    lines = [f"layout: {report.layout}", counts]
    for name, what in (("truthE", "true energy"), ("clusterE", "cluster energy")):
        if name in report.ranges:
            lines.append(
                f"{what}: {report.ranges[name].low:.4g} to {report.ranges[name].high:.4g} GeV"
            )
    made = [f"made by: {report.metadata.get('generator', 'unknown, the file does not say')}"]
    made += [
        f"{name} {report.metadata[name]}" for name in ("version", "seed") if name in report.metadata
    ]
    made += (
        [f"converted from {report.metadata['converted_from']}"]
        if "converted_from" in report.metadata
        else []
    )
    lines.append(", ".join(made))
    # by readers, of what a layout cannot give
    said = ("binning", "container", "energy_scale", "samplings_without_column")
    lines += [
        f"{name.replace('_', ' ')}: {str(report.metadata[name]).translate(_PLAIN)}"
        for name in said
        if name in report.metadata
    ]
    lines.append(
        f"branches: {len(report.found)} of {len(report.found) + len(report.missing)} of the layout"
    )
    lines += [f"missing: {listed(report.missing)}"] if report.missing else []
    return lines + [f"note: {note}" for note in report.notes if "is missing" not in note]
