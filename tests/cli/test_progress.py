"""Long jobs say how far they are: the time of day in a log, and the time that the rest takes."""

from __future__ import annotations

import re

from pfcalib.cli import console
from pfcalib.cli.console import Steps, progress_bar


def test_lines_of_a_log_begin_with_the_time_of_day_and_end_with_the_time_left(capfd):
    tell = Steps()
    tell("  01_tiny  cell  1/2", end="")
    tell("   0.1 s")
    tell.begun -= 60.0
    tell("epoch   3/4  loss 0.1")  # taken up after the second: the fourth is like it
    first, second = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d    01_tiny  cell  1/2   0\.1 s", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  epoch   3/4  loss 0\.1  6\d s left", second)


def test_a_terminal_needs_no_clock(capfd, monkeypatch):
    monkeypatch.setattr(console.console, "_force_terminal", True)
    Steps()("epoch   4/4  loss 0.1")
    assert capfd.readouterr().out.startswith("epoch")


def test_a_log_tells_how_many_are_done_and_how_long_the_rest_takes(capfd, monkeypatch):
    monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
    with progress_bar("events", 100) as advance:
        advance(50)
    said = capfd.readouterr().err
    assert re.fullmatch(r"\d\d:\d\d:\d\d  50 of 100 events in 0 s, 0 s left\n", said)
