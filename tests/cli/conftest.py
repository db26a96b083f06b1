"""The command as it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pfcalib import cli


@pytest.fixture
def pfcalib(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error (with what sys.exit would print) of a call
    through the entry point.
    """

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pfcalib", *arguments])
        try:
            cli.main()
            code, message = 0, ""
        except SystemExit as ended:
            code, message = (
                (1, ended.code) if isinstance(ended.code, str) else (ended.code or 0, "")
            )
        output, errors = capfd.readouterr()
        return int(code), output, errors + message

    return call
