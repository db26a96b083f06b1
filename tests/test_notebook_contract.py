"""Every notebook is built the same way, cell by cell; a new one is found by its name and held to
it.
"""

from __future__ import annotations

import ast
import collections
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from pfcalib.errors import ConfigError
from pfcalib.reporting.catalogue import (
    PROFILES,
    find_studies,
    order_studies,
    read_parameters,
    read_profiles,
    resolve_parameters,
)
from pfcalib.reporting.markup import require_formula
from pfcalib.reporting.results import read_results

ROOT = Path(__file__).resolve().parents[1]
STUDIES = find_studies(ROOT)
OPENING = (
    ("markdown", None),
    ("markdown", None),
    ("code", None),
    ("markdown", None),
    ("code", "parameters"),
    ("code", "setup"),
)
CLOSING = (("code", "checks"), ("code", "results"), ("markdown", None))
REQUIRED = ("seed", "n_events", "profile", "out_dir")


def problems(notebook: Any, name: str) -> list[str]:
    """Everything in which a notebook departs from the contract."""
    return [
        problem
        for rule in (_order, _parameters, _code, _stored, _prose)
        for problem in rule(notebook, name)
    ]


def _order(notebook: Any, name: str) -> Iterator[str]:
    cells = notebook.cells
    if len(cells) < len(OPENING) + len(CLOSING):
        yield f"only {len(cells)} cells"
        return
    for place, (kind, tag) in [
        *enumerate(OPENING),
        *enumerate(CLOSING, start=len(cells) - len(CLOSING)),
    ]:
        if cells[place].cell_type != kind or (
            tag and tag not in cells[place].metadata.get("tags", [])
        ):
            yield f"cell {place + 1} must be {kind}{f' tagged {tag}' if tag else ''}"
    for tag in ("parameters", "setup", "checks", "results"):
        if sum(tag in cell.metadata.get("tags", []) for cell in cells) != 1:
            yield f"exactly one cell must be tagged {tag}"
    if not re.match(rf"# {name[:2]} \S", cells[0].source):
        yield f"the first cell must begin with '# {name[:2]} Title'"
    if not re.search(r"^\|.*\|\n\|[-|: ]+\|", cells[3].source, re.MULTILINE):
        yield "cell 4 must hold the table of costs"
    if not cells[-1].source.startswith("## Limits"):
        yield "the last cell must begin with '## Limits'"
    if f'open_report("{name}", globals())' not in cells[5].source:
        yield f'the setup cell must call open_report("{name}", globals())'
    if "check(" not in cells[-3].source or "finish()" not in cells[-2].source:
        yield "the checks cell must record checks, the results cell must call finish()"


def _parameters(notebook: Any, name: str) -> Iterator[str]:
    (source,) = [
        cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ] or [""]
    try:
        found = {parameter.name: parameter.default for parameter in read_parameters(source)}
    except (ConfigError, SyntaxError) as error:
        yield f"parameters: {error}"
        return
    lines = source.splitlines()
    for node in ast.parse(source).body:  # its comment stands behind it or in one of its lines
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if not re.search(r"  # \S.{2,}", text):
            yield f"parameters: not `name = literal  # meaning, unit`: {text}"
    yield from (f"parameter {missing} is missing" for missing in REQUIRED if missing not in found)
    if found.get("out_dir") != f"../reports/{name}/lab":
        yield f"out_dir must be '../reports/{name}/lab', which git ignores"


def _code(notebook: Any, name: str) -> Iterator[str]:
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            yield f"cell {place}: not plain Python (a magic, or an error of syntax)"
            continue
        yield from (
            f"cell {place}: {problem}" for problem in _statements(tree, is_import_cell=place == 3)
        )


def _statements(tree: ast.Module, *, is_import_cell: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            yield f"line {node.lineno}: sys.path"
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.match(r"[/~]\w*/|[A-Za-z]:\\", node.value)
        ):
            yield f"line {node.lineno}: an absolute path"
        if is_import and not is_import_cell:
            yield f"line {node.lineno}: an import outside the one import cell"
    if is_import_cell and not all(
        isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body
    ):
        yield "the import cell must hold imports only"


def _stored(notebook: Any, name: str) -> Iterator[str]:
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.get("outputs") or cell.get("execution_count"):
            yield f"cell {place}: stored output; run nbstripout --keep-id"
    if len({cell.get("id") for cell in notebook.cells}) != len(notebook.cells):
        yield "every cell must have its own id"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel must be python3"


def _prose(notebook: Any, name: str) -> Iterator[str]:
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)
            for display, inline in re.findall(
                r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$", text, re.DOTALL
            ):
                try:
                    require_formula(display or inline, display=bool(display))
                except ConfigError as error:
                    yield f"cell {place}: {error}"


@pytest.mark.parametrize("name", STUDIES)
def test_the_notebook_keeps_the_contract(name):
    assert not problems(nbformat.read(STUDIES[name].path, as_version=4), name)


@pytest.mark.parametrize("name", STUDIES)
def test_the_metadata_tell_theme_result_and_figure_and_the_report_has_what_they_name(name):
    study = STUDIES[name]
    assert study.theme
    assert study.result.endswith(".")
    assert study.figure
    published = ROOT / "reports" / name / "results.json"
    if published.is_file():
        results = read_results(published)
        named = {*study.headlines, *re.findall(r"{(\w+)}", study.result)}
        assert named <= set(results["metrics"])
        assert study.figure in [figure["name"] for figure in results["figures"]]


