"""Alarms at a tenth of the cost of a timer of the event loop: every request sets several, and few ever ring.

They are kept in slots of some milliseconds, which one timer visits as they come due: a hashed timing wheel
(Varghese and Lauck, 1987, scheme 6).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_S = 0.01
"""An alarm rings up to so much too late, never too early."""
SWEEP_TICKS = 100
"""After so many it is looked whether any alarm is left; else the timer rests."""


class Alarm(Protocol):
    """Something that has its time."""

    def ring(self) -> None:
        """The time has come. Called once, by the event loop."""


Slot = set[Alarm]
"""The alarms of one tick. Whoever has set one takes it out to unset it."""


class Alarms:
    """Those of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, Slot] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._visited = 0
        """number of the last slot that came due"""

    def set(self, alarm: Alarm, seconds: float) -> Slot:
        """Lets an alarm ring after so many seconds; to unset it, discard it from the slot."""
        now = self.loop.time()
        number = int((now + seconds) / TICK_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            if self._timer is None:
                self._visited = int(now / TICK_S)
                self._timer = self.loop.call_later(TICK_S, self._tick)
        slot.add(alarm)
        return slot

    def _tick(self) -> None:
        due = int(self.loop.time() / TICK_S)
        before, self._visited = self._visited, due
        for number in range(before + 1, due + 1):
            for alarm in list(self._slots.pop(number, ())):
                alarm.ring()
        if due // SWEEP_TICKS > before // SWEEP_TICKS and not any(self._slots.values()):
            self._slots.clear()
        self._timer = self.loop.call_later(TICK_S, self._tick) if self._slots else None


_alarms: Alarms | None = None


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """The alarms of a loop: of the process's only one, or of that which runs now."""
    global _alarms
    if _alarms is None or _alarms.loop is not loop:
        _alarms = Alarms(loop)
    return _alarms
