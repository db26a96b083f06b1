"""A key is content, settings and versions; files are complete or not there; compiled kernels are
never older than the sources.
"""

import os
import subprocess
import sys

import pytest

from pfcalib import cache
from pfcalib.cache import cache_key, new_file, new_folder, source_digest

VARIABLE = "NUMBA_CACHE_DIR"


def test_a_change_next_to_a_kernel_gives_another_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    source = tmp_path / "inner" / "callee.py"
    source.write_text("x = 1\n")
    (tmp_path / "inner" / "kernel.py").write_text("from numba import njit\n")
    before = source_digest(tmp_path)
    assert source_digest(tmp_path) == before
    source.write_text("x = 2\n")
    assert source_digest(tmp_path) != before


def test_a_change_far_from_kernels_compiles_nothing_again(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "kernel.py").write_text("from numba import njit\n")
    before = source_digest(tmp_path)
    (tmp_path / "command.py").write_text("x = 1  # no numba here\n")
    assert source_digest(tmp_path) == before


def test_importing_the_package_points_numba_there_unless_the_user_chose():
    code = f"import os, pfcalib; print(os.environ['{VARIABLE}'])"
    free = {name: value for name, value in os.environ.items() if name != VARIABLE}
    chosen = subprocess.run(
        [sys.executable, "-c", code],
        env=free | {VARIABLE: "elsewhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert chosen.stdout.strip() == "elsewhere"
    ours = subprocess.run(
        [sys.executable, "-c", code],
        env=free | {"PFCALIB_CACHE": "here"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/here/kernels/" in ours.stdout


def test_a_key_changes_with_settings_and_the_version_of_its_stages_only(monkeypatch):
    before = cache_key("simulation", seed=1)
    monkeypatch.setitem(cache.VERSIONS, "lcw", 99)
    assert cache_key("simulation", seed=1) == before
    assert cache_key("simulation", seed=2) != before
    monkeypatch.setitem(cache.VERSIONS, "simulation", 99)
    assert cache_key("simulation", seed=1) != before


def test_a_setting_that_is_not_plain_is_refused():
    with pytest.raises(TypeError, match="JSON values"):
        cache_key("simulation", seed=object())


def test_a_file_whose_writing_fails_is_not_there(tmp_path):
    def write_half():
        with new_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_a_file_that_stood_there_stays_until_the_new_one_is_complete(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with new_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_takes_the_place_of_an_older_one_as_a_whole(tmp_path):
    for text in ("old", "new"):
        with new_folder(tmp_path / "a") as temporary:
            (temporary / text).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]
