"""What can be run: the studies found as notebooks, their parameters, and the named parameter sets;
anything else is refused.

A study is ``notebooks/NN_name.ipynb``. Its parameters are the literals of the cell tagged
``parameters``; ``notebooks/profiles.yaml`` gives each of them a value for each profile, except
``profile`` and ``out_dir``, which the runner sets.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from pfcalib.errors import ConfigError

PROFILES = ("smoke", "standard", "full")
GIVEN_BY_THE_RUNNER = ("profile", "out_dir")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One literal of a notebook's parameters cell."""

    name: str
    default: Any
    annotation: str = ""  # as written, "" when there is none

    @property
    def optional(self) -> bool:
        """True if null is allowed."""
        return self.default is None or "None" in self.annotation


@dataclasses.dataclass(frozen=True)
class Study:
    """A notebook that can be run, with its parameters in the order in which they are written."""

    name: str
    path: Path
    title: str
    parameters: tuple[Parameter, ...]


def find_root(start: Path | None = None) -> Path:
    """Nearest folder upwards of ``start`` (default: the current one) that holds
    ``notebooks/profiles.yaml``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks" / "profiles.yaml").is_file():
            return folder
    raise ConfigError(
        f"{start}: neither here nor above is a notebooks/profiles.yaml; call pfcalib inside a "
        "clone of the repository"
    )


def find_studies(root: Path) -> dict[str, Study]:
    """All studies below ``root``, by name, in reading order."""
    return {
        path.stem: read_study(path)
        for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    }


def read_study(path: Path) -> Study:
    """Name, title and parameters of one notebook.

    Raises
    ------
    ConfigError
        If it is no notebook, or has not exactly one cell tagged ``parameters``.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise ConfigError(f"{path}: not a readable notebook ({error})") from error
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(
            f"{path}: {len(tagged)} cells are tagged 'parameters', exactly one must be"
        )
    first = notebook.cells[0].source.strip().partition("\n")[0]
    return Study(
        path.stem, path, first.lstrip("# ").strip(), read_parameters(tagged[0].source, path.name)
    )


def read_parameters(source: str, where: str = "parameters cell") -> tuple[Parameter, ...]:
    """Parameters of a cell's source: plain or annotated assignments of JSON literals.

    >>> read_parameters("n_events: int | None = None  # all")
    (Parameter(name='n_events', default=None, annotation='int | None'),)

    Raises
    ------
    ConfigError
        If a line is anything else.
    """
    found = []
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = ""
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                annotation = ast.unparse(node.annotation)
            case _:
                raise ConfigError(
                    f"{where}, line {node.lineno}: `{ast.unparse(node)}` is not `name = literal`"
                )
        try:
            found.append(Parameter(name, ast.literal_eval(value), annotation))
        except ValueError as error:
            raise ConfigError(
                f"{where}, line {node.lineno}: the value of {name!r} is not a literal"
            ) from error
    return tuple(found)


def read_profiles(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The parameter sets of ``notebooks/profiles.yaml``: {study: {profile: {parameter: value}}}."""
    path = root / "notebooks" / "profiles.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    return {study: sets for study, sets in content.items() if not study.startswith(".")}


def resolve_parameters(
    study: Study, profile: str, values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The complete parameters of a run: the profile's values, then the overrides.

    Parameters
    ----------
    study : Study
        Whose parameters they are.
    profile : str
        One of PROFILES; becomes the parameter ``profile``.
    values, overrides : mapping of str to JSON value
        The profile's set and what the user changes; together they name each parameter but
        GIVEN_BY_THE_RUNNER.

    Raises
    ------
    ConfigError
        If a parameter is unknown, missing, given by the runner, of another type than its default,
        or not JSON.
    """
    if profile not in PROFILES:
        raise ConfigError(f"profile {profile!r} is unknown; choose one of {', '.join(PROFILES)}")
    known = {parameter.name: parameter for parameter in study.parameters}
    merged = {**values, **overrides}
    for name in GIVEN_BY_THE_RUNNER:
        if name in merged:
            raise ConfigError(f"{study.name}: {name!r} is set by the runner and cannot be given")
        if name not in known:
            raise ConfigError(f"{study.path}: the parameters cell lacks {name!r}")
    wanted = [name for name in known if name not in GIVEN_BY_THE_RUNNER]
    if unknown := sorted(set(merged) - set(known)):
        raise ConfigError(
            f"{study.name}: unknown parameter {unknown[0]!r}; it has {', '.join(wanted)}"
        )
    if missing := [name for name in wanted if name not in merged]:
        raise ConfigError(
            f"{study.name}, profile {profile!r}: parameter {missing[0]!r} has no value in "
            "notebooks/profiles.yaml"
        )
    for name, value in merged.items():
        _require_type(study, known[name], value)
    return {
        name: profile if name == "profile" else merged[name] for name in known if name != "out_dir"
    }


def parse_override(study: Study, text: str) -> tuple[str, Any]:
    """Read one ``name=value`` of the command line; the value is JSON, or text for a text parameter.

    Raises
    ------
    ConfigError
        If there is no ``=``, or the value is not JSON where it must be.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"-p {text}: expected name=value")
    default = next(
        (parameter.default for parameter in study.parameters if parameter.name == name), None
    )
    if isinstance(default, str):
        return name, value
    try:
        return name, json.loads(value)
    except json.JSONDecodeError as error:
        if default is None:
            return name, value
        raise ConfigError(
            f"-p {text}: {value!r} is not a JSON value (the default is {json.dumps(default)})"
        ) from error


def _require_type(study: Study, parameter: Parameter, value: Any) -> None:
    """Refuse a value that is not JSON, or not of the type of the parameter's default."""
    if not _is_json(value):
        raise ConfigError(
            f"{study.name}: parameter {parameter.name!r} = {value!r} is not a JSON value (finite "
            "numbers, text, lists, mappings)"
        )
    if value is None and parameter.optional:
        return
    default = parameter.default
    if default is not None and not _same_kind(value, default):
        raise ConfigError(
            f"{study.name}: parameter {parameter.name!r} = {value!r} must be of the type of its "
            f"default {default!r}"
        )


def _is_json(value: Any) -> bool:
    match value:
        case None | bool() | int() | str():
            return True
        case float():
            return math.isfinite(value)
        case list():
            return all(map(_is_json, value))
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return False


def _same_kind(value: Any, default: Any) -> bool:
    """True if the types agree; an int passes for a float, and a list must hold what the default's
    first entry is.
    """
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple | list):
        return isinstance(value, list) and all(
            _same_kind(item, default[0]) for item in value if default
        )
    return isinstance(value, type(default))
