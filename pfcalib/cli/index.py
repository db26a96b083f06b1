"""The command that builds the page of all results."""

from __future__ import annotations

from pfcalib.cli.console import say


def index() -> None:
    """Build reports/index.html from the results that are there.

    Example: pfcalib index
    """
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.site import build_index

    say(f"Report: {build_index(find_root())}")
