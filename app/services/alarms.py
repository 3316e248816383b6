"""Alarms at a tenth of the cost of a timer of the event loop: every request sets several, and few ever ring.

They are kept in slots of some milliseconds, which one timer visits as they come due: a hashed timing wheel
(Varghese and Lauck, 1987, scheme 6).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

TICK_S = 0.02
"""An alarm rings up to twice so much too late, never too early."""
SWEEP_TICKS = 100
"""After so many the slots are let go whose alarms are all unset; where none is left, the timer rests."""


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
        """Lets an alarm ring after so many seconds, or soon; to unset it, discard it from the slot."""
        now = self.loop.time()
        number = int((now + max(seconds, 0.0)) / TICK_S) + 1
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
                try:
                    alarm.ring()
                except Exception:  # it must not silence the others
                    logger.exception("an alarm failed")
        if due // SWEEP_TICKS > before // SWEEP_TICKS:
            self._slots = {number: slot for number, slot in self._slots.items() if slot}
        self._timer = self.loop.call_later(TICK_S, self._tick) if self._slots else None


_alarms: Alarms | None = None


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """The alarms of a loop: of the process's only one, or of that which runs now."""
    global _alarms
    found = _alarms
    if found is None or found.loop is not loop:
        found = _alarms = Alarms(loop)
    return found
