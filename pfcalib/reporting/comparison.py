"""Two results of a study held against each other: metrics with errors and significance, figures
side by side, and whether a re-run agrees.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfcalib.cache import write_text
from pfcalib.errors import ConfigError
from pfcalib.reporting.results import format_value, read_results, template_environment

# of what depends on the machine and its load: told, never judged
TIMINGS = ("s", "ms", "us", "ns", "1/s", "GeV/s", "MB", "GB")
RELATIVE, ABSOLUTE = 1e-3, 1e-5  # tolerances of metrics without an error


@dataclasses.dataclass(frozen=True)
class Pair:
    """One metric in two results; None where one of them lacks it."""

    name: str
    unit: str
    a: float | None
    b: float | None
    error_a: float | None
    error_b: float | None
    timing: bool

    @property
    def difference(self) -> float | None:
        """b - a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def significance(self) -> float | None:
        """The difference over the root of the sum of the squared errors; None without errors."""
        error = math.hypot(self.error_a or 0.0, self.error_b or 0.0)
        return None if self.difference is None or not error else self.difference / error

    def agrees(self, sigmas: float) -> bool:
        """Whether a re-run gives the same: within `sigmas` of the larger error, or, of a metric
        without error, within RELATIVE of its value or ABSOLUTE, whichever is larger.
        """
        if self.difference is None:
            return self.a is None and self.b is None
        error = max(self.error_a or 0.0, self.error_b or 0.0)
        tolerance = max(sigmas * error, 0.0 if error else RELATIVE * abs(self.a or 0.0), ABSOLUTE)
        return abs(self.difference) <= tolerance


def open_results(path: Path) -> tuple[dict[str, Any], Path]:
    """Results, and their folder, of a folder or of a results.json.

    Raises
    ------
    pfcalib.errors.ValidationError
        If they are not readable.
    """
    file = path / "results.json" if path.is_dir() else path
    return read_results(file), file.parent


def compare_results(
    a: Mapping[str, Any], b: Mapping[str, Any], timings: tuple[str, ...] = ()
) -> list[Pair]:
    """Each metric of either result, in the order of `a`.

    Parameters
    ----------
    a, b : mapping
        Results as :func:`pfcalib.reporting.results.read_results` gives them.
    timings : tuple of str
        Metrics, or patterns such as ``speed_*``, that are timings though their unit is none of
        TIMINGS, such as a ratio of two.

    Raises
    ------
    pfcalib.errors.ConfigError
        If a metric has two units.
    """
    pairs = []
    for name in [*a["metrics"], *(name for name in b["metrics"] if name not in a["metrics"])]:
        one, two = a["metrics"].get(name, {}), b["metrics"].get(name, {})
        units = {each["unit"] for each in (one, two) if each}
        if len(units) > 1:
            raise ConfigError(f"{name} is in {' and in '.join(sorted(units))}")
        unit = units.pop()
        pairs.append(
            Pair(
                name, unit, one.get("value"), two.get("value"), one.get("error"), two.get("error"),
                unit in TIMINGS or any(fnmatch.fnmatch(name, pattern) for pattern in timings),
            )
        )  # fmt: skip
    return pairs


def disagreements(
    a: Mapping[str, Any], b: Mapping[str, Any], sigmas: float, timings: tuple[str, ...] = ()
) -> list[str]:
    """What keeps `b` from being the same as `a`: metrics other than timings, required checks, and
    the verdict; a line each.
    """
    found = []
    if a["status"] != b["status"]:
        found.append(f"was {a['status']}, is {b['status']}: {b.get('error', '')}".rstrip(": "))
    for pair in compare_results(a, b, timings):
        if not pair.timing and not pair.agrees(sigmas):
            was, now = (
                format_value(value, error)
                for value, error in ((pair.a, pair.error_a), (pair.b, pair.error_b))
            )
            found.append(f"{pair.name}: was {was}, is {now} {pair.unit}".rstrip())
    return found


def render_table(pairs: list[Pair]) -> str:
    """A Markdown table: metric, both values with errors, difference, significance."""
    lines = ["| metric | A | B | B - A | sigma |", "| --- | --- | --- | --- | --- |"]
    for pair in pairs:
        sigma = "timing" if pair.timing else "–"
        if pair.significance is not None and not pair.timing:
            sigma = f"{pair.significance:+.1f}"
        unit = f" {pair.unit}" if pair.unit else ""
        values = [format_value(pair.a, pair.error_a), format_value(pair.b, pair.error_b)]
        cells = [f"`{pair.name}`", *(value + unit for value in values)]
        lines.append(f"| {' | '.join([*cells, format_value(pair.difference), sigma])} |")
    return "\n".join(lines) + "\n"


def write_comparison(page: Path, a: Path, b: Path, timings: tuple[str, ...] = ()) -> None:
    """Write one HTML page: the table of metrics, and the figures of both side by side.

    Raises
    ------
    pfcalib.errors.ValidationError
        If results are not readable.
    """
    both = [open_results(path) for path in (a, b)]
    figures: dict[str, dict[str, Any]] = {}
    for side, (results, folder) in zip("ab", both, strict=True):
        for figure in results["figures"]:
            entry = figures.setdefault(figure["name"], {"caption": figure["caption"]})
            if (file := folder / figure["file"]).is_file():
                entry[side] = base64.b64encode(file.read_bytes()).decode()
    text = (
        template_environment()
        .get_template("comparison.html.j2")
        .render(
            a=both[0][0],
            b=both[1][0],
            pairs=compare_results(both[0][0], both[1][0], timings),
            figures=figures,
        )
    )
    write_text(page, text)
