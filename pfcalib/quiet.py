"""Libraries without remarks on what is not there: accelerators, widgets for progress bars."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType


def silence_remarks() -> None:
    """Have TensorFlow say nothing, neither when it is imported nor later, and Optuna's progress bar
    nothing of widgets; ``TF_CPP_MIN_LOG_LEVEL`` in the environment brings back what comes later.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Keeps standard error silent, also for compiled code, while TensorFlow is imported: then it
    heeds no setting.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_silently(module: ModuleType) -> None:
                with _silent_stderr():
                    execute(module)

            spec.loader.exec_module = execute_silently  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
