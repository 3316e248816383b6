"""Threads for work that comes before the queue, of which those who wait take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Turns:
    """Runs blocking functions, a few at a time; callers who wait are served in turn, and the tasks of each.

    A plain executor serves in the order of arrival: a flood of one would have all others wait for the whole
    of it. asyncio only.

    Args:
        at_a_time: how many may run.
        name: of the threads.
    """

    def __init__(self, at_a_time: int, name: str) -> None:
        self._free = at_a_time
        self._waiting: OrderedDict[str, OrderedDict[str, deque[asyncio.Future[None]]]] = OrderedDict()
        self._threads = ThreadPoolExecutor(at_a_time, thread_name_prefix=name)

    async def run(
        self, caller: str, task: str, do: Callable[[], ResultT], unless: asyncio.Future[Any]
    ) -> ResultT | None:
        """The function's result; None where `unless` was done first, and then it was not run."""
        if self._free and not self._waiting:
            self._free -= 1
        elif not await self._turn(caller, task, unless):
            return None
        loop = asyncio.get_running_loop()
        try:
            running = self._threads.submit(do)
        except BaseException:
            self._release()
            raise

        def release(_: object) -> None:
            with suppress(RuntimeError):  # nobody waits in a loop that is closed
                loop.call_soon_threadsafe(self._release)

        running.add_done_callback(release)  # when the thread is free, which it is not yet if the caller left
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False)

    async def _turn(self, caller: str, task: str, unless: asyncio.Future[Any]) -> bool:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, OrderedDict()).setdefault(task, deque()).append(turn)
        try:
            await asyncio.wait((turn, unless), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._withdraw(caller, task, turn)
            raise
        if unless.done():
            self._withdraw(caller, task, turn)
            return False
        return True

    def _withdraw(self, caller: str, task: str, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self._release()
            return
        tasks = self._waiting[caller]
        tasks[task].remove(turn)
        if not tasks[task]:
            del tasks[task]
        if not tasks:
            del self._waiting[caller]

    def _release(self) -> None:
        """Hands a thread to the next in turn, or back."""
        if not self._waiting:
            self._free += 1
            return
        caller, tasks = self._waiting.popitem(last=False)
        task, turns = tasks.popitem(last=False)
        turns.popleft().set_result(None)
        if turns:
            tasks[task] = turns  # at the end
        if tasks:
            self._waiting[caller] = tasks
