"""The record of a study: metrics, checks, tables, figures and their provenance, as results.json,
results.csv and summary.md.

A notebook opens one :class:`Report` by :func:`open_report`, fills it, and ends with
:meth:`Report.finish`, which writes everything before it raises.
"""

from __future__ import annotations

import base64
import csv
import functools
import importlib.resources
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import fastjsonschema
import jinja2
import markupsafe
import numpy as np

from pfcalib import provenance
from pfcalib.cache import file_sha256, write_text
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.catalogue import find_root, read_study

MAX_FIGURE_BYTES = 300_000
FIGURE_DPI = (180, 150, 120, 90, 60, 45)  # the first that keeps the file below MAX_FIGURE_BYTES

# of results.csv: what the number is, of which model, species, energy (GeV) and sample, the number
ROW = ("quantity", "model", "species", "energy", "sample", "value", "error", "unit", "definition")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Report:
    """What one study found.

    Parameters
    ----------
    study : str
        Name of the notebook without its ending, ``NN_name``.
    out_dir : path
        Folder for results.json, results.csv, summary.md and figures/; it is made.
    parameters : mapping of str to JSON value
        All parameters of the run; must hold ``profile``.
    seed : int
        Seed of the whole job.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> report = Report("01_example", folder, {"profile": "smoke"}, seed=1)
    >>> report.metric("auc_dnn", 0.97, 0.01, "", "area under the ROC curve of the DNN, test split")
    >>> report.check("auc_dnn beats the likelihood", 0.97, "> 0.9", passed=True)
    >>> report.finish().results["status"]
    'passed'
    """

    def __init__(
        self, study: str, out_dir: str | Path, parameters: Mapping[str, Any], seed: int
    ) -> None:
        if "profile" not in parameters:
            raise ConfigError(f"{study}: the parameters of a report must hold 'profile'")
        self.parameters, self.seed = dict(parameters), seed
        self._rows: list[dict[str, Any]] = []
        self.out_dir = Path(out_dir)
        self.out_dir.mkdir(parents=True, exist_ok=True)
        self.results = empty_results(study, parameters, seed)
        self._start = time.perf_counter()

    def metric(
        self,
        name: str,
        value: float | None,
        error: float | None,
        unit: str,
        definition: str,
        **keys: Any,
    ) -> None:
        """Record a number with one standard deviation and what it means; None where there is no
        such number. ``keys`` are those of its row of results.csv: quantity (else the name), model,
        species, energy.

        A value or error that is not finite is stored as null together with a failed check, so that
        the other results survive.
        """
        self._require_new(name, self.results["metrics"])
        found: dict[str, Any] = {"value": value, "error": error}
        for part, number in found.items():
            if number is not None and not math.isfinite(number):
                self.check(f"{part} of {name} is finite", str(number), "finite", False)
                number = None
            found[part] = None if number is None else float(number)
        self.results["metrics"][name] = {**found, "unit": unit, "definition": definition}
        self.row(keys.pop("quantity", name), **self.results["metrics"][name], **keys)

    def row(
        self,
        quantity: str,
        *,
        value: float | None,
        error: float | None = None,
        unit: str = "",
        definition: str = "",
        **keys: Any,
    ) -> None:
        """Record a number of results.csv; ``keys`` say which it is: model, species, energy (GeV),
        sample, and whatever else tells it from others, which becomes a column of its own.
        """
        row = {"quantity": quantity, "value": value, "error": error, "unit": unit}
        self._rows.append({**row, "definition": definition, **keys})

    def rows(self, quantity: str, table: Iterable[Mapping[str, Any]], **common: Any) -> None:
        """Record many numbers of one quantity: each entry holds what :meth:`row` takes, ``common``
        what they share.
        """
        for entry in table:
            self.row(quantity, **{**common, **entry})

    def check(
        self, name: str, value: Any, limit: float | str, passed: bool, *, required: bool = True
    ) -> None:
        """Record a verdict; with ``required=False`` it is a goal, whose miss is told but does not
        fail the study.
        """
        if any(name == check["name"] for check in self.results["checks"]):
            raise ConfigError(f"check {name!r} is recorded twice")
        self.results["checks"].append(
            {
                "name": name,
                "value": _plain(value),
                "limit": _plain(limit),
                "passed": bool(passed),
                "required": required,
            },
        )

    def table(
        self, name: str, columns: Iterable[str], rows: Iterable[Iterable[Any]], *, caption: str = ""
    ) -> None:
        """Record a short table of numbers and texts, shown in summary.md."""
        self._require_new(name, [table["name"] for table in self.results["tables"]])
        columns, cells = list(columns), [[_plain(cell) for cell in row] for row in rows]
        if any(len(row) != len(columns) for row in cells):
            raise ConfigError(
                f"table {name!r}: every row must have {len(columns)} entries, one a column"
            )
        self.results["tables"].append(
            {"name": name, "caption": caption, "columns": columns, "rows": cells}
        )

    def figure(self, drawing: Any, name: str, *, caption: str = "") -> None:
        """Save a figure, or the figure of given axes, as ``figures/<name>.png`` of at most
        MAX_FIGURE_BYTES and as ``figures/<name>.pdf``, whose axes become pictures where lines would
        take more.
        """
        self._require_new(name, [figure["name"] for figure in self.results["figures"]])
        if isinstance(drawing, np.ndarray | list | tuple):  # the axes of one figure
            drawing = np.asarray(drawing, dtype=object).flat[0]
        figure = drawing if hasattr(drawing, "savefig") else drawing.figure
        path = self.out_dir / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        for dpi in FIGURE_DPI:
            figure.savefig(
                path, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None}
            )
            if path.stat().st_size < MAX_FIGURE_BYTES:
                break
        _save_pdf(figure, path.with_suffix(".pdf"), dpi)
        self.results["figures"].append(
            {"name": name, "file": f"figures/{name}.png", "caption": caption}
        )

    def add_input(self, path: str | Path) -> None:
        """Record the SHA-256 of a file that the results depend on, by its name without folder."""
        self.results["provenance"]["inputs"][Path(path).name] = file_sha256(Path(path))

    def finish(self) -> Report:
        """Write results.json and summary.md, and only then raise if a required check failed.

        Returns
        -------
        Report
            Itself; a notebook shows it as the summary.

        Raises
        ------
        pfcalib.errors.ValidationError
            With the failed checks; or if a result does not fit the schema.
        """
        self.results["provenance"]["seconds"] = round(time.perf_counter() - self._start, 3)
        failed = [
            check for check in self.results["checks"] if check["required"] and not check["passed"]
        ]
        self.results["status"] = "failed" if failed else "passed"
        write_results(self.results, self.out_dir)
        write_text(self.out_dir / "results.csv", _as_csv(self._rows))
        if failed:
            listed = "; ".join(
                f"{check['name']} = {format_value(check['value'])} (limit {check['limit']})"
                for check in failed
            )
            raise ValidationError(
                f"{self.results['study']}: {len(failed)} of {len(self.results['checks'])} checks "
                f"failed: {listed}"
            )
        return self

    def _repr_markdown_(self) -> str:
        return render_summary(self.results, self.out_dir)

    @staticmethod
    def _require_new(name: str, taken: Iterable[str]) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} must be snake_case: small letters, digits and underscores")
        if name in taken:
            raise ConfigError(f"{name!r} is recorded twice")


