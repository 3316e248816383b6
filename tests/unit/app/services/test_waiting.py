from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.services.waiting import FairGate, Wait, WaitingRoom
from moe_router.errors import NoWorkerError, OverloadedError


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Scene:
    """A gate whose entries are noted, and leave when told."""

    def __init__(self, places: int, max_waiting: int = 100) -> None:
        self.gate = FairGate(places, max_waiting)
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, caller: str, name: str) -> None:
        self.ends[name] = asyncio.Event()

        async def stay() -> None:
            async with self.gate.place(caller):
                self.order.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(stay())
        await settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settle()

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_who_holds_least_comes_first() -> None:
    scene = Scene(2)
    for index in range(6):
        await scene.enter("flood", f"f{index}")
    await scene.enter("quiet", "q0")
    assert scene.order == ["f0", "f1"]
    await scene.end("f0")
    assert scene.order[-1] == "q0"
    await scene.end("q0")
    assert scene.order[-1] == "f2"
    await scene.close()


async def test_equals_take_turns() -> None:
    scene = Scene(1)
    await scene.enter("a", "a0")
    for index in (1, 2):
        await scene.enter("a", f"a{index}")
        await scene.enter("b", f"b{index}")
    for name in ("a0", "a1", "b1", "a2"):
        await scene.end(name)
    assert scene.order == ["a0", "a1", "b1", "a2", "b2"]
    await scene.close()


async def test_who_waits_may_go_and_a_grant_not_used_is_given_back() -> None:
    scene = Scene(1)
    await scene.enter("a", "a0")
    await scene.enter("a", "a1")
    await scene.enter("b", "b0")
    scene.tasks["a1"].cancel()
    await settle()
    assert scene.gate.waiting == 1
    scene.ends["a0"].set()
    await asyncio.sleep(0)  # a0 leaves and b0 is granted, but has not run
    scene.tasks["b0"].cancel()
    await settle()
    await scene.enter("c", "c0")
    assert scene.order[-1] == "c0"
    assert scene.gate.waiting == 0
    await scene.close()


async def test_a_full_room_puts_out_who_has_most_waiting() -> None:
    scene = Scene(1, max_waiting=2)
    for index in range(3):
        await scene.enter("flood", f"f{index}")
    await scene.enter("flood", "f3")
    assert isinstance(scene.tasks["f3"].exception(), OverloadedError)
    await scene.enter("quiet", "q0")
    assert isinstance(scene.tasks["f2"].exception(), OverloadedError)
    await scene.end("f0")
    assert scene.order == ["f0", "f1"] or scene.order == ["f0", "q0"]
    await scene.close()


async def test_a_wait_that_makes_no_sense_ends() -> None:
    room: WaitingRoom[int] = WaitingRoom(10, lambda _, __: None, lambda: False)
    answers: list[int | Exception | Wait] = [Wait.FULL, Wait.FULL]

    def take() -> int | Wait:
        now = answers[-1]
        if isinstance(now, Exception):
            raise now
        return now

    waiting = asyncio.create_task(room.enter("a", take))
    await settle()
    assert not waiting.done()
    answers.append(NoWorkerError("gone"))
    room.poke()
    with pytest.raises(NoWorkerError):
        await waiting
    answers.append(7)
    assert await room.enter("a", take) == 7
    assert room.busy
    room.leave("a")
    assert not room.busy


async def test_all_may_go_at_once() -> None:
    scene = Scene(2)
    for index in range(5):
        await scene.enter("a", f"a{index}")
    await scene.close()
    assert scene.gate.waiting == 0
    await scene.enter("b", "b0")
    await scene.enter("b", "b1")
    assert scene.order[-2:] == ["b0", "b1"]
    await scene.close()


class Things:
    """A room in front of things of several kinds; those asked for are noted, whether there or not."""

    def __init__(self) -> None:
        self.free: list[str] = []
        self.asked: list[str] = []
        self.greedy: set[str] = set()
        self.room: WaitingRoom[str] = WaitingRoom(5000, lambda thing, _: self.free.append(thing), self._full)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def _full(self) -> bool:
        return not self.free

    def take(self, kind: str, caller: str) -> Callable[[], str | Wait]:
        def take() -> str | Wait:
            self.asked.append(kind)
            if kind not in self.free:
                return Wait.FULL
            if caller in self.greedy:
                return Wait.ENOUGH
            self.free.remove(kind)
            return kind

        return take

    async def want(self, caller: str, kind: str, name: str) -> None:
        async def enter() -> None:
            await self.room.enter(caller, self.take(kind, caller), kind)
            self.order.append(name)

        self.tasks.append(asyncio.create_task(enter()))
        await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_who_waits_for_something_else_does_not_hold_up_the_callers_next() -> None:
    things = Things()
    for name, kind in (("hung", "a"), ("first", "b"), ("second", "b")):
        await things.want("c", kind, name)
    things.free = ["b", "b"]
    things.room.poke()
    await settle()
    assert things.order == ["first", "second"]
    things.free = ["b", "a"]
    await things.want("c", "b", "third")
    assert things.asked[-2:] == ["a", "b"]  # who came first is let in first
    await things.close()
    assert things.room.waiting == 0


async def test_nothing_is_asked_for_while_nothing_is_free() -> None:
    things = Things()
    things.free = ["a"]
    await things.want("holder", "a", "held")
    for index in range(1000):
        await things.want(f"caller-{index}", "a", str(index))
    things.asked.clear()
    things.room.leave("holder")
    assert things.asked == []
    await things.close()


async def test_what_is_free_for_nobody_is_asked_for_once() -> None:
    things = Things()
    things.free = ["a", "b"]
    await things.want("holder", "a", "held")
    await things.want("holder", "b", "held, too")
    for index in range(1000):
        await things.want(f"caller-{index}", "a", str(index))
    await things.want("last", "b", "last")
    things.asked.clear()
    things.free = ["b", "b"]
    things.room.leave("holder")
    await settle()
    assert things.order[-1] == "last"
    assert things.asked == ["a", "b"]
    await things.close()


async def test_a_caller_that_holds_enough_leaves_what_is_free_to_others() -> None:
    things = Things()
    things.greedy = {"flood"}
    await things.want("flood", "a", "f0")
    await things.want("quiet", "a", "q0")
    things.free = ["a"]
    things.room.poke()
    await settle()
    assert things.order == ["q0"]
    await things.close()
