from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from moe_router.own_thread import in_own_thread

REQUEST: ContextVar[str] = ContextVar("REQUEST", default="none")


def gone(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


async def test_the_thread_ends_with_its_work() -> None:
    threads = [await in_own_thread(threading.current_thread) for _ in range(2)]
    assert len({threading.current_thread(), *threads}) == 3
    assert all(gone(thread) for thread in threads)


async def test_arguments_results_and_context_are_passed_on() -> None:
    REQUEST.set("r-1")
    assert await in_own_thread(lambda a, *, b: (a, b, REQUEST.get()), 1, b=2) == (1, 2, "r-1")


async def test_a_fault_is_raised_and_the_thread_ends() -> None:
    seen: list[threading.Thread] = []

    def breaking() -> None:
        seen.append(threading.current_thread())
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await in_own_thread(breaking)
    assert gone(seen[0])


async def test_who_waits_may_go_the_work_is_done_and_the_thread_ends() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.append(threading.current_thread())
        begun.set()
        go.wait(5)
        done.set()

    task = asyncio.create_task(in_own_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert gone(seen[0])
    assert done.is_set()