def open_report(study: str, namespace: Mapping[str, Any]) -> Report:
    """The report of a notebook: which parameters there are stands in its cell tagged
    ``parameters``, their values in ``namespace``, which is the notebook's ``globals()``.

    Raises
    ------
    pfcalib.errors.ConfigError
        If the clone has no such notebook, or a parameter is not defined.
    """
    notebook = find_root() / "notebooks" / f"{study}.ipynb"
    names = [parameter.name for parameter in read_study(notebook).parameters]
    if missing := [name for name in names if name not in namespace]:
        raise ConfigError(f"{study}: run the cell of parameters first; {missing[0]!r} is unknown")
    values = {name: namespace[name] for name in names}
    report = Report(study, values["out_dir"], values, values["seed"])
    report.results["provenance"]["code"] = provenance.code_digests(notebook)
    return report


def empty_results(study: str, parameters: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Results with their provenance and nothing in them."""
    state = provenance.commit()
    kept = {name: value for name, value in parameters.items() if name != "out_dir"}
    return {
        **{"study": study, "profile": parameters["profile"], "status": "failed"},
        **{"metrics": {}, "checks": [], "tables": [], "figures": []},
        "provenance": {
            **{
                "commit": state.commit,
                "dirty": state.dirty,
                "parameters": json.loads(json.dumps(kept)),
                "seed": seed,
            },
            **{
                "versions": provenance.versions(),
                "seconds": 0.0,
                "machine": provenance.machine(),
                "inputs": {},
            },
        },
    }


@functools.cache
def results_schema() -> dict[str, Any]:
    """The JSON schema of results.json."""
    schema: dict[str, Any] = json.loads(
        importlib.resources.files("pfcalib.reporting")
        .joinpath("results.schema.json")
        .read_text("utf-8")
    )
    return schema


@functools.cache
def _validator() -> Callable[[Any], Any]:
    return fastjsonschema.compile(results_schema())


def require_results(results: Mapping[str, Any], where: str) -> None:
    """Refuse results that do not fit the schema, or whose status contradicts their checks.

    Raises
    ------
    pfcalib.errors.ValidationError
        Naming ``where`` and the offending entry.
    """
    try:
        _validator()(results)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValidationError(f"{where}: {error.message}") from None
    if results["status"] == "passed" and not all(
        check["passed"] for check in results["checks"] if check["required"]
    ):
        raise ValidationError(f"{where}: status is 'passed', yet a required check failed")


def describe_verdict(results: Mapping[str, Any]) -> str:
    """What became of the required checks and of the goals, in words.

    >>> check = {"passed": True, "required": True}
    >>> goals = [{"passed": passed, "required": False} for passed in (True, False)]
    >>> describe_verdict({"status": "passed", "checks": [check, *goals]})
    'required checks hold; goals reached: 1 of 2'
    """
    if results["status"] == "failed":
        failed = any(check["required"] and not check["passed"] for check in results["checks"])
        return "required checks failed" if failed else "the notebook broke"
    goals = [check["passed"] for check in results["checks"] if not check["required"]]
    return "required checks hold" + (
        f"; goals reached: {sum(goals)} of {len(goals)}" if goals else ""
    )


def tell_result(sentence: str, results: Mapping[str, Any]) -> str:
    """The result of a study in a sentence: each ``{metric}`` becomes its value, error and unit, a
    dash where there is none.

    >>> metric = {"value": 0.97123, "error": 0.0123, "unit": "", "definition": "area"}
    >>> tell_result("An area of {auc}, not {other}.", {"metrics": {"auc": metric}})
    'An area of 0.971 ± 0.012, not –.'
    """

    def tell(match: re.Match[str]) -> str:
        found = results["metrics"].get(match[1], {"value": None, "error": None, "unit": ""})
        return f"{format_value(found['value'], found['error'])} {found['unit']}".strip()

    return re.sub(r"\{(\w+)\}", tell, sentence)


def write_results(results: Mapping[str, Any], out_dir: Path) -> None:
    """Write results.json, validated, and the summary.md rendered from it; each complete or not at
    all.
    """
    require_results(results, str(out_dir / "results.json"))
    write_text(
        out_dir / "results.json",
        json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
    )
    write_text(out_dir / "summary.md", render_summary(results))


def read_results(path: Path) -> dict[str, Any]:
    """Read and validate a results.json.

    Raises
    ------
    pfcalib.errors.ValidationError
        If it is no JSON or does not fit the schema.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationError(f"{path}: not readable as JSON ({error})") from error
    require_results(results, str(path))
    return results


def render_summary(results: Mapping[str, Any], folder: Path | None = None) -> str:
    """Results as a page of Markdown; its figures lie beside it, or in ``folder``, from which they
    are taken into the page, so that it shows them wherever it is displayed.
    """
    images = {
        figure["name"]: figure["file"]
        if folder is None
        else "data:image/png;base64,"
        + base64.b64encode((folder / figure["file"]).read_bytes()).decode()
        for figure in results["figures"]
    }
    template = template_environment().get_template("summary.md.j2")
    return template.render(results=results, images=images, verdict=describe_verdict(results))


def format_value(value: Any, error: float | None = None) -> str:
    """A number as a reader wants it: to two digits of its error, or to four significant digits.

    >>> format_value(0.97123, 0.0123), format_value(1234.5678), format_value(None)
    ('0.971 ± 0.012', '1235', '–')
    >>> format_value([0.5, 2])
    '[0.5, 2]'
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | list | dict):  # the last two are parameters
        return str(value)
    if not error:
        return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def show_units(text: str) -> str:
    """Units as they are printed, and numbers that no line breaks off their errors.

    >>> show_units("880 ± 76 us, 12 mm^2").replace("\\xa0", "~")
    '880~±~76 µs, 12 mm²'
    """
    text = re.sub(r"(?<=\d )us\b", "µs", text).replace("^2", "²")
    return text.replace(" ± ", "\xa0±\xa0").strip()


def show_measured(text: str) -> markupsafe.Markup:
    """A sentence as HTML, its numbers with errors in bold."""
    escaped = str(markupsafe.escape(show_units(text)))
    number = r"\d+(?:\.\d+)?"
    return markupsafe.Markup(re.sub(rf"-?{number}\xa0±\xa0{number}", r"<b>\g<0></b>", escaped))


@functools.cache
def template_environment() -> jinja2.Environment:
    """The templates of the package; HTML is escaped, an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pfcalib.reporting"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format_value
    environment.filters["units"] = show_units
    environment.filters["measured"] = show_measured
    environment.filters["cell"] = lambda value: (
        format_value(value).replace("|", "\\|").replace("\n", " ")
    )
    return environment


def _save_pdf(figure: Any, path: Path, dpi: int) -> None:
    """A figure as PDF, the same bytes each time; its content as pictures if it is too large."""
    options = {"format": "pdf", "dpi": dpi, "bbox_inches": "tight"}
    options["metadata"] = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    figure.savefig(path, **options)
    if path.stat().st_size < MAX_FIGURE_BYTES:
        return
    drawn = [artist for axes in figure.axes for artist in (*axes.collections, *axes.lines)]
    before = [artist.get_rasterized() for artist in drawn]
    for artist in drawn:
        artist.set_rasterized(True)
    figure.savefig(path, **options)
    for artist, rasterized in zip(drawn, before, strict=True):
        artist.set_rasterized(rasterized)


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as text; None and what is not finite become empty cells."""
    rows = [{key: _plain(entry) for key, entry in row.items()} for row in rows]
    columns = dict.fromkeys([*ROW, *(key for row in rows for key in row)])
    writer = csv.DictWriter(text := io.StringIO(), columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if entry in ("nan", "inf", "-inf") else entry for key, entry in row.items()}
        for row in rows
    )
    return text.getvalue()


def _plain(value: Any) -> Any:
    """A numpy or Python scalar as JSON; a number that is not finite becomes its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
