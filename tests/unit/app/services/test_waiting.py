from __future__ import annotations

import asyncio

import pytest

from app.services.waiting import FairGate, WaitingRoom
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
    room: WaitingRoom[int] = WaitingRoom(10, lambda _, __: None)
    answers: list[int | Exception | None] = [None, None]

    def take() -> int | None:
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
