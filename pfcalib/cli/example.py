"""The command that writes a small file of a layout, to try what one would do with own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import rich.table
import typer

from pfcalib.cli.console import Force, console, require_free, say


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
    force: Force = False,
) -> None:
    """Write a small file of a layout with the clusters of a few pions, or list the layouts.

    Example: pfcalib example mltree
    """
    from pfcalib.simulation.examples import EXAMPLES, write_example

    if layout is None:
        table = rich.table.Table("layout", "what is in the file")
        for name, content in EXAMPLES.items():
            table.add_row(name, content)
        console.print(table)
        return
    out = out or Path(f"mine_{layout}.{'h5' if layout == 'calochallenge' else 'root'}")
    require_free(out, force)
    say(f"{write_example(layout, out)}: {EXAMPLES[layout]}")
