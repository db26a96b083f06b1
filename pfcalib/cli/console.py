"""What the verbs share: one console for results, progress bars on standard error, and options that
mean the same everywhere.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import rich.console
import rich.progress
import typer

MAX_NAMES = 12  # of missing branches and of faults that are shown

Seed = Annotated[
    int, typer.Option(help="Seed of the whole job; the same seed gives the same result.")
]
Profile = Annotated[
    str, typer.Option(help="Parameter set of notebooks/profiles: smoke, standard or full.")
]
Binning = Annotated[
    Path | None,
    typer.Option(
        help="Binning XML of CaloChallenge files; by default the one beside each file.",
        show_default=False,
    ),
]

console = rich.console.Console(highlight=False)


@contextlib.contextmanager
def progress_bar(unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar, where standard error is a terminal; what it yields takes the number of new
    items.
    """
    columns = (
        rich.progress.TextColumn(unit),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    errors = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns, console=errors, transient=True, disable=not errors.is_terminal
    ) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda n_new: bar.advance(task, n_new)


def say(text: str) -> None:
    """Progress text as it comes, also into a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = len(names) - MAX_NAMES
    return separator.join(names[:MAX_NAMES]) + (f"{separator}and {more} more" if more > 0 else "")
