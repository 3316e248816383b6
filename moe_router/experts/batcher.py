"""Joins concurrent requests into batches for a device that runs one batch, or a few, at a time.

A batch is formed at the moment a slot is free, from what has come in by then: an idle device
takes a request at once, and batches grow only because others run. There is no timer. asyncio only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moe_router.errors import DeadlineError, MoleError, NotReadyError
from moe_router.experts.admission import Admission, Place
from moe_router.experts.frames import without_frames
from moe_router.experts.turns import Turns
from moe_router.tally import SizeTally

logger = logging.getLogger(__name__)

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
MadeT = TypeVar("MadeT")

MAKERS = 2
"""Requests whose jobs are made at a time: one with a long text does not keep the next from its turn."""
REST = 0.25
"""Of a batch's bound: so much more it may cost where nothing of its kind is then left. A rest in a batch of
its own has the device read all weights once more for a few tokens."""
MOST_DEBTS = 256
"""Of so many who are gone it is remembered what they have had above the level; then the least is let go."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[JobT, ResultT]):
    job: JobT
    cost: int
    deadline: float | None
    task: str
    kind: str
    place: Place[ResultT]
    index: int
    waits: bool = True


class _Debts:
    """What those who are gone have had of the device, where that is more than the level."""

    def __init__(self) -> None:
        self._had: dict[str, int] = {}

    def start(self, name: str, level: int) -> int:
        """Where one who comes, or comes back, starts."""
        return max(level, self._had.pop(name, 0))

    def note(self, name: str, had: int, level: int) -> None:
        """One is gone, having had so much; what the level has passed is forgotten."""
        self._had[name] = had
        self._had = {name: had for name, had in self._had.items() if had > level}
        if len(self._had) > MOST_DEBTS:
            del self._had[min(self._had, key=self._had.__getitem__)]

    def add(self, name: str, more: int, level: int) -> None:
        """Charges one who is gone."""
        self.note(name, self.start(name, level) + more, level)


@dataclass(slots=True)
class _Group(Generic[JobT, ResultT]):
    """A caller's waiting jobs for one task, and how much of the device they have had."""

    had: int
    waiting: OrderedDict[_Entry[JobT, ResultT], None] = field(default_factory=OrderedDict)
    """Keyed, so that each of a long text's jobs is soon taken out."""


@dataclass(slots=True)
class _Caller(Generic[JobT, ResultT]):
    """A caller's groups by task, how much of the device they have had in all, and where a new one starts."""

    had: int
    groups: dict[str, _Group[JobT, ResultT]] = field(default_factory=dict)
    level: int = 0
    debts: _Debts = field(default_factory=_Debts)

    def next(self, kind: str | None) -> _Entry[JobT, ResultT] | None:
        """The next of a kind, or of any."""
        found, least = None, 0
        # Reversed: of equals who came last, since the other one was served while it was away.
        for group in reversed(self.groups.values()):
            entry = next(iter(group.waiting))
            if kind is None or entry.kind == kind:
                after = group.had + entry.cost
                if found is None or after < least:
                    found, least = entry, after
        return found


