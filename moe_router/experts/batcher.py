"""Joins concurrent requests into batches for a device that runs one batch, or a few, at a time.

A batch is formed at the moment a slot is free, from what has come in by then: an idle device
takes a request at once, and batches grow only because others run. There is no timer. asyncio only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from moe_router.errors import DeadlineError, NotReadyError, OverloadedError
from moe_router.tally import SizeTally

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class Place(Generic[ResultT]):
    """A request's place in the queue, from its admission until the last of its jobs is in a batch.

    Attributes:
        jobs: how many it has; None before they are made.
        waiting: how many of them are in no batch yet.
        held: whether it still counts.
        answer: all results, or the first failure.
    """

    def __init__(self) -> None:
        self.jobs: int | None = None
        self.waiting = 0
        self.held = True
        self.answer: asyncio.Future[list[ResultT]] = asyncio.get_running_loop().create_future()
        self._results: dict[int, ResultT] = {}

    def take(self, index: int, result: ResultT | BaseException) -> None:
        """Takes one job's result; the answer is there when it was the last."""
        if self.answer.done():
            return
        if isinstance(result, BaseException):
            self.answer.set_exception(result)
            return
        self._results[index] = result
        if len(self._results) == self.jobs:
            self.answer.set_result([self._results[i] for i in range(self.jobs)])


@dataclass(slots=True, eq=False)
class _Entry(Generic[JobT, ResultT]):
    job: JobT
    cost: int
    deadline: float | None
    place: Place[ResultT]
    index: int
    waits: bool = True


@dataclass(slots=True)
class _Group(Generic[JobT, ResultT]):
    """A caller's waiting jobs for one task, and how much of the device they have had."""

    waiting: deque[_Entry[JobT, ResultT]] = field(default_factory=deque)
    had: float = 0.0


@dataclass(slots=True)
class _Caller(Generic[JobT, ResultT]):
    """A caller's groups by task, and how much of the device they have had in all."""

    groups: dict[str, _Group[JobT, ResultT]] = field(default_factory=dict)
    waiting: int = 0
    had: float = 0.0


_Shares = Mapping[str, _Group[Any, Any]] | Mapping[str, _Caller[Any, Any]]


def _level(shares: _Shares) -> float:
    """What the waiting one that has had least has had."""
    return min((share.had for share in shares.values() if share.waiting), default=0.0)


def _satisfied(shares: _Shares) -> list[str]:
    """The idle ones, less those that have had more than is level: they'd come back as equals."""
    level, idle = _level(shares), not any(share.waiting for share in shares.values())
    return [name for name, share in shares.items() if not share.waiting and (idle or share.had <= level)]


