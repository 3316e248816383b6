"""Joins concurrent requests into batches for a device that runs one batch, or a few, at a time.

A batch is formed at the moment a slot is free, from what has come in by then: an idle device
takes a request at once, and batches grow only because others run. There is no timer. asyncio only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moe_router.errors import DeadlineError, NotReadyError, OverloadedError
from moe_router.tally import SizeTally

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(slots=True, eq=False)
class _Entry(Generic[JobT, ResultT]):
    job: JobT
    cost: int
    deadline: float | None
    answer: asyncio.Future[ResultT]


@dataclass(slots=True)
class _Group(Generic[JobT, ResultT]):
    """A task's waiting requests, and how much of the device it has had."""

    waiting: deque[_Entry[JobT, ResultT]] = field(default_factory=deque)
    had: float = 0.0


class Batcher(Generic[JobT, ResultT]):
    """A bounded queue in front of a blocking function that takes batches.

    Fair between groups: the next request is always of the waiting group that has had least of the device, so
    that a flood for one task cannot starve another. Nobody saves up: a group that comes, or comes back,
    starts level with the waiting one that has had least.

    Args:
        run: computes a batch in a thread; returns one result, or exception, per job in their order.
        max_batch_cost: bound on the sum of the costs in a batch; a job that costs more goes alone.
        max_queue: bound on the jobs that wait; more are refused at once.
        max_in_flight: batches that may run at a time.
        clock: seconds, the one that deadlines are given in.
    """

    def __init__(
        self,
        run: Callable[[Sequence[JobT]], Sequence[ResultT | BaseException]],
        *,
        max_batch_cost: int,
        max_queue: int,
        max_in_flight: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch_cost = max_batch_cost
        self._max_queue = max_queue
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._groups: dict[str, _Group[JobT, ResultT]] = {}
        self._waiting = 0
        self._running: set[asyncio.Task[None]] = set()
        self._computing = 0
        self._pump_due = False
        self._closed = False
        self.batches = SizeTally()
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="engine")

    @property
    def depth(self) -> int:
        """Jobs that wait or are being computed."""
        return self._waiting + self._computing

    async def submit(self, job: JobT, *, cost: int, group: str, deadline: float | None = None) -> ResultT:
        """Queues a job and waits for its result. Cancelling takes it out of the queue.

        Raises:
            OverloadedError: the queue is full; nothing was started.
            NotReadyError: the batcher is draining.
            DeadlineError: the time was up before the result came.
        """
        if self._closed:
            raise NotReadyError("The expert is draining.")
        if deadline is not None and deadline <= self._clock():
            raise DeadlineError("The time was up before the request reached the expert.")
        if self._waiting >= self._max_queue:
            raise OverloadedError(f"{self._waiting} requests are waiting for this expert's model.")
        entry = _Entry(job, cost, deadline, asyncio.get_running_loop().create_future())
        self._enqueue(group, entry)
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._clock(), 0.0)):
                result: ResultT = await entry.answer
                return result
        except TimeoutError:
            raise DeadlineError("The time was up before the expert had answered.") from None
        finally:
            entry.answer.cancel()
            self._forget(group, entry)

    async def drain(self) -> None:
        """Takes nothing more, and waits until all that was taken is answered."""
        self._closed = True
        while self._running or self._waiting:
            await asyncio.sleep(0) if not self._running else await asyncio.wait(set(self._running))

    async def aclose(self) -> None:
        """Drains, then lets the threads go."""
        await self.drain()
        self._threads.shutdown(wait=False)

    def _enqueue(self, group: str, entry: _Entry[JobT, ResultT]) -> None:
        known = self._groups.setdefault(group, _Group())
        if not known.waiting:
            known.had = max(known.had, self._level())
        known.waiting.append(entry)
        self._waiting += 1
        if not self._pump_due:  # once per turn of the loop, so that requests of one turn share a batch
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _forget(self, group: str, entry: _Entry[JobT, ResultT]) -> None:
        known = self._groups.get(group)
        if known is not None and entry in known.waiting:
            known.waiting.remove(entry)
            self._waiting -= 1
            self._drop_idle()

    def _pump(self) -> None:
        self._pump_due = False
        while len(self._running) < self._max_in_flight and (batch := self._form()):
            task = asyncio.create_task(self._compute(batch))
            self._running.add(task)
            self._computing += len(batch)
            self.batches.note(len(batch))

    def _form(self) -> list[_Entry[JobT, ResultT]]:
        batch: list[_Entry[JobT, ResultT]] = []
        spent = 0
        now = self._clock()
        while (group := self._neediest()) is not None:
            entry = group.waiting[0]
            live = not entry.answer.done() and (entry.deadline is None or entry.deadline > now)
            if live and batch and spent + entry.cost > self._max_batch_cost:
                break
            group.waiting.popleft()
            self._waiting -= 1
            if live:
                batch.append(entry)
                spent += entry.cost
                group.had += entry.cost
            elif not entry.answer.done():
                entry.answer.set_exception(DeadlineError("The time was up while the request waited."))
        self._drop_idle()
        return batch

    def _level(self) -> float:
        """What the waiting group that has had least has had."""
        return min((group.had for group in self._groups.values() if group.waiting), default=0.0)

    def _drop_idle(self) -> None:
        """Forgets idle groups, less those that have had more than is level: they'd come back as equals."""
        level = self._level()
        gone = [
            name
            for name, group in self._groups.items()
            if not group.waiting and (self._waiting == 0 or group.had <= level)
        ]
        for name in gone:
            del self._groups[name]

    def _neediest(self) -> _Group[JobT, ResultT] | None:
        waiting = [group for group in self._groups.values() if group.waiting]
        return min(waiting, key=lambda group: group.had, default=None)

    async def _compute(self, batch: Sequence[_Entry[JobT, ResultT]]) -> None:
        jobs = [entry.job for entry in batch]
        results: Sequence[ResultT | BaseException]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, jobs)
        except Exception as error:  # noqa: BLE001  whatever it was, each caller must hear of it
            results = [error] * len(batch)
        finally:
            self._computing -= len(batch)
            self._running.discard(asyncio.current_task())
            self._pump()
        for entry, result in zip(batch, results, strict=True):
            if entry.answer.done():
                continue
            if isinstance(result, BaseException):
                entry.answer.set_exception(result)
            else:
                entry.answer.set_result(result)
