"""Works jobs off in the background, behind the requests that somebody waits for."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.services.jobs.turns import Turns
from app.storage.job_records import ClaimedItem, ItemOutcome
from moe_router.errors import StorageError

logger = logging.getLogger(__name__)

GIVE_WAY_S = 0.05
"""How long an item waits before it looks anew whether requests are in flight."""
IDLE_S = 1.0
"""Between two looks for jobs that other processes took, and for leases that ran out."""
RETRY_S = 1.0
"""After a failure, of the database or of our own."""
LINGER_S = 0.1
"""How long a finished item waits for others, to be written with them."""
BATCH = 32
"""Items in one transaction."""
CLAIMED_AHEAD = 2
"""Times the concurrency: items claimed at once, so that no slot waits for the database."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
LONGEST_PAUSE_S = 5.0
CLOSE_TIMEOUT_S = 5.0


class Leases(Protocol):
    """A `JobLeases`."""

    async def claim(self, limit: int, *, now: float, waiting: Mapping[str, int] = ...) -> list[ClaimedItem]:
        """Takes items, of each owner its share with what waits already."""

    async def renew(self, items: Sequence[ClaimedItem], *, now: float) -> None:
        """Prolongs their leases."""

    async def release(self, items: Sequence[ClaimedItem]) -> None:
        """Gives them back."""

    async def finish(self, outcomes: Sequence[ItemOutcome], *, now: float) -> None:
        """Writes what came of them."""


class Executor(Protocol):
    """Runs one item; raises nothing but a cancellation."""

    async def run(self, item: ClaimedItem) -> ItemOutcome:
        """Its answer, its error, or that it should be tried again."""

    def give_up(self, item: ClaimedItem) -> ItemOutcome:
        """Its error where no attempt is left, as after crashes in the middle of each."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much runs at once, and for how long it is tried; `lease_s` in seconds."""

    concurrency: int
    max_attempts: int
    lease_s: float


