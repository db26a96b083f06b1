"""Results are recorded completely, refused when they are not what the schema says, and shown
without a network.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path

import fastjsonschema
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from pfcalib import provenance
from pfcalib.cache import file_sha256
from pfcalib.errors import ConfigError, ValidationError
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


def test_a_figure_is_kept_as_a_pdf_too_which_is_the_same_each_time(report, rng):
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    for name in ("first", "second"):
        report.figure(figure, name)
    one, two = (report.out_dir / "figures" / f"{name}.pdf" for name in ("first", "second"))
    assert one.read_bytes().startswith(b"%PDF")
    assert one.read_bytes() == two.read_bytes()


def test_a_pdf_with_very_many_points_holds_them_as_a_picture(report, rng):
    figure = Figure()
    axes = figure.subplots()
    (line,) = axes.plot(rng.random(40_000), rng.random(40_000), ".", markersize=0.1)
    report.figure(figure, "cloud")
    assert (report.out_dir / "figures" / "cloud.pdf").stat().st_size < 2 * MAX_FIGURE_BYTES
    assert not line.get_rasterized()


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


# Code that results follow from


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
    # to wait for another process changes no result
    guarded = "    with one_maker(x):\n        return scale(x) < LIMIT"
    assert changed(module, "    return scale(x) < LIMIT", guarded) == []
    assert changed(module, "    return scale(x) < LIMIT", guarded.replace("<", ">")) == [
        "studies.one"
    ]
    assert changed(module, "    return scale(x)", "    with x:\n        return scale(x)") == [
        "studies.one"
    ]
    assert changed(module, "LIMIT = 1", "LIMIT = 1\nprint(3)") == ["studies.one"]
    assert changed(module, "used(x):", "used(x=2):") == ["studies.one"]


def test_the_displayed_summary_carries_its_images_and_the_written_one_names_them(report):
    report.figure(Figure(), "roc", caption="ROC curve")
    path = report.out_dir / "figures" / "roc.png"
    report.finish()
    (inside,) = re.findall(
        r"!\[ROC curve\]\(data:image/png;base64,(.+?)\)", report._repr_markdown_()
    )
    assert base64.b64decode(inside) == path.read_bytes()
    assert "![ROC curve](figures/roc.png)" in (report.out_dir / "summary.md").read_text()
