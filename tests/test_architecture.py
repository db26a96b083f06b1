"""The corridor is straight, as import-linter sees it (pyproject.toml), and what no linter knows
of.
"""

from __future__ import annotations

import ast
import collections
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "pfcalib").rglob("*.py"), *(ROOT / "notebooks" / "studies").glob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
}


def test_who_may_import_whom():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[done.stdout.find("Broken contracts") :]


@pytest.mark.parametrize(
    "module", ["pfcalib", "pfcalib.cli", "pfcalib.columns", "pfcalib.geometry"]
)
def test_importing_the_package_is_light(module):
    heavy = {"tensorflow", "keras", "matplotlib", "onnxruntime"}
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_validator_never_loads_keras():
    names = "{'tensorflow', 'keras'} & sys.modules.keys()"
    code = f"import sys, pfcalib.deploy.validator; print(sorted({names}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_two_modules_never_share_a_name():
    stems = collections.Counter(path.stem for path in FILES if path.stem != "__init__")
    assert [name for name, count in stems.items() if count > 1] == []


def test_a_study_is_imported_by_one_notebook_only():
    """A second one promotes it to a room of the package."""
    for path in (ROOT / "notebooks" / "studies").glob("*.py"):
        users = [
            nb.name
            for nb in (ROOT / "notebooks").glob("*.ipynb")
            if re.search(rf"studies(\.| import \w*){path.stem}\b", nb.read_text("utf-8"))
        ]
        assert len(users) <= 1, f"{path.name} is imported by {', '.join(users)}"


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_a_module_opens_with_one_sentence_and_documents_what_is_public(path):
    docstring = ast.get_docstring(TREES[path])
    assert docstring, f"{NAMES[path]} has no docstring"
    assert docstring.partition("\n\n")[0].rstrip().endswith("."), (
        f"{NAMES[path]}: the docstring does not open with a sentence"
    )
    for node in TREES[path].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{NAMES[path]}: {node.name} has no docstring"


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not [
        path for path in FILES if re.fullmatch(r"_?(utils?|helpers?|misc|common|tools)", path.stem)
    ]


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_no_pickle_is_loaded_and_no_global_randomness_used(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), (
                f"{NAMES[path]}, line {node.value.lineno}: allow_pickle is not a literal"
            )
            assert node.value.value is False, (
                f"{NAMES[path]}, line {node.value.lineno}: allow_pickle"
            )
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (
            "np.random",
            "numpy.random",
        ):
            allowed = ("Generator", "SeedSequence", "default_rng", "PCG64", "Philox")
            assert node.attr in allowed, (
                f"{NAMES[path]}, line {node.lineno}: {ast.unparse(node)} has a hidden state"
            )


def test_no_file_names_a_path_of_one_machine():
    machine = re.compile(r"(?<![\w.~:/])/(home|root|work|Users|mnt|scratch|afs|eos)/\w")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout.split("\0")
    suffixes = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".json", ""}
    files = [
        ROOT / name
        for name in listed
        if name and Path(name).suffix in suffixes and Path(name) != Path(__file__).relative_to(ROOT)
    ]
    found = [
        f"{path}: {match[0]}"
        for path in files
        if path.is_file() and (match := machine.search(path.read_text("utf-8", errors="ignore")))
    ]
    assert not found


def test_every_test_file_says_what_it_holds():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), (
            f"{path.name} has no docstring"
        )
