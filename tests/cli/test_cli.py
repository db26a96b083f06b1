"""The command does its work, explains itself with units, and ends with one line and exit code 1 on
bad input.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import nbformat
import pytest
import typer
import yaml
from factories import make_sample
from typer.testing import CliRunner

from pfcalib import __version__, cli
from pfcalib.cli.console import study_names
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.write import write_sample

COMMANDS = list(typer.main.get_command(cli.app).commands)
TINY = """\
from pfcalib.reporting.results import open_report
report = open_report("01_tiny", globals())
report.metric("n_events", n_events, None, "", "events")
report.check("enough events", n_events, "> 5", n_events > 5)
report.finish()"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one study, and the current folder in it."""
    new = nbformat.v4
    parameters = "seed = 1\nn_events = 10\nprofile = 'lab'\nout_dir = 'lab'"
    cells = [
        new.new_markdown_cell("# 01 Tiny"),
        new.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new.new_code_cell(TINY),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "notebooks" / "01_tiny.ipynb")
    profiles = {name: {"seed": 1, "n_events": 10} for name in ("smoke", "standard", "full")}
    (tmp_path / "notebooks" / "profiles").mkdir()
    (tmp_path / "notebooks" / "profiles" / "01_tiny.yaml").write_text(yaml.safe_dump(profiles))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_commands_are_there():
    assert {
        "simulate",
        "inspect",
        "convert",
        "train",
        "run",
        "validate",
        "list",
        "report",
        "index",
        "readme",
    } <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_every_option_has_a_help_text_and_energies_have_units():
    for name, command in typer.main.get_command(cli.app).commands.items():
        for option in command.params:
            assert option.help, f"{name}: {option.name}"
    assert "GeV" in CliRunner().invoke(cli.app, ["simulate", "--help"]).output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_an_example_that_the_command_takes(command):
    verb = typer.main.get_command(cli.app).commands[command]
    examples = re.findall(r"^Example: pfcalib (.+)$", verb.help, re.MULTILINE)
    assert len(examples) == 1, f"{command}: no line `Example: pfcalib {command} ...`"
    name, *arguments = shlex.split(examples[0])
    assert name == command
    verb.make_context(name, arguments)


UNITS = (
    r"\b(GeV|mm|rad|seconds|microseconds|MB|standard deviations"
    r"|pure number|(mean )?number of|of Adam)\b"
)


def test_every_number_that_is_no_count_tells_its_unit():
    """The learning rate, abs(eta) and mu have none."""
    found = 0
    for command in cli.app.registered_commands:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *options = get_args(hint) or (hint,)
            if float in (kind, *get_args(kind)):
                found += 1
                assert re.search(UNITS, options[0].help, re.IGNORECASE), (command.callback, name)
    assert found > 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pfcalib ru", ["run"]),
        ("pfcalib run 0", ["01_tiny"]),
        ("pfcalib run 7", []),
        ("pfcalib report --profile s", ["smoke", "standard"]),
    ],
)
def test_a_shell_completes_verbs_studies_and_profiles(clone, line, words):
    told = {"_PFCALIB_COMPLETE": "complete_bash", "COMP_WORDS": line}
    told["COMP_CWORD"] = str(line.count(" "))
    result = CliRunner().invoke(cli.app, [], prog_name="pfcalib", env=told)
    assert result.output.split() == words


