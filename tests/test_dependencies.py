"""pyproject.toml, requirements.lock and environment.yml tell the same story."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock(root: Path) -> dict[str, tuple[Version, int]]:
    """Name to pinned version and number of hashes."""
    entries = re.split(r"\n(?=\S)", (root / "requirements.lock").read_text().replace("\\\n", " "))
    pins = {}
    for entry in filter(None, map(str.strip, entries)):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry)
        assert match, f"not a pin: {entry[:60]}"
        pins[canonicalize_name(match[1])] = (
            Version(match[2]),
            len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)),
        )
    return pins


def test_every_dependency_is_pinned_inside_its_range(project, lock):
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert canonicalize_name(wanted.name) in lock, (
            f"{wanted.name} is not in requirements.lock; run make lock"
        )
        version, _ = lock[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version, prereleases=True), (
            f"{text}, but the lock has {version}"
        )


def test_every_dependency_has_a_lower_bound(project):
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        assert any(specifier.operator == ">=" for specifier in Requirement(text).specifier), text


def test_every_pin_has_hashes(lock):
    assert len(lock) > 50
    assert not [name for name, (_, n_hashes) in lock.items() if n_hashes == 0]


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml"])
def test_no_registry_is_named(root, name):
    assert not re.search(
        r"https?://|--(extra-)?index-url|--find-links|--trusted-host", (root / name).read_text()
    )


def test_the_conda_environment_adds_only_python_and_tools_to_the_lock(root, project):
    wanted = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    conda = dict.fromkeys(re.split(r"=+", text)[0] for text in wanted if isinstance(text, str))
    assert set(conda) == {"python", "pip", "make", "git"}
    assert [text for text in wanted if isinstance(text, dict)] == [
        {"pip": ["-r requirements.lock"]}
    ]
    (python,) = [
        text.partition("=")[2]
        for text in wanted
        if isinstance(text, str) and text.startswith("python=")
    ]
    assert SpecifierSet(project["requires-python"]).contains(f"{python}.0")
