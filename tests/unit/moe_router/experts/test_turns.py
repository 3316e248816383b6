from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from moe_router.experts.turns import Turns


class Work:
    """A function that notes its order and goes on when it is let to."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.go = threading.Semaphore(0)

    def __call__(self, name: str) -> Callable[[], str]:
        def do() -> str:
            self.order.append(name)
            assert self.go.acquire(timeout=10)
            if name == "bad":
                raise ValueError(name)
            return name.upper()

        return do


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def turns(work: Work) -> AsyncIterator[Turns]:
    made = Turns(1, "test")
    yield made
    work.go.release(100)
    made.close()


@pytest.fixture
async def never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


Ask = Callable[..., "asyncio.Task[str | None]"]


@pytest.fixture
def ask(turns: Turns, work: Work, never: asyncio.Future[None]) -> Ask:
    """Asks for the work of a name, which begins with the caller's; nothing ends the wait."""

    def asking(name: str, task: str = "t") -> asyncio.Task[str | None]:
        return asyncio.create_task(turns.run(name[0], task, work(name), never))

    return asking


async def test_who_waits_is_served_in_turn(ask: Ask, work: Work) -> None:
    asked = [ask(f"a{i}") for i in range(4)]
    await asyncio.sleep(0)
    asked += [ask(name) for name in ("b0", "b1", "c0")]
    await asyncio.sleep(0)
    work.go.release(7)
    assert await asyncio.gather(*asked) == ["A0", "A1", "A2", "A3", "B0", "B1", "C0"]
    assert work.order == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]


async def test_many_tasks_of_a_caller_have_one_turn_together(ask: Ask, work: Work) -> None:
    names = ("at0", "at1", "at2", "au0", "av0", "bt0", "bt1", "bt2")
    asked = [ask(name, task=name[1]) for name in names]
    await asyncio.sleep(0)
    work.go.release(8)
    await asyncio.gather(*asked)
    assert work.order == ["at0", "at1", "bt0", "au0", "bt1", "av0", "bt2", "at2"]


async def test_who_is_refused_meanwhile_costs_nothing(turns: Turns, ask: Ask, work: Work) -> None:
    first = ask("a")
    await asyncio.sleep(0)
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    second = asyncio.create_task(turns.run("b", "t", work("b"), refused))
    await asyncio.sleep(0)
    refused.set_result(None)
    assert await second is None  # at once: the first still runs
    work.go.release(2)
    assert await first == "A"
    assert await ask("c") == "C"
    assert work.order == ["a", "c"]


async def test_who_leaves_frees_a_turn_only_when_the_thread_is_free(ask: Ask, work: Work) -> None:
    running, waiting, last = map(ask, "abc")
    await asyncio.sleep(0)
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    assert work.order == ["a"]
    work.go.release(2)
    assert await last == "C"
    assert work.order == ["a", "c"]


async def test_who_leaves_as_its_turn_comes_hands_it_on(
    turns: Turns, ask: Ask, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = map(ask, "abc")
    await asyncio.sleep(0)
    release = turns._release

    def release_and_cancel() -> None:
        release()
        second.cancel()  # it has its turn, and has not yet run to see it

    monkeypatch.setattr(turns, "_release", release_and_cancel)
    work.go.release(2)
    assert await first == "A"
    assert await third == "C"
    assert work.order == ["a", "c"]


async def test_a_failure_is_the_callers_own(ask: Ask, work: Work) -> None:
    work.go.release(2)
    with pytest.raises(ValueError, match="bad"):
        await ask("bad")
    assert await ask("good") == "GOOD"
