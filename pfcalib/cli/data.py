"""The commands about files of data: what is in one, any of the known layouts turned into pfcalib's
own, and calibrations made of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.box
import rich.table
import typer

from pfcalib.cli.console import console, progress_bar
from pfcalib.errors import ConfigError, ValidationError

if TYPE_CHECKING:
    from pfcalib.samples.check import SampleReport

PLOT_SUFFIXES = (".png", ".pdf", ".svg")
MAX_NAMES = 12  # of missing branches and of faults that are shown


Binning = Annotated[
    Path | None,
    typer.Option(
        help="Binning XML of CaloChallenge files; by default the one beside each file.",
        show_default=False,
    ),
]


def inspect(
    file: Annotated[
        str, typer.Argument(help="File or address, of any known layout.", show_default=False)
    ],
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw a page of histograms into this file: .png, .pdf or .svg.", show_default=False
        ),
    ] = None,
    binning: Binning = None,
) -> None:
    """Tell the layout of a file, what is in it, what is missing, and whether its values are sane;
    exit code 1 if they are not.

    Layouts: pfcalib, MLTree (EventTree), ClusterTree with images, showers, CaloChallenge (HDF5),
    PHYSLITE and AOD.
    """
    from pfcalib.samples.check import check_sample
    from pfcalib.samples.histograms import SampleHistograms

    if plot is not None and plot.suffix not in PLOT_SUFFIXES:
        raise ConfigError(
            f"--plot {plot}: the name must end with one of {', '.join(PLOT_SUFFIXES)}"
        )
    histograms = SampleHistograms()
    with progress_bar("entries", None) as advance:
        report = check_sample(
            file,
            binning=binning,
            progress=advance,
            observe=None if plot is None else histograms.fill,
        )
    console.print(_table(report))
    for line in _summary(report):
        console.print(line, soft_wrap=True, markup=False)
    if plot is not None:
        from pfcalib.plotting.inspection import save_page, source_name

        title = f"{Path(file).name}: {report.n_clusters} {'showers' if report.unit == 'shower' else 'clusters'}"
        save_page(plot, histograms, title=title, source=source_name(report.metadata, report.layout))
        console.print(f"{plot}: page of histograms", soft_wrap=True, markup=False)
    if not report.passed:
        raise ValidationError(
            f"{file}: {len(report.problems)} problems: {_listed(report.problems, '; ')}"
        )
    console.print(
        "no problems: all values are sane"
        if report.missing
        else "all branches are there, energies are sane"
    )


def convert(
    files: Annotated[
        list[str],
        typer.Argument(
            help="INPUT... OUTPUT.root: files, patterns, @lists or addresses; last the file to be written."
        ),
    ],
    on_error: Annotated[
        str,
        typer.Option(
            help="raise: stop at the first fault; skip: leave out what is bad, and say so."
        ),
    ] = "raise",
    binning: Binning = None,
) -> None:
    """Turn files of any known layout, with the same cells, into one file of pfcalib's own."""
    from pfcalib.samples.conversion import convert_sample

    if len(files) < 2:
        raise ConfigError("convert needs at least one input and the output, INPUT... OUTPUT.root")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"--on-error must be raise or skip, got {on_error!r}")
    with progress_bar("clusters", None) as advance:
        report = convert_sample(
            files[:-1], files[-1], on_error=on_error, binning=binning, progress=advance
        )  # type: ignore[arg-type]
    for fault in report.skipped:
        console.print(f"skipped: {fault}", soft_wrap=True, markup=False)
    console.print(
        f"{report.path}: {report.n_clusters} clusters from {', '.join(report.layouts)}",
        soft_wrap=True,
        markup=False,
    )
    if report.absent:
        console.print(
            f"not in all sources, so absent: {_listed(report.absent)}", soft_wrap=True, markup=False
        )


def derive_lcw(
    sample: Annotated[
        Path,
        typer.Argument(
            help="Sample of neutral and charged pions, with calibration truth.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="JSON file of correctionlib to be written.", show_default=False)
    ],
    split: Annotated[
        str, typer.Option(help="Events to derive from: train (70 %), validation, test or all.")
    ] = "train",
) -> None:
    """Derive local cell weighting: EM probability, cell weights, out-of-cluster and dead-material
    tables, in one readable file.
    """
    from pfcalib.calibration.lcw import N_PASSES
    from pfcalib.calibration.lcw import derive_lcw as derive
    from pfcalib.samples.layouts.recognise import open_reader

    if output.suffix != ".json":
        raise ConfigError(f"{output}: the name must end with .json")
    with open_reader(sample) as reader:
        n_entries = reader.n_entries
    with progress_bar("clusters", N_PASSES * n_entries) as advance:
        tables = derive(sample, split=split, progress=advance)
    tables.save(output)
    clusters = tables.provenance["n_clusters"]
    summary = f"{output}: from {clusters['neutral']} neutral and {clusters['charged']} charged clusters, {output.stat().st_size / 1e6:.1f} MB"
    console.print(summary, soft_wrap=True, markup=False)


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
    lines += [f"missing: {_listed(report.missing)}"] if report.missing else []
    return lines + [f"note: {note}" for note in report.notes if "is missing" not in note]


_PLAIN = str.maketrans("", "", "{}'")  # a dictionary as a reader writes it


def _listed(names: tuple[str, ...], separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = len(names) - MAX_NAMES
    return separator.join(names[:MAX_NAMES]) + (f"{separator}and {more} more" if more > 0 else "")
