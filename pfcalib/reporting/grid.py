"""A sweep: one study with each combination of some values of its parameters, and what came out of
it as one table.

A grid is a YAML file::

    study: 02_clusters
    profile: smoke
    parameters:
      seed: [1, 2, 3]
      n_events: [300, 600]
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import yaml

from pfcalib.cache import write_text
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.results import format_value, read_results
from pfcalib.reporting.runner import Plan, plan_study


class Grid(pydantic.BaseModel, extra="forbid", frozen=True):
    """What a file says."""

    study: str
    profile: str = "smoke"
    parameters: dict[str, list[Any]] = pydantic.Field(min_length=1)


class Point(NamedTuple):
    """One combination: its parameters, and the metrics of its results."""

    plan: Plan
    values: dict[str, Any]
    metrics: dict[str, dict[str, Any]]  # empty if it did not pass


def read_grid(path: Path) -> Grid:
    """A grid as it stands in a YAML file.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the file is not readable, or has other entries.
    """
    try:
        return Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}; expected study, profile, parameters: "
            "{name: [values]}"
        ) from None


def plan_sweep(path: Path, root: Path) -> list[Plan]:
    """The runs of a grid, each with a folder of its own unless its values are those of the profile.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the grid, or one of its points, is wrong.
    """
    return [plan for plan, _ in _points(path, root)]


def _points(path: Path, root: Path) -> list[tuple[Plan, dict[str, Any]]]:
    grid = read_grid(path)
    found: list[tuple[Plan, dict[str, Any]]] = []
    for combination in itertools.product(*grid.parameters.values()):
        values = dict(zip(grid.parameters, combination, strict=True))
        plan = plan_study(grid.study, profile=grid.profile, overrides=values, root=root)
        if any(plan.folder == other.folder for other, _ in found):
            raise ConfigError(f"{path}: {plan.label} comes twice")
        found.append((plan, values))
    return found


def collect_points(path: Path, root: Path) -> list[Point]:
    """The points of a grid with what their runs found."""
    points = []
    for plan, values in _points(path, root):
        metrics = {}
        if plan.marker.exists():
            metrics = read_results(plan.folder / "results.json")["metrics"]
        points.append(Point(plan, values, metrics))
    return points


def sweep_metrics(points: Sequence[Point], names: Sequence[str] = ()) -> list[str]:
    """Metrics to compare: the named ones, else the study's headlines, else all.

    Raises
    ------
    pfcalib.errors.ConfigError
        If a named one is in no results.
    pfcalib.errors.ValidationError
        If no point has results.
    """
    known = list(dict.fromkeys(name for point in points for name in point.metrics))
    if not known:
        raise ValidationError("no point of the sweep passed")
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"metric {unknown[0]!r} is unknown; there are {', '.join(known)}")
    headlines = points[0].plan.study.headlines
    return list(names) or [name for name in headlines if name in known] or known


def write_tables(points: Sequence[Point], metrics: Sequence[str], folder: Path) -> None:
    """Write ``table.csv``, with all metrics and their errors, and ``table.md``, with some."""
    parameters = list(points[0].values)
    known = list(dict.fromkeys(name for point in points for name in point.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*parameters, *(part for name in known for part in (name, f"{name}_error"))])
    for point in points:
        found = [point.metrics.get(name, {}) for name in known]
        pairs = [each.get(part) for each in found for part in ("value", "error")]
        writer.writerow([*point.values.values(), *pairs])
    write_text(folder / "table.csv", text.getvalue())
    rows = [[*parameters, *metrics], ["---"] * (len(parameters) + len(metrics))]
    for point in points:
        found = [point.metrics.get(name, {}) for name in metrics]
        cells = [format_value(each.get("value"), each.get("error")) for each in found]
        rows.append([*(str(value) for value in point.values.values()), *cells])
    write_text(folder / "table.md", "".join(f"| {' | '.join(row)} |\n" for row in rows))
