"""The runner refuses what is wrong before it starts, and leaves a complete folder whatever
happens.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

from pfcalib.errors import ConfigError
from pfcalib.reporting.catalogue import (
    Study,
    find_root,
    find_studies,
    find_study,
    order_studies,
    parse_override,
    read_parameters,
    read_profiles,
)
from pfcalib.reporting.results import read_results
from pfcalib.reporting.runner import plan_study, publish, run_study
from pfcalib.reporting.site import build_index

PARAMETERS = """\
seed = 1  # seed of the whole job
n_events = 10  # events
energy = 5.0  # GeV
label: str | None = None  # text, optional
layers = ["EMB1", "EMB2"]  # layer names
profile = "lab"  # name of the parameter set
out_dir = "scratch"  # folder"""

SETUP = """\
from pfcalib.reporting.results import open_report
report = open_report("01_tiny", globals())
report.metric("n", n_events, None, "", "number of events")"""

VALUES = {"seed": 3, "n_events": 7, "energy": 2.5, "label": None, "layers": ["EMB3"]}


def write_clone(root: Path, body: str, *, values: dict | None = None) -> Path:
    """A clone with one study: ``body`` is its last cell."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# 01 Tiny\n\nIs $E = mc^2$?"),
        new.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
    ]
    cells += [
        new.new_code_cell(SETUP),
        new.new_markdown_cell("## The end"),
        new.new_code_cell(body),
    ]
    (root / "notebooks").mkdir()
    nbformat.write(new.new_notebook(cells=cells), root / "notebooks" / "01_tiny.ipynb")
    profiles = dict.fromkeys(("smoke", "standard", "full"), VALUES if values is None else values)
    (root / "notebooks" / "profiles").mkdir()
    (root / "notebooks" / "profiles" / "01_tiny.yaml").write_text(yaml.safe_dump(profiles))
    return root


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return write_clone(tmp_path, "report.finish()")


def test_a_run_with_other_parameters_has_a_folder_of_its_own_that_says_so(clone):
    plan = plan_study("01_tiny", overrides={"seed": 7, "n_events": 7}, root=clone)
    assert (
        plan.folder == clone / "reports" / "01_tiny" / "smoke-seed=7"
    )  # n_events is the profile's
    results = run_study(plan).results
    assert results["provenance"]["changed"] == {"seed": 7}
    assert results["provenance"]["code"]["notebook"]
    assert "`seed` = 7" in (plan.folder / "summary.md").read_text()
    front = build_index(clone).read_text()
    assert 'href="01_tiny/smoke-seed=7/report.html"' in front
    assert "<code>seed</code> = 7" in (plan.folder / "report.html").read_text()


def test_folders_of_other_parameters_are_told_apart(clone):
    texts = ["a" * 100, "a" * 100 + "b", "a/b", "a b"]
    plans = [plan_study("01_tiny", overrides={"label": text}, root=clone) for text in texts]
    names = [plan.label for plan in plans]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"smoke-label=[\w-]+", name) and len(name) < 80 for name in names)
    assert plan_study("01_tiny", folder="mine", overrides={"seed": 7}, root=clone).label == "mine"
    for bad in ("smoke", "standard", "figures", "../out", ".hidden", ""):
        with pytest.raises(ConfigError, match="--name"):
            plan_study("01_tiny", folder=bad, root=clone)


def test_a_study_is_found_by_its_number(clone):
    assert find_study(clone, "1").name == find_study(clone, "01").name == "01_tiny"
    for unknown in ("2", "0", "tiny", "01_"):
        with pytest.raises(ConfigError, match="is unknown; there are 01_tiny"):
            find_study(clone, unknown)


def test_studies_run_in_order_of_reading_but_after_what_they_use():
    def studies(**after: tuple[str, ...]) -> dict[str, Study]:
        return {name: Study(name, Path(), "", (), after=names) for name, names in after.items()}

    assert order_studies(studies(a=("c",), b=(), c=())) == ["b", "c", "a"]
    for circle in (studies(a=("b",), b=("a",)), studies(a=("z",))):
        with pytest.raises(ConfigError, match="a: comes after"):
            order_studies(circle)


def test_a_profile_may_extend_what_studies_share(clone):
    profiles = clone / "notebooks" / "profiles"
    (profiles / "shared.yaml").write_text("smoke: {seed: 5, n_events: 6}\nfull: {seed: 9}\n")
    (profiles / "01_tiny.yaml").write_text("extends: shared\nsmoke: {n_events: 7}\n")
    assert read_profiles(clone, "01_tiny") == {"smoke": {"seed": 5, "n_events": 7}}
    (profiles / "01_tiny.yaml").write_text("extends: nothing\n")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: not readable"):
        read_profiles(clone, "01_tiny")


def test_a_kernel_without_accelerator_shows_no_log_of_tensorflow(tmp_path):
    body = "import tensorflow\ntensorflow.zeros(2) + 1\nreport.finish()"
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, body)))
    assert result.passed
    # Jupyter interrupts the kernel before it asks it to end, and the kernel may remark on that
    lines = (result.folder / "kernel.log").read_text().splitlines()
    assert [line for line in lines if not line.startswith("[IPKernelApp]")] == []


def test_a_good_run_leaves_everything_under_its_final_name(clone):
    said = []
    profile = clone / "notebooks" / "profiles" / "01_tiny.yaml"
    profile.write_text(yaml.safe_dump({"smoke": VALUES | {"label": "a 'quoted' text"}}))

    def say(text: str, end: str = "\n") -> None:
        said.append(text + end)

    result = run_study(plan := plan_study("01_tiny", root=clone), say=say)
    assert result.passed
    assert not result.error
    assert result.folder == clone / "reports" / "01_tiny" / "smoke"
    assert {path.name for path in result.folder.iterdir()} == {
        plan.marker.name,
        "executed.ipynb",
        "kernel.log",
        "report.html",
        "results.csv",
        "results.json",
        "summary.md",
    }
    assert {path.name for path in result.folder.parent.iterdir()} == {"smoke", ".smoke.lock"}
    results = read_results(result.folder / "results.json")
    assert results["metrics"]["n"]["value"] == 7
    assert results["provenance"]["parameters"]["label"] == "a 'quoted' text"
    assert "cell  4/4  The end" in "".join(said)
    page = (result.folder / "report.html").read_text()
    assert "<math" in page


def test_the_kernel_is_that_of_the_running_python_whatever_jupyter_finds(clone, monkeypatch):
    bogus = clone / "jupyter" / "kernels" / "python3"
    bogus.mkdir(parents=True)
    (bogus / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "bogus", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(clone / "jupyter"))
    assert run_study(plan_study("01_tiny", root=clone)).passed


def test_what_compiled_code_prints_goes_to_the_log_not_into_the_notebook(tmp_path, capfd):
    body = (
        "import os, sys\nos.write(2, b'from a library')\n"
        "print('from Python', file=sys.stderr)\nreport.finish()"
    )
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, body)))
    page = (result.folder / "report.html").read_text()
    assert ">from Python" in page
    assert "from a library" in (result.folder / "kernel.log").read_text()
    assert "from a library" not in capfd.readouterr().err


def test_a_cell_that_raises_leaves_the_executed_copy_and_failed_results(tmp_path):
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, "1 / 0")))
    assert not result.passed
    results = read_results(result.folder / "results.json")
    assert results["status"] == "failed"
    assert "ZeroDivisionError" in results["error"]
    assert results["provenance"]["seed"] == 3
    assert "ZeroDivisionError" in (result.folder / "executed.ipynb").read_text()


def test_a_failed_check_keeps_the_metrics_and_fails_the_run(tmp_path):
    body = 'report.check("energy is high", energy, "> 100", energy > 100)\nreport.finish()'
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, body)))
    assert not result.passed
    assert "energy is high = 2.5" in result.error
    assert not list(result.folder.glob("passed-*"))
    assert read_results(result.folder / "results.json")["metrics"]["n"]["value"] == 7


def test_a_cell_that_raises_after_a_good_finish_still_fails(tmp_path):
    result = run_study(
        plan_study(
            "01_tiny", root=write_clone(tmp_path, "report.finish()\nraise RuntimeError('late')")
        )
    )
    assert not result.passed
    assert read_results(result.folder / "results.json")["status"] == "failed"


def test_a_kernel_that_dies_leaves_failed_results(tmp_path):
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, "import os\nos._exit(9)")))
    assert not result.passed
    assert "the kernel died" in read_results(result.folder / "results.json")["error"]


def test_a_notebook_that_writes_no_results_has_failed(tmp_path):
    result = run_study(plan_study("01_tiny", root=write_clone(tmp_path, "1 + 1")))
    assert not result.passed
    assert "no valid results.json" in result.error


def test_a_new_run_replaces_the_old_folder_as_a_whole(clone):
    stale = clone / "reports" / "01_tiny" / "smoke" / "figures" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert run_study(plan_study("01_tiny", root=clone)).passed
    assert not stale.exists()
    names = {path.name for path in (clone / "reports" / "01_tiny").iterdir()}
    assert names == {"smoke", ".smoke.lock"}


def test_an_interrupted_run_leaves_the_old_folder_and_no_rest(clone, monkeypatch):
    kept = clone / "reports" / "01_tiny" / "smoke" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_study(plan_study("01_tiny", root=clone))
    assert kept.exists()
    names = {path.name for path in (clone / "reports" / "01_tiny").iterdir()}
    assert names == {"smoke", ".smoke.lock"}


def test_only_an_unchanged_standard_profile_is_published(clone):
    assert plan_study("01_tiny", profile="standard", root=clone).publish
    assert not plan_study("01_tiny", profile="standard", overrides={"seed": 4}, root=clone).publish
    assert not plan_study("01_tiny", profile="full", root=clone).publish


def test_publishing_replaces_the_committed_figures(tmp_path):
    built = tmp_path / "01_tiny" / "standard"
    (built / "figures").mkdir(parents=True)
    (tmp_path / "01_tiny" / "figures").mkdir()
    (tmp_path / "01_tiny" / "figures" / "old.png").touch()
    for name in ("results.json", "results.csv", "summary.md", "executed.ipynb"):
        (built / name).write_text(name)
    x = np.arange(400.0)
    waves = np.stack([np.add.outer(np.sin(x / n), np.cos(x / n)) for n in (31, 47, 71)], axis=-1)
    Image.fromarray(np.uint8(60.0 * (waves + 2.0))).save(built / "figures" / "new.png")
    publish(built)
    assert {path.name for path in (tmp_path / "01_tiny").iterdir()} == {
        "standard",
        "figures",
        "results.csv",
        "results.json",
        "summary.md",
    }
    (found,) = (tmp_path / "01_tiny" / "figures").iterdir()
    assert found.name == "new.png"
    assert found.stat().st_size < 0.5 * (built / "figures" / "new.png").stat().st_size
    same = [
        np.asarray(Image.open(path).convert("RGB"), float)
        for path in (found, built / "figures" / "new.png")
    ]
    assert np.abs(same[0] - same[1]).mean() < 8.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"n_event": 3}, "unknown parameter 'n_event'"),
        ({"n_events": "3"}, "must be of the type of its default 10"),
        ({"n_events": 3.5}, "must be of the type"),
        ({"n_events": True}, "must be of the type"),
        ({"n_events": None}, "must be of the type"),
        ({"energy": float("nan")}, "not a JSON value"),
        ({"label": {1, 2}}, "not a JSON value"),
        ({"layers": [1]}, "must be of the type"),
        ({"out_dir": "elsewhere"}, "set by the runner"),
    ],
)
def test_bad_parameters_are_refused_before_the_start(clone, overrides, message):
    with pytest.raises(ConfigError, match=message):
        plan_study("01_tiny", overrides=overrides, root=clone)


def test_an_integer_passes_for_a_float_and_null_for_an_optional(clone):
    assert (
        plan_study("01_tiny", overrides={"energy": 3, "label": None}, root=clone).parameters[
            "energy"
        ]
        == 3
    )


def test_a_missing_parameter_is_refused(tmp_path):
    clone = write_clone(
        tmp_path,
        "report.finish()",
        values={name: value for name, value in VALUES.items() if name != "label"},
    )
    with pytest.raises(ConfigError, match="'label' has no value"):
        plan_study("01_tiny", root=clone)


def test_unknown_studies_and_profiles_are_refused(clone):
    with pytest.raises(ConfigError, match="study '02_none' is unknown; there are 01_tiny"):
        plan_study("02_none", root=clone)
    with pytest.raises(ConfigError, match="profile 'huge' is unknown"):
        plan_study("01_tiny", profile="huge", root=clone)


def test_a_parameters_cell_holds_literals_only():
    with pytest.raises(ConfigError, match="line 2: the value of 'b' is not a literal"):
        read_parameters("a = 1\nb = a + 1")
    with pytest.raises(ConfigError, match="is not `name = literal`"):
        read_parameters("import os")


def test_overrides_of_the_command_line_follow_the_default(clone):
    study = find_studies(clone)["01_tiny"]
    assert parse_override(study, "n_events=12") == ("n_events", 12)
    assert parse_override(study, "label=12 GeV") == ("label", "12 GeV")
    assert parse_override(study, 'layers=["EMB1"]') == ("layers", ["EMB1"])
    with pytest.raises(ConfigError, match="expected name=value"):
        parse_override(study, "n_events")
    with pytest.raises(ConfigError, match="not a JSON value"):
        parse_override(study, "energy=high")


def test_the_clone_is_found_from_any_folder_inside_it(clone, tmp_path_factory):
    assert find_root(clone / "notebooks") == clone.resolve()
    with pytest.raises(ConfigError, match="notebooks/profiles"):
        find_root(tmp_path_factory.mktemp("elsewhere"))