@pytest.mark.parametrize("name", STUDIES)
def test_the_sentence_of_a_result_has_no_number_but_those_that_its_metrics_are_defined_by(name):
    published = ROOT / "reports" / name / "results.json"
    if not published.is_file():
        pytest.skip("no results are published yet")
    sentence, metrics = STUDIES[name].result, read_results(published)["metrics"]
    named = re.findall(r"{(\w+)}", sentence)
    defined = " ".join([*named, *(metrics[metric]["definition"] for metric in named)])
    typed = re.findall(r"(?<![\w.])\d+(?:\.\d+)?", re.sub(r"{\w+}", "", sentence))
    assert named
    assert [number for number in typed if not re.search(rf"(?<!\d){number}", defined)] == []


def test_the_studies_have_an_order_in_which_the_tuning_comes_first_and_looking_inside_last():
    order = order_studies(STUDIES)
    assert sorted(order) == sorted(STUDIES)
    assert order.index("11_hyperparameters") < order.index("08_regression")
    assert order.index("08_regression") < order.index("37_inside_networks")


@pytest.mark.parametrize("name", STUDIES)
def test_every_profile_gives_every_parameter(name):
    sets = read_profiles(ROOT, name)
    assert list(sets) == list(PROFILES)
    for profile, values in sets.items():
        resolve_parameters(STUDIES[name], profile, values, {})


def test_a_set_that_is_no_study_is_shared_by_several():
    paths = list((ROOT / "notebooks" / "profiles").iterdir())
    users = collections.Counter(yaml.safe_load(path.read_text()).get("extends") for path in paths)
    assert [p.name for p in paths if p.stem not in STUDIES and users[p.stem] < 2] == []


def test_studies_that_share_networks_have_the_same_values():
    shared = read_profiles(ROOT, "classifiers")
    for profile in PROFILES:
        for name in ("03_classification", "04_onnx"):
            values = read_profiles(ROOT, name)[profile]
            assert {key: values[key] for key in shared[profile]} == shared[profile]


def test_the_folder_of_notebooks_holds_nothing_else():
    stray = {path.name for path in (ROOT / "notebooks").glob("[!.]*") if path.stem not in STUDIES}
    assert stray - {"__pycache__"} == {"profiles", "studies"}


# The contract itself: a notebook that keeps it, and one change at a time that breaks it.


@pytest.fixture
def good() -> Any:
    new = nbformat.v4
    parameters = "\n".join(
        [
            "seed = 1  # seed of the whole job",
            "n_events: int | None = 10  # events",
            'profile = "lab"  # name of the parameter set',
            'out_dir = "../reports/01_tiny/lab"  # folder of the results',
        ]
    )
    cells = [
        new.new_markdown_cell("# 01 Tiny\n\nA question?"),
        new.new_markdown_cell("Energy $E$ in GeV; see [paper](https://example.org)."),
        new.new_code_cell("from pfcalib.reporting.results import open_report"),
        new.new_markdown_cell(
            "| profile | events | epochs | minutes |\n|---|---|---|---|\n| smoke | 10 | 1 | 1 |"
        ),
        new.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new.new_code_cell(
            'report = open_report("01_tiny", globals())',
            metadata={"tags": ["setup"]},
        ),
        new.new_markdown_cell("## What to expect"),
        new.new_code_cell(
            'def half(n):\n    return n / 2\n\nreport.metric("n", half(n_events), None, "", "")'
        ),
        new.new_code_cell(
            'report.check("some events", n_events, "> 0", n_events > 0)',
            metadata={"tags": ["checks"]},
        ),
        new.new_code_cell("report.finish()", metadata={"tags": ["results"]}),
        new.new_markdown_cell("## Limits\n\nTiny."),
    ]
    return new.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )


def test_a_notebook_that_keeps_the_contract_has_no_problems(good):
    assert problems(good, "01_tiny") == []


def _set(place: int, source: str) -> Callable[[Any], None]:
    return lambda notebook: notebook.cells[place].update(source=source)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set(0, "# Tiny"), "must begin with '# 01 Title'"),
        (_set(1, "A formula $a_b_c$"), "formula not understood"),
        (_set(2, "import numpy as np\nx = 1"), "imports only"),
        (_set(3, "No table"), "table of costs"),
        (_set(4, "seed = 1  # seed of the job"), "parameter n_events is missing"),
        (_set(4, "seed = 1"), "not `name = literal"),
        (_set(5, "import os"), "outside the one import cell"),
        (_set(7, "def f():\n    import os"), "outside the one import cell"),
        (_set(7, "%matplotlib inline"), "not plain Python"),
        (_set(7, "sys.path.append('x')"), "sys.path"),
        (_set(7, "read('/data/x.root')"), "an absolute path"),
        (_set(8, "x = 1"), "must record checks"),
        (_set(10, "The end"), "'## Limits'"),
        (lambda notebook: notebook.cells[7].update(execution_count=3), "stored output"),
        (lambda notebook: notebook.cells[8].metadata.update(tags=[]), "tagged checks"),
        (lambda notebook: notebook.cells.pop(3), "cell 4 must be markdown"),
        (lambda notebook: notebook.metadata.kernelspec.update(name="my-env"), "must be python3"),
    ],
)
def test_a_departure_from_the_contract_is_found(good, damage, message):
    notebook = copy.deepcopy(good)
    damage(notebook)
    assert any(message in problem for problem in problems(notebook, "01_tiny")), problems(
        notebook, "01_tiny"
    )