class JobRunner:
    """One for each process; several on one database share the work.

    Args:
        leases: what the processes agree by.
        executor: runs an item.
        pace: bounds.
        ready: whether items can be run now.
        interactive: requests in flight now; each takes a slot away from jobs, down to one.
        count: told the kind of each outcome.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        leases: Leases,
        executor: Executor,
        pace: Pace,
        *,
        ready: Callable[[], bool],
        interactive: Callable[[], int],
        count: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._leases = leases
        self._executor = executor
        self._pace = pace
        self._ready = ready
        self._interactive = interactive
        self._count = count
        self._clock = clock
        self._held: dict[tuple[str, int], ClaimedItem] = {}
        """claimed, and not yet written as finished"""
        self._turns = Turns()
        self._look_at = 0.0
        """by the loop's clock, when others' jobs are looked for although items wait"""
        self._patient_until = math.inf
        """by the loop's clock, how long a place is kept for somebody whose items are being claimed"""
        self._running: dict[asyncio.Task[None], ClaimedItem] = {}
        self._finished: deque[ItemOutcome] = deque()
        self._fruitless = 0
        """outcomes in a row that were none"""
        self._woken, self._freed, self._filled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._operations: set[asyncio.Task[None]] = set()
        """of the database, under way"""

    def start(self) -> None:
        """Begins to work, where the concurrency is not 0."""
        if self._pace.concurrency:
            loops = (self._look, self._dispatch, self._write, self._renew)
            self._loops = [asyncio.create_task(_kept_up(work)) for work in loops]

    def wake(self) -> None:
        """There may be something to do."""
        self._look_at = 0.0
        self._woken.set()

    def stop(self, job_id: str) -> None:
        """Ends the work on a job that was cancelled; what another process holds of it runs to its end."""
        for key in [key for key, item in self._held.items() if item.job_id == job_id]:
            del self._held[key]
        self._turns.drop(job_id)
        for task in [task for task, item in self._running.items() if item.job_id == job_id]:
            task.cancel()

    async def aclose(self) -> None:
        """Stops at once: writes what is finished, and gives back what is not."""
        ending = [*self._loops, *self._running]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._operations:
                    await asyncio.wait(self._operations)
                while self._finished:
                    await self._flush()
                if self._held:
                    await self._leases.release(list(self._held.values()))
        except (StorageError, TimeoutError):
            logger.warning("%d items of jobs wait until their leases run out", len(self._held))

    async def _dispatch(self) -> None:
        while True:
            self._freed.clear()
            if not self._turns:
                await _wait(self._freed, IDLE_S)
            elif self._may_begin():
                item = self._turns.next(self._under_way())
                task = asyncio.create_task(self._work(item))
                self._running[task] = item
                task.add_done_callback(self._end)
                self._woken.set()
            else:
                await _wait(self._freed, GIVE_WAY_S)

    @property
    def running(self) -> int:
        """Items under way."""
        return len(self._running)

    def _allowed(self) -> int:
        return max(1, self._pace.concurrency - self._interactive())

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._freed.set()
        self._woken.set()

    def _under_way(self) -> Counter[str]:
        return Counter(item.owner for item in self._running.values())

    def _wants_more(self) -> bool:
        """Whether nothing waits, or what waits may not be what should run next."""
        if not self._ready() or len(self._finished) >= BATCH:
            return False
        due = asyncio.get_running_loop().time() >= self._look_at
        return not self._turns or due or self._turns.overlook(self._under_way())

    def _may_begin(self) -> bool:
        """Whether a place is free, and not for somebody whose items will be claimed in a moment."""
        free = self._ready() and len(self._running) < self._allowed()
        impatient = asyncio.get_running_loop().time() >= self._patient_until
        return free and (impatient or not self._turns.overlook(self._under_way()))

    async def _look(self) -> None:
        """Claims when that is wanted; what waits goes on meanwhile, however long the database takes."""
        while True:
            self._woken.clear()
            if self._wants_more():
                await self._look_once()
            await _wait(self._woken, IDLE_S)

    async def _look_once(self) -> None:
        time = asyncio.get_running_loop().time
        self._look_at, self._patient_until = math.inf, time() + IDLE_S
        try:
            await self._pause()
            await self._whole(self._claim())
        except StorageError:  # logged where it arose
            self._turns.add(())
            if not self._turns:
                await asyncio.sleep(RETRY_S)
        finally:
            self._look_at = min(self._look_at, time() + IDLE_S)  # earlier where it was woken meanwhile
            self._patient_until = math.inf
            self._freed.set()

    async def _pause(self) -> None:
        """Where no worker is to be had, does not run through a whole job in vain."""
        rounds = self._fruitless // (CLAIMED_AHEAD * self._pace.concurrency)
        if rounds:
            await asyncio.sleep(min(0.1 * 2 ** min(rounds, 10), LONGEST_PAUSE_S))

    async def _claim(self) -> None:
        limit, waiting = CLAIMED_AHEAD * self._pace.concurrency, self._turns.waiting
        found = await self._leases.claim(limit, now=self._clock(), waiting=waiting)
        # An item whose lease ran out while it runs here still is not run twice here.
        fresh = [item for item in found if item.key not in self._held]
        self._held.update({item.key: item for item in fresh})
        self._turns.add(fresh)

    async def _whole(self, operation: Coroutine[Any, Any, None]) -> None:
        """Lets an operation of the database come to its end whatever happens to who waits for it.

        Cut off in the middle it would leave items claimed that nobody here knows of.
        """
        task = asyncio.create_task(operation)
        self._operations.add(task)
        task.add_done_callback(self._end_operation)
        await asyncio.shield(task)

    def _end_operation(self, task: asyncio.Task[None]) -> None:
        self._operations.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits for it any more

    async def _work(self, item: ClaimedItem) -> None:
        if item.attempts > self._pace.max_attempts:
            outcome = self._executor.give_up(item)
        else:
            outcome = await self._executor.run(item)
        if outcome.kind == "retry":
            self._fruitless += 1
            if item.attempts >= self._pace.max_attempts:
                outcome = replace(outcome, kind="failed")
            else:
                outcome = replace(outcome, retry_at=self._clock() + backoff_s(item.attempts))
        else:
            self._fruitless = 0
        self._count(outcome.kind)
        self._finished.append(outcome)
        self._filled.set()

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(LINGER_S if len(self._finished) < BATCH else 0)
            try:
                while self._finished:
                    await self._whole(self._flush())
                self._filled.clear()
            except StorageError:  # logged where it arose; the outcomes wait
                await asyncio.sleep(RETRY_S)

    async def _flush(self) -> None:
        batch = [self._finished[i] for i in range(min(BATCH, len(self._finished)))]
        await self._leases.finish(batch, now=self._clock())
        for outcome in batch:
            self._finished.popleft()
            self._held.pop(outcome.item.key, None)
        self._woken.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._pace.lease_s / 3)
            try:
                if self._held:
                    await self._whole(self._leases.renew(list(self._held.values()), now=self._clock()))
            except StorageError:  # others may take them meanwhile; whoever finishes second is not counted
                continue


def backoff_s(attempts: int) -> float:
    """Seconds to wait after so many attempts: 1, 2, 4, … 60."""
    return min(FIRST_BACKOFF_S * 2.0 ** min(attempts - 1, 10), LONGEST_BACKOFF_S)


async def _kept_up(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A loop that nothing but a cancellation ends: without it jobs would stand still until a restart."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("the work on jobs failed, and goes on")
        await asyncio.sleep(RETRY_S)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
