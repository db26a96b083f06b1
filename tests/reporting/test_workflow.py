"""A workflow runs what is missing and nothing else, goes on past a failure, and tells what became
of each study; a sweep is a workflow whose runs end in one table; runs are told of before and
checked after.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml
from typer.testing import CliRunner

from pfcalib.cli import app
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.plotting.parallel import plot_parallel_coordinates
from pfcalib.reporting.catalogue import find_study
from pfcalib.reporting.costs import collect_records, estimate_cost, run_pilot
from pfcalib.reporting.grid import read_grid
from pfcalib.reporting.runner import plan_study, run_study
from pfcalib.reporting.workflow import plan_jobs, run_workflow, snakemake_command

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = """\
seed = 1  # seed of the whole job
n_events = 10  # events
label = "a"  # text
profile = "lab"  # name of the parameter set
out_dir = "scratch"  # folder"""
BODY = """\
from pfcalib.reporting.results import open_report
report = open_report("{name}", globals())
report.metric("n", n_events * seed, 0.5, "", "number of events")
{more}
report.finish()"""


def write_study(root: Path, name: str, *, more: str = "", **metadata: object) -> None:
    """A study of a few lines, with its parameter sets."""
    new = nbformat.v4
    notebook = new.new_notebook(
        cells=[
            new.new_markdown_cell(f"# {name}"),
            new.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new.new_code_cell(BODY.format(name=name, more=more)),
        ],
        metadata={"pfcalib": metadata},
    )
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    values = {"seed": 3, "n_events": 7, "label": "a"}
    profiles = yaml.safe_dump(dict.fromkeys(("smoke", "standard", "full"), values))
    (root / "notebooks" / "profiles" / f"{name}.yaml").write_text(profiles)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Four studies: 02 fails, 03 comes after it, 04 after 01."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "Snakefile").symlink_to(ROOT / "Snakefile")
    write_study(tmp_path, "01_good", core=True)
    write_study(tmp_path, "02_bad", more='report.check("holds", 1, "0", False)')
    write_study(tmp_path, "03_waits", after=["02_bad"])
    write_study(tmp_path, "04_last", after=["01_good"])
    return tmp_path


def test_a_workflow_goes_on_past_a_failure_and_a_second_call_runs_only_what_is_missing(
    clone, monkeypatch
):
    monkeypatch.chdir(clone)
    result = CliRunner().invoke(app, ["report", "all", "--cores", "2"])
    assert str(result.exception) == "2 of 4 studies failed: 02_bad, 03_waits"
    said = result.output
    assert "02_bad (smoke): required checks failed: " in said
    assert "03_waits (smoke): did not start" in said
    assert "03_waits (smoke) starts" not in said
    assert re.search(r"01_good \(smoke\): required checks hold \(\d+ s\)", said)
    assert said.startswith((clone / "reports" / "workflow.log").read_text())
    assert "cell  3/3" in (clone / "reports" / "logs" / "01_good-smoke.log").read_text()
    assert (clone / "reports" / "02_bad" / "smoke" / "report.html").is_file()
    assert (clone / "reports" / "index.html").is_file()

    before = {job.name: job.plan.marker for job in plan_jobs({"studies": "all"}, clone)}
    write_study(clone, "02_bad", more='report.check("holds", 0, "0", True)')
    lines: list[str] = []
    outcomes = run_workflow(
        {"studies": "all"}, cores=2, root=clone, say=lambda text, end="\n": lines.append(text)
    )
    assert [each.passed for each in outcomes] == [True] * 4
    assert [each.text == "up to date" for each in outcomes] == [True, False, False, True]
    assert sum("starts" in line for line in lines) == 2
    now = {job.name: job.plan.marker for job in plan_jobs({"studies": "all"}, clone)}
    assert [now[name] == before[name] for name in now] == [True, False, True, True]


