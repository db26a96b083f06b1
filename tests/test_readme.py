"""What the README tells a user to type works as it stands.

The quick commands and all snippets of Python are run, in the order in which they stand, in one
empty folder; of those that take minutes (``LONG``) the options are parsed, and what changes the
environment (make, pip) is held against Makefile and pyproject.toml.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer

from pfcalib import cli

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"```(bash|python)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
)
LONG = (
    "pfcalib run",
    "pfcalib report",
    "pfcalib sweep",
    "pfcalib verify",
    "pfcalib serve",
    "pfcalib tune",
    "pfcalib compare",
    "pfcalib simulate g4.root",
)


def require_target(words: list[str]) -> None:
    """Refuse a target that the Makefile has not."""
    subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def require_extras(words: list[str]) -> None:
    """Refuse an installation other than from the clone, and extras that pyproject.toml has not."""
    names = re.fullmatch(r"pip install -e \.\[(.+)\]", " ".join(words))
    assert names, words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(names[1].split(",")) <= set(project["optional-dependencies"])


def require_options(words: list[str]) -> None:
    """Refuse options that the verb has not."""
    verb = typer.main.get_command(cli.app).commands[words[1]]  # type: ignore[attr-defined]
    verb.make_context(words[1], words[2:])


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line of a shell, or what stands for it."""
    words = shlex.split(line, comments=True)
    match words[0]:
        case "make":
            require_target(words)
        case "pip":
            require_extras(words)
        case "source":
            assert words[1:] == [".venv/bin/activate"]  # the environment that the Makefile makes
        case "pfcalib" if line.startswith(LONG):
            require_options(words)
        case "pfcalib":
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code, f"{line}: {ended.value.code}"
        case other:
            raise AssertionError(f"{other} is not known to this test: {line}")


# of Keras with numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_readme_works_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")  # `pfcalib list` wants a clone
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
            continue
        for line in block.splitlines():
            run(line, monkeypatch)
    assert {"p_em.root", "e_pred.root", "e_lcw.root", "own.root"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert len(names["images"]["EMB1"]) == len(names["sample"]) > 0
    assert sum(names["energy"]) == pytest.approx(names["sample"]["clusterE"].sum(), rel=1e-5)
    assert len(names["objects"].tracks) > 0
    assert len(names["stream"]) > 0
    assert len(names["clusters"]["response"]) > 0
    assert np.isfinite(names["energies"].full).all()  # noise may leave less than nothing
    assert (names["e_calibrated"] > 0.0).all()


def test_what_the_readme_links_to_is_there():
    text = (ROOT / "README.md").read_text("utf-8")
    places = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []
