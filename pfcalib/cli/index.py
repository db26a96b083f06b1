"""The command that builds the site of all results."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import say


def index(
    api: Annotated[
        bool,
        typer.Option("--api", help="Build the pages of the API too, from docstrings; a minute."),
    ] = False,
) -> None:
    """Build the site, reports/index.html, from the results that are there, with archives for
    HEPData if the extra hepdata is installed.

    Example: pfcalib index --api
    """
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.site import build_index

    root = find_root()
    if api:
        from pfcalib.reporting.apipages import build_api

        build_api(root / "reports" / "api")
    say(f"Report: {build_index(root, complete=True)}")
