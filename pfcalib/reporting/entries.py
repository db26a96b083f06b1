"""Results with their place, their study, and what has changed since they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pfcalib import provenance
from pfcalib.reporting.catalogue import PROFILES, Study, find_studies, read_profiles
from pfcalib.reporting.results import describe_verdict, read_results, tell_result

# metrics that stand for a study whose metadata names none: the first ones recorded
HEADLINE = 6
N_NAMED = 3  # modules that a stale result names
PUBLISHED_PROFILE = "standard"


class Mark(NamedTuple):
    """A part of a verdict: told by symbol and word, so that nobody has to see its colour."""

    kind: str  # held, failed, reached, missed or stale
    symbol: str
    text: str


class Entry(NamedTuple):
    """One results.json with its place, and why it is stale, empty where it is not."""

    results: dict[str, Any]
    folder: Path
    study: Study
    stale: str
    changed: tuple[str, ...] = ()  # modules that are not what they were, for which it is stale

    @property
    def headline(self) -> list[tuple[str, dict[str, Any]]]:
        """The few metrics that stand for the study."""
        metrics = self.results["metrics"]
        chosen = [name for name in self.study.headlines if name in metrics]
        return [(name, metrics[name]) for name in chosen or list(metrics)[:HEADLINE]]

    @property
    def verdict(self) -> str:
        """What became of checks and goals, in words."""
        return describe_verdict(self.results)

    @property
    def published(self) -> bool:
        """True for committed results, false for those of a run in this clone."""
        return self.folder.name == self.study.name

    @property
    def label(self) -> str:
        """Profile and, of a run with other parameters, what differs from it."""
        return str(self.results["profile"] if self.published else self.folder.name)

    @property
    def sentence(self) -> str:
        """The result in a sentence; empty if the study has none to tell or the notebook broke."""
        if self.results["status"] == "failed" and not self.results["metrics"]:
            return ""
        return tell_result(self.study.result, self.results)

    @property
    def marks(self) -> list[Mark]:
        """What became of required checks and goals, each counted, and whether it is stale."""
        checks = self.results["checks"]
        required = [check["passed"] for check in checks if check["required"]]
        goals = [check["passed"] for check in checks if not check["required"]]
        reached, missed = sum(goals), len(goals) - sum(goals)
        marks = []
        if "error" in self.results and all(required):
            marks.append(Mark("failed", "✗", "the notebook broke"))
        elif required:
            kind, symbol = ("held", "✓") if all(required) else ("failed", "✗")
            text = f"{sum(required)} of {_count(len(required), 'required check')} hold"
            marks.append(Mark(kind, symbol, text))
        if reached:
            marks.append(Mark("reached", "●", f"{_count(reached, 'goal')} reached"))
        if missed:
            marks.append(Mark("missed", "○", f"{_count(missed, 'goal')} missed"))
        if self.stale:
            marks.append(Mark("stale", "↻", "stale"))
        return marks


def _count(number: int, name: str) -> str:
    """A number of things, such as ``1 goal`` or ``2 goals``."""
    return f"{number} {name}{'s' * (number != 1)}"


def open_entry(root: Path, study: Study, path: Path) -> Entry:
    """Read a results.json and hold it against the code and the profiles of the clone."""
    results = read_results(path)
    made = results["provenance"]
    now = provenance.code_digests(study.path) if "code" in made else {}
    changed = tuple(
        sorted(
            name
            for name in now | made.get("code", {})
            if now.get(name) != made["code"].get(name) and name not in provenance.PROVES
        )
    )
    stale = ""
    if not now:
        stale = "it does not say which code made it"
    elif changed:
        more = f" and {len(changed) - N_NAMED} more" * (len(changed) > N_NAMED)
        stale = f"changed since: {', '.join(changed[:N_NAMED])}{more}"
    elif results["profile"] in PROFILES and "changed" not in made:
        values = read_profiles(root, study.name)[results["profile"]]
        if values != {name: made["parameters"].get(name) for name in values}:
            stale = "the parameters of its profile have changed since"
    return Entry(results, path.parent, study, stale, changed)


def collect_entries(root: Path, *, published_only: bool = False) -> list[Entry]:
    """All results below ``reports``, by study: the published ones, then those of runs in this
    clone, by folder.
    """
    entries = []
    for name, study in find_studies(root).items():
        folder = root / "reports" / name
        published, built = folder / "results.json", sorted(folder.glob("[!.]*/results.json"))
        paths = [published] * published.is_file() + built * (not published_only)
        entries += [open_entry(root, study, path) for path in paths]
    return entries


def choose_entry(entries: list[Entry]) -> Entry | None:
    """Of all results of a study the ones that stand for it: published, else of the standard
    profile, else of a profile as it is; None if there are none.
    """

    def rank(entry: Entry) -> tuple[bool, ...]:
        as_it_is = entry.label == entry.results["profile"]
        return entry.published, entry.label == PUBLISHED_PROFILE, as_it_is

    return max(entries, key=rank, default=None)
