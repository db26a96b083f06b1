"""The command that turns files of any known layout into one of pfcalib's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Binning, Force, Unit, listed, progress_bar, require_free, say
from pfcalib.errors import ConfigError


def convert(
    files: Annotated[
        list[str],
        typer.Argument(
            help="INPUT... OUTPUT.root: files, patterns, @lists or addresses; last the file to be "
            "written."
        ),
    ],
    on_error: Annotated[
        str,
        typer.Option(
            help="raise: stop at the first fault; skip: leave out what is bad, and say so."
        ),
    ] = "raise",
    binning: Binning = None,
    unit: Unit = None,
    force: Force = False,
) -> None:
    """Turn files of any known layout, with the same cells, into one file of pfcalib's own.

    Example: pfcalib convert mine_*.root own.root --on-error skip
    """
    from pfcalib.samples.conversion import convert_sample

    if len(files) < 2:
        raise ConfigError("convert needs at least one input and the output, INPUT... OUTPUT.root")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"--on-error must be raise or skip, got {on_error!r}")
    require_free(Path(files[-1]), force)
    with progress_bar("clusters", None) as advance:
        report = convert_sample(
            files[:-1],
            files[-1],
            on_error=on_error,  # type: ignore[arg-type]
            binning=binning,
            unit=unit,
            progress=advance,
        )
    for fault in report.skipped:
        say(f"skipped: {fault}")
    say(f"{report.path}: {report.n_clusters} clusters from {', '.join(report.layouts)}")
    if report.absent:
        say(f"not in all sources, so absent: {listed(report.absent)}")
