"""Joins concurrent requests into batches for a device that runs one batch, or a few, at a time.

A batch is formed at the moment a slot is free, from what has come in by then: an idle device
takes a request at once, and batches grow only because others run. There is no timer. asyncio only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

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
    caller: str
    task: str
    place: Place[ResultT]
    index: int
    waits: bool = True


@dataclass(slots=True)
class _Group(Generic[JobT, ResultT]):
    """A caller's waiting jobs for one task, and how much of the device they have had."""

    had: int
    waiting: deque[_Entry[JobT, ResultT]] = field(default_factory=deque)

    def had_after_next(self) -> int:
        return self.had + self.waiting[0].cost


@dataclass(slots=True)
class _Caller(Generic[JobT, ResultT]):
    """A caller's groups by task, how much of the device they have had in all, and where a new one starts."""

    had: int
    groups: dict[str, _Group[JobT, ResultT]] = field(default_factory=dict)
    level: int = 0

    def next(self) -> _Entry[JobT, ResultT]:
        # Reversed: of equals who came last, since the other one was served while it was away.
        return min(reversed(self.groups.values()), key=_Group.had_after_next).waiting[0]

    def had_after_next(self) -> int:
        return self.had + self.next().cost


class Batcher(Generic[JobT, ResultT]):
    """A bounded queue in front of a blocking function that takes batches.

    A request takes a place before its jobs are made, so that one too many is refused before it costs
    anything; it has one place however many jobs it turns out to be.

    Fair between callers, and between the tasks of each, by self-clocked fair queueing (Golestani 1994): the
    next job is of the waiting caller that will with it have had least of the device, and what that one has
    then had is the level at which who comes, or comes back, starts; the same for the tasks of a caller. So
    a flood of one, or for one task, cannot starve another; nobody saves up; and as the level rises with each
    job, those who keep coming cannot starve who waits. Nobody waiting has had more than the level, so that
    who does not wait can be forgotten.

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
        self._level = 0
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
            _Entry(job, cost, deadline, caller, task, place, index)
            for index, (job, cost) in enumerate(zip(jobs, costs, strict=True))
        ]
        place.jobs = place.waiting = len(made)
        self._unmade -= 1
        for entry in made:
            self._enqueue(entry)
        if not made:
            return []
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._clock(), 0.0)):
                return await place.answer
        except TimeoutError:
            raise DeadlineError("The time was up before the expert had answered.") from None
        finally:
            place.answer.cancel()
            for entry in made:
                if entry.waits:
                    self._take_out(entry)

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

    def _enqueue(self, entry: _Entry[JobT, ResultT]) -> None:
        own = self._callers.setdefault(entry.caller, _Caller(self._level))
        own.groups.setdefault(entry.task, _Group(own.level)).waiting.append(entry)
        self._waiting += 1
        if not self._pump_due:  # once per turn of the loop, so that requests of one turn share a batch
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _charge(self, entry: _Entry[JobT, ResultT]) -> None:
        own = self._callers[entry.caller]
        group = own.groups[entry.task]
        group.had += entry.cost
        own.level = max(own.level, group.had)
        own.had += entry.cost
        self._level = max(self._level, own.had)

    def _take_out(self, entry: _Entry[JobT, ResultT]) -> None:
        own = self._callers[entry.caller]
        group = own.groups[entry.task]
        group.waiting.remove(entry)
        if not group.waiting:
            del own.groups[entry.task]
        if not own.groups:
            del self._callers[entry.caller]
        entry.waits = False
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
        while (entry := self._next()) is not None:
            answer = entry.place.answer
            live = not answer.done() and (entry.deadline is None or entry.deadline > now)
            if live and batch and spent + entry.cost > self._max_batch_cost:
                break
            if live:
                batch.append(entry)
                spent += entry.cost
                self._charge(entry)
            elif not answer.done():
                answer.set_exception(DeadlineError("The time was up while the request waited."))
            self._take_out(entry)
        return batch

    def _next(self) -> _Entry[JobT, ResultT] | None:
        neediest = min(reversed(self._callers.values()), key=_Caller.had_after_next, default=None)
        return neediest.next() if neediest is not None else None

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
