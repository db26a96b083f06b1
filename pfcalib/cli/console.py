"""What the verbs share: one console for results, progress bars on standard error, and options that
mean the same everywhere.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import rich.console
import rich.progress
import typer

from pfcalib.errors import ConfigError

LOG_SECONDS = 10.0  # between two lines of progress in a log
MAX_NAMES = 12  # of missing branches and of faults that are shown


def study_names(incomplete: str) -> list[str]:
    """Names of the studies of this clone that begin so, for the completion of a shell."""
    from pfcalib.reporting.catalogue import find_root

    with contextlib.suppress(ConfigError):
        paths = (find_root() / "notebooks").glob(f"{incomplete}*.ipynb")
        return sorted(path.stem for path in paths)
    return []


Seed = Annotated[
    int, typer.Option(help="Seed of the whole job; the same seed gives the same result.")
]
Reference = Annotated[
    Path,
    typer.Argument(
        help="ROOT file of Geant4 pions on the window (ShowerTree), other ones than studies judge "
        "with, which those in the package are.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]
PionSample = Annotated[
    Path,
    typer.Argument(
        help="Sample of neutral and charged pions, with calibration truth.", show_default=False
    ),
]
RootOutput = Annotated[Path, typer.Argument(help="ROOT file to be written.", show_default=False)]
Profile = Annotated[
    str,
    typer.Option(
        help="Parameter set of notebooks/profiles: smoke, standard or full.",
        autocompletion=lambda: ["smoke", "standard", "full"],
    ),
]
Study = Annotated[
    str,
    typer.Argument(
        help="Study or its number, such as 01_showers or 01; see `pfcalib list`.",
        show_default=False,
        autocompletion=study_names,
    ),
]
Studies = Annotated[
    list[str] | None,
    typer.Argument(
        help="Studies or their numbers, such as 07 08; `core`, or `all`.",
        show_default="core",
        autocompletion=study_names,
    ),
]
Place = Annotated[
    str,
    typer.Option(
        help="Where studies run: local, slurm, htcondor, kubernetes or panda; a batch system is "
        "set up in pfcalib/data/profiles.",
        autocompletion=lambda: ["local", "slurm", "htcondor", "kubernetes", "panda"],
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        help="Cores that all studies together may use; on a batch system, jobs at a time. By "
        "default all cores, or what the profile of the batch system says.",
        min=1,
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only tell what would run.")]
Binning = Annotated[
    Path | None,
    typer.Option(
        help="Binning XML of CaloChallenge files; by default the one beside each file.",
        show_default=False,
    ),
]
Unit = Annotated[
    Literal["GeV", "MeV"] | None,
    typer.Option(
        help="Of the energies, where the layout leaves it open; MeV are converted.",
        case_sensitive=False,
        show_default=False,
    ),
]

console = rich.console.Console(highlight=False, emoji=False)


def say(text: str, end: str = "\n") -> None:
    """A line of results or of progress as it is, never broken, at once also into a pipe."""
    console.print(text, end=end, soft_wrap=True, markup=False)


class Steps:
    """Says the lines of a long job: with the time of day where they go into a log, and behind one
    that counts, such as ``epoch  3/20 ...``, the time that the rest takes.
    """

    def __init__(self) -> None:
        self.begun, self.first, self.opens = time.monotonic(), 0, True

    def __call__(self, text: str, end: str = "\n") -> None:
        clock = f"{_clock()}  " if self.opens and not console.is_terminal else ""
        self.opens = end.endswith("\n")
        say(f"{clock}{text}{self._left(text)}", end=end)

    def _left(self, text: str) -> str:
        counts = re.match(r"epoch +(\d+)/(\d+) ", text)
        if not counts:
            return ""
        step, total = int(counts[1]), int(counts[2])
        self.first = self.first or step
        done = step - self.first + 1
        return f"  {_duration((time.monotonic() - self.begun) / done * (total - step))} left"


def require_free(path: Path, force: bool) -> None:
    """Refuse to replace a file, or to write into a folder that is not empty, unless asked to."""
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not force:
        raise ConfigError(f"{path} exists: give another name, or --force to replace it")


@contextlib.contextmanager
def progress_bar(unit: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Progress on standard error, a bar in a terminal and lines in a log; what it yields takes the
    number of new items.
    """
    columns = (
        rich.progress.TextColumn(unit),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    errors = rich.console.Console(stderr=True)
    if not errors.is_terminal:
        yield _log_lines(unit, total)
        return
    with rich.progress.Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda n_new: bar.advance(task, n_new)


def _log_lines(unit: str, total: int | None) -> Callable[[int], None]:
    """Counts items, and writes how many there are at most once in LOG_SECONDS."""
    start = last = time.monotonic()
    done = 0

    def advance(n_new: int) -> None:
        nonlocal last, done
        now, done = time.monotonic(), done + n_new
        if now - last >= LOG_SECONDS:
            last = now
            of_total = f" of {total}" if total else ""
            left = f", {_duration((now - start) / done * (total - done))} left" if total else ""
            line = f"{_clock()}  {done}{of_total} {unit} in {_duration(now - start)}{left}"
            print(line, file=sys.stderr, flush=True)

    return advance


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _duration(seconds: float) -> str:
    """A time as a reader takes it in.

    >>> _duration(59.4), _duration(3601.0), _duration(36000.0)
    ('59 s', '1 h 00 min', '10 h 00 min')
    """
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60.0), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = len(names) - MAX_NAMES
    return separator.join(names[:MAX_NAMES]) + (f"{separator}and {more} more" if more > 0 else "")
