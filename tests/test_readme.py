"""What the README tells a user to type works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.lcw import derive_lcw
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


def python_block(root: Path, first_line: str) -> dict:
    """Run the block of Python in the README that begins with some line; the names that it
    leaves.
    """
    blocks = re.findall(
        r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (block,) = (block for block in blocks if block.startswith(first_line))
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_lines_for_own_files_run(root: Path, own_files: Path):
    names = python_block(root, "from pfcalib.features.images")
    assert len(names["images"]["EMB1"]) == len(names["sample"]) > 0
    assert sum(names["energy"]) == pytest.approx(names["sample"]["clusterE"].sum(), rel=1e-5)
    assert len(names["objects"].tracks) > 0
    assert len(names["stream"]) > 0


# of Keras with numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_lines_for_calibrations_run(root: Path, own_files: Path):
    derive_lcw("pions.root").save("lcw.json")
    names = python_block(root, "from pfcalib.calibration.lcw")
    assert np.all(names["energies"].full > 0.0)
    assert np.all(names["e_calibrated"] > 0.0)
