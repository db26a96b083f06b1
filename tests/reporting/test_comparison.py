"""Two results are compared within errors; a re-run agrees if nothing but timings has moved."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pfcalib.cli import app
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.reporting.comparison import compare_results, disagreements, render_table
from pfcalib.reporting.results import Report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results() -> dict:
    metrics = {
        "auc": (0.9, 0.03, ""),
        "cut": (2.0, None, ""),
        "rate": (100.0, 1.0, "1/s"),
        "speed_ratio": (3.0, 0.1, ""),
        "missing": (None, None, "GeV"),
    }
    return {
        "status": "passed",
        "metrics": {
            name: {"value": value, "error": error, "unit": unit, "definition": name}
            for name, (value, error, unit) in metrics.items()
        },
    }


def moved(results: dict, name: str, value: float | None) -> dict:
    other = copy.deepcopy(results)
    other["metrics"][name]["value"] = value
    return other


def test_a_difference_is_counted_in_its_standard_deviations(results):
    other = moved(results, "auc", 1.0)
    other["metrics"]["auc"]["error"] = 0.04
    pairs = {pair.name: pair for pair in compare_results(results, other)}
    assert pairs["auc"].significance == pytest.approx(2.0)  # 0.1 over the root of 0.03^2 + 0.04^2
    assert pairs["cut"].significance is None
    table = render_table(list(pairs.values()))
    assert "| `auc` | 0.900 ± 0.030 | 1.000 ± 0.040 | 0.1 | +2.0 |" in table
    assert "| `rate` | 100.0 ± 1.0 1/s | 100.0 ± 1.0 1/s | 0 | timing |" in table


def test_a_rerun_agrees_within_errors_or_a_thousandth_and_timings_are_not_judged(results):
    def wrong(name: str, value: float | None, sigmas: float = 1.0) -> list[str]:
        return disagreements(results, moved(results, name, value), sigmas, ("speed_*",))

    assert wrong("auc", 0.92) == wrong("cut", 2.001) == []
    assert wrong("auc", 0.94) == ["auc: was 0.900 ± 0.030, is 0.940 ± 0.030"]
    assert wrong("auc", 0.92, sigmas=0.5)
    assert wrong("cut", 2.003)
    assert wrong("auc", None)
    assert wrong("missing", 1.0)
    assert wrong("rate", 50.0) == wrong("speed_ratio", 9.0) == []
    other = {**results, "status": "failed", "error": "cell 3"}
    assert disagreements(results, other, 1.0) == ["was passed, is failed: cell 3"]
    fewer = copy.deepcopy(results)
    del fewer["metrics"]["auc"]
    assert disagreements(results, fewer, 9.0) == ["auc: was 0.900 ± 0.030, is –"]
    other = copy.deepcopy(results)
    other["metrics"]["missing"]["unit"] = "MeV"
    with pytest.raises(ConfigError, match="missing is in GeV and in MeV"):
        compare_results(results, other)


def write_results(folder: Path, value: float) -> Path:
    report = Report("02_clusters", folder, {"profile": "smoke", "seed": 1}, seed=1)
    report.metric("auc", value, 0.01, "", "area")
    report.finish()
    return folder


def test_the_command_shows_the_table_and_writes_a_page(tmp_path, monkeypatch, network_loads):
    monkeypatch.chdir(ROOT)
    a, b = write_results(tmp_path / "a", 0.9), write_results(tmp_path / "b", 0.92)
    page = tmp_path / "page.html"
    published = ROOT / "reports" / "02_clusters"
    for one, two in ((a, b / "results.json"), (published, published)):
        done = CliRunner().invoke(app, ["compare", str(one), str(two), "--page", str(page)])
        assert done.exit_code == 0, done.output
    text = page.read_text()
    figures = json.loads((published / "results.json").read_text())["figures"]
    assert text.count('src="data:image/png;base64,') == 2 * len(figures) > 0
    assert text.count('alt="') == 2 * len(figures)
    assert not network_loads(text)
    with pytest.raises(ValidationError, match="not readable"):
        CliRunner().invoke(app, ["compare", str(a), str(tmp_path)], catch_exceptions=False)
