"""What the command prints to: one console for results, and progress bars on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

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
