"""The command that derives local cell weighting from a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import Force, PionSample, progress_bar, require_free, say
from pfcalib.errors import ConfigError


def derive_lcw(
    sample: PionSample,
    output: Annotated[
        Path, typer.Argument(help="JSON file of correctionlib to be written.", show_default=False)
    ],
    split: Annotated[
        str, typer.Option(help="Events to derive from: train (70 %), validation, test or all.")
    ] = "train",
    force: Force = False,
) -> None:
    """Derive local cell weighting: EM probability, cell weights, out-of-cluster and dead-material
    tables, in one readable file.

    Example: pfcalib derive-lcw pions.root lcw.json
    """
    from pfcalib.calibration.lcw import N_PASSES
    from pfcalib.calibration.lcw import derive_lcw as derive
    from pfcalib.samples.layouts.recognise import open_reader

    if output.suffix != ".json":
        raise ConfigError(f"{output}: the name must end with .json")
    require_free(output, force)
    with open_reader(sample) as reader:
        n_entries = reader.n_entries
    with progress_bar("clusters", N_PASSES * n_entries) as advance:
        tables = derive(sample, split=split, progress=advance)
    tables.save(output)
    clusters = tables.provenance["n_clusters"]
    say(
        f"{output}: from {clusters['neutral']} neutral and {clusters['charged']} charged clusters, "
        f"{output.stat().st_size / 1e6:.1f} MB"
    )
