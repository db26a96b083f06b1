"""The command that lists the studies."""

from __future__ import annotations

import rich.table

from pfcalib.cli.console import console


def list_studies() -> None:
    """List the studies with their parameters in the smoke and standard profiles.

    Example: pfcalib list
    """
    from pfcalib.reporting.catalogue import PROFILES, find_root, find_studies, read_profiles

    root = find_root()
    for study in find_studies(root).values():
        table = rich.table.Table(
            "parameter", *PROFILES, title=f"{study.name}: {study.title}", title_justify="left"
        )
        values = read_profiles(root, study.name)
        for name in (parameter.name for parameter in study.parameters):
            if name not in ("profile", "out_dir"):
                table.add_row(
                    name,
                    *(str(values.get(profile, {}).get(name, "missing")) for profile in PROFILES),
                )
        console.print(table)
