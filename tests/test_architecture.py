"""The corridor is straight: who may import whom, how long things may be, and what may not occur at all."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "pfcalib").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40  # lines with code: the docstring, comments and blank lines do not count

# Part of the package: the parts that it may import besides itself and errors. A part that is not listed may import nothing of ours.
MAY_IMPORT = {
    "": {"kernel_cache"},
    "geometry": {"columns"},
    "response": {"columns"},
    "roc": {"columns"},
    "simulation": {"geometry", "columns"},
    "clustering": {"geometry", "columns"},
    "samples": {"columns", "geometry"},
    "features": {"samples", "geometry", "columns"},
    "calibration": {"clustering", "samples", "features", "response", "columns"},
    "models": {"features", "columns"},
    "stream": {"samples", "features", "columns"},
    "mixture": {"stream"},
    "train": {"models", "stream", "history"},
    "networks": {"deploy", "features", "mixture", "models", "samples", "stream", "train"},
    "deploy": {"features", "models", "columns"},
    "produce": {"simulation", "clustering", "samples", "geometry", "columns"},
    "fidelity": {"simulation", "clustering", "samples", "features", "geometry", "columns", "response", "roc"},
    "engines": {"fidelity", "produce", "samples", "simulation", "geometry", "roc"},
    "events": {"simulation", "clustering", "samples", "geometry", "roc"},
    "plots": {"columns", "geometry", "response", "roc", "clustering", "samples"},
    "regressors": {"calibration", "features", "models", "networks", "samples", "stream", "uncertainty"},
    "regression_study": {
        "deploy",
        "features",
        "models",
        "networks",
        "performance",
        "regressors",
        "response",
        "roc",
        "samples",
        "size_study",
        "uncertainty",
    },
    "classifiers": {"calibration", "features", "models", "networks", "samples", "stream"},
    "regions": {"features"},
    "probe": {"deploy", "features", "networks", "performance", "regressors", "samples"},
    "importance": {"evaluate", "networks", "performance", "probe", "regions", "regressors", "response", "roc"},
    "attribution": {"deploy", "regions", "roc"},
    "insight": {"attribution", "evaluate", "importance", "networks", "performance", "probe", "regions", "regressors", "roc", "samples"},
    "evaluate": {"roc", "columns"},
    "performance": {"evaluate", "response", "roc"},
    "performance_histograms": {"performance", "response"},
    "combine": {"performance", "response", "roc"},
    "combined_study": {"calibration", "combine", "evaluate", "features", "models", "performance", "regression_study", "regressors", "roc", "samples"},
    "tuned": {"features", "models", "networks", "regressors", "samples", "train"},
    "tune": {"features", "models", "networks", "regressors", "samples", "train", "tune_space", "tuned"},
    "tune_space": set(),
    "tune_results": {"networks", "provenance", "samples", "tune", "tune_space", "tuned"},
    "uncertainty": {"response", "roc"},
    "domain": {"calibration", "evaluate", "features", "models", "networks", "performance", "produce", "regressors", "response", "roc", "samples"},
    "size_study": {"classifiers", "features", "models", "networks", "roc", "samples"},
    "lcw_study": {"calibration", "performance", "response", "roc", "samples"},
    "reference": {"geometry", "produce", "samples", "simulation"},
    "report": {"provenance"},
    "pages": {"report", "studies"},
    "throughput": {"columns", "features", "models", "samples", "stream"},
    "run": {"pages", "report", "studies"},
}
EVERYTHING = {"cli", "cli_data", "cli_simulate", "cli_tune"}  # may import all parts, and does so inside its commands, so that --help answers at once

# Packages that only some modules may import (prefixes of module names).
ONLY_IN = {
    "matplotlib": ("pfcalib.plots",),
    "mplhep": ("pfcalib.plots",),
    "papermill": ("pfcalib.run",),
    "keras": (
        "pfcalib.models",
        "pfcalib.train",
        "pfcalib.stream",
        "pfcalib.mixture",
        "pfcalib.throughput",
        "pfcalib.attribution",
        "pfcalib.deploy.export",
        "pfcalib.cli",
    ),
    "tensorflow": (
        "pfcalib.models",
        "pfcalib.train",
        "pfcalib.stream",
        "pfcalib.mixture",
        "pfcalib.throughput",
        "pfcalib.attribution",
        "pfcalib.deploy.export",
    ),
    "tf2onnx": ("pfcalib.deploy.export",),
    "onnxruntime": ("pfcalib.deploy",),
    "pickle": (),
    "cloudpickle": (),
    "joblib": (),
    "dill": (),
    "shelve": (),
}
EXTRAS = {"geant4_pybind", "pythia8mc"}  # optional packages: the only ones that may be imported inside a function


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that is imported, with its statement; `from pfcalib import x` gives pfcalib.x where that is a module."""
    modules = set(NAMES.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in modules else str(node.module)), node


