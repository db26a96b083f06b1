"""Every notebook runs from end to end and passes its own checks: with its smoke parameters as the
command runs it, and with its own defaults as a person runs it in JupyterLab.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

from pfcalib.reporting.catalogue import find_studies
from pfcalib.reporting.results import MAX_FIGURE_BYTES, read_results
from pfcalib.reporting.runner import plan_study, run_study

ROOT = Path(__file__).resolve().parents[1]
STUDIES = find_studies(ROOT)


def shown(notebook: Path, mime: str) -> list[str]:
    """What the cells of an executed notebook show of one type; streams are their names."""
    outputs = [
        output
        for cell in nbformat.read(notebook, as_version=4).cells
        for output in cell.get("outputs", ())
    ]
    streams: list[Any] = [output.text for output in outputs if output.get("name") == mime]
    return streams + [output.data[mime] for output in outputs if mime in output.get("data", ())]


def require_readable(notebook: Path) -> None:
    """Refuse paths of one machine among what the cells show, and what libraries say on errors.

    That Geant4 runs on synthetic tables is for the reader to know.
    """
    texts = [text for mime in ("stdout", "text/plain") for text in shown(notebook, mime)]
    assert not [text for text in texts if re.search(r"PosixPath|(?<![\w.~:/])/(tmp|home)/", text)]
    assert not [text for text in shown(notebook, "stderr") if "synthetic tables" not in text]


@pytest.mark.notebook
@pytest.mark.parametrize("name", STUDIES)
def test_the_notebook_runs_and_passes(name, tmp_path, network_loads):
    plan = dataclasses.replace(plan_study(name, profile="smoke", root=ROOT), root=tmp_path)
    result = run_study(plan)
    assert result.passed, result.error
    results = read_results(result.folder / "results.json")
    assert results["metrics"]
    assert results["checks"]
    if not (ROOT / "reports" / name / "results.json").exists():  # else see the contract
        assert set(STUDIES[name].headlines) <= set(results["metrics"])
    for figure in results["figures"]:
        assert 0 < (result.folder / figure["file"]).stat().st_size < MAX_FIGURE_BYTES
    executed = result.folder / "executed.ipynb"
    assert len(shown(executed, "image/png")) >= len(results["figures"]), (
        "the rendered notebook does not show all figures"
    )
    require_readable(executed)
    assert not network_loads((result.folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.notebook
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if study.core else pytest.mark.lab)
        for name, study in STUDIES.items()
    ],
)
def test_run_all_with_the_own_defaults_passes_as_in_jupyterlab(name, tmp_path):
    server_root = tmp_path  # of `make lab`
    shutil.copytree(
        ROOT / "notebooks",
        server_root / "notebooks",
        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
    )
    folder = MappingKernelManager(root_dir=str(server_root)).cwd_for_path(f"notebooks/{name}.ipynb")
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        server_root / "notebooks" / f"{name}.ipynb",
        executed,
        cwd=folder,
        kernel_name="python3",
        progress_bar=False,
    )
    results = read_results(tmp_path / "reports" / name / "lab" / "results.json")
    assert results["status"] == "passed"
    require_readable(executed)
    (summary,) = [text for text in shown(executed, "text/markdown") if text.startswith(f"# {name}")]
    assert summary.count("](data:image/png;base64,") == len(results["figures"])
