"""The command derives a table of E/p, says what it made in one line, and names what is wrong with
its input.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import make_sample
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.calibration.eoverp import EoverPTable
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.geometry import BARREL
from pfcalib.samples.write import write_sample
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.refine import point


@pytest.fixture
def sample(rng, tmp_path):
    """Pions whose tracks point to their clusters."""
    toy = make_sample(rng, 8000, BARREL, max_cells=6)
    energy = np.exp(rng.uniform(np.log(0.6), np.log(60.0), len(toy))).astype(np.float32)
    energy[1::2] = energy[::2]  # both clusters of an event
    truth = {"truthE": energy, "truthEta": toy["clusterEta"]}
    straight = Particles(
        np.arange(len(toy)),
        toy["truthPdgId"],
        np.float64(energy),
        np.zeros(len(toy)),
        np.zeros(len(toy)),
    )
    bend = point(straight, BARREL, field=2.0)[1, :, 2]
    truth["truthPhi"] = (toy["clusterPhi"] - bend).astype(np.float32)
    write_sample(
        tmp_path / "pions.root", dataclasses.replace(toy, scalars={**toy.scalars, **truth})
    )
    return tmp_path / "pions.root"


def test_a_table_is_derived_and_only_replaced_when_forced(sample, tmp_path):
    out = tmp_path / "eoverp.json"
    result = CliRunner().invoke(cli.app, ["derive-eoverp", str(sample), str(out)])
    assert result.exit_code == 0, result.output
    assert f"{out.name}: from " in result.output
    table = EoverPTable.load(out)
    assert table.provenance["n_pions"] == 2000  # every second event is charged
    assert table.provenance["split"] == "all"
    again = CliRunner().invoke(cli.app, ["derive-eoverp", str(sample), str(out)])
    assert isinstance(again.exception, ConfigError)
    assert "--force" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["nowhere.root", "out.json"], BadFileError, "nowhere.root: no such file"),
        (["nowhere.root", "out.root"], ConfigError, "must end with .json"),
        (["SAMPLE", "out.json", "--split", "half"], ConfigError, "split must be one of"),
        (["SAMPLE", "out.json", "--split", "validation"], ValidationError, "pions with a cluster"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    sample, tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    words = [str(sample) if word == "SAMPLE" else word for word in arguments]
    result = CliRunner().invoke(cli.app, ["derive-eoverp", *words])
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not (tmp_path / "out.json").exists()