def test_outside_of_a_clone_no_study_is_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study_names("0") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nowhere.root"), "nowhere.root: no such file"),
        (
            ("inspect", "nowhere.root", "--plot", "page.txt"),
            "--plot page.txt: the name must end with one of .png, .pdf, .svg",
        ),
        (("convert", "nowhere.root"), "convert needs at least one input and the output"),
        (("convert", "nowhere.root", "out.root"), "nowhere.root: no such file"),
        (
            ("convert", "nowhere.root", "out.root", "--on-error", "guess"),
            "--on-error must be raise or skip, got 'guess'",
        ),
        (("run", "99_nothing"), "study '99_nothing' is unknown; there are 01_tiny"),
        (("run", "01_tiny", "-p", "n_event=3"), "unknown parameter 'n_event'"),
        (("run", "01_tiny", "-p", "n_events=many"), "not a JSON value"),
        (("run", "01_tiny", "--profile", "huge"), "profile 'huge' is unknown"),
        (("train", "nowhere.root", "--out", "out", "--model", "none"), "--model 'none' is unknown"),
        (("validate", "nowhere.onnx"), "nowhere.onnx"),
        (("readme",), "README.md"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_1(clone, pfcalib, arguments, message):
    code, _, errors = pfcalib(*arguments)
    assert code == 1
    assert errors.startswith("pfcalib: ")
    assert message in errors
    assert "\n" not in errors.strip()
    assert not (clone / "reports").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "taken"),
        ("example", "mltree", "--out", "taken"),
        ("inspect", "taken", "--plot", "taken.pdf"),
        ("convert", "in.root", "taken"),
        ("derive-lcw", "in.root", "taken.json"),
        ("apply", "small-classifier", "in.root", "taken"),
        ("train", "in.root", "--out", "folder"),
        ("tune", "in.root", "--out", "taken.json"),
        ("tune-showers", "in.root", "--out", "taken"),
        ("refine-showers", "in.root", "--out", "taken"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_replaced_unless_forced(clone, pfcalib, arguments):
    (clone / "folder").mkdir()
    taken = [clone / name for name in ("taken", "taken.pdf", "taken.json", "folder/notes.txt")]
    for path in taken:
        path.write_text("mine")
    code, _, errors = pfcalib(*arguments)
    assert code == 1
    name = next(word for word in reversed(arguments) if word.startswith(("taken", "folder")))
    assert errors == f"pfcalib: {name} exists: give another name, or --force to replace it"
    assert {path.read_text() for path in taken} == {"mine"}


@pytest.mark.parametrize("verb", ["tune-showers", "refine-showers"])
def test_showers_are_never_fitted_to_those_that_studies_judge_with(clone, pfcalib, verb):
    assert pfcalib(verb, "--out", "numbers")[0] == 2  # which showers, must be said


def test_only_what_can_be_refined_is(clone, pfcalib):
    code, _, errors = pfcalib("refine-showers", "in.root", "--out", "new", "--species", "pi0,muon")
    assert code == 1
    assert errors == "pfcalib: unknown species ['muon']; there are pi0, pion"


def test_a_misspelt_option_is_an_error_of_usage(clone, pfcalib):
    assert pfcalib("run", "01_tiny", "--profil", "smoke")[0] == 2


def test_a_simulated_sample_is_sound(clone, pfcalib):
    code, output, errors = pfcalib(
        "simulate",
        "pions.root",
        "-n",
        "20",
        "--grid",
        "window",
        "--eta-max",
        "0.1",
        "--e-min",
        "5",
        "--e-max",
        "50",
    )
    assert code == 0, errors
    assert "pions.root" in output
    code, output, errors = pfcalib("inspect", "pions.root")
    assert code == 0, errors
    assert "all branches are there, all values are sane" in output


def test_inspect_draws_a_page_of_showers_and_names_what_made_them(clone, pfcalib):
    code, output, errors = pfcalib(
        "inspect", str(packaged_sample("geant4_pions")), "--plot", "pages/showers.png"
    )
    assert code == 0, errors
    assert (clone / "pages" / "showers.png").read_bytes().startswith(b"\x89PNG")
    assert "layout: showers" in output
    assert "8720 events, 8720 showers, 4880 of them of pi0, photons or electrons" in output
    assert "true energy: 0.5005 to 119.8 GeV" in output
    assert "made by: Geant4" in output
    assert "pages/showers.png: page of histograms" in output


def test_convert_writes_what_inspect_finds_sound_and_tells_what_it_skipped(clone, pfcalib, rng):
    write_sample(clone / "good.root", make_sample(rng, 30))
    (clone / "bad.root").write_bytes((clone / "good.root").read_bytes()[:-500])
    code, _, errors = pfcalib("convert", "good.root", "bad.root", "out.root")
    assert code == 1
    assert "bad.root" in errors
    assert not (clone / "out.root").exists()
    code, output, errors = pfcalib(
        "convert", "good.root", "bad.root", "out.root", "--on-error", "skip"
    )
    assert code == 0, errors
    assert "skipped: bad.root: " in output
    assert "out.root: 30 clusters from pfcalib" in output
    code, output, _ = pfcalib("inspect", "out.root")
    assert code == 0
    assert "made by: synthetic, converted from pfcalib" in output


def test_what_is_no_sample_is_told_in_one_line(clone, pfcalib):
    (clone / "text.root").write_text("no ROOT file")
    code, _, errors = pfcalib("inspect", "text.root")
    assert code == 1
    assert errors.startswith("pfcalib: text.root: ")


def test_run_makes_the_folder_and_the_index(clone, pfcalib):
    code, output, _ = pfcalib("run", "01", "-p", "n_events=7")
    assert code == 0
    assert "01_tiny: required checks hold" in output
    assert (clone / "reports" / "01_tiny" / "smoke-n_events=7" / "report.html").is_file()
    assert (clone / "reports" / "index.html").is_file()


def test_a_failed_study_fails_the_command(clone, pfcalib):
    code, output, errors = pfcalib("run", "01_tiny", "-p", "n_events=3")
    assert code == 1
    assert "01_tiny: required checks failed" in output
    assert "enough events = 3" in errors


def test_list_shows_the_parameters_of_each_profile(clone, pfcalib):
    code, output, _ = pfcalib("list")
    assert code == 0
    assert "01_tiny: 01 Tiny" in output
    assert "n_events" in output


def test_the_version_is_told(pfcalib):
    assert pfcalib("--version")[1] == f"pfcalib {__version__}\n"


def test_python_m_pfcalib_is_the_command():
    command = [sys.executable, "-m", "pfcalib", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"pfcalib {__version__}\n"


def test_the_command_is_installed():
    result = subprocess.run(
        [str(Path(sys.executable).parent / "pfcalib"), "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "simulate" in result.stdout
