"""The site as it is built from the committed results, in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pfcalib.reporting.site import build_index


@pytest.fixture(scope="session")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site of the published results."""
    clone = tmp_path_factory.mktemp("clone")
    (clone / "notebooks").symlink_to(root / "notebooks")
    (clone / "README.md").symlink_to(root / "README.md")
    for results in (root / "reports").glob("*/results.json"):
        target = clone / "reports" / results.parent.name
        target.mkdir(parents=True)
        for name in ("results.json", "results.csv", "summary.md"):
            shutil.copy(results.parent / name, target)
        shutil.copytree(results.parent / "figures", target / "figures")
    return build_index(clone, complete=True).parent
