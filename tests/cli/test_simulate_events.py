"""The command that makes events: what it writes is read back with its settings, and one line for
options that do not fit.
"""

import json
import sys

import pytest
import uproot

from pfcalib import cli
from pfcalib.samples.schema import METADATA


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """Run `pfcalib simulate-events out.root` with arguments; how it ended, and the path."""
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        path = tmp_path / "out.root"
        monkeypatch.setattr(sys, "argv", ["pfcalib", "simulate-events", str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, path

    return run


def test_events_are_written_with_the_settings_given(simulate):
    slices = ("--process", "z_jet", "--pt-hat", "30,60", "--seed", "7")
    code, path = simulate("-n", "2", *slices)
    assert not code
    with uproot.open(path) as file:
        config = json.loads(file[METADATA])["config"]
        assert file["EventTree"].num_entries == 2
    assert (config["collisions"]["process"], config["collisions"]["pt_hat"]) == ("z_jet", [30, 60])
    assert (config["mu"], config["seed"]) == (0.0, 7)
    code, _ = simulate("-n", "2")
    assert code == f"pfcalib: {path} exists: give another name, or --force to replace it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--process", "jets"), "process must be one of dijets, z_jet, minimum_bias, not 'jets'"),
        (("--pt-hat", "20;45"), "--pt-hat must be numbers such as 20,45,100,250, not '20;45'"),
        (("--pt-hat", "45,20"), "pt_hat must be at least two edges that rise"),
        (("-n", "2"), "n_events must be at least 3, one a slice"),
    ],
)
def test_options_that_do_not_fit_are_told_in_one_line(arguments, message, simulate):
    code, path = simulate(*arguments)
    assert message in code
    assert "\n" not in code
    assert not path.exists()
