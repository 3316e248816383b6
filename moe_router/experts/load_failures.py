"""Base models that could not be loaded, and how long each is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from moe_router.experts.engines.base import ServerAwayError
from moe_router.experts.roster import told

PAUSE_S = 60.0
"""So long a model that could not be loaded is left alone, and twice as long each time it fails again: others
are let go to make room for it."""
MOST_PAUSE_S = 600.0
CHEAP_PAUSE_S = 5.0
"""The same where the attempt took nobody's room: the model's own server is away, its files cannot be had."""


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model could not be loaded; not the error itself, whose frames hold what was half loaded."""

    kind: type[Exception]
    reason: str
    cheap: bool = False
    """whether the attempt took nobody's room"""

    @classmethod
    def of(cls, error: Exception, *, cheap: bool = False) -> LoadFailure:
        """What is kept of an error."""
        return cls(type(error), told(error), cheap or isinstance(error, ServerAwayError))


@dataclass(frozen=True, slots=True)
class _Pause:
    reason: str
    length_s: float
    until: float


class LoadFailures:
    """The models whose last load failed.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}

    def note(self, key: str, failure: LoadFailure) -> None:
        """A load has failed."""
        if failure.cheap:
            length_s = CHEAP_PAUSE_S
        else:
            before = self._pauses.get(key)
            length_s = min(max(PAUSE_S, 2 * before.length_s), MOST_PAUSE_S) if before else PAUSE_S
        self._pauses[key] = _Pause(failure.reason, length_s, self._clock() + length_s)

    def forget(self, key: str) -> None:
        """A load has succeeded."""
        self._pauses.pop(key, None)

    def clear(self) -> None:
        """What was wrong may have been mended."""
        self._pauses.clear()

    def reasons(self) -> dict[str, str]:
        """Why each could not be loaded, by model key."""
        return {key: pause.reason for key, pause in self._pauses.items()}

    def left_alone(self, key: str) -> str | None:
        """Why a load is not tried now; None where it may be."""
        pause = self._pauses.get(key)
        return None if pause is None or pause.until <= self._clock() else pause.reason
