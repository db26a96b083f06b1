"""The command that makes samples: guns and dijets, cuts of the clustering, and one line for options
that do not fit.
"""

import sys

import pytest

from pfcalib import cli
from pfcalib.cli import console
from pfcalib.cli.simulate import parse_thresholds
from pfcalib.errors import ConfigError
from pfcalib.samples.read import read_sample
from pfcalib.tagging.ftagfiles import PILE_UP, read_tagged


@pytest.fixture
def simulate(tmp_path, monkeypatch, capfd):
    """Run `pfcalib simulate out.root` with arguments; the error line, empty if it worked, and the
    path.
    """

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["pfcalib", "simulate", str(tmp_path / "out.root"), *arguments]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, tmp_path / "out.root"

    return run


def test_dijets_are_written_with_the_settings_given(simulate):
    code, path = simulate(
        "--process",
        "dijets",
        "-n",
        "2",
        "--pt-hat-min",
        "40",
        "--pt-hat-max",
        "90",
        "--thresholds",
        "5,3,1",
        "--seed",
        "7",
    )
    assert code == 0
    config = read_sample(path).metadata["config"]
    assert (
        config["dijets"]["pt_hat_min"],
        config["dijets"]["pt_hat_max"],
        config["dijets"]["eta_max"],
    ) == (40.0, 90.0, 0.8)
    assert (config["thresholds"], config["seed"], config["n_events"]) == ([5.0, 3.0, 1.0], 7, 2)


def test_guns_take_thresholds_too(simulate):
    code, path = simulate("-n", "4", "--grid", "window", "--e-max", "5", "--thresholds", "4,3,1")
    assert code == 0
    config = read_sample(path).metadata["config"]
    assert (config["thresholds"], config["eta_max"], config["engine"]) == (
        [4.0, 3.0, 1.0],
        0.05,
        "fast",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--process", "jets"), "--process must be one of guns, dijets, tagging, not 'jets'"),
        (
            ("--process", "dijets", "--grid", "window", "--e-max", "5"),
            "--e-max, --grid: only for --process guns, not for dijets",
        ),
        (("--pt-hat-min", "30"), "--pt-hat-min: only for --process dijets, not for guns"),
        (("--process", "dijets", "--pt-hat-min", "300"), "pt_hat must satisfy"),
        (
            ("--process", "dijets", "--eta-max", "0.9"),
            "eta_max must lie in (0, 0.8], the barrel, not 0.9",
        ),
        (("--thresholds", "4,2"), "--thresholds must be three numbers such as 4,2,0, not '4,2'"),
        (("--thresholds", "2,4,0"), "thresholds must satisfy seed >= growth >= boundary"),
    ],
)
def test_what_does_not_fit_ends_with_one_line_and_no_file(simulate, arguments, message):
    code, path = simulate("-n", "2", *arguments)
    assert code.startswith("pfcalib: ")
    assert message in code
    assert "\n" not in code
    assert list(path.parent.iterdir()) == []


def test_without_pythia_the_command_ends_with_one_line(simulate, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    code, path = simulate("--process", "dijets", "-n", "2")
    assert "pip install 'pfcalib[pythia]'" in code
    assert list(path.parent.iterdir()) == []


def test_a_file_is_replaced_only_when_that_is_asked_for(simulate):
    few = ("-n", "2", "--grid", "window", "--e-min", "5", "--e-max", "6")
    _, path = simulate(*few)
    first = path.read_bytes()
    assert simulate(*few, "--seed", "2")[0]
    assert path.read_bytes() == first
    assert simulate(*few, "--seed", "2", "--force")[0] == 0
    assert read_sample(path).metadata["seed"] == 2


def test_it_says_how_many_events_left_no_cluster(simulate, capfd):
    soft = ("--grid", "window", "--e-max", "0.4", "--particles", "pi+")
    _, path = simulate("-n", "60", *soft)
    n_empty = read_sample(path).metadata["n_events_without_cluster"]
    assert n_empty > 0
    said = capfd.readouterr().out
    assert f"{60 - n_empty} of 60 events" in said
    assert f"{n_empty} left no cluster above 0.1 GeV" in said


def test_a_log_gets_lines_of_progress(simulate, capfd, monkeypatch):
    monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
    simulate("-n", "100", "--grid", "window", "--e-max", "5", "--workers", "1")
    assert "64 of 100 events in " in capfd.readouterr().err


def test_the_old_name_of_the_number_of_workers_is_taken(simulate, capfd):
    code, _ = simulate("-n", "0", "--processes", "2")  # it goes as far as the wrong number
    assert code == 2
    assert "--events" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "4,2", "4,2,0,0", "4,two,0"])
def test_thresholds_that_are_not_three_numbers_are_refused(text):
    with pytest.raises(ConfigError, match="must be three numbers"):
        parse_thresholds(text)


def test_jets_with_tracks_are_written_as_h5(simulate, capfd):
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    code, path = simulate("--process", "tagging", "-n", "12", "--mu", "0", "--seed", "3")
    assert code == 0
    assert "jets of 12 events" in capfd.readouterr().out
    sample = read_tagged(path)
    assert len(sample) > 20
    assert not (sample.tracks["ftagTruthOriginLabel"][sample.valid] == PILE_UP).any()
    code, _ = simulate("--process", "tagging", "--force", "--grid", "window")
    assert "--grid: only for --process guns" in code
    code, _ = simulate("--process", "tagging", "--force", "--noise", "pileup")
    assert "--noise: not for --process tagging" in code
    code, _ = simulate("--collisions", "zprime", "--force")
    assert "--collisions: only for --process tagging" in code


def test_a_generator_needs_its_folder_and_the_engine(simulate, tmp_path):
    code, _ = simulate("-n", "4", "--engine", "generator", "--grid", "window")
    assert "--generator FOLDER go together" in code
    code, path = simulate(
        "-n", "4", "--grid", "window", "--engine", "generator", "--generator", str(tmp_path)
    )
    assert "no generator" in code
    assert not path.exists()
