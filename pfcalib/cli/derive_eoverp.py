"""The command that derives a table of E/p from single pions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, progress_bar, require_free, say
from pfcalib.errors import ConfigError


def derive_eoverp(
    sample: Annotated[
        Path,
        typer.Argument(
            help="Sample of single charged pions without pile-up, with their clusters and cells.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="JSON file of correctionlib to be written.", show_default=False)
    ],
    split: Annotated[
        str, typer.Option(help="Events to derive from: train (70 %), validation, test or all.")
    ] = "all",
    force: Force = False,
) -> None:
    """Derive what charged pions leave in the calorimeter: mean and width of E/p and the order of
    rings of cells, in one readable file.

    Example: pfcalib derive-eoverp charged.root eoverp.json
    """
    from pfcalib.calibration.eoverp import FITTED
    from pfcalib.calibration.eoverp import derive_eoverp as derive
    from pfcalib.samples.layouts.recognise import open_reader

    if output.suffix != ".json":
        raise ConfigError(f"{output}: the name must end with .json")
    require_free(output, force)
    with open_reader(sample) as reader:
        n_entries = reader.n_entries
    with progress_bar("clusters", n_entries) as advance:
        table = derive(sample, split=split, progress=advance)
    table.save(output)
    fitted = table.source == FITTED
    say(
        f"{output}: from {table.provenance['n_pions']} pions, {fitted.sum()} of {fitted.size} bins "
        f"fitted, {output.stat().st_size / 1e6:.1f} MB"
    )
