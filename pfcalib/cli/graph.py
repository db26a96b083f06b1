"""The command that shows which study comes after which."""

from __future__ import annotations

from typing import Annotated

import typer

from pfcalib.cli.console import say, study_names


def graph(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Studies or their numbers; `core`, or `all`.",
            show_default="all",
            autocompletion=study_names,
        ),
    ] = None,
    dot: Annotated[
        bool, typer.Option("--dot", help="In the language of Graphviz, for `dot -Tsvg`.")
    ] = False,
) -> None:
    """Show the graph of studies: each with its theme, and the studies that it comes after.

    Example: pfcalib graph --dot
    """
    from pfcalib.reporting.catalogue import find_root, find_studies, select_studies

    root = find_root()
    found = find_studies(root)
    names = select_studies(found, studies or ["all"], root)
    if dot:
        say("digraph studies {\n  rankdir=LR; node [shape=box];")
        for name in names:
            say(f'  "{name}" [label="{found[name].title}\\n{found[name].theme}"];')
            for other in found[name].after:
                say(f'  "{other}" -> "{name}";')
        say("}")
        return
    for name in names:
        after = f"  after {', '.join(found[name].after)}" if found[name].after else ""
        say(f"{name:24s} {found[name].theme:16s}{after}".rstrip())
