"""What can be run: the studies found as notebooks, their parameters, and the named parameter sets;
anything else is refused.

A study is ``notebooks/NN_name.ipynb``. Its parameters are the literals of the cell tagged
``parameters``; ``notebooks/profiles/NN_name.yaml`` gives each of them a value for each profile,
except ``profile`` and ``out_dir``, which the runner sets. What the pages tell of it and which
studies run before it stand in the notebook's own metadata, under ``pfcalib``.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
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
    headlines: tuple[str, ...] = ()  # metrics that stand for it in tables of studies
    after: tuple[str, ...] = ()  # studies that run before it: it uses what they leave
    core: bool = False  # the tests run it with its own defaults too
    theme: str = ""
    timings: tuple[str, ...] = ()  # patterns of pure numbers that a re-run need not give again
    result: str = ""  # its result in a sentence, with {metric} where a number goes
    figure: str = ""  # the one that stands for it
    question: str = ""  # what it asks, in Markdown


def find_root(start: Path | None = None) -> Path:
    """Nearest folder upwards of ``start`` (default: the current one) that holds
    ``notebooks/profiles``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder
    raise ConfigError(
        f"{start}: neither here nor above is a folder notebooks/profiles; call pfcalib inside a "
        "clone of the repository"
    )


def find_studies(root: Path) -> dict[str, Study]:
    """All studies below ``root``, by name, in reading order."""
    return {
        path.stem: read_study(path)
        for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    }


def find_study(root: Path, text: str) -> Study:
    """The study of a name such as ``03_classification``, or of its number, ``03`` or ``3``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    studies = find_studies(root)
    for name, study in studies.items():
        if text == name or (text.isdecimal() and text.zfill(2) == name[:2]):
            return study
    raise ConfigError(f"study {text!r} is unknown; there are {', '.join(studies) or 'none'}")


def order_studies(studies: Mapping[str, Study]) -> list[str]:
    """Their names in the order in which they run: that of reading, but each after those that its
    metadata names.

    Raises
    ------
    ConfigError
        If a study comes after one that is not there, or after itself by a circle.
    """
    done: list[str] = []
    while waiting := [name for name in studies if name not in done]:
        ready = [name for name in waiting if set(studies[name].after) <= set(done)]
        if not ready:
            after = ", ".join(studies[waiting[0]].after)
            raise ConfigError(f"{waiting[0]}: comes after {after}, which is not there or waits too")
        done.append(ready[0])
    return done


def select_studies(studies: Mapping[str, Study], names: Sequence[str], root: Path) -> list[str]:
    """Studies by name or number, ``core`` (also if nothing is named) or ``all``, in the order in
    which they run.

    Raises
    ------
    pfcalib.errors.ConfigError
        If one is unknown.
    """
    chosen: set[str] = set()
    for text in names or ["core"]:
        if text in ("core", "all"):
            chosen |= {name for name, study in studies.items() if study.core or text == "all"}
        else:
            chosen.add(find_study(root, text).name)
    return [name for name in order_studies(studies) if name in chosen]


class _Cell(pydantic.BaseModel):
    source: str | list[str]
    metadata: dict[str, Any] = {}

    @property
    def text(self) -> str:
        return "".join(self.source)


class _Notebook(pydantic.BaseModel):
    """What is read of a notebook here; nbformat takes seconds to import, in each kernel."""

    cells: list[_Cell]
    metadata: dict[str, Any] = {}


def read_study(path: Path) -> Study:
    """Name, title and parameters of one notebook.

    Raises
    ------
    ConfigError
        If it is no notebook, or has not exactly one cell tagged ``parameters``.
    """
    try:
        notebook = _Notebook.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable notebook ({error})") from error
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ConfigError(
            f"{path}: {len(tagged)} cells are tagged 'parameters', exactly one must be"
        )
    first, _, text = notebook.cells[0].text.strip().partition("\n")
    about = dict(notebook.metadata.get("pfcalib", {}))
    known = {"headlines", "after", "core", "theme", "result", "figure", "timings"}
    if unknown := about.keys() - known:
        raise ConfigError(f"{path}: metadata 'pfcalib' has an unknown entry {min(unknown)!r}")
    return Study(
        path.stem,
        path,
        first.lstrip("# ").strip(),
        read_parameters(tagged[0].text, path.name),
        tuple(about.get("headlines", ())),
        tuple(about.get("after", ())),
        about.get("core", False),
        about.get("theme", ""),
        tuple(about.get("timings", ())),
        about.get("result", ""),
        about.get("figure", ""),
        text.strip().partition("\n\n")[0],
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


def read_profiles(root: Path, study: str) -> dict[str, dict[str, Any]]:
    """The parameter sets of ``notebooks/profiles/<study>.yaml``: {profile: {parameter: value}}.

    A file may begin with ``extends: NAME``: then ``NAME.yaml`` beside it, which studies share,
    gives the values that are not its own.
    """
    path = root / "notebooks" / "profiles" / f"{study}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    shared = read_profiles(root, content.pop("extends")) if "extends" in content else {}
    return {profile: {**shared.get(profile, {}), **values} for profile, values in content.items()}


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
            f"notebooks/profiles/{study.name}.yaml"
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
    what = f"{study.name}: parameter {parameter.name!r} = {value!r}"
    try:
        is_json = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        is_json = False
    if not is_json:
        raise ConfigError(f"{what} is not a JSON value (finite numbers, text, lists, mappings)")
    if value is None and parameter.optional:
        return
    try:
        pydantic.TypeAdapter(_type_of(parameter.default)).validate_python(value, strict=True)
    except pydantic.ValidationError:
        raise ConfigError(
            f"{what} must be of the type of its default {parameter.default!r}"
        ) from None


def _type_of(default: Any) -> Any:
    """Type that a value must have: that of the default, of a list that of its first entry."""
    if isinstance(default, tuple | list):
        return list[_type_of(default[0])] if default else list  # type: ignore[misc]
    return Any if default is None else type(default)
