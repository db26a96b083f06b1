"""Every notebook runs from end to end with its smoke parameters and passes its own checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nbformat
import pytest

from pfcalib.reporting.catalogue import find_studies
from pfcalib.reporting.results import MAX_FIGURE_BYTES, read_results
from pfcalib.reporting.runner import plan_study, run_study

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.notebook
@pytest.mark.parametrize("name", find_studies(ROOT))
def test_the_notebook_runs_and_passes(name, tmp_path, network_loads):
    plan = dataclasses.replace(plan_study(name, profile="smoke", root=ROOT), root=tmp_path)
    result = run_study(plan)
    assert result.passed, result.error
    results = read_results(result.folder / "results.json")
    assert results["metrics"]
    assert results["checks"]
    for figure in results["figures"]:
        assert 0 < (result.folder / figure["file"]).stat().st_size < MAX_FIGURE_BYTES
    cells = nbformat.read(result.folder / "executed.ipynb", as_version=4).cells
    images = [
        output
        for cell in cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", ())
    ]
    assert len(images) >= len(results["figures"]), "the rendered notebook does not show all figures"
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert not network_loads(page)
