"""One line that tells how far a run is: rows, rate, time left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

TERMINAL_EVERY_S = 0.2
PIPE_EVERY_S = 10.0


class Progress:
    """Writes over one line on a terminal; elsewhere a new line every ten seconds."""

    def __init__(
        self,
        stream: TextIO,
        total: int | None,
        done_before: int = 0,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._total, self._before = stream, total, done_before
        self._quiet, self._clock = quiet, clock
        self._terminal = stream.isatty()
        self._started = self._shown = clock()
        self.done, self.failed = done_before, 0
        self.abstained = 0
        """rows of this run that have an answer but no result"""

    def advance(self, failed: bool, abstained: bool = False) -> None:
        """One row more."""
        self.done += 1
        self.failed += failed
        self.abstained += abstained
        every = TERMINAL_EVERY_S if self._terminal else PIPE_EVERY_S
        if self._clock() - self._shown >= every:
            self._show()

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return (self.done - self._before) / max(self._clock() - self._started, 1e-9)

    def line(self) -> str:
        """What is shown."""
        of = f" of {self._total:,}" if self._total is not None else " rows"
        parts = [f"{self.done:,}{of}", f"{self.rate:,.0f}/s"]
        if self._total is not None and self.rate > 0:
            parts.append(f"{duration((self._total - self.done) / self.rate)} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return ", ".join(parts)

    def end(self) -> None:
        """Clears the line on a terminal."""
        if self._terminal and not self._quiet:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _show(self) -> None:
        self._shown = self._clock()
        if self._quiet:
            return
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + self.line()[:width])
        else:
            self._stream.write(self.line() + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Such as 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