class Batcher(Generic[JobT, ResultT]):
    """A bounded queue in front of a blocking function that takes batches.

    A request takes a place before its jobs are made, so that one too many is refused before it costs
    anything; who waits for them to be made takes turns, too. Where the queue is full, who holds most of it
    makes room (`Admission`). Jobs of different kinds share no batch: those that are soon done would wait for
    the others.

    Fair between callers, and between the tasks of each, by self-clocked fair queueing (Golestani 1994): the
    next job is of the waiting caller that will with it have had least of the device, and what that one has
    then had is the level at which who comes, or comes back, starts; the same for the tasks of a caller. So
    a flood of one, or for one task, cannot starve another; nobody saves up; and as the level rises with each
    job, those who keep coming cannot starve who waits. What a job took beyond its cost is charged after its
    batch, to its caller alone: would the level rise by it, who comes would stand behind all that wait since
    before. For the same reason a job that only fills up a batch of its kind raises it no further than to
    what the next in turn will have had. Who is gone with more than the level is remembered until it has
    passed that.

    Args:
        run: computes a batch in a thread; returns one result, or exception, per job in their order.
        max_batch_cost: bound on the sum of the costs in a batch, or `REST` more where that takes in all that
            waits of a kind; a job that costs more than that goes alone.
        max_queue: bound on the requests that wait, those of many jobs counted as several.
        max_in_flight: batches that may run at a time.
        beyond: what a job has taken beyond its cost, by its result.
        clock: seconds, the one that deadlines are given in.
    """

    def __init__(
        self,
        run: Callable[[Sequence[JobT]], Sequence[ResultT | BaseException]],
        *,
        max_batch_cost: int,
        max_queue: int,
        max_in_flight: int = 1,
        beyond: Callable[[ResultT], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch_cost = max_batch_cost
        self._max_in_flight = max_in_flight
        self._beyond = beyond
        self._clock = clock
        self._admission: Admission[ResultT] = Admission(max_queue)
        self._callers: dict[str, _Caller[JobT, ResultT]] = {}
        self._level = 0
        self._debts = _Debts()
        self._unmade = 0
        self._waiting = 0
        self._kinds: Counter[str] = Counter()
        self._costs: Counter[str] = Counter()
        """of what waits, by kind"""
        self._running: set[asyncio.Task[None]] = set()
        self._computing = 0
        self._pump_due = False
        self._closed = False
        self._idle = asyncio.Event()
        self.batches = SizeTally()
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="engine")
        self._makers = Turns(MAKERS, "prepare")

    @property
    def depth(self) -> int:
        """Jobs that are being made, wait or are being computed."""
        return self._unmade + self._waiting + self._computing

    @contextmanager
    def place(self, caller: str, deadline: float | None = None) -> Iterator[Place[ResultT]]:
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
        place = self._admission.enter(caller)
        self._unmade += 1
        try:
            yield place
        finally:
            if place.jobs is None:
                self._unmade -= 1
            self._leave(place)
            place.forget()

    async def make(
        self,
        place: Place[ResultT],
        do: Callable[[], MadeT],
        *,
        task: str,
        at_least: int = 1,
        deadline: float | None = None,
    ) -> MadeT:
        """Makes an admitted request's jobs, in a thread; callers, and the tasks of each, take turns.

        Args:
            place: the request's.
            do: makes them.
            task: whose expert it is for.
            at_least: so many jobs there will be, as far as is known.
            deadline: seconds of the clock.

        Raises:
            OverloadedError: the queue is full for so many jobs, or the place had to make room for others.
            DeadlineError: the time is up.
        """
        self._admission.grow(place, at_least)
        async with self._in_time(deadline):
            made = await self._makers.run(place.caller, task, do, place.answer)
        if made is None:
            await place.answer
        assert made is not None  # noqa: S101  the answer was an error
        return made

    async def run(
        self,
        place: Place[ResultT],
        jobs: Sequence[JobT],
        *,
        costs: Sequence[int],
        task: str,
        kind: str = "",
        deadline: float | None = None,
    ) -> list[ResultT]:
        """Queues the jobs of an admitted request and waits for all results, in order.

        The first failure, or a cancellation, takes the rest out of the queue.

        Raises:
            OverloadedError: the queue is full for so many jobs, or the place had to make room for others.
            DeadlineError: the time was up before the results came.
        """
        if place.settled:  # it had to make room for others
            return await place.answer
        self._admission.grow(place, len(jobs))
        made = [
            _Entry(job, cost, deadline, task, kind, place, index)
            for index, (job, cost) in enumerate(zip(jobs, costs, strict=True))
        ]
        place.jobs = place.waiting = len(made)
        self._unmade -= 1
        for entry in made:
            self._enqueue(entry)
        if not made:
            return []
        try:
            async with self._in_time(deadline):
                return await place.answer
        finally:
            place.answer.cancel()
            for entry in made:
                if entry.waits:
                    self._take_out(entry)

    async def submit(
        self, job: JobT, *, cost: int, caller: str, task: str, kind: str = "", deadline: float | None = None
    ) -> ResultT:
        """Runs a request of one job that is made already; raises as `place` and `run`."""
        with self.place(caller, deadline) as place:
            [result] = await self.run(place, [job], costs=[cost], task=task, kind=kind, deadline=deadline)
            return result

    @asynccontextmanager
    async def _in_time(self, deadline: float | None) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._clock(), 0.0)):
                yield
        except TimeoutError:
            raise DeadlineError("The time was up before the expert had answered.") from None

    async def drain(self) -> None:
        """Takes nothing more, and waits until all that was taken is answered."""
        self._closed = True
        while self._running or self._admission.held:
            self._idle.clear()
            await self._idle.wait()

    async def aclose(self) -> None:
        """Drains, then lets the threads go."""
        await self.drain()
        self._makers.close()
        self._threads.shutdown(wait=False)

    def _enqueue(self, entry: _Entry[JobT, ResultT]) -> None:
        caller = entry.place.caller
        own = self._callers.get(caller)
        if own is None:
            own = self._callers[caller] = _Caller(self._debts.start(caller, self._level))
        group = own.groups.get(entry.task)
        if group is None:
            group = own.groups[entry.task] = _Group(own.debts.start(entry.task, own.level))
        group.waiting[entry] = None
        self._waiting += 1
        self._kinds[entry.kind] += 1
        self._costs[entry.kind] += entry.cost
        if not self._pump_due:  # once per turn of the loop, so that requests of one turn share a batch
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _charge(self, entry: _Entry[JobT, ResultT]) -> None:
        """Charges a job that is in the queue still, so that there is a next in turn."""
        own = self._callers[entry.place.caller]
        group = own.groups[entry.task]
        group.had += entry.cost
        if (following := own.next(None)) is not None:
            after = own.groups[following.task].had + following.cost
            own.level = max(own.level, min(group.had, after))
        own.had += entry.cost
        level = own.had
        # Where all are of one kind none will have had less than who is served; to look at each takes time.
        if len(self._kinds) > 1 and (following := self._next(None)) is not None:
            level = min(level, self._callers[following.place.caller].had + following.cost)
        self._level = max(self._level, level)

    def _charge_beyond(
        self, batch: Sequence[_Entry[JobT, ResultT]], results: Sequence[ResultT | BaseException]
    ) -> None:
        if self._beyond is None:
            return
        for entry, result in zip(batch, results, strict=True):
            more = 0 if isinstance(result, BaseException) else self._beyond(result)
            own = self._callers.get(entry.place.caller)
            if own is None:
                self._debts.add(entry.place.caller, more, self._level)
                continue
            own.had += more
            if (group := own.groups.get(entry.task)) is not None:
                group.had += more
            else:
                own.debts.add(entry.task, more, own.level)

    def _take_out(self, entry: _Entry[JobT, ResultT]) -> None:
        own = self._callers[entry.place.caller]
        group = own.groups[entry.task]
        del group.waiting[entry]
        if not group.waiting:
            del own.groups[entry.task]
            own.debts.note(entry.task, group.had, own.level)
        if not own.groups:
            del self._callers[entry.place.caller]
            self._debts.note(entry.place.caller, own.had, self._level)
        entry.waits = False
        self._waiting -= 1
        self._kinds[entry.kind] -= 1
        self._costs[entry.kind] -= entry.cost
        if not self._kinds[entry.kind]:
            del self._kinds[entry.kind], self._costs[entry.kind]
        entry.place.waiting -= 1
        if not entry.place.waiting:
            self._leave(entry.place)

    def _leave(self, place: Place[ResultT]) -> None:
        self._admission.leave(place)
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
        kind: str | None = None
        spent, most = 0, self._max_batch_cost
        now = self._clock()
        while (entry := self._next(kind)) is not None:
            place = entry.place
            live = not place.settled and (entry.deadline is None or entry.deadline > now)
            if live and batch and spent + entry.cost > most:
                break
            if live:
                if not batch and self._costs[entry.kind] <= most * (1 + REST):
                    most = self._costs[entry.kind]
                batch.append(entry)
                kind = entry.kind
                place.begun = True
                spent += entry.cost
                self._charge(entry)
            elif not place.settled:
                place.refuse(DeadlineError("The time was up while the request waited."))
            self._take_out(entry)
        return batch

    def _next(self, kind: str | None) -> _Entry[JobT, ResultT] | None:
        found, least = None, 0
        for own in reversed(self._callers.values()):
            entry = own.next(kind)
            if entry is not None:
                after = own.had + entry.cost
                if found is None or after < least:
                    found, least = entry, after
        return found

    async def _compute(self, batch: Sequence[_Entry[JobT, ResultT]]) -> None:
        jobs = [entry.job for entry in batch]
        results: Sequence[ResultT | BaseException]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, jobs)
            self._charge_beyond(batch, results)
        except Exception as error:
            if not isinstance(error, MoleError):
                logger.error("a batch failed", exc_info=error)
            results = [without_frames(error)] * len(batch)
        finally:
            self._computing -= len(batch)
            self._running.discard(asyncio.current_task())
            self._idle.set()
            self._pump()
        for entry, result in zip(batch, results, strict=True):
            entry.place.take(entry.index, result)
