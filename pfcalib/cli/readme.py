"""The command that brings the table of studies in README.md up to date."""

from __future__ import annotations

from pfcalib.cli.console import say


def readme() -> None:
    """Bring the table of studies in README.md up to date with the published results.

    Example: pfcalib readme
    """
    from pfcalib.reporting.catalogue import find_root
    from pfcalib.reporting.site import write_readme

    say("README.md: changed" if write_readme(find_root()) else "README.md: was up to date")
