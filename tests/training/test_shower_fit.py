"""The fit of the parametrised showers finds the numbers with which its reference was made."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from scipy.optimize import least_squares

from pfcalib import cli
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.geometry import WINDOW
from pfcalib.samples.showerfile import Showers, write_showers
from pfcalib.simulation.parameters import ShowerConfig
from pfcalib.simulation.particles import simulate_gun
from pfcalib.simulation.showers import simulate_showers
from pfcalib.training import shower_fit
from pfcalib.training.shower_fit import ShowerFitConfig, fit_showers, read_fit, shower_pulls

SHIFTED = ShowerConfig()._replace(em_lar=1.12 * ShowerConfig().em_lar)
FIT = ShowerFitConfig(
    stages=("em-scale",), n_events=400, copies=1, evaluations=40, edges=(2.0, 4.0, 8.0)
)


@pytest.fixture(scope="module")
def reference():
    """Neutral pions of a calorimeter whose argon answers stronger."""
    rng = np.random.default_rng(5)
    gun = {"energy": (2.0, 8.0), "eta": (-0.05, 0.05), "phi": (-0.05, 0.05)}
    p = simulate_gun("pi0", 400, rng, **gun)
    hits = simulate_showers(p, WINDOW, rng, config=SHIFTED)
    return Showers(p.pdg_id, p.energy, p.eta, p.phi, hits.offsets, hits.cell, hits.signal)


def test_a_known_shift_is_found(reference):
    lines = []
    config, (stage,) = fit_showers(reference, FIT, say=lines.append)
    assert config.em_lar == pytest.approx(SHIFTED.em_lar, rel=0.03)
    assert stage.chi2 < min(1.5, 0.5 * stage.chi2_before)
    assert stage.n_trials <= 40
    assert lines[0].startswith("em-scale, trial 1: chi2 ")
    unchanged = set(ShowerConfig._fields) - set(stage.numbers)
    assert all(getattr(config, name) == getattr(ShowerConfig(), name) for name in unchanged)


@pytest.mark.parametrize("evaluations", [3, 6])
def test_it_ends_at_once_after_its_trials_in_the_midst_of_a_jacobian_too(
    reference, evaluations, monkeypatch
):
    asked = []

    def watched(pulls, *args, **options):
        return least_squares(lambda x: asked.append(x) or pulls(x), *args, **options)

    monkeypatch.setattr(shower_fit, "least_squares", watched)
    fit = dataclasses.replace(FIT, n_events=100, evaluations=evaluations)
    _, (stage,) = fit_showers(reference, fit)
    assert stage.n_trials == evaluations
    assert len(asked) == evaluations + 1  # the last one is refused, and none follows


def test_chi2_is_about_one_for_the_right_numbers_and_large_for_wrong_ones(reference):
    assert 0.2 < np.mean(shower_pulls(reference, SHIFTED, FIT) ** 2) < 1.5
    assert np.mean(shower_pulls(reference, ShowerConfig(), FIT) ** 2) > 2.0


def test_the_command_writes_numbers_that_it_can_go_on_from(reference, tmp_path, monkeypatch, capfd):
    write_showers(tmp_path / "showers.root", reference, WINDOW, {"generator": "a test"})
    out, again = tmp_path / "numbers.json", tmp_path / "again.json"

    def run(*arguments):
        command = ["pfcalib", "tune-showers", str(tmp_path / "showers.root"), *map(str, arguments)]
        few = ["--stages", "em-scale", "--events", "300", "--copies", "1", "--evaluations", "3"]
        monkeypatch.setattr(sys, "argv", command + few)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    assert run("--out", out) == 0
    told = json.loads(out.read_text())
    assert told["reference"]["generator"] == "a test"
    assert told["stages"][0]["n_trials"] == 3
    assert read_fit(out) == ShowerConfig(**told["parameters"])
    assert "em-scale, trial 1: chi2 " in capfd.readouterr().out
    assert run("--out", again, "--start", out) == 0
    assert json.loads(again.read_text())["stages"][0]["chi2_before"] == pytest.approx(
        told["stages"][0]["chi2"]
    )


def test_what_it_cannot_do_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown stages \['colour'\]; there are em-scale"):
        ShowerFitConfig(stages=("colour",))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(BadFileError, match=r"no\.json: expected JSON of `pfcalib tune-showers`"):
        read_fit(tmp_path / "no.json")
