"""Results are recorded completely, refused when they are not what the schema says, and shown
without a network.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from pfcalib import provenance
from pfcalib.cache import file_sha256
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.catalogue import find_studies
from pfcalib.reporting.results import (
    MAX_FIGURE_BYTES,
    Report,
    empty_results,
    format_value,
    open_report,
    read_results,
    results_schema,
    write_results,
)
from pfcalib.reporting.site import (
    MARKERS,
    build_index,
    collect_entries,
    formula,
    open_entry,
    render_notebook,
    render_readme,
    require_formula,
    write_readme,
)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report("01_tiny", tmp_path, {"profile": "smoke", "seed": 1, "out_dir": str(tmp_path)}, 1)


def written(report: Report) -> dict:
    return json.loads((report.out_dir / "results.json").read_text())


def test_the_schema_is_a_schema():
    fastjsonschema.compile(results_schema())


def test_everything_recorded_is_written(report):
    report.metric("auc_dnn", np.float32(0.5), 0.01, "", "area")
    report.check("auc", np.float64(0.5), "> 0.4", np.bool_(True))
    report.table("counts", ["layer", "cells"], [["EMB1", np.int64(3)]], caption="Cells")
    report.figure(Figure().subplots(), "roc", caption="ROC curve")
    report.add_input(Path(__file__))
    assert report.finish() is report
    results = written(report)
    assert results["status"] == "passed"
    assert results["metrics"]["auc_dnn"] == {
        "value": 0.5,
        "error": 0.01,
        "unit": "",
        "definition": "area",
    }
    assert results["checks"] == [
        {"name": "auc", "value": 0.5, "limit": "> 0.4", "passed": True, "required": True}
    ]
    assert results["tables"][0]["rows"] == [["EMB1", 3]]
    assert (report.out_dir / results["figures"][0]["file"]).is_file()
    assert results["provenance"]["inputs"] == {"test_results.py": file_sha256(Path(__file__))}
    assert "out_dir" not in results["provenance"]["parameters"]


def test_a_failed_check_raises_only_after_everything_is_written(report):
    report.check("energy is conserved", 0.1, "< 1e-6", False)
    with pytest.raises(
        ValidationError, match=r"1 of 1 checks failed: energy is conserved = 0.1 \(limit < 1e-6\)"
    ):
        report.finish()
    assert written(report)["status"] == "failed"
    assert "**failed**" in (report.out_dir / "summary.md").read_text()


def test_a_missed_goal_is_told_but_does_not_fail(report):
    report.check("fidelity", 0.7, "< 0.65", False, required=False)
    report.finish()
    assert written(report)["status"] == "passed"
    assert "goal missed" in (report.out_dir / "summary.md").read_text()


def test_every_number_is_a_row_of_the_csv_and_no_name_has_to_be_parsed(report):
    report.metric("auc_cnn", 0.5, 0.01, "", "area")
    table = [{"species": "pic", "energy": e, "value": np.float32(e / 8)} for e in (1, 10)]
    report.rows("iqr", table, model="cnn", unit="GeV", mu=40)
    report.row("iqr", model="lcw", energy=1, value=float("nan"), error=None)
    report.finish()
    with (report.out_dir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["quantity"] for row in rows] == ["auc_cnn", "iqr", "iqr", "iqr"]
    (found,) = (row for row in rows if row["model"] == "cnn" and row["energy"] == "10")
    assert (found["value"], found["unit"], found["mu"]) == ("1.25", "GeV", "40")
    assert rows[0]["error"] == "0.01"
    assert rows[3]["value"] == rows[3]["mu"] == ""


def test_an_opened_report_takes_the_parameters_that_the_notebook_has(tmp_path, monkeypatch):
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# 01 Tiny"),
        new.new_code_cell(
            "seed = 1\nprofile = 'lab'\nout_dir = 'lab'\nn = 3",
            metadata={"tags": ["parameters"]},
        ),
    ]
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "notebooks" / "01_tiny.ipynb")
    monkeypatch.chdir(tmp_path / "notebooks")
    names = {"seed": 2, "profile": "lab", "out_dir": "lab", "n": 4, "later": 5}
    report = open_report("01_tiny", names)
    assert (report.seed, report.out_dir) == (2, Path("lab"))
    kept = {"seed": 2, "profile": "lab", "n": 4}
    assert report.finish().results["provenance"]["parameters"] == kept
    with pytest.raises(ConfigError, match="run the cell of parameters first; 'n' is unknown"):
        open_report("01_tiny", {"seed": 1, "profile": "lab", "out_dir": "lab"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_a_metric_that_is_not_finite_becomes_null_and_fails_the_study(report, value):
    report.metric("resolution", value, None, "", "width")
    with pytest.raises(ValidationError, match="value of resolution is finite"):
        report.finish()
    assert written(report)["metrics"]["resolution"]["value"] is None


def test_a_metric_may_say_that_there_is_no_such_number(report):
    report.metric("crossing_size", None, None, "clusters", "size from which on a network is ahead")
    assert report.finish().results["metrics"]["crossing_size"]["value"] is None


def test_names_are_snake_case_and_used_once(report):
    with pytest.raises(ConfigError, match="snake_case"):
        report.metric("AUC", 1.0, None, "", "area")
    report.metric("auc", 1.0, None, "", "area")
    with pytest.raises(ConfigError, match="twice"):
        report.metric("auc", 1.0, None, "", "area")
    report.check("auc", 1.0, "> 0", True)
    with pytest.raises(ConfigError, match="twice"):
        report.check("auc", 1.0, "> 0", True)


def test_a_busy_figure_is_made_small(report, rng):
    figure = Figure(figsize=(8, 6))
    figure.subplots().imshow(rng.random((300, 400)), interpolation="nearest")
    report.figure(figure, "noise")
    assert (report.out_dir / "figures" / "noise.png").stat().st_size < MAX_FIGURE_BYTES


def test_a_ragged_table_is_refused(report):
    with pytest.raises(ConfigError, match="must have 2 entries"):
        report.table("t", ["a", "b"], [[1]])


@pytest.mark.parametrize(
    "damage",
    [{"status": "good"}, {"metrics": {"a": {"value": 1}}}, {"extra": 1}, {"study": "no number"}],
)
def test_results_that_do_not_fit_the_schema_are_not_written(tmp_path, damage):
    results = {**empty_results("01_tiny", {"profile": "smoke"}, 1), **damage}
    with pytest.raises(ValidationError, match=r"results\.json: data"):
        write_results(results, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_passed_status_with_a_failed_check_is_a_lie(tmp_path):
    results = empty_results("01_tiny", {"profile": "smoke"}, 1)
    results |= {
        "status": "passed",
        "checks": [{"name": "a", "value": 1, "limit": 2, "passed": False, "required": True}],
    }
    with pytest.raises(ValidationError, match="a required check failed"):
        write_results(results, tmp_path)


def test_broken_json_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValidationError, match="not readable as JSON"):
        read_results(tmp_path / "results.json")


def test_values_are_shown_to_two_digits_of_their_error():
    assert format_value(0.9712345, 0.00234) == "0.9712 ± 0.0023"
    assert format_value(123456.0, 789.0) == "123456 ± 789"
    assert format_value(True) == "yes"


def test_provenance_names_commit_versions_and_machine(root, tmp_path):
    state = provenance.commit()
    assert len(state.commit) == 40 or state.commit == "unknown"
    assert provenance.commit(tmp_path) == ("unknown", False)
    assert {"python", "numpy", "pfcalib"} <= set(provenance.versions())
    assert provenance.machine()["cores"] >= 1


# Pages


def test_formulas_become_mathml_and_odd_ones_stay_readable():
    assert "<mfrac>" in require_formula(r"\frac{E_\mathrm{pred}}{E_\mathrm{true}}")
    for odd in ("a_b_c", r"\nosuchcommand x"):
        with pytest.raises(ConfigError, match="not understood"):
            require_formula(odd)
    assert formula("a_b_c < 2") == "<code>a_b_c &lt; 2</code>"


def test_a_notebook_page_shows_mathematics_and_loads_nothing(tmp_path, network_loads):
    new = nbformat.v4
    text = (
        "# 01 Tiny\n\nInline $E^2 = p^2 + m^2$, displayed\n\n"
        "$$\\sigma = \\frac{a}{\\sqrt{E}} \\oplus b$$\n\nand \\begin{align} a &= b \\end{align}."
    )
    code = new.new_code_cell("print('a < b')", outputs=[new.new_output("stream", text="a < b\n")])
    nbformat.write(
        new.new_notebook(cells=[new.new_markdown_cell(text), code]), tmp_path / "executed.ipynb"
    )
    render_notebook(tmp_path / "executed.ipynb", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<math") == 3
    assert "<msqrt>" in page
    assert "$" not in page.partition("<body>")[2]
    assert "a &lt; b" in page
    assert not network_loads(page)
    assert "<script" not in page


def test_the_check_for_network_loads_can_fail(network_loads):
    assert network_loads('<script src="https://example.org/a.js"></script>')
    assert network_loads('<link rel="stylesheet" href="//example.org/a.css">')
    assert network_loads(
        "<style>@import 'a.css'; b { background: url(http://example.org/c.png) }</style>"
    )
    assert not network_loads(
        '<a href="https://example.org">a link</a> <img src="data:image/png;base64,AA">'
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one published study, which was built in the smoke profile too."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# 01 Tiny"),
        new.new_code_cell("seed = 1", metadata={"tags": ["parameters"]}),
    ]
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    notebook = new.new_notebook(cells=cells, metadata={"pfcalib": {"headlines": ["auc_dnn"]}})
    nbformat.write(notebook, tmp_path / "notebooks" / "01_tiny.ipynb")
    (tmp_path / "notebooks" / "profiles" / "01_tiny.yaml").write_text("standard: {seed: 1}\n")
    folder = tmp_path / "reports" / "01_tiny"
    for profile, place in (("standard", folder), ("smoke", folder / "smoke")):
        report = Report("01_tiny", place, {"profile": profile, "seed": 1}, 1)
        report.metric("first", 1, None, "", "no headline")
        report.metric("auc_dnn", 0.97, 0.01, "", "area")
        report.check("goal", 0, "1", passed=profile == "smoke", required=False)
        report.figure(Figure(), "roc", caption="A <curve>")
        report.finish()
    (tmp_path / "README.md").write_text(f"before\n{MARKERS[0]}\nformer\n{MARKERS[1]}\nafter\n")
    return tmp_path


def test_the_index_shows_every_result_and_loads_nothing(clone, network_loads):
    page = build_index(clone).read_text()
    assert page.count("0.970 ± 0.010") == 2
    assert 'src="01_tiny/figures/roc.png"' in page
    assert 'src="01_tiny/smoke/figures/roc.png"' in page
    assert "A &lt;curve&gt;" in page
    assert not network_loads(page)


def record_code(clone: Path, **changes: Any) -> Path:
    """Let the published result of the clone say which code made it; its place."""
    path = clone / "reports" / "01_tiny" / "results.json"
    results = read_results(path)
    code = provenance.code_digests(clone / "notebooks" / "01_tiny.ipynb")
    results["provenance"] |= {"code": code, **changes}
    write_results(results, path.parent)
    return path


def test_a_result_is_stale_where_its_code_is_unknown_or_has_changed(clone):
    study = find_studies(clone)["01_tiny"]
    path = clone / "reports" / "01_tiny" / "results.json"
    assert "does not say" in open_entry(clone, study, path).stale
    record_code(clone)
    assert not open_entry(clone, study, path).stale
    assert "stale" not in render_readme(clone)
    study.path.write_text(study.path.read_text().replace("seed = 1", "seed = 1  # remark"))
    assert not open_entry(clone, study, path).stale
    study.path.write_text(study.path.read_text().replace("seed = 1", "seed = 2"))
    assert open_entry(clone, study, path).stale == "changed since: notebook"
    assert "changed since: notebook" in build_index(clone).read_text()
    assert "**stale**" in render_readme(clone)


def test_a_result_is_stale_where_its_profile_has_other_parameters_now(clone):
    path = record_code(clone)
    (clone / "notebooks" / "profiles" / "01_tiny.yaml").write_text("standard: {seed: 2}\n")
    assert "parameters" in open_entry(clone, find_studies(clone)["01_tiny"], path).stale
    record_code(clone, changed={"seed": 1})
    assert not open_entry(clone, find_studies(clone)["01_tiny"], path).stale


def test_code_is_followed_through_imports_in_functions_and_names_of_processes(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "direct.py").write_text("def f():\n    import studies.inner\n")
    (tmp_path / "studies" / "inner.py").write_text('command = ["-m", "studies.worker"]\n')
    worker = tmp_path / "studies" / "worker.py"
    worker.write_text('"""Doc."""\nx = 1\n')
    cells = [nbformat.v4.new_code_cell("from studies import direct\nimport pfcalib.geometry")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_a.ipynb")
    before = provenance.code_digests(tmp_path / "01_a.ipynb")
    names = {"notebook", "pfcalib.geometry", "studies.direct", "studies.inner", "studies.worker"}
    assert names <= set(before)
    worker.write_text('"""Other words."""\n\nx = 1  # remark\n')
    assert provenance.code_digests(tmp_path / "01_a.ipynb") == before
    worker.write_text("x = 2\n")
    after = provenance.code_digests(tmp_path / "01_a.ipynb")
    assert [name for name in before if after[name] != before[name]] == ["studies.worker"]


def test_what_a_notebook_does_not_use_of_a_module_changes_no_digest(tmp_path):
    (tmp_path / "studies").mkdir()
    module, other = tmp_path / "studies" / "one.py", tmp_path / "studies" / "two.py"
    text = (
        "from studies.two import scale, unused\n\nLIMIT = 1\n\n\ndef used(x):\n"
        "    return scale(x) < LIMIT\n\n\ndef idle(x):\n    return unused(x)\n"
    )
    module.write_text(text)
    other.write_text("def scale(x):\n    return 2 * x\n\n\ndef unused(x):\n    return x\n")
    cells = [nbformat.v4.new_code_cell("from studies.one import used\n\nused(1)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_a.ipynb")

    def changed(path, old, new):
        before, content = provenance.code_digests(tmp_path / "01_a.ipynb"), path.read_text()
        path.write_text(content.replace(old, new))
        after = provenance.code_digests(tmp_path / "01_a.ipynb")
        path.write_text(content)
        return [name for name in before | after if before.get(name) != after.get(name)]

    assert set(provenance.code_digests(tmp_path / "01_a.ipynb")) == {
        "notebook", "studies.one", "studies.two",
    }  # fmt: skip
    assert changed(module, "return unused(x)", "return -unused(x)") == []
    assert changed(other, "return x\n", "return -x\n") == []
    assert changed(module, "def idle", "def newer(x):\n    return 3\n\n\ndef idle") == []
    assert changed(module, "LIMIT = 1", "LIMIT = 2") == ["studies.one"]
    assert changed(other, "2 * x", "3 * x") == ["studies.two"]
    assert changed(module, "LIMIT = 1", "LIMIT = 1\nprint(3)") == ["studies.one"]
    assert changed(module, "used(x):", "used(x=2):") == ["studies.one"]


def test_a_verdict_beside_missed_goals_is_neither_passed_nor_green(clone):
    published, smoke = (
        next(entry for entry in collect_entries(clone) if entry.results["profile"] == profile)
        for profile in ("standard", "smoke")
    )
    assert (smoke.mark, smoke.verdict) == ("passed", "required checks hold; goals reached: 1 of 1")
    assert published.mark == "missed"
    page = build_index(clone).read_text()
    assert '<td class="missed">required checks hold; goals reached: 0 of 1' in page
    assert ">passed<" not in page


def test_the_displayed_summary_carries_its_images_and_the_written_one_names_them(report):
    report.figure(Figure(), "roc", caption="ROC curve")
    path = report.out_dir / "figures" / "roc.png"
    report.finish()
    (inside,) = re.findall(
        r"!\[ROC curve\]\(data:image/png;base64,(.+?)\)", report._repr_markdown_()
    )
    assert base64.b64decode(inside) == path.read_bytes()
    assert "![ROC curve](figures/roc.png)" in (report.out_dir / "summary.md").read_text()


def test_nbconvert_shows_the_images_of_the_displayed_summary(report, tmp_path, network_loads):
    report.figure(Figure(), "roc")
    report.finish()
    output = nbformat.v4.new_output(
        "display_data", {"text/markdown": report._repr_markdown_(), "text/plain": ""}
    )
    cells = [nbformat.v4.new_code_cell("report.finish()", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "executed.ipynb")
    render_notebook(tmp_path / "executed.ipynb", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<img src="data:image/png;base64,' in page.replace('alt="roc" ', "")
    assert not network_loads(page)


def test_the_index_of_nothing_says_so(tmp_path):
    (tmp_path / "notebooks").mkdir()
    assert "No study has been run yet" in build_index(tmp_path).read_text()


def test_the_table_of_the_readme_comes_from_published_results_only(clone):
    assert write_readme(clone)
    text = (clone / "README.md").read_text()
    assert (
        "| [01 Tiny](reports/01_tiny/summary.md) | required checks hold; goals reached: 0 of 1; "
        "**stale** | `auc_dnn` 0.970 ± 0.010 |" in text
    )
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "former" not in text
    assert not write_readme(clone)


def test_a_readme_without_markers_is_refused(clone):
    (clone / "README.md").write_text("nothing")
    with pytest.raises(ConfigError, match="studies:begin"):
        render_readme(clone)


def test_published_results_are_valid_and_the_readme_shows_them(root):
    published = sorted((root / "reports").glob("*/results.json"))
    if not published:
        pytest.skip("no results are published yet")
    for path in published:
        results = read_results(path)
        assert results["study"] == path.parent.name
        assert all((path.parent / figure["file"]).is_file() for figure in results["figures"])
    assert render_readme(root) == (root / "README.md").read_text(encoding="utf-8"), (
        "run `pfcalib readme`"
    )