def test_one_workflow_at_a_time(clone):
    (clone / "reports").mkdir()
    with (clone / "reports" / ".workflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValidationError, match="another workflow is running"):
            run_workflow({}, root=clone)


def test_studies_are_chosen_by_name_number_core_or_all_and_come_after_what_they_use(clone):
    jobs = plan_jobs({"studies": "04 02_bad core", "profile": "full"}, clone)
    assert [job.name for job in jobs] == ["01_good_full", "02_bad_full", "04_last_full"]
    assert [job.after for job in jobs] == [(), (), (jobs[0].target,)]
    assert [job.name for job in plan_jobs({}, clone)] == ["01_good_smoke"]
    write_study(clone, "05_far", after=["04_last"])  # of which 04 is not chosen
    first, last = plan_jobs({"studies": "1 5"}, clone)
    assert last.after == (first.target,)
    for config, message in (
        ({"study": "01"}, "knows studies, profile"),
        ({"studies": "09"}, "study '09' is unknown"),
        ({"profile": "huge"}, "profile 'huge' is unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_jobs(config, clone)
    with pytest.raises(ConfigError, match="--on 'moon': choose one of local, slurm"):
        snakemake_command({}, on="moon")


def test_a_target_changes_with_code_parameters_lock_and_packaged_data(clone, monkeypatch):
    def target() -> str:
        return plan_jobs({}, clone)[0].target

    first, seen = target(), set()
    write_study(clone, "01_good", more="# a remark", core=True)
    assert target() == first
    write_study(clone, "01_good", more="n_events += 1", core=True)
    seen.add(target())
    (clone / "requirements.lock").write_text("numpy==1")
    seen.add(target())
    (clone / "notebooks" / "profiles" / "01_good.yaml").write_text(
        "smoke: {seed: 4, n_events: 7, label: a}"
    )
    seen.add(target())
    data = clone / "data"
    data.mkdir()
    (data / "new.json").write_text("{}")
    monkeypatch.setattr("pfcalib.reporting.runner.DATA", data)
    seen.add(target())
    assert len(seen - {first}) == 4


def test_a_dry_run_tells_what_would_run_and_leaves_nothing(clone, monkeypatch, capfd):
    monkeypatch.chdir(clone)
    result = CliRunner().invoke(app, ["report", "02", "--dry-run", "--force", "--cores", "1"])
    assert result.exit_code == 0
    assert "rule 02_bad_smoke" in capfd.readouterr().out
    assert not (clone / "reports").exists()


def test_a_sweep_runs_each_point_and_ends_in_one_table_and_a_figure(clone, monkeypatch):
    monkeypatch.chdir(clone)
    grid = clone / "grid.yaml"
    grid.write_text("study: 01_good\nparameters: {seed: [3], label: [a, 'b {c}']}\n")
    assert plan_jobs({"sweep": str(grid)}, clone)[0].plan.label == "smoke"  # as the profile says
    result = CliRunner().invoke(app, ["sweep", "grid.yaml", "--cores", "2"])
    assert result.exit_code == 0, result.output
    folder = clone / "reports" / "sweeps" / "grid"
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"seed": "3", "label": "b {c}", "n": "21.0", "n_error": "0.5"}
    assert (folder / "table.md").read_text() in result.output
    assert "| 3 | b {c} | 21.00 ± 0.50 |" in result.output
    assert (folder / "parallel.png").stat().st_size > 0
    assert (folder / "parallel.pdf").stat().st_size > 0
    result = CliRunner().invoke(app, ["sweep", "grid.yaml", "--metric", "m"])
    assert str(result.exception) == "metric 'm' is unknown; there are n"


def test_a_rerun_that_differs_is_refused_and_not_published(clone, monkeypatch):
    monkeypatch.chdir(clone)
    recorded = run_study(plan_study("01_good", overrides={"seed": 5}, root=clone))
    assert recorded.results["metrics"]["n"]["value"] == 35.0
    path = recorded.folder / "results.json"
    path.write_text(path.read_text().replace('"value": 35.0', '"value": 36.0'))
    result = CliRunner().invoke(app, ["verify", "1", "--results", str(recorded.folder)])
    assert "1 disagree: n: was 36.00 ± 0.50, is 35.00 ± 0.50" in str(result.exception)
    result = CliRunner().invoke(app, ["verify", "4", "--results", str(recorded.folder)])
    assert "these are results of 01_good" in str(result.exception)
    assert {path.name for path in (clone / "reports").iterdir()} == {"01_good"}


def test_a_pilot_tells_time_and_cache_of_a_longer_run(clone, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(clone / "kept"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(clone / "kernels"))
    more = "import os, pathlib\n"
    more += "pathlib.Path(os.environ['PFCALIB_CACHE'], 'x').write_bytes(b'0' * n_events)"
    write_study(clone, "01_good", more=more)
    study = find_study(clone, "01")
    run_pilot(study, clone)
    records = collect_records(study, clone)
    assert sorted((record.n_events, record.cache_bytes) for record in records) == [(7, 7), (28, 28)]
    longer = plan_study("01", overrides={"n_events": 700}, root=clone)
    cost = estimate_cost(longer, records)
    assert cost.cache_gb == pytest.approx(700e-9)
    assert cost.core_hours is not None
    assert os.environ["PFCALIB_CACHE"] == str(clone / "kept")
    assert not (clone / "kept" / "x").exists()


def test_grids_with_mistakes_are_refused(clone):
    grid = clone / "grid.yaml"
    for text, message in (
        ("[", "not readable as YAML"),
        ("study: 01_good", "parameters: Field required"),
        ("{study: 01_good, parameters: {}}", "at least 1 item"),
        ("{study: 01_good, parameters: {seed: 3}}", "valid list"),
        ("{study: 01_good, values: {}, parameters: {seed: [3]}}", "values: Extra"),
    ):
        grid.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_grid(grid)
    grid.write_text("{study: 01_good, parameters: {seed: [3, 3]}}")
    with pytest.raises(ConfigError, match="smoke comes twice"):
        plan_jobs({"sweep": str(grid)}, clone)


def test_parallel_coordinates_draw_each_complete_row_from_axis_to_axis():
    ax = plot_parallel_coordinates(
        {"seed": [1, 2, 3], "label": ["a", "b", "a"], "auc": [0.9, 0.8, None]}
    )
    lines = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 3]
    assert lines == [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    texts = {text.get_text() for text in ax.texts}
    assert {"1", "2", "a", "b", "0.8", "0.9"} == texts
    plt.close(ax.figure)