def part(module: str) -> str:
    """`pfcalib.samples.read` belongs to `samples`; the package itself to the empty part; plots_..., fidelity_..., throughput_... are one each."""
    name = module.split(".")[1] if "." in module else ""
    return next((whole for whole in ("plots", "fidelity", "throughput", "produce", "engines", "domain") if name.startswith(f"{whole}_")), name)


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_a_module_imports_only_what_its_part_may(path):
    own = part(NAMES[path])
    if own in EVERYTHING:
        return
    allowed = MAY_IMPORT.get(own, set()) | {own, "errors", ""}  # the empty part: pfcalib.__version__
    found = {part(module) for module, _ in imports(TREES[path]) if module.split(".")[0] == "pfcalib"}
    assert found <= allowed, f"{NAMES[path]} may not import {', '.join(sorted(found - allowed))}"


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_heavy_and_unsafe_packages_stay_where_they_belong(path):
    for module, node in imports(TREES[path]):
        homes = ONLY_IN.get(module.split(".")[0])
        if homes is None or NAMES[path].startswith(homes or ("nowhere",)):
            continue
        pytest.fail(f"{NAMES[path]}, line {node.lineno}: {module} may be imported only in {', '.join(homes) or 'no module'}")


def test_there_are_no_cycles():
    modules = set(NAMES.values())
    graph = {NAMES[path]: {module for module, _ in imports(tree)} & modules - {NAMES[path]} for path, tree in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_imports_stand_at_the_top(path):
    if part(NAMES[path]) in EVERYTHING:
        return
    for function in (node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        inner = [module for module, _ in imports(function) if module.split(".")[0] not in EXTRAS]
        assert not inner, f"{NAMES[path]}, {function.name}: imports {inner[0]} inside the function"


@pytest.mark.parametrize("module", ["pfcalib", "pfcalib.cli", "pfcalib.columns", "pfcalib.geometry"])
def test_importing_the_package_is_light(module):
    code = f"import sys, {module}; print([name for name in ('tensorflow', 'keras', 'matplotlib', 'onnxruntime') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.skipif(not (ROOT / "pfcalib" / "deploy" / "validate.py").exists(), reason="there is no validator yet")
def test_the_validator_never_loads_keras():
    code = "import sys, pfcalib.deploy.validate; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_a_module_is_short_and_opens_with_one_sentence(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES
    docstring = ast.get_docstring(TREES[path])
    assert docstring, f"{NAMES[path]} has no docstring"
    assert docstring.partition("\n\n")[0].rstrip().endswith("."), f"{NAMES[path]}: the docstring does not open with a sentence"


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_functions_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert count_code_lines(node, lines) <= MAX_FUNCTION_LINES, f"{NAMES[path]}, {node.name}: more than {MAX_FUNCTION_LINES} lines of code"


def count_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of the body that hold code; the signature is an interface and does not count either."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    text = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text)


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_public_functions_are_documented_and_typed(path):
    for node in TREES[path].body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), f"{NAMES[path]}: {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{NAMES[path]}: {node.name} has no return type"


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not [path for path in FILES if re.fullmatch(r"_?(utils?|helpers?|misc|common|tools)", path.stem)]


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_no_pickle_is_loaded_and_no_global_randomness_used(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"{NAMES[path]}, line {node.value.lineno}: allow_pickle is not a literal"
            assert node.value.value is False, f"{NAMES[path]}, line {node.value.lineno}: allow_pickle"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            allowed = ("Generator", "SeedSequence", "default_rng", "PCG64", "Philox")
            assert node.attr in allowed, f"{NAMES[path]}, line {node.lineno}: {ast.unparse(node)} has a hidden state"


def test_no_file_names_a_path_of_one_machine():
    machine = re.compile(r"(?<![\w.~:/])/(home|root|work|Users|mnt|scratch|afs|eos)/\w")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    suffixes = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".json", ""}
    files = [ROOT / name for name in listed if name and Path(name).suffix in suffixes and Path(name) != Path(__file__).relative_to(ROOT)]
    found = [f"{path}: {match[0]}" for path in files if path.is_file() and (match := machine.search(path.read_text("utf-8", errors="ignore")))]
    assert not found


def test_every_test_file_says_what_it_holds():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path.name} has no docstring"
