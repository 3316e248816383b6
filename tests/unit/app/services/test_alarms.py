from __future__ import annotations

import asyncio

from app.services.alarms import SWEEP_TICKS, TICK_S, Alarms, alarms_of


class Clock:
    """An event loop's clock and its one timer, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timer: object = None

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: object) -> object:
        self.timer = callback
        return callback

    def turn(self, seconds: float) -> None:
        self.now += seconds
        callback, self.timer = self.timer, None
        if callable(callback):
            callback()


class Bell:
    def __init__(self) -> None:
        self.rung = 0

    def ring(self) -> None:
        self.rung += 1


def at_rest() -> tuple[Alarms, Clock]:
    clock = Clock()
    return Alarms(clock), clock  # type: ignore[arg-type]


def test_it_rings_once_and_never_too_early() -> None:
    alarms, clock = at_rest()
    for seconds in (-0.05, 0.0, 0.004, 0.05, 0.333, 2.0):
        bell, began = Bell(), clock.now
        alarms.set(bell, seconds)
        while not bell.rung:
            clock.turn(TICK_S)
        assert seconds <= clock.now - began <= max(seconds, 0.0) + 2 * TICK_S + 1e-6
        clock.turn(TICK_S)
        assert bell.rung == 1


def test_what_is_unset_does_not_ring() -> None:
    alarms, clock = at_rest()
    unset, kept = Bell(), Bell()
    slot = alarms.set(unset, 0.05)
    alarms.set(kept, 0.05)
    slot.discard(unset)
    clock.turn(1.0)
    assert (unset.rung, kept.rung) == (0, 1)


def test_a_loop_that_stood_still_rings_all_that_came_due() -> None:
    alarms, clock = at_rest()
    bells = [Bell() for _ in range(100)]
    for number, bell in enumerate(bells):
        alarms.set(bell, number / 10)
    clock.turn(60.0)
    assert [bell.rung for bell in bells] == [1] * 100


def test_an_alarm_may_set_another() -> None:
    alarms, clock = at_rest()
    after = Bell()

    class First:
        def ring(self) -> None:
            alarms.set(after, 0.05)

    alarms.set(First(), 0.0)
    clock.turn(0.03)
    assert not after.rung
    clock.turn(0.1)
    assert after.rung == 1


def test_the_timer_rests_when_no_alarm_is_left() -> None:
    alarms, clock = at_rest()
    bell = Bell()
    alarms.set(bell, 120.0).discard(bell)
    for _ in range(SWEEP_TICKS + 1):
        clock.turn(TICK_S)
    assert clock.timer is None
    clock.now += 500.0
    alarms.set(bell, 0.02)  # and it begins anew
    clock.turn(TICK_S)
    assert not bell.rung
    clock.turn(0.03)
    assert bell.rung == 1


def test_one_that_fails_does_not_silence_the_others() -> None:
    alarms, clock = at_rest()
    after = Bell()

    class Broken:
        def ring(self) -> None:
            raise RuntimeError("a fault of ours")

    alarms.set(Broken(), 0.0)
    alarms.set(after, 0.1)
    clock.turn(0.05)
    clock.turn(0.1)
    assert after.rung == 1


def test_slots_do_not_pile_up_while_one_alarm_is_set() -> None:
    alarms, clock = at_rest()
    kept, passing = Bell(), Bell()
    alarms.set(kept, 3600.0)
    for _ in range(5 * SWEEP_TICKS):
        alarms.set(passing, 3600.0).discard(passing)
        clock.turn(TICK_S)
    assert len(alarms._slots) <= SWEEP_TICKS + 2
    clock.turn(3600.0)
    assert (kept.rung, passing.rung) == (1, 0)


def test_each_loop_has_its_own() -> None:
    async def ring_here() -> None:
        rung = asyncio.Event()

        class Here:
            def ring(self) -> None:
                rung.set()

        alarms_of(asyncio.get_running_loop()).set(Here(), 0.02)
        async with asyncio.timeout(5):
            await rung.wait()

    for _ in range(3):
        asyncio.run(ring_here())
