"""The line that tells how far a run is."""

from __future__ import annotations

import io

from mole.files.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_every_ten_seconds():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(stream, 1000, 100, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 0.15
        progress.advance(failed=False)
    assert stream.getvalue() == "167 of 1,000, 7/s, 2 min 05 s left\n"
    progress.end()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    now = [0.0]
    stream = Terminal()
    progress = Progress(stream, None, clock=lambda: now[0])
    for _ in range(3):
        now[0] += 0.25
        progress.advance(failed=True)
    progress.end()
    told = stream.getvalue().split("\r\x1b[K")
    assert told == ["", "1 rows, 4/s, 1 fail", "2 rows, 4/s, 2 fail", "3 rows, 4/s, 3 fail", ""]
    quiet = Terminal()
    progress = Progress(quiet, 2, quiet=True, clock=lambda: now[0])
    now[0] += 60
    progress.advance(failed=False)
    progress.end()
    assert quiet.getvalue() == ""


def test_durations():
    assert [duration(s) for s in (0.4, 42, 200, 7500)] == ["0 s", "42 s", "3 min 20 s", "2 h 05 min"]
