"""Compiled kernels are never older than the sources."""

import os
import subprocess
import sys

from pfcalib.kernel_cache import VARIABLE, source_digest


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
    chosen = subprocess.run([sys.executable, "-c", code], env=free | {VARIABLE: "elsewhere"}, capture_output=True, text=True, check=True)
    assert chosen.stdout.strip() == "elsewhere"
    ours = subprocess.run([sys.executable, "-c", code], env=free | {"PFCALIB_CACHE": "here"}, capture_output=True, text=True, check=True)
    assert ours.stdout.startswith("here/kernels/")
