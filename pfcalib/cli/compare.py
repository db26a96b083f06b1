"""The command that holds two results against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfcalib.cli.console import say

Results = Annotated[
    Path, typer.Argument(help="Folder of results, or results.json.", show_default=False)
]


def compare(
    a: Results,
    b: Results,
    page: Annotated[
        Path, typer.Option(help="HTML page with the table and the figures side by side.")
    ] = Path("comparison.html"),
) -> None:
    """Compare the metrics of two results: values with errors, differences in the unit of the
    metric, significance in standard deviations; and write a page with their figures side by side.

    Example: pfcalib compare reports/02_clusters reports/02_clusters/smoke
    """
    from pfcalib.reporting.catalogue import find_root, find_studies
    from pfcalib.reporting.comparison import (
        compare_results,
        open_results,
        render_table,
        write_comparison,
    )

    (one, _), (two, _) = open_results(a), open_results(b)
    study = find_studies(find_root()).get(one["study"])
    timings = study.timings if study else ()
    say(render_table(compare_results(one, two, timings)), end="")
    write_comparison(page, a, b, timings)
    say(f"Page: {page}")
