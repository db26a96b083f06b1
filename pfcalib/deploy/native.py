"""ONNX models run without Python: a small C++ program, compiled on first use, that calls the C
library of ONNX Runtime one row at a time, as software of an experiment does.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pfcalib.cache import cache_folder, file_sha256, locked, new_file
from pfcalib.errors import ConfigError, ValidationError

COMPILERS = ("c++", "g++", "clang++")


def find_compiler() -> str | None:
    """Path of a C++ compiler, if there is one."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def find_library() -> Path | None:
    """The C library that comes with the Python package of ONNX Runtime; older ones have none."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.so*"))), None)


def build_program(name: str) -> Path:
    """Path of a program of the package, compiled where it is not in the cache.

    Parameters
    ----------
    name : str
        Of its source, `pfcalib/data/<name>.cpp`.

    Raises
    ------
    ConfigError
        If there is no compiler, or it fails.
    """
    source = Path(str(resources.files("pfcalib"))) / "data" / f"{name}.cpp"
    target = cache_folder() / "native" / f"{name}-{file_sha256(source)[:16]}"
    with locked(target):
        if not target.exists():
            compiler = find_compiler()
            if compiler is None:
                raise ConfigError(f"no C++ compiler was found; one of {', '.join(COMPILERS)} does")
            with new_file(target) as temporary:
                command = [compiler, "-std=c++17", "-O2", "-o", str(temporary), str(source), "-ldl"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise ConfigError(f"{compiler} cannot compile {source}: {done.stderr}")
            target.chmod(0o755)
    return target


def run_native(path: str | Path, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of an ONNX model with one input and one output, through the C++ program.

    Parameters
    ----------
    path : path
        ONNX file.
    rows : array of float32, shape (n, ...)
        Given to the model one by one.

    Returns
    -------
    array of float32, shape (n, n_outputs)

    Raises
    ------
    ConfigError
        If there is no compiler or no library.
    ValidationError
        If the model does not load or run.
    """
    library = find_library()
    if library is None:
        raise ConfigError("the Python package of ONNX Runtime comes without libonnxruntime.so")
    command: list[Any] = [build_program("run_onnx"), library, path, *map(str, rows.shape[1:])]
    data = np.ascontiguousarray(rows, dtype=np.float32).tobytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise ValidationError(f"{path}: {done.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(done.stdout, dtype=np.float32).reshape(len(rows), -1)
