"""The command that writes a small file of a layout, to try what one would do with own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import rich.table
import typer

from pfcalib.cli.console import console
from pfcalib.errors import ConfigError


def example(
    layout: Annotated[
        str | None, typer.Argument(help="Layout; without it they are listed.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to be written; by default mine_LAYOUT.root (.h5 for calochallenge).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a small file of a layout with the clusters of a few pions, or list the layouts."""
    from pfcalib.simulation.examples import EXAMPLES, write_example

    if layout is None:
        table = rich.table.Table("layout", "what is in the file")
        for name, content in EXAMPLES.items():
            table.add_row(name, content)
        console.print(table)
        return
    out = out or Path(f"mine_{layout}.{'h5' if layout == 'calochallenge' else 'root'}")
    if out.exists() and not force:
        raise ConfigError(f"{out}: is there already; --force replaces it")
    console.print(f"{write_example(layout, out)}: {EXAMPLES[layout]}", soft_wrap=True, markup=False)
