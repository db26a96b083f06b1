"""What the README tells a user to type works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample

from pfcalib.samples.write import write_sample
from tests.samples.real_root import write_mltree


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """A folder with files as the README names them, and the current folder in it."""
    for seed in (1, 2):
        write_mltree(tmp_path / f"mine_{seed}.root", seed=seed)
    write_sample(tmp_path / "pions.root", make_sample(rng, 400))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lines_for_own_files_run(root: Path, own_files: Path):
    (block,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["images"]["EMB1"]) == len(names["sample"]) > 0
    assert sum(names["energy"]) == pytest.approx(names["sample"]["clusterE"].sum(), rel=1e-5)
    assert len(names["objects"].tracks) > 0
    assert len(names["stream"]) > 0
