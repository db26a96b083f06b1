"""The command derives tables of local cell weighting, says what it made in one line, and names what
is wrong with its input.
"""

from __future__ import annotations

import pytest
from factories import make_sample
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.calibration.lcw import LcwTables
from pfcalib.errors import BadFileError, ConfigError
from pfcalib.samples.write import write_sample


@pytest.fixture
def sample(rng, tmp_path):
    write_sample(tmp_path / "pions.root", make_sample(rng, 300))
    return tmp_path / "pions.root"


def test_tables_are_derived_from_the_split_that_is_named(sample, tmp_path):
    for split, expected in (("train", "train"), ("all", "all")):
        out = tmp_path / f"{split}.json"
        result = CliRunner().invoke(
            cli.app, ["derive-lcw", str(sample), str(out), "--split", split]
        )
        assert result.exit_code == 0, result.output
        assert f"{out.name}: from " in result.output
        assert LcwTables.load(out).provenance["split"] == expected
    assert "150 neutral and 150 charged clusters" in result.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["nowhere.root", "out.json"], BadFileError, "nowhere.root: no such file"),
        (["nowhere.root", "out.root"], ConfigError, "must end with .json"),
        (["SAMPLE", "out.json", "--split", "half"], ConfigError, "split must be one of"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    sample, tmp_path, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        cli.app, ["derive-lcw", *(str(sample) if word == "SAMPLE" else word for word in arguments)]
    )
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not (tmp_path / "out.json").exists()
