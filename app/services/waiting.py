"""A waiting room in front of something scarce, fair between callers."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from moe_router.errors import MoleError, OverloadedError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiter(Generic[T]):
    take: Callable[[], T | None]
    granted: asyncio.Future[T]


class WaitingRoom(Generic[T]):
    """Grants what gets free to the caller who holds least of it, the longest unserved first.

    So one caller's thousand waiting requests delay another's single one by no more than what is under way.
    Used from one event loop.

    Args:
        max_waiting: bound on those who wait. In a full room the caller who has most waiting loses its newest.
        give_back: undoes a caller's grant that was cancelled before it could be used.
    """

    def __init__(self, max_waiting: int, give_back: Callable[[T, str], None]) -> None:
        self._max_waiting = max_waiting
        self._give_back = give_back
        self._queues: OrderedDict[str, deque[_Waiter[T]]] = OrderedDict()  # the longest unserved first
        self._held: Counter[str] = Counter()
        self.waiting = 0

    @property
    def busy(self) -> bool:
        """Whether something is granted or waited for."""
        return bool(self._held or self._queues)

    def held(self, caller: str) -> int:
        """What the caller has been granted and not given back."""
        return self._held.get(caller, 0)

    async def enter(self, caller: str, take: Callable[[], T | None]) -> T:
        """Waits for a grant; `leave` ends it.

        Args:
            caller: whose request it is.
            take: takes what is wanted, or returns None where it must wait; raises a MoleError where waiting
                makes no sense.

        Raises:
            OverloadedError: the room is full.
            MoleError: what `take` raises.
        """
        taken = self.try_enter(caller, take)
        if taken is not None:
            return taken
        waiter = _Waiter(take, asyncio.get_running_loop().create_future())
        self._enqueue(caller, waiter)
        self.poke()
        try:
            granted: T = await waiter.granted
            return granted
        except asyncio.CancelledError:
            self._withdraw(caller, waiter)
            raise

    def try_enter(self, caller: str, take: Callable[[], T | None]) -> T | None:
        """The same without waiting: None where it would have to wait.

        Raises:
            MoleError: what `take` raises.
        """
        if self._queues:  # nobody is overtaken
            return None
        taken = take()
        if taken is not None:
            self._held[caller] += 1
        return taken

    def leave(self, caller: str) -> None:
        """The caller has given back what it was granted; the next is let in."""
        self._held[caller] -= 1
        if self._held[caller] <= 0:
            del self._held[caller]
        if self._queues:
            self.poke()

    def poke(self) -> None:
        """Something may have got free: grants what can be granted."""
        while self._grant_one():
            pass

    def _grant_one(self) -> bool:
        for caller in sorted(self._queues, key=lambda name: self._held[name]):  # stable: order of the dict
            waiter = self._queues[caller][0]
            if waiter.granted.done():  # cancelled, and not yet run to leave the queue itself
                self._remove(caller, waiter)
                return True
            try:
                taken = waiter.take()
            except MoleError as error:
                waiter.granted.set_exception(error)
            else:
                if taken is None:
                    continue
                self._held[caller] += 1
                waiter.granted.set_result(taken)
            self._remove(caller, waiter)
            if caller in self._queues:
                self._queues.move_to_end(caller)
            return True
        return False

    def _enqueue(self, caller: str, waiter: _Waiter[T]) -> None:
        if self.waiting >= self._max_waiting:
            greediest = max(self._queues, key=lambda name: len(self._queues[name]))
            full = OverloadedError(f"{self.waiting} requests are waiting already.")
            if len(self._queues[greediest]) <= len(self._queues.get(caller, ())) + 1:
                raise full
            newest = self._queues[greediest][-1]
            if not newest.granted.done():
                newest.granted.set_exception(full)
            self._remove(greediest, newest)
        self._queues.setdefault(caller, deque()).append(waiter)
        self.waiting += 1

    def _withdraw(self, caller: str, waiter: _Waiter[T]) -> None:
        granted = waiter.granted
        if not granted.done() or granted.cancelled():
            self._remove(caller, waiter)
        elif granted.exception() is None:
            self._give_back(granted.result(), caller)
            self.leave(caller)

    def _remove(self, caller: str, waiter: _Waiter[T]) -> None:
        queue = self._queues.get(caller)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self.waiting -= 1
        if not queue:
            del self._queues[caller]


class FairGate:
    """So many at a time, fair between callers."""

    def __init__(self, places: int, max_waiting: int) -> None:
        self._free = places
        self._room: WaitingRoom[bool] = WaitingRoom(max_waiting, self._give_back)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._room.waiting

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Holds a place while the block runs.

        Raises:
            OverloadedError: too many wait.
        """
        await self._room.enter(caller, self._take)
        try:
            yield
        finally:
            self._free += 1
            self._room.leave(caller)

    def _take(self) -> bool | None:
        if not self._free:
            return None
        self._free -= 1
        return True

    def _give_back(self, _place: bool, _caller: str) -> None:
        self._free += 1