class Batcher(Generic[JobT, ResultT]):
    """A bounded queue in front of a blocking function that takes batches.

    A request takes a place before its jobs are made, so that one too many is refused before it costs
    anything; it has one place however many jobs it turns out to be.

    Fair between callers, and between the tasks of each: the next job is always of the waiting caller that has
    had least of the device, and of that caller's task that has had least, so that a flood of one, or for one
    task, cannot starve another. Nobody saves up: who comes, or comes back, starts level with the waiting one
    that has had least.

    Args:
        run: computes a batch in a thread; returns one result, or exception, per job in their order.
        max_batch_cost: bound on the sum of the costs in a batch; a job that costs more goes alone.
        max_queue: bound on the requests that wait; more are refused at once.
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
        self._callers: dict[str, _Caller[JobT, ResultT]] = {}
        self._places = 0
        self._unmade = 0
        self._waiting = 0
        self._running: set[asyncio.Task[None]] = set()
        self._computing = 0
        self._pump_due = False
        self._closed = False
        self._idle = asyncio.Event()
        self.batches = SizeTally()
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="engine")

    @property
    def depth(self) -> int:
        """Jobs that are being made, wait or are being computed."""
        return self._unmade + self._waiting + self._computing

    @contextmanager
    def place(self, deadline: float | None = None) -> Iterator[Place[ResultT]]:
        """Admits a request, whose jobs are then made and given to `run`; `drain` waits for it.

        Raises:
            OverloadedError: the queue is full; nothing was started.
            NotReadyError: the batcher is draining.
            DeadlineError: the time is up.
        """
        if self._closed:
            raise NotReadyError("The expert is draining.")
        if deadline is not None and deadline <= self._clock():
            raise DeadlineError("The time was up before the request reached the expert.")
        if self._places >= self._max_queue:
            raise OverloadedError(f"{self._places} requests are waiting for this expert's model.")
        place: Place[ResultT] = Place()
        self._places += 1
        self._unmade += 1
        try:
            yield place
        finally:
            if place.jobs is None:
                self._unmade -= 1
            self._leave(place)

    async def run(
        self,
        place: Place[ResultT],
        jobs: Sequence[JobT],
        *,
        costs: Sequence[int],
        caller: str,
        task: str,
        deadline: float | None = None,
    ) -> list[ResultT]:
        """Queues the jobs of an admitted request and waits for all results, in order.

        The first failure, or a cancellation, takes the rest out of the queue.

        Raises:
            DeadlineError: the time was up before the results came.
        """
        made = [
            _Entry(job, cost, deadline, place, index)
            for index, (job, cost) in enumerate(zip(jobs, costs, strict=True))
        ]
        place.jobs = place.waiting = len(made)
        self._unmade -= 1
        for entry in made:
            self._enqueue(caller, task, entry)
        if not made:
            return []
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._clock(), 0.0)):
                return await place.answer
        except TimeoutError:
            raise DeadlineError("The time was up before the expert had answered.") from None
        finally:
            place.answer.cancel()
            self._forget(caller, task, [entry for entry in made if entry.waits])

    async def submit(
        self, job: JobT, *, cost: int, caller: str, task: str, deadline: float | None = None
    ) -> ResultT:
        """Runs a request of one job that is made already; raises as `place` and `run`."""
        with self.place(deadline) as place:
            [result] = await self.run(place, [job], costs=[cost], caller=caller, task=task, deadline=deadline)
            return result

    async def drain(self) -> None:
        """Takes nothing more, and waits until all that was taken is answered."""
        self._closed = True
        while self._running or self._places:
            self._idle.clear()
            await self._idle.wait()

    async def aclose(self) -> None:
        """Drains, then lets the threads go."""
        await self.drain()
        self._threads.shutdown(wait=False)

    def _enqueue(self, caller: str, task: str, entry: _Entry[JobT, ResultT]) -> None:
        own = self._callers.setdefault(caller, _Caller())
        if not own.waiting:
            own.had = max(own.had, _level(self._callers))
        group = own.groups.setdefault(task, _Group())
        if not group.waiting:
            group.had = max(group.had, _level(own.groups))
        group.waiting.append(entry)
        own.waiting += 1
        self._waiting += 1
        if not self._pump_due:  # once per turn of the loop, so that requests of one turn share a batch
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _forget(self, caller: str, task: str, waiting: Sequence[_Entry[JobT, ResultT]]) -> None:
        if not waiting:
            return
        own = self._callers[caller]
        for entry in waiting:
            own.groups[task].waiting.remove(entry)
            self._take_out(own, entry)
        self._drop_idle()

    def _take_out(self, caller: _Caller[JobT, ResultT], entry: _Entry[JobT, ResultT]) -> None:
        entry.waits = False
        caller.waiting -= 1
        self._waiting -= 1
        entry.place.waiting -= 1
        if not entry.place.waiting:
            self._leave(entry.place)

    def _leave(self, place: Place[ResultT]) -> None:
        if place.held:
            place.held = False
            self._places -= 1
            self._idle.set()

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
        while (neediest := self._neediest()) is not None:
            caller, group = neediest
            entry = group.waiting[0]
            answer = entry.place.answer
            live = not answer.done() and (entry.deadline is None or entry.deadline > now)
            if live and batch and spent + entry.cost > self._max_batch_cost:
                break
            self._take_out(caller, group.waiting.popleft())
            if live:
                batch.append(entry)
                spent += entry.cost
                group.had += entry.cost
                caller.had += entry.cost
            elif not answer.done():
                answer.set_exception(DeadlineError("The time was up while the request waited."))
        self._drop_idle()
        return batch

    def _drop_idle(self) -> None:
        for name in _satisfied(self._callers):
            del self._callers[name]
        for caller in self._callers.values():
            for name in _satisfied(caller.groups):
                del caller.groups[name]

    def _neediest(self) -> tuple[_Caller[JobT, ResultT], _Group[JobT, ResultT]] | None:
        waiting = [caller for caller in self._callers.values() if caller.waiting]
        if not waiting:
            return None
        caller = min(waiting, key=lambda caller: caller.had)
        groups = [group for group in caller.groups.values() if group.waiting]
        return caller, min(groups, key=lambda group: group.had)

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
            self._idle.set()
            self._pump()
        for entry, result in zip(batch, results, strict=True):
            entry.place.take(entry.index, result)
